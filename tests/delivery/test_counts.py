"""What is counted of deliveries: each attempt once, and what became of each delivery."""

import trio
from scheduled import World, busy, gone, ok, running
from values import delivery

from appliance.storage.sqlite_spool import SqliteSpool


def attempts(world: World) -> tuple[int, int, int]:
    """Those that were delivered, deferred and failed."""
    counts = world.counts
    return counts.attempts_delivered, counts.attempts_deferred, counts.attempts_failed


def became(world: World) -> tuple[int, int, int]:
    """How many deliveries are done, how often one stayed, and how many were given up."""
    return world.counts.delivered, world.counts.deferred, world.counts.bounced


async def test_what_is_delivered_later_was_deferred_before(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        world.script = busy
        await world.accept(delivery())
        await trio.sleep(1)
        assert (attempts(world), became(world)) == ((0, 1, 0), (0, 1, 0))
        world.script = ok
        await trio.sleep(120)
        assert (attempts(world), became(world)) == ((1, 1, 0), (1, 1, 0))
        # After the first minute of the schedule.
        assert 60 <= world.counts.until_delivered_s.sum < 120


async def test_what_fails_has_bounced_and_its_report_is_a_delivery(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        world.script = lambda each: gone(each) if each.sender else ok(each)
        await world.accept(delivery())
        await trio.sleep(10)
        assert (attempts(world), became(world)) == ((1, 0, 1), (1, 0, 1))


async def test_what_is_deferred_for_too_long_has_bounced(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        world.script = lambda each: busy(each) if each.sender else ok(each)
        await world.accept(delivery())
        await trio.sleep(6 * 86_400)
        delivered, deferred, bounced = became(world)
        assert (delivered, bounced) == (1, 1)
        # The last one was an attempt like the others, and nothing stayed behind it.
        assert attempts(world) == (1, deferred + 1, 0)
