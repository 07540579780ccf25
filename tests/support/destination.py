"""A destination's SMTP server on loopback: it keeps what it gets, says what a script tells it to, and is strict.

It shares no code with `smtp/` on purpose, so that a mistake there meets somebody who does not make it too. Whatever a
client does that a strict server could object to stands in `violations`, in words: a test that uses it should find none.

One thread per connection with blocking sockets, which takes some thousands of messages a second.
"""

import contextlib
import errno
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from destination_scripts import Answer, Moment, Script, Stage

IDLE_TIMEOUT = 60
"""Seconds without an octet after which a connection is dropped: longer than any test waits."""

_LONGEST_COMMAND = 512
"""RFC 5321 §4.5.3.1.4, with the line's end; what parameters add is allowed on top (RFC 1870 §6.1, RFC 6152 §2)."""
_ADDED = len(" SIZE=12345678901234567890 BODY=8BITMIME SMTPUTF8 REQUIRETLS")
_ADDED_BY_DSN = 500
"""RFC 3461 §5.1."""

_NEEDED = {
    "SIZE": "SIZE",
    "BODY": "8BITMIME",
    "SMTPUTF8": "SMTPUTF8",
    "REQUIRETLS": "REQUIRETLS",
    "RET": "DSN",
    "ENVID": "DSN",
}
"""The extension that has to be offered for each parameter of MAIL."""

_STRAY_LINE_END = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_PATH = re.compile(rb"(?:FROM|TO):<([^>]*)>((?: [^ ]+)*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A message that was answered 250 after its final dot, or would have been had the client still been there."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    """The octets, unstuffed, with the CRLF of the last line."""
    parameters: tuple[str, ...]
    """Those of MAIL, such as `BODY=8BITMIME`, in upper case."""
    helo: str
    address: str
    """The server's own address at which it came in."""
    at: float
    """Seconds since the epoch."""
    wishes: tuple[str, ...] = ()
    """The parameters of RCPT for each recipient, such as `NOTIFY=NEVER`."""
    encrypted: bool = False


class Destination:
    """One server at one address. Serves from `start` to `stop`, or inside a `with`."""

    def __init__(
        self,
        address: str = "127.0.0.2",
        port: int = 0,
        *,
        name: str = "destination.test",
        extensions: Sequence[str] = ("PIPELINING", "SIZE 52428800", "8BITMIME", "ENHANCEDSTATUSCODES"),
        script: Script | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Nothing is opened yet. `tls` is for STARTTLS, which is offered then; REQUIRETLS is offered behind it only."""
        self.address = address
        self.port = port
        self.name = name
        self.extensions = tuple(extensions)
        self.script = script
        self.tls = tls
        self.messages: list[ReceivedMessage] = []
        self.take: Callable[[ReceivedMessage], None] = self.messages.append
        """What is done with a message before its 250. May be replaced where there are too many to be kept."""
        self.violations: list[str] = []
        self.connections = 0
        self.clients: list[str] = []
        """The address that each connection came from."""
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._open: set[socket.socket] = set()

    def start(self) -> Self:
        """Listen and serve; also again after `stop`, on the same port."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.address, self.port))
            listener.listen(200)
        except BaseException:
            listener.close()
            raise
        self.port = listener.getsockname()[1]
        self.stopped.clear()
        self._listener = listener
        self._acceptor = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        self._acceptor.start()
        return self

    def stop(self) -> None:
        """Stop listening, so that a connection is refused, and drop the open ones. What was kept stays."""
        self.stopped.set()
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
        if self._acceptor is not None:
            self._acceptor.join(timeout=5)
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        with self.lock:
            still_open = list(self._open)
        for connection in still_open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def for_recipient(self, recipient: str) -> list[ReceivedMessage]:
        """What came for one mailbox so far."""
        with self.lock:
            return [message for message in self.messages if recipient in message.recipients]

    def containing(self, octets: bytes) -> list[ReceivedMessage]:
        """What came with these octets in it so far."""
        with self.lock:
            return [message for message in self.messages if octets in message.content]

    def _accept(self, listener: socket.socket) -> None:
        while not self.stopped.is_set():
            try:
                connection, client = listener.accept()
            except OSError:
                continue
            with self.lock:
                self.connections += 1
                self.clients.append(client[0])
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection, client[0]), daemon=True).start()

    def _serve(self, connection: socket.socket, client: str) -> None:
        try:
            with connection, contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                conversation = _Conversation(self, connection)
                try:
                    conversation.run()
                finally:
                    # After STARTTLS it is another one.
                    conversation.connection.close()
        finally:
            with self.lock:
                self._open.discard(connection)


class _Conversation:
    """One connection."""

    def __init__(self, server: Destination, connection: socket.socket) -> None:
        self.server = server
        self.connection = connection
        self.buffer = bytearray()
        self.ended = False
        self.helo = ""
        self.extended = False
        self.in_transaction = False
        self.sender = ""
        self.recipients: list[str] = []
        self.parameters: tuple[str, ...] = ()
        self.wishes: list[str] = []
        self.encrypted = False

    def run(self) -> None:
        with contextlib.suppress(BlockingIOError):
            if self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                self._object("octets before the greeting")
        self.connection.settimeout(IDLE_TIMEOUT)
        self._say(Stage.GREETING, 220, f"{self.server.name} ESMTP")
        while not self.ended:
            line = self._line()
            if line is None:
                return
            verb, _, rest = line.partition(b" ")
            self._obey(verb.upper().decode("ascii", "replace"), rest)

    # ------------------------------------------------------------------ commands

    def _obey(self, verb: str, rest: bytes) -> None:
        if verb not in ("EHLO", "HELO", "QUIT", "NOOP", "RSET", "STARTTLS") and not self.helo:
            self._object(f"{verb} before EHLO")
        if verb in ("EHLO", "HELO"):
            self._greet(verb, rest)
        elif verb == "STARTTLS":
            self._start_tls(rest)
        elif verb == "MAIL":
            self._mail(rest)
        elif verb == "RCPT":
            self._rcpt(rest)
        elif verb == "DATA":
            self._data(rest)
        elif verb == "RSET":
            self._reset()
            self._say(Stage.OTHER, 250, "2.0.0 Ok")
        elif verb == "NOOP":
            self._say(Stage.OTHER, 250, "2.0.0 Ok")
        elif verb == "QUIT":
            self._say(Stage.OTHER, 221, "2.0.0 Bye")
            self.ended = True
        else:
            self._object(f"unknown command {verb!r}")
            self._say(Stage.OTHER, 500, "5.5.1 Unknown command")

    def _greet(self, verb: str, rest: bytes) -> None:
        self._reset()
        if not rest or b" " in rest:
            self._object(f"{verb} with {rest!r}")
        self.helo = rest.decode("ascii", "replace")
        if verb == "HELO":
            self.extended = False
            self._say(Stage.HELO, 250, self.server.name)
        elif self._say(Stage.EHLO, 250, "\n".join((self.server.name, *self._offers()))):
            self.extended = True

    def _start_tls(self, rest: bytes) -> None:
        if rest or self.buffer or not self._offered("STARTTLS"):
            self._object("STARTTLS that was not offered, with parameters, or with octets behind it")
        if not self._say(Stage.STARTTLS, 220, "Go ahead"):
            return
        assert self.server.tls is not None
        # A handshake that fails is an OSError, and ends the conversation.
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.encrypted = True
        self.helo = ""
        self._reset()

    def _mail(self, rest: bytes) -> None:
        match = _PATH.fullmatch(rest)
        if match is None or not rest.upper().startswith(b"FROM"):
            self._object(f"MAIL {rest!r}")
            self._say(Stage.MAIL, 501, "5.5.4 Syntax")
            return
        if self.in_transaction:
            self._object("MAIL within a transaction")
        sender = match[1].decode("utf-8", "replace")
        parameters = tuple(match[2].decode("ascii", "replace").upper().split())
        for parameter in parameters:
            needed = _NEEDED.get(parameter.partition("=")[0])
            if needed is None or not self._offered(needed):
                self._object(f"MAIL parameter {parameter} was not offered")
        if self._say(Stage.MAIL, 250, "2.1.0 Ok", Moment(Stage.MAIL, self.server.address, sender)):
            self.in_transaction = True
            self.sender = sender
            self.parameters = parameters

    def _rcpt(self, rest: bytes) -> None:
        match = _PATH.fullmatch(rest)
        if match is None or not rest.upper().startswith(b"TO") or not match[1]:
            self._object(f"RCPT {rest!r}")
            self._say(Stage.RCPT, 501, "5.5.4 Syntax")
            return
        if not self.in_transaction:
            # With pipelining it may stand behind a MAIL that was refused (RFC 2920 §3.1).
            if not self._offered("PIPELINING"):
                self._object("RCPT without MAIL")
            self._say(Stage.OTHER, 503, "5.5.1 MAIL first")
            return
        if match[2] and not self._offered("DSN"):
            self._object(f"RCPT with parameters {match[2]!r}")
        recipient = match[1].decode("utf-8", "replace")
        if self._say(Stage.RCPT, 250, "2.1.5 Ok", self._moment(Stage.RCPT, recipient=recipient)):
            self.recipients.append(recipient)
            self.wishes.append(match[2].decode("utf-8", "replace").strip())

    def _data(self, rest: bytes) -> None:
        if rest:
            self._object(f"DATA with {rest!r}")
        if not self.recipients:
            if not self._offered("PIPELINING"):
                self._object("DATA without a recipient")
            self._say(Stage.OTHER, 503 if not self.in_transaction else 554, "5.5.1 No valid recipients")
            return
        if self.buffer:
            # RFC 2920 §3.1: DATA can only be the last of a group.
            self._object("octets behind DATA, before its 354")
        if not self._say(Stage.DATA, 354, "Go ahead", self._moment(Stage.DATA)):
            return
        content = self._content()
        if content is None:
            return
        if _STRAY_LINE_END.search(content):
            self._object("a CR or LF alone in the content")
        if "BODY=8BITMIME" not in self.parameters and not content.isascii():
            self._object("octets above 127 in a message that was not announced as 8BITMIME")
        moment = self._moment(Stage.END_OF_DATA, content=content)
        message = ReceivedMessage(
            self.sender,
            tuple(self.recipients),
            content,
            self.parameters,
            self.helo,
            self.server.address,
            time.time(),
            tuple(self.wishes),
            self.encrypted,
        )
        self._reset()
        self._say(Stage.END_OF_DATA, 250, "2.0.0 Taken", moment, taken=message)

    def _reset(self) -> None:
        self.in_transaction = False
        self.sender = ""
        self.recipients.clear()
        self.wishes.clear()
        self.parameters = ()

    # ------------------------------------------------------------------ octets

    def _line(self) -> bytes | None:
        while (end := self.buffer.find(b"\n")) < 0:
            if not self._fill():
                if self.buffer:
                    self._object(f"the connection ended within a command: {bytes(self.buffer[:40])!r}")
                return None
        line = bytes(self.buffer[: end + 1])
        del self.buffer[: end + 1]
        if not line.endswith(b"\r\n") or _STRAY_LINE_END.search(line):
            self._object(f"a command with a CR or LF alone: {line[:80]!r}")
        if len(line) > _LONGEST_COMMAND + _ADDED + (_ADDED_BY_DSN if self._offered("DSN") else 0):
            self._object(f"a command of {len(line)} octets")
        if not line.isascii() and not self._offered("SMTPUTF8"):
            self._object(f"a command that is not ASCII: {line[:80]!r}")
        if self.buffer and not self._offered("PIPELINING"):
            self._object("commands in a group where PIPELINING was not offered")
        return line.rstrip(b"\r\n")

    def _content(self) -> bytes | None:
        # The CRLF that ends the DATA line counts as the one before a final dot (RFC 5321 §4.1.1.4).
        text = bytearray(b"\r\n") + self.buffer
        self.buffer.clear()
        searched = 0
        while (end := text.find(b"\r\n.\r\n", searched)) < 0:
            searched = max(0, len(text) - 4)
            if not self._fill():
                return None
            text += self.buffer
            self.buffer.clear()
        self.buffer += text[end + 5 :]
        # RFC 5321 §4.5.2: a period that begins a line goes, whatever follows it.
        if re.search(rb"\r\n\.(?!\.)", text[: end + 2]):
            self._object("a line with an unstuffed period")
        return bytes(text[: end + 2]).replace(b"\r\n.", b"\r\n")[2:]

    def _fill(self) -> bool:
        octets = self.connection.recv(65536)
        self.buffer += octets
        return bool(octets)

    def _say(
        self,
        stage: Stage,
        code: int,
        text: str,
        moment: Moment | None = None,
        *,
        taken: ReceivedMessage | None = None,
    ) -> bool:
        """Give the script's answer, or this one. True where it is positive and the conversation goes on."""
        script = self.server.script
        answer = script(moment or Moment(stage, self.server.address)) if script is not None else None
        if answer is not None and answer.stall:
            self.server.stopped.wait(answer.stall)
        if answer is None or (answer.code == 0 and not answer.close):
            answer = Answer(code, text)
        positive = answer.code in range(200, 400)
        if positive and taken is not None:
            with self.server.lock:
                self.server.take(taken)
        if answer.code:
            lines = answer.text.split("\n")
            marked = [f"{answer.code}{' ' if line is lines[-1] else '-'}{line}\r\n" for line in lines]
            self.connection.sendall("".join(marked).encode("ascii", "replace"))
        if answer.close:
            self.ended = True
        return positive and not answer.close

    def _moment(self, stage: Stage, *, recipient: str = "", content: bytes = b"") -> Moment:
        return Moment(stage, self.server.address, self.sender, recipient, tuple(self.recipients), content)

    def _offered(self, extension: str) -> bool:
        return self.extended and any(offer.split()[0] == extension for offer in self._offers())

    def _offers(self) -> list[str]:
        offers = [offer for offer in self.server.extensions if self.encrypted or offer != "REQUIRETLS"]
        return [*offers, "STARTTLS"] if self.server.tls is not None and not self.encrypted else offers

    def _object(self, words: str) -> None:
        with self.server.lock:
            self.server.violations.append(words)


def on_one_port(*servers: Destination) -> int:
    """Start servers at several addresses on one port that is free at all of them. Returns it."""
    for _ in range(20):
        started: list[Destination] = []
        port = 0
        try:
            for server in servers:
                server.port = port
                started.append(server.start())
                port = server.port
        except OSError as error:
            for server in started:
                server.stop()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return port
    raise OSError(errno.EADDRINUSE, "no port is free at all addresses")
