"""Which delivery next, and how many at once.

Deliveries that are claimed wait in memory by destination; each destination has couriers of its own, up to a limit, so
that a slow one delays no other. What does not fit in memory stays in the spool and is claimed when it is due and there
is room.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import trio

from appliance.delivery.courier import Courier, Unreachable
from appliance.delivery.settlement import Settlement, Settler
from appliance.logbook.live import LiveStream
from appliance.model.delivery import Answer, Deferred, Delivery, Outcome
from appliance.model.time import Clock
from appliance.routing.route import route
from appliance.routing.snapshot import Snapshot
from appliance.spool.spool import Spool
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import Operation

MAX_CLAIMED = 20_000
"""Deliveries in memory at once. One is about a kilobyte; the rest of the queue waits on the disk."""

MAX_COURIERS = 400
"""Connections outward at once, over all destinations: with those inward they stay below the usual 1,024 descriptors
of a process that was started by hand."""

MAX_BATCH = 100
"""Recipients in one transaction (RFC 5321 §4.5.3.1.8: every server takes at least as many)."""

CLAIM_BATCH = 500
"""Deliveries claimed in one go."""

IDLE_S = 3.0
"""How long a courier keeps its connection for the next message: shorter than any server's patience."""

LONGEST_SLEEP_S = 30.0
"""The clock is looked at at least this often: it may have been set."""

STORE_RETRY_S = 1.0
"""How long to wait where the store refuses."""

DRAIN_S = 10.0
"""How long couriers may finish what they are at when the appliance stops."""


_DEFECT = Answer(0, "4.3.0", "internal-error", "an internal error, told in the log of the process")

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Destination:
    domain: str
    waiting: deque[Delivery]
    idle: trio.lowlevel.ParkingLot
    couriers: int = 0
    last_used: float = 0.0
    """When work last came, by Trio's clock."""


class Scheduler:
    """The deliveries of this process. `run` is its life; `reserve`, `take` and `wake` are for whoever accepts mail."""

    def __init__(
        self,
        spool: Spool,
        settler: Settler,
        live: LiveStream,
        new_courier: Callable[[str], Courier],
        snapshot: Callable[[], Snapshot],
        clock: Clock,
        max_per_destination: int,
    ) -> None:
        self._spool = spool
        self._settler = settler
        self._live = live
        self._new_courier = new_courier
        self._snapshot = snapshot
        self._clock = clock
        self._max_per_destination = max_per_destination
        self._destinations: dict[str, _Destination] = {}
        self._starved: deque[_Destination] = deque()
        """Destinations that have work and no courier, because there are MAX_COURIERS already."""
        self._claimed = 0
        self._couriers = 0
        self._woken = trio.Event()
        self._hired = trio.Event()
        self._sleeps_until = 0
        self._nursery: trio.Nursery | None = None
        self._stopping = False

    # ------------------------------------------------------------------ for whoever accepts mail

    def reserve(self, count: int) -> bool:
        """Ask for room for deliveries that are about to be accepted as claimed."""
        if self._claimed + count > MAX_CLAIMED or self._stopping:
            return False
        self._claimed += count
        return True

    def release(self, count: int) -> None:
        """Give reserved room back."""
        self._claimed -= count

    def take(self, deliveries: Sequence[Delivery]) -> None:
        """Deliver these: room was reserved, and they are durable and claimed."""
        for delivery in deliveries:
            self._enqueue(delivery)

    def wake(self) -> None:
        """Something in the spool has become due."""
        self._woken.set()

    # ------------------------------------------------------------------ its life

    async def run(self, stop: trio.Event) -> None:
        """Deliver until `stop` is set; then finish within DRAIN_S what couriers are at, and return.

        What is left is found UNDER_WAY in the spool at the next start and goes on there.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            async with trio.open_nursery() as claiming:
                claiming.start_soon(self._keep_claiming)
                claiming.start_soon(self._dismiss_idle)
                await stop.wait()
                claiming.cancel_scope.cancel()
            self._stopping = True
            for destination in self._destinations.values():
                destination.idle.unpark_all()
            nursery.cancel_scope.deadline = trio.current_time() + DRAIN_S

    async def _keep_claiming(self) -> None:
        while True:
            self._woken = trio.Event()
            try:
                pause_s = await self._claim()
            except StoreUnavailable:
                pause_s = STORE_RETRY_S
            if pause_s > 0:
                with trio.move_on_after(pause_s):
                    await self._woken.wait()

    async def _dismiss_idle(self) -> None:
        """Wake the couriers of destinations without work, so that they go. One look for all costs less than a timer
        for each, which would be set anew with every message."""
        while True:
            if not self._couriers:
                self._hired = trio.Event()
                await self._hired.wait()
            await trio.sleep(IDLE_S / 2)
            for destination in list(self._destinations.values()):
                if self._starved or trio.current_time() - destination.last_used >= IDLE_S:
                    destination.idle.unpark_all()

    async def _claim(self) -> float:
        """Claim what is due and fits; returns for how many seconds there will be nothing to do."""
        room = min(MAX_CLAIMED - self._claimed, CLAIM_BATCH)
        if room > 0:
            now = self._clock()
            self._claimed += room
            claimed: list[Delivery] = []
            try:
                claimed = await self._spool.claim(now, room)
            finally:
                self._claimed -= room - len(claimed)
            self.take(claimed)
            if len(claimed) == room:
                return 0
        due = await self._spool.next_due()
        if room <= 0:
            return STORE_RETRY_S
        self._sleeps_until = self._clock() + int(LONGEST_SLEEP_S * 1000) if due is None else due
        return min(max(0.001, (self._sleeps_until - self._clock()) / 1000), LONGEST_SLEEP_S)

    # ------------------------------------------------------------------ destinations and their couriers

    def _enqueue(self, delivery: Delivery) -> None:
        if not delivery.target.domain:
            delivery = self._with_postmaster(delivery)
        domain = delivery.target.key[1]
        destination = self._destinations.get(domain)
        if destination is None:
            destination = _Destination(domain, deque(), trio.lowlevel.ParkingLot())
            self._destinations[domain] = destination
        destination.waiting.append(delivery)
        destination.last_used = trio.current_time()
        if destination.idle:
            destination.idle.unpark()
        elif destination.couriers < self._max_per_destination:
            self._start_courier(destination)

    def _with_postmaster(self, delivery: Delivery) -> Delivery:
        """Mail for postmaster that was accepted before there was an operator: perhaps there is one now."""
        targets = route(self._snapshot(), delivery.target, self._clock()).targets
        return replace(delivery, target=targets[0]) if targets else delivery

    def _start_courier(self, destination: _Destination) -> None:
        if self._nursery is None or self._stopping:
            return  # left claimed: the next start finds it
        if self._couriers >= MAX_COURIERS:
            if destination.couriers == 0 and destination not in self._starved:
                self._starved.append(destination)
            return
        self._couriers += 1
        self._hired.set()
        destination.couriers += 1
        self._nursery.start_soon(self._work, destination)

    async def _work(self, destination: _Destination) -> None:
        """One courier's shift: until there has been nothing to carry for a while."""
        courier = self._new_courier(destination.domain)
        try:
            while not self._stopping:
                batch = _next_batch(destination.waiting)
                if batch:
                    await self._carry(courier, destination, batch)
                elif self._starved or trio.current_time() - destination.last_used >= IDLE_S:
                    break
                else:
                    await destination.idle.park()
        finally:
            destination.couriers -= 1
            self._couriers -= 1
            if not destination.couriers and not destination.waiting:
                self._destinations.pop(destination.domain, None)
            if self._starved:
                self._start_courier(self._starved.popleft())
            await courier.close()

    async def _carry(self, courier: Courier, destination: _Destination, batch: list[Delivery]) -> None:
        if not destination.domain:
            answer = Answer(0, "4.3.5", "postmaster-unassigned", "nobody is the operator of this appliance yet")
            await self._settle(batch, [Deferred(answer)] * len(batch))
            return
        message_id = batch[0].message_id
        try:
            outcomes: list[Outcome] = await courier.carry(batch, lambda: self._spool.content(message_id))
        except Unreachable as unreachable:
            # Everything that waits for this destination shares the outcome: to try each one would take for ever.
            batch += destination.waiting
            destination.waiting.clear()
            outcomes = [unreachable.outcome] * len(batch)
        except Exception:
            # A defect of ours, met on one message or one server's words. It must not end the engine, which would meet
            # it again at the next start, and take all other mail with it.
            _logger.exception("an attempt failed on a defect message=%s", message_id)
            outcomes = [Deferred(_DEFECT)] * len(batch)
        await self._settle(batch, outcomes)

    # ------------------------------------------------------------------ what became of it

    async def _settle(self, batch: Sequence[Delivery], outcomes: Sequence[Outcome]) -> None:
        settlements = [await self._settlement(*pair) for pair in zip(batch, outcomes, strict=True)]
        operations: list[Operation] = []
        for settlement in settlements:
            operations += settlement.operations
        await self._spool.settle(operations)
        self._claimed -= len(batch)
        for delivery, settlement in zip(batch, settlements, strict=True):
            self._spool.done_with(delivery.message_id)
            self._live.publish(list(settlement.events))
            if settlement.bounced or (settlement.next_attempt_at or self._sleeps_until) < self._sleeps_until:
                self.wake()

    async def _settlement(self, delivery: Delivery, outcome: Outcome) -> Settlement:
        while True:
            try:
                return await self._settler.settle(delivery, outcome)
            except StoreUnavailable:
                await trio.sleep(STORE_RETRY_S)
            except Exception:
                _logger.exception("an outcome could not be settled delivery=%s", delivery.id)
                return self._settler.postpone(delivery, _DEFECT)

    # ------------------------------------------------------------------ for the operator

    def withdraw(self, wanted: Callable[[Delivery], bool]) -> list[Delivery]:
        """Take out of memory what no courier has begun with. What becomes of it is the caller's to decide."""
        withdrawn: list[Delivery] = []
        for destination in self._destinations.values():
            chosen = [delivery for delivery in destination.waiting if wanted(delivery)]
            for delivery in chosen:
                destination.waiting.remove(delivery)
            withdrawn += chosen
        self._claimed -= len(withdrawn)
        for delivery in withdrawn:
            self._spool.done_with(delivery.message_id)
        return withdrawn

    @property
    def claimed(self) -> int:
        """Deliveries in memory now."""
        return self._claimed


def _next_batch(waiting: deque[Delivery]) -> list[Delivery]:
    """The next delivery, and those right behind it that can share its transaction."""
    if not waiting:
        return []
    batch = [waiting.popleft()]
    while (
        waiting
        and len(batch) < MAX_BATCH
        and waiting[0].message_id == batch[0].message_id
        and waiting[0].return_path == batch[0].return_path
    ):
        batch.append(waiting.popleft())
    return batch
