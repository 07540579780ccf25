"""The server's half of a conversation: octets in, events out. No clock, no socket.

A caller feeds what has come with `receive`, takes events with `next_event` until there are none, gives the reply that
an event asks for with `answer`, and sends what `octets_to_send` returns. What needs no decision (sequence, syntax,
sizes, NOOP and its kind) the session answers itself, so that replies are always in the order of the commands, however
many came at once (RFC 2920).

Content comes by DATA or by BDAT, and to whoever decides about mail it is the same: Data, Content, EndOfData.

Which command may come when is the table of `smtp.server.sequence`.
"""

from collections import deque

from smtp.data import Fault
from smtp.errors import SessionMisuse
from smtp.reply import REPLY_CODES, Reply
from smtp.server import answers
from smtp.server.commands import Chunk, Command, CommandError, Verb, parse_command, split_command
from smtp.server.events import (
    Closed,
    Content,
    Data,
    EndOfData,
    Event,
    Hello,
    Mail,
    Paused,
    Question,
    Recipient,
    Reset,
    StartTls,
)
from smtp.server.intake import Intake, Unit
from smtp.server.offer import SessionSettings, offer
from smtp.server.sequence import ENDINGS, IN_CONTENT, IN_TRANSACTION, TRANSITIONS, State
from smtp.trace import Trace

# RFC 5321 §4.5.3.1.4 asks for 512 octets and for more where an extension adds parameters. Four times that holds every
# parameter of every extension; a longer line is not a command.
MAX_COMMAND_OCTETS = 2048
# Commands that are not known or not well-formed, in one session. What sends more does not listen, and each costs it
# nothing. What comes at the wrong time is not counted: a pipelined group has a hundred of those behind a refused MAIL.
MAX_ERRORS = 20
# Replies to a pipelined group are collected up to here: those to a hundred recipients fit. What a client does not read
# must not pile up at our end, and who sends thousands of commands at once must not keep the others waiting.
MAX_UNSENT_OCTETS = 8192
# A chunk that is smaller, and not the last, counts as a command: whoever divides a message so wants something else.
SMALL_CHUNK_OCTETS = 512

_QUESTIONS = (Mail, Recipient, Data, EndOfData)
# Values without fields are made once.
_DATA = Data()
_END_OF_DATA = EndOfData()
_CLOSED_EVENT = Closed()
# For every event: to look up a member of an Enum takes longer than the rest of a line.
_CLOSED, _HANDSHAKE, _NOTHING, _UNWANTED = State.CLOSED, State.HANDSHAKE, Unit.NOTHING, Unit.UNWANTED
# Of these the table does not say all.
_APART = frozenset({Verb.BDAT, Verb.STARTTLS, Verb.FOREIGN, Verb.NOT_OFFERED, Verb.UNKNOWN})


class ServerSession:
    """One conversation. Every method may be called at any time unless it says otherwise; no input makes one raise."""

    def __init__(
        self,
        settings: SessionSettings,
        *,
        trace: Trace | None = None,
        replies: list[int] | None = None,
        greets: bool = True,
    ) -> None:
        """Begin with the greeting, unless `greet` is to be said first: where it is not known yet whether the client may
        come in. `replies[n]` counts the replies with the code n, in a list of `REPLY_CODES` numbers.
        """
        self.state = State.CONNECTED
        self.secure = False
        """Whether TLS is established."""
        self.errors = 0
        """Commands so far that were not known or not well-formed."""
        self._settings = settings
        self._trace = trace
        self._replies = [0] * REPLY_CODES if replies is None else replies
        self._incoming = b""
        self._position = 0
        self._line_too_long = False
        self._outgoing = b""
        self._events: deque[Event] = deque()
        self._question: Question | None = None
        self._after_yes = State.CONNECTED
        self._recipients = 0
        self._utf8 = False
        self._commands = 0
        self._intake = Intake(settings.content)
        self._chunk: Chunk | None = None
        self._content_refused = False
        # What is said at the end of content that is not wanted.
        self._verdict: Reply | None = None
        self._greeted = False
        if greets:
            self.greet()

    @property
    def in_transaction(self) -> bool:
        """Whether MAIL has been accepted and the transaction is not over."""
        return self.state in IN_TRANSACTION

    @property
    def in_content(self) -> bool:
        """Whether content is what we wait for."""
        return self._intake.unit is not Unit.NOTHING

    @property
    def has_input(self) -> bool:
        """Whether something has come that has not been looked at."""
        return self._position < len(self._incoming)

    @property
    def unsent(self) -> int:
        """How many octets of replies wait to be sent."""
        return len(self._outgoing)

    def greet(self) -> None:
        """Say the greeting."""
        self._greeted = True
        # RFC 5321 §4.2: the greeting begins with our domain. RFC 2034 §3: no enhanced code on it.
        self._say(Reply(220, f"{self._settings.hostname} ESMTP"))

    def octets_to_send(self) -> bytes:
        """All replies since the last call."""
        octets, self._outgoing = self._outgoing, b""
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
            if self.state is _CLOSED:
                return _CLOSED_EVENT
            if len(self._outgoing) > MAX_UNSENT_OCTETS:
                return Paused()
            intake = self._intake
            # Most often there is nothing more: seen here, that costs a tenth of what it costs to look for a line.
            if self._position >= len(self._incoming) and not intake.whole:
                return None
            if intake.unit is not _NOTHING:
                self._read_content()
            elif not self._read_command():
                return None

    def answer(self, reply: Reply | None) -> None:
        """Answer the last event; None, for Data only, lets the content come. 421 ends the conversation too.

        Raises SessionMisuse where no question waits for such an answer.
        """
        question = self._question
        if question is None:
            raise SessionMisuse("there is nothing to answer")
        positive = reply is None or reply.positive
        if isinstance(question, Data):
            if reply is not None and positive:
                raise SessionMisuse("Data is let through with None")
        elif reply is None:
            raise SessionMisuse("only Data is answered with None")
        self._question = None
        if reply is None or (isinstance(question, Data) and reply.code != 421):
            self._answer_data(reply)
        elif reply.code == 421:
            if isinstance(question, EndOfData):
                self._end_content()
            self.hang_up(reply)
        elif isinstance(question, EndOfData):
            self._end_content()
            self._commands *= not positive
            self._say(reply)
        else:
            if positive:
                self.state = self._after_yes
                self._recipients += isinstance(question, Recipient)
            self._say(reply)

    def secured(self) -> None:
        """TLS is established: nothing counts that was said before (RFC 3207 §4.2).

        Raises SessionMisuse where no handshake was due.
        """
        if self.state is not State.HANDSHAKE:
            raise SessionMisuse("no handshake is due")
        self.state = ENDINGS[State.HANDSHAKE][1]
        self.secure = True
        self._incoming = b""
        self._position = 0

    def refuse_content(self, reply: Reply) -> None:
        """The rest of the content is not wanted: read to its end, then say this. Reset follows at once."""
        if self.state not in IN_CONTENT:
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
            # RFC 5321 §4.2: 421 and 221 name our domain first. RFC 2034 §3: in place of the greeting, no enhanced code.
            enhanced = reply.enhanced if self._greeted else None
            self._say(Reply(reply.code, f"{self._settings.hostname} {reply.text}", enhanced))

    # ------------------------------------------------------------------ commands

    def _read_command(self) -> bool:
        """Act on the next line; False where there is none yet, and before a handshake."""
        if self.state is _HANDSHAKE:
            return False
        end = self._incoming.find(b"\n", self._position)
        if end < 0:
            if len(self._incoming) - self._position > MAX_COMMAND_OCTETS:
                if not self._line_too_long and self._is_chunk(self._position):
                    self._refuse_chunk(answers.LINE_TOO_LONG)
                    return True
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
            if not self._line_too_long and self._is_chunk(start):
                self._refuse_chunk(answers.LINE_TOO_LONG)
                return True
            self._line_too_long = False
            self._refuse(answers.LINE_TOO_LONG)
        else:
            self._act_on(self._incoming[start : end - 1])
        return True

    def _act_on(self, line: bytes) -> None:
        if self._trace is not None:
            # Escaped: it may be shown on a terminal.
            self._trace("<", line.decode("latin-1").encode("unicode_escape").decode("ascii"))
        verb, argument = split_command(line)
        self._commands += 1
        if self._commands > self._settings.max_commands:
            self.hang_up(answers.TOO_MANY_COMMANDS)
            return
        if verb in _APART and self._act_apart(verb, argument, line):
            return
        after = TRANSITIONS[self.state][verb]
        if isinstance(after, Reply):
            self._say(after)
            return
        try:
            command = parse_command(verb, argument)
        except CommandError as error:
            reply = error.reply
            if verb in (Verb.EHLO, Verb.HELO):
                # RFC 2034 §3: no enhanced code on a reply to these two.
                reply = Reply(reply.code, reply.text)
            self._refuse(reply)
        else:
            self._after_yes = after
            self._obey(command)

    def _act_apart(self, verb: Verb, argument: bytes, line: bytes) -> bool:
        """Act on what is more than a command, or none of this server; False where it is one like others after all."""
        if verb is Verb.STARTTLS and not self._settings.starttls:
            verb = Verb.NOT_OFFERED
        after = TRANSITIONS[self.state][verb]
        if verb is Verb.BDAT:
            self._begin_chunk(argument, after)
        elif verb is Verb.UNKNOWN and line[:4].upper() == b"BDAT":
            # With a tab behind it, say.
            self._refuse_chunk(answers.BDAT_SYNTAX)
        elif verb is Verb.FOREIGN:
            self._say(answers.OTHER_PROTOCOL)
            self.hang_up(None)
        elif verb is Verb.STARTTLS:
            if isinstance(after, Reply) or not self.secure:
                return False
            self._say(answers.TLS_ALREADY)
        elif isinstance(after, Reply):
            self._refuse(after)
        return True

    def _obey(self, command: Command) -> None:
        """One well-formed command at the right time."""
        match command:
            case Mail():
                self._obey_mail(command)
            case Recipient():
                self._obey_rcpt(command)
            case Verb.DATA:
                self._events.append(_DATA)
            case Hello():
                self._reset()
                self.state = self._after_yes
                self._events.append(command)
                if command.extended:
                    self._say(Reply(250, offer(self._settings, self.secure)))
                else:
                    self._say(Reply(250, self._settings.hostname))
            case Verb.STARTTLS:
                self._obey_starttls()
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

    def _obey_mail(self, mail: Mail) -> None:
        parameters = mail.parameters
        if parameters.size is not None and parameters.size > self._settings.max_message_octets:
            # RFC 1870 §6.1: refused before a single octet of it has come.
            self._say(answers.TOO_LARGE)
        elif parameters.require_tls and not self.secure:
            self._say(answers.TLS_FIRST if self._settings.starttls else answers.PARAMETER_UNKNOWN)
        else:
            self._utf8 = parameters.smtputf8
            self._events.append(mail)

    def _obey_rcpt(self, recipient: Recipient) -> None:
        if self._recipients >= self._settings.max_recipients:
            self._say(answers.TOO_MANY_RECIPIENTS)
        elif not self._utf8 and not recipient.address.is_ascii:
            self._refuse(answers.NEEDS_SMTPUTF8)
        else:
            self._events.append(recipient)

    def _obey_starttls(self) -> None:
        if self.has_input:
            self._say(answers.OCTETS_BEHIND_STARTTLS)
            self.hang_up(None)
            return
        self.state = self._after_yes
        self._say(answers.READY_FOR_TLS)
        self._events.append(StartTls())

    def _refuse(self, reply: Reply) -> None:
        """What is not known or not well-formed: so often, and no more."""
        self.errors += 1
        if self.errors < MAX_ERRORS:
            self._say(reply)
        else:
            # RFC 2034 §3: what has none before the end has none there, as the reply to EHLO.
            last = answers.TOO_MANY_ERRORS
            self.hang_up(last if reply.enhanced else Reply(last.code, last.text))

    # ------------------------------------------------------------------ content

    def _answer_data(self, reply: Reply | None) -> None:
        chunk, self._chunk = self._chunk, None
        if chunk is None:
            if reply is None:
                self.state = self._after_yes
                self._intake.begin_data()
            self._say(reply or answers.GO_AHEAD)
            return
        self.state = self._after_yes
        if reply is None:
            self._intake.begin_chunk(chunk.octets, first=True, last=chunk.last)
        else:
            # The chunk is on its way all the same, and others may be behind it: they must not ask anew.
            self._events.append(Reset())
            self._end_content()
            self._throw_away(chunk, reply)

    def _begin_chunk(self, argument: bytes, after: State | Reply) -> None:
        """BDAT: whatever the answer will be, the octets behind it are no commands (RFC 3030 §2)."""
        try:
            chunk = parse_command(Verb.BDAT, argument)
            assert isinstance(chunk, Chunk)
        except CommandError as error:
            self._refuse_chunk(error.reply)
            return
        if isinstance(after, Reply):
            self._throw_away(chunk, after)
        elif self.state is State.CHUNKS:
            # A message has as many chunks as the client's buffer makes of it.
            self._commands -= chunk.last or chunk.octets >= SMALL_CHUNK_OCTETS
            self._intake.begin_chunk(chunk.octets, first=False, last=chunk.last)
        else:
            self._chunk = chunk
            self._after_yes = after
            self._events.append(_DATA)

    def _throw_away(self, chunk: Chunk, reply: Reply) -> None:
        """Read a chunk that nobody wants, then say so."""
        self._verdict = reply
        self._intake.begin_unwanted(chunk.octets)

    def _is_chunk(self, start: int) -> bool:
        """Whether a line that begins here seems to announce octets that are no commands."""
        return self._incoming[start : start + 4].upper() == b"BDAT"

    def _refuse_chunk(self, reply: Reply) -> None:
        """A BDAT that can't be read. Without its size nobody knows where the next command begins."""
        self._say(reply)
        self.hang_up(None)

    def _read_content(self) -> None:
        """Act on what has come of the content, or on its end."""
        intake = self._intake
        if not intake.whole:
            self._position = intake.take(self._incoming, self._position)
            if intake.thrown_away and intake.thrown_away > self._settings.max_thrown_away:
                self._say(self._verdict or answers.VERDICTS[intake.fault or Fault.TOO_LARGE])
                self.hang_up(None)
                return
        if intake.unit is not _UNWANTED and not self._content_refused:
            if intake.fault is not None:
                self._refuse_content()
            elif piece := intake.piece():
                self._events.append(Content(piece))
                return
        if intake.whole:
            self._end_unit(intake)

    def _end_unit(self, intake: Intake) -> None:
        match intake.end():
            case Unit.UNWANTED:
                verdict, self._verdict = self._verdict or answers.TROUBLE, None
                self._say(verdict)
                return
            case Unit.CHUNK if not self._content_refused:
                self._say(Reply(250, f"{intake.chunk_octets} octets received", "2.0.0"))
                return
        if self._trace is not None:
            self._trace("<", f"({intake.octets_seen} octets of content)")
        if intake.fault is not None and not self._content_refused:
            self._refuse_content()
        if self._content_refused:
            verdict = self._verdict or answers.VERDICTS[intake.fault or Fault.BAD_LINE_ENDS]
            self._end_content()
            self._say(verdict)
        else:
            self._events.append(_END_OF_DATA)

    def _refuse_content(self) -> None:
        """What has been given of the message is to be forgotten, and the rest is not given."""
        self._content_refused = True
        self._intake.refuse()
        self._events.clear()
        self._events.append(Reset())

    def _end_content(self) -> None:
        after = ENDINGS[self.state][1]
        self._leave_transaction()
        self.state = after

    # ------------------------------------------------------------------ transactions

    def _reset(self) -> None:
        if self.in_transaction:
            self._events.append(Reset())
            self._leave_transaction()

    def _leave_transaction(self) -> None:
        self.state = State.GREETED
        self._recipients = 0
        self._utf8 = False
        self._content_refused = False
        self._verdict = None

    # ------------------------------------------------------------------ what is said

    def _say(self, reply: Reply) -> None:
        self._replies[reply.code] += 1
        octets = reply.octets()
        self._outgoing += octets
        if self._trace is not None:
            for line in octets.decode("ascii").splitlines():
                self._trace(">", line)
