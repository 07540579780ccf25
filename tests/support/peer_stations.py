"""Servers of ours for programs that know nothing of Trio: they run in a thread, each behind a domain of its own.

A station in clear has a tap before it, which passes octets on as they come and keeps a copy of each piece. It shows
what a trace of ours cannot: what a client sent together, and with which commands.
"""

import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

import trio
from appliance_process import eventually
from smtp_house import quick_settings
from smtp_memory import Mailbox, MemoryReceiver, Received

from smtp.reply import Reply
from smtp.server.serving import Peer, Receiver, Statistics
from smtp.server.trio_server import serve

MAX_MESSAGE_OCTETS = 8 << 20


@dataclass(slots=True)
class Station:
    """One server."""

    domain: str
    """Mail to this domain is meant for it."""
    port: int
    tls: ssl.SSLContext | None
    mailbox: Mailbox = field(default_factory=Mailbox)
    pieces: list[bytes] = field(default_factory=list)
    """What clients sent, as it came. Empty where the server has TLS."""
    tls_versions: dict[str, set[str]] = field(default_factory=dict)
    """By sender: under which versions of TLS the messages came; the empty one stands for clear text."""

    def from_sender(self, sender: str, recipients: int = 1) -> list[Received]:
        """The messages from this sender, once they have come to so many recipients in all."""

        def look() -> list[Received] | None:
            found = [message for message in self.mailbox.messages if message.sender == sender]
            return found if sum(len(message.recipients) for message in found) >= recipients else None

        return eventually(look, within=20, what=f"mail from {sender} at {self.domain}")


class _Witness(MemoryReceiver):
    """Notes, too, how each message came."""

    def __init__(self, station: Station, peer: Peer) -> None:
        super().__init__(station.mailbox)
        self._station = station
        self._peer = peer

    async def end_of_data(self) -> Reply:
        tls = self._peer.tls
        self._station.tls_versions.setdefault(str(self.sender), set()).add(tls.version if tls else "")
        return await super().end_of_data()


class Stations:
    """Run inside a `with`, one for each domain."""

    def __init__(self, contexts: Mapping[str, ssl.SSLContext | None]) -> None:
        self.errors: list[str] = []
        self.stations: dict[str, Station] = {}
        self._stack = ExitStack()
        self._listeners: dict[str, socket.socket] = {}
        self._shutdown: trio.Event
        self._token: trio.lowlevel.TrioToken
        self._thread = threading.Thread(target=trio.run, args=(self._run,))
        self._up = threading.Event()
        for domain, context in contexts.items():
            listener = self._stack.enter_context(_listener())
            self._listeners[domain] = listener
            self.stations[domain] = Station(domain, listener.getsockname()[1], context)

    def __getitem__(self, domain: str) -> Station:
        return self.stations[domain]

    def __enter__(self) -> Self:
        """They listen already; this lets them answer."""
        self._thread.start()
        assert self._up.wait(20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._token.run_sync_soon(self._shutdown.set)
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._stack.close()

    async def _run(self) -> None:
        self._shutdown = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery, trio.open_nursery() as taps:
            for station in self.stations.values():
                listener = self._listeners[station.domain]
                if station.tls is None:
                    behind = self._stack.enter_context(_listener())
                    taps.start_soon(_tap, listener, behind.getsockname()[1], station.pieces)
                    listener = behind
                nursery.start_soon(self._serve, station, listener)
            self._up.set()
            await self._shutdown.wait()
            taps.cancel_scope.cancel()

    async def _serve(self, station: Station, listener: socket.socket) -> None:
        settings = replace(quick_settings(max_message_octets=MAX_MESSAGE_OCTETS, shutdown_grace_s=1), tls=station.tls)

        def new_receiver(peer: Peer) -> Receiver:
            station.mailbox.peers.append(peer)
            return _Witness(station, peer)

        await serve(
            [listener],
            new_receiver,
            settings,
            shutdown=self._shutdown,
            on_error=self.errors.append,
            statistics=Statistics(),
        )


def _listener() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    listener.setblocking(False)
    return listener


async def _tap(listener: socket.socket, port: int, pieces: list[bytes]) -> None:
    async def pass_on(source: trio.SocketStream, sink: trio.SocketStream, copies: list[bytes] | None) -> None:
        try:
            async for piece in source:
                if copies is not None:
                    copies.append(bytes(piece))
                await sink.send_all(piece)
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # One end has gone: so does the other.
            await sink.aclose()

    async def connect(outside: trio.SocketStream) -> None:
        async with outside, await trio.open_tcp_stream("127.0.0.1", port) as inside, trio.open_nursery() as nursery:
            nursery.start_soon(pass_on, outside, inside, pieces)
            nursery.start_soon(pass_on, inside, outside, None)

    await trio.serve_listeners(connect, [trio.SocketListener(trio.socket.from_stdlib_socket(listener))])
