"""The stream of events, as the control process passes it on to many.

One source (`sources.py`), which is listened to while anybody follows, serves all who follow. Each may begin behind an
event that it has had already: what has happened since is read from the log, and then comes what happens. What is on its
way from the one to the other is in neither: an engine tells of an event when it is durable, and moves it to the log
moments later. So the order is always the same, here and after the source was away: listen, have the log catch up, read
it, go on with what was heard meanwhile, and pass over what the log had already.

Events are told in the order of their places, which is that of the log and mostly that of their ids (`places.py`): only
so does one id say how far somebody was. They become durable in almost that order; what arrives within a moment is put
right here.
"""

import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from heapq import heappop, heappush

import trio

from appliance import wire
from appliance.logbook.places import Entry, place_of
from appliance.logbook.remembered import OVERLAP_MS, Had, Recent, Told
from appliance.logbook.sources import Source, stored_entries
from appliance.logbook.subscribers import Interest, Subscriber
from appliance.model.event import DeliveryEvent
from appliance.model.ids import first_id_at
from appliance.model.time import HOUR_MS, Clock
from appliance.storage.records import RecordStore, StoreUnavailable

MAX_FOLLOWERS = 2000
"""At once, in the whole control process; one more is turned away. Several share a connection."""

MAX_OF_ONE = 300
"""Of these, of one account."""

SETTLE_S = 0.2
"""How long an event is held back, so that one with a place before it that becomes durable together with it goes first.
The longest that can lie between is the reading of what a bounce quotes."""

LOOK_BACK_MS = HOUR_MS
"""How far back one who resumes while the source is away has it looked for what was not in the log yet, once it is back:
by longer than a record store is away and nobody notices."""

RETRY_S = 0.5
"""How long to wait before the source is listened to again."""

STILL_S = 1.0
"""How often those who follow are asked whether they still may, and whether anybody follows still."""

_logger = logging.getLogger(__name__)


class TooManyFollow(Exception):
    """The limit of those who follow is reached."""


class Feed:
    """Listens to one source for all who follow the log. It belongs to one Trio run, in which `run` is under way."""

    def __init__(self, source: Source, records: RecordStore, clock: Clock) -> None:
        self._source = source
        self._records = records
        self._clock = clock
        self._subscribers: set[Subscriber] = set()
        """Who is told."""
        self._known: set[Subscriber] = set()
        """The same, and who reads what was before."""
        self._wanted = trio.Event()
        self._listening = trio.CancelScope()
        self._is_heard = False
        """The source is listened to, and what was missed before has been told."""
        self._begins = ""
        """Behind which place the log is looked through once the source is listened to."""
        self._told = Told()
        self._recent = Recent()
        self._held_back: list[tuple[str, Entry]] = []
        """A heap."""
        self._arrived, self._arrivals = trio.open_memory_channel[tuple[float, str]](float("inf"))

    # ------------------------------------------------------------------ for those who follow

    async def events(self, interest: Interest, after: str | None = None) -> AsyncGenerator[DeliveryEvent]:
        """The events that are wanted: from now on, or all behind the id `after`, as far as the log reaches.

        Whoever stops reading closes it. Raises what ends the interest, TooManyFollow, TooSlow, StoreUnavailable, and
        WireError where the source's store does not answer.
        """
        with self._place_for(interest) as subscriber:
            if after is None:
                self._follow(subscriber)
                while True:
                    yield (await subscriber.next()).event
            had = Had(await trio.to_thread.run_sync(place_of, self._records, after))
            # One who is far behind reads in peace: nothing gathers for it meanwhile.
            async with aclosing(self._wanted_of_log(subscriber, had)) as wanted:
                async for event in wanted:
                    yield event
            subscriber.begins = had.last
            self._follow(subscriber)
            await self._catch_up(had.last)
            async with aclosing(self._wanted_of_log(subscriber, had)) as wanted:
                async for event in wanted:
                    yield event
            while True:
                entry = await subscriber.next()
                if entry not in had:
                    yield entry.event

    def recent(self, key: str) -> tuple[DeliveryEvent, ...]:
        """The events of the message of this name that are at hand. Of one that is under way the log may have less.

        May be called by any thread.
        """
        return self._recent.of(key)

    @contextmanager
    def _place_for(self, interest: Interest) -> Iterator[Subscriber]:
        if len(self._known) >= MAX_FOLLOWERS:
            raise TooManyFollow(f"{MAX_FOLLOWERS} follow the log already")
        if sum(each.interest.owner == interest.owner for each in self._known) >= MAX_OF_ONE:
            raise TooManyFollow(f"you follow the log {MAX_OF_ONE} times already")
        subscriber = Subscriber(interest, first_id_at(self._clock()))
        self._known.add(subscriber)
        try:
            yield subscriber
        finally:
            self._known.discard(subscriber)
            self._subscribers.discard(subscriber)
            # One that nobody has set yet is waited for.
            if not self._subscribers and self._wanted.is_set():
                self._wanted = trio.Event()

    def _follow(self, subscriber: Subscriber) -> None:
        if not self._subscribers and not self._is_heard:
            self._begins = first_id_at(self._clock())
        self._subscribers.add(subscriber)
        self._wanted.set()

    async def _wanted_of_log(self, subscriber: Subscriber, had: Had) -> AsyncGenerator[DeliveryEvent]:
        async with aclosing(self._stored(had.last, subscriber.interest.domain_ids)) as stored:
            async for entry in stored:
                if subscriber.ended is not None:
                    raise subscriber.ended
                had.add(entry)
                if subscriber.interest.wants(entry.event):
                    yield entry.event

    async def _stored(self, after: str, domain_ids: Sequence[str] | None) -> AsyncGenerator[Entry]:
        until = await self._source.whole_until()
        async with aclosing(stored_entries(self._records, after, until, domain_ids)) as stored:
            async for entry in stored:
                yield entry

    async def _catch_up(self, after: str) -> None:
        """Have the log catch up with what is durable now. Where the source is away, that is looked for later."""
        try:
            await self._source.catch_up()
        except wire.NotRunning:
            self._begins = min(self._begins, max(after, first_id_at(self._clock() - LOOK_BACK_MS)))

    # ------------------------------------------------------------------ listening

    async def run(self) -> None:
        """Listen while anybody follows, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._release)
            nursery.start_soon(self._look_who_follows)
            while True:
                await self._wanted.wait()
                with trio.CancelScope() as self._listening:
                    await self._listen()
                if self._is_heard:
                    self._is_heard = False
                    self._begins = max(self._told.forgotten, first_id_at(self._clock() - OVERLAP_MS))
                    if self._subscribers:
                        _logger.info("nothing is heard of events any more")
                await trio.sleep(RETRY_S)

    async def _listen(self) -> None:
        """Hear events until the source ends, cannot be reached or cuts us off: it is listened to again, then."""
        try:
            async with aclosing(self._source.events()) as told:
                # It says first that all from before is in the log.
                await anext(told)
                async with aclosing(self._stored(self._begins, None)) as missed:
                    async for entry in missed:
                        self._tell(entry, missed=True)
                self._is_heard = True
                async for each in told:
                    assert each is not None, "that is said once"
                    heappush(self._held_back, (each.place, each))
                    self._arrived.send_nowait((trio.current_time(), each.place))
        except (wire.NotRunning, StopAsyncIteration):
            pass
        except (wire.WireError, StoreUnavailable) as error:
            _logger.warning("events can't be followed now: %s", error)

    async def _release(self) -> None:
        """Tell each event when it has been held back, after all with places before it that have come by then."""
        async for arrived_at, place in self._arrivals:
            await trio.sleep_until(arrived_at + SETTLE_S)
            while self._held_back and self._held_back[0][0] <= place:
                self._tell(heappop(self._held_back)[1], missed=False)

    async def _look_who_follows(self) -> None:
        """End those who may not follow any more, and hang up where nobody follows: the engine has less to do then."""
        while True:
            await trio.sleep(STILL_S)
            if not self._subscribers:
                self._listening.cancel()
                # What nobody follows is not kept at hand: it has its time in the log.
                self._recent = Recent()
            if self._known:
                for subscriber, why in await trio.to_thread.run_sync(_no_longer, list(self._known)):
                    subscriber.end(why)

    def _tell(self, entry: Entry, *, missed: bool) -> None:
        if self._told.add(entry.event.id, entry.place):
            self._recent.add(entry.event)
            for subscriber in self._subscribers:
                subscriber.tell(entry, missed=missed)


def _no_longer(subscribers: Sequence[Subscriber]) -> list[tuple[Subscriber, Exception]]:
    """Those among them who may not follow any more, and why. For a worker thread."""
    ended = []
    for subscriber in subscribers:
        try:
            subscriber.interest.still()
        except StoreUnavailable:
            # Nobody knows now. It is asked again in a moment; meanwhile who follows is not to lose its place.
            continue
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends this one and is told there
            ended.append((subscriber, error))
    return ended
