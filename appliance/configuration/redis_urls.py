"""Reads where a Redis is:

    redis://host:6379/0                                     one server, and the number of a database
    redis+sentinel://host:26379,host2:26379/mymaster/0      three or more Sentinels, and what they call the server
    rediss://...  rediss+sentinel://...                     the same over TLS

Before the host may stand a user and an @. A password never does: it is a secret. Behind a question mark may stand, for
TLS, `tlsCAFile` (certificates of those whose word is taken, in place of those that the machine knows) and
`tlsCertificateKeyFile` (our own certificate with its key, for a server that asks): the paths of PEM files, under the
names that they have in the URL of a MongoDB.

No error repeats anything of such a URL: somebody may have written a password into it.
"""

import ipaddress
import re
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote

from appliance.configuration.values import Impossible, domain, text
from appliance.storage.redis_address import RedisAddress

MEMORY: Final = "memory:"
"""In place of a Redis: the memory of each process."""

SERVER_PORT = 6379
SENTINEL_PORT = 26379

LAST_DATABASE = 9999
"""A server has sixteen unless it is told otherwise, and never so many."""

_SENTINEL = "+sentinel"
_ADVICE = (
    'write "memory:", or the URL of a Redis, like "redis://user@host:6379/0" or '
    '"redis+sentinel://host:26379,host2:26379/mymaster/0", with rediss in place of redis for TLS'
)
_FILES = {"tlsCAFile": "authorities", "tlsCertificateKeyFile": "certificate"}
_SERVICE = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
"""What Sentinel takes for a name (`sentinel monitor`)."""


def redis_or_none(value: object) -> RedisAddress | None:
    """A Redis, or None for `memory:`."""
    url = text(value)
    if url == MEMORY:
        return None
    scheme, found, rest = url.partition("://")
    scheme = scheme.lower()
    by_sentinels = scheme.endswith(_SENTINEL)
    if not found or scheme.removesuffix(_SENTINEL) not in ("redis", "rediss"):
        raise Impossible(f"is not the URL of a Redis; {_ADVICE}")
    tls = scheme.startswith("rediss")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    user, at, hosts = authority.rpartition("@")
    if ":" in user:
        raise Impossible("has a password in it; take it out, and write it into the file redis-password of the secrets")
    user = unquote(user)
    if (at and not user) or not user.isprintable():
        raise Impossible(f"has no user before the @; {_ADVICE}")
    service, database = _service_and_database(path, by_sentinels)
    port = SENTINEL_PORT if by_sentinels else SERVER_PORT
    addresses = tuple(_host_and_port(each, port) for each in hosts.split(","))
    if len(addresses) > 1 and not by_sentinels:
        raise Impossible(f"names several hosts without Sentinels; {_ADVICE}")
    return RedisAddress(hosts=addresses, service=service, database=database, user=user, tls=tls, **_files(query, tls))


def _service_and_database(path: str, by_sentinels: bool) -> tuple[str, int]:
    service = ""
    if by_sentinels:
        service, _, path = path.partition("/")
        if not _SERVICE.fullmatch(service):
            raise Impossible(f"does not say behind the hosts what the Sentinels call the server; {_ADVICE}")
    if not re.fullmatch(r"[0-9]{0,4}", path, re.ASCII):
        raise Impossible(f"has no number of a database at its end, from 0 to {LAST_DATABASE}; {_ADVICE}")
    return service, int(path or 0)


def _host_and_port(written: str, usual: int) -> tuple[str, int]:
    found = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?", written, re.ASCII)
    if found is None:
        raise Impossible(f"has no host with a port where one should be; {_ADVICE}")
    port = int(found[2] or usual)
    if not 1 <= port <= 65535:
        raise Impossible("has no possible port; write one from 1 to 65535 behind each colon")
    try:
        if found[1].startswith("["):
            return str(ipaddress.IPv6Address(found[1][1:-1])), port
        if re.fullmatch(r"[0-9.]+", found[1], re.ASCII):
            return str(ipaddress.IPv4Address(found[1])), port
        return domain(found[1].removesuffix(".")), port
    except ValueError:
        raise Impossible(f"has something in the place of a host that is none; {_ADVICE}") from None


def _files(query: str, tls: bool) -> dict[str, str]:
    files = {}
    for name, path in parse_qsl(query, keep_blank_values=True):
        if name not in _FILES:
            raise Impossible(f"says something behind the question mark that is none of {', '.join(_FILES)}")
        if not tls:
            raise Impossible(f"names a file for TLS, and is not for TLS; {_ADVICE}")
        if not path or "\0" in path or _FILES[name] in files:
            raise Impossible(f"has {name} without a file, or twice; write {name}=/etc/onward/redis.pem")
        files[_FILES[name]] = str(Path(path).absolute())
    return files
