"""Composing a delivery status notification: one multipart/report of RFC 6522 with the fields of RFC 3464.

Every report of ours is written here and nowhere else, as octets and by hand: CRLF, seven bits, no line beyond the
limits. Whatever comes in from outside passes `_Writer.plain`, so that no value can begin a line or a header field of
its own. A report to an address that is not ASCII is in UTF-8 and has the media types of RFC 6533; it needs SMTPUTF8, as
the address does.

There is no Remote-MTA field and no other place where the next hop could be named: who that is, is the alias's secret.
"""

import re
import secrets
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from appliance.forwarding.trace import LINE_COLUMNS, LINE_OCTETS, field, format_date, printable
from smtp.parameters import OriginalRecipient, format_original_recipient

ORIGINAL_HEADER_OCTETS = 16 * 1024
"""How much of the original's header section goes back to its sender: enough to know the message again, and no lever
for having us send large mail to somebody else."""

VALUE_OCTETS = LINE_OCTETS - 100
"""How long one value may be: with the name of its field it stays below the limit of a line, even as a single word."""

# RFC 5322 §3.6.4, without its quoted strings and comments: what stands in nearly every message, and nothing that could
# become more than one word of a field.
_MESSAGE_ID = re.compile(rb"<[A-Za-z0-9!#-'*+\-/=?^_`{|}~.]{1,250}@[A-Za-z0-9!#-'*+\-/=?^_`{|}~.:\[\]]{1,250}>")

_NOT_PLAIN = re.compile(r"[^ -~]", re.ASCII)
_NOT_PLAIN_OCTETS = re.compile(rb"[^\t -~]")
_NOT_TEXT_OCTETS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

_EIGHT_BIT = ("Content-Transfer-Encoding: 8bit",)

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
    """RFC 3463, class 4 or 5; 2 where it tells of a success."""
    diagnostic: str | None
    """`550 5.1.1 No such user`, already fit for strangers; None where no server has said anything."""
    last_attempt_at: int | None
    action: Literal["failed", "delayed", "relayed"] = "failed"
    """RFC 3464 §2.3.3."""
    will_retry_until: int | None = None
    """RFC 3464 §2.3.9: for what is delayed only."""
    orcpt: str = ""
    """What the sender said in ORCPT, decoded: the type, a semicolon, the address."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a report says."""

    message_id: str
    """The id of the report as a message of our own."""
    at: int
    to: str
    """The sender of the message that it is about."""
    subject: str
    paragraphs: Sequence[str]
    """For people. One that begins with a space stands indented and unbroken."""
    recipients: Sequence[RecipientStatus]
    arrived_at: int | None
    original: bytes | None
    """The header section of it, with or without its blank line; None where we do not have it any more."""
    whole: bytes | None = None
    """The whole of it, in place of its header section, for a sender who has asked for that (RFC 3461 §4.3)."""
    envid: str = ""
    """What the sender called the transaction (RFC 3461 §4.4), decoded."""


def compose_report(report: Report, reporter: Reporter, randbits: RandomBits = secrets.randbits) -> bytes:
    """The whole message, ready to be sent from the null reverse-path (RFC 3464 §2)."""
    return _Writer(utf8=not report.to.isascii()).report(report, reporter, randbits)


def in_ascii(address: str) -> str:
    """An address for who may not be able to show it otherwise: what is not ASCII as `\\x{F6}` (RFC 6533 §3)."""
    return address if address.isascii() else _escaped(address)


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes one report, in seven bits or in UTF-8."""

    utf8: bool

    def report(self, report: Report, reporter: Reporter, randbits: RandomBits) -> bytes:
        # The parts contain text of the original's sender, who can't foresee 128 bits.
        boundary = f"onward-{randbits(128):032x}"
        original = self.original(report)
        # RFC 2045 §6.4: where a part has eight bits, what contains it says so, too.
        eight_bit = self.utf8 or not original.isascii()
        lines = [
            *self.field("From", f"Mail Delivery System <{reporter.address}>"),
            *self.field("To", f"<{report.to}>"),
            *self.field("Subject", report.subject),
            *self.field("Date", format_date(report.at)),
            *self.field("Message-ID", f"<{report.message_id}@{reporter.hostname}>"),
            *self.thread(report),
            # RFC 3834 §5: what makes programs on the other side not answer.
            *self.field("Auto-Submitted", "auto-replied"),
            *self.field("MIME-Version", "1.0"),
            "Content-Type: multipart/report; report-type=delivery-status;",
            f'\tboundary="{boundary}"',
            *(_EIGHT_BIT if eight_bit else ()),
            "",
            "This is a report of a mail server, for mail programs that know MIME.",
            f"--{boundary}",
            f"Content-Type: text/plain; charset={'utf-8' if self.utf8 else 'us-ascii'}",
            *(_EIGHT_BIT if self.utf8 else ()),
            "",
            *self.prose(report.paragraphs),
            f"--{boundary}",
            # RFC 6533 §4.
            f"Content-Type: message/{'global-' if self.utf8 else ''}delivery-status",
            *(_EIGHT_BIT if self.utf8 else ()),
            "",
            *self.status_fields(report, reporter),
        ]
        octets = "\r\n".join(lines).encode("utf-8" if self.utf8 else "ascii")
        if original:
            octets += f"\r\n--{boundary}\r\n".encode("ascii") + original
        return octets + f"\r\n--{boundary}--\r\n".encode("ascii")

    def thread(self, report: Report) -> list[str]:
        """What puts the report beside the message that it is about (RFC 3834 §3.1.6), where that has an id."""
        found = _MESSAGE_ID.fullmatch(field(report.original or b"", "Message-ID") or b"")
        if found is None:
            return []
        message_id = found[0].decode("ascii")
        return [*self.field("In-Reply-To", message_id), *self.field("References", message_id)]

    def status_fields(self, report: Report, reporter: Reporter) -> list[str]:
        lines = []
        if report.envid:
            # RFC 3464 §2.2.1: as it was before it was put into xtext.
            lines += self.field("Original-Envelope-Id", report.envid)
        # RFC 3464 §2.2: Reporting-MTA is the one that must be there.
        lines += self.field("Reporting-MTA", f"dns; {reporter.hostname}")
        if report.arrived_at is not None:
            lines += self.field("Arrival-Date", format_date(report.arrived_at))
        for recipient in report.recipients:
            lines.append("")
            if recipient.orcpt:
                address_type, _, address = recipient.orcpt.partition(";")
                lines += self.field("Original-Recipient", self.typed(address_type, address))
            # RFC 3464 §2.3: Final-Recipient, Action and Status must be there.
            lines += self.field("Final-Recipient", self.typed("rfc822", recipient.address))
            lines += [*self.field("Action", recipient.action), *self.field("Status", recipient.status)]
            if recipient.diagnostic is not None:
                lines += self.field("Diagnostic-Code", f"smtp; {recipient.diagnostic}")
            if recipient.last_attempt_at is not None:
                lines += self.field("Last-Attempt-Date", format_date(recipient.last_attempt_at))
            if recipient.will_retry_until is not None:
                lines += self.field("Will-Retry-Until", format_date(recipient.will_retry_until))
        return [*lines, ""]

    def typed(self, address_type: str, address: str) -> str:
        """An address with its type (RFC 3464 §2.1.2). Out of ORCPT it comes decoded, and stays so."""
        if address.isascii() and address_type.lower() != "utf-8":
            return f"{address_type}; {address}"
        # RFC 6533 §3: such an address has a type of its own, and in seven bits an encoding.
        return f"utf-8; {address if self.utf8 else _escaped(address)}"

    def original(self, report: Report) -> bytes:
        """The third part, with its header; empty for none.

        A header section in seven bits has question marks for octets beyond ASCII: text/rfc822-headers is no place for
        them, the form that is (RFC 6533 §6) is unknown to most programs of those whose own address is ASCII, and an
        encoded part hides from a person's eyes the one thing that this part is for: to know one's message again.
        """
        if report.whole is not None:
            content = report.whole
            media_type = "message/global" if self.utf8 and not content.isascii() else "message/rfc822"
        elif report.original is not None:
            content = _header_lines(report.original, self.utf8)
            media_type = "text/rfc822-headers" if content.isascii() else "message/global-headers"
        else:
            return b""
        lines = [f"Content-Type: {media_type}", *(() if content.isascii() else _EIGHT_BIT), "", ""]
        return "\r\n".join(lines).encode("ascii") + content

    def field(self, name: str, value: str) -> list[str]:
        """One header field, folded at its spaces."""
        return _wrapped(f"{name}: {self.plain(value)}", indent="\t")

    def prose(self, paragraphs: Sequence[str]) -> list[str]:
        lines: list[str] = []
        for paragraph in paragraphs:
            text = self.plain(paragraph)
            lines += [text] if text.startswith(" ") else _wrapped(text, indent="")
            lines.append("")
        return lines

    def plain(self, text: str) -> str:
        """What can be shown, on one line that is not too long."""
        if not self.utf8:
            return _NOT_PLAIN.sub("?", text)[:VALUE_OCTETS]
        return printable(text).encode("utf-8", "replace")[:VALUE_OCTETS].decode("utf-8", "ignore")


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


def _escaped(address: str) -> str:
    _, _, encoded = format_original_recipient(OriginalRecipient("utf-8", address)).partition(";")
    return encoded


def _header_lines(section: bytes, utf8: bool) -> bytes:
    """The lines of a header section, with question marks for what can't stand in ASCII, or in UTF-8."""

    def fit(line: bytes) -> bytes:
        if not utf8:
            return _NOT_PLAIN_OCTETS.sub(b"?", line)
        return _NOT_TEXT_OCTETS.sub(b"?", line.decode("utf-8", "replace").replace("\ufffd", "?").encode("utf-8"))

    lines = section[:ORIGINAL_HEADER_OCTETS].split(b"\n")
    if len(section) > ORIGINAL_HEADER_OCTETS:
        # The last one was cut in the middle.
        lines.pop()
    cleaned = (fit(line.removesuffix(b"\r")[:LINE_OCTETS]) for line in lines)
    # Without empty lines: the first of them would end the header section for who reads it.
    return b"".join(line + b"\r\n" for line in cleaned if line.strip())
