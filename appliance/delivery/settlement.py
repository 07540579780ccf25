"""What follows from the outcome of an attempt.

What to write down, what to tell the log, and when the sender is to hear of it (`sender_reports.py` says how).
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from appliance.delivery.schedule import RetrySchedule
from appliance.delivery.sender_reports import SenderReports
from appliance.forwarding.masking import mask
from appliance.logbook.counts import Counts
from appliance.logbook.events import Logbook
from appliance.model.delivery import Answer, Deferred, Delivered, Delivery, DeliveryState, Failed, Outcome
from appliance.model.event import DeliveryEvent, EventType
from appliance.reports.bounce import EXPIRED
from appliance.reports.own_mail import OwnMail
from appliance.routing.route import route
from appliance.routing.snapshot import Snapshot
from appliance.spool.clocks import Clocks
from appliance.spool.spool import Spool
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import Accept, Complete, Keep, Operation

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settlement:
    """What has to become durable as one, for one delivery after one attempt."""

    operations: tuple[Operation, ...]
    events: tuple[DeliveryEvent, ...]
    next_attempt_at: int | None = None
    """For a delivery that stays in the queue."""
    due_now: bool = False
    """Among the operations are deliveries that are due at once: a report to the sender, or where this one leads."""
    became: EventType | None = None
    """What has become of the delivery, whether or not the log may say so; None: others have taken its place."""


class Settler:
    """Turns outcomes into settlements."""

    def __init__(
        self,
        spool: Spool,
        logbook: Logbook,
        schedule: RetrySchedule,
        own_mail: OwnMail,
        snapshot: Callable[[], Snapshot],
        clocks: Clocks,
        delay_notice_after_ms: int | None = None,
    ) -> None:
        """`delay_notice_after_ms` is the age at which a sender is told that it takes longer; None for never."""
        self._spool = spool
        self._logbook = logbook
        self._schedule = schedule
        self._reports = SenderReports(spool, own_mail)
        self._snapshot = snapshot
        self._clocks = clocks
        self._delay_notice_after_ms = delay_notice_after_ms

    def count(self, deliveries: Sequence[Delivery], settlements: Sequence[Settlement]) -> None:
        """These settlements are durable."""
        now = self._clocks.wall()
        for delivery, settlement in zip(deliveries, settlements, strict=True):
            self.counts.settled(delivery, settlement.became, now)

    @property
    def counts(self) -> Counts:
        """What has become of deliveries, in numbers."""
        return self._logbook.counts

    async def settle(self, delivery: Delivery, outcome: Outcome) -> Settlement:
        """Decide what one outcome means. Raises StoreUnavailable where the store has to be asked and is away."""
        attempt = delivery.attempts + 1
        shown = _masked(delivery, outcome.answer)
        if isinstance(outcome, Delivered):
            events = self._logbook.attempt(EventType.DELIVERED, delivery, attempt, shown)
            reports: Sequence[Operation] = ()
            if any(recipient.wants("SUCCESS") for recipient in delivery.recipients):
                reports = await _unless_defective(self._reports.of_success(delivery, self._clocks.wall()), delivery)
            complete = Complete(delivery.id, delivery.message_id, events, delivered=True)
            return Settlement((*reports, complete), tuple(events), due_now=bool(reports), became=EventType.DELIVERED)
        now = self._clocks.wall()
        if isinstance(outcome, Deferred) and not self._has_expired(delivery, now):
            notices: Sequence[Operation] = ()
            if self._is_to_hear_of_delay(delivery, now):
                tried = replace(delivery, attempts=attempt)
                until = now + self._schedule.give_up_after_ms - min(self._ages(delivery, now))
                notices = await _unless_defective(self._reports.of_delay(tried, outcome.answer, now, until), delivery)
            return self._keep(delivery, attempt, shown, notices)
        if isinstance(outcome, Deferred):
            # The codes of the last attempt stay: RFC 3464 §2.3.3 lets a failure have a 4.X.X status where a transient
            # one has lasted too long, and "mailbox full" says more than "expired".
            outcome = Failed(replace(outcome.answer, reason=EXPIRED))
            shown = replace(shown, reason=EXPIRED)
        return await self._fail(delivery, attempt, outcome.answer, shown, now)

    def is_inside(self, domain: str) -> bool:
        """Whether mail for a domain (lower case) is not handed to another host, but goes on in here.

        So it is where an alias or an operator was not there yet when the message was accepted.
        """
        hosted = self._snapshot().hosted(domain)
        return not domain or (hosted is not None and hosted.domain.verified)

    async def redirect(self, delivery: Delivery) -> Settlement:
        """Follow a target that is inside; what it leads to takes the delivery's place. Raises StoreUnavailable."""
        now = self._clocks.wall()
        found = route(self._snapshot(), delivery.target, now)
        targets = [target for target in found.targets if target.domain]
        if targets or (found.accepted and not found.targets):
            deliveries = [
                replace(
                    delivery,
                    id=self._spool.new_id(),
                    target=target,
                    # One of them tells of its success, as if there were only one.
                    recipients=tuple(
                        recipient if target is targets[0] else recipient.without_success()
                        for recipient in delivery.recipients
                    ),
                    utf8=delivery.utf8 or not target.local_part.isascii(),
                    state=DeliveryState.WAITING,
                    next_attempt_at=self._clocks.steady(),
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
        return self._keep(delivery, delivery.attempts + 1, answer)

    def _has_expired(self, delivery: Delivery, now: int) -> bool:
        return self._schedule.has_expired(*self._ages(delivery, now))

    def _ages(self, delivery: Delivery, now: int) -> tuple[int, int]:
        """How old it is by the wall clock, which may have been set, and by what we were running since."""
        return now - delivery.accepted_at, self._clocks.running() - delivery.running_since

    def _is_to_hear_of_delay(self, delivery: Delivery, now: int) -> bool:
        after_ms = self._delay_notice_after_ms
        # By both clocks, as with giving up: neither a jump nor a long stop is the other server's delay.
        return after_ms is not None and not delivery.delay_told and min(self._ages(delivery, now)) >= after_ms

    def _keep(self, delivery: Delivery, attempt: int, shown: Answer, notices: Sequence[Operation] = ()) -> Settlement:
        events = self._logbook.attempt(EventType.SOFT_BOUNCED, delivery, attempt, shown)
        kept = replace(
            delivery,
            state=DeliveryState.WAITING,
            attempts=attempt,
            next_attempt_at=self._schedule.next_attempt(attempt, self._clocks.steady()),
            last_response=f"{shown.code} {shown.enhanced_code} {shown.text}" if shown.code else shown.text,
            # In one unit with the notices: each is sent once, whatever dies in between.
            delay_told=delivery.delay_told or bool(notices),
        )
        return Settlement(
            (*notices, Keep(kept, events)),
            tuple(events),
            next_attempt_at=kept.next_attempt_at,
            due_now=bool(notices),
            became=EventType.SOFT_BOUNCED,
        )

    async def _fail(self, delivery: Delivery, attempt: int, answer: Answer, shown: Answer, now: int) -> Settlement:
        events = self._logbook.attempt(EventType.HARD_BOUNCED, delivery, attempt, shown)
        complete = Complete(delivery.id, delivery.message_id, events)
        bounce = await self._reports.of_failure(replace(delivery, attempts=attempt), answer, now)
        # The report first: with the delivery goes the last trace of who has to be told.
        return Settlement((*bounce, complete), tuple(events), due_now=bool(bounce), became=EventType.HARD_BOUNCED)


async def _unless_defective(reports: Awaitable[list[Operation]], delivery: Delivery) -> list[Operation]:
    """Reports that may be missing: StoreUnavailable alone goes on to the caller, who asks again.

    Any other error is a defect of ours. Better no report than a message that counts as not delivered and goes out
    again, or an attempt that is not written down.
    """
    try:
        return await reports
    except StoreUnavailable:
        raise
    except Exception:
        _logger.exception("a report could not be made delivery=%s", delivery.id)
        return []


def _masked(delivery: Delivery, answer: Answer) -> Answer:
    """The answer as the log may have it: with the alias where it names the mailbox."""
    recipient = delivery.recipients[0].address if delivery.recipients else ""
    text = mask(answer.text, delivery.target, recipient, answer.server_name)
    return answer if text == answer.text else replace(answer, text=text)
