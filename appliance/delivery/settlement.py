"""What follows from the outcome of an attempt.

What to write down, what to tell the log, and whom to tell of a failure.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from appliance.delivery.schedule import RetrySchedule
from appliance.forwarding.masking import mask
from appliance.forwarding.trace import header_section
from appliance.logbook.events import Logbook
from appliance.model.delivery import Answer, Deferred, Delivered, Delivery, DeliveryState, Failed, Outcome
from appliance.model.event import DeliveryEvent, EventType
from appliance.reports.bounce import HEADER_LIMIT, compose_bounce, may_bounce, may_go_back_whole
from appliance.reports.own_mail import OwnMail, reported_to
from appliance.reports.relayed import compose_relayed
from appliance.routing.route import route
from appliance.routing.snapshot import Snapshot
from appliance.spool.clocks import Clocks
from appliance.spool.spool import Spool
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import Accept, Complete, Keep, Operation
from smtp.address import Address, AddressError

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
    ) -> None:
        self._spool = spool
        self._logbook = logbook
        self._schedule = schedule
        self._own_mail = own_mail
        self._snapshot = snapshot
        self._clocks = clocks

    async def settle(self, delivery: Delivery, outcome: Outcome) -> Settlement:
        """Decide what one outcome means. Raises StoreUnavailable where the store has to be asked and is away."""
        attempt = delivery.attempts + 1
        shown = _masked(delivery, outcome.answer)
        if isinstance(outcome, Delivered):
            events = self._logbook.attempt(EventType.DELIVERED, delivery, attempt, shown)
            complete = Complete(delivery.id, delivery.message_id, events)
            if not any(recipient.wants("SUCCESS") for recipient in delivery.recipients):
                return Settlement((complete,), tuple(events))
            try:
                reports = await self._success(delivery, self._clocks.wall())
            except StoreUnavailable:
                raise
            except Exception:
                # A defect of ours. Better no report than a message that counts as not delivered, and goes out again.
                _logger.exception("no report of a success delivery=%s", delivery.id)
                reports = []
            return Settlement((*reports, complete), tuple(events), due_now=bool(reports))
        now = self._clocks.wall()
        if isinstance(outcome, Deferred) and not self._has_expired(delivery, now):
            return self._keep(delivery, attempt, shown)
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
        running_ms = self._clocks.running() - delivery.running_since
        return self._schedule.has_expired(now - delivery.accepted_at, running_ms)

    def _keep(self, delivery: Delivery, attempt: int, shown: Answer) -> Settlement:
        events = self._logbook.attempt(EventType.SOFT_BOUNCED, delivery, attempt, shown)
        kept = replace(
            delivery,
            state=DeliveryState.WAITING,
            attempts=attempt,
            next_attempt_at=self._schedule.next_attempt(attempt, self._clocks.steady()),
            last_response=f"{shown.code} {shown.enhanced_code} {shown.text}" if shown.code else shown.text,
        )
        return Settlement((Keep(kept, events),), tuple(events), next_attempt_at=kept.next_attempt_at)

    async def _fail(self, delivery: Delivery, attempt: int, answer: Answer, shown: Answer, now: int) -> Settlement:
        events = self._logbook.attempt(EventType.HARD_BOUNCED, delivery, attempt, shown)
        complete = Complete(delivery.id, delivery.message_id, events)
        bounce = await self._bounce(replace(delivery, attempts=attempt), answer, now)
        # The report first: with the delivery goes the last trace of who has to be told.
        return Settlement((*bounce, complete), tuple(events), due_now=bool(bounce))

    async def _success(self, delivery: Delivery, now: int) -> list[Operation]:
        """Reports for a sender who wanted to hear of the success, too (RFC 3461 §4.1)."""
        sender = _sender(delivery)
        if sender is None:
            return []
        delivery = replace(delivery, sender=str(sender))
        head = header_section(await self._front(delivery), HEADER_LIMIT)
        operations: list[Operation] = []
        for recipient in delivery.recipients:
            if not recipient.wants("SUCCESS"):
                continue
            message_id = self._spool.new_id()
            octets = compose_relayed(
                message_id=message_id,
                now=now,
                hostname=self._own_mail.hostname,
                postmaster=self._own_mail.reporter,
                delivery=replace(delivery, recipients=(recipient,)),
                header_section=head,
            )
            operations += self._own_mail.post(message_id, sender, octets, now, require_tls=delivery.require_tls)
        return operations

    async def _bounce(self, delivery: Delivery, answer: Answer, now: int) -> list[Operation]:
        # RFC 3461 §4.1: who wants to hear of nothing, or of other things only, does not hear of a failure.
        concerned = [recipient for recipient in delivery.recipients if recipient.wants("FAILURE")]
        sender = _sender(delivery)
        if sender is None or not concerned:
            return []
        delivery = replace(delivery, sender=str(sender))
        front = await self._front(delivery)
        head = header_section(front, HEADER_LIMIT)
        if not may_bounce(delivery, head):
            return []
        whole = front if front and may_go_back_whole(delivery, front) else None
        operations: list[Operation] = []
        # One for each recipient: a report that names two would tell that one mailbox is behind both.
        for recipient in concerned:
            message_id = self._spool.new_id()
            octets = compose_bounce(
                message_id=message_id,
                now=now,
                hostname=self._own_mail.hostname,
                postmaster=self._own_mail.reporter,
                delivery=replace(delivery, recipients=(recipient,)),
                answer=answer,
                header_section=head,
                whole=whole,
            )
            # RFC 8689 §5: a report tells as much as the message itself, and goes over the same kind of connection.
            operations += self._own_mail.post(message_id, sender, octets, now, require_tls=delivery.require_tls)
        return operations

    async def _front(self, delivery: Delivery) -> bytes:
        """The beginning of the content; nothing where it can't be read."""
        try:
            return await self._spool.head(delivery.message_id)
        except StoreUnavailable:
            # Damaged, perhaps for good: better a report without the message's header than none.
            return b""


def _sender(delivery: Delivery) -> Address | None:
    """To whom reports go, as they write it; None for nobody."""
    try:
        return reported_to(Address.parse(delivery.sender)) if delivery.sender else None
    except AddressError:
        return None


def _masked(delivery: Delivery, answer: Answer) -> Answer:
    """The answer as the log may have it: with the alias where it names the mailbox."""
    recipient = delivery.recipients[0].address if delivery.recipients else ""
    text = mask(answer.text, delivery.target, recipient, answer.server_name)
    return answer if text == answer.text else replace(answer, text=text)
