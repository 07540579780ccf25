"""Which delivery next, and how many at once.

Deliveries that are claimed wait in memory by destination; each destination has couriers of its own, as many as it has
shown to bear (`destination.py`), so that a slow one delays no other. What does not fit in memory stays in the spool and
is claimed when it is due and there is room; so does what is meant for a destination that is paused.
"""

import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence

import trio
from msgspec.structs import replace

from appliance.delivery.courier import Courier, Unreachable
from appliance.delivery.destination import Destination, has_answered, trouble
from appliance.delivery.holds import Holds, held_for
from appliance.delivery.memory import Memory
from appliance.delivery.outcomes import DEFECT, STORE_RETRY_S, Outcomes
from appliance.delivery.schedule import RetrySchedule
from appliance.delivery.settlement import Settlement, Settler
from appliance.delivery.still_here import Facts, still_here
from appliance.logbook.live import LiveStream
from appliance.model.delivery import OLDEST_EVERY, Answer, Deferred, Delivery, DeliveryState, Failed, Outcome
from appliance.spool.clocks import Clocks
from appliance.spool.spool import Spool
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import Keep, LeaseLost

MAX_COURIERS = 400
"""Connections outward at once, over all destinations. The last quarter is for destinations that have none: those that
keep all of theirs waiting must not keep out the others."""

MAX_IN_TROUBLE = 2000
"""Destinations that are paused, or of which it is remembered that they were. A claim leaves each of them out by name.
What fails beyond is not paused: its mail follows its own schedule."""

SHIFT = 20
"""Transactions after which a destination's only courier makes room, where others have none."""

CLAIM_BATCH = 500
"""Deliveries claimed in one go."""

LONG_CLAIM_S = 0.05
"""From here on a claim that has found no more was a long one: it had to pass over very much that is due and can't go.
"""

REST = 5
"""How many times as long the next claim waits then: claims are made by the thread that also writes what is accepted, or
are questions to a server that others ask, too."""

LONGEST_REST_S = 5.0
"""What is due is never found later for that than this."""

IDLE_S = 3.0
"""How long a courier keeps its connection for the next message: shorter than any server's patience."""

LOOKS_WHILE_IDLE = 2
"""How often it is looked in that time whether work has come. It may take one look more."""

LONGEST_SLEEP_S = 30.0
"""The clock is looked at at least this often: the machine may have slept."""

LOOK_S = 5.0
"""The same where several nodes share the spool: who is idle finds no later than this what one that died has left."""

DRAIN_S = 10.0
"""How long couriers may finish what they are at when the appliance stops."""


_TAKES_NO_MAIL = Answer(0, "4.3.2", "destination-paused", "the destination takes no mail at the moment")
"""In place of what it said to another message, which may have named that one's mailbox."""

_logger = logging.getLogger(__name__)


class _Served(Destination):
    """A destination, and where its couriers wait for work."""

    def __init__(self, domain: str, max_couriers: int) -> None:
        super().__init__(domain, max_couriers)
        self.idle = trio.lowlevel.ParkingLot()
        self.looks_without_work = 0
        """How often `Scheduler._dismiss_idle` has come by since work last came."""

    @property
    def has_been_idle(self) -> bool:
        """Whether no work has come for IDLE_S."""
        # The first look may come right behind the work.
        return self.looks_without_work > LOOKS_WHILE_IDLE


class Scheduler:
    """The deliveries of this process. `run` is its life; `reserve`, `take` and `wake` are for whoever accepts mail."""

    def __init__(
        self,
        spool: Spool,
        settler: Settler,
        live: LiveStream,
        new_courier: Callable[[str], Courier],
        holds: Holds,
        schedule: RetrySchedule,
        clocks: Clocks,
        max_per_destination: int,
    ) -> None:
        self._spool = spool
        self._settler = settler
        self._outcomes = Outcomes(spool, settler, live, self._have_settled)
        self._new_courier = new_courier
        self._holds = holds
        self._schedule = schedule
        self._clocks = clocks
        self._max_per_destination = max_per_destination
        self._destinations: dict[str, _Served] = {}
        self._in_trouble: dict[str, _Served] = {}
        """Of these, the ones that have not answered since they were paused."""
        self._memory = Memory()
        """The deliveries in memory, those included that room is reserved for."""
        self._in_hand: set[str] = set()
        """The ids of deliveries that couriers are at."""
        self._starved: deque[_Served] = deque()
        """Destinations that have work and no courier, because there are MAX_COURIERS already."""
        self._couriers = 0
        self._woken = trio.Event()
        self._hired = trio.Event()
        self._sleeps_until = 0
        self._nursery: trio.Nursery | None = None
        self._stopping = False

    # ------------------------------------------------------------------ for whoever accepts mail

    def reserve(self, domains: Sequence[str]) -> bool:
        """Ask for room for deliveries to these domains (lower case), which are about to be accepted as claimed."""
        if self._stopping or (self._in_trouble and any(self._is_paused(domain) for domain in domains)):
            return False
        return self._memory.reserve(domains)

    def release(self, domains: Sequence[str]) -> None:
        """Give reserved room back."""
        if self._memory.release(domains):
            self.wake()

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
            for served in self._destinations.values():
                served.idle.unpark_all()
            nursery.cancel_scope.deadline = trio.current_time() + DRAIN_S

    async def _keep_claiming(self) -> None:
        while True:
            self._woken = trio.Event()
            began = trio.current_time()
            try:
                pause_s = await self._claim()
            except StoreUnavailable:
                pause_s = STORE_RETRY_S
            if pause_s > 0:
                took_s = trio.current_time() - began
                if took_s >= LONG_CLAIM_S:
                    await trio.sleep(min(REST * took_s, LONGEST_REST_S))
                with trio.move_on_after(pause_s):
                    await self._woken.wait()

    async def _dismiss_idle(self) -> None:
        """Wake the couriers of destinations without work, so that they go. One look for all costs less than a timer
        for each, which would be set anew with every message."""
        while True:
            if not self._couriers:
                self._hired = trio.Event()
                await self._hired.wait()
            await trio.sleep(IDLE_S / LOOKS_WHILE_IDLE)
            for served in list(self._destinations.values()):
                served.looks_without_work += 1
                if self._starved or served.has_been_idle:
                    served.idle.unpark_all()

    # ------------------------------------------------------------------ claiming

    async def _claim(self) -> float:
        """Claim what is due and fits; returns for how many seconds there will be nothing to do."""
        now = self._clocks.steady()
        self._resume([served for served in self._in_trouble.values() if served.pause and served.pause.until <= now])
        room = min(self._memory.room, CLAIM_BATCH)
        # For fewer, the oldest would get no share of it.
        if room < OLDEST_EVERY:
            return STORE_RETRY_S
        left_out = self._left_out()
        asked_for = [
            served.pause for domain, served in self._in_trouble.items() if served.pause and domain not in left_out
        ]
        claimed = await self._spool.claim(now, room, left_out)
        self._memory.take(delivery.target.key[1] for delivery in claimed)
        await self._distribute(claimed)
        if len(claimed) == room:
            return 0
        for pause in asked_for:
            pause.is_told = True
        # What was due is claimed; those that are full wake us when they have room.
        due = await self._spool.next_due(self._left_out(), now)
        ends = [served.pause.until for served in self._in_trouble.values() if served.pause]
        longest_s = LOOK_S if self._spool.store.shared else LONGEST_SLEEP_S
        longest = self._clocks.steady() + int(longest_s * 1000)
        self._sleeps_until = min(longest if due is None else due, *ends, longest)
        return min(max(0.001, (self._sleeps_until - self._clocks.steady()) / 1000), longest_s)

    def _left_out(self) -> set[str]:
        """Destinations of which nothing is to be claimed: they have as much as they may, or are paused."""
        paused = {domain for domain, served in self._in_trouble.items() if served.pause and served.pause.is_told}
        return self._memory.full | paused

    async def _distribute(self, claimed: Sequence[Delivery]) -> None:
        """Give what was claimed to where it goes: mostly to the couriers of its destination."""
        kept: list[Delivery] = []
        ruled: list[Delivery] = []
        told: dict[str, list[Delivery]] = {}
        for delivery in claimed:
            domain = delivery.target.key[1]
            served = self._in_trouble.get(domain)
            if self._holds.rule_for(delivery) is not None:
                ruled.append(delivery)
            elif served is None or served.pause is None:
                self._enqueue(delivery)
            elif served.pause.shared is not None and delivery.next_attempt_at <= served.pause.began_at:
                # It was due when the destination was tried for the last time: that was its attempt, too.
                told.setdefault(domain, []).append(delivery)
            else:
                kept.append(replace(delivery, state=DeliveryState.WAITING))
                # What was due before it has been claimed. To claim what comes behind it would be in vain, again and
                # again as long as the pause lasts, where so much arrives that it fills a whole claim.
                served.pause.is_told = True
        for domain, deliveries in told.items():
            pause = self._in_trouble[domain].pause
            if pause is not None and pause.shared is not None and self._nursery is not None:
                self._nursery.start_soon(self._outcomes.share, deliveries, pause.shared)
        await self._keep(kept)
        for delivery in await self._not_held(ruled):
            self._enqueue(delivery)

    async def _keep(self, deliveries: Sequence[Delivery]) -> None:
        """Leave deliveries in the spool as these values say, without an attempt."""
        if deliveries:
            await self._spool.leave(deliveries)
            self._let_go(deliveries)

    def _let_go(self, deliveries: Sequence[Delivery]) -> None:
        """These are no longer in memory."""
        self.release([delivery.target.key[1] for delivery in deliveries])
        for delivery in deliveries:
            self._spool.done_with(delivery.message_id)

    # ------------------------------------------------------------------ destinations and their couriers

    def _enqueue(self, delivery: Delivery) -> None:
        domain = delivery.target.key[1]
        served = self._destinations.get(domain)
        if served is None:
            served = self._destinations[domain] = _Served(domain, self._max_per_destination)
        served.waiting.add(delivery)
        served.looks_without_work = 0
        if served.idle:
            served.idle.unpark()
        elif served.wants_a_courier:
            self._start_courier(served)

    def _start_courier(self, served: _Served) -> None:
        if self._nursery is None or self._stopping:
            return  # left claimed: the next start finds it
        if self._couriers >= (MAX_COURIERS - MAX_COURIERS // 4 if served.couriers else MAX_COURIERS):
            if served.couriers == 0 and served not in self._starved:
                self._starved.append(served)
            return
        self._couriers += 1
        self._hired.set()
        served.couriers += 1
        self._nursery.start_soon(self._work, served)

    async def _work(self, served: _Served) -> None:
        """One courier's shift: until there has been nothing to carry for a while, or others need its place."""
        courier = self._new_courier(served.domain)
        carried = 0
        try:
            while not self._stopping:
                await self._spool.until_leases_stand()
                batch = served.waiting.next_batch()
                if self._holds.has_rules:
                    batch = await self._not_held(batch)
                if batch:
                    ids = [delivery.id for delivery in batch]
                    self._in_hand.update(ids)
                    try:
                        stays = await self._carry(courier, served, batch)
                    finally:
                        self._in_hand.difference_update(ids)
                    carried += 1
                    if not stays or (self._starved and self._has_had_its_share(served, carried)):
                        break
                elif served.waiting:
                    continue
                elif self._stopping or self._starved or served.has_been_idle:
                    break
                else:
                    await served.idle.park()
        finally:
            self._leave(served)
            await courier.close()

    async def _not_held(self, batch: list[Delivery]) -> list[Delivery]:
        """Those that no rule of the operator's is about; the others are held."""
        while ruled := [(delivery, rule) for delivery in batch if (rule := self._holds.rule_for(delivery)) is not None]:
            held = [replace(delivery, state=DeliveryState.HELD, held_for=held_for(rule)) for delivery, rule in ruled]
            try:
                await self._spool.committer.commit([Keep(delivery) for delivery in held])
            except LeaseLost as lost:
                self._let_go([delivery for delivery in batch if delivery.id in lost.delivery_ids])
                batch = [delivery for delivery in batch if delivery.id not in lost.delivery_ids]
                continue
            except StoreUnavailable:
                # By the time that it can be written down, the rule may be gone: nobody would let go what it holds.
                await trio.sleep(STORE_RETRY_S)
                continue
            self._let_go(held)
            ids = {delivery.id for delivery in held}
            batch = [delivery for delivery in batch if delivery.id not in ids]
        return batch

    def _has_had_its_share(self, served: _Served, carried: int) -> bool:
        """Whether a courier has to make room for a destination that has none."""
        share = MAX_COURIERS // max(1, len(self._destinations) - len(self._in_trouble))
        return served.couriers > max(1, share) or carried >= SHIFT

    def _leave(self, served: _Served) -> None:
        """A courier ends its shift: its place goes to who has waited longest."""
        served.couriers -= 1
        self._couriers -= 1
        if not served.couriers:
            if served.wants_a_courier:
                self._starved.append(served)
            elif not served.waiting and not served.in_trouble:
                self._destinations.pop(served.domain, None)
        if self._starved:
            self._start_courier(self._starved.popleft())

    async def _carry(self, courier: Courier, served: _Served, batch: list[Delivery]) -> bool:
        """Carry one batch; False where this courier had better go."""
        if self._settler.is_inside(served.domain):
            await self._outcomes.redirect(batch)
            return True
        message_id = batch[0].message_id
        try:
            outcomes: list[Outcome] = await courier.carry(batch, lambda: self._spool.content(message_id))
        except Unreachable as unreachable:
            return await self._could_not_reach(served, batch, unreachable.outcome)
        except Exception:
            # A defect of ours, met on one message or one server's words. It must not end the engine, which would meet
            # it again at the next start, and take all other mail with it.
            _logger.exception("an attempt failed on a defect message=%s", message_id)
            outcomes = [Deferred(DEFECT)] * len(batch)
        answer = trouble(outcomes, tls_was_required=batch[0].require_tls)
        if answer is not None:
            untried = self._was_refused(served, answer)
            await self._outcomes.settle(batch, outcomes)
            await self._put_off(untried)
            return False
        if has_answered(outcomes):
            self._has_answered(served)
        await self._outcomes.settle(batch, outcomes)
        return True

    # ------------------------------------------------------------------ trouble with a destination

    def _has_answered(self, served: _Served) -> None:
        if served.in_trouble:
            self._in_trouble.pop(served.domain, None)
        served.has_answered(self._clocks.steady())
        if served.wants_a_courier and not served.idle:
            self._start_courier(served)

    async def _could_not_reach(self, served: _Served, batch: list[Delivery], outcome: Deferred | Failed) -> bool:
        if isinstance(outcome, Deferred) and served.couriers > 1:
            # Others of us are there, or on the way: it has had enough of our connections, not of our mail.
            served.waiting.give_back(batch)
            served.has_refused_one(self._clocks.steady())
            served.idle.unpark()
            return False
        # Everything that waits for this destination shares the outcome: to try each one would take for ever.
        batch += served.waiting.take_all()
        if isinstance(outcome, Deferred):
            self._pause(served, outcome.answer, outcome)
        await self._outcomes.share(batch, outcome)
        return isinstance(outcome, Failed)

    def _was_refused(self, served: _Served, answer: Answer) -> list[Delivery]:
        """A connection was there, and the destination has ended it: that may have been for the message it carried.

        Returns the others, which now have to wait untried; none where other couriers are at work.
        """
        if served.couriers > 1:
            served.has_refused_one(self._clocks.steady())
            return []
        return served.waiting.take_all() if self._pause(served, answer, None) else []

    async def _put_off(self, untried: Sequence[Delivery]) -> None:
        """Leave deliveries to a paused destination in the spool, where they keep their place. Those whose time is over
        have waited for this attempt: the next one may again be spent on another message."""
        expired: list[Delivery] = []
        kept: list[Delivery] = []
        for delivery in untried:
            if self._has_expired(delivery):
                expired.append(delivery)
            else:
                kept.append(replace(delivery, state=DeliveryState.WAITING))
        await self._keep(kept)
        await self._outcomes.share(expired, Deferred(_TAKES_NO_MAIL))

    def _pause(self, served: _Served, answer: Answer, shared: Deferred | None) -> bool:
        """Leave a destination alone for a while. False where too many are already."""
        if served.domain not in self._in_trouble:
            if len(self._in_trouble) >= MAX_IN_TROUBLE and not self._forget_one():
                return False
            self._in_trouble[served.domain] = served
        served.leave_alone(self._clocks.steady(), answer, shared, self._schedule)
        # What is due in the spool shares it; and who sleeps has to know when the pause ends.
        self.wake()
        return True

    def _forget_one(self) -> bool:
        """Forget the trouble of a destination that is not paused and has no mail."""
        for domain, served in self._in_trouble.items():
            if served.pause is None and not served.waiting and not served.couriers:
                del self._in_trouble[domain]
                self._destinations.pop(domain, None)
                return True
        return False

    def _is_paused(self, domain: str) -> bool:
        served = self._in_trouble.get(domain)
        return served is not None and served.pause is not None

    def _resume(self, paused: Sequence[_Served]) -> None:
        for served in paused:
            served.end_pause()
            if served.wants_a_courier:
                self._start_courier(served)

    def _has_expired(self, delivery: Delivery) -> bool:
        age_ms = self._clocks.wall() - delivery.accepted_at
        return self._schedule.has_expired(age_ms, self._clocks.running() - delivery.running_since)

    def _have_settled(self, deliveries: Sequence[Delivery], settlements: Sequence[Settlement]) -> None:
        self._let_go(deliveries)
        for settlement in settlements:
            if settlement.due_now or (settlement.next_attempt_at or self._sleeps_until) < self._sleeps_until:
                self.wake()

    async def lose(self, delivery_ids: Collection[str]) -> None:
        """Other nodes have taken these over: they leave memory, but for those that a courier is at already. What
        becomes of these is decided when it is written down."""
        lost = self.withdraw(lambda delivery: delivery.id in delivery_ids)
        # It says so to the store, which knows better who has them.
        await self._spool.leave([replace(delivery, state=DeliveryState.WAITING) for delivery in lost])

    # ------------------------------------------------------------------ for the operator

    def withdraw(self, wanted: Callable[[Delivery], bool]) -> list[Delivery]:
        """Take out of memory what no courier has begun with. What becomes of it is the caller's to decide."""
        withdrawn: list[Delivery] = []
        for served in self._destinations.values():
            withdrawn += served.waiting.take(wanted)
        self._let_go(withdrawn)
        return withdrawn

    def give_back(self, withdrawn: Sequence[Delivery]) -> None:
        """Take into memory again what could not be changed, whatever room there is."""
        self._memory.take(delivery.target.key[1] for delivery in withdrawn)
        self.take(withdrawn)

    def resume(self, domains: Collection[str]) -> None:
        """End the pauses of these destinations (lower case): what waits for them is tried at once."""
        self._resume([self._in_trouble[domain] for domain in domains if self._is_paused(domain)])
        self.wake()

    def why(self, delivery: Delivery) -> str:
        """Why a delivery that is not HELD is not with the next hop yet, in plain words for people."""
        served = self._destinations.get(delivery.target.key[1])
        return still_here(
            delivery,
            Facts(
                is_in_hand=delivery.id in self._in_hand,
                couriers=served.couriers if served else 0,
                max_couriers=MAX_COURIERS,
                is_starved=served is not None and served in self._starved,
                pause=served.pause if served else None,
            ),
            self._clocks,
        )
