"""Reads where records and mail under way are kept:

    sqlite:                                         two files in data_dir
    mongodb://host:27017/onward?replicaSet=rs0      a MongoDB that several nodes share: its servers, and a database
    mongodb+srv://host/onward                       the same by the name of a service (SRV records of the DNS)

Before the hosts may stand a user and an @. A password never does: it is a secret. Behind the question mark may stand
what OPTIONS has, under the names that MongoDB gives it. What the promise to a sender hangs on (how a write is
acknowledged, and how long to wait) is not for a URL to say.

No error repeats anything of such a URL: somebody may have written a password into it.
"""

import ipaddress
import re
from typing import Final
from urllib.parse import parse_qsl, quote, unquote

from appliance.configuration.values import Impossible, domain, text

SQLITE: Final = "sqlite:"
"""In place of a MongoDB: files of this machine."""

PORT = 27017

OPTIONS: Final = (
    "replicaSet",
    "tls",
    "tlsCAFile",
    "tlsCertificateKeyFile",
    "authSource",
    "authMechanism",
    "directConnection",
    # In URLs that hosts of MongoDB hand out. They change nothing here.
    "retryWrites",
    "w",
    "appName",
)

MECHANISMS: Final = ("SCRAM-SHA-256", "SCRAM-SHA-1", "MONGODB-X509")
"""How who we are can be proven: by a password, or by a certificate. All else wants programs that are not in here."""

_ADVICE = (
    'write "sqlite:", or the URL of a MongoDB, like "mongodb://user@host/onward?replicaSet=rs0" or '
    '"mongodb+srv://host/onward"'
)
_DATABASE = re.compile(r"[A-Za-z0-9_-]{1,63}", re.ASCII)
"""What a database may be called on every system that a server runs on."""


def sqlite_or_mongodb(value: object) -> str:
    """The URL of a MongoDB as it is written, or `sqlite:`."""
    url = text(value)
    if url == SQLITE:
        return url
    if url.startswith(SQLITE):
        raise Impossible('names a file; write "sqlite:", and data_dir for where the files are')
    scheme, _, rest = url.partition("://")
    if scheme not in ("mongodb", "mongodb+srv") or not rest:
        raise Impossible(f"is neither SQLite nor the URL of a MongoDB; {_ADVICE}")
    rest, _, query = rest.partition("?")
    authority, _, database = rest.partition("/")
    user, at, hosts = authority.rpartition("@")
    if ":" in user:
        raise Impossible(
            "has a password in it; take it out, and write it into the file mongodb-password of the secrets"
        )
    if (at and not user) or "@" in user or not unquote(user).isprintable():
        raise Impossible(f"has no user before the @; {_ADVICE}")
    if scheme == "mongodb+srv" and ("," in hosts or ":" in hosts):
        raise Impossible("names more than one host, or a port, with mongodb+srv: the DNS says those")
    for host in hosts.split(","):
        _check_host(host)
    if database and not _DATABASE.fullmatch(database):
        raise Impossible(f"has no name of a database behind the hosts; {_ADVICE}")
    _check_options(query)
    return url


def user_of(url: str) -> str:
    """The user that the URL of a MongoDB names; empty where there is none."""
    return unquote(url.partition("://")[2].partition("/")[0].rpartition("@")[0])


def with_password(url: str, password: str) -> str:
    """The URL with this password behind its user."""
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    user, _, hosts = authority.rpartition("@")
    return f"{scheme}://{user}:{quote(password, safe='')}@{hosts}{slash}{path}"


def _check_host(written: str) -> None:
    found = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?", written, re.ASCII)
    if found is None:
        raise Impossible(f"has no host with a port where one should be; {_ADVICE}")
    if not 1 <= int(found[2] or PORT) <= 65535:
        raise Impossible("has no possible port; write one from 1 to 65535 behind each colon")
    try:
        if found[1].startswith("["):
            ipaddress.IPv6Address(found[1][1:-1])
        elif re.fullmatch(r"[0-9.]+", found[1], re.ASCII):
            ipaddress.IPv4Address(found[1])
        elif found[1] != "localhost":
            domain(found[1].removesuffix("."))
    except ValueError:
        raise Impossible(f"has something in the place of a host that is none; {_ADVICE}") from None


def _check_options(query: str) -> None:
    seen = set()
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in OPTIONS:
            raise Impossible(f"says something behind the question mark that is none of {', '.join(OPTIONS)}")
        if name in seen or not value:
            raise Impossible(f"has {name} without a value, or twice")
        seen.add(name)
        if name in ("tls", "directConnection", "retryWrites") and value not in ("true", "false"):
            raise Impossible(f"has {name} as neither true nor false")
        if name == "authMechanism" and value not in MECHANISMS:
            raise Impossible(f"has an authMechanism that is none of {', '.join(MECHANISMS)}")
        if name == "w" and value != "majority":
            raise Impossible("wants writes to be acknowledged by less than a majority; leave w out")
