"""What servers make of octets that look like the end of data and are not, asked of real ones; prints smtp/SMUGGLING.md.

    .venv/bin/python tests/support/smuggling.py > smtp/SMUGGLING.md

It has to be root where the servers of others are to answer (see tests/install-peers).
"""

import re
import socket
import ssl
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import aiosmtpd
import private_exim
import private_opensmtpd
import private_postfix
from certificates import any_tls, server_tls
from peer_aiosmtpd import PrivateAiosmtpd
from peer_programs import DELIVERED_DOMAIN, free_port, public_directory
from peer_stations import Stations
from private_exim import PrivateExim
from private_opensmtpd import PrivateOpenSmtpd
from private_postfix import PrivatePostfix

OURS = "ours"
OURS_UNDER_TLS = "ours under TLS"
POSTFIX = "Postfix"
POSTFIX_NORMALIZE = "Postfix, `normalize`"
POSTFIX_REJECT = "Postfix, `reject`"
EXIM = "Exim"
OPENSMTPD = "OpenSMTPD"
AIOSMTPD = "aiosmtpd"

ORDER = (OURS, OURS_UNDER_TLS, POSTFIX, POSTFIX_NORMALIZE, POSTFIX_REJECT, EXIM, OPENSMTPD, AIOSMTPD)

LOOK_ALIKES = (
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\r.\n",
    b"\n.\r",
    b"\r\r\n.\r\r\n",
    b"\r\n.\r\r\n",
    b"\r\n.\n\r\n",
    b"\r\n\n.\n\r\n",
    b"\n\r.\n\r",
    b"\r\n\x00.\r\n",
    b"\r\n.\x00\r\n",
    b"\x00\r\n.\n",
)
"""None of them has CRLF.CRLF in it, and none gets one from what stands around it."""

_BEFORE = b"Subject: first\r\n\r\nfirst"
_BEHIND = b"MAIL FROM:<evil@sender.test>\r\nRCPT TO:<box@%s>\r\nDATA\r\nSubject: second\r\n\r\nsecond\r\n.\r\n"

# The last line of a reply.
_REPLY_RE = re.compile(rb"^(\d{3} [^\r\n]*)\r?\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a server made of one attempt to smuggle a message."""

    accepted: int
    """Messages it has promised to deliver: one sender wrote them, as one message."""
    replies: tuple[str, ...]
    """What it said at each end of data that it saw."""

    def __str__(self) -> str:
        if self.accepted:
            return f"**{self.accepted}**" if self.accepted > 1 else "1"
        words = self.replies[0].split() if self.replies else ["closed"]
        return "refused, " + " ".join(words[:2] if len(words) > 1 and re.match(r"\d\.", words[1]) else words[:1])


def smuggle(port: int, look_alike: bytes, *, tls: bool = False) -> Verdict:
    """Send a message with this in it, and behind it the commands for another."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as raw, ExitStack() as stack:
        connection: socket.socket = raw
        _read_reply(connection)
        _ask(connection, b"EHLO client.example\r\n")
        if tls:
            _ask(connection, b"STARTTLS\r\n")
            connection = stack.enter_context(any_tls().wrap_socket(raw))
            _ask(connection, b"EHLO client.example\r\n")
        domain = DELIVERED_DOMAIN.encode()
        _ask(connection, b"MAIL FROM:<ann@sender.test>\r\n")
        _ask(connection, b"RCPT TO:<box@%s>\r\n" % domain)
        _ask(connection, b"DATA\r\n")
        connection.sendall(_BEFORE + look_alike + _BEHIND % domain)
        said = b""
        try:
            # Octets behind the end of data are a fault of their own at a server without PIPELINING.
            while not _at_the_end(said) and (octets := connection.recv(65536)):
                said += octets
            connection.sendall(b"QUIT\r\n")
            while octets := connection.recv(65536):
                said += octets
        except ConnectionError:
            # Some close before they have read all that was sent.
            pass
    replies = _at_the_end(said)
    return Verdict(sum(reply.startswith("2") for reply in replies), tuple(replies))


def _at_the_end(said: bytes) -> list[str]:
    """The replies to ends of data: DATA was answered before, and further ones are behind each further 354."""
    replies = [reply.decode(errors="replace") for reply in _REPLY_RE.findall(said)]
    return [reply for before, reply in zip(["354", *replies], replies, strict=False) if before.startswith("354")]


def _ask(connection: socket.socket, command: bytes) -> None:
    connection.sendall(command)
    said = _read_reply(connection)
    if said[:1] not in b"23":
        raise AssertionError(f"{command!r}: {said!r}")


def _read_reply(connection: socket.socket) -> bytes:
    """The last line of a reply. Nothing can come behind it: the next command has not been sent."""
    said = b""
    while not _REPLY_RE.search(said):
        octets = connection.recv(4096)
        if not octets:
            raise AssertionError(f"closed after {said!r}")
        said += octets
    return said


@dataclass(frozen=True, slots=True)
class Servers:
    """Those that run here."""

    ours: Stations
    found: dict[str, tuple[int, str]]
    """The port and the version of each; no version for our own."""

    def measure(self) -> dict[tuple[bytes, str], Verdict]:
        """Every look-alike at every server."""
        return {
            (look_alike, name): smuggle(port, look_alike, tls=name == OURS_UNDER_TLS)
            for look_alike in LOOK_ALIKES
            for name, (port, _) in self.found.items()
        }


@contextmanager
def servers() -> Iterator[Servers]:
    """Start all that are to be had here."""
    found: dict[str, tuple[int, str]] = {}
    with ExitStack() as stack:
        contexts: Mapping[str, ssl.SSLContext | None] = {
            OURS: None,
            OURS_UNDER_TLS: server_tls(),
        }
        stations = stack.enter_context(Stations(contexts))
        for name in contexts:
            found[name] = (stations[name].port, "")
        if private_postfix.is_installed():
            for name, forbidden in ((POSTFIX, ""), (POSTFIX_NORMALIZE, "normalize"), (POSTFIX_REJECT, "reject")):
                place = stack.enter_context(public_directory())
                settings = private_postfix.peer_settings(place)
                if forbidden:
                    settings += f"smtpd_forbid_bare_newline = {forbidden}\n"
                postfix = PrivatePostfix(place, free_port(), "a@b.test", "a@b.test", "127.0.0.1", 1, settings)
                found[name] = (stack.enter_context(postfix).port, private_postfix.version())
        if private_exim.is_installed():
            exim = stack.enter_context(PrivateExim(stack.enter_context(public_directory())))
            found[EXIM] = (exim.port, private_exim.version())
        if not private_opensmtpd.obstacle():
            opensmtpd = stack.enter_context(PrivateOpenSmtpd(stack.enter_context(public_directory())))
            found[OPENSMTPD] = (opensmtpd.port, private_opensmtpd.version())
        found[AIOSMTPD] = (stack.enter_context(PrivateAiosmtpd()).port, aiosmtpd.__version__)
        yield Servers(stations, found)


def shown(look_alike: bytes) -> str:
    """As it is written in the document."""
    text = {0: "NUL", 10: "LF", 13: "CR", 46: "."}
    return "`" + " ".join(text[octet] for octet in look_alike).replace("CR LF", "CRLF") + "`"


_HEAD = """\
# Smuggling: what ends a message, and what does not

Where two servers differ on what ends a message, the one that sends can be made to pass on as content what the one that
receives takes for commands: a message that nobody has checked, in the name of whoever sent the first. RFC 5321 §4.1.1.4
and §2.3.8 leave one end of data, CRLF.CRLF, and forbid CR and LF to stand alone.

Each row is a sequence that looks like that end and is not, in the middle of a message; behind it stand the commands for
a second one, and then a true end of data. Each cell says what one server made of this. One message was sent, so that
**2** means that one was smuggled in. **1** is a message that was taken with all that stands in it. Whoever takes such a
message must not pass it on as it came: what is content here may be the end of data at the next server.

Ours reads to the true end, refuses the whole with 550 5.6.11, and keeps nothing. A test holds its columns to that, for
every row; those of the others are facts about the versions below, in the settings of their packages where nothing else
is said.

"""


def document(found: Mapping[str, tuple[int, str]], verdicts: Mapping[tuple[bytes, str], Verdict]) -> str:
    """The whole of smtp/SMUGGLING.md."""
    names = [name for name in ORDER if name in found]
    lines = ["| in the message | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for look_alike in LOOK_ALIKES:
        cells = [str(verdicts[look_alike, name]) for name in names]
        lines.append(f"| {shown(look_alike)} | " + " | ".join(cells) + " |")
    versions = {name.partition(",")[0]: version for name, (_, version) in found.items() if version}
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    foot = f"""
`normalize` and `reject` are values of Postfix's `smtpd_forbid_bare_newline`. What OpenSMTPD answers with 500 5.5.1 did
end the message: it knows no PIPELINING, and closes where more octets have come than the end of data.

Measured with {said}.
`.venv/bin/python tests/support/smuggling.py`, run as root, prints this page.
"""
    return _HEAD + "\n".join(lines) + "\n" + foot


if __name__ == "__main__":
    with servers() as up:
        sys.stdout.write(document(up.found, up.measure()))
