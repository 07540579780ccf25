"""What follows from the outcome of an attempt.

What to write down, what to tell the log, and whom to tell of a failure.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from appliance.delivery.schedule import RetrySchedule
from appliance.forwarding.masking import mask
from appliance.forwarding.trace import header_section
from appliance.logbook.events import Logbook
from appliance.model.delivery import Answer, Deferred, Delivered, Delivery, DeliveryState, Failed, Outcome
from appliance.model.event import DeliveryEvent, EventType
from appliance.model.time import Clock
from appliance.reports.bounce import HEADER_LIMIT, compose_bounce, may_bounce
from appliance.reports.own_mail import own_message
from appliance.routing.snapshot import Snapshot
from appliance.spool.spool import Spool
from appliance.storage.spool import Complete, Keep, Operation
from smtp.address import Address, AddressError


@dataclass(frozen=True, slots=True)
class Settlement:
    """What has to become durable as one, for one delivery after one attempt."""

    operations: tuple[Operation, ...]
    events: tuple[DeliveryEvent, ...]
    next_attempt_at: int | None = None
    """For a delivery that stays in the queue."""
    bounced: bool = False
    """A report to the sender is among the operations, and is due."""


class Settler:
    """Turns outcomes into settlements."""

    def __init__(
        self,
        spool: Spool,
        logbook: Logbook,
        schedule: RetrySchedule,
        snapshot: Callable[[], Snapshot],
        clock: Clock,
        hostname: str,
        postmaster: str,
    ) -> None:
        self._spool = spool
        self._logbook = logbook
        self._schedule = schedule
        self._snapshot = snapshot
        self._clock = clock
        self._hostname = hostname
        self._postmaster = postmaster

    async def settle(self, delivery: Delivery, outcome: Outcome) -> Settlement:
        """Decide what one outcome means. Raises StoreUnavailable where a bounce needs the content and can't have it."""
        attempt = delivery.attempts + 1
        shown = _masked(delivery, outcome.answer)
        if isinstance(outcome, Delivered):
            events = self._logbook.attempt(EventType.DELIVERED, delivery, attempt, shown)
            return Settlement((Complete(delivery.id, delivery.message_id, events),), tuple(events))
        now = self._clock()
        if isinstance(outcome, Deferred) and not self._schedule.has_expired(delivery.accepted_at, now):
            return self._keep(delivery, attempt, shown, now)
        if isinstance(outcome, Deferred):
            # The codes of the last attempt stay: RFC 3464 §2.3.3 lets a failure have a 4.X.X status where a transient
            # one has lasted too long, and "mailbox full" says more than "expired".
            outcome = Failed(replace(outcome.answer, reason="expired"))
            shown = replace(shown, reason="expired")
        return await self._fail(delivery, attempt, outcome.answer, shown, now)

    def postpone(self, delivery: Delivery, answer: Answer) -> Settlement:
        """Leave a delivery in the queue, whatever its age. The answer's text is taken to be fit for the log."""
        return self._keep(delivery, delivery.attempts + 1, answer, self._clock())

    def _keep(self, delivery: Delivery, attempt: int, shown: Answer, now: int) -> Settlement:
        events = self._logbook.attempt(EventType.SOFT_BOUNCED, delivery, attempt, shown)
        kept = replace(
            delivery,
            state=DeliveryState.WAITING,
            attempts=attempt,
            next_attempt_at=self._schedule.next_attempt(attempt, now),
            last_response=f"{shown.code} {shown.enhanced_code} {shown.text}" if shown.code else shown.text,
        )
        return Settlement((Keep(kept, events),), tuple(events), next_attempt_at=kept.next_attempt_at)

    async def _fail(self, delivery: Delivery, attempt: int, answer: Answer, shown: Answer, now: int) -> Settlement:
        events = self._logbook.attempt(EventType.HARD_BOUNCED, delivery, attempt, shown)
        complete = Complete(delivery.id, delivery.message_id, events)
        bounce = await self._bounce(replace(delivery, attempts=attempt), answer, now)
        # The report first: with the delivery goes the last trace of who has to be told.
        return Settlement((*bounce, complete), tuple(events), bounced=bool(bounce))

    async def _bounce(self, delivery: Delivery, answer: Answer, now: int) -> tuple[Operation, ...]:
        if not delivery.sender:
            return ()
        try:
            sender = Address.parse(delivery.sender)
        except AddressError:
            return ()
        head = header_section(await self._spool.head(delivery.message_id), HEADER_LIMIT)
        if not may_bounce(delivery, head):
            return ()
        message_id = self._spool.new_id()
        octets = compose_bounce(
            message_id=message_id,
            now=now,
            hostname=self._hostname,
            postmaster=self._postmaster,
            delivery=delivery,
            answer=answer,
            header_section=head,
        )
        return tuple(own_message(self._snapshot(), message_id, sender, octets, now, self._spool.new_id))


def _masked(delivery: Delivery, answer: Answer) -> Answer:
    """The answer as the log may have it: with the alias where it names the mailbox."""
    recipient = delivery.recipients[0].address if delivery.recipients else ""
    text = mask(answer.text, delivery.target, recipient, answer.server_name)
    return answer if text == answer.text else replace(answer, text=text)
