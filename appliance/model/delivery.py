"""A message under way: deliveries, and the outcomes of attempts.

Several of these values are made for each message, and frozen dataclasses would take five times as long to make.
(`msgspec.structs` has what `dataclasses` has for those: `replace`, `asdict`.)
"""

from enum import Enum
from typing import Self

from msgspec import Struct
from msgspec.structs import replace

from smtp.address import Address

OLDEST_EVERY = 5
"""Of what is taken out of the queue, one in so many is what has been due the longest, whatever its priority: mail of a
low one is slower beside a flood of a high one, and never stands still."""


class DeliveryState(Enum):
    """The states of a queued delivery. There is no fourth: one that is done is erased, not marked."""

    WAITING = "waiting"
    """Until `next_attempt_at`."""
    UNDER_WAY = "under_way"
    """In the hands of a courier of the running appliance; back to WAITING if that dies."""
    HELD = "held"
    """Until an operator releases it."""


class Recipient(Struct, frozen=True):
    """Whom the sender wrote to. What bounces and events name, in place of the destination."""

    address: str
    domain_id: str
    """The hosted domain, which says how much may be logged; empty for the appliance's own mail."""
    notify: str = ""
    """What the sender wants to hear (RFC 3461 §4.1): the words of NOTIFY, commas between them; empty for none."""
    orcpt: str = ""
    """Whom the sender wrote to in the first place (RFC 3461 §4.2), decoded: `rfc822;sales@example.org`."""

    def wants(self, word: str) -> bool:
        """Whether the sender wants to hear of this: `SUCCESS`, `FAILURE` or `DELAY`."""
        # RFC 3461 §4.1: where nothing was said, failures are told and successes are not; delays as the server likes.
        return word in self.notify.split(",") if self.notify else word != "SUCCESS"

    def without_success(self) -> Self:
        """The same, of whose success somebody else tells. Who wanted to hear of nothing else hears nothing then."""
        if not self.notify or not self.wants("SUCCESS"):
            return self
        left = [word for word in self.notify.split(",") if word != "SUCCESS"]
        return replace(self, notify=",".join(left) or "NEVER")


class Delivery(Struct, frozen=True):
    """What is still to be done for one destination of one queued message.

    It carries the envelope whole, so that a message is nothing but its deliveries and its content, and is gone with
    the last of them.
    """

    id: str
    message_id: str
    accepted_at: int
    size: int
    """Octets of content, with the header lines that we put in front."""
    priority: int
    sender: str
    """The envelope sender as it came; empty for the null reverse-path. Bounces go here."""
    return_path: str
    """The envelope sender towards the destination: rewritten (SRS), or empty."""
    target: Address
    """The mailbox, which no sender ever sees."""
    recipients: tuple[Recipient, ...]
    """More than one where several recipients of the message led to the same mailbox: it gets one copy."""
    eight_bit: bool
    """The content has octets above 127 (RFC 6152): it needs a next hop that offers 8BITMIME."""
    utf8: bool = False
    """It needs a next hop that offers SMTPUTF8 (RFC 6531 §3.5): for an address, or for what may be in its header. (A
    domain alone needs none: it has a form in ASCII.)"""
    require_tls: bool = False
    """The sender rather has it not delivered than sent without TLS (RFC 8689)."""
    ret: str = ""
    """How much of the message the sender wants back with a failure (RFC 3461 §4.3): FULL, HDRS, or nothing said."""
    envid: str = ""
    """The sender's own name for the transaction (RFC 3461 §4.4), decoded."""
    state: DeliveryState = DeliveryState.WAITING
    attempts: int = 0
    next_attempt_at: int = 0
    """By the steady clock (`appliance.spool.clocks`)."""
    last_response: str | None = None
    running_since: int = 0
    """What the running clock said when it was accepted: its age for the schedule's end."""
    authentication: str = ""
    """What is known of whether the sender is who it claims to be: `pass`, `fail`, or nothing."""
    delay_told: bool = False
    """The sender has been told that it takes longer."""
    held_for: str = ""
    """Why it is HELD, in words for the operator; or that it was let go although a rule is about it."""


class Answer(Struct, frozen=True):
    """What one attempt was told, and by whom: the data points that the log and a bounce are made from."""

    code: int
    """The SMTP reply code; 0 where there was no reply."""
    enhanced_code: str
    """RFC 3463; derived from the stage and code where the server sent none."""
    reason: str
    """A stable word: `delivered`, `connection-failed`, `mailbox-unavailable`, ..."""
    text: str
    """The server's words, or ours where there was no reply. It may name the destination: mask before showing."""
    server_name: str | None = None
    server_address: str | None = None
    duration_ms: int = 0
    tls: str | None = None
    """How the connection was encrypted, such as `TLSv1.3 TLS_AES_256_GCM_SHA384 verified`; `none: ` and why, where the
    server offered TLS and it came to nothing; None where there was none to be had."""


class Delivered(Struct, frozen=True):
    """The next hop has taken responsibility: 250 after the final dot."""

    answer: Answer


class Deferred(Struct, frozen=True):
    """Not now. The schedule decides when to try again, and when to give up."""

    answer: Answer


class Failed(Struct, frozen=True):
    """Never. The sender gets a bounce."""

    answer: Answer


Outcome = Delivered | Deferred | Failed
