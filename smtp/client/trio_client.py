"""The client's driver: one connection to a server, sockets and time round the pure session of `smtp.client.session`.

Error handling. `Connection.open` raises ConnectError where no reply came and Refused where the server said no;
TlsFailed is the ConnectError of a server that can still be spoken to in clear, if one wants that, and LoginFailed that
of one where nobody can log in. `send` returns what the server said for each recipient, and `begin`, `ask_recipient` and
`send_content` what it said to each step; where it vanishes, Lost tells how far things had come, because only a
connection lost after the final dot leaves a doubt; ChunkingRefused is the Lost of a server that had better get content
by DATA. After any of them the connection is closed. Cancelling closes it too: half a message never gets a final dot.
"""

import ssl
from collections.abc import AsyncIterable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import trio

from smtp.address import Address
from smtp.client.authentication import Login, obstacle_to_login
from smtp.client.conversation import Broken, Conversation, EightBit
from smtp.client.dialing import dial
from smtp.client.envelope import NO_EIGHT_BIT
from smtp.client.errors import ChunkingRefused, ConnectError, LoginFailed, Lost, Refused, TlsFailed
from smtp.client.events import Answered, CommandRefused, Done, Event, GoAhead, Rejected, Result, TlsRefused
from smtp.client.extensions import Limits
from smtp.client.sequence import ClientState, Stage
from smtp.client.session import ClientSession
from smtp.client.timeouts import Timeouts
from smtp.errors import ProtocolError
from smtp.parameters import MailParameters, RecipientParameters
from smtp.reply import Reply
from smtp.tls import TlsFacts
from smtp.trace import Trace

__all__ = [
    "ChunkingRefused",
    "ClientTls",
    "ConnectError",
    "Connection",
    "Limits",
    "Login",
    "LoginFailed",
    "Lost",
    "Refused",
    "Result",
    "Stage",
    "Timeouts",
    "TlsFailed",
    "Trace",
]

_STANDARD = Timeouts()


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

    def __init__(self, conversation: Conversation, session: ClientSession, timeouts: Timeouts) -> None:
        """Use `open`."""
        self._conversation = conversation
        self._session = session
        self._timeouts = timeouts
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
        implicit_tls: bool = False,
        login: Login | None = None,
        chunking: bool = True,
        trace: Trace | None = None,
    ) -> Self:
        """Connect to an IP address, wait for the greeting, say EHLO (or HELO), STARTTLS where `tls` asks for it, and
        who we are where there is a `login`.

        `expected_name` is the host name that led to the address. With `implicit_tls` the handshake comes before the
        greeting (RFC 8314 §3.3), and `tls` says how; nothing is ever said in clear then. Without `chunking` content
        always goes by DATA. Raises ConnectError (TlsFailed and LoginFailed are two), and Refused.
        """
        if implicit_tls and tls is None:
            raise ValueError("implicit TLS needs a context")
        session = ClientSession(helo, chunking=chunking, trace=trace)
        conversation = Conversation(await dial(address, port, source_address, timeouts.connect), session, timeouts)
        connection = cls(conversation, session, timeouts)
        if tls is not None and implicit_tls:
            await connection._greet_under_tls(tls)
        else:
            await connection._greet()
            if tls is not None:
                await connection._secure(tls)
        if login is not None:
            await connection._log_in(login)
        connection.server_name = session.server.server_name or expected_name
        return connection

    @property
    def tls(self) -> TlsFacts | None:
        """What was negotiated; None where the connection is in clear."""
        return self._session.server.tls

    @property
    def extensions(self) -> dict[str, str]:
        """What EHLO offered: keyword in upper case, and its parameters. Empty after HELO."""
        return self._session.server.extensions

    @property
    def limits(self) -> Limits:
        """How much the server takes (RFC 9422). Whoever has more recipients had better divide them before `send`."""
        return self._session.server.limits

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
        session, conversation = self._session, self._conversation
        self._need_standing()
        parameters = MailParameters(size, "8BITMIME" if eight_bit else "7BIT", utf8, require_tls, ret, envid)
        session.begin(str(sender), recipients, parameters, for_recipients)

        async def run() -> Event:
            event = await conversation.next_event()
            if not isinstance(event, GoAhead):
                return event
            await conversation.send_content(content)
            if session.state is ClientState.CONTENT:
                session.end_content()
            return await conversation.next_event()

        return list(self._done(await conversation.hold(run, self._timeouts.message)).results)

    async def begin(
        self,
        sender: Address | str,
        *,
        size: int | None,
        eight_bit: bool,
        utf8: bool,
        require_tls: bool,
        ret: Literal["FULL", "HDRS"] | None = None,
    ) -> Reply:
        """Begin a message step by step: say MAIL, and wait for the reply. Raises Lost, and ValueError as `send` does.

        For whoever must know what is said to one recipient before the next one is there. A positive reply is followed
        by `ask_recipient`, and `send_content` or `reset`; behind any other one there is no transaction. What the
        message needs and the server lacks gets the reply of our own that `send` has for it; the server is not asked.

        Whether the content is 8-bit may not be known yet: the server is told that it may be, where it knows BODY, and
        where it does not, `send_content` refuses what it can't have.
        """
        self._need_standing()
        parameters = MailParameters(size, "8BITMIME" if eight_bit else "7BIT", utf8, require_tls, ret)
        self._session.begin_by_steps(str(sender), parameters)
        return await self._step()

    async def ask_recipient(self, recipient: str, parameters: RecipientParameters | None = None) -> Reply:
        """Say RCPT, and wait for the reply. Raises Lost, and ValueError as `send` does.

        The reply is our own, and transient, for more recipients than the server's `limits` have room for; and permanent
        for an address that needs SMTPUTF8 where `begin` was not told so.
        """
        self._need_transaction(Stage.RCPT)
        self._session.ask_recipient(recipient, parameters)
        return await self._step()

    async def send_content(self, content: AsyncIterable[bytes] | Iterable[bytes]) -> Reply:
        """Send the content, by DATA or BDAT: one reply for all who were accepted. Raises Lost (ChunkingRefused is one).

        Lost at Stage.END_OF_DATA leaves a doubt, as in `send`. What is 8-bit, for a server without 8BITMIME, has a
        reply of our own: at once where `content` is a sequence that can be looked at before; else in the middle of it,
        where there is no way out but to hang up.
        """
        self._need_transaction(Stage.DATA)
        session, conversation = self._session, self._conversation
        seven_bit = "8BITMIME" not in session.server.extensions
        if seven_bit and isinstance(content, Sequence) and not all(octets.isascii() for octets in content):
            return NO_EIGHT_BIT
        session.ask_for_content()

        async def run() -> Event:
            event = await conversation.next_event_after_pause()
            if not isinstance(event, GoAhead):
                return event
            await conversation.send_content(content, seven_bit=seven_bit)
            if session.state is ClientState.CONTENT:
                session.end_content()
            return await conversation.next_event()

        try:
            done = self._done(await conversation.hold(run, self._timeouts.message))
        except EightBit:
            return NO_EIGHT_BIT
        return done.results[0].reply

    async def reset(self) -> None:
        """Give up a transaction that has no content (RSET). Closes where that is refused, or breaks; never raises."""
        session = self._session
        if session.state not in (ClientState.READY, ClientState.ENVELOPE):
            self.aclose()
            return
        if not session.transaction_open:
            return
        session.reset()
        try:
            event = await self._conversation.hold(self._conversation.next_event_after_pause)
        except Lost:
            # It is closed already.
            return
        if not isinstance(event, Done):
            self.aclose()

    async def quit(self) -> None:
        """Say QUIT, wait for the answer for a short time, and close. Never raises."""
        try:
            if self._session.state is ClientState.READY:
                self._session.quit()
                with trio.move_on_after(self._timeouts.quit):
                    await self._conversation.hold(self._conversation.next_event)
        except Lost:
            # Nothing depends on the answer.
            pass
        finally:
            self.aclose()

    def aclose(self) -> None:
        """Close without a word. May be called again."""
        self._conversation.close()

    def _need_standing(self) -> None:
        if not self.usable or not self._conversation.quiet:
            self.aclose()
            raise Lost(Stage.MAIL, "the connection had ended before")

    def _need_transaction(self, stage: Stage) -> None:
        if self._session.state is ClientState.CLOSED:
            raise Lost(stage, "the connection had ended before")

    async def _step(self) -> Reply:
        event = await self._conversation.hold(self._conversation.next_event_after_pause)
        return event.reply if isinstance(event, Answered) else self._done(event).results[0].reply

    def _done(self, event: Event) -> Done:
        """How a message ended. Raises Lost where it did because of a command."""
        if isinstance(event, CommandRefused):
            self.aclose()
            kind = ChunkingRefused if event.stage is Stage.BDAT else Lost
            raise kind(event.stage, f"refused with {event.reply}", event.reply)
        if not isinstance(event, Done):
            raise TypeError(f"a message cannot end with {event}")
        if self._session.state is ClientState.CLOSED:
            self.aclose()
        return event

    async def _greet(self) -> None:
        try:
            event = await self._conversation.hold(self._conversation.next_event)
        except Lost as lost:
            raise ConnectError(str(lost)) from None
        self._need_welcome(event)

    async def _greet_under_tls(self, tls: ClientTls) -> None:
        final = False

        async def run() -> Event:
            nonlocal final
            try:
                facts = await self._conversation.shake_hands(tls.context, tls.server_name)
            except Broken as broken:
                final = broken.final
                raise
            self._session.server.tls = facts
            return await self._conversation.next_event()

        try:
            event = await self._conversation.hold(run)
        except Lost as lost:
            if self._session.server.tls is None:
                raise TlsFailed(f"{Stage.TLS.value}: {lost.reason}", final=final) from None
            raise ConnectError(str(lost)) from None
        self._need_welcome(event)

    def _need_welcome(self, event: Event) -> None:
        if isinstance(event, Rejected):
            self.aclose()
            raise Refused(event.reply, event.stage)

    async def _log_in(self, login: Login) -> None:
        session = self._session
        if obstacle := obstacle_to_login(login, session.server.extensions, session.server.tls):
            self.aclose()
            raise LoginFailed(f"{Stage.AUTH.value}: {obstacle}")
        session.log_in(login)
        await self._greet()

    async def _secure(self, tls: ClientTls) -> None:
        """STARTTLS and EHLO once more, as far as that is wanted and can be had."""
        session, conversation = self._session, self._conversation
        if "STARTTLS" not in session.server.extensions:
            if tls.required:
                self.aclose()
                raise TlsFailed("starttls: not offered", final=True)
            return
        final = False

        async def ask() -> Event:
            try:
                session.start_tls()
            except ProtocolError as error:
                raise Broken(error) from None
            return await conversation.next_event()

        async def shake_hands() -> Event:
            nonlocal final
            try:
                session.secured(await conversation.shake_hands(tls.context, tls.server_name))
            except Broken as broken:
                final = broken.final
                raise
            except ProtocolError as error:
                raise Broken(error) from None
            return await conversation.next_event()

        try:
            event = await conversation.hold(ask)
            if isinstance(event, TlsRefused):
                if not tls.required:
                    return
                self.aclose()
                raise Refused(event.reply, Stage.STARTTLS)
            if not isinstance(event, Rejected):
                # A server may also fail us after our half of the handshake: TLS 1.3 has the client finish first.
                event = await conversation.hold(shake_hands)
        except Lost as lost:
            raise TlsFailed(str(lost), final=final) from None
        if isinstance(event, Rejected):
            self.aclose()
            if session.server.tls is not None and not tls.required:
                # It speaks in clear, and has said no only since it is under TLS.
                raise TlsFailed(f"{event.stage.value} under TLS: {event.reply}", final=False)
            raise Refused(event.reply, event.stage)
