"""The transparency of DATA: what goes through, where it ends, and what is refused."""

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtp.data import ChunkReader, ContentChecks, ContentLimits, ContentWriter, DataReader, Fault

# Octets that matter, and some that do not.
TRICKY = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a", b"\0", b"\r\n.", b"\xff"]), max_size=40).map(
    b"".join
)
CUTS = st.lists(st.integers(0, 120), max_size=12)
LINES = st.lists(st.lists(st.sampled_from([b".", b"..", b"a", b" ", b"\xff", b"\x80"]), max_size=5).map(b"".join))


def split(octets: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(cut, len(octets)) for cut in cuts} | {0, len(octets)})
    return [octets[start:end] for start, end in pairwise(places)]


def write(pieces: list[bytes]) -> bytes:
    writer = ContentWriter()
    return b"".join([writer.write(piece) for piece in pieces] + [writer.end()])


def read(pieces: list[bytes], max_octets: int = 1 << 20) -> tuple[bytes, Fault | None, bytes | None]:
    """The content, the fault, and what is behind the end (None: no end)."""
    reader = DataReader(ContentChecks(ContentLimits(max_octets, header=1 << 20, line=1 << 20)))
    content = b""
    for index, piece in enumerate(pieces):
        octets, rest = reader.read(piece)
        content += octets
        if reader.ended:
            return content, reader.checks.fault, rest + b"".join(pieces[index + 1 :])
    return content, reader.checks.fault, None


@given(TRICKY, CUTS)
@example(b"\r", [])
@example(b"\r\r\n", [1])
@example(b"a\r\n.\r\nb", [2, 3, 4])
def test_what_we_send_never_has_a_bare_cr_or_lf_and_ends_once(octets: bytes, cuts: list[int]) -> None:
    wire = write(split(octets, cuts))
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", wire)
    assert wire.endswith(b"\r\n.\r\n") or wire == b".\r\n"
    assert (b"\r\n" + wire).find(b"\r\n.\r\n") == len(wire) - 3
    assert wire == write([octets]), "the same however it is divided"


@given(st.binary(max_size=300), CUTS)
def test_the_same_for_all_octets(octets: bytes, cuts: list[int]) -> None:
    wire = write(split(octets, cuts))
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", wire)
    assert (b"\r\n" + wire).find(b"\r\n.\r\n") == len(wire) - 3


@given(LINES, CUTS, CUTS)
def test_what_is_sent_is_read(lines: list[bytes], cuts_out: list[int], cuts_in: list[int]) -> None:
    content = b"".join(line + b"\r\n" for line in lines)
    wire = write(split(content, cuts_out))
    assert read(split(wire + b"NOOP\r\n", cuts_in)) == (content, None, b"NOOP\r\n")


def test_a_last_line_without_its_end_gets_one() -> None:
    assert write([b"a"]) == b"a\r\n.\r\n"
    assert write([b""]) == b".\r\n"
    assert write([b"a\r"]) == b"a\r\n.\r\n"


@given(TRICKY, CUTS)
def test_what_is_read_does_not_depend_on_the_division(octets: bytes, cuts: list[int]) -> None:
    pieces = split(octets, cuts)
    content, fault, rest = read(pieces)
    whole_content, whole_fault, whole_rest = read([octets])
    assert (fault, rest) == (whole_fault, whole_rest)
    # A message with a fault is thrown away, and so is what was read of it.
    if rest is not None and fault is None:
        assert content == whole_content


@given(TRICKY)
def test_the_end_is_crlf_dot_crlf_and_nothing_else(octets: bytes) -> None:
    _, fault, rest = read([octets])
    before, found, behind = (b"\r\n" + octets).partition(b"\r\n.\r\n")
    assert rest == (behind if found else None)
    if found:
        bad = re.search(rb"\r(?!\n)|(?<!\r)\n|\0", before + b"\r\n")
        assert (fault is Fault.BAD_LINE_ENDS) is bool(bad)


LOOK_ALIKES = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\n.\r",
    b"\r.\n",
    b"\n\n.\n\n",
    b"\r\n.\r\r\n",
    b"\r\r\n.\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
]


@pytest.mark.parametrize("look_alike", LOOK_ALIKES)
def test_look_alikes_at_every_split(look_alike: bytes) -> None:
    wire = b"first" + look_alike + b"MAIL FROM:<evil@example.com>\r\n.\r\nRSET\r\n"
    for one in range(len(wire) + 1):
        for two in range(one, len(wire) + 1):
            _, fault, rest = read([wire[:one], wire[one:two], wire[two:]])
            assert fault is Fault.BAD_LINE_ENDS
            assert rest == b"RSET\r\n"


def test_a_cr_before_the_true_end_is_bare_and_the_end_is_true() -> None:
    assert read([b"a\r\r\n.\r\nNOOP\r\n"])[1:] == (Fault.BAD_LINE_ENDS, b"NOOP\r\n")


def test_the_limit_counts_what_the_message_has() -> None:
    assert read([b"..345\r\n.\r\n"], 6) == (b".345\r\n", None, b"")
    assert read([b"..345\r\n.\r\n"], 5)[1] is Fault.TOO_LARGE
    assert read([b"a\r\nb\nc\r\n.\r\n"], 2)[1] is Fault.BAD_LINE_ENDS


def check(pieces: list[bytes], limits: ContentLimits) -> tuple[bytes, Fault | None]:
    """What is given out of a message that comes in one chunk, and the fault."""
    reader = ChunkReader(ContentChecks(limits))
    content = b"".join(reader.read(piece) for piece in pieces)
    reader.end()
    return content, reader.checks.fault


WIDE = ContentLimits(message=1 << 20, header=1 << 20, line=1 << 20)
NARROW = ContentLimits(message=100, header=30, line=12)


@given(TRICKY, CUTS)
def test_chunks_have_the_same_faults_as_data_and_no_dots_to_take_out(octets: bytes, cuts: list[int]) -> None:
    content, fault = check(split(octets, cuts), WIDE)
    bad = re.search(rb"\r(?!\n)|(?<!\r)\n|\0", octets)
    assert fault is (Fault.BAD_LINE_ENDS if bad else None)
    if not bad:
        assert content == octets


@given(LINES, CUTS)
def test_the_fault_does_not_depend_on_the_division(lines: list[bytes], cuts: list[int]) -> None:
    octets = b"\r\n".join(lines)
    assert check(split(octets, cuts), NARROW)[1] is check([octets], NARROW)[1]


@given(LINES, CUTS)
def test_limits_of_header_and_line_are_exact(lines: list[bytes], cuts: list[int]) -> None:
    octets = b"".join(line + b"\r\n" for line in lines)
    blank = (b"\r\n" + octets).find(b"\r\n\r\n")
    header = blank + 2 if blank >= 0 else len(octets)
    fault = check(split(octets, cuts), NARROW)[1]
    if len(octets) > NARROW.message:
        assert fault is Fault.TOO_LARGE
    elif header > NARROW.header:
        assert fault is Fault.HEADER_TOO_LARGE
    elif max((len(line) + 2 for line in lines), default=0) > NARROW.line:
        assert fault is Fault.LINE_TOO_LONG
    else:
        assert fault is None
