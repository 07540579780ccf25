"""Which delivery next, and how many at once.

Deliveries that are claimed wait in memory by destination; each destination has couriers of its own, up to a limit, so
that a slow one delays no other. What does not fit in memory stays in the spool and is claimed when it is due and there
is room.
"""

import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from appliance.delivery.courier import Courier, Unreachable
from appliance.delivery.settlement import Settlement, Settler
from appliance.logbook.live import LiveStream
from appliance.model.delivery import Answer, Deferred, Delivery, Outcome
from appliance.model.time import Clock
from appliance.spool.spool import Spool
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import Operation

MAX_CLAIMED = 20_000
"""Deliveries in memory at once. One is about a kilobyte; the rest of the queue waits on the disk."""

MAX_CLAIMED_PER_DESTINATION = 500
"""Of these, how many for one destination: what a slow one can't take must not fill the memory that others need.
(A claim may go over it by one CLAIM_BATCH.)"""

MAX_COURIERS = 400
"""Connections outward at once, over all destinations."""

SHIFT = 20
"""Transactions after which a destination's only courier makes room, where others have none."""

MAX_BATCH = 100
"""Recipients in one transaction (RFC 5321 §4.5.3.1.8: every server takes at least as many)."""

CLAIM_BATCH = 500
"""Deliveries claimed in one go."""

IDLE_S = 3.0
"""How long a courier keeps its connection for the next message: shorter than any server's patience."""

LONGEST_SLEEP_S = 30.0
"""The clock is looked at at least this often: the machine may have slept."""

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
    limit: int
    """Couriers at once: what is configured, or what the destination has shown to bear."""
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
        steady: Clock,
        max_per_destination: int,
    ) -> None:
        self._spool = spool
        self._settler = settler
        self._live = live
        self._new_courier = new_courier
        self._clock = steady
        self._max_per_destination = max_per_destination
        self._destinations: dict[str, _Destination] = {}
        self._claimed_for: Counter[str] = Counter()
        """Deliveries in memory by destination, those included that room is reserved for."""
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

    def reserve(self, domains: Sequence[str]) -> bool:
        """Ask for room for deliveries to these domains (lower case), which are about to be accepted as claimed."""
        if self._stopping or self._claimed + len(domains) > MAX_CLAIMED:
            return False
        wanted = Counter(domains)
        if any(self._claimed_for[domain] + count > MAX_CLAIMED_PER_DESTINATION for domain, count in wanted.items()):
            return False
        self._count(wanted)
        return True

    def release(self, domains: Sequence[str]) -> None:
        """Give reserved room back."""
        self._discount(Counter(domains))

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
        if room <= 0:
            return STORE_RETRY_S
        full = [domain for domain, count in self._claimed_for.items() if count >= MAX_CLAIMED_PER_DESTINATION]
        claimed = await self._spool.claim(self._clock(), room, full)
        self._count(Counter(delivery.target.key[1] for delivery in claimed))
        self.take(claimed)
        if len(claimed) == room:
            return 0
        # Those that are full wake us when they have room.
        due = await self._spool.next_due(full)
        self._sleeps_until = self._clock() + int(LONGEST_SLEEP_S * 1000) if due is None else due
        return min(max(0.001, (self._sleeps_until - self._clock()) / 1000), LONGEST_SLEEP_S)

    def _count(self, more: Counter[str]) -> None:
        self._claimed += more.total()
        self._claimed_for.update(more)

    def _discount(self, fewer: Counter[str]) -> None:
        self._claimed -= fewer.total()
        for domain, count in fewer.items():
            before = self._claimed_for[domain]
            if before - count > 0:
                self._claimed_for[domain] = before - count
            else:
                del self._claimed_for[domain]
            if before >= MAX_CLAIMED_PER_DESTINATION > before - count:
                self.wake()

    # ------------------------------------------------------------------ destinations and their couriers

    def _enqueue(self, delivery: Delivery) -> None:
        domain = delivery.target.key[1]
        destination = self._destinations.get(domain)
        if destination is None:
            destination = _Destination(domain, deque(), trio.lowlevel.ParkingLot(), self._max_per_destination)
            self._destinations[domain] = destination
        destination.waiting.append(delivery)
        destination.last_used = trio.current_time()
        if destination.idle:
            destination.idle.unpark()
        elif destination.couriers < destination.limit:
            self._start_courier(destination)

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
        """One courier's shift: until there has been nothing to carry for a while, or others need its place."""
        courier = self._new_courier(destination.domain)
        carried = 0
        try:
            while not self._stopping:
                batch = _next_batch(destination.waiting)
                if batch:
                    if not await self._carry(courier, destination, batch):
                        break
                    carried += 1
                    if self._starved and self._has_had_its_share(destination, carried):
                        break
                elif self._starved or trio.current_time() - destination.last_used >= IDLE_S:
                    break
                else:
                    await destination.idle.park()
        finally:
            self._leave(destination)
            await courier.close()

    def _has_had_its_share(self, destination: _Destination, carried: int) -> bool:
        """Whether a courier has to make room for a destination that has none."""
        share = max(1, MAX_COURIERS // len(self._destinations))
        return destination.couriers > share or carried >= SHIFT

    def _leave(self, destination: _Destination) -> None:
        """A courier ends its shift: its place goes to who has waited longest."""
        destination.couriers -= 1
        self._couriers -= 1
        if not destination.couriers:
            if destination.waiting:
                self._starved.append(destination)
            else:
                self._destinations.pop(destination.domain, None)
        if self._starved:
            self._start_courier(self._starved.popleft())

    async def _carry(self, courier: Courier, destination: _Destination, batch: list[Delivery]) -> bool:
        """Carry one batch; False where this courier had better go."""
        if self._settler.is_inside(destination.domain):
            await self._conclude(batch, [await self._settled(self._settler.redirect, delivery) for delivery in batch])
            return True
        message_id = batch[0].message_id
        try:
            outcomes: list[Outcome] = await courier.carry(batch, lambda: self._spool.content(message_id))
        except Unreachable as unreachable:
            if destination.couriers > 1:
                # Others of us are there, or on the way: it has had enough of our connections, not of our mail.
                destination.waiting.extendleft(reversed(batch))
                destination.limit = destination.couriers - 1
                return False
            # Everything that waits for this destination shares the outcome: to try each one would take for ever.
            batch += destination.waiting
            destination.waiting.clear()
            outcomes = [unreachable.outcome] * len(batch)
        except Exception:
            # A defect of ours, met on one message or one server's words. It must not end the engine, which would meet
            # it again at the next start, and take all other mail with it.
            _logger.exception("an attempt failed on a defect message=%s", message_id)
            outcomes = [Deferred(_DEFECT)] * len(batch)
        settlements = [
            await self._settled(partial(self._settler.settle, outcome=outcome), delivery)
            for delivery, outcome in zip(batch, outcomes, strict=True)
        ]
        await self._conclude(batch, settlements)
        return True

    # ------------------------------------------------------------------ what became of it

    async def _conclude(self, batch: Sequence[Delivery], settlements: Sequence[Settlement]) -> None:
        """Write down what has happened, and then tell of it."""
        operations: list[Operation] = []
        for settlement in settlements:
            operations += settlement.operations
        await self._spool.settle(operations)
        self._discount(Counter(delivery.target.key[1] for delivery in batch))
        for delivery, settlement in zip(batch, settlements, strict=True):
            self._spool.done_with(delivery.message_id)
            self._live.publish(list(settlement.events))
            if settlement.due_now or (settlement.next_attempt_at or self._sleeps_until) < self._sleeps_until:
                self.wake()

    async def _settled(self, settle: Callable[[Delivery], Awaitable[Settlement]], delivery: Delivery) -> Settlement:
        while True:
            try:
                return await settle(delivery)
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
        self._discount(Counter(delivery.target.key[1] for delivery in withdrawn))
        for delivery in withdrawn:
            self._spool.done_with(delivery.message_id)
        return withdrawn


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
        # One that needs SMTPUTF8 must not take those with it that do not.
        and waiting[0].utf8 == batch[0].utf8
    ):
        batch.append(waiting.popleft())
    return batch
