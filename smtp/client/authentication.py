"""How a client says who it is (AUTH, RFC 4954): to a smarthost that takes mail from its customers only.

PLAIN (RFC 4616), and LOGIN for servers that know nothing else; no document defines that one beyond an expired draft.
Both hand the password to the server, so they are for connections under TLS. What proves knowledge of a password without
showing it (SCRAM, RFC 7677) would protect from a smarthost only whoever uses the same password elsewhere.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from smtp.tls import TlsFacts

# RFC 4954 §4: an AUTH command keeps to the limit of any command, 512 octets with its CRLF (RFC 5321 §4.5.3.1.4). An
# initial response that is longer goes by itself, in answer to an empty challenge.
MAX_COMMAND_OCTETS = 512
# RFC 4954 §4: how much a line of the exchange may have at least, with its CRLF. More is not sure to be read.
MAX_RESPONSE_OCTETS = 12288


class Mechanism(Enum):
    """How it is done; the better one first."""

    PLAIN = "PLAIN"
    LOGIN = "LOGIN"


@dataclass(frozen=True, slots=True)
class Login:
    """Who we are to a server. The password is in no `repr`.

    Raises ValueError for what no mechanism can carry.
    """

    user: str
    password: str = field(repr=False)
    allow_clear: bool = False
    """Whether the password may go over a connection without TLS, where whoever listens has it."""

    def __post_init__(self) -> None:
        # RFC 4616 §2: authcid and passwd are at least one character, and NUL stands between them.
        if not self.user or not self.password or "\0" in self.user or "\0" in self.password:
            raise ValueError("a user and a password have at least one character, and no NUL")
        if any(len(line) + 2 > MAX_RESPONSE_OCTETS for line in (_plain(self), _encoded(self.password))):
            raise ValueError("a user and a password of this length go into no line")


def offered_mechanism(extensions: Mapping[str, str]) -> Mechanism | None:
    """What to log in by; None where the server offers nothing that is known here."""
    # RFC 4954 §3: the parameters of AUTH are the names of SASL mechanisms, apart by spaces.
    offered = extensions.get("AUTH", "").upper().split()
    return next((mechanism for mechanism in Mechanism if mechanism.value in offered), None)


def obstacle_to_login(login: Login, extensions: Mapping[str, str], tls: TlsFacts | None) -> str:
    """Why there can be no login, for people; '' where nothing speaks against trying."""
    if tls is None and not login.allow_clear:
        return "the connection is in clear"
    if "AUTH" not in extensions:
        return "not offered"
    if offered_mechanism(extensions) is None:
        return f"neither PLAIN nor LOGIN is offered, but {extensions['AUTH'][:100] or 'nothing'}"
    return ""


def exchange(login: Login, mechanism: Mechanism) -> list[bytes]:
    """What the client says, line by line, without CRLFs: the command, and what goes behind each 334."""
    if mechanism is Mechanism.LOGIN:
        # Its challenges ask for the user and for the password, in whatever words: the order is all that is certain.
        return [b"AUTH LOGIN", _encoded(login.user), _encoded(login.password)]
    command, response = b"AUTH PLAIN", _plain(login)
    whole = command + b" " + response
    return [whole] if len(whole) + 2 <= MAX_COMMAND_OCTETS else [command, response]


def _plain(login: Login) -> bytes:
    # RFC 4616 §2: message = [authzid] UTF8NUL authcid UTF8NUL passwd
    return _encoded(f"\0{login.user}\0{login.password}")


def _encoded(text: str) -> bytes:
    return base64.b64encode(text.encode("utf-8"))
