"""A client's conversation under the clock: the pure session's octets out and in over a socket, and every wait with a
limit.

Whatever ends it closes the connection: a server that breaks it, time that runs out, and whoever cancels. Half a message
never gets a final dot.
"""

import errno
import math
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable

import trio

from smtp.client.deadlines import deadlines_of_this_run
from smtp.client.errors import Lost
from smtp.client.events import CommandRefused, Done, Event, Rejected
from smtp.client.sequence import ClientState, Stage
from smtp.client.session import ClientSession
from smtp.client.timeouts import Timeouts
from smtp.errors import ProtocolError
from smtp.tls import TlsFacts
from smtp.trio_socket import Socket

# Content is handed to the kernel in blocks of at least this size, the final dot together with the last of them: a small
# message is one packet train and one call.
BLOCK_OCTETS = 65536

# What is waited for behind the end of content. (Else it is the number of a reply.)
_FINAL_REPLY = -1


# What `ssl` says where the connection has ended, and not the agreement.
_BROKEN_TLS = (ssl.SSLEOFError, ssl.SSLSyscallError, ssl.SSLZeroReturnError)


# What ends a wait of a conversation that is told to `give_up`.
_OutOfTime = trio.ClosedResourceError


class Broken(Exception):
    """What ends a conversation, from the server's side. The text says what, for people."""

    def __init__(self, error: OSError | ProtocolError | _OutOfTime) -> None:
        super().__init__(reason(error))
        self.timed_out = isinstance(error, _OutOfTime)
        """Whether it is that we have waited long enough."""
        self.final = isinstance(error, ssl.SSLError) and not isinstance(error, _BROKEN_TLS)
        """Whether TLS came to nothing for a reason that will still be there next time."""


class EightBit(Exception):
    """The content has an octet above 127, and the server takes none. Our side's: it passes through."""


class Conversation:
    """One session, the socket it goes over, and how long each step may take."""

    __slots__ = ("_deadlines", "_half_sent", "_latest", "_reply_within", "_session", "_socket", "_timeouts")

    def __init__(self, socket: Socket, session: ClientSession, timeouts: Timeouts) -> None:
        self._socket = socket
        self._session = session
        self._timeouts = timeouts
        # How long each reply may take, in seconds.
        self._reply_within = {stage: timeouts.of(stage) for stage in Stage}
        self._deadlines = deadlines_of_this_run()
        self._latest = math.inf
        # Whether something is with us that the server has been sent a part of.
        self._half_sent = False

    @property
    def quiet(self) -> bool:
        """Whether the connection stands and nothing has come unasked; else only `close` is left."""
        return self._socket.quiet()

    def close(self) -> None:
        """Close without a word. May be called again."""
        self._session.close()
        self._socket.close()

    async def hold(self, run: Callable[[], Awaitable[Event]], within_s: float = math.inf) -> Event:
        """Do this under the clock. Raises Lost; the connection is closed then, as after any other exception."""
        self._latest = self._deadlines.now() + within_s
        try:
            try:
                return await run()
            except Broken as broken:
                reason = str(broken)
                if broken.timed_out and self._deadlines.now() >= self._latest:
                    reason = f"{reason}: {within_s:g} s are the most for a message"
            finally:
                self._deadlines.forget(self)
            stage = self._stage()
            event = self._last_words() or self._session.close()
            if event is None:
                raise Lost(stage, reason)
        except BaseException:
            self.close()
            raise
        self.close()
        return event

    def give_up(self) -> None:
        """See `smtp.client.deadlines`: `hold` ends as timed out, where it waits for the server."""
        self._socket.stop_waiting()

    async def next_event(self) -> Event:
        """Send what there is to send, and read until the session has something to tell."""
        session = self._session
        waited_for: int | None = None
        try:
            while (event := session.next_event()) is None:
                # Whoever has just been asked has not answered yet: to look at once would be in vain.
                octets = None if await self._flush() else self._socket.receive_now()
                while octets is None:
                    waited_for = self._allow_reply(waited_for)
                    await self._socket.readable()
                    octets = self._socket.receive_now()
                self._receive(octets)
        except (OSError, ProtocolError, _OutOfTime) as error:
            raise Broken(error) from None
        return event

    async def next_event_after_pause(self) -> Event:
        """The same behind a time in which the server may have said goodbye: then that is the answer."""
        try:
            # It may have come together with the reply before.
            event = self._session.next_event()
            if event is not None:
                return event
            octets = self._socket.receive_now()
            if octets is not None:
                self._receive(octets)
        except (OSError, ProtocolError) as error:
            raise Broken(error) from None
        return await self.next_event()

    async def shake_hands(self, context: ssl.SSLContext, server_name: str | None) -> TlsFacts:
        """Go on under TLS. Raises Broken."""
        self._allow(self._timeouts.tls)
        try:
            return await self._socket.start_tls(context, server_side=False, server_name=server_name)
        except (OSError, _OutOfTime) as error:
            raise Broken(error) from None

    async def send_content(self, content: AsyncIterable[bytes] | Iterable[bytes], *, seven_bit: bool = False) -> None:
        """As much of it as the server wants. What it raises is not the server's.

        With `seven_bit`, none of it above 127: what has such octets raises EightBit, before they are sent.
        """
        if not isinstance(content, AsyncIterable):
            for octets in content:
                if not await self._send_piece(octets, seven_bit):
                    return
            return
        # While a piece is made it is not the server that is waited for.
        with trio.CancelScope(deadline=self._latest) as scope:
            try:
                async for octets in content:
                    if not await self._send_piece(octets, seven_bit):
                        return
            finally:
                if isinstance(content, AsyncGenerator):
                    # It may have been left in the middle.
                    await content.aclose()
        if scope.cancelled_caught:
            raise Broken(_OutOfTime())

    def _stage(self) -> Stage:
        """How far things have come. A final dot, or a last chunk, that is still with us has not been sent."""
        stage = self._session.stage
        if stage is Stage.END_OF_DATA and self._half_sent:
            return Stage.BDAT if self._session.in_chunks else Stage.DATA
        return stage

    def _last_words(self) -> Event | None:
        """What the server said before it turned away while we were still sending: it may well have said why."""
        if not self._half_sent:
            return None
        try:
            self._session.receive(self._socket.receive_now() or b"")
            event = self._session.next_event()
        except (OSError, ProtocolError):
            return None
        if isinstance(event, Done):
            # Nobody can have accepted what was not sent whole.
            return None if any(result.reply.positive for result in event.results) else event
        # To go ahead, or to shake hands, is too late now.
        return event if isinstance(event, Rejected | CommandRefused) else None

    def _allow(self, seconds: float) -> None:
        """So much time from now on."""
        self._deadlines.wait_until(self, min(self._deadlines.now() + seconds, self._latest))

    def _allow_reply(self, waited_for: int | None) -> int:
        """Time for the next reply, which is about to be waited for.

        The clock begins anew with each reply, not with each octet of one. Returns what is waited for, to be given back
        with the next call.
        """
        session = self._session
        stage = session.stage
        waits_for = session.replies_read
        if stage is Stage.END_OF_DATA:
            # All is sent. Replies to earlier chunks may come before the final one, and make it no later.
            waits_for = _FINAL_REPLY
            self._latest = math.inf
        if waits_for != waited_for:
            self._allow(self._reply_within[stage])
        return waits_for

    async def _send_piece(self, octets: bytes, seven_bit: bool) -> bool:
        """Whether the server wants more."""
        if seven_bit and not octets.isascii():
            raise EightBit
        session = self._session
        session.content(octets)
        if session.unsent >= BLOCK_OCTETS:
            try:
                await self._flush()
                if session.in_chunks:
                    await self._read_chunk_replies()
                else:
                    self._look_up()
            except (OSError, ProtocolError, _OutOfTime) as error:
                raise Broken(error) from None
        return session.state is ClientState.CONTENT

    def _look_up(self) -> None:
        """See whether the server has spoken before the end of DATA: it refuses what it has not read, or talks rubbish.

        Either way it would be in vain to send the rest, and what is said now must not be the reply to the final dot.
        """
        octets = self._socket.receive_now()
        if octets is not None:
            self._receive(octets)
            self._session.take_replies()

    async def _read_chunk_replies(self) -> None:
        """Take what has come; wait only where the next chunk has to."""
        session = self._session
        waited_for: int | None = None
        while session.state is ClientState.CONTENT:
            octets = self._socket.receive_now()
            if octets is not None:
                self._receive(octets)
                session.take_replies()
            elif session.must_wait:
                waited_for = self._allow_reply(waited_for)
                await self._socket.readable()
            else:
                return

    def _receive(self, octets: bytes) -> None:
        if not octets:
            raise ConnectionResetError(errno.ECONNRESET, "closed by the server")
        self._session.receive(octets)

    async def _flush(self) -> bool:
        """Send what there is to send; False where there was nothing."""
        octets = self._session.octets_to_send()
        if not octets:
            return False
        self._half_sent = True
        rest = self._socket.send_now(octets)
        while rest:
            self._allow(self._timeouts.block)
            await self._socket.writable()
            rest = self._socket.send_now(rest)
        self._half_sent = False
        return True


def reason(error: OSError | ProtocolError | _OutOfTime) -> str:
    if isinstance(error, _OutOfTime):
        return "timed out"
    if isinstance(error, ProtocolError):
        return str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message.rstrip('.').lower()}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return (error.strerror or type(error).__name__).lower()
