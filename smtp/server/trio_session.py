"""One client of the server's driver, from the greeting to the close: octets between its socket and the pure session,
events between that and a Receiver.

Only a wait for the client may be cut short (by the clock, by a shutdown, by others who need the place), never a call to
the receiver: it may be making its promise.
"""

import math
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import trio

from smtp.errors import ProtocolError
from smtp.reply import Reply
from smtp.server import answers
from smtp.server.admission import Admission
from smtp.server.conduct import Conduct
from smtp.server.events import Closed, Content, Data, EndOfData, Event, Hello, Mail, Paused, Recipient, Reset, StartTls
from smtp.server.offer import SessionSettings
from smtp.server.proxy import ProxyReader
from smtp.server.serving import PassesOn, Peer, Receiver, ServerSettings, Statistics, client_key
from smtp.server.session import ServerSession
from smtp.trio_socket import Socket

# When a session is torn down from outside, its receiver may still take this long to let go of what it holds.
RESET_GRACE_S = 5.0
# Of what may be in flight, how much all messages may take together that are kept whole; and those of one client where
# it has several under way. Who sends slowly can hold them for as long as a transaction lasts.
WHOLE_SHARE = 3 / 4
CLIENT_SHARE = 1 / 4
# Innermost frames that a report of a receiver's fault names.
REPORTED_FRAMES = 3


@dataclass(slots=True)
class House:
    """What the sessions of one server share."""

    new_receiver: Callable[[Peer], Receiver]
    settings: ServerSettings
    on_error: Callable[[str], None]
    statistics: Statistics
    terms: SessionSettings = field(init=False)
    admission: "Admission[Session]" = field(init=False)
    conduct: Conduct = field(init=False)
    sessions: "set[Session]" = field(default_factory=set)
    in_flight_octets: int = 0
    """Content of unfinished messages that receivers hold."""
    kept_whole: Counter[str] = field(default_factory=Counter)
    """Of that, what is of messages that are kept whole, by client."""
    now: float = field(default_factory=trio.current_time)
    """Trio's clock as the sweeper has last seen it: what it looks at need not be more exact, and it costs nothing."""

    def __post_init__(self) -> None:
        self.terms = self.settings.session
        self.admission = Admission(self.settings.max_connections, self.settings.max_connections_per_client)
        self.conduct = Conduct(self.settings.conduct)

    def may_keep_whole(self, client: str, held: int, more: int) -> bool:
        """Whether a message that is kept whole, with so much of it held, may grow. It has room for itself, but not for
        all that its client sends at once; and together such messages leave room for those that need little."""
        limit = self.settings.max_in_flight_octets
        others = self.kept_whole[client] - held
        if others and others + held + more > limit * CLIENT_SHARE:
            return False
        return self.kept_whole.total() + more <= limit * WHOLE_SHARE

    def refusal(self, client: str, now: float, *, is_proxy: bool = False) -> Reply | None:
        """Why a client is not let in now, if it is not. Somebody else may have to go for it."""
        if not is_proxy:
            if self.conduct.is_unwelcome(client, now):
                return answers.UNWELCOME
            if not self.admission.has_room_for(client):
                return answers.TOO_MANY_CONNECTIONS
        if self.admission.is_full:
            leaving = self.admission.who_makes_room(client, now)
            if leaving is None:
                return answers.TOO_MANY_CONNECTIONS
            self.admission.leave(leaving)
            self.statistics.connections_given_up += 1
            leaving.make_room()
        return None


class Session:
    """One connection."""

    def __init__(self, connected: Socket, peer: Peer, house: House, *, behind_proxy: bool = False) -> None:
        self.client = client_key(peer.address)
        self.since = trio.current_time()
        self.octets_received = 0
        self._socket = connected
        self._peer = peer
        self._house = house
        self._behind_proxy = behind_proxy
        # Whoever has not said for whom it speaks hears nothing.
        self._is_mute = behind_proxy
        self._unsent: bytes | memoryview = b""
        self._protocol = ServerSession(
            house.terms,
            trace=house.settings.trace,
            replies=house.statistics.replies_by_code,
            greets=not behind_proxy,
        )
        # Set while an answer is held back: the one wait that is not for the socket.
        self._delay: trio.CancelScope | None = None
        self._farewell: Reply | None = None
        self._waiting = False
        self._cut_short = False
        self._idle = False
        self._command_due = math.inf
        self._transaction_due = math.inf
        self._drain_due = math.inf
        self._held_octets = 0
        # How much of the present message its receiver keeps at most.
        self._held_at_most: float = house.settings.max_held_octets
        # The receiver, where it is one that passes messages on.
        self._passing_on: PassesOn | None = None
        # The rate of content: what had come when the present window began, and for how long we have waited in it.
        self._window_octets = 0
        self._waited_s = 0.0

    # ------------------------------------------------------------------ leaving before the end

    @property
    def may_leave(self) -> bool:
        """See `smtp.server.admission.Guest`."""
        return self._waiting

    def look_at_the_clock(self, now: float) -> None:
        """Leave where the client has been waited for long enough. To be called every `sweep_interval_s`."""
        if self._command_due <= now:
            self._leave(answers.TIMED_OUT)
        elif self._drain_due <= now:
            self._leave(answers.SHUTTING_DOWN)
        elif self._protocol.in_transaction or self._protocol.in_content:
            if self._transaction_due == math.inf:
                # A chunk that belongs to no transaction: its octets are thrown away, for as long as one may last.
                self._transaction_due = now + self._house.settings.transaction_timeout_s
            elif self._waiting and self._transaction_due <= now:
                # Not while the receiver works: it may be promising, and its time is not the client's.
                self._leave(answers.TIMED_OUT)
            elif self._waiting and self._protocol.in_content:
                self._look_at_the_rate()
        else:
            self._transaction_due = math.inf

    def _look_at_the_rate(self) -> None:
        settings = self._house.settings
        self._waited_s += settings.sweep_interval_s
        if self._waited_s >= settings.rate_window_s:
            if self.octets_received - self._window_octets < settings.min_octets_per_s * self._waited_s:
                self._leave(answers.TOO_SLOW)
            self._begin_window()

    def _begin_window(self) -> None:
        self._window_octets = self.octets_received
        self._waited_s = 0.0

    def drain(self, until: float) -> None:
        """Shutdown has begun: leave now if idle, else when the transaction is over, at the latest then."""
        self._drain_due = until
        if self._idle:
            self._leave(answers.SHUTTING_DOWN)

    def make_room(self) -> None:
        """Another client needs the place. Only where `may_leave`."""
        self._leave(answers.MAKING_ROOM)

    def _allow(self, timeout_s: float) -> None:
        """The client has so long for what we wait for; on no account less."""
        self._command_due = self._house.now + self._house.settings.sweep_interval_s + timeout_s

    def _leave(self, farewell: Reply) -> None:
        """At once where we wait for the client, else before we listen to it again."""
        self._farewell = farewell
        if self._delay is not None:
            self._delay.cancel()
        elif self._waiting:
            self._cut_short = True
            self._socket.stop_waiting()

    # ------------------------------------------------------------------ the conversation

    async def run(self) -> None:
        """All of it. Never raises but for cancellation from outside."""
        receiver = None
        try:
            try:
                try:
                    if self._behind_proxy and not await self._learn_real_address():
                        return
                    receiver = self._house.new_receiver(self._peer)
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

    async def _learn_real_address(self) -> bool:
        """Read the proxy's header, before anything is said; False where the connection ends with it."""
        reader = ProxyReader()
        self._allow(self._house.settings.handshake_timeout_s)
        header = None
        while header is None:
            octets = await self._receive(has_spoken=True)
            if not octets:
                return False
            try:
                header = reader.receive(octets)
            except ProtocolError as error:
                self._house.on_error(f"{self._peer.address} is a trusted proxy, and sent no PROXY header: {error}")
                return False
        self._is_mute = False
        self._protocol.receive(reader.rest)
        self._house.admission.leave(self)
        # Without an address the proxy speaks for itself, to see whether we are there.
        if header.address is not None:
            self._peer.address, self._peer.port = header.address, header.port
            self.client = client_key(header.address)
        self._farewell = self._house.refusal(self.client, trio.current_time(), is_proxy=header.address is None)
        if self._farewell is not None:
            self._house.statistics.connections_turned_away += 1
            # In place of the greeting (RFC 5321 §3.8).
            return False
        self._house.admission.enter(self)
        self._protocol.greet()
        return True

    async def _converse(self, receiver: Receiver) -> None:
        protocol = self._protocol
        command_timeout_s = self._house.settings.command_timeout_s
        # Asked once: a look at the methods takes as long as a whole command.
        self._passing_on = receiver if isinstance(receiver, PassesOn) else None
        while True:
            event = protocol.next_event()
            if event is None:
                said = protocol.octets_to_send()
                if said:
                    self._unsent = self._socket.send_now(said)
                    if self._unsent:
                        await self._send_rest()
                    self._allow(command_timeout_s)
                elif protocol.in_content:
                    self._allow(command_timeout_s)
                # Otherwise part of a line has come. That is no reason to wait any longer for the rest.
                octets = await self._receive(has_spoken=said != b"")
                if not octets:
                    return
                protocol.receive(octets)
            elif isinstance(event, Paused):
                await self._flush()
                # It may have been the last reply of a group: the next command has its time from here.
                self._allow(command_timeout_s)
                await trio.lowlevel.checkpoint()
            elif isinstance(event, StartTls):
                await self._start_tls()
                self._allow(command_timeout_s)
            elif isinstance(event, Closed):
                await self._flush()
                return
            else:
                # The time that the receiver takes is not the client's.
                self._command_due = math.inf
                await self._act(event, receiver)

    async def _act(self, event: Event, receiver: Receiver) -> None:
        """Carry one event to the receiver, and its answer back."""
        protocol, house = self._protocol, self._house
        try:
            match event:
                case Content():
                    if self._may_hold(len(event.octets)):
                        await receiver.content(event.octets)
                    else:
                        protocol.refuse_content(answers.TOO_MUCH_IN_FLIGHT)
                case Mail():
                    if house.in_flight_octets >= house.settings.max_in_flight_octets:
                        reply = answers.TOO_MUCH_IN_FLIGHT
                    else:
                        reply = await receiver.mail(event.sender, event.parameters)
                    protocol.answer(reply)
                    self._transaction_due = house.now + house.settings.transaction_timeout_s
                case Recipient():
                    began = house.now
                    reply = await receiver.recipient(event.address, event.parameters)
                case Data():
                    refusal = await receiver.data()
                    if self._passing_on is not None:
                        holds_whole = self._passing_on.holds_whole
                        self._held_at_most = math.inf if holds_whole else house.settings.max_held_octets
                    protocol.answer(refusal)
                    self._begin_window()
                case EndOfData():
                    ended_at = trio.current_time()
                    reply = await receiver.end_of_data()
                    self._let_go()
                    if reply.positive:
                        house.statistics.messages += 1
                        house.statistics.until_accepted_s.observe(trio.current_time() - ended_at)
                        house.conduct.message_accepted(self.client, house.now)
                    protocol.answer(reply)
                    if reply.positive and protocol.has_input:
                        # Nothing that is to come may hold this answer back: the message is ours now (RFC 5321 §6.1).
                        await self._flush()
                case Hello():
                    self._peer.helo, self._peer.extended = event.name, event.extended
                case Reset():
                    self._let_go()
                    await receiver.reset()
        except Exception as error:  # noqa: BLE001  whatever the receiver did wrong, its client gets a 451
            self._report(error)
            await self._excuse(event, receiver)
        else:
            if isinstance(event, Recipient):
                if reply.positive:
                    house.conduct.recipient_accepted(self.client, house.now)
                else:
                    reply = await self._weigh_refusal(reply)
                protocol.answer(reply)
                if house.now != began:
                    # So long did that take that the sweeper has come by. In a pipelined group (RFC 2920) several may
                    # take longer, together, than the five minutes for which the client waits for the first of them.
                    await self._flush()

    async def _weigh_refusal(self, reply: Reply) -> Reply:
        """What a refused recipient is answered. Whoever asks for many that do not exist waits for each answer, and gets
        no more in the end."""
        conduct, now = self._house.conduct, self._house.now
        if reply.permanent and (reply.enhanced or "").startswith("5.1."):
            # RFC 3463 §3.2: it is the address that is wrong. A refusal for another reason tells nobody who exists.
            elsewhere = self._passing_on is not None and self._passing_on.asked_elsewhere
            conduct.recipient_refused(self.client, now, elsewhere=elsewhere)
            if conduct.is_unwelcome(self.client, now):
                return answers.UNWELCOME
            if self._farewell is None and (delay := conduct.delay(self.client, now)):
                # What has been answered already is not held back: behind it may be a whole group of these.
                await self._flush()
                with trio.move_on_after(delay) as self._delay:
                    await self._wait(trio.sleep_forever())
                self._delay = None
        return reply

    async def _excuse(self, event: Event, receiver: Receiver) -> None:
        """The receiver has raised."""
        match event:
            case Content():
                self._protocol.refuse_content(answers.TROUBLE)
            case EndOfData() | Mail():
                self._protocol.answer(answers.TROUBLE)
                await self._act(Reset(), receiver)
            case Recipient() | Data():
                self._protocol.answer(answers.TROUBLE)

    async def _start_tls(self) -> None:
        """The handshake. Where it fails the connection ends: the client has asked for TLS, and there is none."""
        context = self._house.settings.tls
        assert context is not None, "STARTTLS is offered only with a context"
        await self._flush()
        self._allow(self._house.settings.handshake_timeout_s)
        self._house.statistics.handshakes += 1
        try:
            await self._wait(self._socket.start_tls(context, server_side=True))
        except OSError:
            self._house.statistics.handshakes_failed += 1
            raise
        self._peer.tls = self._socket.tls
        self._peer.helo, self._peer.extended = "", False
        self._protocol.secured()

    # ------------------------------------------------------------------ content in flight

    def _may_hold(self, octets: int) -> bool:
        """Count so many more octets as held for this message, where there is room for them."""
        house = self._house
        more = int(min(octets, self._held_at_most - self._held_octets))
        if house.in_flight_octets + more > house.settings.max_in_flight_octets:
            return False
        if self._held_at_most == math.inf:
            if not house.may_keep_whole(self.client, self._held_octets, more):
                return False
            house.kept_whole[self.client] += more
        house.in_flight_octets += more
        self._held_octets += more
        return True

    def _let_go(self) -> None:
        if self._held_octets and self._held_at_most == math.inf:
            # Unary plus: without those who keep nothing any more.
            self._house.kept_whole[self.client] -= self._held_octets
            self._house.kept_whole = +self._house.kept_whole
        self._house.in_flight_octets -= self._held_octets
        self._held_octets = 0

    # ------------------------------------------------------------------ the socket

    async def _receive(self, has_spoken: bool) -> bytes:
        """What comes next; b"" where the conversation is over."""
        if has_spoken:
            # Others first. Where there are some, the client has mostly answered by then, and nobody has to wait for the
            # socket: with twenty clients that saves a tenth of what a message costs here.
            await trio.lowlevel.cancel_shielded_checkpoint()
        if self._drain_due < math.inf and not self._protocol.in_transaction:
            self._farewell = answers.SHUTTING_DOWN
        if self._farewell is not None:
            return b""
        octets = self._socket.receive_now()
        if octets is not None:
            self.octets_received += len(octets)
            if not has_spoken:
                await self._socket.take_turns()
            return octets
        self._idle = not self._protocol.in_transaction
        while octets is None:
            await self._wait(self._socket.readable())
            octets = self._socket.receive_now()
        self._idle = False
        self.octets_received += len(octets)
        return octets

    async def _flush(self) -> None:
        """Send all that has been said."""
        self._unsent = self._socket.send_now(self._protocol.octets_to_send())
        if self._unsent:
            await self._send_rest()

    async def _send_rest(self) -> None:
        # Nothing more is read from a client that does not read.
        self._allow(self._house.settings.command_timeout_s)
        while self._unsent:
            await self._wait(self._socket.writable())
            self._unsent = self._socket.send_now(self._unsent)

    async def _wait(self, ready: Awaitable[object]) -> None:
        self._waiting = True
        try:
            await ready
        except trio.ClosedResourceError:
            # We have waited for long enough.
            raise ConnectionAbortedError from None
        finally:
            self._waiting = False
        if self._cut_short:
            # The socket woke us in the very moment that somebody told us to leave: nobody was waiting to be stopped.
            raise ConnectionAbortedError

    # ------------------------------------------------------------------ the end

    async def _end(self, receiver: Receiver | None) -> None:
        """Say goodbye, let the receiver go, and close, whatever has happened."""
        self._waiting = self._idle = False
        protocol = self._protocol
        protocol.hang_up(None if self._is_mute else self._farewell)
        while not isinstance(event := protocol.next_event(), Closed):
            if isinstance(event, Reset) and receiver is not None:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + RESET_GRACE_S):
                    await self._act(event, receiver)
        self._let_go()
        if protocol.unsent:
            try:
                # What was begun comes first: half a reply with a 421 behind it would be a line of its own meaning.
                if not (self._unsent and self._socket.send_now(self._unsent)):
                    self._socket.send_now(protocol.octets_to_send())
            except OSError:
                # Gone already, and nothing that was promised is in these last words.
                pass
        self._socket.close()
        house = self._house
        house.sessions.discard(self)
        house.admission.leave(self)
        house.statistics.connections_open -= 1
        for _ in range(self._protocol.errors):
            house.conduct.error(self.client, house.now)

    def _report(self, error: Exception) -> None:
        """Where it happened, not what it was about: an exception's text may name people."""
        frames = traceback.extract_tb(error.__traceback__)[-REPORTED_FRAMES:]
        where = ", ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
        self._house.on_error(f"a session failed: {type(error).__name__} at {where}")
