"""What may be said of a message: events, cut down to the log level of the recipient's domain.

At `none` nothing is made at all; at `errors` only soft-bounced, hard-bounced and refused events exist, without the
client's address and name and without the subject; at `events` all five with all their data points.
"""

from collections.abc import Callable
from dataclasses import dataclass

from appliance.logbook.counts import Counts
from appliance.model.delivery import Answer, Delivery
from appliance.model.domain import LogLevel
from appliance.model.event import ERROR_EVENTS, DeliveryEvent, EventType
from appliance.model.ids import IdSource
from appliance.model.time import Clock

MAX_RESPONSE = 500
"""Characters of a server's words that an event keeps: a reply line of RFC 5321 §4.5.3.1.5 has at most 512 octets."""

LevelOf = Callable[[str], LogLevel]
"""The log level of a domain by its id; NONE for one that is not known."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a session knows of a message, for the events of its reception."""

    message_id: str
    sender: str
    size: int
    client_address: str | None = None
    client_name: str | None = None
    subject: str | None = None


class Logbook:
    """Makes events. What it returns is all that will ever be stored of them."""

    def __init__(self, level_of: LevelOf, clock: Clock, new_id: IdSource) -> None:
        self._level_of = level_of
        self._clock = clock
        self._new_id = new_id
        self.counts = Counts()

    def arrival(
        self, type: EventType, arrival: Arrival, recipient: str, domain_id: str, answer: Answer
    ) -> list[DeliveryEvent]:
        """A message was received or refused for one recipient: one event, or none where the level forbids it."""
        if type is EventType.REFUSED:
            self.counts.refused += 1
        level = self._allowed(type, domain_id)
        if level is None:
            return []
        everything = level is LogLevel.EVENTS
        return [
            DeliveryEvent(
                id=self._new_id(),
                message_id=arrival.message_id,
                domain_id=domain_id,
                at=self._clock(),
                type=type,
                sender=arrival.sender,
                recipient=recipient,
                size=arrival.size,
                code=answer.code,
                enhanced_code=answer.enhanced_code or None,
                reason=answer.reason,
                response=answer.text[:MAX_RESPONSE],
                attempt=0,
                duration_ms=answer.duration_ms,
                client_address=arrival.client_address if everything else None,
                client_name=arrival.client_name if everything else None,
                subject=arrival.subject if everything else None,
            )
        ]

    def attempt(self, type: EventType, delivery: Delivery, attempt: int, answer: Answer) -> list[DeliveryEvent]:
        """An attempt has ended: one event for each recipient whose domain's level allows it.

        The answer's text must be masked already: the log names the alias, not the destination.
        """
        return [
            DeliveryEvent(
                id=self._new_id(),
                message_id=delivery.message_id,
                domain_id=recipient.domain_id,
                at=self._clock(),
                type=type,
                sender=delivery.sender,
                recipient=recipient.address,
                size=delivery.size,
                code=answer.code,
                enhanced_code=answer.enhanced_code or None,
                reason=answer.reason,
                response=answer.text[:MAX_RESPONSE],
                attempt=attempt,
                duration_ms=answer.duration_ms,
                server_name=answer.server_name,
                server_address=answer.server_address,
                tls=answer.tls,
            )
            for recipient in delivery.recipients
            if self._allowed(type, recipient.domain_id) is not None
        ]

    def _allowed(self, type: EventType, domain_id: str) -> LogLevel | None:
        level = self._level_of(domain_id) if domain_id else LogLevel.NONE
        if level is LogLevel.NONE or (level is LogLevel.ERRORS and type not in ERROR_EVENTS):
            return None
        return level
