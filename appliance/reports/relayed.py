"""A report of success, for a sender who has asked for one: the message has been handed over.

RFC 3461 §5.2.7.3 lets whoever keeps a forwarding address to himself answer for the address that was written to, and
pass no wish for a report on. What we know is that the next hop has taken the message, and that it will tell nobody,
because it was not asked to: that is what the action `relayed` says (RFC 3464 §2.3.3). Who the next hop was, nobody
learns.

One of an address's copies tells of its success, whichever mailbox it went to (`Recipient.without_success`). A failure
may still follow, of that copy or of another: with one mailbox it is the same, where the next hop's own report comes
back. To wait until all copies are done would take a memory of those that are gone, and to be silent about one that
fails would lose it. So who has asked for everything may find out that an alias has several mailboxes, and never which.
"""

import secrets

from appliance.model.delivery import Delivery
from appliance.reports.bounce import named
from appliance.reports.composing import RandomBits, RecipientStatus, Report, Reporter, compose_report


def compose_relayed(
    *,
    message_id: str,
    now: int,
    hostname: str,
    postmaster: str,
    delivery: Delivery,
    header_section: bytes,
    randbits: RandomBits = secrets.randbits,
) -> bytes:
    """The report for a delivery that the next hop has taken, about all its recipients. See `bounce.compose_bounce`."""
    addresses = [named(recipient.address, utf8=not delivery.sender.isascii()) for recipient in delivery.recipients]
    report = Report(
        message_id=message_id,
        at=now,
        to=delivery.sender,
        subject=f"Handed over: your message to {addresses[0] if len(addresses) == 1 else 'several addresses'}",
        paragraphs=[
            f"This is the mail server {hostname}.",
            "You asked to be told of your message to",
            *(f"    {address}" for address in addresses),
            "The mail server behind that address has taken it. It has not been asked to report to you, so this is the"
            " last that you hear of it, unless it comes back after all.",
        ],
        # RFC 3461 §5.2.2: a report of success; the class says no more than that (RFC 3463 §3.1).
        recipients=[
            RecipientStatus(
                recipient.address, "2.0.0", None, last_attempt_at=now, action="relayed", orcpt=recipient.orcpt
            )
            for recipient in delivery.recipients
        ],
        arrived_at=delivery.accepted_at,
        original=header_section,
        envid=delivery.envid,
    )
    return compose_report(report, Reporter(hostname, postmaster), randbits)
