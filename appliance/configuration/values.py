"""Readers: each turns one TOML value into ours, or raises Impossible with what is wrong and what would be right.

The text of each Impossible goes behind the name of the key, so it begins with the value or a verb and needs no subject.
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final, Literal, TypeVar
from urllib.parse import unquote, urlsplit

from appliance.model.time import DAY_MS, parse_duration

Value = TypeVar("Value")
Choice = TypeVar("Choice", bound=Enum)
Read = Callable[[object], Value]

FROM_SYSTEMD: Final = "fd"
"""In place of an address to listen on: the sockets that systemd hands over (LISTEN_FDS)."""

LARGEST_SIZE = 1 << 40
"""1 TiB. No message is as large; beyond it a slip of the keyboard is likelier than a wish."""
LONGEST_SPAN_MS = 36_525 * DAY_MS
"""A hundred years: beyond it, instants would leave the years that have four digits."""
LARGEST_COUNT = 1_000_000_000
"""More of anything that is counted here does not fit into one machine."""

_SIZE = re.compile(r"([0-9]{1,15}) ?(B|kB|KB|MB|GB|KiB|kiB|MiB|GiB)?", re.ASCII)
_SIZE_UNITS = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZE_UNITS |= {"kiB": 1 << 10, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*", re.ASCII)

# RFC 1035 §2.3.4: 255 octets on the wire, which are 253 characters of text.
_LONGEST_DOMAIN = 253
# RFC 5321 §4.5.3.1.1
_LONGEST_LOCAL_PART = 64

LONGEST_ADDRESS = 254
"""Characters. RFC 5321 §4.5.3.1.3 gives a path 256, of which two are its brackets."""
LONGEST_SRS_DOMAIN = LONGEST_ADDRESS - len("@") - 42
"""What an address has left for its domain where the local part is a rewritten sender that stands for a stored one."""


class Impossible(ValueError):
    """This value cannot be. The text says what is wrong with it and what would be right."""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """An address and port to listen on. Port 0 lets the kernel choose."""

    host: str
    """An IP address, without brackets."""
    port: int

    def __str__(self) -> str:
        """As it is written in the configuration: `127.0.0.1:25`, `[::1]:25`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class SmarthostAddress:
    """A relay that takes all mail that leaves, and whom it knows us as."""

    host: str
    """A domain name, or an IP address without brackets."""
    port: int
    user: str = ""
    """Empty: there is no login."""
    implicit_tls: bool = False
    """`smtps://`: TLS begins with the connection, and not with STARTTLS."""


def shown(value: object) -> str:
    """A value as it would stand in TOML, for an error."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            text = value if len(value) <= 60 else value[:57] + "..."
            return '"' + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text) + '"'
        case int() if abs(value) > LARGEST_SIZE:
            return "a number as large as this"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return str(value)


def text(value: object) -> str:
    """Any text."""
    if not isinstance(value, str):
        raise Impossible(f'{shown(value)} is not a text; write it in quotes, like "this"')
    return value


def switch(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise Impossible(f"{shown(value)} is neither true nor false; write one of these, without quotes")
    return value


def count(least: int = 1, most: int = LARGEST_COUNT) -> Read[int]:
    """A whole number in this range."""

    def read(value: object) -> int:
        # bool is a kind of int to Python, but not to the person who wrote the file.
        if isinstance(value, bool) or not isinstance(value, int):
            raise Impossible(
                f"{shown(value)} is not a whole number; write one without quotes, such as {max(least, 10)}"
            )
        if not least <= value <= most:
            raise Impossible(f"{shown(value)} is out of range; write a number from {least} to {most}")
        return value

    return read


PORT = count(1, 65535)


def size(value: object) -> int:
    """A number of octets: `50 MiB`, `25 kB`, or a plain number."""
    if isinstance(value, int) and not isinstance(value, bool):
        octets = value
    else:
        found = _SIZE.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            raise Impossible(f'{shown(value)} is not a size; write one like "50 MiB" or "25 kB"')
        octets = int(found[1]) * _SIZE_UNITS[found[2] or "B"]
    if not 1 <= octets <= LARGEST_SIZE:
        raise Impossible(f'{shown(value)} is out of range; write a size from "1 B" to "{LARGEST_SIZE >> 30} GiB"')
    return octets


def span(value: object) -> int:
    """A time span longer than nothing, in milliseconds."""
    if not isinstance(value, str):
        raise Impossible(f'{shown(value)} is not a time span; write one in quotes, like "90s", "1h30m" or "7d"')
    try:
        span_ms = parse_duration(value)
    except ValueError:
        raise Impossible(f'{shown(value)} is not a time span; write one like "90s", "1h30m" or "7d"') from None
    if not 1 <= span_ms <= LONGEST_SPAN_MS:
        raise Impossible(
            f'{shown(value)} is out of range; write a time span from "1ms" to "{LONGEST_SPAN_MS // DAY_MS}d"'
        )
    return span_ms


def span_or_none(value: object) -> int | None:
    """A time span, or None for an empty text."""
    return None if value == "" else span(value)


def choice(choices: type[Choice]) -> Read[Choice]:
    """One word of an Enum."""

    def read(value: object) -> Choice:
        for member in choices:
            if value == member.value:
                return member
        words = ", ".join(f'"{member.value}"' for member in choices)
        raise Impossible(f"{shown(value)} is not possible here; write one of {words}")

    return read


def many(read_one: Read[Value], *, least: int = 0) -> Read[tuple[Value, ...]]:
    """A list of at least this many values, none of them twice."""

    def read(value: object) -> tuple[Value, ...]:
        if not isinstance(value, list):
            raise Impossible(f"{shown(value)} is not a list; write it in brackets: [{shown(value)}]")
        values = tuple(read_one(one) for one in value)
        if len(values) < least:
            raise Impossible("the list is empty; it needs at least one entry")
        return values

    return read


def distinct(read_many: Read[tuple[Value, ...]]) -> Read[tuple[Value, ...]]:
    """The same, and no value twice."""

    def read(value: object) -> tuple[Value, ...]:
        values = read_many(value)
        for place, one in enumerate(values):
            if one in values[:place]:
                raise Impossible(f'"{one}" stands there twice; leave one out')
        return values

    return read


def _address_and_port(value: object, example: str, least_port: int) -> tuple[str, int]:
    host, colon, port = text(value).rpartition(":")
    advice = f'write an IP address and a port, like "{example}" or "[::1]:{example.rpartition(":")[2]}"'
    if not colon or (host.startswith("[") != host.endswith("]")):
        raise Impossible(f"{shown(value)} is not an address with a port; {advice}")
    bracketed = host.startswith("[")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise Impossible(f"{shown(value)} has no IP address before the last colon; {advice}") from None
    if bracketed != (address.version == 6):
        raise Impossible(f"{shown(value)}: an IPv6 address stands in brackets, an IPv4 address does not; {advice}")
    if not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) or not least_port <= int(port) <= 65535:
        raise Impossible(
            f"{shown(value)} has no possible port; write one from {least_port} to 65535 behind the last colon"
        )
    return str(address), int(port)


def listen_address(value: object) -> ListenAddress | Literal["fd"]:
    """Where to listen: `0.0.0.0:25`, `[::]:25`, or `fd`."""
    if value == FROM_SYSTEMD:
        return FROM_SYSTEMD
    return ListenAddress(*_address_and_port(value, "127.0.0.1:2525", 0))


def name_server(value: object) -> tuple[str, int]:
    """The address and port of a DNS server; port 53 where none is written."""
    try:
        return str(ipaddress.ip_address(text(value))), 53
    except ValueError:
        return _address_and_port(value, "127.0.0.1:5353", 1)


def source_address(value: object) -> str:
    """An IP address that a machine can send from."""
    address = ipaddress.ip_address(ip_address(value))
    if address.is_unspecified or address.is_multicast:
        raise Impossible(f"{shown(value)} is nobody's address; write those of this machine that mail is to leave from")
    return str(address)


SUBMISSION_PORT = 587
"""RFC 6409 §3.1: where a user's mail is handed over."""
SUBMISSIONS_PORT = 465
"""RFC 8314 §7.3: the same, with TLS from the first octet on."""
RELAY_PORT = 25
"""RFC 5321 §4.5.4.2: where servers meet."""

_SMARTHOST_ADVICE = 'write it like "smtp://user@relay.example:587"'


def smarthost_or_none(value: object) -> SmarthostAddress | None:
    """A relay as a URL, `smtp://user@relay.example:587`, or None for an empty text.

    Without a port it is 587 where there is a user, 25 where there is none, and 465 for `smtps://`. A user's name may
    itself have an @, or be written in percent-encoding (RFC 3986 §3.2.1).
    """
    url = text(value)
    if not url:
        return None
    scheme, rest = url.split("://", 1) if "://" in url else ("", url)
    user, _, host = rest.rpartition("@")
    if ":" in user:
        # Nothing of it is repeated.
        raise Impossible(
            "has a password in it; take it out, and write it into the file smarthost-password of the secrets"
        )
    implicit_tls = scheme.lower() == "smtps"
    if not implicit_tls and scheme.lower() != "smtp":
        raise Impossible(f"{shown(value)} is not the URL of a relay; {_SMARTHOST_ADVICE}")
    user = unquote(user)
    if ("@" in rest and not user) or not user.isprintable():
        raise Impossible(f"{shown(value)} has no user before the @; {_SMARTHOST_ADVICE}")
    usual = SUBMISSIONS_PORT if implicit_tls else SUBMISSION_PORT if user else RELAY_PORT
    host, port = _host_and_port(value, host, usual)
    return SmarthostAddress(host, port, user, implicit_tls)


def _host_and_port(value: object, written: str, default: int) -> tuple[str, int]:
    """The host and port of a URL's authority: a name, an IPv4 address, or an IPv6 address in brackets."""
    found = re.fullmatch(r"(\[[^\[\]]*\]|[^:/?#\[\]]*)(?::([0-9]*))?/?", written, re.ASCII)
    if found is None:
        raise Impossible(f"{shown(value)} is more, or less, than a host and a port; {_SMARTHOST_ADVICE}")
    if found[2] is not None and not 1 <= int(found[2][:6] or 0) <= 65535:
        raise Impossible(f"{shown(value)} has no possible port; write one from 1 to 65535 behind the last colon")
    port = default if found[2] is None else int(found[2])
    bracketed = found[1].startswith("[")
    try:
        address = ipaddress.ip_address(found[1].strip("[]"))
    except ValueError:
        if bracketed:
            raise Impossible(f"{shown(value)} has no IPv6 address in its brackets") from None
    else:
        if bracketed != (address.version == 6):
            raise Impossible(f"{shown(value)}: an IPv6 address stands in brackets, an IPv4 address does not")
        return str(address), port
    try:
        return domain(found[1].removesuffix(".")), port
    except Impossible:
        raise Impossible(f"{shown(value)} has no host that is one; {_SMARTHOST_ADVICE}") from None


def ip_address(value: object) -> str:
    """An IP address."""
    try:
        return str(ipaddress.ip_address(text(value)))
    except ValueError:
        raise Impossible(f'{shown(value)} is not an IP address; write one like "192.0.2.1" or "2001:db8::1"') from None


def network(value: object) -> str:
    """An IP address or a network of them."""
    try:
        return str(ipaddress.ip_network(text(value)))
    except ValueError:
        raise Impossible(
            f'{shown(value)} is no address or network; write one like "192.0.2.1" or "10.0.0.0/8"'
        ) from None


def domain(value: object) -> str:
    """A domain name in lower case.

    RFC 5321 §2.3.5 wants a fully qualified one, but a machine at home has a single label and is welcome to try things.
    """
    name = text(value).lower()
    if not name.isascii():
        raise Impossible(f"{shown(value)} is not ASCII; write the domain in its ASCII form, which begins with xn--")
    labels = name.split(".")
    # RFC 3696 §2: the last label is not all digits; what looks like an address is not a name.
    if len(name) > _LONGEST_DOMAIN or not all(_LABEL.fullmatch(label) for label in labels) or labels[-1].isdecimal():
        raise Impossible(f'{shown(value)} is not a domain name; write one like "mx.example.org"')
    return name


def domain_or_empty(value: object) -> str:
    """A domain name, or nothing for the default."""
    return "" if value == "" else domain(value)


def mailbox_or_empty(value: object) -> str:
    """The address of a mailbox, or nothing for the default."""
    if value == "":
        return ""
    local_part, at, domain_part = text(value).rpartition("@")
    if not at or not _ATOMS.fullmatch(local_part) or len(local_part) > _LONGEST_LOCAL_PART:
        raise Impossible(f'{shown(value)} is not an address; write one like "postmaster@example.org"')
    try:
        return f"{local_part}@{domain(domain_part)}"
    except ValueError:
        raise Impossible(f'{shown(value)} is not an address; write one like "postmaster@example.org"') from None


def file_or_empty(value: object) -> str:
    """The path of a file, or nothing. One that is not absolute is seen from the working directory, now and for good."""
    path = text(value)
    if "\0" in path:
        raise Impossible(f'{shown(value)} is not the name of a file; write one like "/etc/onward/certificate.pem"')
    return str(Path(path).absolute()) if path else ""


def web_address(value: object) -> str:
    """An http or https URL of a whole site: no path, query or user."""
    url = text(value)
    advice = 'write one like "https://mx.example.org"'
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Impossible(f"{shown(value)} is not a web address; {advice}") from None
    plain = url.isascii() and url.isprintable() and " " not in url
    if not plain or parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise Impossible(f"{shown(value)} is not a web address; {advice}")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise Impossible(f"{shown(value)} says more than where the site is; {advice}")
    return url.removesuffix("/")
