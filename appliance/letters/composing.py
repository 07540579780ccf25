"""A letter as a message of RFC 5322: text/plain in seven bits, written by hand as all mail of ours.

Whatever comes in passes `printable`, so that no value can begin a line or a header field of its own. What it returns is
whole and final: whoever signs mail of our own has these octets to sign.
"""

import base64
import quopri
import textwrap

from appliance.forwarding.trace import LINE_COLUMNS, LINE_OCTETS, format_date, printable
from appliance.model.letter import Letter
from smtp.address import Address

SUBJECT_CHARACTERS = 200
"""What is beyond is cut: an address may stand in a subject, and nothing longer."""

WORD_OCTETS = 45
"""Of UTF-8 in one encoded-word: in base64 with what is round it that makes 72 of the 75 that RFC 2047 §2 allows."""


def compose_letter(letter: Letter, *, to: Address, message_id: str, now: int, hostname: str, sender: str) -> bytes:
    """The whole message. `to` is the recipient as it is to be shown; one that is not ASCII makes the header UTF-8,
    which needs SMTPUTF8 (RFC 6532 §3), as the address does. `message_id` is ours for it, `sender` who it is from.
    """
    charset, encoding, body = _body(wrapped(letter.text))
    lines = [
        # A quoted string, because of the dots in the name (RFC 5322 §3.2.5).
        f'From: "{hostname}" <{sender}>',
        f"To: <{to}>",
        *subject_lines(letter.subject),
        f"Date: {format_date(now)}",
        f"Message-ID: <{message_id}@{hostname}>",
        # RFC 3834 §5: a program has written it, and it answers nothing. So nobody's absence is told to it.
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        f"Content-Type: text/plain; charset={charset}",
        f"Content-Transfer-Encoding: {encoding}",
        "",
        "",
    ]
    return "\r\n".join(lines).encode("utf-8") + body


def wrapped(text: str) -> str:
    """The text in lines that are not too long, each ending with LF. A word that is longer stays whole."""
    paragraphs = (printable(" ".join(paragraph.split())) for paragraph in text.strip().split("\n\n"))
    return "\n\n".join("\n".join(_wrapped(paragraph)) for paragraph in paragraphs) + "\n"


def shown_subject(subject: str) -> str:
    """A subject on one line that is not too long."""
    return printable(subject)[:SUBJECT_CHARACTERS]


def subject_lines(subject: str) -> list[str]:
    """The Subject field, folded. Outside ASCII it is in encoded-words (RFC 2047), which everybody can read."""
    shown = shown_subject(subject)
    if shown.isascii():
        return _wrapped(f"Subject: {shown}", indent="\t")
    # Between encoded-words the fold is no part of the text (RFC 2047 §6.2).
    first, *others = (f"=?utf-8?b?{base64.b64encode(piece).decode('ascii')}?=" for piece in _pieces(shown))
    return [f"Subject: {first}", *(f"\t{word}" for word in others)]


def _pieces(text: str) -> list[bytes]:
    """The text in UTF-8, in pieces of whole characters (RFC 2047 §5), each of which fits into one encoded-word."""
    pieces = [b""]
    for character in text:
        octets = character.encode("utf-8")
        if len(pieces[-1]) + len(octets) > WORD_OCTETS:
            pieces.append(b"")
        pieces[-1] += octets
    return pieces


def _body(text: str) -> tuple[str, str, bytes]:
    """The body with its charset and encoding: in seven bits, because not every next hop takes eight (RFC 6152)."""
    octets = text.encode("utf-8")
    if text.isascii() and max(map(len, octets.split(b"\n"))) <= LINE_OCTETS:
        return "us-ascii", "7bit", octets.replace(b"\n", b"\r\n")
    return "utf-8", "quoted-printable", quopri.encodestring(octets).replace(b"\n", b"\r\n")


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, LINE_COLUMNS, subsequent_indent=indent, expand_tabs=False, break_long_words=False, break_on_hyphens=False
    )
