"""A multipart/report as another program reads it: the standard library's parser, as the oracle of our own composing."""

from dataclasses import dataclass
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any


@dataclass(frozen=True, slots=True)
class ReadReport:
    """What the parser made of it."""

    message: EmailMessage
    types: list[str]
    """Of its parts, in order."""
    text: str
    """The first part, with its lines joined to one."""
    of_message: Any
    """The per-message fields of the second part."""
    of_recipients: list[Any]
    original: str | None
    """The third part, where there is one."""


def read_report(octets: bytes) -> ReadReport:
    """Read it, and find no fault with it."""
    message = BytesParser(policy=policy.SMTP).parsebytes(octets)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    parts: list[Any] = list(message.iter_parts())
    of_message, *of_recipients = parts[1].get_payload()
    original = parts[2].get_payload() if len(parts) > 2 else None
    types = [part.get_content_type() for part in parts]
    return ReadReport(message, types, " ".join(parts[0].get_content().split()), of_message, of_recipients, original)


def assert_well_formed(octets: bytes, *, utf8: bool = False) -> None:
    """Seven bits (or UTF-8), CRLF, and no line beyond 998 octets."""
    assert octets.endswith(b"\r\n")
    text = octets.decode("utf-8" if utf8 else "ascii")
    assert {ord(character) for character in text if character < " " or character == "\x7f"} <= {9, 10, 13}
    assert octets.count(b"\r\n") == octets.count(b"\r") == octets.count(b"\n")
    assert all(len(line) <= 998 for line in octets.split(b"\r\n"))
