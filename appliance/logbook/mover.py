"""Takes events from the spool's outbox to the log.

The event was made durable beside the mail it reports; here it moves to the record store by its id, as it stands
(sealed already). Import, then forget: dying between the two imports it again, which changes nothing.

Where several nodes write the log, each marks how far it is, whenever its outbox is empty (`horizon.py`), and gives
what it brings late a place of its own (`places.py`).
"""

from collections.abc import Callable, Sequence
from functools import partial

import trio

from appliance.logbook.horizon import OwnHorizon, Writing
from appliance.logbook.places import give_places
from appliance.privacy.declarations import EVENTS
from appliance.spool.spool import Spool
from appliance.storage.records import Duplicate, RecordStore, StoredRow, StoreUnavailable
from appliance.storage.spool import Forget

BATCH = 500
"""Events moved in one transaction of the record store."""

PAUSE_S = 0.25
"""How long after a batch the next is looked for: how late the log is, and how well batches fill."""

RETRY_S = 2.0
"""How long to wait where either store refuses."""


class SharedLogWriter:
    """Brings events to a log that several nodes write. What brings them one after the other has its `turn`."""

    def __init__(self, records: RecordStore, horizon: OwnHorizon) -> None:
        self._records = records
        self.horizon = horizon
        self.turn = trio.Lock()
        self._doubted: set[str] = set()
        """Events that were to be brought, by id, of which nobody knows whether they came in time."""

    def bring(self, rows: Sequence[StoredRow]) -> None:
        """Import rows of events. For a worker thread; raises StoreUnavailable, after which it is done again."""
        if not self.horizon.holds:
            self.horizon.begin()
        try:
            give_places(self._records, rows, self.horizon.passed, self._doubted, self.horizon.new_place)
        except Duplicate:
            raise StoreUnavailable("another node is bringing the same events to the log") from None
        ids = {str(row["id"]) for row in rows}
        self._doubted |= ids
        self._records.import_stored(EVENTS, rows)
        if not self.horizon.holds:
            raise StoreUnavailable("events came to the log so slowly that nobody was waiting for them any more")
        self._doubted -= ids


async def move_events(spool: Spool, records: RecordStore, shared: SharedLogWriter | None = None) -> int:
    """Move what is in the outbox now, one batch; returns how many events that were. Raises StoreUnavailable.

    `shared`: where several nodes write the log.
    """
    if shared is None:
        return await _move(spool, partial(records.import_stored, EVENTS))
    async with shared.turn:
        return await _move(spool, shared.bring)


async def _move(spool: Spool, bring: Callable[[Sequence[StoredRow]], None]) -> int:
    rows = await trio.to_thread.run_sync(spool.store.outbox, BATCH)
    if rows:
        await trio.to_thread.run_sync(bring, rows)
        await spool.committer.commit([Forget([str(row["id"]) for row in rows])])
    return len(rows)


async def keep_moving(
    spool: Spool, records: RecordStore, marking: tuple[SharedLogWriter, Writing] | None = None
) -> None:
    """Move events until cancelled. A store that refuses delays the log and nothing else.

    `marking`: where several nodes write the log, and what writes the events of this one. Raises NameTaken there.
    """
    shared, writing = marking or (None, None)
    while True:
        try:
            instant = 0 if shared is None or writing is None else shared.horizon.present(writing)
            moved = await move_events(spool, records, shared)
            if shared is not None and moved < BATCH:
                await trio.to_thread.run_sync(shared.horizon.mark, instant)
        except StoreUnavailable:
            await trio.sleep(RETRY_S)
        else:
            if moved < BATCH:
                await trio.sleep(PAUSE_S)
