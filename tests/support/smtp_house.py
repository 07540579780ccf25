"""The server to talk to in tests: the pure session with a mailbox, and the real driver on loopback."""

import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

import trio
from smtp_memory import Mailbox, MemoryReceiver

from smtp.reply import Reply
from smtp.server.conduct import ConductLimits
from smtp.server.events import Closed, Content, Data, EndOfData, Event, Hello, Mail, Paused, Recipient, Reset, StartTls
from smtp.server.offer import SessionSettings
from smtp.server.serving import Receiver, ServerSettings, Statistics
from smtp.server.session import ServerSession
from smtp.server.trio_server import Peer, serve

LIMIT_S = 20.0
"""No wait of a test is longer. Reached only where something is broken."""

TROUBLE = Reply(451, "Trouble here, try again later", "4.3.0")


class InMemory:
    """The pure session and its receiver, without a driver: octets in, octets out."""

    def __init__(
        self,
        mailbox: Mailbox,
        *,
        max_message_octets: int = 1 << 20,
        max_recipients: int = 100,
        max_header_octets: int = 512 << 10,
        max_line_octets: int = 64 << 10,
        max_commands: int = 1000,
    ) -> None:
        self.session = ServerSession(
            SessionSettings(
                "mx.example.org", max_message_octets, max_recipients, max_header_octets, max_line_octets, max_commands
            )
        )
        self.receiver = MemoryReceiver(mailbox)
        self.events: list[Event] = []
        self.closed = False

    async def exchange(self, octets: bytes) -> bytes:
        """Give these octets to the session; returns what it says."""
        said = bytearray()
        self.session.receive(octets)
        while not self.closed and (event := self.session.next_event()) is not None:
            self.events.append(event)
            match event:
                case Mail():
                    self.session.answer(await self.receiver.mail(event.sender, event.parameters))
                case Recipient():
                    self.session.answer(await self.receiver.recipient(event.address, event.parameters))
                case Data():
                    self.session.answer(await self.receiver.data())
                case Content():
                    await self.receiver.content(event.octets)
                case EndOfData():
                    self.session.answer(await self.receiver.end_of_data())
                case Reset():
                    await self.receiver.reset()
                case Paused():
                    said += self.session.octets_to_send()
                case Closed():
                    self.closed = True
                case Hello():
                    pass
                case StartTls():
                    self.session.secured()
        return bytes(said + self.session.octets_to_send())


@dataclass(slots=True)
class House:
    """A server under way."""

    port: int
    mailbox: Mailbox
    statistics: Statistics
    shutdown: trio.Event
    errors: list[str]
    ended: trio.Event


@asynccontextmanager
async def open_house(
    settings: ServerSettings | None = None,
    *,
    new_receiver: Callable[[Peer], Receiver] | None = None,
) -> AsyncIterator[House]:
    """The real driver on a free port of loopback, until the block is left."""
    mailbox = Mailbox()
    with socket.socket() as listener, trio.fail_after(LIMIT_S):
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        listener.setblocking(False)
        house = House(listener.getsockname()[1], mailbox, Statistics(), trio.Event(), [], trio.Event())

        async def run() -> None:
            await serve(
                [listener],
                new_receiver or mailbox.new_receiver,
                settings or quick_settings(),
                shutdown=house.shutdown,
                on_error=lambda error: house.errors.append(error),
                statistics=house.statistics,
            )
            house.ended.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield house
            house.shutdown.set()


def quick_settings(
    *,
    max_message_octets: int = 1 << 20,
    max_recipients: int = 100,
    max_connections: int = 1000,
    max_connections_per_client: int = 1000,
    max_commands: int = 1000,
    max_header_octets: int = 512 << 10,
    max_line_octets: int = 64 << 10,
    command_timeout_s: float = LIMIT_S,
    transaction_timeout_s: float = LIMIT_S,
    shutdown_grace_s: float = LIMIT_S,
    handshake_timeout_s: float = LIMIT_S,
    min_octets_per_s: int = 0,
    rate_window_s: float = 60.0,
    max_in_flight_octets: int = 256 << 20,
    max_held_octets: int = 50 << 20,
    conduct: ConductLimits | None = None,
    tls: ssl.SSLContext | None = None,
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = (),
) -> ServerSettings:
    """Settings with a sweeper that looks at the clock often."""
    return ServerSettings(
        hostname="mx.example.org",
        max_message_octets=max_message_octets,
        max_recipients=max_recipients,
        max_connections=max_connections,
        max_connections_per_client=max_connections_per_client,
        max_commands=max_commands,
        max_header_octets=max_header_octets,
        max_line_octets=max_line_octets,
        command_timeout_s=command_timeout_s,
        transaction_timeout_s=transaction_timeout_s,
        shutdown_grace_s=shutdown_grace_s,
        handshake_timeout_s=handshake_timeout_s,
        min_octets_per_s=min_octets_per_s,
        rate_window_s=rate_window_s,
        max_in_flight_octets=max_in_flight_octets,
        max_held_octets=max_held_octets,
        conduct=conduct or ConductLimits(),
        tls=tls,
        trusted_proxies=trusted_proxies,
        sweep_interval_s=0.01,
    )


class Caller:
    """A client of few words: sends octets, reads lines."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream: trio.abc.Stream = stream
        """In clear, or under TLS after `secure`."""
        self.transport = stream
        self._buffer = b""

    async def say(self, octets: bytes) -> None:
        """Send these very octets."""
        await self.stream.send_all(octets)

    async def line(self) -> str | None:
        """The next line without its CRLF; None where the server has closed."""
        while b"\r\n" not in self._buffer:
            try:
                octets = await self.stream.receive_some()
            except trio.BrokenResourceError:
                octets = b""
            if not octets:
                assert not self._buffer, f"closed in the middle of a line: {self._buffer!r}"
                return None
            self._buffer += octets
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line.decode("ascii")

    async def reply(self) -> str | None:
        """The last line of the next reply."""
        while (line := await self.line()) is not None and line[3:4] == "-":
            pass
        return line

    async def code(self) -> str:
        """The code of the next reply; "" where the server has closed."""
        return (await self.reply() or "")[:3]

    async def codes(self, count: int) -> list[str]:
        """The codes of the next replies."""
        return [await self.code() for _ in range(count)]

    async def ask(self, command: str) -> str | None:
        """Send a command, return the last line of the reply."""
        await self.say(command.encode("latin-1") + b"\r\n")
        return await self.reply()

    async def hello(self) -> list[str]:
        """Say EHLO; returns what is offered, without the codes and the host's name."""
        await self.say(b"EHLO client.example\r\n")
        offered = []
        while (line := await self.line()) is not None:
            assert line[:3] == "250", line
            offered.append(line[4:])
            if line[3] == " ":
                return offered[1:]
        raise AssertionError("EHLO was not answered")

    async def greeted(self) -> None:
        """Go as far as the reply to EHLO."""
        assert await self.code() == "220"
        await self.hello()

    async def in_content(self) -> None:
        """Go as far as 354."""
        assert (await self.reply() or "").startswith("220 ")
        await self.say(b"EHLO client.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n")
        assert await self.codes(4) == ["250", "250", "250", "354"]

    async def send(self, content: bytes, sender: str = "a@example.com") -> str | None:
        """A whole message, after EHLO, in one chunk; the reply to it, or to what was refused before it."""
        await self.say(b"MAIL FROM:<%s>\r\nRCPT TO:<b@example.org>\r\n" % sender.encode("ascii"))
        replies = [await self.reply() for _ in range(2)]
        for reply in replies:
            if reply is None or reply[0] != "2":
                return reply
        await self.say(b"BDAT %d LAST\r\n" % len(content) + content)
        return await self.reply()

    async def secure(self, context: ssl.SSLContext, server_name: str = "mx.example.org") -> ssl.SSLObject:
        """STARTTLS and the handshake."""
        assert await self.ask("STARTTLS") == "220 2.0.0 Ready to start TLS"
        return await self.shake_hands(context, server_name)

    async def shake_hands(self, context: ssl.SSLContext, server_name: str = "mx.example.org") -> ssl.SSLObject:
        """The handshake alone. Raises trio.BrokenResourceError where it fails."""
        assert not self._buffer
        secured: trio.SSLStream[trio.SocketStream] = trio.SSLStream(
            self.transport, context, server_hostname=server_name
        )
        await secured.do_handshake()
        self.stream = secured
        connection: ssl.SSLObject = secured._ssl_object
        return connection

    async def close_bare(self) -> None:
        """End the connection with a FIN, and under TLS without a word of it."""
        await self.transport.aclose()

    async def abort(self) -> None:
        """End the connection with a RST."""
        self.transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.transport.aclose()


@asynccontextmanager
async def call(house: House, source: str = "127.0.0.1") -> AsyncIterator[Caller]:
    """A connection to the server, from an address of loopback."""
    stream = await trio.open_tcp_stream("127.0.0.1", house.port, local_address=source)
    caller = Caller(stream)
    try:
        yield caller
    finally:
        # Under TLS a farewell may find the connection gone, or closed beneath it by the test.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + LIMIT_S):
            try:
                await caller.stream.aclose()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            await stream.aclose()
