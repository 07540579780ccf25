"""The queue as an operator sees and steers it.

Changes run in the spool's writing thread, where nobody else can claim or settle in between: what they find WAITING is
still waiting when they change it. A delivery that a courier has begun with can't be called back.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import trio

from appliance.delivery.schedule import RetrySchedule
from appliance.delivery.scheduler import Scheduler
from appliance.model.delivery import Delivery, DeliveryState
from appliance.spool.clocks import Clocks
from appliance.spool.spool import Spool
from appliance.storage.spool import Complete, Keep, Operation, SpoolStore
from smtp.address import ascii_domain

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class QueueFilter:
    """Which deliveries are meant: those for which everything that is set is true. Case does not matter."""

    domain: str | None = None
    """The domain that was written to."""
    destination: str | None = None
    """The domain of the mailbox."""
    sender: str | None = None
    recipient: str | None = None
    id: str | None = None
    """Of the delivery, or of the message."""

    def matches(self, delivery: Delivery) -> bool:
        """Whether this delivery is meant."""
        recipients = [recipient.address.lower() for recipient in delivery.recipients]
        return (
            (self.id is None or self.id in (delivery.id, delivery.message_id))
            and (self.sender is None or self.sender.lower() == delivery.sender.lower())
            and (self.destination is None or ascii_domain(self.destination.lower()) == delivery.target.key[1])
            and (self.recipient is None or self.recipient.lower() in recipients)
            and (
                self.domain is None or any(address.rpartition("@")[2] == self.domain.lower() for address in recipients)
            )
        )


class QueueOperator:
    """Lists, retries and drops deliveries."""

    def __init__(self, spool: Spool, scheduler: Scheduler, schedule: RetrySchedule, clocks: Clocks) -> None:
        self._spool = spool
        self._scheduler = scheduler
        self._schedule = schedule
        self._clocks = clocks

    async def page(self, wanted: QueueFilter, after: str | None) -> tuple[list[Mapping[str, Any]], str | None]:
        """Deliveries behind a delivery's id in the words of the API, and where the next page begins (None: no more).

        Raises StoreUnavailable.
        """
        found = await trio.to_thread.run_sync(self._spool.store.deliveries, after, _PAGE)
        shown = [self._shown(delivery) for delivery in found if wanted.matches(delivery)]
        return shown, found[-1].id if len(found) == _PAGE else None

    async def retry(self, wanted: QueueFilter) -> int:
        """Make what waits due at once; returns how many deliveries that were. Raises StoreUnavailable."""
        now = self._clocks.steady()
        affected = await self._change(wanted, lambda delivery: Keep(replace(delivery, next_attempt_at=now)))
        self._scheduler.wake()
        return affected

    async def drop(self, wanted: QueueFilter) -> int:
        """Erase without a bounce what no courier has begun with; returns how many. Raises StoreUnavailable."""
        withdrawn = self._scheduler.withdraw(wanted.matches)
        if withdrawn:
            await self._spool.settle([Complete(delivery.id, delivery.message_id) for delivery in withdrawn])
        return len(withdrawn) + await self._change(wanted, lambda delivery: Complete(delivery.id, delivery.message_id))

    async def _change(self, wanted: QueueFilter, change: Any) -> int:
        store = self._spool.store

        def in_the_writing_thread() -> int:
            operations: list[Operation] = [
                change(delivery)
                for delivery in _all(store)
                if delivery.state is DeliveryState.WAITING and wanted.matches(delivery)
            ]
            if operations:
                store.apply(operations)
            return len(operations)

        return await self._spool.committer.call(in_the_writing_thread)

    def _shown(self, delivery: Delivery) -> Mapping[str, Any]:
        waits = delivery.state is DeliveryState.WAITING
        return {
            "id": delivery.id,
            "messageId": delivery.message_id,
            "state": delivery.state.name,
            "sender": delivery.sender,
            "recipient": ", ".join(recipient.address for recipient in delivery.recipients),
            "target": str(delivery.target),
            "destinationDomain": delivery.target.domain,
            "sizeBytes": delivery.size,
            "priority": delivery.priority,
            "acceptedAt": delivery.accepted_at,
            "attempts": delivery.attempts,
            "nextAttemptAt": self._clocks.on_the_wall(delivery.next_attempt_at) if waits else None,
            "expiresAt": delivery.accepted_at + self._schedule.give_up_after_ms,
            "lastResponse": delivery.last_response,
        }


def _all(store: SpoolStore) -> Iterator[Delivery]:
    after = None
    while page := store.deliveries(after, _PAGE):
        yield from page
        after = page[-1].id
