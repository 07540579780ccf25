"""The five delivery events: everything the log can ever say about a message.

The words are those of the logging policy (and of the API); there is no sixth.
"""

from enum import Enum

from msgspec import Struct


class EventType(Enum):
    """What happened to a message, for one recipient."""

    RECEIVED = "RECEIVED"
    DELIVERED = "DELIVERED"
    SOFT_BOUNCED = "SOFT_BOUNCED"
    HARD_BOUNCED = "HARD_BOUNCED"
    REFUSED = "REFUSED"


ERROR_EVENTS = frozenset({EventType.SOFT_BOUNCED, EventType.HARD_BOUNCED, EventType.REFUSED})
"""What the log level `errors` keeps, and what `log.error_retention` governs."""


class DeliveryEvent(Struct, frozen=True):
    """One event with its data points. Never content.

    Each event carries its own copy of the message's data points, so that it can be erased on its own day without a
    second record to keep in step.
    """

    id: str
    message_id: str
    """The id that the sender was told in the 250; the events of one message for all its recipients share it."""
    domain_id: str
    at: int
    type: EventType
    sender: str
    """The envelope sender as it came; empty for the null reverse-path."""
    recipient: str
    """The address that the sender wrote to: the alias, never a destination."""
    size: int
    """Octets of content as received; what SIZE declared for a refusal, 0 where nothing was declared."""
    code: int
    """The SMTP reply code; 0 where there was no reply."""
    enhanced_code: str | None
    """RFC 3463, such as 5.1.1."""
    reason: str
    """A stable word to search for, such as `alias-unknown`."""
    response: str
    """Ours when received or refused, else the destination server's, with the destination's address masked."""
    attempt: int
    duration_ms: int
    client_address: str | None = None
    client_name: str | None = None
    subject: str | None = None
    server_name: str | None = None
    server_address: str | None = None
    tls: str | None = None
    """How the connection of an attempt was encrypted, in the words of `Answer.tls`; None where no TLS was to be had, or
    where there was no connection."""
