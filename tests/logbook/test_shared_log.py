"""The log of several nodes, as one follows it: in one order, with nothing left out and nothing twice.

The nodes here are what takes events to the log and marks how far it is; all else of an appliance is not needed for it.
"""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from storage_backends import BACKENDS, Backend
from stored_values import an_event

from appliance.logbook import sources
from appliance.logbook.feed import Feed
from appliance.logbook.horizon import GONE_S, MARGIN_MS, MARK_MS, OLD_MS, Horizons, OwnHorizon
from appliance.logbook.sources import SharedLog
from appliance.logbook.subscribers import Interest
from appliance.model.event import DeliveryEvent
from appliance.model.ids import first_id_at, id_source
from appliance.model.time import HOUR_MS, wall_clock
from appliance.privacy.declarations import EVENTS
from appliance.storage.event_rows import event_to_row
from appliance.storage.records import Insert, RecordStore, StoreUnavailable

EVERYTHING = Interest(owner="", wants=lambda _: True)
LIMIT_S = 30.0
NOW = 1_800_000_000_000


@pytest.fixture
def records(tmp_path: Path) -> Iterator[RecordStore]:
    backend: Backend = BACKENDS["sqlite"](tmp_path / "records")
    yield backend.records()
    backend.close()


class Idle:
    """Nothing waits to be written."""

    def pending_s(self) -> float:
        return 0.0


class Node:
    """One that makes events, and takes them to the log somewhat later."""

    def __init__(self, name: str, records: RecordStore) -> None:
        self.horizon = OwnHorizon(records, name, wall_clock)
        self.new_id = id_source()
        self._records = records
        self._outbox: list[DeliveryEvent] = []

    def happens(self) -> DeliveryEvent:
        """In its outbox, and told to nobody."""
        event = an_event(id=self.new_id(), at=wall_clock())
        self._outbox.append(event)
        return event

    def move(self) -> None:
        """What is in the outbox is in the log now, and the mark says so."""
        instant = self.horizon.present(Idle())
        moved, self._outbox = self._outbox, []
        self._records.apply([Insert(EVENTS, event_to_row(event)) for event in moved])
        self.horizon.mark(instant)


@asynccontextmanager
async def feeding(records: RecordStore) -> AsyncIterator[Feed]:
    feed = Feed(SharedLog(records, wall_clock), records, wall_clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run)
        yield feed
        nursery.cancel_scope.cancel()


# ---------------------------------------------------------------- marks


def test_the_log_is_whole_as_far_as_the_least_of_the_marks(records: RecordStore) -> None:
    clock = [NOW]
    one, other = (OwnHorizon(records, name, lambda: clock[0]) for name in ("one", "other"))
    one.mark(NOW - 50)
    other.mark(NOW - 900)
    seen = Horizons(records, lambda: clock[0], lambda: 0.0)
    assert seen.reached() == first_id_at(NOW - 900)
    other.forget()
    assert seen.reached() == first_id_at(NOW - 50)
    one.forget()
    assert seen.reached() == first_id_at(NOW), "where nobody writes, it is whole"


def test_a_mark_is_moved_when_it_is_worth_it_and_back_only_with_the_clock(records: RecordStore) -> None:
    own, seen = OwnHorizon(records, "one", lambda: NOW), Horizons(records, lambda: NOW, lambda: 0.0)
    for instant, reached in (
        (NOW, NOW),
        (NOW + MARK_MS - 1, NOW),
        (NOW + MARK_MS, NOW + MARK_MS),
        (NOW, NOW + MARK_MS),
        (NOW - HOUR_MS, NOW - HOUR_MS),
    ):
        own.mark(instant)
        assert seen.reached() == first_id_at(reached)


def test_what_waits_to_be_written_keeps_the_mark_back(records: RecordStore) -> None:
    class Slow:
        def pending_s(self) -> float:
            return 2.5

    assert OwnHorizon(records, "one", lambda: NOW).present(Slow()) == NOW - MARGIN_MS - 2500


def test_a_node_that_is_gone_holds_nobody_up_for_long(records: RecordStore) -> None:
    steady = [100.0]
    here, gone = (OwnHorizon(records, name, lambda: NOW) for name in ("here", "gone"))
    gone.mark(NOW - 5000)
    here.mark(NOW)
    seen = Horizons(records, lambda: NOW, lambda: steady[0])
    assert seen.reached() == first_id_at(NOW - 5000)
    steady[0] += GONE_S - 0.1
    here.mark(NOW + 9000)
    assert seen.reached() == first_id_at(NOW - 5000)
    steady[0] += 0.1
    assert seen.reached() == first_id_at(NOW + 9000)
    gone.mark(NOW - 4000)
    assert seen.reached() == first_id_at(NOW - 4000), "it is back, and waited for"


def test_while_the_store_is_away_no_node_is_taken_for_gone(records: RecordStore) -> None:
    class MayBeAway:
        is_away = False

        def find(self, *asked: Any) -> list[dict[str, Any]]:
            if self.is_away:
                raise StoreUnavailable("away")
            return records.find(*asked)

    steady = [100.0]
    for name in ("one", "other"):
        OwnHorizon(records, name, lambda: NOW).mark(NOW)
    store = MayBeAway()
    seen = Horizons(cast(RecordStore, store), lambda: NOW + 20_000, lambda: steady[0])
    assert seen.reached() == first_id_at(NOW)
    store.is_away = True
    steady[0] += 2 * GONE_S
    with pytest.raises(StoreUnavailable):
        seen.reached()
    store.is_away = False
    assert seen.reached() == first_id_at(NOW), "neither of them could mark how far it is"
    steady[0] += GONE_S
    assert seen.reached() == first_id_at(NOW + 20_000)


def test_a_mark_that_was_old_before_anybody_looked_is_not_waited_for(records: RecordStore) -> None:
    OwnHorizon(records, "gone", lambda: NOW - OLD_MS - 1).mark(NOW - OLD_MS - 1)
    OwnHorizon(records, "here", lambda: NOW).mark(NOW)
    assert Horizons(records, lambda: NOW, lambda: 0.0).reached() == first_id_at(NOW)


# ---------------------------------------------------------------- following


async def test_events_of_all_nodes_are_told_in_one_order_to_who_stays_and_who_comes_back(
    records: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "LOOK_S", 0.02)
    monkeypatch.setattr("appliance.logbook.horizon.MARK_MS", 20)
    nodes = [Node(f"mx{number}.onward.test", records) for number in range(3)]
    made: list[DeliveryEvent] = []
    stayed: list[str] = []
    came_back: list[str] = []
    done = trio.Event()

    async def live(node: Node, pace: random.Random) -> None:
        while not done.is_set():
            for _ in range(pace.randrange(4)):
                made.append(node.happens())
            await trio.sleep(pace.random() * 0.1)
            await trio.to_thread.run_sync(node.move)

    async def stay(feed: Feed) -> None:
        async with aclosing(feed.events(EVERYTHING, after="0")) as events:
            async for event in events:
                stayed.append(event.id)

    async def come_back(feed: Feed, pace: random.Random) -> None:
        after = "0"
        while True:
            with trio.move_on_after(pace.random()):
                async with aclosing(feed.events(EVERYTHING, after=after)) as events:
                    async for event in events:
                        came_back.append(event.id)
                        after = event.id

    with trio.fail_after(LIMIT_S):
        for node in nodes:
            node.move()
        async with feeding(records) as feed, trio.open_nursery() as nursery:
            nursery.start_soon(stay, feed)
            nursery.start_soon(come_back, feed, random.Random(7))
            async with trio.open_nursery() as working:
                for number, node in enumerate(nodes):
                    working.start_soon(live, node, random.Random(number))
                await trio.sleep(4)
                done.set()
            for node in nodes:
                node.move()
                node.horizon.forget()
            while len(stayed) < len(made) or len(came_back) < len(made):
                await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
    assert len(made) > 100
    expected = sorted(event.id for event in made)
    assert stayed == expected
    assert came_back == expected


async def test_nothing_is_told_from_where_the_log_may_not_be_whole(
    records: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "LOOK_S", 0.02)
    monkeypatch.setattr("appliance.logbook.horizon.MARK_MS", 20)
    slow, quick = Node("mx1.onward.test", records), Node("mx2.onward.test", records)
    told: list[str] = []

    async def follow(task_status: trio.TaskStatus[None]) -> None:
        async with aclosing(SharedLog(records, wall_clock).events()) as events:
            assert await anext(events) is None
            task_status.started()
            async for event in events:
                assert event is not None
                told.append(event.id)

    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            for node in (slow, quick):
                node.move()
            await nursery.start(follow)
            first = slow.happens()
            second = quick.happens()
            while second.id < first.id:
                second = quick.happens()
            quick.move()
            # The other one moves on, and this one's mark does not.
            for _ in range(20):
                await trio.sleep(0.05)
                quick.move()
            assert told == []
            while second.id not in told:
                slow.move()
                await trio.sleep(0.02)
                quick.move()
            nursery.cancel_scope.cancel()
    assert told.index(first.id) < told.index(second.id)


async def test_what_a_node_brings_late_is_told_to_who_follows(
    records: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "LOOK_S", 0.02)
    monkeypatch.setattr(sources, "LATE_LOOK_S", 0.1)
    monkeypatch.setattr("appliance.logbook.horizon.GONE_S", 0.3)
    here, slow = Node("here", records), Node("slow", records)
    here.move()
    with trio.fail_after(LIMIT_S):
        async with feeding(records) as feed, aclosing(feed.events(EVERYTHING)) as events:
            first = here.happens()

            async def move_on() -> None:
                while True:
                    await trio.sleep(0.05)
                    await trio.to_thread.run_sync(here.move)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(move_on)
                assert (await anext(events)).id == first.id
                late, then = slow.happens(), here.happens()
                assert (await anext(events)).id == then.id
                slow.move()
                assert (await anext(events)).id == late.id
                nursery.cancel_scope.cancel()


async def test_to_catch_up_waits_for_every_node(records: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LOOK_S", 0.02)
    one, other = Node("one", records), Node("other", records)
    one.move()
    other.move()
    log, ended = SharedLog(records, wall_clock), False

    async def catch_up() -> None:
        nonlocal ended
        await log.catch_up()
        ended = True

    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(catch_up)
            event = other.happens()
            await trio.sleep((MARGIN_MS + MARK_MS) / 1000 + 0.2)
            one.move()
            await trio.sleep(0.1)
            assert not ended
            other.move()
    (row,) = records.find(EVENTS, {})
    assert row["id"] == event.id
