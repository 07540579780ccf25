"""Reports that come back to a rewritten sender, and what the original sender gets instead of them.

The next hop reports to the address that we gave it, and its report names the mailbox: in Final-Recipient, in the
server's words, in the copy of the message. So it is never relayed. Three things are read from it, and each is one of a
list that is known beforehand: what became of the message, the enhanced status code, and the reply code. From these a
report of our own is written that names the alias. No octet of theirs goes on.

What arrives here was written by anybody who knows the address. It is read by position and pattern, without recursion,
within named limits; nothing makes it raise.
"""

import re
import secrets
from dataclasses import dataclass, replace
from enum import Enum
from itertools import islice

from appliance.forwarding.trace import field, format_date, header_section
from appliance.reports.bounce import WORDS_WITHHELD, is_automatic, named
from appliance.reports.composing import RandomBits, RecipientStatus, Report, Reporter, compose_report
from appliance.reports.explanations import explain, registered_status

READ_OCTETS = 256 * 1024
"""How far into a report we look. Its fields stand behind a text for people, which is large only where it is HTML."""

HEADER_OCTETS = 32 * 1024
"""How much of a header section is searched."""

PART_HEADER_OCTETS = 4 * 1024
"""The header section of one part has three fields at most."""

VALUE_OCTETS = 1000
"""How much of one field's value is looked at."""

PARTS = 8
"""How many parts are looked at. RFC 6522 §3 has three."""

GROUPS = 100
"""How many groups of fields: one for the message and one for each recipient of it behind us."""


class Action(Enum):
    """What a report says about a recipient (RFC 3464 §2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


@dataclass(frozen=True, slots=True)
class ReturnedReport:
    """What could be read of a report that came back."""

    action: Action
    status: str | None = None
    """A registered enhanced status code."""
    code: int | None = None
    """The reply code of the server that refused, 400 to 559."""
    about_automatic_mail: bool = False
    """The message that it is about was sent by a program or a list, as the copy in the report says."""


_TYPE = re.compile(rb"\s*([a-z0-9.+-]{1,40}/[a-z0-9.+-]{1,80})", re.IGNORECASE)
_PARAMETER = rb';\s*%s\s*=\s*(?:"([^"\\]{1,100})"|([^\s;"]{1,100}))'
_BOUNDARY = re.compile(_PARAMETER % b"boundary", re.IGNORECASE)
_REPORT_TYPE = re.compile(_PARAMETER % b"report-type", re.IGNORECASE)
_BLANK_LINE = re.compile(rb"\n[ \t]*\r?\n")
_WORD = re.compile(rb"\s*([a-z]{1,20})", re.IGNORECASE)
_STATUS = re.compile(rb"\s*([245]\.[0-9]{1,3}\.[0-9]{1,3})(?![0-9.])")
_SMTP_CODE = re.compile(rb"\s*smtp\s*;.{0,200}?(?<![0-9.])([45][0-5][0-9])(?![0-9.])", re.IGNORECASE | re.DOTALL)

_STATUS_TYPES = frozenset({b"message/delivery-status", b"message/global-delivery-status"})
_COPY_TYPES = frozenset({b"message/rfc822", b"text/rfc822-headers", b"message/global", b"message/global-headers"})

# Reports from before RFC 3464, and from programs that never heard of it: who they come from, and the field that Exim
# has set since long ago.
_DAEMON = re.compile(rb"mailer-daemon|postmaster", re.IGNORECASE)
_DELAY = re.compile(rb"delay|warning|still being retried", re.IGNORECASE)


def read(content: bytes) -> ReturnedReport | None:
    """What a message to a rewritten sender reports.

    A report of a delivery that can't be read counts as one of a failure, for that is what nearly all of them are. None
    where the message is no such report: an absence note, a receipt, spam. Those are answered by nobody; they can't be
    passed on, because they name the mailbox, and a report made from them would be a lie.
    """
    content = content[:READ_OCTETS]
    head = header_section(content, HEADER_OCTETS)
    if _media_type(head) != b"multipart/report":
        return _read_plain(head)
    content_type = _value(head, "Content-Type")
    kind = _parameter(_REPORT_TYPE, content_type)
    if kind.lower() not in (b"", b"delivery-status"):
        return None
    boundary = _parameter(_BOUNDARY, content_type)
    return _read_parts(content[len(head) :], boundary) if boundary else ReturnedReport(Action.FAILED)


def compose_returned(
    content: bytes,
    *,
    message_id: str,
    now: int,
    hostname: str,
    postmaster: str,
    sender: str,
    alias: str | None,
    sent_at: int | None = None,
    randbits: RandomBits = secrets.randbits,
) -> bytes | None:
    """The report for the original sender in place of the `content` that came back, or None where there is none to make.

    `alias` is None where it is gone by now; `sent_at` is an instant on the day of the message, where it is known. Only
    failures are passed on: nobody asked for word of success, and a delay is either followed by a failure or was none.
    Automatic mail gets none, as with our own bounces.
    """
    report = read(content)
    if report is None or report.action is not Action.FAILED or report.about_automatic_mail:
        return None
    status = report.status if report.status and not report.status.startswith("2") else "5.0.0"
    explanation = explain(status)
    shown, address = _named(alias, hostname)
    shown = named(shown, utf8=not sender.isascii())
    diagnostic = f"{report.code} {status} {WORDS_WITHHELD}" if report.code is not None else None
    # Of the date, the day: it is all that a rewritten sender remembers.
    day = "" if sent_at is None else f" sent on or about {' '.join(format_date(sent_at).split(' ')[1:4])} (UTC)"
    paragraphs = [
        f"This is the mail server {hostname}.",
        f"Your message{day} to",
        f"    {shown}",
        "was forwarded by us, and a server behind us reports that it could not be delivered.",
        explanation.happened,
        explanation.advice,
        "We keep no copy of what we have forwarded, so the message can't be shown here. Your copy is the only one that"
        " we know of.",
    ]
    if diagnostic is not None:
        paragraphs.append(f"What the other server said: {diagnostic}")
    failure = Report(
        message_id=message_id,
        at=now,
        to=sender,
        subject=f"Not delivered: your message to {shown}",
        paragraphs=paragraphs,
        recipients=[RecipientStatus(address, status, diagnostic, last_attempt_at=None)],
        arrived_at=None,
        original=None,
    )
    return compose_report(failure, Reporter(hostname, postmaster), randbits)


def _named(alias: str | None, hostname: str) -> tuple[str, str]:
    """What the report calls the recipient: for people, and in Final-Recipient."""
    # RFC 3464 §2.3.2 wants an address. Where there is none to name, it is one of ours that stands for nobody.
    undisclosed = f"undisclosed@{hostname}"
    if alias is None:
        return "an address at this service", undisclosed
    local_part, _, domain = alias.rpartition("@")
    if local_part.endswith("*"):
        # The sender wrote to one of the addresses that a pattern takes, and has no need to learn of the pattern.
        return f"an address at {domain}", undisclosed
    return alias, alias


# ------------------------------------------------------------------ reading


def _read_parts(body: bytes, boundary: bytes) -> ReturnedReport | None:
    # RFC 2046 §5.1.1: a delimiter is a line of its own. A boundary that merely begins like ours belongs to a part
    # within a part.
    body = b"\n" + body
    delimiter = re.compile(rb"\n--" + re.escape(boundary) + rb"(?:--)?[ \t]*\r?(?=\n|\Z)")
    delimiters = list(islice(delimiter.finditer(body), PARTS + 1))
    # What stands before the first is a preamble, and what stands behind the last looks like a part and has no type.
    ends = [found.start() for found in delimiters[1:]] + [len(body)]
    report: ReturnedReport | None = None
    automatic = False
    for found, end in zip(delimiters, ends, strict=False):
        part = body[found.end() + 1 : end]
        head = header_section(part, PART_HEADER_OCTETS)
        media_type = _media_type(head)
        if media_type in _STATUS_TYPES and report is None:
            report = _read_groups(part[len(head) :])
        elif media_type in _COPY_TYPES:
            automatic = automatic or is_automatic(header_section(part[len(head) :], HEADER_OCTETS))
        elif media_type in (b"message/disposition-notification", b"message/feedback-report"):
            # RFC 6522 §3 wants a report-type. Without one, these tell what the report is.
            return None
    return replace(report or ReturnedReport(Action.FAILED), about_automatic_mail=automatic)


def _read_groups(fields: bytes) -> ReturnedReport | None:
    """The first recipient that failed, or else the first at all; None where no group says anything."""
    first: ReturnedReport | None = None
    for group in _BLANK_LINE.split(fields, maxsplit=GROUPS)[:GROUPS]:
        found = _read_group(group)
        if found and found.action is Action.FAILED:
            return found
        first = first or found
    return first


def _read_group(group: bytes) -> ReturnedReport | None:
    status_found = _STATUS.match(_value(group, "Status"))
    status = registered_status(status_found[1].decode("ascii")) if status_found else None
    action = _action(_value(group, "Action"), status)
    if action is None:
        return None
    code_found = _SMTP_CODE.match(_value(group, "Diagnostic-Code"))
    code = int(code_found[1]) if code_found else None
    if code is not None and status is None:
        status = f"{code // 100}.0.0"
    if code is not None and status is not None and status[0] != str(code // 100):
        code = None
    return ReturnedReport(action, status, code)


def _action(value: bytes, status: str | None) -> Action | None:
    word = _WORD.match(value)
    if word:
        try:
            return Action(word[1].decode("ascii").lower())
        except ValueError:
            return Action.FAILED
    if status is None:
        return None
    return Action.DELIVERED if status.startswith("2") else Action.FAILED


def _read_plain(head: bytes) -> ReturnedReport | None:
    if field(head, "X-Failed-Recipients") is None and not _DAEMON.search(_value(head, "From")):
        return None
    return ReturnedReport(Action.DELAYED if _DELAY.search(_value(head, "Subject")) else Action.FAILED)


def _value(section: bytes, name: str) -> bytes:
    return (field(section, name) or b"")[:VALUE_OCTETS]


def _media_type(head: bytes) -> bytes:
    found = _TYPE.match(_value(head, "Content-Type"))
    return found[1].lower() if found else b""


def _parameter(pattern: re.Pattern[bytes], content_type: bytes) -> bytes:
    found = pattern.search(content_type)
    return (found[1] or found[2]) if found else b""
