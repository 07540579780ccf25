"""Whatever destinations answer, in whatever order: each delivery ends exactly once, and no count is ever off."""

import random
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scheduled import DAY_MS, World, busy, closing, gone, lost, ok, running
from trio.testing import MockClock
from values import NOW, answer, delivery

from appliance.delivery import memory as memory_module
from appliance.delivery import scheduler as scheduler_module
from appliance.model.delivery import Deferred, Delivery, Outcome
from appliance.privacy.sealing import Sealer
from appliance.storage.sqlite_spool import SqliteSpool
from smtp.address import Address

DOMAINS = ("a.test", "b.test", "c.test", "d.test")
COURIERS = 6
PER_DESTINATION = 4


def failing(_: Delivery) -> Outcome:
    """A defect of ours."""
    raise ZeroDivisionError("a defect")


def internal(_: Delivery) -> Outcome:
    """Our own spool could not be read."""
    return Deferred(answer(0, enhanced_code="4.3.0", reason="spool-failed", text="our own spool failed"))


SCRIPTS = (ok, ok, ok, busy, gone, closing, lost, failing, internal)


async def live_through(store: SqliteSpool, seed: int) -> None:
    """Some hours of a queue whose destinations do as they like, and then a time in which all is well."""
    draw = random.Random(seed)
    async with running(store, max_per_destination=PER_DESTINATION) as world:
        world.script = lambda each: draw.choice(SCRIPTS)(each)
        accepted = 0
        for _ in range(draw.randint(5, 25)):
            arriving = [
                delivery(
                    f"d{accepted + n:04}",
                    f"m{(accepted + n) // draw.choice((1, 3))}-{accepted}",
                    # So that no bounce is among the messages: each delivery ends once.
                    sender="",
                    return_path="",
                    target=Address("someone", draw.choice(DOMAINS)),
                    priority=draw.choice((0, 0, 10, -5)),
                    next_attempt_at=NOW + round(trio.current_time() * 1000),
                    accepted_at=NOW - draw.choice((0, 6 * DAY_MS)),
                    running_since=NOW - 6 * DAY_MS,
                    require_tls=draw.random() < 0.1,
                )
                for n in range(draw.randint(0, 12))
            ]
            accepted += len(arriving)
            await world.accept(*arriving)
            world.unreachable = {domain for domain in DOMAINS if draw.random() < 0.3}
            world.most_connections = draw.choice((1, 2, 1000))
            world.slowness_s = {domain: draw.choice((0.001, 1.0, 40.0)) for domain in DOMAINS}
            await trio.sleep(draw.choice((0, 0.01, 1, 30, 100, 1000)))
            if draw.random() < 0.1:
                world.scheduler.resume(draw.sample(DOMAINS, 2))
            assert all(most <= PER_DESTINATION for most in world.most_at_once.values())
            assert world.most_in_all <= COURIERS
            assert all(world.scheduler.why(each) for each in world.waiting())
        await end_well(world)
        ended = Counter(row["type"] for row in store.outbox(100_000))
        assert ended["DELIVERED"] + ended["HARD_BOUNCED"] == accepted, "each one, and once"


async def end_well(world: World) -> None:
    """From now on all is well."""
    world.script = ok
    world.unreachable.clear()
    world.slowness_s.clear()
    world.most_connections = 1000
    for _ in range(100):
        # Longer than the longest pause, than what is left of the slowness, and than a courier keeps its connection.
        await trio.sleep(1000)
        if not world.waiting():
            break
    # The last one may have gone a moment ago, and its courier keeps the connection for the next.
    await trio.sleep(1000)
    assert world.waiting() == []
    assert world.room_is_free()
    assert sum(world.at_once.values()) == 0
    assert world.connections == 0


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 32))
@example(seed=1152)
def test_each_delivery_ends_once_whatever_destinations_do(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(scheduler_module, "MAX_COURIERS", COURIERS)
    monkeypatch.setattr(scheduler_module, "MAX_IN_TROUBLE", 2)
    monkeypatch.setattr(memory_module, "MAX_CLAIMED_PER_DESTINATION", 8)
    monkeypatch.setattr(scheduler_module, "CLAIM_BATCH", 5)
    with TemporaryDirectory() as directory:
        store = SqliteSpool(Path(directory) / "spool.sqlite", {"spool": Sealer(bytes(32)), "log": Sealer(bytes(32))})
        try:
            trio.run(live_through, store, seed, clock=MockClock(autojump_threshold=0))
        finally:
            store.close()
