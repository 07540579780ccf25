"""The live stream: every follower gets every event in order, and a slow or absent one costs nobody anything."""

import gc
import tracemalloc

import pytest
import trio
from values import event

from appliance.logbook.live import MAX_BEHIND, MAX_FOLLOWERS, Follower, LiveStream, TooManyFollowers
from appliance.model.event import DeliveryEvent


async def taken(follower: Follower, count: int) -> list[str]:
    """The ids of the next events."""
    with trio.fail_after(5):
        return [(await anext(follower)).id for _ in range(count)]


async def rest(follower: Follower) -> list[DeliveryEvent]:
    """What is left for a follower who was cut off."""
    with trio.fail_after(5):
        return [each async for each in follower]


async def test_every_follower_gets_every_event_from_then_on_in_order() -> None:
    live = LiveStream()
    live.publish([event("e0")])
    first = live.follow()
    live.publish([event("e1"), event("e2")])
    second = live.follow()
    live.publish([event("e3")])
    assert await taken(first, 3) == ["e1", "e2", "e3"]
    assert await taken(second, 1) == ["e3"]
    first.close()
    second.close()


async def test_a_follower_waits_for_what_has_not_happened_yet() -> None:
    live = LiveStream()
    follower = live.follow()
    got: list[str] = []

    async def wait() -> None:
        got.extend(await taken(follower, 1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert got == []
        live.publish([event("e1")])
    assert got == ["e1"]
    follower.close()


async def test_a_slow_follower_is_cut_off_and_the_others_go_on() -> None:
    live = LiveStream()
    slow, quick = live.follow(), live.follow()
    same = event("e1")
    for _ in range(MAX_BEHIND):
        live.publish([same])
    assert len(await taken(quick, MAX_BEHIND)) == MAX_BEHIND
    live.publish([event("one too many")])
    live.publish([event("and another")])
    assert await taken(quick, 2) == ["one too many", "and another"]
    left = await rest(slow)
    assert len(left) == MAX_BEHIND
    assert left[-1] is same
    slow.close()
    quick.close()


async def test_who_never_reads_costs_no_more_memory_than_its_limit() -> None:
    live = LiveStream()
    idle = [live.follow() for _ in range(3)]
    for number in range(MAX_BEHIND + 1):
        live.publish([event(str(number))])
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(2 * MAX_BEHIND):
            live.publish([event(str(number))])
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 100_000, "an event takes some hundred octets; twenty thousand were not kept"
    for follower in idle:
        follower.close()


async def test_one_follower_too_many_is_turned_away_until_another_leaves() -> None:
    live = LiveStream()
    followers = [live.follow() for _ in range(MAX_FOLLOWERS)]
    with pytest.raises(TooManyFollowers):
        live.follow()
    followers.pop().close()
    followers.append(live.follow())
    with pytest.raises(TooManyFollowers):
        live.follow()
    for follower in followers:
        follower.close()
        follower.close()


async def test_one_who_was_cut_off_makes_room_for_another() -> None:
    live = LiveStream()
    followers = [live.follow() for _ in range(MAX_FOLLOWERS)]
    live.publish([event()] * (MAX_BEHIND + 1))
    followers.append(live.follow())
    for follower in followers:
        follower.close()


async def test_one_who_has_left_gets_nothing_more() -> None:
    live = LiveStream()
    follower = live.follow()
    follower.close()
    live.publish([event()])
    with pytest.raises(trio.ClosedResourceError):
        await anext(follower)
