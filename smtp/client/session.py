"""The client's half of a conversation: replies in, commands out. No clock, no socket.

A caller feeds what has come with `receive`, takes events with `next_event` until there are none, and sends what
`octets_to_send` returns. `begin` starts a message; `GoAhead` asks for its `content` and `end_content`; `Done` tells
what became of it, for each recipient by itself. Whoever has to hear what is said to one recipient before there is
another goes step by step: `begin_by_steps`, `ask_recipient` and `ask_for_content` take the place of `begin`.

What each reply leads to, and why, stands in `smtp.client.sequence`; which replies are due, in `smtp.client.pipeline`;
what is known of the server, in `smtp.client.introduction`.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from smtp.client.authentication import Login
from smtp.client.content import OutgoingContent, chunks_pay
from smtp.client.envelope import choose_recipients, envelope_commands, mail_command, recipient_command
from smtp.client.events import Answered, CommandRefused, Done, Event, GoAhead, Parted, Ready, Rejected, Result
from smtp.client.introduction import Command, Introduction
from smtp.client.pipeline import Pipeline
from smtp.client.sequence import NOT_KNOWN, ClientState, Stage, next_state
from smtp.client.transaction import Transaction
from smtp.errors import ProtocolError, SessionMisuse
from smtp.parameters import MailParameters, RecipientParameters
from smtp.reply import Reply, ReplyReader
from smtp.tls import TlsFacts
from smtp.trace import Trace

__all__ = ["ClientSession", "ClientState", "Done", "GoAhead", "Parted", "Ready", "Stage"]

# Commands whose replies are outstanding at once. Their replies fit into any receive window, so that neither side can
# be stuck writing while the other is (RFC 2920 §3.1).
MAX_PIPELINED = 100

# For every reply: to look up a member of an Enum takes longer than the rest of a line.
_CLOSED, _HANDSHAKE, _ENVELOPE = ClientState.CLOSED, ClientState.HANDSHAKE, ClientState.ENVELOPE


class ClientSession:
    """One conversation, for any number of messages one after the other."""

    def __init__(self, helo: str, *, chunking: bool = True, trace: Trace | None = None) -> None:
        """`helo` is what we call ourselves. Without `chunking` content always goes by DATA.

        Raises ValueError for a name that no command can hold.
        """
        self.server = Introduction(helo)
        """What is known of the server."""
        self.state = ClientState.OPENING
        """What the session may be asked to do next. (`_enter` sets it.)"""
        self.replies_read = 0
        """How many replies have come."""
        self._may_chunk = chunking
        self._trace = trace
        self._reader = ReplyReader()
        # Whether there may be a whole reply among the octets that have come.
        self._unread = False
        self._pipeline = Pipeline(trace)
        self.octets_to_send = self._pipeline.octets_to_send
        """Returns all that was written since the last call."""
        self._events: deque[Event] = deque()
        self._messages_begun = 0
        self.transaction_open = False
        """Whether the server has a transaction under way, as far as is known."""
        self._prepare(Transaction(0, ()), chunks=False)

    def _prepare(self, transaction: Transaction, *, chunks: bool) -> None:
        """Get ready for a message."""
        self._transaction = transaction
        self._content = OutgoingContent(self._pipeline, self._trace, chunks=chunks)
        self._in_content = False

    def _enter(self, state: ClientState) -> None:
        """The one place where the state changes: to what the table says of a reply, or by what the caller does."""
        self.state = state

    @property
    def stage(self) -> Stage:
        """What the next reply will belong to, or what would be lost now."""
        pipeline = self._pipeline
        if pipeline.due and pipeline.due[-1] is Stage.END_OF_DATA:
            # Replies to chunks may be due before that one. What has not been sent cannot have been taken for the end.
            return Stage.END_OF_DATA if pipeline.all_sent else self._content.stage
        if pipeline.due:
            return pipeline.due[0]
        if self.state is ClientState.HANDSHAKE:
            return Stage.TLS
        return self._content.stage if self._in_content else Stage.MAIL

    @property
    def unasked(self) -> bool:
        """Whether the server has said something that no command asked for. The next reply could not be told from it."""
        return self.state is ClientState.READY and self._reader.pending

    @property
    def exhausted(self) -> bool:
        """Whether this session has had as many messages as the server takes in one (RFC 9422 §4.1)."""
        most = self.server.limits.messages
        return most is not None and self._messages_begun >= most

    @property
    def in_chunks(self) -> bool:
        """Whether the content goes out in chunks, whose replies are to be read while the next ones are sent."""
        return self._in_content and self._content.in_chunks

    @property
    def must_wait(self) -> bool:
        """Whether a reply has to come before more may be written."""
        return self._pipeline.full

    @property
    def unsent(self) -> int:
        """How many octets wait to be sent."""
        return self._pipeline.unsent_octets

    def receive(self, octets: bytes) -> None:
        """Take what has come from the server."""
        self._reader.receive(octets)
        self._unread = True

    def next_event(self) -> Event | None:
        """What has come of it; None where more octets are needed. Raises ProtocolError, after which all is over."""
        if self._unread:
            self.take_replies()
        return self._events.popleft() if self._events else None

    def take_replies(self) -> None:
        """Read the replies that have come, up to the next event, which waits for `next_event`. Raises as that does."""
        while not self._events and self.state is not _CLOSED:
            try:
                reply = self._reader.next_reply()
                if reply is None:
                    break
                self._take(reply)
            except ProtocolError:
                certain = self.close()
                if certain is None:
                    raise
                self._events.append(certain)
        # Behind an event there may be more; without one, what is left is not a whole reply.
        self._unread = bool(self._events) and self._reader.pending

    def start_tls(self) -> None:
        """Ask for TLS: HandshakeDue or TlsRefused follows.

        Raises SessionMisuse where it is not offered, done already, or no time for it; ProtocolError as `secured` does.
        """
        offered = "STARTTLS" in self.server.extensions and self.server.tls is None
        if self.state is not ClientState.READY or not offered:
            raise SessionMisuse(f"TLS cannot be asked for: {self.state.value}")
        self._need_silence()
        self._enter(ClientState.OPENING)
        self._ask(Stage.STARTTLS, b"STARTTLS")

    def secured(self, facts: TlsFacts) -> None:
        """The handshake is done: forget what was said in clear, and say EHLO. Ready or Rejected follows.

        Raises SessionMisuse where no handshake was due, ProtocolError where something in clear has come behind the 220.
        """
        if self.state is not ClientState.HANDSHAKE:
            raise SessionMisuse(f"no handshake was due: {self.state.value}")
        self._need_silence()
        self._pipeline.at_once = 1
        self._enter(ClientState.OPENING)
        self._ask(*self.server.secured(facts))

    def log_in(self, login: Login) -> None:
        """Say who we are: Ready or Rejected follows.

        Raises SessionMisuse where it is no time for it, or where `obstacle_to_login` has a reason against it.
        """
        self._need_ready()
        command = self.server.log_in(login)
        self._enter(ClientState.OPENING)
        self._ask(*command)

    def begin(
        self,
        sender: str,
        recipients: Sequence[str],
        parameters: MailParameters,
        for_recipients: Sequence[RecipientParameters] = (),
    ) -> None:
        """Start a message. Addresses are envelope text without brackets; an empty sender is the null path.

        `parameters` say what the message needs. `smtputf8` is needed where a local part or a header field is in UTF-8;
        without it a domain goes out in its ASCII form. A message that needs what the server lacks, or is too large for
        it, is not sent: its results are at Stage.LOCAL. `for_recipients` is empty, or has an entry for each recipient.

        Recipients beyond what the server takes in one transaction (`limits`) get a transient 452 4.5.3 at Stage.LOCAL,
        as a server without LIMITS would have answered: they belong into another transaction.

        Raises SessionMisuse where another message is under way or the session is exhausted, ValueError for text that no
        command can hold.
        """
        self._need_place()
        commands = envelope_commands(sender, recipients, parameters, for_recipients, self.server.extensions)
        obstacle = self.server.find_obstacle((sender, *recipients), parameters)
        if obstacle is not None:
            self._events.append(Done((Result(obstacle, Stage.LOCAL),) * len(recipients)))
            return
        asked = choose_recipients(recipients, self.server.limits)
        waiting = self._begin(Transaction(len(recipients), asked), commands[0], parameters)
        for index in asked:
            waiting.append((Stage.RCPT, commands[1 + index]))
        if not self._content.in_chunks:
            waiting.append((Stage.DATA, b"DATA"))
        self._pipeline.write()

    def begin_by_steps(self, sender: str, parameters: MailParameters) -> None:
        """Start a message whose recipients come one by one. Answered follows, or Done where that is all.

        The content may turn out to be 8-bit, so BODY=8BITMIME is said wherever it is known, whatever `parameters` say.
        Otherwise as `begin`.
        """
        self._need_place()
        obstacle = self.server.find_obstacle((sender,), parameters)
        if obstacle is not None:
            self._events.append(Done((Result(obstacle, Stage.LOCAL),)))
            return
        if "8BITMIME" in self.server.extensions:
            parameters = replace(parameters, body="8BITMIME")
        command = mail_command(sender, parameters, self.server.extensions)
        self._begin(Transaction.step_by_step(utf8=parameters.smtputf8), command, parameters)
        self._pipeline.write()

    def ask_recipient(self, recipient: str, parameters: RecipientParameters | None = None) -> None:
        """RCPT, step by step. Answered follows, or Done where the server hangs up.

        An address that needs SMTPUTF8, where MAIL did not say it, and one beyond the server's `limits` are not asked
        for: the answers are our own. Raises SessionMisuse outside a transaction by steps, ValueError for text that no
        command can hold.
        """
        self._need_next_step()
        transaction = self._transaction
        refusal = transaction.ask(recipient, self.server.limits)
        if refusal is not None:
            self._events.append(Answered(refusal))
            return
        utf8 = transaction.utf8
        self._ask(Stage.RCPT, recipient_command(recipient, parameters, self.server.extensions, utf8=utf8))

    def ask_for_content(self) -> None:
        """DATA, step by step, where content goes by it. GoAhead follows, or Done.

        Raises SessionMisuse where no recipient was accepted, and otherwise as `ask_recipient`.
        """
        self._need_next_step()
        if not self._transaction.accepted:
            raise SessionMisuse("there is no recipient to send content for")
        if self._content.in_chunks:
            self._enter(ClientState.CONTENT)
            self._await_content()
        else:
            self._ask(Stage.DATA, b"DATA")

    def reset(self) -> None:
        """Give up a transaction that has no content yet. Done follows, with no result; or CommandRefused.

        Raises SessionMisuse where replies are due, and in the middle of content.
        """
        if self.state is not ClientState.READY:
            self._need_next_step()
        self._prepare(Transaction(0, ()), chunks=False)
        self._enter(ClientState.ENVELOPE)
        self._ask(Stage.RSET, b"RSET")

    def content(self, octets: bytes) -> None:
        """The next octets of the message, as they are: stuffing or counting is done here.

        Raises SessionMisuse before GoAhead, and where a chunk was refused (`state` says so).
        """
        self._need_content_state()
        self._content.write(octets)

    def end_content(self) -> None:
        """The message is whole: write the final dot, or the last chunk. Raises SessionMisuse as `content` does."""
        self._need_content_state()
        self._enter(ClientState.END_OF_DATA)
        self._content.end()

    def close(self) -> Done | None:
        """The conversation is over. Returns what is certain nevertheless: a message whose refusal was heard in time."""
        refused = self.state is ClientState.REFUSED
        self._enter(ClientState.CLOSED)
        return self._transaction.done() if refused else None

    def quit(self) -> None:
        """Take leave. Raises SessionMisuse while a message is under way."""
        self._need_ready()
        self._ask(Stage.QUIT, b"QUIT")

    def _begin(self, transaction: Transaction, command: bytes, parameters: MailParameters) -> deque[Command]:
        """RSET where it is due, and MAIL. Returns the commands that wait to be written, to be added to."""
        waiting = self._pipeline.waiting
        if self.transaction_open:
            # Left over from a message that came to nothing after MAIL was accepted.
            waiting.append((Stage.RSET, b"RSET"))
        waiting.append((Stage.MAIL, command))
        self._prepare(transaction, chunks=self._may_chunk and chunks_pay(self.server.extensions, parameters.size))
        self._messages_begun += 1
        self._enter(ClientState.ENVELOPE)
        return waiting

    def _need_ready(self) -> None:
        if self.state is not ClientState.READY:
            raise SessionMisuse(f"a message is under way, or all is over: {self.state.value}")

    def _need_place(self) -> None:
        self._need_ready()
        if self.exhausted:
            raise SessionMisuse("the server takes no more messages in this session")

    def _need_next_step(self) -> None:
        if self.state is not ClientState.ENVELOPE or not self._transaction.by_steps or self._pipeline.due:
            raise SessionMisuse(f"no next step is due: {self.state.value}")

    def _need_content_state(self) -> None:
        if self.state is not ClientState.CONTENT:
            raise SessionMisuse(f"no content is awaited: {self.state.value}")

    def _need_silence(self) -> None:
        if self._reader.pending:
            self._enter(ClientState.CLOSED)
            raise ProtocolError("the server has said something in clear that no command asked for")

    def _ask(self, stage: Stage, line: bytes) -> None:
        """One command by itself."""
        self._pipeline.waiting.append((stage, line))
        self._pipeline.write()

    def _take(self, reply: Reply) -> None:
        """One reply, for the stage that is first in line."""
        self.replies_read += 1
        stage = self._pipeline.awaited
        if self._trace is not None:
            self._show(reply, stage)
        if stage is None:
            self._take_unasked(reply)
            return
        before = self.state
        after = next_state(before, stage, reply.code, in_chunks=self._content.in_chunks)
        if after is None:
            # Still due: who asks for the stage must learn where it broke.
            raise ProtocolError(f"{reply.code} is no reply to {stage.value}")
        if after is _HANDSHAKE:
            self._need_silence()
        self._pipeline.due.popleft()
        if after is not before:
            self._enter(after)
        if after is _CLOSED:
            self._part(reply, stage)
        elif act := _ACTS.get(stage):
            act(self, reply, stage, before)

    def _show(self, reply: Reply, stage: Stage | None) -> None:
        assert self._trace is not None
        if stage is Stage.AUTH:
            # A challenge, or a refusal, may have in it what it was given.
            self._trace("<", f"{reply.code} (about the login)")
            return
        for line in reply.octets().decode("ascii").splitlines():
            self._trace("<", line)

    def _introduce(self, reply: Reply, stage: Stage, _: ClientState) -> None:
        """Greeting, EHLO, HELO, STARTTLS, AUTH."""
        follows = self.server.take(reply, stage, self.state)
        if isinstance(follows, tuple):
            self._ask(*follows)
            return
        self._pipeline.at_once = MAX_PIPELINED if "PIPELINING" in self.server.extensions else 1
        self._events.append(follows)

    def _take_reset(self, reply: Reply, _stage: Stage, _: ClientState) -> None:
        self.transaction_open = False
        self._go_on(reply)

    def _take_mail(self, reply: Reply, stage: Stage, _: ClientState) -> None:
        if reply.positive:
            self.transaction_open = True
        else:
            self._transaction.end(reply, stage)
            # What has not been written need not be; what has been will be answered.
            self._pipeline.waiting.clear()
        self._go_on(reply)

    def _take_recipient(self, reply: Reply, _stage: Stage, _: ClientState) -> None:
        self._transaction.take_recipient(reply)
        self._go_on(reply)

    def _go_on(self, reply: Reply) -> None:
        """More of the envelope, or its end where every command is answered and DATA is not under way."""
        if self.state is not _ENVELOPE:
            return
        pipeline, transaction = self._pipeline, self._transaction
        if pipeline.waiting:
            if not (pipeline.due or transaction.accepted) and pipeline.waiting[0][0] is Stage.DATA:
                # Every reply is in and nobody was accepted: there is nothing to send content for.
                pipeline.waiting.clear()
            pipeline.write()
        if pipeline.due:
            return
        if transaction.by_steps and transaction.undecided:
            self._events.append(Answered(reply))
        elif transaction.accepted:
            self._enter(ClientState.CONTENT)
            self._await_content()
        else:
            self._enter(ClientState.READY)
            self._finish()

    def _await_content(self) -> None:
        self._in_content = True
        self._events.append(GoAhead())

    def _take_data(self, reply: Reply, _stage: Stage, _: ClientState) -> None:
        match self.state:
            case ClientState.READY:
                self._transaction.decide(reply, Stage.DATA)
                self._finish()
            case ClientState.CONTENT if self._transaction.accepted:
                self._await_content()
            case ClientState.CONTENT:
                self._in_content = True
                self.end_content()

    def _take_chunk(self, reply: Reply, _stage: Stage, before: ClientState) -> None:
        """One that is refused decides; where one was before, this reply counts for nothing."""
        if self.state is not ClientState.REFUSED:
            return
        if before is not ClientState.REFUSED:
            self._transaction.decide(reply, Stage.BDAT)
        if not self._pipeline.due:
            # Whether it has ended the transaction, too, is not for us to know.
            self._enter(ClientState.READY)
            self._finish()

    def _take_end(self, reply: Reply, stage: Stage, before: ClientState) -> None:
        if self.state is ClientState.REFUSED:
            self._take_chunk(reply, stage, before)
            return
        self._transaction.decide(reply, stage)
        self.transaction_open = False
        self._finish()

    def _take_unasked(self, reply: Reply) -> None:
        """Something was said out of turn: nothing has been asked, or what will be has not been sent."""
        in_content = self.state in (ClientState.CONTENT, ClientState.END_OF_DATA)
        if (in_content and not reply.positive) or (reply.code == 421 and self._pipeline.due):
            # The server will not read to the end. Whatever we sent now would be taken for commands.
            stage = self.stage
            self._enter(ClientState.CLOSED)
            self._part(reply, stage)
            return
        raise ProtocolError(f"{reply.code} came without being asked for")

    def _part(self, reply: Reply, stage: Stage) -> None:
        """The conversation is over, and this reply is for all that is undecided."""
        self._pipeline.forget()
        match stage:
            case Stage.GREETING | Stage.EHLO | Stage.HELO | Stage.STARTTLS | Stage.AUTH:
                self._events.append(Rejected(reply, stage))
            case Stage.QUIT:
                self._events.append(Parted())
            case Stage.RSET:
                self._events.append(CommandRefused(reply, stage))
            case Stage.BDAT | Stage.END_OF_DATA if self._content.in_chunks and reply.code in NOT_KNOWN:
                self._events.append(CommandRefused(reply, Stage.BDAT))
            case _:
                self._transaction.end(reply, stage)
                self._events.append(self._transaction.done())

    def _finish(self) -> None:
        self._in_content = False
        self._events.append(self._transaction.done())


# What is done with a reply that is not the last one, once the state is what the table says; with the state before. To
# QUIT there is no such reply.
_ACTS: dict[Stage, Callable[[ClientSession, Reply, Stage, ClientState], None]] = {
    Stage.GREETING: ClientSession._introduce,
    Stage.EHLO: ClientSession._introduce,
    Stage.HELO: ClientSession._introduce,
    Stage.STARTTLS: ClientSession._introduce,
    Stage.AUTH: ClientSession._introduce,
    Stage.RSET: ClientSession._take_reset,
    Stage.MAIL: ClientSession._take_mail,
    Stage.RCPT: ClientSession._take_recipient,
    Stage.DATA: ClientSession._take_data,
    Stage.BDAT: ClientSession._take_chunk,
    Stage.END_OF_DATA: ClientSession._take_end,
}
