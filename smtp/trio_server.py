"""The server's driver: sockets, time and many clients at once, round the pure session of `smtp.server`.

One task per client, one per listener, and one sweeper that looks at the clock for all of them. What a message means is
the business of a `Receiver`, of which each session has its own.

Error handling. A client that vanishes ends its session, and the receiver is told by `reset`. A receiver that raises
costs its client a 451 and nobody else anything; the cause goes to `on_error`. Nothing that a client does, and no fault
of accept(), ends `serve`.
"""

import errno
import math
import socket
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio

from smtp import answers
from smtp.parameters import MailParameters, RecipientParameters
from smtp.reply import Reply
from smtp.sequence import State
from smtp.server import (
    Closed,
    Content,
    Data,
    EndOfData,
    Hello,
    Mail,
    Paused,
    Recipient,
    Reset,
    ServerSession,
)
from smtp.serving import Peer, Receiver, ServerSettings, Statistics, client_key, plain_address
from smtp.trace import Trace
from smtp.trio_socket import Socket

__all__ = [
    "MailParameters",
    "Peer",
    "Receiver",
    "RecipientParameters",
    "ServerSettings",
    "Statistics",
    "Trace",
    "serve",
]

# When a session is torn down from outside, its receiver may still take this long to let go of what it holds.
RESET_GRACE_S = 5.0
# No file descriptor or no memory for one more client: look again after this time. Sessions end all the while.
ACCEPT_PAUSE_S = 0.1
# Clients let in before the sessions get a turn.
ACCEPTS_PER_TURN = 64
# Innermost frames that a report of a receiver's fault names.
REPORTED_FRAMES = 3

# accept() hands on what happened to a connection before it was accepted (accept(2)): the next one may be fine.
_GONE_BEFORE_ACCEPT = frozenset({errno.ECONNABORTED, errno.ECONNRESET, errno.EPROTO, errno.EINTR, errno.ETIMEDOUT})


async def serve(
    listeners: Sequence[socket.socket],
    new_receiver: Callable[[Peer], Receiver],
    settings: ServerSettings,
    *,
    shutdown: trio.Event,
    on_error: Callable[[str], None],
    statistics: Statistics,
) -> None:
    """Accept clients until `shutdown` is set, then let transactions finish; return when every session has ended.

    The listeners are bound, listening, non-blocking, and stay open. When this is cancelled instead, every session ends
    at once, and receivers have RESET_GRACE_S to let go.
    """
    house = _House(new_receiver, settings, on_error, statistics)
    async with trio.open_nursery() as background:
        background.start_soon(house.sweep)
        async with trio.open_nursery() as sessions:
            async with trio.open_nursery() as doors:
                for listener in listeners:
                    doors.start_soon(house.accept_from, listener, sessions)
                await shutdown.wait()
                doors.cancel_scope.cancel()
            house.drain()
        background.cancel_scope.cancel()


class _House:
    """What the sessions of one `serve` share."""

    def __init__(
        self,
        new_receiver: Callable[[Peer], Receiver],
        settings: ServerSettings,
        on_error: Callable[[str], None],
        statistics: Statistics,
    ) -> None:
        self.new_receiver = new_receiver
        self.settings = settings
        self.on_error = on_error
        self.statistics = statistics
        self.sessions: set[_Session] = set()
        self.by_client: Counter[str] = Counter()

    async def accept_from(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        in_trouble = False
        while True:
            try:
                await trio.lowlevel.wait_readable(listener)
                for _ in range(ACCEPTS_PER_TURN):
                    self._admit(*listener.accept(), nursery)
                    in_trouble = False
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno in _GONE_BEFORE_ACCEPT:
                    continue
                if not in_trouble:
                    self.on_error(f"no connection can be accepted for now: {error.strerror}")
                    in_trouble = True
                await trio.sleep(ACCEPT_PAUSE_S)

    def _admit(self, connected: socket.socket, address: tuple[str, int], nursery: trio.Nursery) -> None:
        statistics = self.statistics
        statistics.connections_accepted += 1
        peer = Peer(plain_address(address[0]), address[1])
        client = client_key(peer.address)
        if (
            len(self.sessions) >= self.settings.max_connections
            or self.by_client[client] >= self.settings.max_connections_per_client
        ):
            statistics.connections_turned_away += 1
            self._turn_away(connected)
            return
        try:
            session = _Session(Socket(connected), peer, client, self)
        except OSError:
            # Gone between accept and the first option set on it.
            connected.close()
            return
        self.sessions.add(session)
        self.by_client[client] += 1
        statistics.connections_open += 1
        nursery.start_soon(session.run)

    def _turn_away(self, connected: socket.socket) -> None:
        # RFC 5321 §3.8 and §4.2.3: 421 in place of the greeting, and try again later.
        reply = answers.TOO_MANY_CONNECTIONS
        self.statistics.replies_by_first_digit[4] += 1
        try:
            turned_away = Socket(connected)
            turned_away.send_now(Reply(reply.code, f"{self.settings.hostname} {reply.text}", reply.enhanced).octets())
            turned_away.close()
        except OSError:
            connected.close()

    def forget(self, session: "_Session") -> None:
        self.sessions.discard(session)
        self.statistics.connections_open -= 1
        self.by_client[session.client] -= 1
        if not self.by_client[session.client]:
            del self.by_client[session.client]

    async def sweep(self) -> None:
        while True:
            await trio.sleep(self.settings.sweep_interval_s)
            now = trio.current_time()
            for session in self.sessions:
                session.look_at_the_clock(now)

    def drain(self) -> None:
        until = trio.current_time() + self.settings.shutdown_grace_s
        for session in self.sessions:
            session.drain(until)


class _Session:
    """One client, from the greeting to the close."""

    def __init__(self, connected: Socket, peer: Peer, client: str, house: _House) -> None:
        settings = house.settings
        self.client = client
        self._socket = connected
        self._peer = peer
        self._house = house
        self._protocol = ServerSession(
            settings.hostname,
            settings.max_message_octets,
            settings.max_recipients,
            trace=settings.trace,
            replies=house.statistics.replies_by_first_digit,
        )
        self._scope = trio.CancelScope()
        self._farewell: Reply | None = None
        # Only a wait for the client may be cut short, never a call to the receiver: it may be making its promise.
        self._waiting = False
        self._cut_short = False
        self._idle = False
        self._command_due = math.inf
        self._transaction_due = math.inf
        self._drain_due = math.inf

    def look_at_the_clock(self, now: float) -> None:
        """Leave where the client has been waited for long enough."""
        if self._command_due <= now:
            self._leave(answers.TIMED_OUT)
        elif self._drain_due <= now:
            self._leave(answers.SHUTTING_DOWN)
        elif self._transaction_due <= now and self._protocol.in_transaction:
            self._leave(answers.TIMED_OUT)

    def drain(self, until: float) -> None:
        """Shutdown has begun: leave now if idle, else when the transaction is over, at the latest then."""
        self._drain_due = until
        if self._idle:
            self._leave(answers.SHUTTING_DOWN)

    def _leave(self, farewell: Reply) -> None:
        """At once where we wait for the client, else before we listen to it again."""
        self._farewell = farewell
        if self._waiting:
            self._cut_short = True
            self._scope.cancel()

    async def run(self) -> None:
        receiver = None
        try:
            try:
                receiver = self._house.new_receiver(self._peer)
                with self._scope:
                    try:
                        await self._converse(receiver)
                    except OSError:
                        # The client is gone. Its receiver's own errors do not come this far.
                        pass
            except trio.Cancelled:
                self._farewell = answers.SHUTTING_DOWN
                raise
            except Exception as error:  # noqa: BLE001  a defect here must not reach the other sessions
                self._report(error)
                self._farewell = Reply(421, answers.TROUBLE.text, answers.TROUBLE.enhanced)
        finally:
            await self._end(receiver)

    async def _converse(self, receiver: Receiver) -> None:
        protocol = self._protocol
        command_timeout_s = self._house.settings.command_timeout_s
        while True:
            event = protocol.next_event()
            if event is None:
                has_spoken = protocol.unsent > 0
                if has_spoken:
                    await self._flush()
                    self._command_due = trio.current_time() + command_timeout_s
                elif protocol.state is State.CONTENT:
                    self._command_due = trio.current_time() + command_timeout_s
                # Otherwise part of a line has come. That is no reason to wait any longer for the rest.
                octets = await self._receive(has_spoken)
                if not octets:
                    return
                protocol.receive(octets)
            elif isinstance(event, Paused):
                await self._flush()
                await trio.lowlevel.checkpoint()
            elif isinstance(event, Closed):
                await self._flush()
                return
            else:
                await self._act(event, receiver)

    async def _act(
        self, event: Mail | Recipient | Data | EndOfData | Hello | Content | Reset, receiver: Receiver
    ) -> None:
        """Carry one event to the receiver, and its answer back."""
        protocol = self._protocol
        # The time that the receiver takes is not the client's.
        self._command_due = math.inf
        try:
            match event:
                case Content():
                    await receiver.content(event.octets)
                case Mail():
                    protocol.answer(await receiver.mail(event.sender, event.parameters))
                    if protocol.in_transaction:
                        self._transaction_due = trio.current_time() + self._house.settings.transaction_timeout_s
                case Recipient():
                    protocol.answer(await receiver.recipient(event.address, event.parameters))
                case Data():
                    protocol.answer(await receiver.data())
                case EndOfData():
                    reply = await receiver.end_of_data()
                    self._house.statistics.messages += reply.positive
                    protocol.answer(reply)
                case Hello():
                    self._peer.helo, self._peer.extended = event.name, event.extended
                case Reset():
                    await receiver.reset()
        except Exception as error:  # noqa: BLE001  whatever the receiver did wrong, its client gets a 451
            self._report(error)
            await self._excuse(event, receiver)

    async def _excuse(self, event: object, receiver: Receiver) -> None:
        """The receiver has raised."""
        match event:
            case Content():
                self._protocol.refuse_content(answers.TROUBLE)
            case EndOfData() | Mail():
                self._protocol.answer(answers.TROUBLE)
                await self._act(Reset(), receiver)
            case Recipient() | Data():
                self._protocol.answer(answers.TROUBLE)

    async def _receive(self, has_spoken: bool) -> bytes:
        """What comes next; b"" where the conversation is over."""
        if self._drain_due < math.inf and not self._protocol.in_transaction:
            self._farewell = answers.SHUTTING_DOWN
        if self._farewell is not None:
            return b""
        # Whoever has just been answered has not answered yet: to ask the socket first would be in vain.
        octets = None if has_spoken else self._socket.receive_now()
        if octets is not None:
            await self._socket.take_turns()
            return octets
        self._idle = not self._protocol.in_transaction
        while octets is None:
            await self._wait(self._socket.readable)
            octets = self._socket.receive_now()
        self._idle = False
        return octets

    async def _flush(self) -> None:
        rest = self._socket.send_now(self._protocol.octets_to_send())
        if rest:
            # Nothing more is read from a client that does not read.
            self._command_due = trio.current_time() + self._house.settings.command_timeout_s
        while rest:
            await self._wait(self._socket.writable)
            rest = self._socket.send_now(rest)

    async def _wait(self, ready: Callable[[], Awaitable[None]]) -> None:
        self._waiting = True
        await ready()
        self._waiting = False
        if self._cut_short:
            # The sweeper came in the very moment that the client did. Too late is too late: a call to the receiver
            # would be cut short by the cancelled scope.
            raise ConnectionAbortedError

    async def _end(self, receiver: Receiver | None) -> None:
        """Say goodbye, let the receiver go, and close, whatever has happened."""
        self._waiting = self._idle = False
        with trio.CancelScope(shield=True, deadline=trio.current_time() + RESET_GRACE_S):
            self._protocol.hang_up(self._farewell)
            while not isinstance(event := self._protocol.next_event(), Closed):
                if isinstance(event, Reset) and receiver is not None:
                    await self._act(event, receiver)
        try:
            self._socket.send_now(self._protocol.octets_to_send())
        except OSError:
            # Gone already, and nothing that was promised is in these last words.
            pass
        self._socket.close()
        self._house.forget(self)

    def _report(self, error: Exception) -> None:
        """Where it happened, not what it was about: an exception's text may name people."""
        frames = traceback.extract_tb(error.__traceback__)[-REPORTED_FRAMES:]
        where = ", ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
        self._house.on_error(f"a session failed: {type(error).__name__} at {where}")
