"""The server's session against a model of it: hypothesis says what comes into its mind, and every reply has to be the
one that a few lines of plain conditions expect. The model is written from RFC 5321 §4.1.4, RFC 3030 and RFC 3207, not
from the session's table.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from smtp_house import InMemory
from smtp_memory import Mailbox

from smtp.server.sequence import State

MAX_MESSAGE_OCTETS = 60
MAX_RECIPIENTS = 3

CONTENT = st.lists(
    st.sampled_from([b"", b"text", b".", b"..", b"\xff", b"a\rb", b"a\nb", b"\0", b"x" * 30]), max_size=4
).map(lambda lines: b"".join(line + b"\r\n" for line in lines))


class Conversation(RuleBasedStateMachine):
    """One session, fed in pieces of random size, and what it should have made of all that."""

    def __init__(self) -> None:
        super().__init__()
        self.mailbox = Mailbox()
        self.server = InMemory(self.mailbox, max_message_octets=MAX_MESSAGE_OCTETS, max_recipients=MAX_RECIPIENTS)
        self.greeted = False
        self.in_transaction = False
        self.recipients = 0
        self.chunks: bytes | None = None
        self.unknown = 0
        self.messages: list[bytes] = []
        assert self.exchange(b"") == ["220"]

    def exchange(self, octets: bytes, cut: int = 0) -> list[str]:
        """The codes of the replies to this. The memory receiver waits for nothing, so no event loop is needed."""
        said = b""
        for piece in (octets[:cut], octets[cut:]):
            coroutine = self.server.exchange(piece)
            try:
                coroutine.send(None)
            except StopIteration as stop:
                said += stop.value
        assert said.endswith(b"\r\n") or not said
        lines = said.decode("ascii").split("\r\n")[:-1]
        assert all(len(line) <= 510 and line[:3].isdigit() for line in lines)
        return [line[:3] for line in lines if line[3:4] == " "]

    def end_transaction(self) -> None:
        self.in_transaction = False
        self.recipients = 0
        self.chunks = None

    @rule(verb=st.sampled_from(["EHLO", "HELO", "ehlo"]), cut=st.integers(0, 9))
    def hello(self, verb: str, cut: int) -> None:
        assert self.exchange(f"{verb} client.example\r\n".encode(), cut) == ["250"]
        self.greeted = True
        self.end_transaction()

    @rule(sender=st.sampled_from(["<>", "<a@example.com>", "<unwelcome@example.com>"]), cut=st.integers(0, 9))
    def mail(self, sender: str, cut: int) -> None:
        codes = self.exchange(f"MAIL FROM:{sender}\r\n".encode(), cut)
        if not self.greeted or self.in_transaction:
            assert codes == ["503"]
        elif "unwelcome" in sender:
            assert codes == ["550"]
        else:
            assert codes == ["250"]
            self.in_transaction = True

    @rule(size=st.integers(0, 2 * MAX_MESSAGE_OCTETS))
    def mail_with_size(self, size: int) -> None:
        codes = self.exchange(f"MAIL FROM:<a@example.com> SIZE={size}\r\n".encode())
        if not self.greeted or self.in_transaction:
            assert codes == ["503"]
        elif size > MAX_MESSAGE_OCTETS:
            assert codes == ["552"]
        else:
            assert codes == ["250"]
            self.in_transaction = True

    @rule(name=st.sampled_from(["b", "unknown", "later"]))
    def rcpt(self, name: str) -> None:
        codes = self.exchange(f"RCPT TO:<{name}@example.org>\r\n".encode())
        if not self.in_transaction or self.chunks is not None:
            assert codes == ["503"]
        elif self.recipients == MAX_RECIPIENTS:
            assert codes == ["452"]
        else:
            assert codes == [{"b": "250", "unknown": "550", "later": "451"}[name]]
            self.recipients += name == "b"

    @rule(content=CONTENT, cut=st.integers(0, 40))
    def data(self, content: bytes, cut: int) -> None:
        codes = self.exchange(b"DATA\r\n")
        if not self.in_transaction or self.chunks is not None:
            assert codes == ["503"]
        elif not self.recipients:
            assert codes == ["554"]
        else:
            assert codes == ["354"]
            stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
            assert self.exchange(stuffed + b".\r\n", cut) == [self.verdict(content)]
            self.end_transaction()

    @rule(content=CONTENT, last=st.booleans(), cut=st.integers(0, 60))
    def bdat(self, content: bytes, last: bool, cut: int) -> None:
        # The chunk and a command behind it at once: it must neither eat the command nor leave octets to be one.
        codes = self.exchange(b"BDAT %d%b\r\n%bNOOP\r\n" % (len(content), b" LAST" * last, content), cut)
        if not self.in_transaction:
            assert codes == ["503", "250"]
        elif not self.recipients:
            assert codes == ["554", "250"]
        else:
            self.chunks = (self.chunks or b"") + content
            verdict = self.verdict(self.chunks) if last or self.is_bad(self.chunks) else "250"
            assert codes == [verdict, "250"]
            if last or verdict != "250":
                self.end_transaction()

    def is_bad(self, content: bytes) -> bool:
        rest = content.replace(b"\r\n", b"")
        return len(content) > MAX_MESSAGE_OCTETS or any(octet in rest for octet in b"\r\n\0")

    def verdict(self, content: bytes) -> str:
        rest = content.replace(b"\r\n", b"")
        if any(octet in rest for octet in b"\r\n\0"):
            return "550"
        if len(content) > MAX_MESSAGE_OCTETS:
            return "552"
        self.messages.append(content)
        return "250"

    @rule()
    def rset(self) -> None:
        assert self.exchange(b"RSET\r\n") == ["250"]
        self.end_transaction()

    @rule(line=st.sampled_from(["NOOP", "NOOP x", "VRFY a", "HELP", "HELP MAIL"]), cut=st.integers(0, 9))
    def harmless(self, line: str, cut: int) -> None:
        expected = {"NOOP": "250", "VRFY": "252", "HELP": "214"}[line[:4]]
        assert self.exchange(line.encode() + b"\r\n", cut) == [expected]

    @precondition(lambda self: self.unknown < 18)
    @rule(line=st.sampled_from([b"FROB", b"MAIL FROM:<a@example.com", b"x" * 2100, b"STARTTLS", b"EXPN a", b"\xff"]))
    def nonsense(self, line: bytes) -> None:
        [code] = self.exchange(line + b"\r\n")
        assert code[0] == "5"
        if code != "503":
            self.unknown += 1

    @invariant()
    def what_was_promised_is_what_is_there(self) -> None:
        assert [message.content for message in self.mailbox.messages] == self.messages
        session = self.server.session
        assert session.in_transaction is self.in_transaction
        assert (session.state is State.CHUNKS) is (self.chunks is not None)
        assert session.unsent == 0


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
