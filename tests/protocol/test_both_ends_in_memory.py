"""Client and server joined in memory: what one end writes, the other reads, in pieces of any size."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from smtp_house import InMemory
from smtp_memory import Mailbox

from smtp.client.session import ClientSession, ClientState, Done, GoAhead, Parted, Ready, Stage
from smtp.parameters import MailParameters, Notify, OriginalRecipient, RecipientParameters
from smtp.server.events import Mail, Recipient


class Pair:
    """Both ends, and the two wires between them."""

    def __init__(self, piece_octets: int = 1 << 16, *, chunking: bool = True) -> None:
        self.mailbox = Mailbox()
        self.server = InMemory(self.mailbox)
        self.client = ClientSession("client.example", chunking=chunking)
        self.piece_octets = piece_octets
        self.to_client = run_at_once(self.server, b"")

    def until_event(self) -> object:
        """Carry octets to and fro until the client has something to tell."""
        while (event := self.client.next_event()) is None:
            octets = self.client.octets_to_send()
            for start in range(0, len(octets), self.piece_octets):
                self.to_client += run_at_once(self.server, octets[start : start + self.piece_octets])
            assert self.to_client, "both ends wait for each other"
            piece, self.to_client = self.to_client[: self.piece_octets], self.to_client[self.piece_octets :]
            self.client.receive(piece)
        return event

    def send(self, sender: str, recipients: Sequence[str], *pieces: bytes) -> list[tuple[int, Stage]]:
        content = b"".join(pieces)
        parameters = MailParameters(len(content), "7BIT" if content.isascii() else "8BITMIME")
        self.client.begin(sender, recipients, parameters)
        event = self.until_event()
        if isinstance(event, GoAhead):
            for piece in pieces:
                self.client.content(piece)
            self.client.end_content()
            event = self.until_event()
        assert isinstance(event, Done)
        return [(result.reply.code, result.stage) for result in event.results]


def run_at_once(server: InMemory, octets: bytes) -> bytes:
    """The memory receiver waits for nothing, so that its coroutines need no event loop."""
    coroutine = server.exchange(octets)
    try:
        coroutine.send(None)
    except StopIteration as stop:
        said: bytes = stop.value
        return said
    raise AssertionError("the receiver has waited for something")


@pytest.mark.parametrize(("chunking", "data"), [(True, Stage.END_OF_DATA), (False, Stage.DATA)])
def test_a_whole_conversation(chunking: bool, data: Stage) -> None:
    pair = Pair(chunking=chunking)
    assert pair.until_event() == Ready()
    assert pair.send("a@example.com", ["b@example.org", "unknown@example.org"], b"one\r\n") == [
        (250, Stage.END_OF_DATA),
        (550, Stage.RCPT),
    ]
    assert pair.send("", ["unknown@example.org"], b"two\r\n") == [(550, Stage.RCPT)]
    assert pair.send("unwelcome@example.com", ["b@example.org"], b"three\r\n") == [(550, Stage.MAIL)]
    assert pair.send("no-data@example.com", ["b@example.org"], b"four\r\n") == [(554, data)]
    assert pair.send("no-end@example.com", ["b@example.org"], b"five\r\n") == [(550, Stage.END_OF_DATA)]
    assert pair.send("", ["b@example.org"], b"six\xff\r\n") == [(250, Stage.END_OF_DATA)]
    pair.client.quit()
    assert pair.until_event() == Parted()
    assert pair.server.closed
    assert [message.content for message in pair.mailbox.messages] == [b"one\r\n", b"six\xff\r\n"]
    assert pair.mailbox.messages[1].parameters.body == "8BITMIME"


@given(
    contents=st.lists(
        st.lists(st.sampled_from([b".", b"..", b"text", b"", b"\xff"]), max_size=6).map(
            lambda lines: b"".join(line + b"\r\n" for line in lines)
        ),
        min_size=1,
        max_size=3,
    ),
    piece_octets=st.integers(1, 50),
    chunking=st.booleans(),
)
def test_content_arrives_as_it_was_however_it_travels(contents: list[bytes], piece_octets: int, chunking: bool) -> None:
    pair = Pair(piece_octets, chunking=chunking)
    assert pair.until_event() == Ready()
    for content in contents:
        assert pair.send("a@example.com", ["b@example.org"], content) == [(250, Stage.END_OF_DATA)]
    assert [message.content for message in pair.mailbox.messages] == contents


@given(
    pieces=st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"..", b"text", b"\xff", b""]), max_size=12),
    piece_octets=st.integers(1, 50),
    chunk_octets=st.integers(1, 8),
)
def test_data_and_chunks_carry_the_same_message(pieces: list[bytes], piece_octets: int, chunk_octets: int) -> None:
    messages = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("smtp.client.chunks.CHUNK_OCTETS", chunk_octets)
        for chunking in (True, False):
            pair = Pair(piece_octets, chunking=chunking)
            assert pair.until_event() == Ready()
            assert pair.send("a@example.com", ["b@example.org"], *pieces) == [(250, Stage.END_OF_DATA)]
            messages.append(pair.mailbox.messages[0].content)
    assert messages[0] == messages[1]


def test_a_message_that_is_refused_between_its_chunks() -> None:
    pair = Pair()
    assert pair.until_event() == Ready()
    piece = b"x" * (1 << 16)
    pair.client.begin("", ["b@example.org"], MailParameters(3))
    assert pair.until_event() == GoAhead()
    while pair.client.state is ClientState.CONTENT:
        pair.client.content(piece)
        octets = pair.client.octets_to_send()
        pair.client.receive(run_at_once(pair.server, octets))
        pair.client.take_replies()
    done = pair.until_event()
    assert isinstance(done, Done)
    assert [(result.reply.permanent, result.stage) for result in done.results] == [(True, Stage.BDAT)]
    # And the conversation goes on.
    assert pair.send("", ["b@example.org"], b"x\r\n") == [(250, Stage.END_OF_DATA)]
    assert [message.content for message in pair.mailbox.messages] == [b"x\r\n"]


def test_what_mail_and_rcpt_say_arrives() -> None:
    pair = Pair()
    assert pair.until_event() == Ready()
    parameters = MailParameters(3, "8BITMIME", smtputf8=True, ret="HDRS", envid="a=b+c")
    one = RecipientParameters(frozenset({Notify.NEVER}), OriginalRecipient("utf-8", "jörg@müller.example"))
    pair.client.begin(
        "jörg@müller.example", ["b@example.org", "用户@例子.example"], parameters, [one, RecipientParameters()]
    )
    assert pair.until_event() == GoAhead()
    mail, first, second = (event for event in pair.server.events if isinstance(event, Mail | Recipient))
    assert isinstance(mail, Mail)
    assert (str(mail.sender), mail.parameters) == ("jörg@müller.example", parameters)
    assert isinstance(first, Recipient)
    assert first.parameters == one
    assert isinstance(second, Recipient)
    assert (str(second.address), second.parameters) == ("用户@例子.example", RecipientParameters())


@given(recipients=st.lists(st.sampled_from(["b", "c", "unknown", "later"]), min_size=1, max_size=12))
def test_each_recipient_gets_the_reply_that_was_meant_for_it(recipients: list[str]) -> None:
    pair = Pair()
    assert pair.until_event() == Ready()
    for _ in range(2):
        results = pair.send("a@example.com", [f"{name}@example.org" for name in recipients], b"x\r\n")
        codes = {"unknown": (550, Stage.RCPT), "later": (451, Stage.RCPT)}
        assert results == [codes.get(name, (250, Stage.END_OF_DATA)) for name in recipients]
