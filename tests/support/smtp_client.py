"""A plain SMTP client for tests: it says what it is told and hands back what it hears.

It shares no code with `smtp/` on purpose, and unlike smtplib it sends the octets it is given, without mending them.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server said: a code, and the text of each line."""

    code: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The lines, joined."""
        return "\n".join(self.lines)

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


class Closed(Exception):
    """The server has closed the connection where a reply was due."""


class SmtpClient:
    """One connection. Raises OSError where it cannot be made or breaks, Closed where the server ends it."""

    def __init__(
        self,
        address: str,
        port: int,
        *,
        helo: str | None = "client.example.net",
        timeout: float = 20,
        source: str = "",
    ) -> None:
        """With a `helo`, the greeting is read and EHLO said at once. `source` is the address to come from."""
        self._socket = socket.create_connection((address, port), timeout=timeout, source_address=(source, 0))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rb")
        self.extensions: tuple[str, ...] = ()
        try:
            if helo is not None:
                greeting = self.reply()
                if greeting.code != 220:
                    raise Closed(str(greeting))
                self.extensions = self.command(f"EHLO {helo}").lines[1:]
        except BaseException:
            self.close()
            raise

    def send(self, octets: bytes) -> None:
        """Send octets as they are."""
        self._socket.sendall(octets)

    def reply(self) -> Reply:
        """Read one reply, of however many lines."""
        lines: list[str] = []
        while True:
            line = self._stream.readline(4096)
            if not line.endswith(b"\r\n"):
                raise Closed(f"the connection ended in a reply, after {lines} {line!r}")
            text = line[:-2].decode("ascii")
            lines.append(text[4:])
            if text[3:4] != "-":
                return Reply(int(text[:3]), tuple(lines))

    def command(self, line: str) -> Reply:
        """Send one command and read its reply."""
        self.send(line.encode("ascii") + b"\r\n")
        return self.reply()

    def envelope(self, sender: str, recipients: Sequence[str], *, parameters: str = "") -> list[Reply]:
        """MAIL and every RCPT; all replies."""
        replies = [self.command(f"MAIL FROM:<{sender}>{parameters and ' ' + parameters}")]
        return replies + [self.command(f"RCPT TO:<{recipient}>") for recipient in recipients]

    def data(self, content: bytes) -> Reply:
        """DATA, the content with its periods stuffed, and the final dot. The last reply, or that to DATA if not 354."""
        started = self.command("DATA")
        if started.code != 354:
            return started
        self.send(stuffed(content))
        return self.reply()

    def message(self, sender: str, recipients: Sequence[str], content: bytes, *, parameters: str = "") -> Reply:
        """One whole transaction. The reply to the final dot, or the first reply that is not positive."""
        for reply in self.envelope(sender, recipients, parameters=parameters):
            if reply.code >= 300:
                self.command("RSET")
                return reply
        return self.data(content)

    def quit(self) -> None:
        """Say QUIT, wait for its reply, and close."""
        try:
            self.command("QUIT")
        finally:
            self.close()

    def close(self) -> None:
        """Close without a word."""
        self._stream.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def stuffed(content: bytes) -> bytes:
    """What follows the 354: periods stuffed (RFC 5321 §4.5.2), and the final dot behind a CRLF."""
    text = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
    return text + (b".\r\n" if text.endswith(b"\r\n") or not text else b"\r\n.\r\n")
