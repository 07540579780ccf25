"""Hypercorn under Trio, with a guard: one bad connection ends itself, and a server that dies begins again.

Hypercorn 0.18.0 lets an error in one connection through to the nursery of all connections, and one websocket upgrade
with an octet behind its headers, from anybody, is such an error. So the class that serves a connection is replaced by
one that catches what its own connection raises. That class is private to Hypercorn, which is why pyproject.toml pins it
exactly; `tests/run/test_guard.py` holds the inputs that once went through.

More of it is mended here. It waits without an end, and without hearing of any cancellation, for a client to read. It
keeps adding to a websocket's message that is too large already. It waits for an application that has ended to take a
message. It closes while a client still sends, which takes the answer away from it; and does not close at all where it
has refused a websocket by itself. It lets headers through that are too large, where they come in one piece. And a
compressed message may be a thousand times as large as what is read of it, so none is compressed.

And there is no HTTP/2: where a client goes away while a response is on its way, Hypercorn's side of it waits for ever,
so that anybody could use up the connections. What is asked over HTTP/2 is answered in HTTP/1.1.
"""

import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any, ClassVar, cast

import h11
import hypercorn.protocol
import hypercorn.protocol.h11
import hypercorn.trio.run
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Body, Data, Request, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio import serve
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.typing import ASGIReceiveEvent, ASGISendEvent, Framework
from wsproto.events import Ping
from wsproto.frame_protocol import CloseReason

from appliance.access.clients import networks
from control_api.http import App

CONNECTIONS = 512
"""At once. Each costs a file descriptor and a task; a supervisor asks on one, a browser on six."""
CONNECTIONS_OF_ONE = 64
"""Of these, of one client, so that one alone does not take the places of all: ten browsers of a household or an office.
What speaks for others is not counted."""
IDLE_S = 15.0
"""How long a connection may stay open without a request, or with half of its headers."""
HEADER_OCTETS = 16 * 1024
"""All header lines of a request together."""
SEND_S = 20.0
"""How long a client may take to make room for a piece of an answer, or to acknowledge what was sent."""
REQUESTS = 1_000_000
"""On one connection. Hypercorn closes after a thousand, for applications that leak."""
MESSAGE_OCTETS = 64 * 1024
"""Of a websocket's message, as of a request's body."""
LAST_WORD_S = 1.0
"""How long one who has sent too large a message may take to read that."""
LINGER_S = 5.0
"""How long one whose request was refused in the middle may go on sending it. Most programs read when all is sent."""
LINGER_OCTETS = 4 * 1024 * 1024
"""That are read and thrown away meanwhile. Somebody's mistake is seldom larger."""
PING_S = 30.0
"""How often a websocket is tried. Proxies drop what is silent for a minute."""
SHUTDOWN_S = 5.0
"""How long requests under way may take once the end has begun."""
RESTART_S = 0.5
"""The pause before a server that died begins again, so that a lasting fault costs a line a moment, not a processor."""

SpeaksForOthers = Callable[[str], bool]

_logger = logging.getLogger(__name__)


class GuardedServer(TCPServer):
    """One connection, whose errors are its own."""

    open_connections = 0
    of_clients: ClassVar[Counter[str]] = Counter()
    """Of these, by client: an IPv4 address, or the /64 of an IPv6 one."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._everything = trio.CancelScope()
        """All that is done for the connection."""
        self._hearing = trio.CancelScope()
        """The part of it that reads requests."""

    async def run(self) -> None:
        """Serve the connection to its end. Raises nothing but cancellation."""
        local = self.stream.socket.family == socket.AF_UNIX if isinstance(self.stream, trio.SocketStream) else False
        client = self._client()
        # The operator of the machine gets in however many strangers there are.
        if not local and (
            GuardedServer.open_connections >= CONNECTIONS
            or (client is not None and GuardedServer.of_clients[client] >= CONNECTIONS_OF_ONE)
        ):
            await trio.aclose_forcefully(self.stream)
            return
        GuardedServer.open_connections += 1
        if client is not None:
            GuardedServer.of_clients[client] += 1
        try:
            self._notice_the_dead()
            # Hypercorn's group of tasks does not keep a cancellation of its own to itself: out of here, it would end
            # the server with all connections, and no error would tell.
            with self._everything:
                await super().run()
        except* Exception:
            # The text of the error may repeat what the client sent; the log shows its type and place.
            _logger.warning("a connection was closed after an error in it", exc_info=True)
        finally:
            GuardedServer.open_connections -= 1
            if client is not None:
                GuardedServer.of_clients[client] -= 1
                # What is not there any more is not remembered either.
                if not GuardedServer.of_clients[client]:
                    del GuardedServer.of_clients[client]
            await trio.aclose_forcefully(self.stream)

    async def protocol_send(self, event: Event) -> None:
        """Give octets to the client, for as long as `SEND_S`; a connection that takes longer is at its end."""
        if isinstance(event, Closed):
            await self._say_no_more()
            return
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        if not event.data:
            # The end of an answer whose length was told. To send nothing takes a turn of the whole process.
            return
        left = self._sent_at_once(event.data)
        if not left:
            return
        async with self.send_lock:
            sent = False
            with trio.move_on_after(SEND_S, shield=True):
                try:
                    await self.stream.send_all(left)
                    sent = True
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
            if not sent:
                await trio.aclose_forcefully(self.stream)
                # Requests that were sent ahead keep Hypercorn's reader waiting for a turn that never comes.
                self._everything.cancel()

    def _sent_at_once(self, octets: bytes) -> bytes:
        """Give to the kernel what it takes, which mostly is everything. Returns what has to wait."""
        if self.send_lock.locked() or not isinstance(self.stream, trio.SocketStream):
            return octets
        try:
            # An event goes out to hundreds who follow: to get ready to wait for each would cost more than to send.
            return octets[os.write(self.stream.socket.fileno(), octets) :]
        except OSError:
            # Full, or closed: that is met again by who waits.
            return octets

    def _client(self) -> str | None:
        """Who is counted for this connection; None where nobody is."""
        if not isinstance(self.stream, trio.SocketStream) or self.stream.socket.family == socket.AF_UNIX:
            return None
        try:
            address = str(self.stream.socket.getpeername()[0])
        except OSError:
            return None  # It has gone already.
        assert isinstance(self.config, _GuardedConfig)
        return None if self.config.speaks_for_others(address) else networks(address)[0]

    def _notice_the_dead(self) -> None:
        """A client that vanishes says nothing: what it does not acknowledge tells."""
        if isinstance(self.stream, trio.SocketStream) and self.stream.socket.family != socket.AF_UNIX:
            # tcp(7): milliseconds that sent data may stay unacknowledged.
            self.stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SEND_S * 1000))

    async def _say_no_more(self) -> None:
        """All is answered: let the client know, and have what it may still send thrown away."""
        if isinstance(self.stream, trio.SocketStream):
            try:
                await self.stream.send_eof()
            except (trio.BrokenResourceError, trio.BusyResourceError, trio.ClosedResourceError):
                pass  # It has gone, or does not read: what follows is short.
        await self.protocol.handle(Closed())
        self._hearing.cancel()

    async def _read_data(self) -> None:
        with self._hearing:
            await super()._read_data()
        if self._hearing.cancel_called:
            await self._linger()
        # The client has closed. Hypercorn would keep, and we count, the connection until its idle time is over.
        await self.idle_task.stop()

    async def _linger(self) -> None:
        """Read for a while what nobody wants any more.

        RFC 9112 §9.6: a server that closes while octets are on their way resets the connection, and the client may lose
        the answer before it has read it.
        """
        left = LINGER_OCTETS
        with trio.move_on_after(LINGER_S):
            try:
                while left > 0 and (octets := await self.stream.receive_some()):
                    left -= len(octets)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
        await trio.aclose_forcefully(self.stream)


class OnlyHttp1(H11Protocol):
    """A connection that stays at HTTP/1.1, whatever it is asked to become."""

    async def _check_protocol(self, event: h11.Request) -> None:
        # RFC 9110 §7.8: a server may ignore Upgrade. A websocket is looked for elsewhere.
        pass

    async def _create_stream(self, request: h11.Request) -> None:
        headers = request.headers.raw_items()
        # h11 measures only what is not complete yet.
        if len(request.target) + sum(len(name) + len(value) for name, value in headers) > HEADER_OCTETS:
            await self._send_error_response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            await self.send(Closed())
            return
        await super()._create_stream(request)


class AnsweredRequest(HTTPStream):
    """A request of which nothing is kept any more once it is answered."""

    async def handle(self, event: StreamEvent) -> None:
        """As Hypercorn does; but an application that has answered has nobody who takes what is put before it."""
        if self.state is not ASGIHTTPState.CLOSED:
            await super().handle(event)
        elif isinstance(event, StreamClosed):
            self.closed = True


class PlainWebsocket(WSStream):
    """A websocket without compression, whose messages have a size, and which is over when it is over."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._over = trio.Event()
        self._application_is_over = False
        self._putting = trio.CancelScope()
        self._discarding = False
        """A message was too large: nothing that follows is looked at."""

    async def handle(self, event: StreamEvent) -> None:
        """As Hypercorn does; but what a message could be compressed with is not offered."""
        if isinstance(event, Request):
            # RFC 7692 §5: an extension that the server leaves out is not in use.
            kept = [header for header in event.headers if header[0].lower() != b"sec-websocket-extensions"]
            event = replace(event, headers=kept)
        if isinstance(event, (Body, Data)) and self._discarding:
            return
        was_closed = self.closed
        await super().handle(event)
        if isinstance(event, StreamClosed):
            self._over.set()
        elif self.closed and not was_closed:
            # It has refused this with a 400, and would leave it at that.
            if self.app_put is not None:
                await self.app_put({"type": "websocket.disconnect", "code": CloseReason.ABNORMAL_CLOSURE.value})
            await self.send(StreamClosed(stream_id=self.stream_id))

    async def app_send(self, message: ASGISendEvent | None) -> None:
        """As Hypercorn does; and once the application has ended, nobody waits for it to hear anything."""
        if message is None:
            self._application_is_over = True
            self._putting.cancel()
        await super().app_send(message)
        if message is None:
            self._over.set()

    async def _handle_events(self) -> None:
        put = self.app_put

        async def put_while_heard(message: ASGIReceiveEvent) -> None:
            if not self._application_is_over and put is not None:
                with trio.CancelScope() as self._putting:
                    await put(message)

        self.app_put = put_while_heard
        try:
            await super()._handle_events()
        finally:
            self.app_put = put
        if self.buffer.length > self.buffer.max_length:
            # It has been told (1009). To close at once would take that word away from one who still sends.
            self.buffer.clear()
            self._discarding = True
            self.task_group.spawn(self._close_soon)

    async def _close_soon(self) -> None:
        with trio.move_on_after(LAST_WORD_S):
            await self._over.wait()
        await self.send(StreamClosed(stream_id=self.stream_id))

    async def _send_pings(self) -> None:
        while not self._over.is_set():
            await self._send_wsproto_event(Ping())
            # Hypercorn's own would sleep on behind the end, and the connection would count as one until then.
            with trio.move_on_after(PING_S):
                await self._over.wait()


hypercorn.trio.run.TCPServer = GuardedServer  # type: ignore[assignment, attr-defined]
hypercorn.protocol.H11Protocol = OnlyHttp1  # type: ignore[attr-defined]
hypercorn.protocol.h11.HTTPStream = AnsweredRequest  # type: ignore[attr-defined]
hypercorn.protocol.h11.WSStream = PlainWebsocket  # type: ignore[assignment, attr-defined]


async def serve_guarded(
    app: App,
    listeners: Sequence[socket.socket],
    shutdown: trio.Event,
    speaks_for_others: SpeaksForOthers,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the application on sockets that listen already, until `shutdown` is set. The sockets stay the caller's.

    `speaks_for_others` tells whether many come from an address, as they do from that of a proxy.

    Starts once it serves. Raises what keeps it from serving for the first time; after that, it begins again.
    """
    started = False

    async def tell_started(*, task_status: trio.TaskStatus[list[str]]) -> None:
        await serve(
            cast(Framework, app),
            _config(listeners, speaks_for_others),
            shutdown_trigger=shutdown.wait,
            task_status=task_status,
        )

    while not shutdown.is_set():
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(tell_started)
                if not started:
                    started = True
                    task_status.started()
            assert shutdown.is_set(), "it serves until then"
        except* Exception:
            if not started:
                raise
            _logger.exception("the web server died and begins again")
            with trio.move_on_after(RESTART_S):
                await shutdown.wait()


class _GuardedConfig(Config):
    """Hypercorn's, with what a connection has to know beside it."""

    def __init__(self, speaks_for_others: SpeaksForOthers) -> None:
        super().__init__()
        self.speaks_for_others = speaks_for_others


def _config(listeners: Sequence[socket.socket], speaks_for_others: SpeaksForOthers) -> Config:
    config = _GuardedConfig(speaks_for_others)
    # Hypercorn takes over the descriptors that it is given and closes them: it gets copies.
    config.bind = [f"fd://{os.dup(listener.fileno())}" for listener in listeners]
    config.backlog = 1024
    config.accesslog = None
    config.errorlog = _quiet_logger()
    config.include_server_header = False
    config.keep_alive_timeout = IDLE_S
    config.h11_max_incomplete_size = HEADER_OCTETS
    config.alpn_protocols = ["http/1.1"]
    config.keep_alive_max_requests = REQUESTS
    config.websocket_max_message_size = MESSAGE_OCTETS
    config.websocket_ping_interval = PING_S
    config.graceful_timeout = SHUTDOWN_S
    return config


def _quiet_logger() -> logging.Logger:
    """Hypercorn's own log from warnings up: who listens where is the supervisor's to say."""
    logger = logging.getLogger("hypercorn.error")
    logger.setLevel(logging.WARNING)
    return logger
