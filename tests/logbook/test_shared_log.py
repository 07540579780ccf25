"""The log of several nodes, as one follows it: in one order, with nothing left out and nothing twice.

The nodes here are what takes events to the log and marks how far it is; all else of an appliance is not needed for it.
"""

import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from storage_backends import SqliteBackend
from stored_values import an_event

from appliance.logbook import sources
from appliance.logbook.feed import Feed
from appliance.logbook.horizon import (
    GONE_S,
    LISTEN_S,
    MARGIN_MS,
    MARK_MS,
    OLD_MS,
    Horizons,
    NameTaken,
    OwnHorizon,
)
from appliance.logbook.mover import SharedLogWriter
from appliance.logbook.sources import SharedLog
from appliance.logbook.subscribers import Interest
from appliance.model.event import DeliveryEvent
from appliance.model.ids import first_id_at, id_source
from appliance.model.time import HOUR_MS, Clock, wall_clock
from appliance.privacy.declarations import EVENTS
from appliance.storage.records import RecordStore, StoreUnavailable
from appliance.storage.spool import Forget, Record, SpoolStore

EVERYTHING = Interest(owner="", wants=lambda _: True)
LIMIT_S = 30.0
NOW = 1_800_000_000_000


@pytest.fixture
def records(tmp_path: Path) -> Iterator[RecordStore]:
    backend = SqliteBackend(tmp_path / "records")
    yield backend.records()
    backend.close()


@pytest.fixture
def nodes(tmp_path: Path, records: RecordStore) -> Iterator["Nodes"]:
    made = Nodes(tmp_path, records)
    yield made
    made.close()


class Idle:
    """Nothing waits to be written."""

    def pending_s(self) -> float:
        return 0.0


class Node:
    """One that makes events, and takes them to the log somewhat later."""

    def __init__(self, name: str, outbox: SpoolStore, records: RecordStore, clock: Clock) -> None:
        self.horizon = OwnHorizon(records, name, clock)
        self.writer = SharedLogWriter(records, self.horizon)
        self.new_id = id_source(clock)
        self.outbox = outbox

    def happens(self) -> DeliveryEvent:
        """In its outbox, and told to nobody."""
        event = an_event(id=self.new_id(), at=wall_clock())
        self.outbox.apply([Record([event])])
        return event

    def move(self) -> None:
        """What is in the outbox is in the log now, and the mark says so."""
        instant = self.horizon.present(Idle())
        self.take_over(self)
        self.horizon.mark(instant)

    def take_over(self, other: "Node") -> None:
        """Bring to the log what another could not."""
        if rows := other.outbox.outbox(1000):
            self.writer.bring(rows)
            other.outbox.apply([Forget([str(row["id"]) for row in rows])])


class Nodes:
    """The nodes of one log, by name."""

    def __init__(self, directory: Path, records: RecordStore) -> None:
        self._directory = directory
        self._records = records
        self._outboxes: dict[str, SqliteBackend] = {}

    def start(self, name: str, clock: Clock = wall_clock) -> Node:
        """One that goes by this name; once more, it has what it had in its outbox."""
        outbox = self._outboxes.setdefault(name, SqliteBackend(self._directory / name))
        return Node(name, outbox.spool(), self._records, clock)

    def close(self) -> None:
        """All of them."""
        for each in self._outboxes.values():
            each.close()


class Away:
    """A record store that can be away."""

    def __init__(self, records: RecordStore) -> None:
        self._records = records
        self.is_away = False

    def __getattr__(self, name: str) -> Any:
        if self.is_away:
            raise StoreUnavailable("away")
        return getattr(self._records, name)


async def told(feed: Feed, after: str, until: str) -> list[str]:
    """What one who comes again is told, up to an event (id)."""
    ids: list[str] = []
    async with aclosing(feed.events(EVERYTHING, after)) as events:
        async for event in events:
            ids.append(event.id)
            if event.id == until:
                break
    return ids


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
    assert seen.reached() == first_id_at(NOW - MARGIN_MS), "where nobody writes, it is whole"


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
    steady = [100.0]
    for name in ("one", "other"):
        OwnHorizon(records, name, lambda: NOW).mark(NOW)
    store = Away(records)
    seen = Horizons(cast(RecordStore, store), lambda: NOW + 20_000, lambda: steady[0])
    assert seen.reached() == first_id_at(NOW)
    store.is_away = True
    steady[0] += 2 * GONE_S
    with pytest.raises(StoreUnavailable):
        seen.reached()
    store.is_away = False
    assert seen.reached() == first_id_at(NOW), "neither of them could mark how far it is"
    steady[0] += GONE_S
    assert seen.reached() == first_id_at(NOW + 20_000 - MARGIN_MS)


def test_a_mark_that_was_old_before_anybody_looked_is_not_waited_for(records: RecordStore) -> None:
    OwnHorizon(records, "gone", lambda: NOW - OLD_MS - 1).mark(NOW - OLD_MS - 1)
    OwnHorizon(records, "here", lambda: NOW).mark(NOW)
    assert Horizons(records, lambda: NOW, lambda: 0.0).reached() == first_id_at(NOW)


# ---------------------------------------------------------------- one name, one node


def waiting(steady: list[float], meanwhile: Callable[[], None] = lambda: None) -> Callable[[float], None]:
    """Time that passes as fast as it is waited for; and what happens meanwhile."""

    def wait(seconds: float) -> None:
        steady[0] += seconds
        meanwhile()

    return wait


def one_at(machine: str, records: RecordStore, steady: list[float]) -> OwnHorizon:
    """A node by the one name that there is here, on this machine."""
    return OwnHorizon(records, "mx", lambda: NOW + int(steady[0] * 1000), machine, lambda: steady[0])


def test_a_name_that_lives_elsewhere_is_not_taken(records: RecordStore) -> None:
    steady = [0.0]
    lives, copy = one_at("here", records, steady), one_at("there", records, steady)
    lives.take()
    steady[0] += 1
    with pytest.raises(NameTaken):
        copy.take(waiting(steady, lives.begin))
    assert steady[0] < GONE_S, "it need not be waited for longer than for a sign of life"
    lives.begin()


def test_an_earlier_run_on_this_machine_is_not_waited_for(records: RecordStore) -> None:
    steady = [0.0]
    one_at("here", records, steady).take()
    again = one_at("here", records, steady)
    again.take(waiting(steady))
    assert steady[0] == 0
    assert again.holds


def test_an_earlier_run_before_the_machine_was_started_again_is_waited_for_until_it_is_gone(
    records: RecordStore,
) -> None:
    steady = [0.0]
    before = one_at("here", records, steady)
    before.take()
    steady[0] += GONE_S - 3
    one_at("here, once more", records, steady).take(waiting(steady))
    assert GONE_S <= steady[0] <= GONE_S + LISTEN_S
    with pytest.raises(NameTaken):
        before.begin()


def test_a_node_that_has_ended_leaves_its_name(records: RecordStore) -> None:
    steady = [0.0]
    before = one_at("here", records, steady)
    before.take()
    before.forget()
    one_at("there", records, steady).take(waiting(steady))
    assert steady[0] == 0


def test_of_two_that_start_at_once_one_has_the_name(records: RecordStore) -> None:
    steady = [0.0]
    one_at("here", records, steady).take()
    steady[0] += GONE_S
    quick = one_at("there", records, steady)

    class TakenMeanwhile(Away):
        def get(self, *asked: Any) -> Any:
            row = records.get(*asked)
            quick.take()
            return row

    slow = one_at("elsewhere", cast(RecordStore, TakenMeanwhile(records)), steady)
    with pytest.raises(NameTaken):
        slow.take(waiting(steady))
    quick.begin()


# ---------------------------------------------------------------- following


async def test_events_of_all_nodes_are_told_in_one_order_to_who_stays_and_who_comes_back(
    records: RecordStore, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "LOOK_S", 0.02)
    monkeypatch.setattr("appliance.logbook.horizon.MARK_MS", 20)
    three = [nodes.start(f"mx{number}.onward.test") for number in range(3)]
    made: list[DeliveryEvent] = []
    stayed: list[str] = []
    came_back: list[str] = []
    done = trio.Event()

    async def live(node: Node, pace: random.Random) -> None:
        while not done.is_set():
            for _ in range(pace.randrange(4)):
                made.append(await trio.to_thread.run_sync(node.happens))
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
        for node in three:
            node.move()
        async with feeding(records) as feed, trio.open_nursery() as nursery:
            nursery.start_soon(stay, feed)
            nursery.start_soon(come_back, feed, random.Random(7))
            async with trio.open_nursery() as working:
                for number, node in enumerate(three):
                    working.start_soon(live, node, random.Random(number))
                await trio.sleep(4)
                done.set()
            for node in three:
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
    records: RecordStore, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "LOOK_S", 0.02)
    monkeypatch.setattr("appliance.logbook.horizon.MARK_MS", 20)
    slow, quick = nodes.start("mx1.onward.test"), nodes.start("mx2.onward.test")
    heard: list[str] = []

    async def follow(task_status: trio.TaskStatus[None]) -> None:
        async with aclosing(SharedLog(records, wall_clock).events()) as events:
            assert await anext(events) is None
            task_status.started()
            async for entry in events:
                assert entry is not None
                heard.append(entry.event.id)

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
            assert heard == []
            while second.id not in heard:
                slow.move()
                await trio.sleep(0.02)
                quick.move()
            nursery.cancel_scope.cancel()
    assert heard.index(first.id) < heard.index(second.id)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node is soon given up."""
    monkeypatch.setattr(sources, "LOOK_S", 0.02)
    monkeypatch.setattr("appliance.logbook.horizon.MARK_MS", 20)
    monkeypatch.setattr("appliance.logbook.horizon.HOLDS_S", 0.3)
    monkeypatch.setattr("appliance.logbook.horizon.GONE_S", 0.6)


@asynccontextmanager
async def moving_on(node: Node) -> AsyncIterator[None]:
    """It takes what happens to the log, again and again."""

    async def move() -> None:
        while True:
            await trio.sleep(0.05)
            await trio.to_thread.run_sync(node.move)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(move)
        yield
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("back", ["itself", "its successor", "another"])
async def test_what_a_node_brings_late_is_told_once_to_who_stays_and_to_who_comes_again(
    records: RecordStore, nodes: Nodes, back: str
) -> None:
    here, slow = nodes.start("here"), nodes.start("slow")
    here.move()
    slow.move()
    with trio.fail_after(LIMIT_S):
        async with feeding(records) as feed, moving_on(here), aclosing(feed.events(EVERYTHING)) as stays:
            first = here.happens()
            assert (await anext(stays)).id == first.id
            late, then = slow.happens(), here.happens()
            assert (await anext(stays)).id == then.id, "nobody waits for the other any more"
            if back == "another":
                await trio.to_thread.run_sync(here.take_over, slow)
            else:
                await trio.to_thread.run_sync((slow if back == "itself" else nodes.start("slow")).move)
            slow.horizon.forget()
            assert (await anext(stays)).id == late.id
            after = here.happens()
            assert (await anext(stays)).id == after.id
            everything = [first.id, then.id, late.id, after.id]
            for had in range(4):
                since = everything[had - 1] if had else "0"
                assert await told(feed, since, after.id) == everything[had:]


@pytest.mark.usefixtures("hasty")
async def test_what_a_node_had_brought_before_it_died_keeps_its_place(
    records: RecordStore, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.logbook.horizon.HOLDS_S", 1.5)
    monkeypatch.setattr("appliance.logbook.horizon.GONE_S", 2.0)
    here, died = nodes.start("here"), nodes.start("died")
    here.move()
    died.move()
    with trio.fail_after(LIMIT_S):
        async with feeding(records) as feed, moving_on(here):
            await trio.to_thread.run_sync(died.move)
            first, second = died.happens(), here.happens()
            # Brought, and not forgotten:
            rows = died.outbox.outbox(10)
            died.writer.bring(rows)
            died.horizon.mark(wall_clock())
            assert await told(feed, "0", second.id) == [first.id, second.id]
            await trio.to_thread.run_sync(here.take_over, died)
            third = here.happens()
            assert await told(feed, first.id, third.id) == [second.id, third.id]
            assert await told(feed, "0", third.id) == [first.id, second.id, third.id]


@pytest.mark.usefixtures("hasty")
async def test_who_was_stopped_in_the_midst_of_bringing_brings_it_to_a_later_place(
    records: RecordStore, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, stopped = nodes.start("here"), nodes.start("stopped")
    here.move()
    stopped.move()
    with trio.fail_after(LIMIT_S):
        async with feeding(records) as feed, moving_on(here):
            late, then = stopped.happens(), here.happens()

            def import_later(*rows: Any) -> None:
                time.sleep(1)
                records.import_stored(*rows)

            store = Away(records)
            store.import_stored = import_later  # type: ignore[attr-defined]
            stopped.writer = SharedLogWriter(cast(RecordStore, store), stopped.horizon)
            with pytest.raises(StoreUnavailable, match="so slowly"):
                await trio.to_thread.run_sync(stopped.move)
            del store.import_stored
            assert await told(feed, then.id[:-1], then.id) == [then.id]
            await trio.to_thread.run_sync(stopped.move)
            stopped.horizon.forget()
            assert await told(feed, then.id, late.id) == [late.id]


@pytest.mark.usefixtures("hasty")
async def test_nodes_that_come_and_go_cost_nobody_an_event(records: RecordStore, nodes: Nodes) -> None:
    """They stand still at random for longer than others wait for them, and are taken over then or begin anew."""
    names = [f"mx{number}" for number in range(3)]
    made: list[str] = []
    stayed: list[str] = []
    came_back: list[str] = []
    done = trio.Event()
    stays = trio.Event()

    def one_round(node: Node, lots: random.Random) -> None:
        made.extend(node.happens().id for _ in range(lots.randrange(4)))
        node.move()

    async def live(name: str, lots: random.Random) -> None:
        node = nodes.start(name)
        while not done.is_set():
            await trio.to_thread.run_sync(one_round, node, lots)
            await trio.sleep(lots.random() * 0.1)
            if lots.random() < 0.05:
                made.append(node.happens().id)
                await trio.sleep(lots.uniform(0.2, 1.2))
                if lots.random() < 0.5:
                    dead, node = node, nodes.start(name)
                    await trio.to_thread.run_sync(node.take_over, dead)
        await trio.to_thread.run_sync(node.move)
        node.horizon.forget()

    async def stay(feed: Feed) -> None:
        async with aclosing(feed.events(EVERYTHING, after="0")) as events:
            stays.set()
            async for event in events:
                stayed.append(event.id)

    async def come_back(feed: Feed, lots: random.Random) -> None:
        after = "0"
        while True:
            with trio.move_on_after(lots.uniform(0.2, 1.5)):
                async with aclosing(feed.events(EVERYTHING, after=after)) as events:
                    async for event in events:
                        came_back.append(event.id)
                        after = event.id

    with trio.fail_after(60):
        async with feeding(records) as one, feeding(records) as other, trio.open_nursery() as nursery:
            nursery.start_soon(stay, one)
            nursery.start_soon(come_back, other, random.Random(7))
            await stays.wait()
            async with trio.open_nursery() as working:
                for number, name in enumerate(names):
                    working.start_soon(live, name, random.Random(number))
                await trio.sleep(8)
                done.set()
            while len(stayed) < len(made) or len(came_back) < len(made):
                await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
    assert len(made) > 100
    assert sorted(stayed) == sorted(made)
    assert came_back == stayed
    assert stayed != sorted(stayed), "nothing was late, so nothing was tried"


async def test_to_catch_up_waits_for_every_node(
    records: RecordStore, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "LOOK_S", 0.02)
    one, other = nodes.start("one"), nodes.start("other")
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
