"""A notice of delay: telling the sender that a message has not arrived yet, and that nothing has to be done.

People who get one should not take it for a failure, nor send the message again. What they see of the next hop is what a
bounce would show them (`bounce.py`).
"""

import secrets

from appliance.forwarding.trace import format_date
from appliance.model.delivery import Answer, Delivery
from appliance.reports.bounce import diagnostic_of, named, status_of, tries_in_words
from appliance.reports.composing import RandomBits, RecipientStatus, Report, Reporter, compose_report
from appliance.reports.explanations import explain


def compose_delayed(
    *,
    message_id: str,
    now: int,
    hostname: str,
    postmaster: str,
    delivery: Delivery,
    answer: Answer,
    until: int,
    header_section: bytes,
    randbits: RandomBits = secrets.randbits,
) -> bytes:
    """The notice for a delivery that `answer` has put off once more; it is tried `until` an instant by the wall clock.

    See `bounce.compose_bounce` for the rest.
    """
    status = status_of(answer)
    if not status.startswith("4"):
        # RFC 3464 §2.3.4: of what is still tried, the status is a transient one.
        status = "4.0.0"
    addresses = [named(recipient.address, utf8=not delivery.sender.isascii()) for recipient in delivery.recipients]
    hears_more = all(recipient.wants("FAILURE") for recipient in delivery.recipients)
    diagnostic = diagnostic_of(delivery, answer, status)
    paragraphs = [
        f"This is the mail server {hostname}.",
        "Your message to",
        *(f"    {address}" for address in addresses),
        "has not arrived yet. You do not have to do anything: we keep it, and go on trying.",
        f"We have tried {tries_in_words(delivery, now)}. {explain(status).happened}",
        f"We go on until {_in_words(until)}."
        + (" If it can't be delivered by then, you get another report." if hears_more else ""),
        "Please do not send it again meanwhile, or it may arrive twice.",
    ]
    if diagnostic is not None:
        paragraphs.append(f"What the other server said: {diagnostic}")
    report = Report(
        message_id=message_id,
        at=now,
        to=delivery.sender,
        subject=f"Delayed: your message to {addresses[0] if len(addresses) == 1 else 'several addresses'}",
        paragraphs=paragraphs,
        recipients=[
            RecipientStatus(
                recipient.address,
                status,
                diagnostic,
                last_attempt_at=now,
                action="delayed",
                will_retry_until=until,
                orcpt=recipient.orcpt,
            )
            for recipient in delivery.recipients
        ],
        arrived_at=delivery.accepted_at,
        # RFC 3461 §4.3: RET asks for the whole message where it has failed, and only there.
        original=header_section,
        envid=delivery.envid,
    )
    return compose_report(report, Reporter(hostname, postmaster), randbits)


def _in_words(instant: int) -> str:
    """`Mon, 21 Sep 2026, 14:13 (UTC)`."""
    *date, time, _ = format_date(instant).split(" ")
    return f"{' '.join(date)}, {time[:5]} (UTC)"
