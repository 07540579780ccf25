"""The header of a proxy, in both versions: what is one, what is none, and how soon that is said."""

import socket
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtp.errors import ProtocolError, SessionMisuse
from smtp.server.proxy import MAX_V1_OCTETS, MAX_V2_OCTETS, ProxyHeader, ProxyReader, crc32c

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
NO_CLIENT = ProxyHeader(None, 0)


def v2(command: int, family: int, block: bytes) -> bytes:
    return SIGNATURE + bytes([command, family]) + len(block).to_bytes(2, "big") + block


def vector(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def checked(block: bytes, checksum_at: int) -> bytes:
    """A header of TCP4 with what is right for a checksum at this place of the block."""
    start = 16 + checksum_at
    header = v2(0x21, 0x11, block)
    blank = header[:start] + bytes(4) + header[start + 4 :]
    return header[:start] + crc32c(blank).to_bytes(4, "big") + header[start + 4 :]


FOUR = bytes([192, 0, 2, 1, 198, 51, 100, 7]) + (56324).to_bytes(2, "big") + (25).to_bytes(2, "big")
SIX = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + socket.inet_pton(socket.AF_INET6, "2001:db8:ffff::25")
    + (56324).to_bytes(2, "big")
    + (25).to_bytes(2, "big")
)
MAPPED = bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1]) + SIX[16:]
# With an authority, a checksum that was calculated by another program, and padding.
CHECKED = v2(
    0x21,
    0x11,
    FOUR + vector(2, b"mail.example") + vector(3, bytes.fromhex("2c29f7c8")) + vector(4, bytes(5)),
)

HEADERS = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 25\r\n", ProxyHeader("192.0.2.1", 56324)),
    (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", ProxyHeader("0.0.0.0", 0)),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", ProxyHeader("255.255.255.255", 65535)),
    (b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 25\r\n", ProxyHeader("2001:db8::1", 56324)),
    (b"PROXY TCP6 2001:0DB8:0:0:0:0:0:1 :: 1 2\r\n", ProxyHeader("2001:db8::1", 1)),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", ProxyHeader("192.0.2.1", 1)),
    (b"PROXY TCP6 ::FFFF:c000:201 ::1 1 2\r\n", ProxyHeader("192.0.2.1", 1)),
    (
        b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
        ProxyHeader("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535),
    ),
    (b"PROXY UNKNOWN\r\n", NO_CLIENT),
    (b"PROXY UNKNOWN \r\n", NO_CLIENT),
    (b"PROXY UNKNOWN 192.0.2.1 what\xffever \r \n\r\n", NO_CLIENT),
    (b"PROXY UNKNOWN ".ljust(MAX_V1_OCTETS - 2, b"f") + b"\r\n", NO_CLIENT),
    (v2(0x21, 0x11, FOUR), ProxyHeader("192.0.2.1", 56324)),
    (v2(0x21, 0x21, SIX), ProxyHeader("2001:db8::1", 56324)),
    (v2(0x21, 0x21, MAPPED), ProxyHeader("192.0.2.1", 56324)),
    (v2(0x21, 0x11, FOUR + vector(1, b"") + vector(0xE0, b"x" * 300)), ProxyHeader("192.0.2.1", 56324)),
    (v2(0x21, 0x11, FOUR + vector(4, bytes(MAX_V2_OCTETS - 15))), ProxyHeader("192.0.2.1", 56324)),
    (CHECKED, ProxyHeader("192.0.2.1", 56324)),
    # LOCAL: whatever else the header says is ignored.
    (v2(0x20, 0x00, b""), NO_CLIENT),
    (v2(0x20, 0x11, FOUR), NO_CLIENT),
    (v2(0x20, 0x11, b"\1"), NO_CLIENT),
    (v2(0x20, 0xFF, b"abc"), NO_CLIENT),
    # What is valid and of no use for mail is as good as nothing said.
    (v2(0x21, 0x00, b""), NO_CLIENT),
    (v2(0x21, 0x00, b"anything"), NO_CLIENT),
    (v2(0x21, 0x01, b""), NO_CLIENT),
    (v2(0x21, 0x10, FOUR), NO_CLIENT),
    (v2(0x21, 0x12, FOUR), NO_CLIENT),
    (v2(0x21, 0x22, SIX), NO_CLIENT),
    (v2(0x21, 0x31, b"/run/mail".ljust(108, b"\0") * 2), NO_CLIENT),
    (v2(0x21, 0x32, bytes(216)), NO_CLIENT),
]

# Where it is refused is the last octet: all before it could be the beginning of a header.
REFUSED_AT_ONCE = [
    b"E",
    b"\n",
    b"\0",
    b"\x16",
    b"p",
    b"PRO\r",
    b"PROXY\r",
    b"PROXY\t",
    b"PROXY  ",
    b"PROXY TCP5",
    b"PROXY TCP4\t",
    b"PROXY TCP4\r",
    b"PROXY t",
    b"PROXY UNKNOWNX",
    b"PROXY UNKNOWN\n",
    b"PROXY UNKNOWN\rX",
    b"PROXY TCP4 192.0.2.1\t",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2\r\r",
    b"PROXY TCP4 :",
    b"PROXY TCP4 +",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 -",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 1_",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2\0",
    "PROXY TCP4 ١".encode()[:12],
    b"PROXY TCP6 fe80::1%",
    b"PROXY TCP6 [",
    b"PROXY TCP6 ::1 ::1 1 2\rX",
    b"PROXY UNKNOWN ".ljust(MAX_V1_OCTETS, b"f"),
    b"PROXY UNKNOWN ".ljust(MAX_V1_OCTETS - 1, b"f") + b"\r",
    b"PROXY TCP4 ".ljust(MAX_V1_OCTETS, b"1"),
    b"\r\n\r\n\r",
    b"\r\n\r\n\0\r\nQUIT\r",
    SIGNATURE + b"\x11",
    SIGNATURE + b"\x01",
    SIGNATURE + b"\x22",
    SIGNATURE + b"\x2f",
    SIGNATURE + b"\x31",
    SIGNATURE + b"\x21\x41",
    SIGNATURE + b"\x21\xf1",
    SIGNATURE + b"\x21\x13",
    SIGNATURE + b"\x21\x1f",
    SIGNATURE + b"\x21\x11" + (MAX_V2_OCTETS + 1).to_bytes(2, "big"),
    SIGNATURE + b"\x20\x00\xff\xff",
    SIGNATURE + b"\x21\x11\x00\x0b",
    SIGNATURE + b"\x21\x21\x00\x23",
    SIGNATURE + b"\x21\x21\x00\x0c",
]

REFUSED_LINES = [
    b"PROXY TCP4 ",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 1",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2 ",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2 3",
    b"PROXY TCP4  192.0.2.1 198.51.100.7 1 2",
    b"PROXY TCP4 192.0.2.1  198.51.100.7 1 2",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 01 2",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 1 02",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 00 2",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 65536 2",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 1 65536",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 100000 2",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 1.0 2",
    b"PROXY TCP4 192.0.2.01 198.51.100.7 1 2",
    b"PROXY TCP4 192.0.2.256 198.51.100.7 1 2",
    b"PROXY TCP4 192.0.2 198.51.100.7 1 2",
    b"PROXY TCP4 192.0.2.1. 198.51.100.7 1 2",
    b"PROXY TCP4 192.0..1 198.51.100.7 1 2",
    b"PROXY TCP4 3221225985 198.51.100.7 1 2",
    b"PROXY TCP4 192.0.2.1 198.51.100 1 2",
    b"PROXY TCP6 192.0.2.1 198.51.100.7 1 2",
    b"PROXY TCP6 2001:db8::1 198.51.100.7 1 2",
    b"PROXY TCP6 198.51.100.7 2001:db8::1 1 2",
    b"PROXY TCP6 2001:db8::1 2001:db8::zz 1 2",
    b"PROXY TCP6 2001:db8::1 2001:db8::1 01 2",
    b"PROXY TCP6 2001:db8:::1 ::1 1 2",
    b"PROXY TCP6 1::2::3 ::1 1 2",
    b"PROXY TCP6 1:2:3:4:5:6:7 ::1 1 2",
    b"PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1 2",
    b"PROXY TCP6 1:2:3:4:5:6:7:8:: ::1 1 2",
    b"PROXY TCP6 00001::1 ::1 1 2",
    b"PROXY TCP6 ::ffff:192.0.2.01 ::1 1 2",
    b"PROXY TCP6 ::192.0.2.1:1 ::1 1 2",
    b"PROXY TCP6 . . 1 2",
    b"PROXY TCP6 : :: 1 2",
]

REFUSED_BLOCKS = [
    pytest.param(CHECKED[:-1] + b"\1", id="an octet is not what it was when the checksum was made"),
    pytest.param(CHECKED[:16] + b"\1" + CHECKED[17:], id="the address is not either"),
    pytest.param(v2(0x21, 0x11, FOUR + vector(3, b"")), id="a checksum without octets"),
    pytest.param(v2(0x21, 0x11, FOUR + vector(3, b"abc") + vector(4, b"")), id="a checksum of three octets"),
    pytest.param(checked(FOUR + vector(3, bytes(5)), 15), id="a checksum of five octets, right but for that"),
    pytest.param(checked(FOUR + vector(3, b"abcd") * 2, 22), id="two checksums, of which the last is right"),
    pytest.param(v2(0x21, 0x11, FOUR + b"\4"), id="a type without a length"),
    pytest.param(v2(0x21, 0x11, FOUR + b"\4\0"), id="half a length"),
    pytest.param(v2(0x21, 0x11, FOUR + b"\4\0\2a"), id="a value that is not all there"),
    pytest.param(v2(0x21, 0x21, SIX + vector(4, b"") + b"\3\0\4abc"), id="a checksum that is not all there"),
]

CUTS = st.lists(st.integers(0, 400), max_size=12)


def split(octets: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(cut, len(octets)) for cut in cuts} | {0, len(octets)})
    return [octets[start:end] for start, end in pairwise(places)]


def short(value: object) -> str:
    """A name for a case, where the octets themselves would be too long for one."""
    return ascii(value)[:100]


def read(pieces: list[bytes]) -> tuple[ProxyHeader, bytes] | str | None:
    """The header and what is behind it, why it is refused, or None: more is needed."""
    reader = ProxyReader()
    for index, piece in enumerate(pieces):
        try:
            header = reader.receive(piece)
        except ProtocolError as error:
            return str(error)
        if header is not None:
            return header, reader.rest + b"".join(pieces[index + 1 :])
        assert reader.rest == b""
    return None


@pytest.mark.parametrize(("octets", "header"), HEADERS, ids=short)
def test_a_header_is_read_and_what_is_behind_it_belongs_to_the_client(octets: bytes, header: ProxyHeader) -> None:
    assert read([octets]) == (header, b"")
    assert read([octets + b"EHLO client.example\r\n"]) == (header, b"EHLO client.example\r\n")
    assert read([octets + octets]) == (header, octets), "only one is read"


@pytest.mark.parametrize(("octets", "header"), HEADERS, ids=short)
def test_it_is_there_with_its_last_octet_and_not_before(octets: bytes, header: ProxyHeader) -> None:
    assert read([octets[:-1]]) is None
    assert read([bytes([octet]) for octet in octets]) == (header, b"")


@pytest.mark.parametrize("octets", REFUSED_AT_ONCE, ids=short)
def test_refused_with_the_first_octet_that_cannot_be(octets: bytes) -> None:
    assert read([octets[:-1]]) is None
    assert isinstance(read([octets]), str)
    assert isinstance(read([octets[:-1], octets[-1:]]), str)
    assert isinstance(read([octets + b" and more\r\n"]), str)


@pytest.mark.parametrize("line", REFUSED_LINES)
def test_a_line_that_is_nearly_one_is_refused(line: bytes) -> None:
    assert isinstance(read([line + b"\r\n"]), str)
    assert isinstance(read([line + b"\r\nEHLO client.example\r\n"]), str)


@pytest.mark.parametrize("octets", REFUSED_BLOCKS)
def test_a_binary_header_that_is_broken_inside_is_refused(octets: bytes) -> None:
    assert read([octets[:-1]]) is None
    assert isinstance(read([octets]), str)


def test_no_line_goes_beyond_its_limit() -> None:
    assert len("PROXY UNKNOWN " + "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff " * 2 + "65535 65535\r\n") == MAX_V1_OCTETS
    fits = b"PROXY UNKNOWN ".ljust(MAX_V1_OCTETS - 2, b"x") + b"\r\n"
    too_long = b"PROXY UNKNOWN ".ljust(MAX_V1_OCTETS - 1, b"x") + b"\r\n"
    assert read([fits]) == (NO_CLIENT, b"")
    assert read([too_long]) == "the PROXY line does not end"


def test_nothing_is_read_after_the_header_or_after_a_refusal() -> None:
    reader = ProxyReader()
    assert reader.receive(b"PROXY UNKNOWN\r\n") == NO_CLIENT
    with pytest.raises(SessionMisuse):
        reader.receive(b"more")
    reader = ProxyReader()
    with pytest.raises(ProtocolError):
        reader.receive(b"EHLO client.example\r\n")
    with pytest.raises(SessionMisuse):
        reader.receive(b"PROXY UNKNOWN\r\n")
    assert reader.rest == b""


def test_no_octets_are_no_news() -> None:
    assert read([b""]) is None
    assert read([b"", b"PROXY UNKNOWN\r\n"]) == (NO_CLIENT, b"")


@pytest.mark.parametrize(
    ("octets", "sum_of_them"),
    [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)],
)
def test_the_checksum_is_crc32c(octets: bytes, sum_of_them: int) -> None:
    # RFC 3720 appendix B.4 has the last two.
    assert crc32c(octets) == sum_of_them


ALL = st.sampled_from([octets for octets, _ in HEADERS] + REFUSED_AT_ONCE + [line + b"\r\n" for line in REFUSED_LINES])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Something that was a header, or nearly one, with a few octets changed, and something behind it."""
    octets = bytearray(draw(ALL))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(octets) - 1))
        octets[place] = draw(st.sampled_from(b"\r\n 019.:fP\x20\x21\x11\xff\0") | st.integers(0, 255))
    return bytes(octets) + draw(st.binary(max_size=40))


@given(damaged() | st.binary(max_size=300), CUTS)
@example(CHECKED + b"QUIT\r\n", [12, 13, 14, 15, 16, 17, 28])
def test_what_is_read_does_not_depend_on_the_division(octets: bytes, cuts: list[int]) -> None:
    whole = read([octets])
    divided = read(split(octets, cuts))
    # Why it is refused may be said earlier, and then in other words.
    assert divided == whole or (isinstance(divided, str) and isinstance(whole, str))


@given(damaged())
def test_every_beginning_of_what_is_read_could_have_been_one(octets: bytes) -> None:
    result = read([octets])
    if isinstance(result, tuple):
        header_octets = len(octets) - len(result[1])
        assert all(read([octets[:end]]) is None for end in range(header_octets))
    if result is None:
        assert all(read([octets[:end]]) is None for end in range(len(octets)))


@given(ALL, st.integers(0, 40), st.binary(min_size=1, max_size=8))
@example(SIGNATURE, 12, b"\x20\x00\x10")
def test_it_is_decided_within_the_limit_whatever_comes(beginning: bytes, keep: int, endless: bytes) -> None:
    stream = (beginning[:keep] + endless * (MAX_V2_OCTETS + 16))[: MAX_V2_OCTETS + 16]
    assert read([stream]) is not None
    if not stream.startswith(SIGNATURE[:1]):
        assert read([stream[:MAX_V1_OCTETS]]) is not None


@given(
    st.text("0123456789abcdefF:.", min_size=2, max_size=45)
    | st.ip_addresses(v=6).map(str)
    | st.ip_addresses(v=6).map(lambda address: address.exploded)
    | st.lists(st.text("0aF9", max_size=5), min_size=2, max_size=9).map(":".join)
    | st.ip_addresses(v=4).map("::ffff:{}".format)
)
def test_an_ipv6_address_is_one_where_the_system_says_so(text: str) -> None:
    try:
        packed = socket.inet_pton(socket.AF_INET6, text)
    except OSError:
        packed = None
    result = read([f"PROXY TCP6 {text} ::1 1 2\r\n".encode()])
    if packed is None:
        assert isinstance(result, str)
    else:
        assert isinstance(result, tuple)
        address = result[0].address
        assert address is not None
        if ":" in address:
            assert socket.inet_pton(socket.AF_INET6, address) == packed
        else:
            assert bytes(10) + b"\xff\xff" + socket.inet_pton(socket.AF_INET, address) == packed


@given(st.text("0123456789.", max_size=15) | st.ip_addresses(v=4).map(str))
def test_an_ipv4_address_is_one_where_the_system_says_so(text: str) -> None:
    try:
        socket.inet_pton(socket.AF_INET, text)
    except OSError:
        assert isinstance(read([f"PROXY TCP4 {text} 192.0.2.1 1 2\r\n".encode()]), str)
    else:
        assert read([f"PROXY TCP4 {text} 192.0.2.1 1 2\r\n".encode()]) == (ProxyHeader(text, 1), b"")


@given(st.ip_addresses(), st.integers(0, 65535), st.lists(st.tuples(st.integers(4, 255), st.binary(max_size=50))))
def test_both_versions_tell_the_same_client(address: object, port: int, vectors: list[tuple[int, bytes]]) -> None:
    text = str(address)
    six = ":" in text
    packed = socket.inet_pton(socket.AF_INET6 if six else socket.AF_INET, text)
    block = packed * 2 + port.to_bytes(2, "big") + b"\0\x19" + b"".join(vector(*each) for each in vectors)
    binary = read([v2(0x21, 0x21 if six else 0x11, block)])
    assert binary == read([f"PROXY TCP{6 if six else 4} {text} {text} {port} 25\r\n".encode()])
    assert isinstance(binary, tuple)
    assert binary[0].port == port
