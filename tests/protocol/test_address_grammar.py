"""What an address says once it is read: its parts, the form it is written in, and when two of them are one mailbox."""

import contextlib
import gc
import unicodedata
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from smtp.address import (
    ADDRESSES_AT_HAND,
    Address,
    AddressError,
    ascii_domain,
    parse_domain,
    parse_forward_path,
    parse_reverse_path,
    unicode_domain,
)


# What is read, and its two parts: quotes and backslashes are spelling; everything else stays as it was written.
@pytest.mark.parametrize(
    ("text", "local_part", "domain"),
    [
        ("A.B@Example.COM", "A.B", "Example.COM"),
        ('"a b"@example.com', "a b", "example.com"),
        ('"a@b"@example.com', "a@b", "example.com"),
        ('""@example.com', "", "example.com"),
        ('"a..b"@example.com', "a..b", "example.com"),
        ('"a\\"b"@example.com', 'a"b', "example.com"),
        ('"a\\\\b"@example.com', "a\\b", "example.com"),
        ('"jörg b"@Bücher.example', "jörg b", "Bücher.example"),
        ("jo\u0308rg@example.com", "jo\u0308rg", "example.com"),
        ("user%other.example@example.com", "user%other.example", "example.com"),
        ("other.example!user@example.com", "other.example!user", "example.com"),
        ("a@[IPv6:2001:db8::1]", "a", "[IPv6:2001:db8::1]"),
    ],
)
def test_the_parts_of_an_address(text: str, local_part: str, domain: str) -> None:
    assert Address.parse(text) == Address(local_part, domain)
    assert str(Address(local_part, domain)) == text


@pytest.mark.parametrize(
    ("text", "shorter"),
    [
        ('"a"@example.com', "a@example.com"),
        ('"a.b"@example.com', "a.b@example.com"),
        ('"\\a"@example.com', "a@example.com"),
        ('"a\\ b"@example.com', '"a b"@example.com'),
        ('"\\@"@example.com', '"@"@example.com'),
        ('"jörg"@example.com', "jörg@example.com"),
        ('"j\\örg"@example.com', "jörg@example.com"),
    ],
)
def test_quotes_and_backslashes_are_written_only_where_they_are_needed(text: str, shorter: str) -> None:
    assert str(Address.parse(text)) == shorter


@pytest.mark.parametrize(
    ("text", "address", "rest"),
    [
        ("<a@b.example>", "a@b.example", ""),
        (" <a@b.example> SIZE=1", "a@b.example", "SIZE=1"),
        ("<a@b.example>   SIZE=1 X", "a@b.example", "SIZE=1 X"),
        ("a@b.example SIZE=1", "a@b.example", "SIZE=1"),
        ("<@c.example,@d.example:a@b.example> X", "a@b.example", "X"),
        ('<"a> <b"@b.example> X', '"a> <b"@b.example', "X"),
        ("<jörg@bücher.example> SMTPUTF8", "jörg@bücher.example", "SMTPUTF8"),
        ("<@bücher.example:jörg@b.example> SMTPUTF8", "jörg@b.example", "SMTPUTF8"),
    ],
)
def test_what_stands_behind_a_path_is_left_for_the_parameters(text: str, address: str, rest: str) -> None:
    assert parse_reverse_path(text) == (Address.parse(address), rest)
    assert parse_forward_path(text) == (Address.parse(address), rest)


@pytest.mark.parametrize("text", ["postmaster", "Postmaster", "POSTMASTER"])
def test_bare_postmaster_has_no_domain(text: str) -> None:
    address, _ = parse_forward_path(f"<{text}>")
    assert address == Address(text, "")
    assert str(address) == text
    assert address.key == ("postmaster", "")


@pytest.mark.parametrize(
    ("domain", "in_ascii", "in_unicode"),
    [
        ("Example.ORG", "example.org", "example.org"),
        ("localhost", "localhost", "localhost"),
        ("Bücher.Example", "xn--bcher-kva.example", "bücher.example"),
        ("bu\u0308cher.example", "xn--bcher-kva.example", "bücher.example"),
        ("XN--BCHER-kva.example", "xn--bcher-kva.example", "bücher.example"),
        ("straße.example", "xn--strae-oqa.example", "straße.example"),
        ("ΒΌΛΟΣ.example", "xn--nxasmq6b.example", "βόλοσ.example"),
        ("βόλος.example", "xn--nxasmm1c.example", "βόλος.example"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah", "例え.テスト"),
    ],
)
def test_a_domain_has_one_form_in_ascii_and_one_for_people(domain: str, in_ascii: str, in_unicode: str) -> None:
    assert parse_domain(domain) == ascii_domain(domain) == in_ascii
    assert unicode_domain(domain) == in_unicode
    assert unicode_domain(in_ascii) == in_unicode


def test_an_address_literal_has_one_form() -> None:
    assert ascii_domain("[IPv6:2001:db8::1]") == unicode_domain("[IPv6:2001:db8::1]") == "[IPv6:2001:db8::1]"


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "a.", ".a", "a..b", "a b", "-a", "a-", "a_b", "a/b", "a@b", "*.example", "[192.0.2.1]", "192.0.2.1"),
        *("a\n", "\u00a0a", "ü.", "ü..a", "-ü", "xn--0", "b" * 64, "bcd." * 62 + "examples", "ü." * 85 + "a"),
    ],
)
def test_what_is_no_domain(text: str) -> None:
    with pytest.raises(AddressError):
        parse_domain(text)


def test_a_domain_of_255_octets_is_the_longest() -> None:
    longest = "bcd." * 62 + "example"
    assert len(longest) == 255
    assert parse_domain(longest) == longest


SPELLINGS = [
    ("Sales@Example.ORG", "sALES@eXAMPLE.org"),
    ("x@bücher.example", "X@XN--BCHER-KVA.EXAMPLE"),
    ("x@Bücher.example", "x@bu\u0308cher.EXAMPLE"),
    ("Jörg@example.org", "JO\u0308RG@example.org"),
    ('"jörg"@example.org', "jörg@example.org"),
    ("ОЛЬГА@почта.рф", "ольга@xn--80a1acny.xn--p1ai"),
    ("ΟΔΥΣΣΕΥΣ@example.org", "οδυσσευς@example.org"),
    ("οδυσσευσ@example.org", "οδυσσευς@example.org"),
    ("\u212b@example.org", "a\u030a@example.org"),
]


@pytest.mark.parametrize(("one", "other"), SPELLINGS)
def test_two_spellings_of_one_mailbox_have_one_key(one: str, other: str) -> None:
    assert Address.parse(one).key == Address.parse(other).key
    assert Address.parse(one) != Address.parse(other) or one.startswith('"')


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("strasse@example.org", "straße@example.org"),
        ("a@strasse.example", "a@straße.example"),
        ("a@example.org", "\uff41@example.org"),
        ("a@example.org", "\u0430@example.org"),
        ("jorg@example.org", "jörg@example.org"),
        ("ab@example.org", "a.b@example.org"),
    ],
)
def test_what_looks_alike_has_not(one: str, other: str) -> None:
    assert Address.parse(one).key != Address.parse(other).key


@pytest.mark.parametrize(
    ("text", "in_ascii"),
    [
        ("A@Example.org", "A@Example.org"),
        ("A@Bücher.Example", "A@xn--bcher-kva.example"),
        ('"a b"@bücher.example', '"a b"@xn--bcher-kva.example'),
        ("a@[192.0.2.1]", "a@[192.0.2.1]"),
        ("jörg@example.org", None),
    ],
)
def test_only_the_domain_has_a_form_without_smtputf8(text: str, in_ascii: str | None) -> None:
    found = Address.parse(text).in_ascii
    assert (found and str(found)) == in_ascii
    assert found is None or found.is_ascii


# Letters that make trouble: composed and not, several alphabets, both directions, joiners, digits, and what is refused.
_TROUBLE = "abzAZ09.-+_'\"\\@<> ,:;()[]%!äöüßÄÖÜéÉÅσςΣжЖאבابي例日한कष\u0308\u0301\u094d\u200c\u200d\u0660·😀"
_TEXTS = st.text(st.one_of(st.sampled_from(_TROUBLE), st.characters(exclude_categories=())), max_size=40)
_LABELS = st.text(st.sampled_from("abzAZ09-äöüßÄÖÜéÉσςΣжЖ例日한\u0308\u0301"), min_size=1, max_size=12)
_DOMAINS = st.lists(_LABELS, min_size=1, max_size=3).map(".".join)

# The same, kept to what nearly always is an address.
_LOCAL_PARTS = st.text(
    st.one_of(
        st.sampled_from(_TROUBLE.replace("\u200c", "").replace("\u200d", "")),
        st.characters(categories=("L", "M", "N", "P", "S")),
    ),
    max_size=12,
)
_WORDS = st.text(st.sampled_from("abzAZ09äöüßÄÖÜéÉσςΣжЖ例日한"), min_size=1, max_size=12)
_COMPOSED = st.lists(_WORDS, min_size=1, max_size=2).map(lambda words: ".".join([*words, "example"]))
_NAMES = st.one_of(_COMPOSED, _COMPOSED.map(lambda name: unicodedata.normalize("NFD", name)))
_WHERE = st.one_of(
    _NAMES, st.sampled_from(["[192.0.2.1]", "[IPv6:2001:db8::1]", "XN--BCHER-KVA.example", "xn--e28h.example"])
)


@st.composite
def _addresses(draw: st.DrawFn) -> Address:
    try:
        return Address.parse(str(Address(draw(_LOCAL_PARTS), draw(_WHERE))))
    except AddressError:
        assume(False)
        raise


@given(st.one_of(_TEXTS, st.tuples(_TEXTS, _DOMAINS).map("@".join)))
def test_any_text_is_an_address_or_an_address_error(text: str) -> None:
    for read in (Address.parse, parse_domain, parse_reverse_path, parse_forward_path):
        with contextlib.suppress(AddressError):
            read(text)


@given(_addresses())
@example(Address("\\", "example.org"))
def test_what_is_written_is_read_as_the_same(address: Address) -> None:
    assert Address.parse(str(address)) == address
    assert parse_reverse_path(f"<{address}> X") == parse_forward_path(f"<{address}> X") == (address, "X")
    local_part, _, domain = str(address).rpartition("@")
    assert len(local_part.encode()) <= 64
    assert len(domain.encode()) <= 255
    assert len(str(address).encode()) <= 254


@given(_addresses())
def test_the_key_is_an_address_with_the_same_key(address: Address) -> None:
    again = Address(*address.key)
    assert again.key == address.key
    assert again.domain.isascii()
    assert unicodedata.is_normalized("NFC", again.local_part)


def test_what_is_worked_out_of_an_address_is_no_part_of_it() -> None:
    asked, fresh = Address("A.B", "Example.ORG"), Address("A.B", "Example.ORG")
    assert str(asked) == "A.B@Example.ORG"
    assert asked == fresh
    assert hash(asked) == hash(fresh)
    assert repr(asked) == repr(fresh) == "Address(local_part='A.B', domain='Example.ORG')"
    elsewhere = replace(asked, domain="Example.NET")
    assert (str(elsewhere), elsewhere.key) == ("A.B@Example.NET", ("a.b", "example.net"))
    copied = deepcopy(asked)
    assert (copied, str(copied), copied.key) == (asked, str(asked), asked.key)


@pytest.mark.parametrize("text", ["a@1.2.3.4", "a@xn--a.example", "x" * 65 + "@a.example", "a@" + "b.example" * 30])
def test_what_was_refused_is_refused_again(text: str) -> None:
    for _ in range(2):
        with pytest.raises(AddressError):
            Address.parse(text)
        with pytest.raises(AddressError):
            parse_forward_path(f"<{text}>")


def test_only_the_last_addresses_stay_in_memory() -> None:
    for number in range(3 * ADDRESSES_AT_HAND):
        assert Address.parse(f"somebody.{number}@memory.example").local_part == f"somebody.{number}"
    gc.collect()
    known = [each for each in gc.get_objects() if isinstance(each, Address) and each.domain == "memory.example"]
    assert len(known) <= ADDRESSES_AT_HAND


@given(_addresses(), st.sampled_from(["NFC", "NFD"]), st.sampled_from([ascii_domain, unicode_domain]))
@example(Address("JO\u0308RG", "BU\u0308CHER.example"), "NFC", ascii_domain)
def test_every_spelling_of_an_address_has_its_key(
    address: Address, form: Literal["NFC", "NFD"], spelled: Callable[[str], str]
) -> None:
    other = Address(unicodedata.normalize(form, address.local_part), unicodedata.normalize(form, address.domain))
    assert other.key == address.key
    assert Address(other.local_part.lower(), spelled(other.domain)).key == address.key


@given(st.one_of(_DOMAINS, _NAMES))
def test_both_forms_of_a_domain_are_read_as_the_same(domain: str) -> None:
    try:
        in_ascii = parse_domain(domain)
    except AddressError:
        assume(False)
        raise
    assert parse_domain(in_ascii) == in_ascii
    assert parse_domain(unicode_domain(in_ascii)) == in_ascii
