"""Replies, written and read."""

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp.errors import ProtocolError
from smtp.reply import (
    MAX_AT_HAND_OCTETS,
    MAX_READ_LINE_OCTETS,
    MAX_READ_LINES,
    REPLIES_AT_HAND,
    Reply,
    ReplyReader,
)
from smtp.server import answers


def read(octets: bytes) -> Reply | None:
    reader = ReplyReader()
    reader.receive(octets)
    return reader.next_reply()


def test_written_on_one_line() -> None:
    assert Reply(250, "OK", "2.0.0").octets() == b"250 2.0.0 OK\r\n"
    assert Reply(354, "Go ahead").octets() == b"354 Go ahead\r\n"


def test_written_on_several_lines_with_the_enhanced_code_on_each() -> None:
    assert Reply(550, "No\nreally\nno", "5.1.1").octets() == b"550-5.1.1 No\r\n550-5.1.1 really\r\n550 5.1.1 no\r\n"
    assert Reply(250, "name\nSIZE 5").octets() == b"250-name\r\n250 SIZE 5\r\n"


def test_for_people() -> None:
    assert str(Reply(550, "No\nreally", "5.1.1")) == "550 5.1.1 No really"
    assert str(Reply(250, "")) == "250"


def test_kinds() -> None:
    kinds = [(reply.positive, reply.transient, reply.permanent) for reply in map(_bare, (250, 354, 421, 499, 500, 599))]
    assert kinds == [(True, False, False)] * 2 + [(False, True, False)] * 2 + [(False, False, True)] * 2


def _bare(code: int) -> Reply:
    return Reply(code, "")


@pytest.mark.parametrize(("code", "enhanced"), [(250, "5.0.0"), (550, "4.1.1"), (199, None), (600, None), (250, "")])
def test_impossible_replies(code: int, enhanced: str | None) -> None:
    with pytest.raises(ValueError, match=r"is not|does not"):
        Reply(code, "x", enhanced)


@given(
    code=st.integers(200, 599),
    text=st.text(max_size=2000),
    detail=st.none() | st.sampled_from([".1.1", ".0.0", ".999.999"]),
)
def test_whatever_the_text_the_wire_gets_short_printable_lines(code: int, text: str, detail: str | None) -> None:
    octets = Reply(code, text, str(code)[0] + detail if detail else None).octets()
    *lines, rest = octets.split(b"\r\n")
    assert rest == b""
    for line in lines:
        assert len(line) <= 510
        assert all(32 <= octet < 127 for octet in line)
        assert line.startswith(str(code).encode())
    assert [line[3:4] for line in lines] == [b"-"] * (len(lines) - 1) + [b" "]
    assert read(octets) is not None


@given(
    code=st.sampled_from([220, 250, 354, 451, 550]),
    lines=st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=80), min_size=1, max_size=8),
    cut=st.integers(0, 900),
)
def test_what_is_written_is_read(code: int, lines: list[str], cut: int) -> None:
    enhanced = None if code == 354 else f"{code // 100}.1.7"
    reply = Reply(code, "\n".join(lines), enhanced)
    octets = reply.octets()
    reader = ReplyReader()
    reader.receive(octets[:cut])
    first = reader.next_reply()
    reader.receive(octets[cut:])
    found = first or reader.next_reply()
    # A text that itself looks like an enhanced code cannot be told from one where none was given.
    if enhanced is not None:
        assert found == reply
    assert found is not None
    assert not reader.pending


@pytest.mark.parametrize(
    ("octets", "reply"),
    [
        (b"250 OK\r\n", Reply(250, "OK")),
        (b"250\r\n", Reply(250, "")),
        (b"250 \r\n", Reply(250, "")),
        (b"250 OK\n", Reply(250, "OK")),
        (b"250-a\r\n250 b\r\n", Reply(250, "a\nb")),
        (b"250-a\r\n250-\r\n250\r\n", Reply(250, "a\n\n")),
        (b"550 5.1.1 no\r\n", Reply(550, "no", "5.1.1")),
        (b"550 5.1.1\r\n", Reply(550, "", "5.1.1")),
        (b"550-5.1.1 no\r\n550 5.1.1 body\r\n", Reply(550, "no\nbody", "5.1.1")),
        (b"550-5.1.1 no\r\n550 body\r\n", Reply(550, "no\nbody", "5.1.1")),
        (b"450 5.1.1 contradicts\r\n", Reply(450, "5.1.1 contradicts")),
        (b"550 5.1.1234 no\r\n", Reply(550, "5.1.1234 no")),
        (b"571 caf\xc3\xa9 \x00\x07\r\n", Reply(571, "caf?? ??")),
        (b"250 a\rb\r\n", Reply(250, "a?b")),
        (b"250 a\tb\r\n", Reply(250, "a b")),
    ],
)
def test_read(octets: bytes, reply: Reply) -> None:
    assert read(octets) == reply
    # Most are said again and again.
    assert read(octets) == reply


def test_the_lines_of_a_longer_reply_are_no_replies_though_they_were_some_before() -> None:
    assert read(b"250 2.0.0 a\r\n") == Reply(250, "a", "2.0.0")
    assert read(b"250-2.0.0 b\r\n250 2.0.0 a\r\n") == Reply(250, "b\na", "2.0.0")
    with pytest.raises(ProtocolError):
        read(b"251-b\r\n250 2.0.0 a\r\n")


def test_replies_that_come_at_once_or_in_parts_are_given_one_by_one() -> None:
    reader = ReplyReader()
    reader.receive(b"250 2.1.0 a\r\n250 2.1.5 b\r\n354")
    assert [reader.next_reply() for _ in range(3)] == [Reply(250, "a", "2.1.0"), Reply(250, "b", "2.1.5"), None]
    assert reader.pending
    reader.receive(b" c\r\n")
    assert [reader.next_reply() for _ in range(2)] == [Reply(354, "c"), None]
    assert not reader.pending


def test_few_replies_stay_in_memory_and_no_long_one() -> None:
    for number in range(3 * REPLIES_AT_HAND):
        assert read(b"250 2.0.0 memory %d\r\n" % number) is not None
    long = b"250 2.0.0 memory " + b"x" * MAX_AT_HAND_OCTETS
    assert read(long + b"\r\n") is not None
    gc.collect()
    known = [each for each in gc.get_objects() if isinstance(each, Reply) and each.text.startswith("memory ")]
    assert len(known) <= REPLIES_AT_HAND
    assert [each for each in known if each.text.endswith("x")] == []


@pytest.mark.parametrize(
    "octets",
    [
        b"\r\n",
        b"hello\r\n",
        b"25 OK\r\n",
        b"2500 OK\r\n",
        b"250_OK\r\n",
        b"150 OK\r\n",
        b"650 OK\r\n",
        b" 250 OK\r\n",
        b"2\xb25 OK\r\n",
        b"250-a\r\n550 b\r\n",
        b"250-a\r\nb\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\x15\x03\x01\x00\x02\x02\n",
        b"250 " + b"x" * MAX_READ_LINE_OCTETS + b"\r\n",
        b"x" * (MAX_READ_LINE_OCTETS + 1),
        b"250-x\r\n" * (MAX_READ_LINES + 1),
    ],
)
def test_garbage(octets: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(octets)


def test_the_most_that_is_read() -> None:
    assert read(b"250-x\r\n" * (MAX_READ_LINES - 1) + b"250 x\r\n") is not None


@given(st.lists(st.binary(max_size=50)))
def test_no_octets_raise_anything_but_protocol_error(chunks: list[bytes]) -> None:
    reader = ReplyReader()
    try:
        for chunk in chunks:
            reader.receive(chunk)
            while reader.next_reply():
                pass
    except ProtocolError:
        pass


def test_everything_the_server_says_by_itself_is_a_short_line_with_an_enhanced_code() -> None:
    own = {name: value for name, value in vars(answers).items() if isinstance(value, Reply)}
    assert len(own) > 25
    for name, reply in own.items():
        assert all(len(line) < 80 for line in reply.text.split("\n")), name
        # RFC 2034 §3: all replies but the greeting, those to EHLO and HELO, and 354.
        assert (reply.enhanced is None) is (name in ("GO_AHEAD", "HELLO_NEEDS_NAME")), name
