"""Composing a delivery status notification: one multipart/report of RFC 6522 with the fields of RFC 3464.

Bounces and the reports about what came back to a rewritten sender are written here and nowhere else, as octets and by
hand: CRLF, seven bits, no line beyond the limits. Whatever comes in from outside passes `_plain`, so that no value can
begin a line or a header field of its own.

There is no Remote-MTA field and no other place where the next hop could be named: who that is, is the alias's secret.
"""

import re
import secrets
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from appliance.forwarding.trace import LINE_COLUMNS, format_date

LINE_OCTETS = 998
"""RFC 5322 §2.1.1: no line is longer than this, without its CRLF."""

ORIGINAL_HEADER_OCTETS = 16 * 1024
"""How much of the original's header section goes back to its sender: enough to know the message again, and no lever
for having us send large mail to somebody else."""

_NOT_PLAIN = re.compile(r"[^ -~]", re.ASCII)
_NOT_PLAIN_OCTETS = re.compile(rb"[^\t -~]")

RandomBits = Callable[[int], int]
"""So many bits that nobody can guess."""


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who writes our reports."""

    hostname: str
    """The reporting MTA, as in our greeting."""
    address: str
    """In From: where an answer would go."""


@dataclass(frozen=True, slots=True)
class RecipientStatus:
    """What became of the message for one recipient: one group of per-recipient fields (RFC 3464 §2.3)."""

    address: str
    """The alias: Final-Recipient as far as the sender is concerned."""
    status: str
    """RFC 3463, class 4 or 5."""
    diagnostic: str | None
    """`550 5.1.1 No such user`, already fit for strangers; None where no server has said anything."""
    last_attempt_at: int | None


@dataclass(frozen=True, slots=True)
class FailureReport:
    """Everything that a report of a failed delivery says."""

    message_id: str
    """The id of the report as a message of our own."""
    at: int
    to: str
    """The sender of what failed."""
    subject: str
    paragraphs: Sequence[str]
    """For people. One that begins with a space stands indented and unbroken."""
    recipients: Sequence[RecipientStatus]
    arrived_at: int | None
    original: bytes | None
    """The header section of what failed, with or without its blank line; None where we do not have it any more."""


def compose_report(report: FailureReport, reporter: Reporter, randbits: RandomBits = secrets.randbits) -> bytes:
    """The whole message, ready to be sent from the null reverse-path (RFC 3464 §2)."""
    # The parts contain text of the original's sender, who can't foresee 128 bits.
    boundary = f"onward-{randbits(128):032x}"
    lines = [
        *_field("From", f"Mail Delivery System <{reporter.address}>"),
        *_field("To", f"<{report.to}>"),
        *_field("Subject", report.subject),
        *_field("Date", format_date(report.at)),
        *_field("Message-ID", f"<{report.message_id}@{reporter.hostname}>"),
        # RFC 3834 §5: what makes programs on the other side not answer.
        *_field("Auto-Submitted", "auto-replied"),
        *_field("MIME-Version", "1.0"),
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary}"',
        "",
        "This is a report of a mail server, for mail programs that know MIME.",
        f"--{boundary}",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        *_prose(report.paragraphs),
        f"--{boundary}",
        "Content-Type: message/delivery-status",
        "",
        *_status_fields(report, reporter),
    ]
    octets = "\r\n".join(lines).encode("ascii")
    if report.original is not None:
        octets += f"\r\n--{boundary}\r\nContent-Type: text/rfc822-headers\r\n\r\n".encode("ascii")
        octets += _original(report.original)
    return octets + f"\r\n--{boundary}--\r\n".encode("ascii")


def _status_fields(report: FailureReport, reporter: Reporter) -> list[str]:
    # RFC 3464 §2.2: Reporting-MTA is the one that must be there.
    lines = _field("Reporting-MTA", f"dns; {reporter.hostname}")
    if report.arrived_at is not None:
        lines += _field("Arrival-Date", format_date(report.arrived_at))
    for recipient in report.recipients:
        # RFC 3464 §2.3: Final-Recipient, Action and Status must be there.
        lines += ["", *_field("Final-Recipient", f"rfc822; {recipient.address}")]
        lines += [*_field("Action", "failed"), *_field("Status", recipient.status)]
        if recipient.diagnostic is not None:
            lines += _field("Diagnostic-Code", f"smtp; {recipient.diagnostic}")
        if recipient.last_attempt_at is not None:
            lines += _field("Last-Attempt-Date", format_date(recipient.last_attempt_at))
    return [*lines, ""]


def _field(name: str, value: str) -> list[str]:
    """One header field, folded at its spaces."""
    return _wrapped(f"{name}: {_plain(value)}", indent="\t")


def _prose(paragraphs: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for paragraph in paragraphs:
        text = _plain(paragraph)
        lines += [text] if text.startswith(" ") else _wrapped(text, indent="")
        lines.append("")
    return lines


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        LINE_COLUMNS,
        subsequent_indent=indent,
        # A tab would be counted, and written, as eight spaces.
        expand_tabs=False,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _plain(text: str) -> str:
    """Printable ASCII, on one line that is not too long."""
    return _NOT_PLAIN.sub("?", text)[: LINE_OCTETS - 100]


def _original(section: bytes) -> bytes:
    """The header lines of what failed, as seven-bit text.

    Octets beyond ASCII and controls become question marks: text/rfc822-headers is seven-bit, the form for others
    (message/global-headers, RFC 6533) is unknown to most programs, and an encoded part hides from a person's eyes the
    one thing that this part is for: to know one's message again.
    """
    lines = section[:ORIGINAL_HEADER_OCTETS].split(b"\n")
    if len(section) > ORIGINAL_HEADER_OCTETS:
        # The last one was cut in the middle.
        lines.pop()
    cleaned = (_NOT_PLAIN_OCTETS.sub(b"?", line.removesuffix(b"\r")[:LINE_OCTETS]) for line in lines)
    # Without empty lines: the first of them would end the header section for who reads it.
    return b"".join(line + b"\r\n" for line in cleaned if line.strip())
