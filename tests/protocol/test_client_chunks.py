"""Content as the client writes it, by DATA and by BDAT, and what the session makes of the replies to chunks."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp.client.chunks import CHUNK_OCTETS, ChunkWriter
from smtp.client.events import CommandRefused, Done, Event, GoAhead, Ready
from smtp.client.sequence import ClientState, Stage
from smtp.client.session import ClientSession
from smtp.data import ContentWriter
from smtp.errors import ProtocolError, SessionMisuse
from smtp.parameters import MailParameters
from smtp.reply import Reply

PIPELINED = b"250-mx.example.org\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
STEP_BY_STEP = b"250-mx.example.org\r\n250 CHUNKING\r\n"

LARGE = b"x" * (CHUNK_OCTETS - 2) + b"\r\n"
"""As much as closes a chunk."""

BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
PIECES = st.lists(st.binary(max_size=12) | st.text("\r\n.x", max_size=8).map(str.encode), max_size=12)


def repaired(pieces: list[bytes]) -> bytes:
    """What a message with these octets must have meant."""
    content = re.sub(rb"\r\n|\r|\n", b"\r\n", b"".join(pieces))
    return content if not content or content.endswith(b"\r\n") else content + b"\r\n"


def unstuffed(wire: bytes) -> bytes:
    """What a server reads behind 354."""
    lines = wire.split(b"\r\n")
    end = lines.index(b".")
    assert lines[end + 1 :] == [b""], "something stands behind the final dot"
    return b"".join(line.removeprefix(b".") + b"\r\n" for line in lines[:end])


def put_together(wire: bytes) -> bytes:
    """What a server reads by BDAT."""
    content = b""
    while wire:
        command, _, rest = wire.partition(b"\r\n")
        match = re.fullmatch(rb"BDAT (\d+)( LAST)?", command)
        assert match
        size = int(match[1])
        assert len(rest) >= size
        content, wire = content + rest[:size], rest[size:]
        if match[2]:
            assert not wire, "something stands behind the last chunk"
            return content
    raise AssertionError("the last chunk is missing")


@given(PIECES)
def test_data_carries_every_message_with_its_line_ends_repaired(pieces: list[bytes]) -> None:
    writer = ContentWriter()
    wire = b"".join([*(writer.write(piece) for piece in pieces), writer.end()])
    assert not BARE.search(wire)
    assert unstuffed(wire) == repaired(pieces)


@given(PIECES, st.sampled_from([1, 2, 5, CHUNK_OCTETS]))
def test_chunks_carry_every_message_with_its_line_ends_repaired(pieces: list[bytes], chunk_octets: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("smtp.client.chunks.CHUNK_OCTETS", chunk_octets)
        writer = ChunkWriter()
        wire = b"".join([*(writer.write(piece) for piece in pieces), writer.end()])
    content = put_together(wire)
    assert not BARE.search(content)
    assert content == repaired(pieces)


@given(PIECES)
def test_no_chunk_ends_between_cr_and_lf(pieces: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("smtp.client.chunks.CHUNK_OCTETS", 1)
        writer = ChunkWriter()
        chunks = [*(writer.write(piece) for piece in pieces), writer.end()]
    assert not any(BARE.search(chunk) for chunk in chunks)


def hear(session: ClientSession, octets: bytes) -> list[Event]:
    """The server's answer to all that was written."""
    session.octets_to_send()
    session.receive(octets)
    events = []
    while (event := session.next_event()) is not None:
        events.append(event)
    return events


def begun(ehlo: bytes = PIPELINED, recipients: int = 1, *, size: int = 3, chunking: bool = True) -> ClientSession:
    session = ClientSession("client.example", chunking=chunking)
    assert hear(session, b"220 mx.example.org ESMTP\r\n") == []
    assert hear(session, ehlo) == [Ready()]
    session.octets_to_send()
    begin(session, recipients, size=size)
    return session


def begin(session: ClientSession, recipients: int = 1, *, size: int = 3) -> None:
    session.begin("", [f"r{number}@example.org" for number in range(recipients)], MailParameters(size))


def outcome(events: list[Event]) -> list[tuple[int, Stage]]:
    assert len(events) == 1
    assert isinstance(events[0], Done)
    return [(result.reply.code, result.stage) for result in events[0].results]


def in_content(ehlo: bytes = PIPELINED) -> ClientSession:
    session = begun(ehlo)
    assert hear(session, b"250 ok\r\n250 ok\r\n") == [GoAhead()]
    session.octets_to_send()
    assert session.in_chunks
    return session


def test_a_small_message_is_one_chunk_once_a_recipient_is_accepted() -> None:
    session = begun(recipients=2)
    assert session.octets_to_send() == b"MAIL FROM:<>\r\nRCPT TO:<r0@example.org>\r\nRCPT TO:<r1@example.org>\r\n"
    assert hear(session, b"250 ok\r\n550 no\r\n250 ok\r\n") == [GoAhead()]
    session.content(b".x")
    session.content(b"y")
    assert session.octets_to_send() == b""
    session.end_content()
    assert session.octets_to_send() == b"BDAT 5 LAST\r\n.xy\r\n"
    assert session.stage is Stage.END_OF_DATA
    assert outcome(hear(session, b"250 taken\r\n")) == [(550, Stage.RCPT), (250, Stage.END_OF_DATA)]
    begin(session)
    assert session.octets_to_send().startswith(b"MAIL ")


def test_nothing_is_sent_where_nobody_is_accepted() -> None:
    session = begun()
    session.octets_to_send()
    assert outcome(hear(session, b"250 ok\r\n550 no\r\n")) == [(550, Stage.RCPT)]
    assert session.octets_to_send() == b""
    begin(session)
    assert session.octets_to_send().startswith(b"RSET\r\nMAIL ")


def test_nothing_is_sent_where_mail_is_refused() -> None:
    session = begun()
    session.octets_to_send()
    assert outcome(hear(session, b"450 later\r\n503 mail?\r\n")) == [(450, Stage.MAIL)]
    assert session.octets_to_send() == b""
    begin(session)
    assert session.octets_to_send().startswith(b"MAIL ")


@pytest.mark.parametrize("recipients", [98, 99, 100, 250])
@pytest.mark.parametrize("chunking", [True, False])
def test_refused_mail_ends_a_message_for_any_number_of_recipients(recipients: int, chunking: bool) -> None:
    session = begun(recipients=recipients, chunking=chunking)
    unanswered = session.octets_to_send().count(b"\r\n") - 1
    assert outcome(hear(session, b"550 no\r\n" + b"503 mail?\r\n" * unanswered)) == [(550, Stage.MAIL)] * recipients
    assert session.octets_to_send() == b""


def test_a_message_in_one_piece_is_one_chunk_however_large() -> None:
    session = in_content()
    session.content(LARGE * 10)
    session.end_content()
    assert session.octets_to_send() == b"BDAT %d LAST\r\n" % (len(LARGE) * 10) + LARGE * 10


def test_a_large_message_goes_out_in_chunks_as_it_comes() -> None:
    session = in_content()
    session.content(LARGE)
    assert session.octets_to_send() == b""
    session.content(LARGE)
    assert session.octets_to_send() == b"BDAT %d\r\n" % len(LARGE) + LARGE
    assert hear(session, b"250 ok\r\n") == []
    session.end_content()
    assert session.octets_to_send() == b"BDAT %d LAST\r\n" % len(LARGE) + LARGE
    assert outcome(hear(session, b"250 taken\r\n")) == [(250, Stage.END_OF_DATA)]


def test_an_empty_message_is_an_empty_chunk() -> None:
    session = in_content()
    session.end_content()
    assert session.octets_to_send() == b"BDAT 0 LAST\r\n"


def test_a_reply_to_a_chunk_that_comes_behind_the_last_is_not_the_messages() -> None:
    session = in_content()
    session.content(LARGE)
    session.content(LARGE)
    session.end_content()
    stages = [session.stage]
    session.octets_to_send()
    stages.append(session.stage)
    # The last chunk is out: from here on a lost connection leaves a doubt.
    assert stages == [Stage.BDAT, Stage.END_OF_DATA]
    assert hear(session, b"250 ok\r\n") == []
    assert outcome(hear(session, b"552 too large\r\n")) == [(552, Stage.END_OF_DATA)]


@pytest.mark.parametrize("behind", [b"", b"503 no\r\n", b"250 odd\r\n"])
def test_the_first_refused_chunk_decides_and_is_the_last_one_sent(behind: bytes) -> None:
    session = in_content()
    session.content(LARGE)
    session.content(LARGE)
    if behind:
        session.content(LARGE)
    events = hear(session, b"452 full\r\n")
    assert session.state is (ClientState.REFUSED if behind else ClientState.READY)
    with pytest.raises(SessionMisuse):
        session.content(b"x")
    with pytest.raises(SessionMisuse):
        session.end_content()
    assert outcome(events + hear(session, behind)) == [(452, Stage.BDAT)]
    session.octets_to_send()
    begin(session)
    assert session.octets_to_send().startswith(b"RSET\r\nMAIL ")


def test_a_chunk_refused_behind_the_last_decides_whatever_is_said_to_the_last() -> None:
    for last in (b"250 taken\r\n", b"503 no\r\n"):
        session = in_content()
        session.content(LARGE)
        session.content(LARGE)
        session.end_content()
        assert hear(session, b"452 full\r\n") == []
        assert outcome(hear(session, last)) == [(452, Stage.BDAT)]


@pytest.mark.parametrize("code", [500, 502])
def test_a_server_that_does_not_know_its_own_bdat_is_left(code: int) -> None:
    session = in_content()
    session.content(LARGE)
    session.content(LARGE)
    refused = CommandRefused(Reply(code, "what?"), Stage.BDAT)
    assert hear(session, b"%d what?\r\n" % code) == [refused]
    assert session.state is ClientState.CLOSED
    session = in_content()
    session.end_content()
    assert hear(session, b"%d what?\r\n" % code) == [refused]
    assert session.state is ClientState.CLOSED


@pytest.mark.parametrize("code", [500, 502])
def test_behind_a_refused_chunk_not_to_know_bdat_counts_for_nothing_either(code: int) -> None:
    session = in_content()
    session.content(LARGE)
    session.content(LARGE)
    session.content(LARGE)
    assert outcome(hear(session, b"452 full\r\n%d what?\r\n" % code)) == [(452, Stage.BDAT)]
    assert session.state is ClientState.READY


@pytest.mark.parametrize("code", [500, 502])
def test_behind_data_not_to_know_a_command_is_a_word_about_the_message(code: int) -> None:
    session = begun(chunking=False)
    assert hear(session, b"250 ok\r\n250 ok\r\n354 go\r\n") == [GoAhead()]
    session.end_content()
    assert outcome(hear(session, b"%d what?\r\n" % code)) == [(code, Stage.END_OF_DATA)]


def test_421_to_a_chunk_is_the_result() -> None:
    session = in_content()
    session.content(LARGE)
    session.content(LARGE)
    assert outcome(hear(session, b"421 bye\r\n")) == [(421, Stage.BDAT)]


def test_what_was_refused_is_certain_however_the_conversation_ends() -> None:
    for ending in (b"354 what?\r\n", b"rubbish\r\n"):
        session = in_content()
        session.content(LARGE)
        session.content(LARGE)
        session.content(LARGE)
        assert outcome(hear(session, b"452 full\r\n" + ending)) == [(452, Stage.BDAT)]
        assert session.state is ClientState.CLOSED
    session = in_content()
    session.content(LARGE)
    session.content(LARGE)
    session.content(LARGE)
    assert hear(session, b"452 full\r\n") == []
    certain = session.close()
    assert certain is not None
    assert outcome([certain]) == [(452, Stage.BDAT)]
    assert in_content().close() is None


def test_354_to_a_chunk_is_a_breach() -> None:
    session = in_content()
    session.end_content()
    session.octets_to_send()
    session.receive(b"354 go\r\n")
    with pytest.raises(ProtocolError):
        session.next_event()
    assert session.stage is Stage.END_OF_DATA


def test_without_pipelining_one_chunk_saves_a_round_trip_and_several_would_cost_some() -> None:
    session = begun(STEP_BY_STEP, size=CHUNK_OCTETS - 1)
    for reply, command in [(b"250 ok\r\n", b"RCPT TO:<r0@example.org>\r\n")]:
        session.octets_to_send()
        assert hear(session, reply) == []
        assert session.octets_to_send() == command
    assert hear(session, b"250 ok\r\n") == [GoAhead()]
    session = begun(STEP_BY_STEP, size=CHUNK_OCTETS)
    hear(session, b"250 ok\r\n")
    session.octets_to_send()
    assert hear(session, b"250 ok\r\n") == []
    assert session.octets_to_send() == b"DATA\r\n"


def test_without_pipelining_a_chunk_waits_for_the_reply_to_the_one_before() -> None:
    # The message has turned out larger than was said.
    session = begun(STEP_BY_STEP)
    hear(session, b"250 ok\r\n")
    hear(session, b"250 ok\r\n")
    session.content(LARGE)
    assert not session.must_wait
    session.content(LARGE)
    assert session.must_wait
    hear(session, b"250 ok\r\n")
    assert not session.must_wait


def test_data_where_chunks_are_not_wanted() -> None:
    session = begun(chunking=False)
    assert session.octets_to_send().endswith(b"DATA\r\n")
