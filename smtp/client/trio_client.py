"""The client's driver: one connection to a server, sockets and time round the pure session of `smtp.client.session`.

Error handling. `Connection.open` raises ConnectError where no reply came and Refused where the server said no;
TlsFailed is the ConnectError of a server that can still be spoken to in clear, if one wants that. `send` returns what
the server said for each recipient; where it vanishes, Lost tells how far things had come, because only a connection
lost after the final dot leaves a doubt; ChunkingRefused is the Lost of a server that had better get content by DATA.
After any of them the connection is closed. Cancelling closes it too: half a message never gets a final dot.
"""

import errno
import math
import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import trio

from smtp.address import Address
from smtp.client.extensions import Limits
from smtp.client.session import (
    ClientSession,
    ClientState,
    CommandRefused,
    Done,
    Event,
    GoAhead,
    Rejected,
    Result,
    Stage,
    TlsRefused,
)
from smtp.client.timeouts import Timeouts
from smtp.errors import ProtocolError
from smtp.parameters import MailParameters, RecipientParameters
from smtp.reply import Reply
from smtp.tls import TlsFacts
from smtp.trace import Trace
from smtp.trio_socket import Socket

__all__ = [
    "ChunkingRefused",
    "ClientTls",
    "ConnectError",
    "Connection",
    "Limits",
    "Lost",
    "Refused",
    "Result",
    "Stage",
    "Timeouts",
    "TlsFailed",
    "Trace",
]

# Content is handed to the kernel in blocks of at least this size, the final dot together with the last of them: a small
# message is one packet train and one call.
BLOCK_OCTETS = 65536

_STANDARD = Timeouts()

# What is waited for behind the end of content. (Else it is the number of a reply.)
_FINAL_REPLY = -1
# What `ssl` says where the connection has ended, and not the agreement.
_BROKEN_TLS = (ssl.SSLEOFError, ssl.SSLSyscallError, ssl.SSLZeroReturnError)


class ConnectError(Exception):
    """No conversation came about, and no reply says why. Trying again later, or elsewhere, may help."""


class TlsFailed(ConnectError):
    """The server offered STARTTLS, and the handshake came to nothing; or TLS is required, and was not offered.

    Where it is not required, the same server may be tried again without (RFC 7435 §3).
    """

    def __init__(self, text: str, *, final: bool) -> None:
        super().__init__(text)
        self.final = final
        """Whether the server itself is the reason (no STARTTLS, a certificate that proves nothing, no common version)
        and not a connection that broke: then trying again will not help."""


class Refused(Exception):
    """The server greeted us with 4xx or 5xx, or answered EHLO and HELO so, or a STARTTLS that is required."""

    def __init__(self, reply: Reply, stage: Stage) -> None:
        super().__init__(f"{stage.value}: {reply}")
        self.reply = reply
        self.stage = stage


class Lost(Exception):
    """The connection broke, or the server fell silent or said what is no SMTP, in the middle of a message.

    Stage.END_OF_DATA means that the message may have been delivered. At every other stage it was not.
    """

    def __init__(self, stage: Stage, reason: str, reply: Reply | None = None) -> None:
        super().__init__(f"{stage.value}: {reason}")
        self.stage = stage
        self.reason = reason
        self.reply = reply


class ChunkingRefused(Lost):
    """The server offers CHUNKING and does not know BDAT, or something between us and it does not.

    Nothing of the message was accepted, for anybody: it can be sent at once over a connection without `chunking`.
    """


class _Broken(Exception):
    """What ends a conversation, from the server's side. The text says what, for people."""

    def __init__(self, error: OSError | ProtocolError) -> None:
        super().__init__(_reason(error))


@dataclass(frozen=True, slots=True)
class ClientTls:
    """What to ask of TLS.

    Not required, it is used where it can be had: a server that does not offer STARTTLS, or refuses it, is spoken to in
    clear. Against somebody who only listens that is better than nothing, and against somebody who takes STARTTLS out of
    the reply it is nothing (RFC 7435 §1.2). Required, there is no conversation without it.
    """

    context: ssl.SSLContext
    server_name: str
    """The host that the certificate should be for; sent along in any case (RFC 6066 §3)."""
    required: bool = False


class Connection:
    """A conversation with one server, good for many messages one after the other."""

    def __init__(self, connected: Socket, session: ClientSession, timeouts: Timeouts) -> None:
        """Use `open`."""
        self._socket = connected
        self._session = session
        self._timeouts = timeouts
        self._scope = trio.CancelScope()
        # When this step has to be over, whatever comes.
        self._latest = math.inf
        self._half_sent = False
        self.server_name = ""
        """What the server calls itself in its greeting, or the name it was expected to have."""

    @classmethod
    async def open(
        cls,
        address: str,
        port: int,
        *,
        helo: str,
        timeouts: Timeouts = _STANDARD,
        source_address: str | None = None,
        expected_name: str = "",
        tls: ClientTls | None = None,
        chunking: bool = True,
        trace: Trace | None = None,
    ) -> Self:
        """Connect to an IP address, wait for the greeting, say EHLO (or HELO), and STARTTLS where `tls` asks for it.

        `expected_name` is the host name that led to the address. Without `chunking` content always goes by DATA.
        Raises ConnectError, TlsFailed and Refused.
        """
        session = ClientSession(helo, chunking=chunking, trace=trace)
        connection = cls(await _connect(address, port, source_address, timeouts.connect), session, timeouts)
        try:
            event = await connection._converse(connection._next_event)
        except Lost as lost:
            raise ConnectError(str(lost)) from None
        if isinstance(event, Rejected):
            connection.aclose()
            raise Refused(event.reply, event.stage)
        if tls is not None:
            await connection._secure(tls)
        connection.server_name = session.server_name or expected_name
        return connection

    @property
    def tls(self) -> TlsFacts | None:
        """What was negotiated; None where the connection is in clear."""
        return self._session.tls

    @property
    def extensions(self) -> dict[str, str]:
        """What EHLO offered: keyword in upper case, and its parameters. Empty after HELO."""
        return self._session.extensions

    @property
    def limits(self) -> Limits:
        """How much the server takes (RFC 9422). Whoever has more recipients had better divide them before `send`."""
        return self._session.limits

    @property
    def usable(self) -> bool:
        """Whether another message can be tried, as far as is known without asking the socket. (`send` asks it.)"""
        session = self._session
        return session.state is ClientState.READY and not session.unasked and not session.exhausted

    async def send(
        self,
        sender: Address | str,
        recipients: Sequence[str],
        content: AsyncIterable[bytes] | Iterable[bytes],
        *,
        size: int,
        eight_bit: bool,
        utf8: bool = False,
        require_tls: bool = False,
        ret: Literal["FULL", "HDRS"] | None = None,
        envid: str = "",
        for_recipients: Sequence[RecipientParameters] = (),
    ) -> list[Result]:
        """Send one message; one result for each recipient, in order. Raises Lost (ChunkingRefused is one), and
        ValueError for an address that no command can hold.

        Addresses are envelope text without brackets; '' is the null reverse-path. `utf8` is whether a local part or a
        header field is in UTF-8 (RFC 6531), `require_tls` what RFC 8689 means by it; `ret`, `envid` and
        `for_recipients` (empty, or one for each) travel where the server knows DSN. A message that needs what the
        server lacks has results at Stage.LOCAL, and recipients beyond the server's `limits` have a transient one.

        Content is read only once it is asked for. What it raises passes through, and the connection is closed.
        """
        session = self._session
        if not self.usable or not self._socket.quiet():
            self.aclose()
            raise Lost(Stage.MAIL, "the connection had ended before")
        parameters = MailParameters(size, "8BITMIME" if eight_bit else "7BIT", utf8, require_tls, ret, envid)
        session.begin(str(sender), recipients, parameters, for_recipients)

        async def run() -> Event:
            event = await self._next_event()
            if not isinstance(event, GoAhead):
                return event
            await self._send_content(content)
            if session.state is ClientState.CONTENT:
                session.end_content()
            return await self._next_event()

        event = await self._converse(run, self._timeouts.message)
        if isinstance(event, CommandRefused):
            self.aclose()
            kind = ChunkingRefused if event.stage is Stage.BDAT else Lost
            raise kind(event.stage, f"refused with {event.reply}", event.reply)
        if not isinstance(event, Done):
            raise TypeError(f"a message cannot end with {event}")
        if session.state is ClientState.CLOSED:
            self.aclose()
        return list(event.results)

    async def quit(self) -> None:
        """Say QUIT, wait for the answer for a short time, and close. Never raises."""
        try:
            if self._session.state is ClientState.READY:
                self._session.quit()
                with trio.move_on_after(self._timeouts.quit):
                    await self._converse(self._next_event)
        except Lost:
            # Nothing depends on the answer.
            pass
        finally:
            self.aclose()

    def aclose(self) -> None:
        """Close without a word. May be called again."""
        self._session.close()
        self._socket.close()

    async def _secure(self, tls: ClientTls) -> None:
        """STARTTLS and EHLO once more, as far as that is wanted and can be had."""
        session = self._session
        if "STARTTLS" not in session.extensions:
            if tls.required:
                self.aclose()
                raise TlsFailed("starttls: not offered", final=True)
            return
        final = False

        async def ask() -> Event:
            try:
                session.start_tls()
            except ProtocolError as error:
                raise _Broken(error) from None
            return await self._next_event()

        async def shake_hands() -> Event:
            nonlocal final
            self._allow(self._timeouts.tls)
            name = tls.server_name
            try:
                session.secured(await self._socket.start_tls(tls.context, server_side=False, server_name=name))
            except (OSError, ProtocolError) as error:
                final = isinstance(error, ssl.SSLError) and not isinstance(error, _BROKEN_TLS)
                raise _Broken(error) from None
            return await self._next_event()

        try:
            event = await self._converse(ask)
            if isinstance(event, TlsRefused):
                if not tls.required:
                    return
                self.aclose()
                raise Refused(event.reply, Stage.STARTTLS)
            if not isinstance(event, Rejected):
                # A server may also fail us after our half of the handshake: TLS 1.3 has the client finish first.
                event = await self._converse(shake_hands)
        except Lost as lost:
            raise TlsFailed(str(lost), final=final) from None
        if isinstance(event, Rejected):
            self.aclose()
            if session.tls is not None and not tls.required:
                # It speaks in clear, and has said no only since it is under TLS.
                raise TlsFailed(f"{event.stage.value} under TLS: {event.reply}", final=False)
            raise Refused(event.reply, event.stage)

    async def _converse(self, run: Callable[[], Awaitable[Event]], within_s: float = math.inf) -> Event:
        """Do this under the clock. Raises Lost; the connection is closed then, as after any other exception."""
        self._latest = trio.current_time() + within_s
        try:
            with trio.CancelScope() as self._scope:
                try:
                    return await run()
                except _Broken as broken:
                    reason = str(broken)
            if self._scope.cancelled_caught:
                late = trio.current_time() >= self._latest
                reason = f"timed out: {within_s:g} s are the most for a message" if late else "timed out"
            stage = self._stage()
            event = self._last_words() or self._session.close()
            if event is None:
                raise Lost(stage, reason)
        except BaseException:
            self.aclose()
            raise
        self.aclose()
        return event

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

    async def _next_event(self) -> Event:
        """Send what there is to send, and read until the session has something to tell."""
        session = self._session
        waited_for: int | None = None
        try:
            while (event := session.next_event()) is None:
                # Whoever has just been asked has not answered yet: to look at once would be in vain.
                octets = None if await self._flush() else self._socket.receive_now()
                while octets is None:
                    waited_for = await self._readable(waited_for)
                    octets = self._socket.receive_now()
                self._receive(octets)
        except (OSError, ProtocolError) as error:
            raise _Broken(error) from None
        return event

    def _allow(self, seconds: float) -> None:
        """So much time from now on."""
        self._scope.deadline = min(trio.current_time() + seconds, self._latest)

    async def _readable(self, waited_for: int | None) -> int:
        """Wait until there is something to read.

        The clock begins anew with each reply, not with each octet of one. Returns what was waited for, to be given back
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
            self._allow(self._timeouts.of(stage))
        await self._socket.readable()
        return waits_for

    def _receive(self, octets: bytes) -> None:
        if not octets:
            raise ConnectionResetError(errno.ECONNRESET, "closed by the server")
        self._session.receive(octets)

    async def _send_content(self, content: AsyncIterable[bytes] | Iterable[bytes]) -> None:
        """As much of it as the server wants. What it raises is not the server's."""
        if not isinstance(content, AsyncIterable):
            for octets in content:
                if not await self._send_piece(octets):
                    return
            return
        # Nobody waits for the server while a piece is made.
        self._scope.deadline = self._latest
        try:
            async for octets in content:
                if not await self._send_piece(octets):
                    return
        finally:
            if isinstance(content, AsyncGenerator):
                # It may have been left in the middle.
                await content.aclose()

    async def _send_piece(self, octets: bytes) -> bool:
        """Whether the server wants more."""
        session = self._session
        session.content(octets)
        if session.unsent >= BLOCK_OCTETS:
            try:
                await self._flush()
                if session.in_chunks:
                    await self._read_chunk_replies()
            except (OSError, ProtocolError) as error:
                raise _Broken(error) from None
            self._scope.deadline = self._latest
        return session.state is ClientState.CONTENT

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
                waited_for = await self._readable(waited_for)
            else:
                return

    async def _flush(self) -> bool:
        """Send what there is to send; False where there was nothing."""
        if not self._session.unsent:
            return False
        self._half_sent = True
        rest = self._socket.send_now(self._session.octets_to_send())
        while rest:
            self._allow(self._timeouts.block)
            await self._socket.writable()
            rest = self._socket.send_now(rest)
        self._half_sent = False
        return True


async def _connect(address: str, port: int, source_address: str | None, timeout_s: float) -> Socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        # EAFNOSUPPORT where the kernel has no IPv6, EMFILE where too many files are open.
        connecting = socket.socket(family, socket.SOCK_STREAM)
    except OSError as refused:
        raise ConnectError(f"connect: {_reason(refused)}") from None
    try:
        connecting.setblocking(False)
        if source_address is not None:
            connecting.bind((source_address, 0))
        error = connecting.connect_ex((address, port))
        if error == errno.EINPROGRESS:
            with trio.fail_after(timeout_s):
                await trio.lowlevel.wait_writable(connecting)
            error = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        return Socket(connecting)
    except trio.TooSlowError:
        connecting.close()
        raise ConnectError("connect: timed out") from None
    except OSError as error:
        connecting.close()
        raise ConnectError(f"connect: {_reason(error)}") from None
    except BaseException:
        connecting.close()
        raise


def _reason(error: OSError | ProtocolError) -> str:
    if isinstance(error, ProtocolError):
        return str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message.rstrip('.').lower()}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return (error.strerror or type(error).__name__).lower()
