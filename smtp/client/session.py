"""The client's half of a conversation: replies in, commands out. No clock, no socket.

A caller feeds what has come with `receive`, takes events with `next_event` until there are none, and sends what
`octets_to_send` returns. `begin` starts a message; `GoAhead` asks for its `content` and `end_content`; `Done` tells
what became of it, for each recipient by itself.

What each reply leads to, and why, stands in `smtp.client.sequence`; which replies are due, in `smtp.client.pipeline`.
"""

from collections import deque
from collections.abc import Callable, Sequence

from smtp.client.chunks import CHUNK_OCTETS, ChunkWriter
from smtp.client.envelope import (
    TOO_MANY_RECIPIENTS,
    choose_recipients,
    envelope_commands,
    find_obstacle,
)
from smtp.client.events import (
    CommandRefused,
    Done,
    Event,
    GoAhead,
    HandshakeDue,
    Parted,
    Ready,
    Rejected,
    Result,
    TlsRefused,
)
from smtp.client.extensions import NO_LIMITS, Limits, read_extensions, read_limits, read_max_octets, read_server_name
from smtp.client.pipeline import Pipeline
from smtp.client.sequence import NOT_KNOWN, TRANSITIONS, ClientState, Stage, next_state
from smtp.data import ContentWriter
from smtp.errors import ProtocolError, SessionMisuse
from smtp.parameters import MailParameters, RecipientParameters
from smtp.reply import Reply, ReplyReader
from smtp.tls import TlsFacts
from smtp.trace import Trace

__all__ = [
    "TRANSITIONS",
    "ClientSession",
    "ClientState",
    "CommandRefused",
    "Done",
    "Event",
    "GoAhead",
    "HandshakeDue",
    "Parted",
    "Ready",
    "Rejected",
    "Result",
    "Stage",
    "TlsRefused",
]

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
        if not (helo.isascii() and helo.isprintable() and helo and " " not in helo):
            raise ValueError("this is no name for EHLO")
        self._state = ClientState.OPENING
        self.replies_read = 0
        self.tls: TlsFacts | None = None
        """What was negotiated, where the connection is encrypted."""
        self._helo = helo
        self._may_chunk = chunking
        self._trace = trace
        self._reader = ReplyReader()
        self._pipeline = Pipeline(trace)
        self._events: deque[Event] = deque()
        self._forget_server()
        self._messages_begun = 0
        self._transaction_open = False
        self._prepare([], [], chunks=False)

    def _forget_server(self) -> None:
        self.extensions: dict[str, str] = {}
        """What EHLO offered: keyword in upper case, and its parameters."""
        self.limits: Limits = NO_LIMITS
        """How much the server takes (RFC 9422)."""
        self.max_octets: int | None = None
        """The size of the largest message it takes (RFC 1870), where it has said so."""
        self.server_name = ""
        """What the server calls itself in its greeting; under TLS, in its reply to EHLO."""
        self._pipeline.at_once = 1

    def _prepare(self, results: list[Result | None], asked: Sequence[int], *, chunks: bool) -> None:
        """Get ready for a message."""
        self._results = results
        self._asked = deque(asked)
        self._accepted: list[int] = []
        self._chunks = ChunkWriter() if chunks else None
        self._writer = ContentWriter()
        self._content_octets = 0
        self._in_content = False

    @property
    def state(self) -> ClientState:
        """What the session may be asked to do next."""
        return self._state

    def _enter(self, state: ClientState) -> None:
        """The one place where the state changes: to what the table says of a reply, or by what the caller does."""
        self._state = state

    @property
    def stage(self) -> Stage:
        """What the next reply will belong to, or what would be lost now."""
        pipeline = self._pipeline
        if pipeline.due and pipeline.due[-1] is Stage.END_OF_DATA:
            # Replies to chunks may be due before that one. What has not been sent cannot have been taken for the end.
            return Stage.END_OF_DATA if pipeline.all_sent else self._content_stage
        if pipeline.due:
            return pipeline.due[0]
        if self._state is ClientState.HANDSHAKE:
            return Stage.TLS
        return self._content_stage if self._in_content else Stage.MAIL

    @property
    def _content_stage(self) -> Stage:
        return Stage.DATA if self._chunks is None else Stage.BDAT

    @property
    def unasked(self) -> bool:
        """Whether the server has said something that no command asked for. The next reply could not be told from it."""
        return self._state is ClientState.READY and self._reader.pending

    @property
    def exhausted(self) -> bool:
        """Whether this session has had as many messages as the server takes in one (RFC 9422 §4.1)."""
        return self.limits.messages is not None and self._messages_begun >= self.limits.messages

    @property
    def in_chunks(self) -> bool:
        """Whether the content goes out in chunks, whose replies are to be read while the next ones are sent."""
        return self._chunks is not None and self._in_content

    @property
    def must_wait(self) -> bool:
        """Whether a reply has to come before more may be written."""
        return self._pipeline.full

    @property
    def unsent(self) -> int:
        """How many octets wait to be sent."""
        return self._pipeline.unsent_octets

    def octets_to_send(self) -> bytes:
        """All that was written since the last call."""
        return self._pipeline.octets_to_send()

    def receive(self, octets: bytes) -> None:
        """Take what has come from the server."""
        self._reader.receive(octets)

    def next_event(self) -> Event | None:
        """What has come of it; None where more octets are needed. Raises ProtocolError, after which all is over."""
        self.take_replies()
        return self._events.popleft() if self._events else None

    def take_replies(self) -> None:
        """Read the replies that have come, up to the next event, which waits for `next_event`. Raises as that does."""
        while not self._events and self._state is not _CLOSED:
            try:
                reply = self._reader.next_reply()
                if reply is None:
                    return
                self._take(reply)
            except ProtocolError:
                certain = self.close()
                if certain is None:
                    raise
                self._events.append(certain)

    def start_tls(self) -> None:
        """Ask for TLS: HandshakeDue or TlsRefused follows.

        Raises SessionMisuse where it is not offered, done already, or no time for it; ProtocolError as `secured` does.
        """
        if self._state is not ClientState.READY or "STARTTLS" not in self.extensions or self.tls is not None:
            raise SessionMisuse(f"TLS cannot be asked for: {self._state.value}")
        self._need_silence()
        self._enter(ClientState.OPENING)
        self._ask(Stage.STARTTLS, b"STARTTLS")

    def secured(self, facts: TlsFacts) -> None:
        """The handshake is done: forget what was said in clear, and say EHLO. Ready or Rejected follows.

        Raises SessionMisuse where no handshake was due, ProtocolError where something in clear has come behind the 220.
        """
        if self._state is not ClientState.HANDSHAKE:
            raise SessionMisuse(f"no handshake was due: {self._state.value}")
        self._need_silence()
        self.tls = facts
        self._forget_server()
        self._enter(ClientState.OPENING)
        self._ask(Stage.EHLO, f"EHLO {self._helo}".encode("ascii"))

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
        if self._state is not ClientState.READY or self.exhausted:
            raise SessionMisuse(f"no message can begin: {self._state.value}")
        commands = envelope_commands(sender, recipients, parameters, for_recipients, self.extensions)
        obstacle = find_obstacle((sender, *recipients), parameters, self.extensions, self.max_octets, self.tls)
        if obstacle is not None:
            self._events.append(Done((Result(obstacle, Stage.LOCAL),) * len(recipients)))
            return
        results: list[Result | None] = [None] * len(recipients)
        asked = choose_recipients(recipients, self.limits.recipients, self.limits.recipient_domains)
        if len(asked) < len(recipients):
            results = [Result(TOO_MANY_RECIPIENTS, Stage.LOCAL)] * len(recipients)
            for index in asked:
                results[index] = None
        pipeline = self._pipeline
        if self._transaction_open:
            # Left over from a message that came to nothing after MAIL was accepted.
            pipeline.waiting.append((Stage.RSET, b"RSET"))
        pipeline.waiting.append((Stage.MAIL, commands[0]))
        pipeline.waiting.extend((Stage.RCPT, commands[1 + index]) for index in asked)
        chunks = self._chunks_pay(parameters.size)
        if not chunks:
            pipeline.waiting.append((Stage.DATA, b"DATA"))
        self._prepare(results, asked, chunks=chunks)
        self._messages_begun += 1
        self._enter(ClientState.ENVELOPE)
        pipeline.write()

    def content(self, octets: bytes) -> None:
        """The next octets of the message, as they are: stuffing or counting is done here.

        Raises SessionMisuse before GoAhead, and where a chunk was refused (`state` says so).
        """
        self._need_content_state()
        if self._chunks is None:
            self._content_octets += len(octets)
            self._pipeline.append(self._writer.write(octets))
            return
        chunk = self._chunks.write(octets)
        if chunk:
            self._write_chunk(chunk, Stage.BDAT)

    def end_content(self) -> None:
        """The message is whole: write the final dot, or the last chunk. Raises SessionMisuse as `content` does."""
        self._need_content_state()
        self._enter(ClientState.END_OF_DATA)
        if self._chunks is not None:
            self._write_chunk(self._chunks.end(), Stage.END_OF_DATA)
            return
        self._pipeline.say(Stage.END_OF_DATA, self._writer.end())
        if self._trace is not None:
            self._trace(">", f"({self._content_octets} octets of content)")
            self._trace(">", ".")

    def close(self) -> Done | None:
        """The conversation is over. Returns what is certain nevertheless: a message whose refusal was heard in time."""
        refused = self._state is ClientState.REFUSED
        self._enter(ClientState.CLOSED)
        return self._done() if refused else None

    def quit(self) -> None:
        """Take leave. Raises SessionMisuse while a message is under way."""
        if self._state is not ClientState.READY:
            raise SessionMisuse(f"this is no time to leave: {self._state.value}")
        self._ask(Stage.QUIT, b"QUIT")

    def _chunks_pay(self, size: int | None) -> bool:
        """Whether chunks take no more round trips than DATA. Without PIPELINING one takes fewer, several take more."""
        if not self._may_chunk or "CHUNKING" not in self.extensions:
            return False
        return "PIPELINING" in self.extensions or (size is not None and size < CHUNK_OCTETS)

    def _need_content_state(self) -> None:
        if self._state is not ClientState.CONTENT:
            raise SessionMisuse(f"no content is awaited: {self._state.value}")

    def _need_silence(self) -> None:
        if self._reader.pending:
            self._enter(ClientState.CLOSED)
            raise ProtocolError("the server has said something in clear that no command asked for")

    def _ask(self, stage: Stage, line: bytes) -> None:
        """One command by itself."""
        self._pipeline.waiting.append((stage, line))
        self._pipeline.write()

    def _write_chunk(self, chunk: bytes, stage: Stage) -> None:
        self._pipeline.say(stage, chunk)
        if self._trace is not None:
            command, _, content = chunk.partition(b"\r\n")
            self._trace(">", command.decode("ascii"))
            self._trace(">", f"({len(content)} octets of content)")

    def _take(self, reply: Reply) -> None:
        """One reply, for the stage that is first in line."""
        self.replies_read += 1
        if self._trace is not None:
            for line in reply.octets().decode("ascii").splitlines():
                self._trace("<", line)
        stage = self._pipeline.awaited
        if stage is None:
            self._take_unasked(reply)
            return
        before = self._state
        after = next_state(before, stage, reply.code, in_chunks=self._chunks is not None)
        if after is None:
            # Still due: who asks for the stage must learn where it broke.
            raise ProtocolError(f"{reply.code} is no reply to {stage.value}")
        if after is _HANDSHAKE:
            self._need_silence()
        self._pipeline.due.popleft()
        self._enter(after)
        if after is _CLOSED:
            self._part(reply, stage)
        elif act := _ACTS.get(stage):
            act(self, reply, stage, before)

    def _open(self, reply: Reply, stage: Stage, _: ClientState) -> None:
        """Greeting, EHLO, HELO, STARTTLS."""
        match self._state:
            case ClientState.OPENING if stage is Stage.GREETING:
                self.server_name = read_server_name(reply)
                self._ask(Stage.EHLO, f"EHLO {self._helo}".encode("ascii"))
            case ClientState.OPENING:
                # RFC 5321 §3.2: a server that refuses EHLO may still know HELO.
                self._ask(Stage.HELO, f"HELO {self._helo}".encode("ascii"))
            case ClientState.HANDSHAKE:
                self._events.append(HandshakeDue())
            case ClientState.READY if stage is Stage.STARTTLS:
                self._events.append(TlsRefused(reply))
            case ClientState.READY:
                if self.tls is not None:
                    self.server_name = read_server_name(reply)
                if stage is Stage.EHLO:
                    self.extensions = read_extensions(reply)
                    self.limits = read_limits(self.extensions)
                    self.max_octets = read_max_octets(self.extensions)
                    self._pipeline.at_once = MAX_PIPELINED if "PIPELINING" in self.extensions else 1
                self._events.append(Ready())

    def _take_reset(self, _reply: Reply, _stage: Stage, _: ClientState) -> None:
        self._transaction_open = False
        self._go_on()

    def _take_mail(self, reply: Reply, stage: Stage, _: ClientState) -> None:
        if reply.positive:
            self._transaction_open = True
        else:
            self._results = [result or Result(reply, stage) for result in self._results]
            # What has not been written need not be; what has been will be answered.
            self._pipeline.waiting.clear()
        self._go_on()

    def _take_recipient(self, reply: Reply, stage: Stage, _: ClientState) -> None:
        index = self._asked.popleft()
        # Where there is a result already, MAIL was refused, and that is the reason.
        if self._results[index] is None:
            if reply.positive:
                self._accepted.append(index)
            else:
                self._results[index] = Result(reply, stage)
        self._go_on()

    def _go_on(self) -> None:
        """More of the envelope, or its end where every command is answered and DATA is not under way."""
        if self._state is not _ENVELOPE:
            return
        pipeline = self._pipeline
        if pipeline.waiting:
            if not (pipeline.due or self._accepted) and pipeline.waiting[0][0] is Stage.DATA:
                # Every reply is in and nobody was accepted: there is nothing to send content for.
                pipeline.waiting.clear()
            pipeline.write()
        if pipeline.due:
            return
        if self._accepted:
            self._enter(ClientState.CONTENT)
            self._in_content = True
            self._events.append(GoAhead())
        else:
            self._enter(ClientState.READY)
            self._finish()

    def _take_data(self, reply: Reply, _stage: Stage, _: ClientState) -> None:
        match self._state:
            case ClientState.READY:
                self._decide(reply, Stage.DATA)
                self._finish()
            case ClientState.CONTENT:
                self._in_content = True
                if self._accepted:
                    self._events.append(GoAhead())
                else:
                    self.end_content()

    def _take_chunk(self, reply: Reply, _stage: Stage, before: ClientState) -> None:
        """One that is refused decides; where one was before, this reply counts for nothing."""
        if self._state is not ClientState.REFUSED:
            return
        if before is not ClientState.REFUSED:
            self._decide(reply, Stage.BDAT)
        if not self._pipeline.due:
            # Whether it has ended the transaction, too, is not for us to know.
            self._enter(ClientState.READY)
            self._finish()

    def _take_end(self, reply: Reply, stage: Stage, before: ClientState) -> None:
        if self._state is ClientState.REFUSED:
            self._take_chunk(reply, stage, before)
            return
        self._decide(reply, stage)
        self._transaction_open = False
        self._finish()

    def _take_unasked(self, reply: Reply) -> None:
        """Something was said out of turn: nothing has been asked, or what will be has not been sent."""
        in_content = self._state in (ClientState.CONTENT, ClientState.END_OF_DATA)
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
            case Stage.GREETING | Stage.EHLO | Stage.HELO | Stage.STARTTLS:
                self._events.append(Rejected(reply, stage))
            case Stage.QUIT:
                self._events.append(Parted())
            case Stage.RSET:
                self._events.append(CommandRefused(reply, stage))
            case Stage.BDAT | Stage.END_OF_DATA if self._chunks is not None and reply.code in NOT_KNOWN:
                self._events.append(CommandRefused(reply, Stage.BDAT))
            case _:
                self._results = [result or Result(reply, stage) for result in self._results]
                self._events.append(self._done())

    def _decide(self, reply: Reply, stage: Stage) -> None:
        for index in self._accepted:
            self._results[index] = Result(reply, stage)

    def _finish(self) -> None:
        self._in_content = False
        self._events.append(self._done())

    def _done(self) -> Done:
        return Done(tuple(result for result in self._results if result))


# What is done with a reply that is not the last one, once the state is what the table says; with the state before. To
# QUIT there is no such reply.
_ACTS: dict[Stage, Callable[[ClientSession, Reply, Stage, ClientState], None]] = {
    Stage.GREETING: ClientSession._open,
    Stage.EHLO: ClientSession._open,
    Stage.HELO: ClientSession._open,
    Stage.STARTTLS: ClientSession._open,
    Stage.RSET: ClientSession._take_reset,
    Stage.MAIL: ClientSession._take_mail,
    Stage.RCPT: ClientSession._take_recipient,
    Stage.DATA: ClientSession._take_data,
    Stage.BDAT: ClientSession._take_chunk,
    Stage.END_OF_DATA: ClientSession._take_end,
}
