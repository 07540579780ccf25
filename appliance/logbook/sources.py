"""Where the feed hears of events: from the engine of this machine, or from the log that several nodes write."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import trio

from appliance import wire
from appliance.logbook.horizon import GONE_S, Horizons
from appliance.logbook.places import Entry, in_time, read_on
from appliance.model.event import DeliveryEvent, EventType
from appliance.model.ids import first_id_at
from appliance.model.time import Clock
from appliance.storage.records import RecordStore, StoreUnavailable

CATCH_UP_S = 10.0
"""How long the log may take to have what is durable, until that is called a failure."""

ALL_CATCH_UP_S = GONE_S + 5
"""The same for the log of several nodes: one that has just died is waited for, first."""

LOOK_S = 0.3
"""How often the log is looked at, while anybody follows it."""

PAGE = 500
"""Events that are read from the log at once."""


class Source(Protocol):
    """One of the two. Each method may raise wire.NotRunning, wire.WireError and StoreUnavailable."""

    async def whole_until(self) -> str | None:
        """The id from which on something may still come to the log between what is there; None where nothing does."""

    async def catch_up(self) -> None:
        """Return once the log has every event that was durable at the call."""

    def events(self) -> AsyncGenerator[Entry | None]:
        """None, which says that what is told from now on is all that is not in the log by now; then each event, some
        perhaps twice. Ends where the source does. Whoever stops reading closes it."""


async def stored_entries(
    records: RecordStore, after: str, until: str | None, domain_ids: Sequence[str] | None = None
) -> AsyncGenerator[Entry]:
    """What the log has behind one place and before another (None: all), in order. Raises StoreUnavailable."""
    behind: str | None = after
    while behind is not None:
        page = partial(read_on, records, behind, until, domain_ids, PAGE)
        entries, behind = await trio.to_thread.run_sync(page)
        for entry in entries:
            yield entry


class EngineEvents:
    """The events of the engine of this machine, as soon as they are durable."""

    def __init__(self, engine_socket: Path) -> None:
        self._engine_socket = engine_socket

    async def whole_until(self) -> str | None:
        """See Source. One engine takes its events to the log in their order."""
        return None

    async def catch_up(self) -> None:
        """See Source."""
        await wire.ask(self._engine_socket, "log.catchUp", CATCH_UP_S)

    async def events(self) -> AsyncGenerator[Entry | None]:
        """See Source."""
        async with aclosing(wire.listen(self._engine_socket, "events", CATCH_UP_S, caughtUp=True)) as told:
            # The first result says that all from before is in the log.
            await anext(told)
            yield None
            async for each in told:
                yield in_time(_event(each))


class SharedLog:
    """The events of all nodes, as soon as the log is whole as far as them (`horizon.py`)."""

    def __init__(self, records: RecordStore, clock: Clock) -> None:
        """`clock` is that of the store's server."""
        self._records = records
        self._clock = clock
        self._horizons = Horizons(records, clock)
        self._looking = trio.Lock()

    async def whole_until(self) -> str:
        """See Source."""
        async with self._looking:
            return await trio.to_thread.run_sync(self._horizons.reached)

    async def catch_up(self) -> None:
        """See Source."""
        wanted = first_id_at(self._clock())
        with trio.move_on_after(ALL_CATCH_UP_S):
            while await self.whole_until() < wanted:
                await trio.sleep(LOOK_S)
            return
        raise StoreUnavailable("the log of the other nodes does not come up to now")

    async def events(self) -> AsyncGenerator[Entry | None]:
        """See Source."""
        position = await self.whole_until()
        yield None
        while True:
            await trio.sleep(LOOK_S)
            reached = await self.whole_until()
            async with aclosing(stored_entries(self._records, position, reached)) as stored:
                async for entry in stored:
                    yield entry
            position = max(position, reached)


def _event(told: Mapping[str, Any]) -> DeliveryEvent:
    """An event as the engine tells it: by the names of the model."""
    return DeliveryEvent(**{**told, "type": EventType(told["type"])})
