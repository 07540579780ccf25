"""The server's session by itself: its table, and what holds for any input whatever."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from smtp_house import InMemory
from smtp_memory import Mailbox

from smtp.address import Address
from smtp.errors import SessionMisuse
from smtp.parameters import MailParameters
from smtp.reply import Reply
from smtp.server import answers
from smtp.server.commands import Verb
from smtp.server.events import Closed, Content, Data, EndOfData, Event, Hello, Mail, Paused, Recipient, Reset
from smtp.server.offer import SessionSettings
from smtp.server.sequence import ENDINGS, IN_TRANSACTION, TRANSITIONS, State
from smtp.server.session import MAX_UNSENT_OCTETS, ServerSession

SETTINGS = SessionSettings("mx.example.org", max_message_octets=1000)

GREET = b"EHLO client.example\r\n"
ENVELOPE = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n"

# Lines of a conversation, good and bad, that random conversations are made of.
LINES = [
    GREET,
    b"HELO client.example\r\n",
    b"EHLO\r\n",
    b"MAIL FROM:<a@example.com>\r\n",
    b"MAIL FROM:<a@example.com> SIZE=999\r\n",
    b"MAIL FROM:<unwelcome@example.com>\r\n",
    b"MAIL FROM:<no-data@example.com>\r\n",
    b"MAIL FROM:<no-end@example.com>\r\n",
    b"MAIL FROM:<parting@example.com>\r\n",
    b"RCPT TO:<b@example.org>\r\n",
    b"RCPT TO:<unknown@example.org>\r\n",
    b"RCPT TO:<later@example.org\r\n",
    b"DATA\r\n",
    b"BDAT 4\r\n",
    b"BDAT 4\r\nx\r\n.",
    b"BDAT 6 LAST\r\nx\r\n.\r\n",
    b"BDAT 0 LAST\r\n",
    b"BDAT 1 LAST\r\n\r",
    b"BDAT 600\r\n",
    b"BDAT x\r\n",
    b"text\r\n",
    b"..text\r\n",
    b".\r\n",
    b"\r\n.\r\n",
    b"\n",
    b"\r",
    b".",
    b"RSET\r\n",
    b"NOOP\r\n",
    b"VRFY a\r\n",
    b"HELP\r\n",
    b"\x00\xff\r\n",
    b"x" * 2100,
    b"QUIT\r\n",
]
CONVERSATIONS = st.lists(st.sampled_from(LINES), max_size=25).map(b"".join)
# Most random conversations would never come to content: these do.
STARTED = CONVERSATIONS.map(lambda octets: GREET + ENVELOPE + b"DATA\r\n" + octets)
CUTS = st.lists(st.integers(0, 600), max_size=10)


def test_the_table_answers_every_command_in_every_state_in_which_commands_are_read() -> None:
    reading = set(State) - {State.CONTENT, State.HANDSHAKE, State.CLOSED}
    assert set(TRANSITIONS) == reading
    assert set(ENDINGS) == {State.CONTENT, State.CHUNKS, State.HANDSHAKE}
    for state, row in TRANSITIONS.items():
        assert set(row) == set(Verb), state


def test_every_refusal_of_the_table_is_a_permanent_reply_for_this_command() -> None:
    refusals = {value for row in TRANSITIONS.values() for value in row.values() if isinstance(value, Reply)}
    assert {reply.code for reply in refusals} == {500, 502, 503, 554}


def test_a_transaction_begins_with_mail_only_and_ends_where_the_table_says() -> None:
    for state, row in TRANSITIONS.items():
        for verb, after in row.items():
            if isinstance(after, State) and state not in IN_TRANSACTION and after in IN_TRANSACTION:
                assert verb is Verb.MAIL
            if isinstance(after, State) and state in IN_TRANSACTION and after not in IN_TRANSACTION:
                assert verb in (Verb.EHLO, Verb.HELO, Verb.RSET, Verb.QUIT, Verb.FOREIGN)


def split(octets: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(cut, len(octets)) for cut in cuts} | {0, len(octets)})
    return [octets[start:end] for start, end in pairwise(places)]


def told(events: list[Event]) -> list[object]:
    """What events mean, however the content in them is divided: content that came to nothing is left out."""
    meaning: list[object] = []
    content = b""
    for event in events:
        match event:
            case Content():
                content += event.octets
            case Paused():
                pass
            case EndOfData():
                meaning += [content, event]
                content = b""
            case _:
                if isinstance(event, Reset):
                    content = b""
                meaning.append(event)
    return meaning


async def converse(pieces: list[bytes]) -> tuple[bytes, list[object], Mailbox]:
    mailbox = Mailbox()
    server = InMemory(mailbox, max_message_octets=500, max_recipients=3)
    said = await server.exchange(b"")
    for piece in pieces:
        said += await server.exchange(piece)
    return said, told(server.events), mailbox


def run(pieces: list[bytes]) -> tuple[bytes, list[object], Mailbox]:
    """The memory receiver waits for nothing, so that its coroutines need no event loop."""
    coroutine = converse(pieces)
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: tuple[bytes, list[object], Mailbox] = stop.value
        return result
    raise AssertionError("the receiver has waited for something")


@given(CONVERSATIONS | STARTED, CUTS)
def test_the_division_of_the_input_changes_nothing(octets: bytes, cuts: list[int]) -> None:
    assert run(split(octets, cuts)) == run([octets])


@given(CONVERSATIONS | STARTED)
def test_nor_does_one_octet_at_a_time(octets: bytes) -> None:
    assert run([octets[index : index + 1] for index in range(len(octets))]) == run([octets])


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_no_input_makes_a_session_raise(pieces: list[bytes]) -> None:
    said, _, mailbox = run(pieces)
    assert said.startswith(b"220 ")
    assert not mailbox.messages


@given(CONVERSATIONS | STARTED)
def test_every_transaction_that_the_receiver_began_ends_for_it_too(octets: bytes) -> None:
    """MAIL that was accepted is followed by the end of data or by a reset, before anything else begins."""
    _, events, _ = run([octets, b"\r\n.\r\nQUIT\r\n"])
    under_way = False
    for event in events:
        match event:
            case Mail():
                assert not under_way
                under_way = event.sender is not None and event.sender.local_part not in ("unwelcome", "parting")
            case Recipient() | Data():
                assert under_way
            case EndOfData() | Reset():
                under_way = False
            case Closed():
                assert not under_way


def greeted() -> ServerSession:
    session = ServerSession(SETTINGS)
    session.receive(GREET)
    assert session.next_event() == Hello("client.example", True)
    return session


def test_hello_says_which_protocol() -> None:
    session = ServerSession(SETTINGS)
    session.receive(b"HELO client.example\r\n")
    assert session.next_event() == Hello("client.example", False)


def test_questions_want_answers() -> None:
    session = greeted()
    session.receive(ENVELOPE)
    assert isinstance(session.next_event(), Mail)
    with pytest.raises(SessionMisuse):
        session.next_event()
    with pytest.raises(SessionMisuse):
        session.answer(None)
    session.answer(answers.OK)
    with pytest.raises(SessionMisuse):
        session.answer(answers.OK)


def test_data_is_let_through_with_none_only() -> None:
    session = greeted()
    session.receive(ENVELOPE + b"DATA\r\n")
    for reply in (answers.OK, answers.OK):
        session.next_event()
        session.answer(reply)
    assert isinstance(session.next_event(), Data)
    with pytest.raises(SessionMisuse):
        session.answer(answers.OK)
    with pytest.raises(SessionMisuse):
        session.refuse_content(answers.TROUBLE)
    session.answer(None)
    assert session.state is State.CONTENT


def test_content_is_refused_once_and_the_first_reason_is_told() -> None:
    session = greeted()
    session.receive(ENVELOPE + b"DATA\r\n" + b"x" * 2000)
    for _ in range(2):
        session.next_event()
        session.answer(answers.OK)
    session.next_event()
    session.answer(None)
    assert session.next_event() == Reset()
    session.refuse_content(answers.TROUBLE)
    session.octets_to_send()
    session.receive(b"\r\n.\r\n")
    assert session.next_event() is None
    assert session.octets_to_send() == answers.TOO_LARGE.octets()


def test_hang_up_in_a_transaction_resets_and_says_the_last_word() -> None:
    session = greeted()
    session.receive(ENVELOPE)
    session.next_event()
    session.answer(answers.OK)
    session.octets_to_send()
    session.hang_up(answers.SHUTTING_DOWN)
    assert [session.next_event() for _ in range(3)] == [Reset(), Closed(), Closed()]
    assert session.octets_to_send().startswith(b"421 4.3.2 mx.example.org ")
    session.hang_up(answers.TIMED_OUT)
    assert session.octets_to_send() == b""


def test_hang_up_between_transactions_has_nothing_to_reset() -> None:
    session = greeted()
    session.hang_up(None)
    assert session.next_event() == Closed()


def test_replies_that_nobody_reads_do_not_pile_up() -> None:
    session = ServerSession(SessionSettings("mx.example.org", max_commands=20_000))
    session.receive(b"HELP\r\n" * 10_000)
    pauses = 0
    while isinstance(session.next_event(), Paused):
        pauses += 1
        assert session.unsent < MAX_UNSENT_OCTETS + 512
        session.octets_to_send()
    assert pauses > 10


def test_the_trace_shows_commands_and_replies_and_no_content() -> None:
    lines: list[str] = []
    session = ServerSession(SETTINGS, trace=lambda mark, line: lines.append(f"{mark} {line}"))
    session.receive(b"HELO client.example\r\n" + ENVELOPE + b"DATA\r\nsecret\r\n.\r\nNOOP \xff\x1b\r\n")
    while (event := session.next_event()) is not None:
        if isinstance(event, Mail | Recipient | EndOfData):
            session.answer(answers.OK)
        elif isinstance(event, Data):
            session.answer(None)
    assert lines == [
        "> 220 mx.example.org ESMTP",
        "< HELO client.example",
        "> 250 mx.example.org",
        "< MAIL FROM:<a@example.com>",
        "> 250 2.0.0 OK",
        "< RCPT TO:<b@example.org>",
        "> 250 2.0.0 OK",
        "< DATA",
        "> 354 Go ahead, end with a line that has only a dot",
        "< (8 octets of content)",
        "> 250 2.0.0 OK",
        "< NOOP \\xff\\x1b",
        "> 500 5.5.2 Only printable characters, please",
    ]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("SIZE=5", MailParameters(size=5)),
        ("SIZE=0005 BODY=7BIT", MailParameters(size=5)),
        ("SIZE=5 BODY=8BITMIME", MailParameters(size=5, body="8BITMIME")),
        ("size=5   body=8BitMime", MailParameters(size=5, body="8BITMIME")),
        ("BODY=8BITMIME SIZE=5", MailParameters(size=5, body="8BITMIME")),
        ("SIZE=5 BODY=8BITMIME SMTPUTF8", MailParameters(size=5, body="8BITMIME", smtputf8=True)),
        ("SIZE=5 RET=HDRS", MailParameters(size=5, ret="HDRS")),
    ],
)
def test_the_parameters_of_mail_in_any_order_and_case(said: str, meant: MailParameters) -> None:
    session = ServerSession(SETTINGS)
    session.receive(GREET + f"MAIL FROM:<a@example.com> {said}\r\n".encode())
    assert isinstance(session.next_event(), Hello)
    assert session.next_event() == Mail(Address("a", "example.com"), meant)


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("SIZE=5 SIZE=5", answers.PARAMETER_TWICE),
        ("SIZE=5 BODY=7BIT BODY=7BIT", answers.PARAMETER_TWICE),
        ("SIZE=5x", answers.PARAMETER_SYNTAX),
        ("SIZE=5BODY=7BIT", answers.PARAMETER_SYNTAX),
        ("SIZE=\u0665", answers.PARAMETER_SYNTAX),
        ("\u017fIZE=5", answers.PARAMETER_SYNTAX),
        ("SIZE=5 BODY=8B\u0131TMIME", answers.PARAMETER_SYNTAX),
    ],
)
def test_what_only_looks_like_the_usual_parameters_is_refused(said: str, answer: Reply) -> None:
    session = ServerSession(SETTINGS)
    session.receive(GREET + f"MAIL FROM:<a@example.com> {said}\r\n".encode())
    assert isinstance(session.next_event(), Hello)
    assert session.next_event() is None
    assert session.octets_to_send().endswith(answer.octets())
