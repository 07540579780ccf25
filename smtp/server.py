"""The server's half of a conversation: octets in, events out. No clock, no socket.

A caller feeds what has come with `receive`, takes events with `next_event` until there are none, gives the reply that
an event asks for with `answer`, and sends what `octets_to_send` returns. What needs no decision (sequence, syntax,
sizes, NOOP and its kind) the session answers itself, so that replies are always in the order of the commands, however
many came at once (RFC 2920).

Which command may come when is the table of `smtp.sequence`.
"""

from collections import deque
from dataclasses import dataclass

from smtp import answers
from smtp.address import Address
from smtp.commands import Command, CommandError, Verb, parse_command, split_command
from smtp.data import ContentReader, Fault
from smtp.errors import SessionMisuse
from smtp.parameters import MailParameters, RecipientParameters
from smtp.reply import Reply
from smtp.sequence import IN_TRANSACTION, TRANSITIONS, State
from smtp.trace import Trace

# RFC 5321 §4.5.3.1.4 asks for 512 octets and for more where an extension adds parameters. Four times that holds every
# parameter of every extension; a longer line is not a command.
MAX_COMMAND_OCTETS = 2048
# Lines that are no commands here, in one session. What sends more does not listen, and each costs it nothing.
MAX_UNKNOWN_COMMANDS = 20
# Replies to a pipelined group are collected up to here. What a client does not read must not pile up at our end.
MAX_UNSENT_OCTETS = 16384


@dataclass(frozen=True, slots=True)
class Hello:
    """The client has said who it is. Already answered."""

    name: str
    extended: bool
    """Whether it was EHLO."""


@dataclass(frozen=True, slots=True)
class Mail:
    """MAIL: asks for an answer."""

    sender: Address | None
    parameters: MailParameters


@dataclass(frozen=True, slots=True)
class Recipient:
    """RCPT: asks for an answer."""

    address: Address
    parameters: RecipientParameters


@dataclass(frozen=True, slots=True)
class Data:
    """DATA: asks for an answer; None is 354."""


@dataclass(frozen=True, slots=True)
class Content:
    """The next octets of the message, lines ending in CRLF."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class EndOfData:
    """The message is whole: asks for an answer, which ends the transaction."""


@dataclass(frozen=True, slots=True)
class Reset:
    """The transaction is over and no message came of it. Already answered, or will be."""


@dataclass(frozen=True, slots=True)
class Paused:
    """Many replies are waiting: send them before asking for the next event."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The conversation is over: send what is left to send, and close."""


Question = Mail | Recipient | Data | EndOfData
Event = Question | Hello | Content | Reset | Paused | Closed

_QUESTIONS = (Mail, Recipient, Data, EndOfData)
# Values without fields are made once.
_DATA = Data()
_END_OF_DATA = EndOfData()


class ServerSession:
    """One conversation. Every method may be called at any time unless it says otherwise; no input makes one raise."""

    def __init__(
        self,
        hostname: str,
        max_message_octets: int,
        max_recipients: int,
        *,
        trace: Trace | None = None,
        replies: list[int] | None = None,
    ) -> None:
        """Begin with the greeting. `replies[n]` counts the replies of the class n, in a list of six numbers."""
        self.state = State.CONNECTED
        self._hostname = hostname
        self._max_message_octets = max_message_octets
        self._max_recipients = max_recipients
        self._trace = trace
        self._replies = [0] * 6 if replies is None else replies
        self._incoming = b""
        self._position = 0
        self._line_too_long = False
        self._outgoing = bytearray()
        self._events: deque[Event] = deque()
        self._question: Question | None = None
        self._after_yes = State.CONNECTED
        self._recipients = 0
        self._unknown_commands = 0
        self._reader = ContentReader(max_message_octets)
        self._content_refused = False
        self._verdict: Reply | None = None
        # RFC 5321 §4.2: the greeting begins with our domain. RFC 2034 §3: no enhanced code on it.
        self._say(Reply(220, f"{hostname} ESMTP"))

    @property
    def in_transaction(self) -> bool:
        """Whether MAIL has been accepted and the transaction is not over."""
        return self.state in IN_TRANSACTION

    @property
    def unsent(self) -> int:
        """How many octets of replies wait to be sent."""
        return len(self._outgoing)

    def octets_to_send(self) -> bytes:
        """All replies since the last call."""
        octets = bytes(self._outgoing)
        self._outgoing.clear()
        return octets

    def receive(self, octets: bytes) -> None:
        """Take what has come from the client."""
        if self._position < len(self._incoming):
            self._incoming = self._incoming[self._position :] + octets
        else:
            self._incoming = octets
        self._position = 0

    def next_event(self) -> Event | None:
        """What the client wants next; None where more octets are needed. Closed is given again and again.

        Raises SessionMisuse while a question waits for its answer.
        """
        if self._question is not None:
            raise SessionMisuse("the last event has not been answered")
        while True:
            if self._events:
                event = self._events.popleft()
                if isinstance(event, _QUESTIONS):
                    self._question = event
                return event
            if self.state is State.CLOSED:
                return Closed()
            if len(self._outgoing) > MAX_UNSENT_OCTETS:
                return Paused()
            if not (self._read_content() if self.state is State.CONTENT else self._read_command()):
                return None

    def answer(self, reply: Reply | None) -> None:
        """Answer the last event; None, for Data only, lets the content come. 421 ends the conversation too.

        Raises SessionMisuse where no question waits for such an answer.
        """
        question = self._question
        if question is None:
            raise SessionMisuse("there is nothing to answer")
        if reply is None:
            if not isinstance(question, Data):
                raise SessionMisuse("only Data is answered with None")
            reply = answers.GO_AHEAD
            self._reader = ContentReader(self._max_message_octets)
        elif isinstance(question, Data) and reply.positive:
            raise SessionMisuse("Data is let through with None")
        self._question = None
        if isinstance(question, EndOfData):
            self._leave_transaction()
        elif reply.code == 421:
            self.hang_up(reply)
            return
        elif reply.positive:
            self.state = self._after_yes
            self._recipients += isinstance(question, Recipient)
        self._say(reply)
        if reply.code == 421:
            self.state = State.CLOSED

    def refuse_content(self, reply: Reply) -> None:
        """The rest of the content is not wanted: read to its end, then say this. Reset follows at once."""
        if self.state is not State.CONTENT:
            raise SessionMisuse("no content is coming")
        if not self._content_refused:
            self._verdict = reply
            self._refuse_content()

    def hang_up(self, reply: Reply | None) -> None:
        """End the conversation, with a last reply where one can still be sent. Reset follows where one is due."""
        if self.state is State.CLOSED:
            return
        unfinished = self.in_transaction or self._question is not None
        self._question = None
        self._events = deque(event for event in self._events if isinstance(event, Reset))
        # Content that was refused has had its Reset.
        if unfinished and not self._content_refused:
            self._events.append(Reset())
        self.state = State.CLOSED
        if reply is not None:
            # RFC 5321 §4.2: 421 and 221 name our domain first.
            self._say(Reply(reply.code, f"{self._hostname} {reply.text}", reply.enhanced))

    def _read_command(self) -> bool:
        """Act on the next line; False where there is none yet."""
        end = self._incoming.find(b"\n", self._position)
        if end < 0:
            if len(self._incoming) - self._position > MAX_COMMAND_OCTETS:
                # Its tail is thrown away unread, up to the CRLF. The last octet stays: it may be the CR.
                self._line_too_long = True
                self._position = len(self._incoming) - 1
            return False
        start, self._position = self._position, end + 1
        if end == start or self._incoming[end - 1] != 0x0D:
            # RFC 5321 §2.3.8: nothing but CRLF ends a line. To take LF for an end, or to wait for a better one, would
            # both let a line mean two things.
            self._say(answers.BARE_LINE_FEED)
            self.hang_up(None)
        elif self._line_too_long or end + 1 - start > MAX_COMMAND_OCTETS:
            self._line_too_long = False
            self._refuse_unknown(answers.LINE_TOO_LONG)
        else:
            self._act_on(self._incoming[start : end - 1])
        return True

    def _act_on(self, line: bytes) -> None:
        if self._trace is not None:
            # Escaped: it may be shown on a terminal.
            self._trace("<", line.decode("latin-1").encode("unicode_escape").decode("ascii"))
        verb, argument = split_command(line)
        after = TRANSITIONS[self.state][verb]
        if isinstance(after, Reply):
            if verb in (Verb.UNKNOWN, Verb.NOT_OFFERED):
                self._refuse_unknown(after)
            else:
                self._say(after)
        elif verb is Verb.FOREIGN:
            self._say(answers.OTHER_PROTOCOL)
            self.hang_up(None)
        else:
            try:
                command = parse_command(verb, argument)
            except CommandError as error:
                reply = error.reply
                if verb in (Verb.EHLO, Verb.HELO):
                    # RFC 2034 §3: no enhanced code on a reply to these two.
                    reply = Reply(reply.code, reply.text)
                self._say(reply)
            else:
                self._after_yes = after
                self._obey(command)

    def _obey(self, command: Command) -> None:
        """One well-formed command at the right time."""
        match command.verb:
            case Verb.MAIL:
                size = command.mail.size
                if size is not None and size > self._max_message_octets:
                    # RFC 1870 §6.1: refused before a single octet of it has come.
                    self._say(answers.TOO_LARGE)
                else:
                    self._events.append(Mail(command.address, command.mail))
            case Verb.RCPT:
                if self._recipients >= self._max_recipients:
                    self._say(answers.TOO_MANY_RECIPIENTS)
                elif command.address is not None:
                    self._events.append(Recipient(command.address, command.recipient))
            case Verb.DATA:
                self._events.append(_DATA)
            case Verb.EHLO | Verb.HELO:
                self._reset()
                self.state = self._after_yes
                extended = command.verb is Verb.EHLO
                self._events.append(Hello(command.text, extended))
                self._say(self._hello(extended))
            case Verb.RSET:
                self._reset()
                self.state = self._after_yes
                self._say(answers.OK)
            case Verb.NOOP:
                self._say(answers.OK)
            case Verb.VRFY:
                self._say(answers.CANNOT_VERIFY)
            case Verb.HELP:
                self._say(answers.HELP)
            case Verb.QUIT:
                self.hang_up(answers.GOODBYE)

    def _hello(self, extended: bool) -> Reply:
        if not extended:
            return Reply(250, self._hostname)
        keywords = ("PIPELINING", f"SIZE {self._max_message_octets}", "8BITMIME", "ENHANCEDSTATUSCODES")
        return Reply(250, "\n".join((self._hostname, *keywords)))

    def _refuse_unknown(self, reply: Reply) -> None:
        self._unknown_commands += 1
        if self._unknown_commands < MAX_UNKNOWN_COMMANDS:
            self._say(reply)
        else:
            self.hang_up(answers.TOO_MANY_ERRORS)

    def _read_content(self) -> bool:
        """Act on what has come of the content; False where more is needed."""
        if not self._reader.ended:
            if self._position >= len(self._incoming):
                return False
            octets = self._incoming[self._position :] if self._position else self._incoming
            piece, self._incoming = self._reader.read(octets)
            self._position = 0
            if not self._content_refused:
                if self._reader.fault is not None:
                    self._refuse_content()
                elif piece:
                    self._events.append(Content(piece))
            return True
        if self._trace is not None:
            self._trace("<", f"({self._reader.octets_seen} octets of content)")
        if not self._content_refused:
            self._events.append(_END_OF_DATA)
        else:
            is_large = self._reader.fault is Fault.TOO_LARGE
            verdict = self._verdict or (answers.TOO_LARGE if is_large else answers.BAD_LINE_ENDS)
            self._leave_transaction()
            self._say(verdict)
        return True

    def _refuse_content(self) -> None:
        """What has been given of the message is to be forgotten, and the rest is not given."""
        self._content_refused = True
        self._events.clear()
        self._events.append(Reset())

    def _reset(self) -> None:
        if self.in_transaction:
            self._events.append(Reset())
            self._leave_transaction()

    def _leave_transaction(self) -> None:
        self.state = State.GREETED
        self._recipients = 0
        self._content_refused = False
        self._verdict = None

    def _say(self, reply: Reply) -> None:
        self._replies[reply.code // 100] += 1
        octets = reply.octets()
        self._outgoing += octets
        if self._trace is not None:
            for line in octets.decode("ascii").splitlines():
                self._trace(">", line)
