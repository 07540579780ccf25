"""A destination's server that is up to no good at one stage of its conversations, in one of many ways.

It shares no code with `smtp/`, and counts what it was sent: a test wants to know how often the content of a message
came whole, and whether the client has left in the end.
"""

import errno
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum

import trio

DRIP_S = 0.05
"""Between two octets. A test's client waits for a whole reply for less than the time that a reply takes so."""
LONG_TEXT = b"x" * 200
"""So much stands in a reply that comes octet by octet."""
READ_OCTETS = 65536


class Stage(Enum):
    """Where in the conversation it happens: in place of the reply to this."""

    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    CONTENT = "content"
    """Behind 354, in the middle of a large message."""
    END_OF_DATA = "end of data"
    RSET = "rset"
    QUIT = "quit"


class Behaviour(Enum):
    """What happens there."""

    TRANSIENT = "4xx"
    PERMANENT = "5xx"
    GOODBYE = "421"
    CLOSE = "close"
    RESET = "reset"
    HALF_CLOSE = "half-close"
    """It says nothing more, and reads on."""
    STALL = "stall"
    DRIP = "one octet at a time"
    """The reply, or what is read of the content."""
    GARBAGE = "garbage"
    NUL = "nul"
    """Within the text of what would be a good reply."""
    ENDLESS = "endless reply"
    WRONG_CODE = "wrong code"
    EARLY = "early reply"
    """Together with the reply before; within the content, before it has ended."""
    LAST_WORD = "accept, then no reply"
    """Yes, and then nothing any more."""


_USUAL = {
    Stage.GREETING: b"220 mx.hostile.test",
    Stage.EHLO: b"250-mx.hostile.test\r\n250-PIPELINING\r\n250 8BITMIME",
    Stage.STARTTLS: b"220 2.0.0 Go ahead",
    Stage.MAIL: b"250 2.1.0 Ok",
    Stage.RCPT: b"250 2.1.5 Ok",
    Stage.DATA: b"354 Go ahead",
    Stage.CONTENT: b"250 2.0.0 Taken already",
    Stage.END_OF_DATA: b"250 2.0.0 Taken",
    Stage.RSET: b"250 2.0.0 Ok",
    Stage.QUIT: b"221 2.0.0 Bye",
}
_BEFORE = {
    Stage.EHLO: Stage.GREETING,
    Stage.STARTTLS: Stage.EHLO,
    Stage.MAIL: Stage.EHLO,
    Stage.RCPT: Stage.MAIL,
    Stage.DATA: Stage.RCPT,
    Stage.END_OF_DATA: Stage.DATA,
    Stage.QUIT: Stage.END_OF_DATA,
}
"""The reply with which an early one comes. (The greeting cannot come early. RSET: see `_data`.)"""


class _Over(Exception):
    """The conversation is."""


class HostileServer:
    """One address, and what has come to it."""

    def __init__(
        self,
        stage: Stage | None = None,
        behaviour: Behaviour | None = None,
        recipients: int = 1,
        *,
        chunking: bool = False,
    ) -> None:
        """Without a stage it is a decent server. With more than one recipient, RCPT goes wrong for every second one.

        With `chunking`, content comes by BDAT (RFC 3030); Stage.CONTENT is the reply to the first of several chunks.
        """
        self.chunking = chunking
        self.stage = stage
        self.behaviour = behaviour
        self.recipients = recipients
        self.connections = 0
        self.open = 0
        """Connections that the client has not left."""
        self._left = trio.Condition()
        self.contents = 0
        """Messages of which any octet came."""
        self.dots = 0
        """Messages that came whole, whatever was said to that."""
        self.taken: list[str] = []
        """Recipients of what was answered 250."""
        self.released = trio.Event()
        """Set by the test when the client has done what it wanted: now it is seen whether it has left."""
        self.refuse_first = stage is Stage.RSET
        """Whether the first transaction comes to nothing at RCPT, so that the next one begins with RSET."""

    def goes_wrong(self, stage: Stage, recipient: int = 0) -> bool:
        """Whether it happens here. By number, the first one is 0; one alone is among those for whom it goes wrong."""
        if stage is not self.stage:
            return False
        return stage is not Stage.RCPT or recipient % 2 == (self.recipients - 1) % 2

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection, until the client has left it."""
        self.connections += 1
        self.open += 1
        async with stream:
            try:
                await _Conversation(self, stream).run()
            except (trio.BrokenResourceError, trio.ClosedResourceError, _Over):
                pass
        async with self._left:
            self.open -= 1
            self._left.notify_all()

    async def left(self) -> None:
        """Wait until the client has left every connection."""
        async with self._left:
            while self.open:
                await self._left.wait()


class _Conversation:
    def __init__(self, server: HostileServer, stream: trio.SocketStream) -> None:
        self._server = server
        self._stream = stream
        self._buffer = bytearray()
        self._accepted: list[str] = []
        self._asked = 0
        self._said_early = False
        self._silent = False
        self._in_transaction = False
        self._in_chunks = False
        self._refused = False

    async def run(self) -> None:
        await self._reply(Stage.GREETING)
        while (line := await self._line()) is not None:
            verb = line.partition(b" ")[0].upper()
            match verb:
                case b"EHLO":
                    await self._reply(Stage.EHLO)
                case b"HELO":
                    await self._say(b"250 mx.hostile.test")
                case b"STARTTLS":
                    if await self._reply(Stage.STARTTLS):
                        # There is no handshake. (One that goes well is in other tests.)
                        await self._read_to_the_end()
                case b"MAIL":
                    self._accepted, self._asked = [], 0
                    self._in_transaction = await self._reply(Stage.MAIL)
                case b"RCPT":
                    await self._recipient(line)
                case b"DATA":
                    await self._data()
                case b"BDAT":
                    await self._chunk(line.upper().split()[1:])
                case b"RSET":
                    await self._reply(Stage.RSET)
                case b"QUIT":
                    await self._reply(Stage.QUIT)
                    return
                case _:
                    await self._say(b"500 5.5.1 What?")

    async def _recipient(self, line: bytes) -> None:
        if self._server.refuse_first or not self._in_transaction:
            await self._say(b"450 4.2.0 Not yet" if self._in_transaction else b"503 5.5.1 MAIL comes first")
            return
        number, self._asked = self._asked, self._asked + 1
        if await self._reply(Stage.RCPT, number):
            self._accepted.append(line.partition(b"<")[2].partition(b">")[0].decode("ascii"))

    async def _data(self) -> None:
        server = self._server
        if not self._accepted:
            refused_on_purpose, server.refuse_first = server.refuse_first, False
            early = server.goes_wrong(Stage.RSET) and server.behaviour is Behaviour.EARLY and refused_on_purpose
            await self._say(b"554 5.5.1 No valid recipients" + (b"\r\n" + _USUAL[Stage.RSET] if early else b""))
            return
        if not await self._reply(Stage.DATA):
            return
        text = bytearray(b"\r\n") + self._buffer
        self._buffer.clear()
        begun = False
        while (end := text.find(b"\r\n.\r\n")) < 0:
            octets = await self._stream.receive_some(READ_OCTETS)
            if not octets:
                raise _Over
            if not begun:
                begun = True
                server.contents += 1
                await self._misbehave_in_content()
            # What may be the beginning of the end is kept; nobody looks at the rest.
            text = text[-4:] + octets
        server.contents += not begun
        server.dots += 1
        self._buffer += text[end + 5 :]
        if await self._reply(Stage.END_OF_DATA):
            server.taken += self._accepted

    async def _chunk(self, words: list[bytes]) -> None:
        server, last = self._server, len(words) > 1
        left = int(words[0])
        while left > len(self._buffer):
            left -= len(self._buffer)
            self._buffer.clear()
            self._buffer += await self._stream.receive_some(READ_OCTETS)
            if not self._buffer:
                raise _Over
        del self._buffer[:left]
        first, self._in_chunks = not self._in_chunks, not last
        server.contents += first
        if self._refused:
            await self._say(b"503 5.5.1 It was refused")
        elif last:
            server.dots += 1
            if await self._reply(Stage.END_OF_DATA):
                server.taken += self._accepted
        elif not first:
            await self._say(_USUAL[Stage.RSET])
        elif server.goes_wrong(Stage.CONTENT):
            self._refused = not await self._misbehave_in_content()
        else:
            await self._reply(Stage.CONTENT)

    async def _misbehave_in_content(self) -> bool:
        server = self._server
        if not server.goes_wrong(Stage.CONTENT):
            return True
        match server.behaviour:
            case Behaviour.LAST_WORD:
                self._silent = True
            case Behaviour.STALL:
                # It does not even read.
                await server.released.wait()
                await self._read_to_the_end()
            case Behaviour.DRIP:
                while not server.released.is_set() and await self._stream.receive_some(1):
                    await trio.sleep(DRIP_S)
                await self._read_to_the_end()
            case _:
                return await self._reply(Stage.CONTENT)
        return True

    async def _reply(self, stage: Stage, recipient: int = 0) -> bool:
        """The usual, or what goes wrong here; whether it is good."""
        server, behaviour = self._server, self._server.behaviour
        usual = _USUAL[stage]
        if server.stage is Stage.STARTTLS and stage is Stage.EHLO:
            usual = usual.replace(b"250 8BITMIME", b"250-8BITMIME\r\n250 STARTTLS")
        if server.chunking and stage is Stage.EHLO:
            usual = usual.replace(b"250 8BITMIME", b"250-8BITMIME\r\n250 CHUNKING")
        if behaviour is Behaviour.EARLY and server.stage is not None:
            if stage is server.stage and self._said_early:
                return True
            last_recipient = stage is not Stage.RCPT or recipient == server.recipients - 1
            before = _BEFORE.get(server.stage)
            if server.chunking and before is Stage.DATA:
                before = Stage.RCPT
            if stage is before and last_recipient:
                self._said_early = True
                times = server.recipients if server.stage is Stage.RCPT else 1
                usual += b"".join(b"\r\n" + _USUAL[server.stage] for _ in range(times))
        if behaviour is None or not server.goes_wrong(stage, recipient):
            await self._say(usual)
            return True
        return await self._misbehave(behaviour, stage, usual)

    async def _misbehave(self, behaviour: Behaviour, stage: Stage, usual: bytes) -> bool:
        match behaviour:
            case Behaviour.TRANSIENT:
                await self._say(b"451 4.3.0 Later")
                return False
            case Behaviour.PERMANENT:
                await self._say(b"554 5.3.0 Never")
                return False
            case Behaviour.GOODBYE:
                await self._say(b"421 4.3.2 Going down")
                await self._stream.send_eof()
            case Behaviour.CLOSE:
                raise _Over
            case Behaviour.RESET:
                self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                raise _Over
            case Behaviour.HALF_CLOSE:
                await self._stream.send_eof()
            case Behaviour.STALL:
                pass
            case Behaviour.DRIP:
                for octet in usual[:4] + LONG_TEXT:
                    await self._stream.send_all(bytes([octet]))
                    await trio.sleep(DRIP_S)
            case Behaviour.GARBAGE:
                await self._say(b"\xff\xfe<html>\x1b[2J 250 ok")
            case Behaviour.NUL:
                await self._say(usual + b" \0nul")
                return True
            case Behaviour.ENDLESS:
                while True:
                    await self._stream.send_all((usual[:3] + b"-and on\r\n") * 100)
            case Behaviour.WRONG_CODE:
                await self._say(b"250 2.0.0 Ok" if stage is Stage.DATA else b"354 Go ahead")
            case Behaviour.EARLY:
                await self._say(usual)
                return True
            case Behaviour.LAST_WORD:
                await self._say(usual)
                self._silent = True
                return True
        await self._read_to_the_end()
        return False

    async def _say(self, reply: bytes) -> None:
        if self._silent:
            return
        await self._stream.send_all(reply + b"\r\n")

    async def _read_to_the_end(self) -> None:
        while await self._stream.receive_some(READ_OCTETS):
            pass
        raise _Over

    async def _line(self) -> bytes | None:
        while (end := self._buffer.find(b"\r\n")) < 0:
            octets = await self._stream.receive_some(READ_OCTETS)
            if not octets:
                return None
            self._buffer += octets
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line


@asynccontextmanager
async def on_one_free_port(*servers: tuple[str, HostileServer]) -> AsyncIterator[int]:
    """Serve at these addresses, on one port that is free at all of them. Gives the port."""
    listeners = _listeners([address for address, _ in servers])
    async with trio.open_nursery() as nursery:
        for (_, server), listener in zip(servers, listeners, strict=True):
            nursery.start_soon(trio.serve_listeners, server.serve, [listener])
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def _listeners(addresses: list[str]) -> list[trio.SocketListener]:
    for _ in range(20):
        made: list[socket.socket] = []
        port = 0
        try:
            for address in addresses:
                made.append(socket.socket())
                # So that a client's block fills what lies between, and it has to wait for us to read.
                made[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, READ_OCTETS)
                made[-1].bind((address, port))
                made[-1].listen(20)
                port = made[-1].getsockname()[1]
        except OSError as error:
            for each in made:
                each.close()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return [trio.SocketListener(trio.socket.from_stdlib_socket(each)) for each in made]
    raise OSError(errno.EADDRINUSE, "no port is free at all addresses")
