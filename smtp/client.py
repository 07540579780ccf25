"""The client's half of a conversation: replies in, commands out. No clock, no socket.

A caller feeds what has come with `receive`, takes events with `next_event` until there are none, and sends what
`octets_to_send` returns. `begin` starts a message; `GoAhead` asks for its `content` and `end_content`; `Done` tells
what became of it, for each recipient by itself.

Replies come in the order of the commands, so the session keeps the stages whose replies are due, and one table says
what each reply leads to. Its reasons, in prose:

- A server that does not know EHLO is greeted again with HELO (RFC 5321 §3.2). A 4xx to EHLO is not ignorance.
- MAIL, RCPT and DATA go out together where the server offers PIPELINING (RFC 2920), one by one where not. A refused
  MAIL or RCPT does not end an envelope whose other replies are still on their way.
- 354 lets the content come. Where no recipient was accepted it came only because DATA was under way already: a lone dot
  ends it, and the reply to that counts for nothing (RFC 2920 §3.1).
- After the final dot one reply decides for every recipient that was accepted.
- 421 may be the reply to anything: it is what becomes of all that is undecided, and the conversation is over (§3.8).
- A class of reply that is not in the table (2xx to DATA, 3xx to MAIL) is a breach of protocol.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from smtp.data import ContentWriter
from smtp.errors import ProtocolError, SessionMisuse
from smtp.reply import Reply, ReplyReader
from smtp.trace import Trace

# Commands whose replies are outstanding at once. Their replies fit into any receive window, so that neither side can
# be stuck writing while the other is (RFC 2920 §3.1).
MAX_PIPELINED = 100


class Stage(Enum):
    """How far a conversation had come: what a reply, or the lack of one, belongs to."""

    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    """HELO, too."""
    RSET = "rset"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    """From the DATA command up to the final dot, which has not been sent whole."""
    END_OF_DATA = "end of data"
    """The final dot has been sent. Without a reply nobody knows whether the message was delivered."""
    QUIT = "quit"
    LOCAL = "local"
    """Decided on our side; the server was not asked."""


class ClientState(Enum):
    """What the session may be asked to do next."""

    OPENING = "opening"
    """Greeting, EHLO and HELO."""
    READY = "ready"
    """Between messages: `begin` or `quit`."""
    ENVELOPE = "envelope"
    """MAIL, RCPT and DATA are under way."""
    CONTENT = "content"
    """`content` and `end_content` are due."""
    END_OF_DATA = "end of data"
    """The final dot is written."""
    CLOSED = "closed"
    """Nothing more."""


# Stage of the reply x its first digit: the state afterwards. EHLO answered 5 is tried again as HELO, once.
TRANSITIONS: dict[Stage, dict[int, ClientState]] = {
    Stage.GREETING: {2: ClientState.OPENING, 4: ClientState.CLOSED, 5: ClientState.CLOSED},
    Stage.EHLO: {2: ClientState.READY, 4: ClientState.CLOSED, 5: ClientState.CLOSED},
    Stage.RSET: {2: ClientState.ENVELOPE},
    Stage.MAIL: {2: ClientState.ENVELOPE, 4: ClientState.ENVELOPE, 5: ClientState.ENVELOPE},
    Stage.RCPT: {2: ClientState.ENVELOPE, 4: ClientState.ENVELOPE, 5: ClientState.ENVELOPE},
    Stage.DATA: {3: ClientState.CONTENT, 4: ClientState.READY, 5: ClientState.READY},
    Stage.END_OF_DATA: {2: ClientState.READY, 4: ClientState.READY, 5: ClientState.READY},
    Stage.QUIT: {2: ClientState.CLOSED, 4: ClientState.CLOSED, 5: ClientState.CLOSED},
}


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a message for one recipient."""

    reply: Reply
    stage: Stage


@dataclass(frozen=True, slots=True)
class Ready:
    """Greeting and EHLO are through."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The server does not want to talk: the reply to the greeting or to EHLO."""

    reply: Reply
    stage: Stage


@dataclass(frozen=True, slots=True)
class GoAhead:
    """354: the content is awaited."""


@dataclass(frozen=True, slots=True)
class Done:
    """The message is through; one result for each recipient, in order."""

    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class Parted:
    """QUIT is answered."""


Event = Ready | Rejected | GoAhead | Done | Parted

# RFC 6152 §3: a server without 8BITMIME gets no octets above 127. RFC 3463 §3.7: X.6.3 conversion required but not
# supported. We never convert: it would break every signature.
NOT_EIGHT_BIT = Result(Reply(554, "The next server does not take 8-bit content", "5.6.3"), Stage.LOCAL)


class ClientSession:
    """One conversation, for any number of messages one after the other."""

    def __init__(self, helo: str, *, trace: Trace | None = None) -> None:
        """`helo` is what we call ourselves."""
        self.state = ClientState.OPENING
        self.extensions: dict[str, str] = {}
        """What EHLO offered: keyword in upper case, and its parameters."""
        self.server_name = ""
        """What the server calls itself in its greeting."""
        self.replies_read = 0
        self._helo = helo
        self._trace = trace
        self._reader = ReplyReader()
        self._outgoing = bytearray()
        self._due: deque[Stage] = deque((Stage.GREETING,))
        self._to_send: deque[tuple[Stage, bytes]] = deque()
        self._events: deque[Event] = deque()
        self._writer = ContentWriter()
        self._in_content = False
        self._content_octets = 0
        self._results: list[Result | None] = []
        self._accepted: list[int] = []
        self._next_recipient = 0
        self._transaction_open = False
        self._saying_helo = False

    @property
    def stage(self) -> Stage:
        """What the next reply will belong to, or what would be lost now."""
        if self._due:
            return self._due[0]
        return Stage.DATA if self._in_content else Stage.MAIL

    @property
    def unasked(self) -> bool:
        """Whether the server has said something that no command asked for. The next reply could not be told from it."""
        return self.state is ClientState.READY and self._reader.pending

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
        while not self._events and self.state is not ClientState.CLOSED:
            try:
                reply = self._reader.next_reply()
                if reply is None:
                    break
                self._take(reply)
            except ProtocolError:
                self.state = ClientState.CLOSED
                raise
        return self._events.popleft() if self._events else None

    def begin(self, sender: str, recipients: Sequence[str], *, size: int, eight_bit: bool) -> None:
        """Start a message. Addresses are envelope text without brackets; an empty sender is the null path.

        Raises SessionMisuse where another message is under way, ValueError for text that no command can hold.
        """
        if self.state is not ClientState.READY:
            raise SessionMisuse(f"no message can begin: {self.state.value}")
        for text in (sender, *recipients):
            if not (text.isascii() and text.isprintable()):
                raise ValueError("an address for the envelope has a character outside printable ASCII")
        if not recipients:
            raise ValueError("a message needs a recipient")
        if eight_bit and "8BITMIME" not in self.extensions:
            self._events.append(Done((NOT_EIGHT_BIT,) * len(recipients)))
            return
        if self._transaction_open:
            # Left over from a message that came to nothing after MAIL was accepted.
            self._to_send.append((Stage.RSET, b"RSET"))
        parameters = f" SIZE={size}" if "SIZE" in self.extensions else ""
        if eight_bit:
            parameters += " BODY=8BITMIME"
        self._to_send.append((Stage.MAIL, f"MAIL FROM:<{sender}>{parameters}".encode("ascii")))
        self._to_send.extend((Stage.RCPT, f"RCPT TO:<{recipient}>".encode("ascii")) for recipient in recipients)
        self._to_send.append((Stage.DATA, b"DATA"))
        self._results = [None] * len(recipients)
        self._accepted = []
        self._next_recipient = 0
        self.state = ClientState.ENVELOPE
        self._write_commands()

    def content(self, octets: bytes) -> None:
        """The next octets of the message, as they are: stuffing is done here. Raises SessionMisuse before GoAhead."""
        self._need_content_state()
        self._content_octets += len(octets)
        self._outgoing += self._writer.write(octets)

    def end_content(self) -> None:
        """The message is whole: write the final dot. Raises SessionMisuse before GoAhead."""
        self._need_content_state()
        self._outgoing += self._writer.end()
        self._due.append(Stage.END_OF_DATA)
        self.state = ClientState.END_OF_DATA
        if self._trace is not None:
            self._trace(">", f"({self._content_octets} octets of content)")
            self._trace(">", ".")

    def close(self) -> None:
        """The connection is gone."""
        self.state = ClientState.CLOSED

    def quit(self) -> None:
        """Take leave. Raises SessionMisuse while a message is under way."""
        if self.state is not ClientState.READY:
            raise SessionMisuse(f"this is no time to leave: {self.state.value}")
        self._to_send.append((Stage.QUIT, b"QUIT"))
        self._write_commands()

    def _need_content_state(self) -> None:
        if self.state is not ClientState.CONTENT:
            raise SessionMisuse(f"no content is awaited: {self.state.value}")

    def _write_commands(self) -> None:
        """Write what may be written before the next reply."""
        together = MAX_PIPELINED if "PIPELINING" in self.extensions else 1
        while self._to_send and len(self._due) < together:
            stage, line = self._to_send[0]
            if stage is Stage.DATA and not self._due and not self._accepted:
                # Every reply is in and nobody was accepted: there is nothing to send content for.
                self._to_send.clear()
                self._finish()
                return
            self._to_send.popleft()
            self._due.append(stage)
            self._outgoing += line + b"\r\n"
            if self._trace is not None:
                self._trace(">", line.decode("ascii"))

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
        self._due.popleft()
        if reply.code == 421:
            self._give_up(reply, stage)
            return
        match stage:
            case Stage.GREETING | Stage.EHLO:
                self._open(reply, stage, after)
                return
            case Stage.MAIL:
                self._take_mail(reply)
            case Stage.RCPT:
                self._take_recipient(reply)
            case Stage.DATA:
                self.state = after
                self._take_data(reply)
            case Stage.END_OF_DATA:
                self.state = after
                self._transaction_open = False
                self._decide(reply, stage)
                self._finish()
            case Stage.QUIT:
                self.state = after
                self._events.append(Parted())
            case _:
                # RSET: what was open is forgotten.
                self._transaction_open = False
        if self.state is ClientState.ENVELOPE:
            self._write_commands()

    def _open(self, reply: Reply, stage: Stage, after: ClientState) -> None:
        """Greeting, EHLO, HELO."""
        if stage is Stage.GREETING and reply.positive:
            self.server_name = reply.text.partition(" ")[0].partition("\n")[0][:255]
            self._to_send.append((Stage.EHLO, f"EHLO {self._helo}".encode("ascii")))
            self._write_commands()
        elif stage is Stage.EHLO and reply.permanent and not self._saying_helo:
            # RFC 5321 §3.2: a server that refuses EHLO may still know HELO.
            self._saying_helo = True
            self._to_send.append((Stage.EHLO, f"HELO {self._helo}".encode("ascii")))
            self._write_commands()
        elif reply.positive:
            self.state = after
            if not self._saying_helo:
                self.extensions = _extensions(reply)
            self._events.append(Ready())
        else:
            self.state = after
            self._events.append(Rejected(reply, stage))

    def _take_mail(self, reply: Reply) -> None:
        if reply.positive:
            self._transaction_open = True
            return
        self._results = [Result(reply, Stage.MAIL)] * len(self._results)
        # What has not been written need not be; what has been will be answered.
        self._to_send.clear()
        if not self._due:
            self._finish()

    def _take_recipient(self, reply: Reply) -> None:
        index = self._next_recipient
        self._next_recipient += 1
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
        self._writer = ContentWriter()
        self._in_content = True
        self._content_octets = 0
        if self._accepted:
            self._events.append(GoAhead())
        else:
            self.end_content()

    def _take_unasked(self, reply: Reply) -> None:
        """Something was said out of turn."""
        if self.state is ClientState.CONTENT and not reply.positive:
            # The server will not read to the end. Whatever we sent now would be taken for commands.
            self._give_up(reply, Stage.DATA)
            return
        raise ProtocolError(f"{reply.code} came without being asked for")

    def _give_up(self, reply: Reply, stage: Stage) -> None:
        """The server has ended the conversation: this reply is for all that is undecided."""
        if self.state is ClientState.OPENING:
            self._events.append(Rejected(reply, stage))
        elif stage is Stage.QUIT:
            self._events.append(Parted())
        else:
            self._results = [result or Result(reply, stage) for result in self._results]
            self._events.append(Done(tuple(result for result in self._results if result)))
        self.state = ClientState.CLOSED
        self._to_send.clear()
        self._due.clear()

    def _decide(self, reply: Reply, stage: Stage) -> None:
        for index in self._accepted:
            self._results[index] = Result(reply, stage)

    def _finish(self) -> None:
        self.state = ClientState.READY
        self._in_content = False
        self._events.append(Done(tuple(result for result in self._results if result)))


def _extensions(reply: Reply) -> dict[str, str]:
    # RFC 5321 §4.1.1.1: ehlo-line = ehlo-keyword *( SP ehlo-param )
    found = {}
    for line in reply.text.split("\n")[1:]:
        keyword, _, parameters = line.strip().partition(" ")
        if keyword:
            found[keyword.upper()] = parameters.strip()
    return found
