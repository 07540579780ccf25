"""The engine's events as they are passed on to many: over a real socket, and with an engine that stops and starts.

The engine here is the stream, the outbox and the socket of the real one, and nothing else of it.
"""

import os
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from msgspec import structs
from storage_backends import BACKENDS, Backend
from stored_values import an_event

from appliance import wire
from appliance.logbook import feed as feed_module
from appliance.logbook import subscribers as subscribers_module
from appliance.logbook.feed import MAX_OF_ONE, Feed, TooManyFollow
from appliance.logbook.live import LiveStream
from appliance.logbook.messages import message_key
from appliance.logbook.sources import PAGE, EngineEvents
from appliance.logbook.subscribers import Interest, TooSlow
from appliance.model.event import DeliveryEvent
from appliance.model.ids import id_source
from appliance.model.time import DAY_MS, wall_clock
from appliance.privacy.declarations import EVENTS
from appliance.storage.event_rows import event_to_row
from appliance.storage.records import Insert, RecordStore, StoreUnavailable

LIMIT_S = 20.0
EVERYTHING = Interest(owner="", wants=lambda _: True)


@pytest.fixture
def records(tmp_path: Path) -> Iterator[RecordStore]:
    backend: Backend = BACKENDS["sqlite"](tmp_path / "records")
    yield backend.records()
    backend.close()


class Engine:
    """What the feed has of the engine, over as many starts as a test wants."""

    def __init__(self, path: Path, records: RecordStore) -> None:
        self.path = path
        self.connections = 0
        """How often the events were asked for."""
        self.caught_up = 0
        """How often it was asked to have everything in the log."""
        self.new_id = id_source()
        self._records = records
        self._outbox: list[DeliveryEvent] = []
        self._live = LiveStream()

    def makes(self, **changes: Any) -> DeliveryEvent:
        """An event that is not durable yet."""
        return an_event(id=self.new_id(), at=wall_clock(), **changes)

    def tell(self, *events: DeliveryEvent) -> None:
        """Have these durable: in the outbox, and told to who listens."""
        self._outbox += events
        self._live.publish(list(events))

    def happens(self, **changes: Any) -> DeliveryEvent:
        """Both."""
        event = self.makes(**changes)
        self.tell(event)
        return event

    def move(self) -> None:
        """Take what is in the outbox to the log."""
        self._records.apply([Insert(EVENTS, event_to_row(event)) for event in self._outbox])
        self._outbox.clear()

    @property
    def listeners(self) -> int:
        """Who listens now."""
        return len(self._live._followers)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """It answers as long as this lasts."""
        self._live = LiveStream()
        self.path.unlink(missing_ok=True)
        with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as listener:
            await listener.bind(os.fspath(self.path))
            listener.listen()
            verbs = {"events": self._events, "log.catchUp": self._catch_up}
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wire.serve, trio.SocketListener(listener), verbs, print)
                yield
                nursery.cancel_scope.cancel()

    async def _catch_up(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        await trio.lowlevel.checkpoint()
        self.move()
        yield {"caughtUp": True}
        self.caught_up += 1

    async def _events(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        self.connections += 1
        follower = self._live.follow()
        try:
            self.move()
            yield {"following": True}
            async for event in follower:
                yield {**structs.asdict(event), "type": event.type.value}
        finally:
            follower.close()


@pytest.fixture
def engine(tmp_path: Path, records: RecordStore) -> Engine:
    return Engine(tmp_path / "engine.sock", records)


@asynccontextmanager
async def feeding(engine: Engine, records: RecordStore) -> AsyncIterator[Feed]:
    """A feed from this engine, at work."""
    feed = Feed(EngineEvents(engine.path), records, wall_clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run)
        yield feed
        nursery.cancel_scope.cancel()


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what happens by itself."""
    with trio.fail_after(LIMIT_S):
        while not holds():
            await trio.sleep(0.01)


class Reader:
    """One who follows in the background, and what it has had."""

    def __init__(self) -> None:
        self.had: list[str] = []
        self.failure: Exception | None = None
        self._scope = trio.CancelScope()

    async def read(self, feed: Feed, interest: Interest = EVERYTHING, after: str | None = None) -> None:
        """Read until it is stopped, or the feed says that it is over."""
        with self._scope:
            try:
                async with aclosing(feed.events(interest, after)) as events:
                    async for event in events:
                        self.had.append(event.id)
            except Exception as error:  # noqa: BLE001 - the test looks at it
                self.failure = error

    def stop(self) -> None:
        """It goes away."""
        self._scope.cancel()


def ids(events: list[DeliveryEvent]) -> list[str]:
    return [event.id for event in events]


async def test_one_connection_serves_all_and_each_hears_what_it_wants(engine: Engine, records: RecordStore) -> None:
    async with engine.running(), feeding(engine, records) as feed, trio.open_nursery() as nursery:
        everything, ours = Reader(), [Reader() for _ in range(20)]
        nursery.start_soon(everything.read, feed)
        for reader in ours:
            nursery.start_soon(reader.read, feed, Interest("ada", lambda event: event.domain_id == "ours"))
        await until(lambda: engine.listeners == 1)
        told = [engine.happens(domain_id=domain) for domain in ("ours", "theirs", "ours")]
        await until(lambda: len(everything.had) == 3 and all(len(reader.had) == 2 for reader in ours))
        assert everything.had == ids(told)
        assert all(reader.had == [told[0].id, told[2].id] for reader in ours)
        assert engine.connections == 1
        nursery.cancel_scope.cancel()


async def test_resuming_leaves_no_gap_and_tells_nothing_twice(engine: Engine, records: RecordStore) -> None:
    """Some are in the log, some on their way to it, some happen while it is read: each comes once, in order."""
    made = [engine.happens() for _ in range(PAGE + 20)]
    engine.move()
    made += [engine.happens() for _ in range(5)]
    async with engine.running(), feeding(engine, records) as feed, trio.open_nursery() as nursery:
        reader = Reader()
        nursery.start_soon(reader.read, feed, EVERYTHING, made[3].id)
        await until(lambda: len(reader.had) > 0)
        for _ in range(30):
            made.append(engine.happens())
            await trio.sleep(0.01)
        await until(lambda: len(reader.had) >= len(made) - 4)
        assert reader.had == ids(made[4:])
        nursery.cancel_scope.cancel()


async def test_what_becomes_durable_in_another_order_is_told_in_the_order_of_ids(
    engine: Engine, records: RecordStore
) -> None:
    chance = random.Random(7)
    async with engine.running(), feeding(engine, records) as feed, trio.open_nursery() as nursery:
        reader = Reader()
        nursery.start_soon(reader.read, feed)
        await until(lambda: engine.listeners == 1)
        made = [engine.makes() for _ in range(40)]
        for group in range(0, 40, 8):
            engine.tell(*chance.sample(made[group : group + 8], 8))
            await trio.sleep(0.01)
        await until(lambda: len(reader.had) == 40)
        assert reader.had == ids(made)
        nursery.cancel_scope.cancel()


async def test_an_engine_that_starts_again_costs_nobody_an_event(engine: Engine, records: RecordStore) -> None:
    async with feeding(engine, records) as feed, trio.open_nursery() as nursery:
        reader = Reader()
        nursery.start_soon(reader.read, feed)
        made: list[DeliveryEvent] = []
        for _ in range(3):
            async with engine.running():
                await until(lambda: engine.listeners == 1)
                made.extend(engine.happens() for _ in range(4))
                await until(lambda: len(reader.had) == len(made))
                # Told to nobody any more, or to nobody yet: durable, and that is all.
                made.extend(engine.happens() for _ in range(2))
            made.extend(engine.happens() for _ in range(2))
        async with engine.running():
            await until(lambda: len(reader.had) >= len(made))
        assert reader.had == ids(made)
        nursery.cancel_scope.cancel()


async def test_one_who_resumes_while_the_engine_is_away_has_everything_once_it_is_back(
    engine: Engine, records: RecordStore
) -> None:
    made = [engine.happens() for _ in range(4)]
    engine.move()
    made += [engine.happens() for _ in range(3)]
    async with feeding(engine, records) as feed, trio.open_nursery() as nursery:
        reader = Reader()
        nursery.start_soon(reader.read, feed, EVERYTHING, made[0].id)
        await until(lambda: len(reader.had) == 3)
        async with engine.running():
            await until(lambda: engine.listeners == 1)
            made.append(engine.happens())
            await until(lambda: len(reader.had) >= 7)
        assert reader.had == ids(made[1:])
        nursery.cancel_scope.cancel()


async def test_readers_who_come_and_go_all_the_time_miss_nothing(engine: Engine, records: RecordStore) -> None:
    chance = random.Random(3)
    made = [engine.happens()]
    async with engine.running(), feeding(engine, records) as feed, trio.open_nursery() as nursery:
        had: list[str] = [made[0].id]

        async def read_on() -> None:
            while True:
                with trio.move_on_after(chance.uniform(0.05, 0.6)):
                    async with aclosing(feed.events(EVERYTHING, had[-1])) as events:
                        async for event in events:
                            had.append(event.id)

        nursery.start_soon(read_on)
        for number in range(200):
            made.append(engine.happens())
            if number % 50 == 30:
                engine.move()
            await trio.sleep(0.01)
        await until(lambda: len(had) >= len(made))
        assert had == ids(made)
        nursery.cancel_scope.cancel()


async def test_a_clock_that_was_set_back_silences_nobody(engine: Engine, records: RecordStore) -> None:
    ahead = engine.happens()
    engine.move()
    engine.new_id = id_source(lambda: wall_clock() - 30 * DAY_MS)
    async with engine.running(), feeding(engine, records) as feed, trio.open_nursery() as nursery:
        reader = Reader()
        nursery.start_soon(reader.read, feed, EVERYTHING, ahead.id)
        await until(lambda: engine.listeners == 1)
        await until(lambda: engine.caught_up > 0)
        made = [engine.happens() for _ in range(3)]
        await until(lambda: reader.had == ids(made))
        nursery.cancel_scope.cancel()


async def test_who_goes_before_it_follows_keeps_nobody_from_hearing(engine: Engine, records: RecordStore) -> None:
    class MayBeAway:
        is_away = False

        def __getattr__(self, name: str) -> Any:
            if self.is_away:
                raise StoreUnavailable("away")
            return getattr(records, name)

    store = MayBeAway()
    begins = engine.happens()
    engine.move()
    async with engine.running(), feeding(engine, cast(RecordStore, store)) as feed, trio.open_nursery() as nursery:
        first, second = Reader(), Reader()
        nursery.start_soon(first.read, feed)
        await until(lambda: engine.listeners == 1)
        first.stop()
        # It has hung up, and waits for somebody who follows.
        await until(lambda: feed._wanted.statistics().tasks_waiting == 1)
        store.is_away = True
        with pytest.raises(StoreUnavailable):
            await anext(feed.events(EVERYTHING, begins.id))
        store.is_away = False
        nursery.start_soon(second.read, feed, EVERYTHING, begins.id)
        await until(lambda: engine.listeners == 1)
        told = engine.happens()
        await until(lambda: second.had == [told.id])
        nursery.cancel_scope.cancel()


async def test_one_who_does_not_read_is_told_so_and_costs_no_memory_and_others_go_on(
    engine: Engine, records: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscribers_module, "MAX_BEHIND", 10)
    async with engine.running(), feeding(engine, records) as feed, trio.open_nursery() as nursery:
        keen = Reader()
        async with aclosing(feed.events(EVERYTHING)) as slow:
            nursery.start_soon(keen.read, feed)
            await until(lambda: engine.listeners == 1)
            first = engine.happens()
            with trio.fail_after(LIMIT_S):
                assert (await anext(slow)).id == first.id
            made = [first, *(engine.happens() for _ in range(10))]
            await until(lambda: keen.had == ids(made))
            made += [engine.happens() for _ in range(5)]
            await until(lambda: keen.had == ids(made))
            (stuck,) = [each for each in feed._subscribers if each.ended is not None]
            assert not stuck._waiting
            with pytest.raises(TooSlow, match="resume behind the last event"):
                await anext(slow)
        nursery.cancel_scope.cancel()


async def test_who_may_not_follow_any_more_is_ended_even_where_nothing_happens(
    engine: Engine, records: RecordStore
) -> None:
    class SignedOut(Exception):
        pass

    signed_out = False
    asked = 0

    def still() -> None:
        nonlocal asked
        asked += 1
        if signed_out:
            raise SignedOut
        raise StoreUnavailable("nobody knows now")

    async with engine.running(), feeding(engine, records) as feed, trio.open_nursery() as nursery:
        reader, other = Reader(), Reader()
        nursery.start_soon(reader.read, feed, Interest("ada", lambda _: True, still))
        nursery.start_soon(other.read, feed)
        await until(lambda: engine.listeners == 1 and asked > 1)
        assert reader.failure is None
        signed_out = True
        await until(lambda: reader.failure is not None)
        assert isinstance(reader.failure, SignedOut)
        told = engine.happens()
        await until(lambda: other.had == [told.id])
        nursery.cancel_scope.cancel()


async def test_nobody_takes_all_the_places(
    engine: Engine, records: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "MAX_FOLLOWERS", MAX_OF_ONE + 1)
    async with engine.running(), feeding(engine, records) as feed, trio.open_nursery() as nursery:
        readers = [Reader() for _ in range(MAX_OF_ONE)]
        for reader in readers:
            nursery.start_soon(reader.read, feed, Interest("greedy", lambda _: True))
        await until(lambda: len(feed._known) == MAX_OF_ONE)
        with pytest.raises(TooManyFollow, match="times already"):
            await anext(feed.events(Interest("greedy", lambda _: True)))
        ada = Reader()
        nursery.start_soon(ada.read, feed, Interest("ada", lambda _: True))
        await until(lambda: len(feed._known) == MAX_OF_ONE + 1)
        with pytest.raises(TooManyFollow, match="follow the log already"):
            await anext(feed.events(Interest("bob", lambda _: True)))
        # A place that is left is free again.
        ada.stop()
        await until(lambda: len(feed._known) == MAX_OF_ONE)
        bob = Reader()
        nursery.start_soon(bob.read, feed, Interest("bob", lambda _: True))
        told = engine.happens()
        await until(lambda: bob.had == [told.id])
        nursery.cancel_scope.cancel()


async def test_an_engine_that_nobody_follows_is_not_listened_to(engine: Engine, records: RecordStore) -> None:
    async with engine.running(), feeding(engine, records) as feed, trio.open_nursery() as nursery:
        assert engine.connections == 0
        reader = Reader()
        nursery.start_soon(reader.read, feed)
        await until(lambda: engine.listeners == 1)
        reader.stop()
        await until(lambda: engine.listeners == 0)
        again = Reader()
        nursery.start_soon(again.read, feed)
        await until(lambda: engine.listeners == 1)
        told = engine.happens()
        await until(lambda: again.had == [told.id])
        nursery.cancel_scope.cancel()


async def test_what_has_just_happened_to_a_message_is_at_hand(engine: Engine, records: RecordStore) -> None:
    async with engine.running(), feeding(engine, records) as feed, trio.open_nursery() as nursery:
        reader = Reader()
        nursery.start_soon(reader.read, feed)
        await until(lambda: engine.listeners == 1)
        told = [engine.happens(message_id="m1") for _ in range(2)]
        engine.happens(message_id="m2")
        await until(lambda: len(reader.had) == 3)
        assert feed.recent(message_key(told[0])) == tuple(told)
        assert feed.recent("nothing") == ()
        nursery.cancel_scope.cancel()
