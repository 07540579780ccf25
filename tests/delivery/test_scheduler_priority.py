"""Mail of a higher plan goes first, and mail of a lower one goes on all the same."""

import trio
from scheduled import CONTENT, World, running
from values import NOW, delivery

from appliance.delivery.memory import MAX_CLAIMED_PER_DESTINATION
from appliance.model.delivery import OLDEST_EVERY, Delivery
from appliance.storage.spool import Accept, AddPart
from appliance.storage.sqlite_spool import SqliteSpool


def queue(store: SqliteSpool, *deliveries: Delivery) -> None:
    """What is on the disk before the scheduler wakes."""
    store.apply([AddPart(each.message_id, 0, CONTENT) for each in deliveries])
    store.apply([Accept(deliveries)])


def order(world: World) -> list[str]:
    return [each for _, ids in world.carried for each in ids]


async def test_mail_of_higher_priority_goes_first(store: SqliteSpool, autojump_clock: trio.testing.MockClock) -> None:
    low = [delivery(f"low{n:02}", f"l{n}") for n in range(20)]
    high = [delivery(f"high{n:02}", f"h{n}", priority=10) for n in range(20)]
    async with running(store, max_per_destination=1) as world:
        world.slowness_s["home.test"] = 1
        await world.accept(*low, *high)
        await trio.sleep(60)
        assert world.waiting() == []
        assert sum(each.startswith("high") for each in order(world)[:20]) >= 20 - 20 // OLDEST_EVERY - 1


async def test_a_flood_of_high_priority_leaves_its_share_to_the_oldest_also_on_the_disk(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    count = 4 * MAX_CLAIMED_PER_DESTINATION
    queue(store, *(delivery(f"high{n:05}", f"h{n}", priority=10, next_attempt_at=NOW + 1) for n in range(count)))
    queue(store, *(delivery(f"low{n:05}", f"l{n}", priority=-10) for n in range(400)))
    async with running(store, max_per_destination=1) as world:
        world.slowness_s["home.test"] = 1
        # Hot, so that no thread is needed, under whose work the clock would jump.
        for each in store.deliveries(limit=10_000):
            world.spool.keep_hot(each.message_id, CONTENT, 1000)
        world.scheduler.wake()
        await trio.sleep(1000)
        carried = order(world)
        assert len(carried) > 900
        low = [each for each in carried if each.startswith("low")]
        assert len(carried) // OLDEST_EVERY - 5 <= len(low) <= len(carried) // OLDEST_EVERY + 5
        assert low == sorted(low), "the oldest first"
        await trio.sleep(2000)
        assert world.waiting() == []
        assert world.room_is_free()


async def test_urgent_mail_that_arrives_behind_a_long_queue_overtakes_it(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store, max_per_destination=1) as world:
        world.slowness_s["home.test"] = 1
        await world.accept(*(delivery(f"low{n:04}", f"l{n}") for n in range(MAX_CLAIMED_PER_DESTINATION - 1)))
        await trio.sleep(10)
        await world.accept(delivery("urgent", "urgent", priority=10, next_attempt_at=NOW + 10_000))
        await trio.sleep(5)
        assert "urgent" in order(world)
