"""Whatever an operator does in the middle of traffic: each delivery ends exactly once, and nothing is held for ever.

The spool's disk is slow, and at times it refuses, so that what scheduler and operator do falls in between each other.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scheduled import DAY_MS, World, busy, closing, gone, lost, ok, running
from trio.testing import MockClock
from values import NOW, delivery

from appliance.delivery import memory as memory_module
from appliance.delivery import operator as operator_module
from appliance.delivery import scheduler as scheduler_module
from appliance.delivery.operator import QueueFilter
from appliance.model.delivery import Deferred, Delivery, Outcome
from appliance.privacy.sealing import Sealer
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import Operation, Turn, at_once
from appliance.storage.sqlite_spool import SqliteSpool
from smtp.address import Address

T = TypeVar("T")

DOMAINS = ("a.test", "b.test", "c.test", "d.test")
SCRIPTS = (ok, ok, busy, gone, closing, lost)
VERBS = ("hold", "hold", "release", "release", "retry", "fail", "drop")


class SlowCommitter:
    """Takes its time, one after the other, and tells of it a little later still. A `Committer`."""

    def __init__(self, store: SqliteSpool, draw: random.Random, refusals: float) -> None:
        """`refusals`: the share of what is to be written that the disk refuses."""
        self._store = store
        self._draw = draw
        self.refusals = refusals
        self._one = trio.Lock()

    async def commit(self, operations: Sequence[Operation]) -> None:
        """See `Committer`."""

        def write() -> None:
            if self._draw.random() < self.refusals:
                raise StoreUnavailable("refused")
            self._store.apply(operations)

        await self.call(write)

    async def call(self, function: Callable[[], T]) -> T:
        """See `Committer`."""
        # As with the real one, nobody who waits can be called away.
        with trio.CancelScope(shield=True):
            async with self._one:
                await trio.sleep(self._draw.choice((0, 0.001, 0.05, 0.3)))
                result = function()
            for _ in range(self._draw.randint(0, 3)):
                await trio.lowlevel.checkpoint()
        return result

    async def beside(self, do: Callable[[Turn], T]) -> T:
        """See `Committer`."""
        return await self.call(partial(do, at_once))


class Life:
    """One queue, its destinations, and its operator."""

    def __init__(self, world: World, committer: SlowCommitter, draw: random.Random) -> None:
        self._world = world
        self._committer = committer
        self._draw = draw
        self._accepted = 0
        self._ended: Counter[str] = Counter()
        """How often each delivery was taken or refused for good."""
        self._dropped = 0

    async def live(self, store: SqliteSpool) -> None:
        """Some hours in which anything may happen, and then a time in which all is well."""
        draw, world = self._draw, self._world
        world.script = lambda each: self._answer(each, draw.choice(SCRIPTS))
        refusals = self._committer.refusals
        async with trio.open_nursery() as nursery:
            for _ in range(draw.randint(5, 20)):
                await self._accept()
                world.unreachable = {domain for domain in DOMAINS if draw.random() < 0.3}
                world.slowness_s = {domain: draw.choice((0.001, 0.5, 10.0)) for domain in DOMAINS}
                for _ in range(draw.randint(0, 3)):
                    nursery.start_soon(self._operate)
                    await trio.sleep(draw.choice((0, 0.01, 0.2)))
                await trio.sleep(draw.choice((0, 0.01, 1, 30, 100, 1000)))
        await self._end_well()
        assert max(self._ended.values(), default=0) <= 1
        if not refusals:
            # (A drop that was interrupted does not say how many it has dropped.)
            types = Counter(row["type"] for row in store.outbox(100_000))
            assert types["DELIVERED"] + types["HARD_BOUNCED"] + self._dropped == self._accepted

    async def _accept(self) -> None:
        arriving = [
            delivery(
                f"d{self._accepted + n:04}",
                f"m{self._accepted + n}",
                # So that no bounce is among the messages.
                sender="",
                return_path="",
                target=Address("someone", self._draw.choice(DOMAINS)),
                next_attempt_at=NOW + round(trio.current_time() * 1000),
                accepted_at=NOW - self._draw.choice((0, 6 * DAY_MS)),
                running_since=NOW - 6 * DAY_MS,
            )
            for n in range(self._draw.randint(1, 12))
        ]
        try:
            await self._world.accept(*arriving)
        except StoreUnavailable:
            return
        self._accepted += len(arriving)

    async def _operate(self) -> None:
        wanted = self._draw.choice(
            (
                QueueFilter(),
                QueueFilter(sender=""),
                QueueFilter(domain="example.org"),
                QueueFilter(recipient="sales@example.org"),
                QueueFilter(destination=self._draw.choice(DOMAINS)),
                QueueFilter(id=f"d{self._draw.randint(0, self._accepted):04}"),
            )
        )
        verb = self._draw.choice(VERBS)
        try:
            affected = await getattr(self._world.operator, verb)(wanted)
        except StoreUnavailable:
            return
        if verb == "drop":
            self._dropped += affected

    def _answer(self, each: Delivery, script: Callable[[Delivery], Outcome]) -> Outcome:
        outcome = script(each)
        if not isinstance(outcome, Deferred):
            self._ended[each.id] += 1
        return outcome

    async def _end_well(self) -> None:
        """From now on all is well, and nothing is to be held."""
        world = self._world
        self._committer.refusals = 0
        world.script = lambda each: self._answer(each, ok)
        world.unreachable.clear()
        world.slowness_s.clear()
        await world.operator.release(QueueFilter())
        for _ in range(100):
            await trio.sleep(1000)
            if not world.waiting():
                break
        assert world.waiting() == []
        assert world.room_is_free()


async def live_through(store: SqliteSpool, seed: int) -> None:
    draw = random.Random(seed)
    committer = SlowCommitter(store, draw, draw.choice((0, 0, 0.1)))
    async with running(store, max_per_destination=4, committer=committer) as world:
        await trio.testing.wait_all_tasks_blocked()
        await Life(world, committer, draw).live(store)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 32))
def test_each_delivery_ends_once_whatever_an_operator_does(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(scheduler_module, "MAX_COURIERS", 6)
    monkeypatch.setattr(scheduler_module, "MAX_IN_TROUBLE", 2)
    monkeypatch.setattr(scheduler_module, "CLAIM_BATCH", 5)
    monkeypatch.setattr(memory_module, "MAX_CLAIMED_PER_DESTINATION", 8)
    monkeypatch.setattr(operator_module, "PAGE", 3)
    with TemporaryDirectory() as directory:
        store = SqliteSpool(Path(directory) / "spool.sqlite", {"spool": Sealer(bytes(32)), "log": Sealer(bytes(32))})
        try:
            trio.run(live_through, store, seed, clock=MockClock(autojump_threshold=0))
        finally:
            store.close()
