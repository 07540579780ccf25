"""The client's half of a conversation: replies in, commands out. No clock, no socket.

A caller feeds what has come with `receive`, takes events with `next_event` until there are none, and sends what
`octets_to_send` returns. `begin` starts a message; `GoAhead` asks for its `content` and `end_content`; `Done` tells
what became of it, for each recipient by itself.

What each reply leads to, and why, stands in `smtp.client_sequence`.
"""

from collections import deque
from collections.abc import Sequence

from smtp.chunks import CHUNK_OCTETS, ChunkWriter
from smtp.client_envelope import (
    NO_EIGHT_BIT,
    TOO_MANY_RECIPIENTS,
    choose_recipients,
    envelope_commands,
    find_obstacle,
)
from smtp.client_events import Done, Event, GoAhead, HandshakeDue, Parted, Ready, Rejected, Result, TlsRefused
from smtp.client_extensions import NO_LIMITS, Limits, read_extensions, read_limits, read_max_octets
from smtp.client_sequence import TRANSITIONS, ClientState, Stage
from smtp.data import ContentWriter
from smtp.errors import ProtocolError, SessionMisuse
from smtp.parameters import MailParameters, RecipientParameters
from smtp.reply import Reply, ReplyReader
from smtp.tls import TlsFacts
from smtp.trace import Trace

__all__ = [
    "NOT_EIGHT_BIT",
    "TRANSITIONS",
    "ClientSession",
    "ClientState",
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

# To BDAT: the server does not know what it has offered.
_NOT_KNOWN = (500, 502)


NOT_EIGHT_BIT = Result(NO_EIGHT_BIT, Stage.LOCAL)


class ClientSession:
    """One conversation, for any number of messages one after the other."""

    def __init__(self, helo: str, *, chunking: bool = True, trace: Trace | None = None) -> None:
        """`helo` is what we call ourselves. Without `chunking` content always goes by DATA.

        Raises ValueError for a name that no command can hold.
        """
        if not (helo.isascii() and helo.isprintable() and helo and " " not in helo):
            raise ValueError("this is no name for EHLO")
        self.state = ClientState.OPENING
        self.replies_read = 0
        self.tls: TlsFacts | None = None
        """What was negotiated, where the connection is encrypted."""
        self._helo = helo
        self._may_chunk = chunking
        self._trace = trace
        self._reader = ReplyReader()
        self._outgoing = bytearray()
        self._due: deque[Stage] = deque((Stage.GREETING,))
        self._to_send: deque[tuple[Stage, bytes]] = deque()
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
        self._saying_helo = False
        self._at_once = 1

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
    def stage(self) -> Stage:
        """What the next reply will belong to, or what would be lost now."""
        if self._due and self._due[-1] is Stage.END_OF_DATA:
            # Replies to chunks may be due before that one.
            return Stage.END_OF_DATA
        if self._due:
            return self._due[0]
        if self.state is ClientState.HANDSHAKE:
            return Stage.TLS
        if self._in_content:
            return Stage.DATA if self._chunks is None else Stage.BDAT
        return Stage.MAIL

    @property
    def unasked(self) -> bool:
        """Whether the server has said something that no command asked for. The next reply could not be told from it."""
        return self.state is ClientState.READY and self._reader.pending

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
        return len(self._due) >= self._at_once

    @property
    def unsent(self) -> int:
        """How many octets wait to be sent."""
        return len(self._outgoing)

    def octets_to_send(self) -> bytes:
        """All that was written since the last call."""
        octets = bytes(self._outgoing)
        self._outgoing.clear()
        return octets

    def receive(self, octets: bytes) -> None:
        """Take what has come from the server."""
        self._reader.receive(octets)

    def next_event(self) -> Event | None:
        """What has come of it; None where more octets are needed. Raises ProtocolError, after which all is over."""
        self.take_replies()
        return self._events.popleft() if self._events else None

    def take_replies(self) -> None:
        """Read the replies that have come, up to the next event, which waits for `next_event`. Raises as that does."""
        while not self._events and self.state is not ClientState.CLOSED:
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
        if self.state is not ClientState.READY or "STARTTLS" not in self.extensions or self.tls is not None:
            raise SessionMisuse(f"TLS cannot be asked for: {self.state.value}")
        self._need_silence()
        self.state = ClientState.OPENING
        self._to_send.append((Stage.STARTTLS, b"STARTTLS"))
        self._write_commands()

    def secured(self, facts: TlsFacts) -> None:
        """The handshake is done: forget what was said in clear, and say EHLO. Ready or Rejected follows.

        Raises SessionMisuse where no handshake was due, ProtocolError where something in clear has come behind the 220.
        """
        if self.state is not ClientState.HANDSHAKE:
            raise SessionMisuse(f"no handshake was due: {self.state.value}")
        self._need_silence()
        self.tls = facts
        self._forget_server()
        self.state = ClientState.OPENING
        self._say_hello("EHLO")

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
        if self.state is not ClientState.READY or self.exhausted:
            raise SessionMisuse(f"no message can begin: {self.state.value}")
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
        if self._transaction_open:
            # Left over from a message that came to nothing after MAIL was accepted.
            self._to_send.append((Stage.RSET, b"RSET"))
        self._to_send.append((Stage.MAIL, commands[0]))
        self._to_send.extend((Stage.RCPT, commands[1 + index]) for index in asked)
        chunks = self._chunks_pay(parameters.size)
        if not chunks:
            self._to_send.append((Stage.DATA, b"DATA"))
        self._prepare(results, asked, chunks=chunks)
        self._messages_begun += 1
        self.state = ClientState.ENVELOPE
        self._write_commands()

    def content(self, octets: bytes) -> None:
        """The next octets of the message, as they are: stuffing or counting is done here.

        Raises SessionMisuse before GoAhead, and where a chunk was refused (`state` says so).
        """
        self._need_content_state()
        if self._chunks is None:
            self._content_octets += len(octets)
            self._outgoing += self._writer.write(octets)
            return
        chunk = self._chunks.write(octets)
        if chunk:
            self._write_chunk(chunk, Stage.BDAT)

    def end_content(self) -> None:
        """The message is whole: write the final dot, or the last chunk. Raises SessionMisuse as `content` does."""
        self._need_content_state()
        self.state = ClientState.END_OF_DATA
        if self._chunks is not None:
            self._write_chunk(self._chunks.end(), Stage.END_OF_DATA)
            return
        self._outgoing += self._writer.end()
        self._due.append(Stage.END_OF_DATA)
        if self._trace is not None:
            self._trace(">", f"({self._content_octets} octets of content)")
            self._trace(">", ".")

    def close(self) -> Done | None:
        """The conversation is over. Returns what is certain nevertheless: a message whose refusal was heard in time."""
        refused = self.state is ClientState.REFUSED
        self.state = ClientState.CLOSED
        return self._done() if refused else None

    def quit(self) -> None:
        """Take leave. Raises SessionMisuse while a message is under way."""
        if self.state is not ClientState.READY:
            raise SessionMisuse(f"this is no time to leave: {self.state.value}")
        self._to_send.append((Stage.QUIT, b"QUIT"))
        self._write_commands()

    def _chunks_pay(self, size: int | None) -> bool:
        """Whether chunks take no more round trips than DATA. Without PIPELINING one takes fewer, several take more."""
        if not self._may_chunk or "CHUNKING" not in self.extensions:
            return False
        return "PIPELINING" in self.extensions or (size is not None and size < CHUNK_OCTETS)

    def _need_content_state(self) -> None:
        if self.state is not ClientState.CONTENT:
            raise SessionMisuse(f"no content is awaited: {self.state.value}")

    def _need_silence(self) -> None:
        if self._reader.pending:
            self.state = ClientState.CLOSED
            raise ProtocolError("the server has said something in clear that no command asked for")

    def _say_hello(self, verb: str) -> None:
        self._to_send.append((Stage.EHLO, f"{verb} {self._helo}".encode("ascii")))
        self._write_commands()

    def _write_commands(self) -> None:
        """Write what may be written before the next reply."""
        while self._to_send and len(self._due) < self._at_once:
            stage, line = self._to_send[0]
            if stage is Stage.DATA and not self._due and not self._accepted:
                # Every reply is in and nobody was accepted: there is nothing to send content for.
                self._to_send.clear()
                break
            self._to_send.popleft()
            self._due.append(stage)
            self._outgoing += line + b"\r\n"
            if self._trace is not None:
                self._trace(">", line.decode("utf-8"))
        if self.state is ClientState.ENVELOPE and not self._due and not self._to_send:
            self._end_envelope()

    def _write_chunk(self, chunk: bytes, stage: Stage) -> None:
        self._due.append(stage)
        self._outgoing += chunk
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
        if not self._due:
            self._take_unasked(reply)
            return
        stage = self._due[0]
        after = TRANSITIONS[stage].get(reply.code // 100)
        if after is None:
            # Still due: who asks for the stage must learn where it broke.
            raise ProtocolError(f"{reply.code} is no reply to {stage.value}")
        if after is ClientState.HANDSHAKE:
            self._need_silence()
        self._due.popleft()
        if reply.code == 421:
            self._give_up(reply, stage)
            return
        match stage:
            case Stage.MAIL:
                self._take_mail(reply)
            case Stage.RCPT:
                self._take_recipient(reply)
            case Stage.DATA:
                self.state = after
                self._take_data(reply)
            case Stage.BDAT:
                self._take_chunk(reply, after)
            case Stage.END_OF_DATA:
                self._take_end(reply)
            case Stage.GREETING | Stage.EHLO:
                self._open(reply, stage, after)
            case Stage.STARTTLS:
                self.state = after
                self._events.append(HandshakeDue() if reply.positive else TlsRefused(reply))
            case Stage.QUIT:
                self.state = after
                self._events.append(Parted())
            case _:  # RSET
                self._transaction_open = False
        if self.state is ClientState.ENVELOPE:
            self._write_commands()

    def _open(self, reply: Reply, stage: Stage, after: ClientState) -> None:
        """Greeting, EHLO, HELO."""
        if stage is Stage.GREETING and reply.positive:
            self.server_name = _first_word(reply)
            self._say_hello("EHLO")
        elif stage is Stage.EHLO and reply.permanent and not self._saying_helo:
            # RFC 5321 §3.2: a server that refuses EHLO may still know HELO.
            self._saying_helo = True
            self._say_hello("HELO")
        elif reply.positive:
            self.state = after
            if self.tls is not None:
                self.server_name = _first_word(reply)
            if not self._saying_helo:
                self.extensions = read_extensions(reply)
                self.limits = read_limits(self.extensions)
                self.max_octets = read_max_octets(self.extensions)
                self._at_once = MAX_PIPELINED if "PIPELINING" in self.extensions else 1
            self._events.append(Ready())
        else:
            self.state = after
            self._events.append(Rejected(reply, stage))

    def _take_mail(self, reply: Reply) -> None:
        if reply.positive:
            self._transaction_open = True
            return
        self._results = [result or Result(reply, Stage.MAIL) for result in self._results]
        # What has not been written need not be; what has been will be answered.
        self._to_send.clear()

    def _take_recipient(self, reply: Reply) -> None:
        index = self._asked.popleft()
        if self._results[index] is not None:
            # MAIL was refused, and that is the reason.
            return
        if reply.positive:
            self._accepted.append(index)
        else:
            self._results[index] = Result(reply, Stage.RCPT)

    def _take_data(self, reply: Reply) -> None:
        if not reply.positive:
            self._decide(reply, Stage.DATA)
            self._finish()
            return
        self._in_content = True
        if self._accepted:
            self._events.append(GoAhead())
        else:
            self.end_content()

    def _end_envelope(self) -> None:
        """Every command is answered, and DATA is not under way."""
        if not self._accepted:
            self._finish()
            return
        self.state = ClientState.CONTENT
        self._in_content = True
        self._events.append(GoAhead())

    def _take_chunk(self, reply: Reply, after: ClientState) -> None:
        if after is ClientState.REFUSED and self.state is not ClientState.REFUSED:
            if reply.code in _NOT_KNOWN:
                self._give_up(reply, Stage.BDAT)
                return
            self.state = after
            self._decide(reply, Stage.BDAT)
        if self.state is ClientState.REFUSED and not self._due:
            self._finish()

    def _take_end(self, reply: Reply) -> None:
        refused_before = self.state is ClientState.REFUSED
        if not refused_before:
            self._decide(reply, Stage.END_OF_DATA)
            if self._chunks is not None and reply.code in _NOT_KNOWN:
                self._give_up(reply, Stage.END_OF_DATA)
                return
        # Whether a refused chunk has ended the transaction, too, is not for us to know.
        self._transaction_open = refused_before
        self._finish()

    def _take_unasked(self, reply: Reply) -> None:
        """Something was said out of turn."""
        if self.state is ClientState.CONTENT and not reply.positive:
            # The server will not read to the end. Whatever we sent now would be taken for commands.
            self._give_up(reply, self.stage)
            return
        raise ProtocolError(f"{reply.code} came without being asked for")

    def _give_up(self, reply: Reply, stage: Stage) -> None:
        """The server has ended the conversation, or we have: this reply is for all that is undecided."""
        if self.state is ClientState.OPENING:
            self._events.append(Rejected(reply, stage))
        elif stage is Stage.QUIT:
            self._events.append(Parted())
        else:
            self._results = [result or Result(reply, stage) for result in self._results]
            self._events.append(self._done())
        self.state = ClientState.CLOSED
        self._to_send.clear()
        self._due.clear()

    def _decide(self, reply: Reply, stage: Stage) -> None:
        for index in self._accepted:
            self._results[index] = Result(reply, stage)

    def _finish(self) -> None:
        self.state = ClientState.READY
        self._in_content = False
        self._events.append(self._done())

    def _done(self) -> Done:
        return Done(tuple(result for result in self._results if result))


def _first_word(reply: Reply) -> str:
    return reply.text.partition("\n")[0].partition(" ")[0][:255]
