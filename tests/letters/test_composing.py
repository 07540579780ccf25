"""A letter as a message: read by another program, it says what was written, and nothing else."""

import email
import re
from dataclasses import replace
from email.message import EmailMessage
from email.policy import SMTPUTF8
from email.utils import parsedate_to_datetime

import pytest
from values import NOW

from appliance.forwarding.trace import LINE_OCTETS
from appliance.letters.composing import compose_letter
from appliance.model.letter import Letter
from smtp.address import Address

LINK = "https://a-house-with-a-rather-long-name.example.org:8443/#/confirm-destination?token=" + "x-" * 22
LETTER = Letter(
    "ada@people.test",
    "Verify your address (mx.onward.test)",
    f"Somebody, hopefully you, has signed up at mx.onward.test with this address. This line is long.\n\n"
    f"To verify it, open this\nwithin seven days:\n\n{LINK}\n\nIf it was not you, do nothing.\n",
)


def octets(letter: Letter = LETTER) -> bytes:
    return compose_letter(
        letter,
        to=Address.parse(letter.recipient),
        message_id="0123456789abcdef0123",
        now=NOW,
        hostname="mx.onward.test",
        sender="postmaster@mx.onward.test",
    )


def read(letter: Letter = LETTER) -> EmailMessage:
    """As another program reads it."""
    message = email.message_from_bytes(octets(letter), policy=SMTPUTF8)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return message


def test_it_has_what_a_message_must_have_and_says_that_a_program_wrote_it() -> None:
    message = read()
    # In this order, each once.
    assert message.keys() == [
        "From",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "Auto-Submitted",
        "MIME-Version",
        "Content-Type",
        "Content-Transfer-Encoding",
    ]
    (sender,) = message["From"].addresses
    assert (sender.display_name, sender.addr_spec) == ("mx.onward.test", "postmaster@mx.onward.test")
    assert [str(each) for each in message["To"].addresses] == ["ada@people.test"]
    assert message["Subject"] == LETTER.subject
    assert parsedate_to_datetime(message["Date"]).timestamp() * 1000 == NOW
    assert message["Message-ID"] == "<0123456789abcdef0123@mx.onward.test>"
    # RFC 3834 §5.
    assert message["Auto-Submitted"] == "auto-generated"
    assert (message.get_content_type(), message.get_content_charset()) == ("text/plain", "us-ascii")


def test_its_words_are_all_there_in_short_lines_and_its_link_is_whole() -> None:
    text = read().get_content().replace("\r\n", "\n")
    assert text.split() == LETTER.text.split()
    paragraphs = text.strip().split("\n\n")
    assert len(paragraphs) == 4
    assert paragraphs[2] == LINK
    assert max(len(line) for line in text.split("\n") if line != LINK) <= 78


def test_lines_end_as_in_mail() -> None:
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", octets())
    assert octets().endswith(b"do nothing.\r\n")


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": "Darf Post für bücher.example an dich weitergeleitet werden? " + "ü" * 60},
        {"subject": "日本語" * 40},
        {"text": f"Jemand möchte Post für bücher.example weiterleiten. {'ö' * 900}\n\n{LINK}=3D\n\nGrüße \n"},
        {"text": "x" * 5000 + "\n"},
        {"text": ".\n\n..\n\nFrom here on\n\n.end\n"},
    ],
)
def test_whatever_is_written_travels_in_seven_bits_and_arrives(changes: dict[str, str]) -> None:
    letter = replace(LETTER, **changes)
    assert octets(letter).isascii()
    assert max(map(len, octets(letter).split(b"\r\n"))) <= LINE_OCTETS
    # RFC 2047 §2: so long may an encoded-word be.
    assert all(len(word) <= 75 for word in re.findall(rb"=\?\S+\?=", octets(letter)))
    assert read(letter)["Subject"] == letter.subject
    assert read(letter).get_content().split() == letter.text.split()


def test_an_address_beyond_ascii_stands_as_it_is() -> None:
    message = read(replace(LETTER, recipient="jörg@bücher.test"))
    assert str(message["To"]) == "jörg@bücher.test"


def test_a_very_long_subject_is_cut() -> None:
    subject = read(replace(LETTER, subject="a b " * 500))["Subject"]
    assert 100 < len(subject) <= 200


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\x85", "\u2028", "\x0b", "\x00"])
def test_no_word_begins_a_field_or_a_line_of_its_own(end: str) -> None:
    evil = f"Hello{end}Bcc: eve@people.test{end}{end}<html>"
    message = read(replace(LETTER, subject=evil, text=f"{evil}\n\nThe end.\n"))
    assert message["Bcc"] is None
    assert message.keys() == read().keys()
    assert "\x00" not in message.get_content()
