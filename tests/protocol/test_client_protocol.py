"""The client's session by itself, against servers of every kind."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp.client.envelope import NO_EIGHT_BIT
from smtp.client.events import CommandRefused, Done, Event, GoAhead, Parted, Ready, Rejected, Result
from smtp.client.sequence import TRANSITIONS, ClientState, Stage
from smtp.client.session import ClientSession
from smtp.errors import ProtocolError, SessionMisuse
from smtp.parameters import MailParameters
from smtp.reply import Reply

EHLO = b"250-mx.example.org\r\n250-PIPELINING\r\n250-size 5000\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n"
PLAIN_EHLO = b"250 mx.example.org\r\n"


def opened(ehlo: bytes = EHLO) -> ClientSession:
    session = ClientSession("client.example")
    assert hear(session, b"220 mx.example.org ESMTP\r\n") == []
    assert hear(session, ehlo) == [Ready()]
    session.octets_to_send()
    return session


def hear(session: ClientSession, octets: bytes) -> list[Event]:
    """The server's answer to all that was written."""
    session.octets_to_send()
    session.receive(octets)
    events = []
    while (event := session.next_event()) is not None:
        events.append(event)
    return events


def begin(session: ClientSession, recipients: Sequence[str] = ("b@example.org",), *, eight_bit: bool = False) -> bytes:
    session.begin("a@example.com", recipients, MailParameters(100, "8BITMIME" if eight_bit else "7BIT"))
    return session.octets_to_send()


def outcome(events: list[Event]) -> list[tuple[int, Stage]]:
    assert len(events) == 1
    assert isinstance(events[0], Done)
    return [(result.reply.code, result.stage) for result in events[0].results]


def test_greeting_and_ehlo() -> None:
    session = ClientSession("client.example")
    assert hear(session, b"220-mx.example.org here\r\n220 welcome\r\n") == []
    assert session.octets_to_send() == b"EHLO client.example\r\n"
    assert hear(session, EHLO) == [Ready()]
    assert session.server.server_name == "mx.example.org"
    assert session.server.extensions == {"PIPELINING": "", "SIZE": "5000", "8BITMIME": "", "ENHANCEDSTATUSCODES": ""}


@pytest.mark.parametrize("code", [500, 502, 504, 550, 554])
def test_helo_where_ehlo_is_not_known(code: int) -> None:
    session = ClientSession("client.example")
    hear(session, b"220 old.example\r\n")
    session.octets_to_send()
    assert hear(session, b"%d what?\r\n" % code) == []
    assert session.octets_to_send() == b"HELO client.example\r\n"
    assert hear(session, b"250-old.example\r\n250 PIPELINING\r\n") == [Ready()]
    assert session.server.extensions == {}


@pytest.mark.parametrize(
    ("said", "code", "stage"),
    [
        (b"554 go away\r\n", 554, Stage.GREETING),
        (b"421 busy\r\n", 421, Stage.GREETING),
        (b"450 later\r\n", 450, Stage.GREETING),
        (b"220 x\r\n450 later\r\n", 450, Stage.EHLO),
        (b"220 x\r\n421 busy\r\n", 421, Stage.EHLO),
        (b"220 x\r\n502 what\r\n550 no\r\n", 550, Stage.HELO),
        (b"220 x\r\n502 what\r\n450 later\r\n", 450, Stage.HELO),
    ],
)
def test_a_server_that_does_not_want_to_talk(said: bytes, code: int, stage: Stage) -> None:
    session = ClientSession("client.example")
    events = [event for line in said.splitlines(keepends=True) for event in hear(session, line)]
    assert [(type(event), event.reply.code, event.stage) for event in events if isinstance(event, Rejected)] == [
        (Rejected, code, stage)
    ]
    assert session.state is ClientState.CLOSED


def test_a_pipelined_message() -> None:
    session = opened()
    assert begin(session, ["b@example.org", "c@example.org"], eight_bit=True) == (
        b"MAIL FROM:<a@example.com> SIZE=100 BODY=8BITMIME\r\n"
        b"RCPT TO:<b@example.org>\r\nRCPT TO:<c@example.org>\r\nDATA\r\n"
    )
    assert hear(session, b"250 ok\r\n250 ok\r\n550 5.1.1 no\r\n354 go\r\n") == [GoAhead()]
    session.content(b".x")
    session.end_content()
    assert session.octets_to_send() == b"..x\r\n.\r\n"
    assert session.stage is Stage.END_OF_DATA
    assert outcome(hear(session, b"250 2.0.0 taken\r\n")) == [(250, Stage.END_OF_DATA), (550, Stage.RCPT)]
    assert session.state is ClientState.READY


def test_step_by_step_without_pipelining_size_and_8bitmime() -> None:
    session = opened(PLAIN_EHLO)
    assert begin(session, ["b@example.org", "c@example.org"]) == b"MAIL FROM:<a@example.com>\r\n"
    for reply, command in [
        (b"250 ok\r\n", b"RCPT TO:<b@example.org>\r\n"),
        (b"250 ok\r\n", b"RCPT TO:<c@example.org>\r\n"),
        (b"450 later\r\n", b"DATA\r\n"),
    ]:
        assert hear(session, reply) == []
        assert session.octets_to_send() == command
    assert hear(session, b"354 go\r\n") == [GoAhead()]
    session.end_content()
    assert outcome(hear(session, b"451 later\r\n")) == [(451, Stage.END_OF_DATA), (450, Stage.RCPT)]


def test_eight_bit_content_is_not_sent_where_it_is_not_taken() -> None:
    session = opened(PLAIN_EHLO)
    assert begin(session, ["b@example.org", "c@example.org"], eight_bit=True) == b""
    assert hear(session, b"") == [Done((Result(NO_EIGHT_BIT, Stage.LOCAL),) * 2)]
    assert begin(session) == b"MAIL FROM:<a@example.com>\r\n"


def test_the_null_sender() -> None:
    session = opened()
    session.begin("", ["b@example.org"], MailParameters(1))
    assert session.octets_to_send().startswith(b"MAIL FROM:<> SIZE=1\r\n")


def test_refused_mail_is_everybodys_result_and_needs_no_reset() -> None:
    session = opened()
    begin(session, ["b@example.org", "c@example.org"])
    events = hear(session, b"550 5.7.1 no\r\n503 mail?\r\n503 mail?\r\n503 mail?\r\n")
    assert outcome(events) == [(550, Stage.MAIL)] * 2
    assert begin(session).startswith(b"MAIL ")


def test_refused_mail_step_by_step_sends_nothing_more() -> None:
    session = opened(PLAIN_EHLO)
    begin(session)
    assert outcome(hear(session, b"450 later\r\n")) == [(450, Stage.MAIL)]
    assert session.octets_to_send() == b""


def test_354_without_a_recipient_gets_a_lone_dot() -> None:
    session = opened()
    begin(session)
    assert hear(session, b"250 ok\r\n550 no\r\n354 go\r\n") == []
    assert session.octets_to_send() == b".\r\n"
    assert outcome(hear(session, b"250 taken, nobody knows what\r\n")) == [(550, Stage.RCPT)]


def test_354_after_refused_mail_gets_a_lone_dot() -> None:
    session = opened()
    begin(session)
    assert hear(session, b"451 no\r\n250 odd\r\n354 go\r\n") == []
    assert session.octets_to_send() == b".\r\n"
    assert outcome(hear(session, b"554 nothing\r\n")) == [(451, Stage.MAIL)]


def test_no_recipient_step_by_step_sends_no_data_and_resets_before_the_next() -> None:
    session = opened(PLAIN_EHLO)
    begin(session)
    hear(session, b"250 ok\r\n")
    session.octets_to_send()
    assert outcome(hear(session, b"550 no\r\n")) == [(550, Stage.RCPT)]
    assert session.octets_to_send() == b""
    assert begin(session) == b"RSET\r\n"
    assert hear(session, b"250 ok\r\n") == []
    assert session.octets_to_send().startswith(b"MAIL ")


def test_refused_data_is_the_result_of_those_who_were_accepted() -> None:
    session = opened()
    begin(session, ["b@example.org", "c@example.org"])
    assert outcome(hear(session, b"250 ok\r\n250 ok\r\n550 no\r\n451 later\r\n")) == [
        (451, Stage.DATA),
        (550, Stage.RCPT),
    ]
    assert begin(session).startswith(b"RSET\r\nMAIL ")
    assert hear(session, b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n") == [GoAhead()]


def test_many_recipients_go_out_in_groups() -> None:
    session = opened()
    recipients = [f"r{number}@example.org" for number in range(250)]
    sent = begin(session, recipients)
    assert sent.count(b"\r\n") == 100
    for _ in range(400):
        hear(session, b"250 ok\r\n")
        sent += session.octets_to_send()
        if sent.endswith(b"DATA\r\n"):
            break
    assert sent.count(b"RCPT TO:<r") == 250


@pytest.mark.parametrize(
    ("replies", "results"),
    [
        (b"421 bye\r\n", [(421, Stage.MAIL)] * 3),
        (b"250 ok\r\n250 ok\r\n421 bye\r\n", [(421, Stage.RCPT)] * 3),
        (b"250 ok\r\n550 no\r\n250 ok\r\n421 bye\r\n", [(550, Stage.RCPT), (421, Stage.RCPT), (421, Stage.RCPT)]),
        (
            b"250 ok\r\n550 no\r\n250 ok\r\n250 ok\r\n421 bye\r\n",
            [(550, Stage.RCPT), (421, Stage.DATA), (421, Stage.DATA)],
        ),
    ],
)
def test_421_decides_all_that_is_undecided(replies: bytes, results: list[tuple[int, Stage]]) -> None:
    session = opened()
    begin(session, ["b@example.org", "c@example.org", "d@example.org"])
    assert outcome(hear(session, replies)) == results
    assert session.state is ClientState.CLOSED


def in_content() -> ClientSession:
    session = opened()
    begin(session)
    assert hear(session, b"250 ok\r\n250 ok\r\n354 go\r\n") == [GoAhead()]
    return session


@pytest.mark.parametrize("code", [421, 451, 552])
def test_a_refusal_in_the_middle_of_content_ends_the_conversation(code: int) -> None:
    session = in_content()
    session.content(b"x" * 100)
    assert outcome(hear(session, b"%d no\r\n" % code)) == [(code, Stage.DATA)]
    assert session.state is ClientState.CLOSED
    with pytest.raises(SessionMisuse):
        session.end_content()


def test_421_after_the_final_dot_is_an_answer() -> None:
    session = in_content()
    session.end_content()
    assert outcome(hear(session, b"421 bye\r\n")) == [(421, Stage.END_OF_DATA)]


@pytest.mark.parametrize("reply", [b"250 taken\r\n", b"354 go on\r\n"])
def test_praise_in_the_middle_of_content_is_a_breach(reply: bytes) -> None:
    session = in_content()
    session.receive(reply)
    with pytest.raises(ProtocolError):
        session.next_event()
    assert session.state is ClientState.CLOSED
    assert session.stage is Stage.DATA


def test_the_stage_is_known_after_garbage_behind_the_final_dot() -> None:
    for garbage in (b"354 what?\r\n", b"thanks\r\n"):
        session = in_content()
        session.end_content()
        session.octets_to_send()
        session.receive(garbage)
        with pytest.raises(ProtocolError):
            session.next_event()
        assert session.stage is Stage.END_OF_DATA


def test_a_reply_too_many_is_seen() -> None:
    session = in_content()
    session.end_content()
    session.octets_to_send()
    session.receive(b"250 taken\r\n250 twice\r\n")
    assert isinstance(session.next_event(), Done)
    assert session.unasked


@pytest.mark.parametrize("ehlo", [EHLO, PLAIN_EHLO])
def test_a_reply_to_a_command_that_has_not_been_sent_is_no_answer(ehlo: bytes) -> None:
    for said in (b"250 ok\r\n" * 101, b"250 ok\r\n250 ok\r\n450 later\r\n" + b"550 no\r\n" * 98):
        session = opened(ehlo)
        begin(session, [f"r{number}@example.org" for number in range(150)])
        session.receive(said)
        with pytest.raises(ProtocolError, match="without being asked for"):
            session.next_event()
        assert session.state is ClientState.CLOSED
        assert session.stage is Stage.RCPT


def test_421_is_understood_before_the_next_command_has_been_sent() -> None:
    session = opened(PLAIN_EHLO)
    begin(session)
    assert outcome(hear(session, b"250 ok\r\n421 bye\r\n")) == [(421, Stage.RCPT)]
    session = ClientSession("client.example")
    assert hear(session, b"220 x\r\n421 bye\r\n") == [Rejected(Reply(421, "bye"), Stage.EHLO)]


def test_a_refusal_that_comes_before_the_final_dot_has_been_sent_ends_the_conversation() -> None:
    session = in_content()
    session.content(b"x")
    session.end_content()
    assert session.stage is Stage.DATA
    session.receive(b"552 no\r\n")
    assert session.next_event() == Done((Result(Reply(552, "no"), Stage.DATA),))
    assert session.state is ClientState.CLOSED
    assert session.octets_to_send() == b""


@pytest.mark.parametrize("code", [421, 450, 502])
def test_a_refused_reset_is_left_without_a_word_about_the_message(code: int) -> None:
    session = opened(PLAIN_EHLO)
    begin(session)
    hear(session, b"250 ok\r\n")
    assert outcome(hear(session, b"550 no\r\n")) == [(550, Stage.RCPT)]
    assert begin(session) == b"RSET\r\n"
    assert hear(session, b"%d no\r\n" % code) == [CommandRefused(Reply(code, "no"), Stage.RSET)]
    assert session.state is ClientState.CLOSED


def test_quit() -> None:
    session = opened()
    session.quit()
    assert session.octets_to_send() == b"QUIT\r\n"
    assert hear(session, b"221 bye\r\n") == [Parted()]
    assert session.state is ClientState.CLOSED


@pytest.mark.parametrize("text", ["a\r\nRSET", "a\n", "ä@example.org", "a\x00", "a\x7f"])
def test_no_address_can_hold_a_command(text: str) -> None:
    session = opened()
    with pytest.raises(ValueError, match="printable"):
        session.begin(text, ["b@example.org"], MailParameters(1))
    with pytest.raises(ValueError, match="printable"):
        session.begin("", ["b@example.org", text], MailParameters(1))
    assert session.octets_to_send() == b""
    assert begin(session)


def test_misuse() -> None:
    session = ClientSession("client.example")
    with pytest.raises(SessionMisuse):
        begin(session)
    with pytest.raises(SessionMisuse):
        session.quit()
    session = opened()
    with pytest.raises(SessionMisuse):
        session.content(b"x")
    with pytest.raises(ValueError, match="recipient"):
        begin(session, [])


def test_the_table_has_a_row_for_every_stage_that_has_a_reply() -> None:
    assert set(TRANSITIONS) == set(Stage) - {Stage.CONNECT, Stage.TLS, Stage.LOCAL}


REPLIES = st.lists(
    st.sampled_from([b"220 x\r\n", EHLO, b"250 ok\r\n", b"354 go\r\n", b"450 no\r\n", b"550 no\r\n", b"421 bye\r\n"])
    | st.binary(max_size=8),
    max_size=30,
)


@given(REPLIES, st.booleans())
def test_whatever_a_server_says_each_recipient_gets_one_result_or_the_conversation_breaks(
    replies: list[bytes], eight_bit: bool
) -> None:
    session = ClientSession("client.example")
    recipients = ["b@example.org", "c@example.org"]
    under_way = False
    try:
        for octets in replies:
            session.receive(octets)
            while (event := session.next_event()) is not None:
                match event:
                    case GoAhead():
                        session.content(b"x\r\n")
                        session.end_content()
                    case Done():
                        assert under_way
                        assert len(event.results) == len(recipients)
                        under_way = False
            session.octets_to_send()
            if session.state is ClientState.READY and not under_way:
                session.begin("", recipients, MailParameters(3, "8BITMIME" if eight_bit else "7BIT"))
                under_way = True
    except ProtocolError:
        assert session.state is ClientState.CLOSED


def test_results_carry_the_reply_itself() -> None:
    session = in_content()
    session.end_content()
    events = hear(session, b"250-2.0.0 taken\r\n250 2.0.0 as 42\r\n")
    assert isinstance(events[0], Done)
    assert events[0].results[0].reply == Reply(250, "taken\nas 42", "2.0.0")
