"""A bounce: telling the sender that a message will not arrive, and why, without telling where it was going.

What a sender gets to see is the address that they wrote to, our words for what happened, the codes, and their own
header lines. The server's words stand there only where `appliance.forwarding.masking` is sure of them.
"""

import re
import secrets

from appliance.forwarding.masking import fit_for_strangers
from appliance.forwarding.trace import LINE_OCTETS, field
from appliance.model.delivery import Answer, Delivery
from appliance.reports.composing import (
    RandomBits,
    RecipientStatus,
    Report,
    Reporter,
    compose_report,
    in_ascii,
)
from appliance.reports.explanations import (
    FAILED_BY_OPERATOR,
    OPERATORS_DECISION,
    explain,
    registered_status,
    span_in_words,
)

HEADER_LIMIT = 64 * 1024
"""How much of a message is read to see whether it may bounce, and to show its header to its sender."""

WHOLE_OCTETS = 64 * 1024
"""How large a message may be that goes back whole. RET=FULL is a wish (RFC 3461 §4.3), whoever sends has the message
still, and a server that sends large mail to whomever a stranger names is a tool for strangers."""

EXPIRED = "expired"
"""The reason of an answer that was the last one only because the schedule came to its end."""

WORDS_WITHHELD = "(the server's own words are not passed on)"
"""In Diagnostic-Code, behind the codes, where the server's words might name the mailbox."""

# What some servers repeat at the start of their text: the code, the enhanced code, or both.
_CODES = re.compile(r"(?:[245][0-9]{2}[ -])?\s*(?:[245]\.[0-9]{1,3}\.[0-9]{1,3}(?=\s|$))?\s*", re.ASCII)

_NOT_AUTOMATIC = re.compile(rb"no(?![\w-])", re.IGNORECASE)
_MASS_MAIL = re.compile(rb"(?:bulk|list|junk)\b", re.IGNORECASE)


def may_report(delivery: Delivery, header_section: bytes) -> bool:
    """Whether any report may go to the sender of this message, of whatever became of it."""
    # RFC 5321 §4.5.5 and §6.1: never a report about a report. And whoever stands in an envelope that failed
    # authentication has most likely not written the message.
    return delivery.sender != "" and delivery.authentication != "fail" and not is_automatic(header_section)


def is_automatic(header_section: bytes) -> bool:
    """Whether a program or a mailing list has sent this, by its header section (RFC 3834 §2).

    Other servers do send bounces for list mail, and list software counts them to find dead addresses. We do not: the
    senders of mass mail are the ones whose envelope is most often somebody else's, a report to them is what makes a
    forwarder a source of backscatter, and the owner of the alias sees the failure in the log.
    """
    submitted = field(header_section, "Auto-Submitted")
    if submitted is not None and not _NOT_AUTOMATIC.match(submitted):
        return True
    precedence = field(header_section, "Precedence")
    if precedence is not None and _MASS_MAIL.match(precedence):
        return True
    return field(header_section, "List-Id") is not None


def compose_bounce(
    *,
    message_id: str,
    now: int,
    hostname: str,
    postmaster: str,
    delivery: Delivery,
    answer: Answer,
    header_section: bytes,
    whole: bytes | None = None,
    randbits: RandomBits = secrets.randbits,
) -> bytes:
    """The bounce for a delivery that `answer` has ended, with its header: a message from the null reverse-path.

    `message_id` is the bounce's own; `hostname` and `postmaster` say who writes it. An answer that is EXPIRED, of class
    4, or X.4.7 means that the schedule came to its end; any other that the next hop or we have refused for good.
    `header_section` is the original's; `whole` is all of it where it may go back, see `may_go_back_whole`.
    """
    status = status_of(answer)
    by_operator = answer.reason == FAILED_BY_OPERATOR
    explanation = OPERATORS_DECISION if by_operator else explain(status)
    # RFC 3464 §2.3.7: when the last attempt was made, and left out where that is not known. This was none.
    last_attempt_at = None if by_operator else now
    utf8 = not delivery.sender.isascii()
    addresses = [named(recipient.address, utf8=utf8) for recipient in delivery.recipients]
    paragraphs = [
        f"This is the mail server {hostname}.",
        "Your message could not be delivered to",
        *(f"    {address}" for address in addresses),
        explanation.happened,
    ]
    if answer.reason == EXPIRED or answer.code // 100 == 4 or status.startswith("4") or status.endswith(".4.7"):
        paragraphs.append(
            f"That is a trouble of the kind that passes, so we have tried {tries_in_words(delivery, now)}."
            " We have now given up."
        )
    paragraphs += [
        explanation.advice,
        "It will not be tried again, and we keep no copy: yours is the only one that we know of. "
        + (
            "The header of the message stands at the end of this report, so that you can tell which one it is."
            if whole is None
            else "The message stands at the end of this report, as you asked for."
        ),
    ]
    diagnostic = diagnostic_of(delivery, answer, status)
    if diagnostic is not None:
        paragraphs.append(f"What the other server said: {diagnostic}")
    report = Report(
        message_id=message_id,
        at=now,
        to=delivery.sender,
        subject=f"Not delivered: your message to {addresses[0] if len(addresses) == 1 else 'several addresses'}",
        paragraphs=paragraphs,
        recipients=[
            RecipientStatus(
                recipient.address, status, diagnostic, last_attempt_at=last_attempt_at, orcpt=recipient.orcpt
            )
            for recipient in delivery.recipients
        ],
        arrived_at=delivery.accepted_at,
        original=header_section,
        whole=whole,
        envid=delivery.envid,
    )
    return compose_report(report, Reporter(hostname, postmaster), randbits)


def may_go_back_whole(delivery: Delivery, content: bytes) -> bool:
    """Whether the report of a failure may have the message in it. `content` is all of it, or longer than allowed."""
    if delivery.ret != "FULL" or len(content) > WHOLE_OCTETS or delivery.size > WHOLE_OCTETS:
        return False
    # What was to go over TLS only need not be risked for a report; its header says which message it was.
    if delivery.require_tls:
        return False
    # RFC 6533 §6: a message that needs SMTPUTF8 can stand only in a report that does. One of eight bits would make a
    # report of eight bits, which a next hop without 8BITMIME fails; then the sender would be told nothing at all.
    if delivery.sender.isascii() and (delivery.utf8 or not content.isascii()):
        return False
    # RFC 5322 §2.1.1: mail of our own has no longer lines, whoever wrote them.
    return all(len(line) <= LINE_OCTETS + 1 for line in content.split(b"\n"))


def named(address: str, *, utf8: bool) -> str:
    """What a report calls an address."""
    return address if utf8 else in_ascii(address)


def status_of(answer: Answer) -> str:
    """The enhanced status code of a delivery that has not succeeded. One that says success can't be meant."""
    status = registered_status(answer.enhanced_code)
    if status is not None and not status.startswith("2"):
        return status
    if answer.code == 0 and answer.reason == EXPIRED:
        # RFC 3463 §3.5, X.4.7: all that is known is that the time is over.
        return "4.4.7"
    return "4.0.0" if answer.code // 100 == 4 else "5.0.0"


def tries_in_words(delivery: Delivery, now: int) -> str:
    """How often it was tried, and over how long a time: `12 times in 5 days`."""
    tries = "once" if delivery.attempts <= 1 else f"{delivery.attempts} times"
    return f"{tries} in {span_in_words(now - delivery.accepted_at)}"


def diagnostic_of(delivery: Delivery, answer: Answer, status: str) -> str | None:
    """What the server said, as far as the sender may know; None where no server said anything."""
    # An answer may have a code and be our own, such as for a domain that does not exist.
    if answer.code == 0 or answer.server_name is None:
        return None
    # RFC 3463 §2: the classes of both codes agree. They do not where giving up has made a 5 of the server's 4.
    codes = f"{answer.code} {status}" if status[0] == str(answer.code)[0] else str(answer.code)
    words = answer.text[match.end() :] if (match := _CODES.match(answer.text)) else answer.text
    return f"{codes} {fit_for_strangers(words, delivery.target, answer.server_name) or WORDS_WITHHELD}"
