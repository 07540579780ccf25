"""One grammar for addresses: what is taken, how it is written again, and what is refused."""

import pytest

from smtp.address import Address, AddressError, parse_domain, parse_forward_path, parse_reverse_path

# What is read, local part, domain; written again as it came.
TAKEN = [
    ("a@example.com", "a", "example.com"),
    ("A.B@Example.COM", "A.B", "Example.COM"),
    ("a@b", "a", "b"),
    ("first.last@example.com", "first.last", "example.com"),
    ("user+tag@example.com", "user+tag", "example.com"),
    ("user=tag@example.com", "user=tag", "example.com"),
    ("!#$%&'*+-/=?^_`{|}~@example.com", "!#$%&'*+-/=?^_`{|}~", "example.com"),
    ("1234567890@example.com", "1234567890", "example.com"),
    ("-@example.com", "-", "example.com"),
    ("_@example.com", "_", "example.com"),
    ("a-@example.com", "a-", "example.com"),
    ("SRS0=abc=de=example.net=user@example.com", "SRS0=abc=de=example.net=user", "example.com"),
    ("a@1.example", "a", "1.example"),
    ("a@1a", "a", "1a"),
    ("a@example.c0m", "a", "example.c0m"),
    ("a@3com.com", "a", "3com.com"),
    ("a@a-b.example", "a", "a-b.example"),
    ("a@a--b.example", "a", "a--b.example"),
    ("a@xn--bcher-kva.example", "a", "xn--bcher-kva.example"),
    ("a@xn--p1ai", "a", "xn--p1ai"),
    ("a@localhost", "a", "localhost"),
    ("a@" + "b" * 63 + ".example", "a", "b" * 63 + ".example"),
    ("a" * 64 + "@example.com", "a" * 64, "example.com"),
    ("a@" + "bcd." * 61 + "example", "a", "bcd." * 61 + "example"),
    ("a@[192.0.2.1]", "a", "[192.0.2.1]"),
    ("a@[0.0.0.0]", "a", "[0.0.0.0]"),
    ("a@[IPv6:2001:db8::1]", "a", "[IPv6:2001:db8::1]"),
    ("a@[ipv6:::1]", "a", "[ipv6:::1]"),
    ("a@[IPv6:::ffff:192.0.2.1]", "a", "[IPv6:::ffff:192.0.2.1]"),
    ('"a b"@example.com', "a b", "example.com"),
    ('"a@b"@example.com', "a@b", "example.com"),
    ('"@"@example.com', "@", "example.com"),
    ('""@example.com', "", "example.com"),
    ('".a"@example.com', ".a", "example.com"),
    ('"a."@example.com', "a.", "example.com"),
    ('"a..b"@example.com', "a..b", "example.com"),
    ('"<a>"@example.com', "<a>", "example.com"),
    ('"a,b"@example.com', "a,b", "example.com"),
    ('"a;b:c"@example.com', "a;b:c", "example.com"),
    ('"(a)"@example.com', "(a)", "example.com"),
    ('"[a]"@example.com', "[a]", "example.com"),
    ('"a\\"b"@example.com', 'a"b', "example.com"),
    ('"a\\\\b"@example.com', "a\\b", "example.com"),
    ('"\\\\"@example.com', "\\", "example.com"),
    ('"' + "a b" * 20 + '"@example.com', "a b" * 20, "example.com"),
]

# What is read, and the shorter form it is written in: quotes and backslashes only where they are needed.
WRITTEN_SHORTER = [
    ('"a"@example.com', "a@example.com"),
    ('"a.b"@example.com', "a.b@example.com"),
    ('"\\a"@example.com', "a@example.com"),
    ('"a\\ b"@example.com', '"a b"@example.com'),
    ('"\\@"@example.com', '"@"@example.com'),
    ('"user+tag"@example.com', "user+tag@example.com"),
]

REFUSED = [
    "",
    " ",
    "a",
    "@",
    "a@",
    "@example.com",
    "postmaster",
    "a@@example.com",
    "a@b@example.com",
    "a b@example.com",
    " a@example.com",
    "a@example.com ",
    "a @example.com",
    "a@ example.com",
    "a@example.com\n",
    "a@example.com\r\n",
    "a\n@example.com",
    "a\x00b@example.com",
    "a\tb@example.com",
    "a\x7f@example.com",
    ".a@example.com",
    "a.@example.com",
    "a..b@example.com",
    ".@example.com",
    "a,b@example.com",
    "a;b@example.com",
    "a:b@example.com",
    "a<b@example.com",
    "<a@example.com>",
    "a>b@example.com",
    "a(b)@example.com",
    "a[b]@example.com",
    "a\\b@example.com",
    "a\\@b@example.com",
    'a"b@example.com',
    'a"b"@example.com',
    '"a"b@example.com',
    '"a".b@example.com',
    '"a@example.com',
    '"@example.com',
    '"a"',
    '"a"example.com',
    '"a"b"@example.com',
    '"a\\"@example.com',
    '"a\n"@example.com',
    '"a\x00"@example.com',
    '"a\\\x01"@example.com',
    '"é"@example.com',
    "é@example.com",
    "a@exämple.com",
    "a@例え.example",
    "a@example。com",
    "a@example.com" + "\u200b",
    "\uff41@example.com",
    "a@.",
    "a@.example.com",
    "a@example.com.",
    "a@example..com",
    "a@-example.com",
    "a@example-.com",
    "a@example.-com",
    "a@example.com-",
    "a@xn---",
    "a@exam_ple.com",
    "a@_dmarc.example.com",
    "a@example.com/x",
    "a@example.com:25",
    "a@example!com",
    "a@*.example.com",
    "a@192.0.2.1",
    "a@2130706433",
    "a@example.1",
    "a@0x7f.1",
    "a@[192.0.2.1",
    "a@192.0.2.1]",
    "a@[]",
    "a@[192.0.2]",
    "a@[192.0.2.256]",
    "a@[192.0.2.01]",
    "a@[192.0.2.1.]",
    "a@[ 192.0.2.1]",
    "a@[192.0.2.1 ]",
    "a@[192.0.2.1]x",
    "a@[192.0.2.1\n]",
    "a@[2001:db8::1]",
    "a@[IPv6:]",
    "a@[IPv6:192.0.2.1]",
    "a@[IPv6:2001:db8::g]",
    "a@[IPv6:2001:db8::1::2]",
    "a@[IPv6:fe80::1%eth0]",
    "a@[IPv5:1]",
    "a@[x400:something]",
    "a@[127.1]",
    "a@[\u0661.2.3.4]",
    "a" * 65 + "@example.com",
    '"' + "a b" * 21 + '"@example.com',
    "a@" + "b" * 64 + ".example",
    "a@" + "bcd." * 62 + "example",
    "a@" + "b." * 127 + "b",
    "a" * 300,
    "a@" + "b" * 300,
]


def test_the_table_is_long_enough() -> None:
    assert len({*(text for text, *_ in TAKEN), *(text for text, _ in WRITTEN_SHORTER), *REFUSED}) >= 120


@pytest.mark.parametrize(("text", "local_part", "domain"), TAKEN)
def test_taken(text: str, local_part: str, domain: str) -> None:
    address = Address.parse(text)
    assert address == Address(local_part, domain)
    assert str(address) == text
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(("text", "shorter"), WRITTEN_SHORTER)
def test_written_shorter(text: str, shorter: str) -> None:
    assert str(Address.parse(text)) == shorter


@pytest.mark.parametrize("text", REFUSED)
def test_refused_with_a_reason_in_plain_words(text: str) -> None:
    with pytest.raises(AddressError) as caught:
        Address.parse(text)
    reason = str(caught.value)
    assert reason.isascii()
    assert reason.isprintable()
    assert 5 < len(reason) < 100


@pytest.mark.parametrize("text", ["<>", " <>", "  <>  "])
def test_null_reverse_path(text: str) -> None:
    assert parse_reverse_path(text) == (None, "")


@pytest.mark.parametrize(
    ("text", "address", "rest"),
    [
        ("<a@b.example>", "a@b.example", ""),
        (" <a@b.example> SIZE=1", "a@b.example", "SIZE=1"),
        ("<a@b.example>   SIZE=1 X", "a@b.example", "SIZE=1 X"),
        ("a@b.example SIZE=1", "a@b.example", "SIZE=1"),
        ("<@c.example:a@b.example>", "a@b.example", ""),
        ("<@c.example,@d.example:a@b.example> X", "a@b.example", "X"),
        ('<"a> <b"@b.example> X', '"a> <b"@b.example', "X"),
    ],
)
def test_paths(text: str, address: str, rest: str) -> None:
    assert parse_reverse_path(text) == (Address.parse(address), rest)
    assert parse_forward_path(text) == (Address.parse(address), rest)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "<",
        ">",
        "<a@b.example",
        "a@b.example>",
        "<<a@b.example>>",
        "<a@b.example>x",
        "<a@b.example>\n",
        "<a@b.example>\tSIZE=1",
        "<a@b.example\r\n>",
        "<@c.example>",
        "<c.example:a@b.example>",
        "<@c.example,a@b.example>",
        "<@c.example,,@d.example:a@b.example>",
        "< a@b.example>",
        "<a@b.example >",
        "<a@b.example,c@d.example>",
        "<a>",
    ],
)
def test_refused_paths(text: str) -> None:
    with pytest.raises(AddressError):
        parse_reverse_path(text)
    with pytest.raises(AddressError):
        parse_forward_path(text)


def test_a_recipient_is_never_nobody() -> None:
    with pytest.raises(AddressError):
        parse_forward_path("<>")


@pytest.mark.parametrize("text", ["postmaster", "Postmaster", "POSTMASTER"])
def test_bare_postmaster_is_a_recipient_and_no_sender(text: str) -> None:
    address, _ = parse_forward_path(f"<{text}>")
    assert address == Address(text, "")
    assert str(address) == text
    assert address.key == ("postmaster", "")
    with pytest.raises(AddressError):
        parse_reverse_path(f"<{text}>")


def test_key_folds_case() -> None:
    assert Address.parse("Sales@Example.ORG").key == Address.parse("sALES@eXAMPLE.org").key == ("sales", "example.org")


@pytest.mark.parametrize(
    ("text", "domain"),
    [("Example.ORG", "example.org"), ("localhost", "localhost"), ("XN--p1ai", "xn--p1ai"), ("a-b.c", "a-b.c")],
)
def test_domains(text: str, domain: str) -> None:
    assert parse_domain(text) == domain


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "a b",
        "-a",
        "a-",
        "a_b",
        "a/b",
        "a@b",
        "*.example",
        "[192.0.2.1]",
        "192.0.2.1",
        "a\n",
        "ä.example",
        "b" * 64,
        "bcd." * 62 + "examples",
    ],
)
def test_no_domains(text: str) -> None:
    with pytest.raises(AddressError):
        parse_domain(text)
