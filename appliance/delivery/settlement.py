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
from appliance.reports.own_mail import OwnMail
from appliance.routing.route import route
from appliance.routing.snapshot import Snapshot
from appliance.spool.spool import Spool
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import Accept, Complete, Keep, Operation
from smtp.address import Address, AddressError


@dataclass(frozen=True, slots=True)
class Settlement:
    """What has to become durable as one, for one delivery after one attempt."""

    operations: tuple[Operation, ...]
    events: tuple[DeliveryEvent, ...]
    next_attempt_at: int | None = None
    """For a delivery that stays in the queue."""
    due_now: bool = False
    """Among the operations are deliveries that are due at once: a report to the sender, or where this one leads."""


class Settler:
    """Turns outcomes into settlements."""

    def __init__(
        self,
        spool: Spool,
        logbook: Logbook,
        schedule: RetrySchedule,
        own_mail: OwnMail,
        snapshot: Callable[[], Snapshot],
        clock: Clock,
    ) -> None:
        self._spool = spool
        self._logbook = logbook
        self._schedule = schedule
        self._own_mail = own_mail
        self._snapshot = snapshot
        self._clock = clock

    async def settle(self, delivery: Delivery, outcome: Outcome) -> Settlement:
        """Decide what one outcome means. Raises StoreUnavailable where the store has to be asked and is away."""
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

    def is_inside(self, domain: str) -> bool:
        """Whether mail for a domain (lower case) is not handed to another host, but goes on in here.

        So it is where an alias or an operator was not there yet when the message was accepted.
        """
        hosted = self._snapshot().hosted(domain)
        return not domain or (hosted is not None and hosted.domain.verified)

    async def redirect(self, delivery: Delivery) -> Settlement:
        """Follow a target that is inside; what it leads to takes the delivery's place. Raises StoreUnavailable."""
        now = self._clock()
        found = route(self._snapshot(), delivery.target, now)
        targets = [target for target in found.targets if target.domain]
        if targets or (found.accepted and not found.targets):
            deliveries = [
                replace(
                    delivery, id=self._spool.new_id(), target=target, state=DeliveryState.WAITING, next_attempt_at=now
                )
                for target in targets
            ]
            return Settlement((Accept(deliveries), Complete(delivery.id, delivery.message_id)), (), due_now=True)
        if found.accepted:
            answer = Answer(0, "4.3.5", "postmaster-unassigned", "nobody is the operator of this appliance yet")
            return await self.settle(delivery, Deferred(answer))
        answer = Answer(found.reply.code, found.reply.enhanced or "", found.reason, found.reply.text)
        return await self.settle(delivery, (Deferred if found.reply.transient else Failed)(answer))

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
        return Settlement((*bounce, complete), tuple(events), due_now=bool(bounce))

    async def _bounce(self, delivery: Delivery, answer: Answer, now: int) -> list[Operation]:
        if not delivery.sender:
            return []
        try:
            sender = Address.parse(delivery.sender)
            head = await self._spool.head(delivery.message_id)
        except AddressError:
            return []
        except StoreUnavailable:
            # Damaged, perhaps for good: better a report without the message's header than none.
            head = b""
        head = header_section(head, HEADER_LIMIT)
        if not may_bounce(delivery, head):
            return []
        operations: list[Operation] = []
        # One for each recipient: a report that names two would tell that one mailbox is behind both.
        for recipient in delivery.recipients:
            message_id = self._spool.new_id()
            octets = compose_bounce(
                message_id=message_id,
                now=now,
                hostname=self._own_mail.hostname,
                postmaster=self._own_mail.reporter,
                delivery=replace(delivery, recipients=(recipient,)),
                answer=answer,
                header_section=head,
            )
            operations += self._own_mail.post(message_id, sender, octets, now)
        return operations


def _masked(delivery: Delivery, answer: Answer) -> Answer:
    """The answer as the log may have it: with the alias where it names the mailbox."""
    recipient = delivery.recipients[0].address if delivery.recipients else ""
    text = mask(answer.text, delivery.target, recipient, answer.server_name)
    return answer if text == answer.text else replace(answer, text=text)
