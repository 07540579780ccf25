"""What has become of deliveries: it is decided what that means, written down, and then told."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio

from appliance.delivery.settlement import Settlement, Settler
from appliance.logbook.live import LiveStream
from appliance.model.delivery import Answer, Delivery, Outcome
from appliance.spool.spool import Spool
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import LeaseLost

SHARED_AT_ONCE = 100
"""Deliveries whose shared outcome is written down in one go, so that other tasks have their turn in between."""

STORE_RETRY_S = 1.0
"""How long to wait where the store refuses, or has to be asked and is away."""

DEFECT = Answer(0, "4.3.0", "internal-error", "an internal error, told in the log of the process")

_logger = logging.getLogger(__name__)


class Outcomes:
    """Settles deliveries that are in memory. Returns, each time, when what has happened is durable."""

    def __init__(
        self,
        spool: Spool,
        settler: Settler,
        live: LiveStream,
        settled: Callable[[Sequence[Delivery], Sequence[Settlement]], None],
    ) -> None:
        """`settled` is told of deliveries that are settled."""
        self._spool = spool
        self._settler = settler
        self._live = live
        self._settled = settled

    async def settle(self, batch: Sequence[Delivery], outcomes: Sequence[Outcome]) -> None:
        """Each of these has had its own outcome."""
        await self._conclude(
            batch,
            [
                await self._settlement(partial(self._settler.settle, outcome=outcome), delivery)
                for delivery, outcome in zip(batch, outcomes, strict=True)
            ],
        )
        self._settler.counts.attempted(outcomes)

    async def share(self, deliveries: Sequence[Delivery], outcome: Outcome) -> None:
        """All of these, which may be many, have had the same outcome."""
        for start in range(0, len(deliveries), SHARED_AT_ONCE):
            some = deliveries[start : start + SHARED_AT_ONCE]
            await self.settle(some, [outcome] * len(some))

    async def redirect(self, batch: Sequence[Delivery]) -> None:
        """The target of these is inside: what it leads to takes their place."""
        await self._conclude(batch, [await self._settlement(self._settler.redirect, delivery) for delivery in batch])

    async def _conclude(self, batch: Sequence[Delivery], settlements: Sequence[Settlement]) -> None:
        left = list(zip(batch, settlements, strict=True))
        while True:
            operations = [operation for _, settlement in left for operation in settlement.operations]
            try:
                await self._spool.settle(operations)
            except LeaseLost as lost:
                # Another node is at these by now. What it comes to is what happens to them.
                left = [each for each in left if each[0].id not in lost.delivery_ids]
            else:
                break
        self._settler.count([delivery for delivery, _ in left], [settlement for _, settlement in left])
        self._settled(batch, settlements)
        for _, settlement in left:
            self._live.publish(list(settlement.events))

    async def _settlement(self, settle: Callable[[Delivery], Awaitable[Settlement]], delivery: Delivery) -> Settlement:
        while True:
            try:
                return await settle(delivery)
            except StoreUnavailable:
                await trio.sleep(STORE_RETRY_S)
            except Exception:
                _logger.exception("an outcome could not be settled delivery=%s", delivery.id)
                return self._settler.postpone(delivery, DEFECT)
