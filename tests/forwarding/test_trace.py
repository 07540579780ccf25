"""The line in front, and the reading of header fields that anybody may have written."""

import ssl
import time
from email import policy
from email.parser import BytesParser
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.forwarding.trace import (
    count_received,
    decoded_text,
    field,
    format_date,
    header_section,
    printable,
    received,
    registered_suite,
)

NOW = 1_790_000_000_999
LIMIT = 200


def line(
    helo: str = "client.example", client: str = "192.0.2.7", recipients: tuple[str, ...] = (), cipher: str = ""
) -> bytes:
    """A Received line of a message to these recipients."""
    return received(
        helo=helo,
        client_address=client,
        hostname="mx.example.org",
        protocol="ESMTP",
        message_id="019f0c5ab7d3c1a2b3c4",
        recipients=recipients,
        at=NOW,
        cipher=cipher,
    )


def test_the_line_reads() -> None:
    """RFC 5321 §4.4, word for word."""
    assert line(recipients=("sales@alias.example",)) == (
        b"Received: from client.example ([192.0.2.7])\r\n"
        b"\tby mx.example.org with ESMTP id 019f0c5ab7d3c1a2b3c4\r\n"
        b"\tfor <sales@alias.example>;\r\n"
        b"\tMon, 21 Sep 2026 14:13:20 +0000\r\n"
    )


def test_the_cipher_suite_stands_behind_all_that_rfc_5321_has() -> None:
    """RFC 8314 §7.4: a clause of its own."""
    assert line(recipients=("sales@alias.example",), cipher="TLS_AES_256_GCM_SHA384") == (
        b"Received: from client.example ([192.0.2.7])\r\n"
        b"\tby mx.example.org with ESMTP id 019f0c5ab7d3c1a2b3c4\r\n"
        b"\tfor <sales@alias.example>\r\n"
        b"\ttls TLS_AES_256_GCM_SHA384;\r\n"
        b"\tMon, 21 Sep 2026 14:13:20 +0000\r\n"
    )
    assert b" id 019f0c5ab7d3c1a2b3c4\r\n\ttls TLS_AES_128_GCM_SHA256;\r\n" in line(cipher="TLS_AES_128_GCM_SHA256")


@pytest.mark.parametrize(
    ("openssl", "registered"),
    [
        ("TLS_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20_POLY1305_SHA256"),
        ("ECDHE-RSA-AES256-GCM-SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
        ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
        ("ECDHE-RSA-AES256-SHA384", "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384"),
        ("DHE-RSA-AES128-SHA256", "TLS_DHE_RSA_WITH_AES_128_CBC_SHA256"),
        ("", ""),
        ("KRB5-DES-CBC-MD5", ""),
        ("TLS_X;\r\nBcc: a", ""),
    ],
)
def test_a_cipher_suite_has_its_registered_name_or_none(openssl: str, registered: str) -> None:
    assert registered_suite(openssl) == registered


def test_every_suite_that_we_negotiate_has_a_registered_name() -> None:
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).get_ciphers()
    assert ours
    assert [cipher["name"] for cipher in ours if not registered_suite(cipher["name"])] == []


def test_ipv6_has_its_tag() -> None:
    """RFC 5321 §4.1.3."""
    assert b"([IPv6:2001:db8::1])" in line(client="2001:db8::1")


def test_several_recipients_are_not_named() -> None:
    """Each of them would see the others."""
    assert b"for" not in line(recipients=("a@alias.example", "b@alias.example"))
    assert b"alias" not in line(recipients=("a@alias.example", "b@alias.example"))


@pytest.mark.parametrize(
    "recipient", ['"a b"@alias.example', "a>b@x", "a\r\nBcc: c@x", "\u00e4@alias.example", "a(b@x", "a;b@x"]
)
def test_odd_recipients_are_not_named(recipient: str) -> None:
    """What could change how the line reads is left out of it."""
    assert b"for" not in line(recipients=(recipient,))


@given(st.text(max_size=400), st.text(max_size=60), st.text(max_size=300))
def test_strangers_write_no_header_lines(helo: str, client: str, recipient: str) -> None:
    """Whatever a client calls itself: one field, printable ASCII, no comment or date of its own, short lines."""
    octets = line(helo, client, (recipient,))
    assert octets.endswith(b"\r\n")
    rows = octets[:-2].split(b"\r\n")
    assert rows[0].startswith(b"Received: from")
    assert all(row.startswith(b"\t") and row.strip() for row in rows[1:])
    assert all(len(row) <= 78 or row.count(b" ") == 0 for row in rows[1:])
    assert all(len(row) <= 998 for row in rows)
    assert set(octets) <= {9, 10, 13, *range(32, 127)}
    assert octets.count(b"(") == octets.count(b")") == octets.count(b";") == 1
    assert octets.count(b"\n") == octets.count(b"\r\n") == octets.count(b"\r")


@given(st.integers(0, 4_102_444_800_000))
def test_dates(at: int) -> None:
    """RFC 5322 §3.3, as the standard library reads it."""
    moment = parsedate_to_datetime(format_date(at))
    assert int(moment.timestamp()) == at // 1000
    assert format_date(at).endswith(" +0000")
    assert f"{moment:%a, }" == format_date(at)[:5]


@pytest.mark.parametrize(
    ("content", "limit", "expected"),
    [
        (b"A: b\r\n\r\nbody\r\n\r\nmore", 100, b"A: b\r\n\r\n"),
        (b"\r\nbody\r\n\r\n", 100, b"\r\n"),
        (b"A: b\n\nbody", 100, b"A: b\n\n"),
        (b"A: b\r\nC: d\r\n", 100, b"A: b\r\nC: d\r\n"),
        (b"A: b\r\nC: d\r\n\r\nbody", 10, b"A: b\r\n"),
        (b"A" * 100, 10, b""),
        (b"", 10, b""),
    ],
)
def test_the_header_section_ends_at_the_blank_line(content: bytes, limit: int, expected: bytes) -> None:
    """Or with the last whole line within the limit."""
    assert header_section(content, limit) == expected


SECTION = (
    b"Received: a\r\nRECEIVED : b\r\nX-Received: c\r\n"
    b"Subject: one\r\n two\r\n\tthree  \r\nsubject: four\r\nEmpty:\r\nX: received: d\r\n\r\n"
)


def test_fields_are_found() -> None:
    """The first of the name, in any case, unfolded."""
    assert field(SECTION, "Subject") == b"one two\tthree"
    assert field(SECTION, "SUBJECT") == b"one two\tthree"
    assert field(SECTION, "Empty") == b""
    assert field(SECTION, "Received") == b"a"
    assert field(SECTION, "Ubject") is None
    assert field(SECTION, "X.Received") is None


def test_received_fields_are_counted() -> None:
    """Those that begin a line and are called so."""
    assert count_received(SECTION) == 2
    assert count_received(b"Received: x\r\n" * 100) == 100
    assert count_received(b"") == 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"Hello", "Hello"),
        (b"a\tb", "a b"),
        (b"=?utf-8?q?Gr=C3=BC=C3=9Fe_aus?= =?UTF-8?B?IEvDtmxu?= !", "Grüße aus Köln !"),
        (b"=?utf-8?B?w?= =?utf-8?B?7w=?=", "\ufffd\ufffd"),
        (b"=?utf-8?q?=C3?= =?utf-8?q?=BC?=", "ü"),
        (b"=?iso-8859-1*de?Q?=FC?=", "ü"),
        (b"=?ISO-2022-JP?B?GyRCJDMkcxsoQg==?=", "こん"),
        (b"=?windows-1251?B?z/Do4uXy?=", "Привет"),
        (b"=?gb2312?B?xOO6ww==?=", "你好"),
        (b"a =?us-ascii?q?b?= c", "a b c"),
        (b"=?us-ascii?q?b?= =?iso-8859-1?q?=E4?=", "bä"),
        (b"=?no-such-charset?q?abc?=", "abc"),
        (b"=?idna?q?xn--abc?= =?punycode?q?abc?= =?unicode_escape?q?=5Cu0041?=", "xn--abcabc\\u0041"),
        ("Käse".encode(), "Käse"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"=?utf-8?q?=0D=0AX:_y=1B[31m?=", "\ufffd\ufffdX: y\ufffd[31m"),
        (b"=?utf-8?B?4oCu?=abc", "\ufffdabc"),
        (b"=?utf-8?x?abc?=", "=?utf-8?x?abc?="),
        (b"=?utf-8?q?abc", "=?utf-8?q?abc"),
        (b"=?", "=?"),
        (b"", ""),
        (b"x" * 500, "x" * LIMIT),
    ],
)
def test_subjects_are_decoded(value: bytes, expected: str) -> None:
    """RFC 2047, and what people make of it."""
    assert decoded_text(value, LIMIT) == expected


@given(
    st.one_of(
        st.binary(max_size=300),
        st.lists(
            st.sampled_from(
                [
                    b"=?",
                    b"?=",
                    b"?q?",
                    b"?B?",
                    b"utf-8",
                    b"utf-16",
                    b"hex",
                    b"euc-kr",
                    b"=",
                    b"=E4",
                    b"\xe4",
                    b" ",
                    b"YWJj",
                    b"\r\n",
                ]
            ),
            max_size=40,
        ).map(b"".join),
    )
)
def test_decoding_never_fails(value: bytes) -> None:
    """Any octets become at most so many printable characters on one line."""
    text = decoded_text(value, LIMIT)
    assert len(text) <= LIMIT
    assert text.encode("utf-8").decode("utf-8") == text
    assert printable(text) == text
    assert len(text.splitlines()) <= 1


@given(st.text(max_size=60))
def test_decoding_agrees_with_the_standard_library(text: str) -> None:
    """What a common library encodes comes out as it went in."""
    message = policy.SMTP.header_factory("subject", printable(text).strip())
    folded = message.fold(policy=policy.SMTP).encode("ascii")
    value = field(folded, "Subject")
    assert value is not None
    expected = BytesParser(policy=policy.default).parsebytes(folded + b"\r\n")["subject"]
    assert decoded_text(value, 1000) == printable(str(expected))


@pytest.mark.parametrize(
    "value",
    [
        b"=?utf-8?q?=41?= " * 20_000,
        b"=?utf-8?b?QQ==?=" * 20_000,
        b"=?" * 500_000,
        b"=?utf-8?q?" * 100_000,
        b"=?iso-2022-jp?B?" + b"GyRC" * 200_000 + b"?=",
        b"x" * 10_000_000,
    ],
)
def test_bombs_are_cheap(value: bytes) -> None:
    """Each took seconds somewhere. A hundredth of a second is a hundred times what they need here."""
    decoded_text(b"=?utf-8?q?=41?= =?iso-2022-jp?q?a?=", LIMIT)
    began = time.thread_time()
    decoded_text(value, LIMIT)
    assert time.thread_time() - began < 0.01


def test_huge_header_sections_are_cheap() -> None:
    """A million fields, and one of ten megabytes."""
    began = time.thread_time()
    for section in (
        b"A: b\r\n" * 1_000_000,
        b"A: " + b"b" * 10_000_000,
        b"A:" + b"\r\n b" * 1_000_000,
        b"\r\n " * 1_000_000,
    ):
        head = header_section(section, 256 * 1024)
        assert len(head) <= 256 * 1024
        count_received(head)
        field(head, "Subject")
    assert time.thread_time() - began < 0.5
