"""Our own Received lines are known again when a message comes back, and nobody else's are."""

import re
import time
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.forwarding.own_lines import MAX_OWN_LINES, OwnLines
from appliance.forwarding.trace import count_received, received
from smtp.address import Address

HOSTNAME = "mx.example.org"
ID = "019f0c5ab7d3c1a2b3c4"
SALES, HELP = Address("sales", "alias.example"), Address("help", "alias.example")
OURS = OwnLines(HOSTNAME, bytes(32))
OTHERS = (
    b"Received: from a ([192.0.2.9])\r\n\tby mx.example.net with ESMTP id 1;\r\n\tMon, 21 Sep 2026 14:13:20 +0000\r\n"
)
LETTER = b"From: friend@sender.test\r\nSubject: x\r\n\r\n"


def line(*recipients: Address, lines: OwnLines = OURS, message_id: str = ID, hostname: str = HOSTNAME) -> bytes:
    """A Received line of ours for a message to these recipients."""
    return received(
        helo="client.example",
        client_address="192.0.2.7",
        hostname=hostname,
        protocol="ESMTPS",
        message_id=message_id,
        recipients=tuple(map(str, recipients)),
        at=1_790_000_000_999,
        cipher="TLS_AES_256_GCM_SHA384",
        mark=lines.mark(message_id, recipients),
    )


def test_the_mark_is_a_comment_behind_the_id() -> None:
    """RFC 5321 §4.4: `[ID] [For]`, each with CFWS in front; and the line keeps its length."""
    rows = line(SALES).split(b"\r\n")
    assert re.fullmatch(rb"\tby mx\.example\.org with ESMTPS id 019f0c5ab7d3c1a2b3c4 \([0-9a-f]{20}\)", rows[1])
    assert rows[2] == b"\tfor <sales@alias.example>"
    long = line(SALES, hostname="mail-server-with-a-long-name.department.organisation.example")
    assert all(len(row) <= 78 for row in long.split(b"\r\n"))


def test_a_message_that_comes_back_for_the_same_alias_is_a_loop() -> None:
    head = OTHERS + line(SALES) + OTHERS + LETTER
    assert OURS.shows_a_loop(head, [SALES])
    assert OURS.shows_a_loop(head, [HELP, Address("SALES", "Alias.Example")])


def test_a_message_that_comes_for_another_alias_is_none() -> None:
    assert not OURS.shows_a_loop(line(SALES) + LETTER, [HELP])
    assert not OURS.shows_a_loop(OTHERS + LETTER, [SALES])
    assert not OURS.shows_a_loop(line(SALES) + LETTER, [])


def test_a_recipient_that_a_copy_for_another_one_leads_to_is_no_loop() -> None:
    """One line stands for the copies of both; the mailbox of the first may lead to the second."""
    head = line(SALES, HELP) + LETTER
    assert not OURS.shows_a_loop(head, [SALES])
    assert not OURS.shows_a_loop(head, [HELP])
    assert OURS.shows_a_loop(line(HELP) + head, [HELP])


def test_who_has_been_here_too_often_goes_in_circles_whatever_the_alias() -> None:
    lines = [line(Address(f"a{number}", "alias.example"), message_id=f"{number:020x}") for number in range(9)]
    assert not OURS.shows_a_loop(b"".join(lines[:MAX_OWN_LINES]) + LETTER, [SALES])
    assert OURS.shows_a_loop(b"".join(lines[: MAX_OWN_LINES + 1]) + LETTER, [SALES])
    several = [line(SALES, HELP, message_id=f"{number:020x}") for number in range(9)]
    assert OURS.shows_a_loop(b"".join(several[: MAX_OWN_LINES + 1]) + LETTER, [SALES])


@pytest.mark.parametrize(
    "change",
    [
        lambda octets: octets.replace(ID.encode(), b"019f0c5ab7d3c1a2b3c5"),
        lambda octets: re.sub(rb"\(([0-9a-f]{10})[0-9a-f]{10}\)", rb"(\g<1>0123456789)", octets),
        lambda octets: re.sub(rb"\([0-9a-f]{10}", b"(0123456789", octets),
        lambda octets: re.sub(rb" \([0-9a-f]{20}\)", b"", octets),
        lambda octets: octets.replace(b"mx.example.org", b"mx.example.com"),
    ],
)
def test_a_line_that_somebody_else_wrote_counts_for_nothing(change: Callable[[bytes], bytes]) -> None:
    octets = change(line(SALES))
    assert octets != line(SALES)
    assert not OURS.shows_a_loop(octets * MAX_OWN_LINES + LETTER, [SALES])


def test_a_line_of_another_key_counts_for_nothing() -> None:
    stranger = OwnLines(HOSTNAME, b"x" * 32)
    assert not OURS.shows_a_loop(line(SALES, lines=stranger) * 20 + LETTER, [SALES])


def test_a_restart_knows_the_lines_of_the_run_before() -> None:
    assert OwnLines(HOSTNAME, bytes(32)).shows_a_loop(line(SALES) + LETTER, [SALES])


@pytest.mark.parametrize("fold", [b" ", b"\r\n ", b"\n\t", b"  ", b"\r\n\t "])
def test_a_line_that_was_folded_anew_is_still_ours(fold: bytes) -> None:
    """Some servers write the header of what they forward once more."""
    refolded = re.sub(rb"\r\n\t| (?!\+)", fold, line(SALES).removesuffix(b"\r\n"))
    assert OURS.shows_a_loop(refolded + b"\r\n" + LETTER, [SALES])


def test_marks_tell_nothing() -> None:
    """Not that two messages went to one alias, nor which; of several recipients not even how many."""
    marks = [OURS.mark(f"{number:020x}", [SALES]) for number in range(50)]
    assert len({mark[:10] for mark in marks}) == len({mark[10:] for mark in marks}) == 50
    assert OURS.mark(ID, [SALES, HELP]) == OURS.mark(ID, [SALES, HELP, Address("ali", "alias.example")])
    assert OURS.mark(ID, [SALES])[:10] == OURS.mark(ID, [HELP])[:10]
    assert OURS.mark(ID, [SALES]) != OURS.mark(ID, [HELP])


@given(st.text(min_size=1, max_size=60), st.text(max_size=60))
def test_any_recipient_can_be_marked(local_part: str, domain: str) -> None:
    recipient = Address(local_part, domain)
    head = line(recipient)
    assert count_received(head) == 1
    assert OURS.shows_a_loop(head, [recipient])


def test_a_key_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16 octets"):
        OwnLines(HOSTNAME, b"short")


def seconds(head: bytes, recipients: Sequence[Address]) -> float:
    """What a look at this header section costs, of the best of a few."""
    spans = []
    for _ in range(5):
        began = time.thread_time()
        OURS.shows_a_loop(head, recipients)
        spans.append(time.thread_time() - began)
    return min(spans)


def test_hostile_header_sections_are_cheap() -> None:
    """As large as reception keeps, with a hundred recipients: a hundredth of a second is ten times what they need."""
    many = [Address(f"a{number}", "alias.example") for number in range(100)]
    size = 64 * 1024
    for piece in (
        b"X: " + HOSTNAME.encode() + b"\r\n",
        HOSTNAME.encode(),
        HOSTNAME.encode() + b"    with    " + b"E" * 19,
        HOSTNAME.encode() + b" with E id " + b"0" * 41,
        line(SALES).replace(b"(", b"(0"),
        line(SALES).replace(ID.encode(), b"1" * 20),
    ):
        head = (piece * (size // len(piece) + 1))[:size]
        assert seconds(head, many) < 0.01
