"""Takes events from the spool's outbox to the log.

The event was made durable beside the mail it reports; here it moves to the record store by its id, as it stands
(sealed already). Import, then forget: dying between the two imports it again, which changes nothing.

Where several nodes write the log, each marks how far it is, whenever its outbox is empty (`horizon.py`).
"""

import trio

from appliance.logbook.horizon import OwnHorizon, Writing
from appliance.privacy.declarations import EVENTS
from appliance.spool.spool import Spool
from appliance.storage.records import RecordStore, StoreUnavailable
from appliance.storage.spool import Forget

BATCH = 500
"""Events moved in one transaction of the record store."""

PAUSE_S = 0.25
"""How long after a batch the next is looked for: how late the log is, and how well batches fill."""

RETRY_S = 2.0
"""How long to wait where either store refuses."""


async def move_events(spool: Spool, records: RecordStore) -> int:
    """Move what is in the outbox now, one batch; returns how many events that were. Raises StoreUnavailable."""
    rows = await trio.to_thread.run_sync(spool.store.outbox, BATCH)
    if rows:
        await trio.to_thread.run_sync(records.import_stored, EVENTS, rows)
        await spool.committer.commit([Forget([str(row["id"]) for row in rows])])
    return len(rows)


async def keep_moving(spool: Spool, records: RecordStore, marking: tuple[OwnHorizon, Writing] | None = None) -> None:
    """Move events until cancelled. A store that refuses delays the log and nothing else.

    `marking`: the mark of this node, and what writes its events.
    """
    while True:
        try:
            instant = 0 if marking is None else marking[0].present(marking[1])
            moved = await move_events(spool, records)
            if marking is not None and moved < BATCH:
                await trio.to_thread.run_sync(marking[0].mark, instant)
        except StoreUnavailable:
            await trio.sleep(RETRY_S)
        else:
            if moved < BATCH:
                await trio.sleep(PAUSE_S)
