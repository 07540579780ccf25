"""The hidden destination stays hidden."""

import base64
import re
import time
import unicodedata
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.forwarding.masking import LOGGED_CHARACTERS, SHOWN_CHARACTERS, fit_for_strangers, mask
from smtp.address import Address

TARGET = Address("jane.doe", "gmail.com")
SERVER = "gmail-smtp-in.l.google.com"
ALIAS = "sales@alias.example"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("550 5.1.1 <jane.doe@gmail.com>: no such user", f"550 5.1.1 <{ALIAS}>: no such user"),
        ("JANE.DOE@GMAIL.COM is full", f"{ALIAS} is full"),
        ('"jane.doe"@gmail.com?', f"{ALIAS}?"),
        ("see https://x.example/?for=jane.doe%40gmail.com", f"see https://x.example/?for={ALIAS}"),
        ("returned to bounce+jane.doe=gmail.com@lists.example", f"returned to bounce+{ALIAS}@lists.example"),
        ("rfc822;jane.doe+40gmail.com", f"rfc822;{ALIAS}"),
        ("delivery to jane.doe@store-7.internal failed", f"delivery to {ALIAS} failed"),
        ("no mailbox jane.doe here", f"no mailbox {ALIAS} here"),
        ("jane.doesnt exist", "jane.doesnt exist"),
        ("gmail.com is overloaded", "[destination] is overloaded"),
        ("[gmail-smtp-in.l.google.com] says no", "[[server]] says no"),
        ("first line\r\nsecond\tline \x1b[31m", "first line second line \ufffd[31m"),
        ("", ""),
    ],
)
def test_the_log_names_the_alias(text: str, expected: str) -> None:
    """In place of the mailbox, in every spelling of it."""
    assert mask(text, TARGET, ALIAS, SERVER) == expected


def test_the_log_keeps_a_bounded_text() -> None:
    """And is masked before it is cut, so that no half of an address is left at the end."""
    text = "x" * (LOGGED_CHARACTERS - 12) + " jane.doe@gmail.com"
    masked = mask(text, TARGET, ALIAS, None)
    assert len(masked) <= LOGGED_CHARACTERS
    assert "jane" not in masked


def test_the_alias_may_share_a_name_with_the_mailbox() -> None:
    """What has been put in is not masked again."""
    target = Address("jane", "example.org")
    assert mask("jane@example.org is full", target, "jane@alias.example.org", None) == "jane@alias.example.org is full"


INTERNATIONAL = Address("jörg.größe", "xn--bcher-kva.example")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("550 <jörg.größe@bücher.example> is full", f"550 <{ALIAS}> is full"),
        ("550 <Jörg.Größe@BÜCHER.Example> is full", f"550 <{ALIAS}> is full"),
        ("550 <JÖRG.GRÖSSE@XN--BCHER-KVA.EXAMPLE> is full", f"550 <{ALIAS}> is full"),
        ("550 <jo\u0308rg.gro\u0308ße@bu\u0308cher.example>", f"550 <{ALIAS}>"),
        ('"jörg.größe"@bücher.example?', f"{ALIAS}?"),
        ("no jörg.größe here", f"no {ALIAS} here"),
        ("jörg.größe@speicher-7.büro.internal failed", f"{ALIAS} failed"),
        # In a URL, in xtext, in a delivery report, and read as ASCII.
        (
            "see https://x.example/?for=j%C3%B6rg.gr%c3%b6%c3%9fe%40bücher.example",
            f"see https://x.example/?for={ALIAS}",
        ),
        ("rfc822;j+C3+B6rg.gr+C3+B6+C3+9Fe+40b+C3+BCcher.example", f"rfc822;{ALIAS}"),
        (r"utf-8;j\x{F6}rg.gr\x{00f6}\x{DF}e@xn--bcher-kva.example", f"utf-8;{ALIAS}"),
        ("550 <j??rg.gr????e@b??cher.example> is full", f"550 <{ALIAS}> is full"),
        ("550 <j\ufffd\ufffdrg.gr\ufffd\ufffd\ufffd\ufffde@xn--bcher-kva.example>", f"550 <{ALIAS}>"),
        ("Bücher.example is overloaded", "[destination] is overloaded"),
        ("XN--BCHER-KVA.example is overloaded", "[destination] is overloaded"),
        ("mx.bücher.example says no", "mx.[destination] says no"),
        ("mail.über.example says no", "[server] says no"),
        ("mail.xn--ber-goa.example says no", "[server] says no"),
        ("ein schöner Größenwahn", "ein schöner Größenwahn"),
        ("", ""),
    ],
)
def test_the_log_names_the_alias_in_place_of_an_international_mailbox(text: str, expected: str) -> None:
    """In every case, in A-labels and U-labels, composed and not, and as UTF-8 is written where only ASCII goes."""
    assert mask(text, INTERNATIONAL, ALIAS, "mail.xn--ber-goa.example") == expected
    in_unicode = Address(INTERNATIONAL.local_part, "Bücher.example")
    masked = mask(unicodedata.normalize("NFD", text), in_unicode, ALIAS, "mail.über.example")
    assert unicodedata.normalize("NFC", masked) == expected


@pytest.mark.parametrize("piece", ["a", "ö", "jörg", "?", "jörg.größe=", "jörg.größe@a", "xn--bcher-kva.example a"])
def test_a_long_text_about_an_international_mailbox_takes_little_time(piece: str) -> None:
    """It is one server's reply, and others wait."""
    text = piece * (10_000 // len(piece))
    began = time.process_time()
    masked = mask(text, INTERNATIONAL, ALIAS, None)
    assert time.process_time() - began < 1
    assert len(masked) <= LOGGED_CHARACTERS


def test_a_mailbox_without_a_domain() -> None:
    """Mail for the operator that waits for one."""
    assert mask("no postmaster here", Address("postmaster", ""), ALIAS, None) == f"no {ALIAS} here"
    assert fit_for_strangers("no such user", Address("postmaster", ""), None) == "no such user"
    assert fit_for_strangers("no postmaster", Address("postmaster", ""), None) is None


names = st.from_regex(r"[a-z][a-z0-9._+-]{0,14}[a-z0-9]", fullmatch=True)
hosts = st.lists(st.from_regex(r"[a-z][a-z0-9-]{0,10}[a-z0-9]", fullmatch=True), min_size=2, max_size=4).map(".".join)


@given(names, hosts, st.lists(st.text(max_size=20), min_size=1, max_size=4), st.data())
def test_the_log_never_holds_the_mailbox(local_part: str, domain: str, pieces: list[str], data: st.DataObject) -> None:
    """Wherever and however it stands in the text."""
    address = f"{local_part}@{domain}"
    text = ""
    for piece in pieces:
        text += piece + data.draw(
            st.sampled_from([address, address.upper(), f"<{address}>", f'"{local_part}"@{domain}', local_part])
        )
    masked = mask(text, Address(local_part, domain), "\u2603", None).lower()
    assert address not in masked
    assert not re.search(rf"(?<![a-z0-9]){re.escape(local_part)}(?![a-z0-9])", masked, re.ASCII)


@pytest.mark.parametrize(
    "text",
    [
        "Mailbox full",
        "5.1.1 User unknown",
        "Recipient address rejected: User unknown in virtual mailbox table",
        "Message size exceeds fixed limit",
        "Greylisted, please try again in 300 seconds",
        "Requested action not taken: mailbox unavailable",
        "Service temporarily unavailable; try again later",
        "Message rejected as spam",
    ],
)
def test_common_words_pass(text: str) -> None:
    """They say what every server says."""
    assert fit_for_strangers(text, TARGET, SERVER) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<jane.doe@gmail.com>: no such user",
        "no such user jane.doe",
        "mailbox of Jane Doe is full",
        "no such user JANE DOE",
        "no such user j.a.n.e",
        "no user at gmail",
        "Gmail user unknown",
        "google says no",
        "see support.google.com",
        "see https://support.example/?p=NoSuchUser",
        "host 192.0.2.7 says no",
        "host 2001:db8::1 says no",
        "host [192.0.2.7] says no",
        "queued as 4F2kLm1Z8sz9x",
        f"id {base64.b64encode(b'jane.doe@gmail.com').decode()}",
        f"id {b'jane.doe@gmail.com'.hex()}",
        f"user {quote('jane.doe@gmail.com', safe='')} unknown",
        "user jane=2Edoe=40gmail=2Ecom unknown",
        "user jane at gmail dot com unknown",
        "user \u0435xist unknown",
        "mailbox full\x00",
        "user 5551234 unknown",
        "mailbox full " * 40,
    ],
)
def test_anything_else_does_not(text: str) -> None:
    """In doubt, no."""
    assert fit_for_strangers(text, TARGET, SERVER) is None


@pytest.mark.parametrize(
    ("target", "server", "text"),
    [
        (Address("full", "example.org"), None, "mailbox full"),
        (Address("mail.box", "example.org"), None, "mailbox full"),
        (Address("x", "spam.example"), None, "rejected as spam"),
        (Address("x", "quota.co.uk"), None, "over quota"),
        (Address("x", "example.org"), "mx.policy.net", "refused by policy"),
        (Address("42", "example.org"), None, "code 42"),
        (Address("a", "example.org"), None, "mailbox full"),
        (Address("x", "mail.com"), None, "mail refused"),
        # As somebody writes them who has no key for the marks, or sees no more than ASCII.
        (Address("üsér", "example.org"), None, "user unknown"),
        (Address("x", "pólicy.example"), None, "refused by policy"),
        (Address("x", "xn--plicy-0ta.example"), None, "refused by policy"),
        (Address("x", "example.org"), "mx.xn--plicy-0ta.example", "refused by policy"),
    ],
)
def test_a_known_word_may_be_a_name(target: Address, server: str | None, text: str) -> None:
    """Then it does not pass."""
    assert fit_for_strangers(text, target, server) is None
    assert fit_for_strangers(text, Address("jk77", "else.example"), "mx1.else.example") == text


words = st.sampled_from(
    [
        "mailbox",
        "Full",
        "user",
        "unknown",
        "quota",
        "550",
        "5.1.1",
        "(no)",
        "again,",
        "later",
        "is",
        "-",
        "non-existent",
    ]
)


@given(
    st.one_of(names, words),
    hosts,
    st.one_of(st.none(), hosts),
    st.one_of(st.lists(words), st.lists(st.one_of(words, names, hosts, st.text(max_size=8)), max_size=8)),
)
def test_strangers_never_see_the_mailbox(local_part: str, domain: str, server: str | None, pieces: list[str]) -> None:
    """Neither part of the address, nor its server, in any case."""
    text = fit_for_strangers(" ".join(pieces), Address(local_part, domain), server)
    if text is None:
        return
    assert len(text) <= SHOWN_CHARACTERS
    shown = text.lower()
    assert local_part.lower() not in shown
    assert domain not in shown
    assert server is None or server not in shown
    assert "@" not in shown
