"""Shows people how many messages an alias has taken: a copy of the spool's counts in the record store.

A copy is written as the count that it is, and not as one more: to write it twice, after a crash or a store that
refused, changes nothing. It raises no generation; routing asks the counts themselves.
"""

from collections.abc import Callable, Collection

import trio

from appliance.privacy.declarations import ALIASES
from appliance.spool.spool import Spool
from appliance.spool.uses import Uses
from appliance.storage.records import RecordStore, StoreUnavailable, Update
from appliance.storage.spool import ForgetUses

PAUSE_S = 0.25
"""How late people see a use, at most: about as late as the event of the message."""

RETRY_S = 2.0
"""How long to wait where either store refuses."""


async def show(uses: Uses, records: RecordStore) -> None:
    """Copy what people have not been shown. Raises StoreUnavailable."""
    counts = uses.uncopied()
    if counts:
        changes = [Update(ALIASES, {"use_counter": counter}, {"uses": count}) for counter, count in counts.items()]
        await trio.to_thread.run_sync(records.apply, changes)
        uses.copied(counts)


async def keep_showing(
    uses: Uses,
    spool: Spool,
    records: RecordStore,
    counters: Callable[[], Collection[str]],
    patience_s: float = 0.0,
) -> None:
    """Copy until cancelled, and erase the counts of counters that no alias has any more.

    `counters` are those of the aliases that routing knows. Where other nodes count as well, it may hear of an alias
    later than of its count: what it has not heard of after `patience_s` is gone.
    """
    seen: Collection[str] | None = None
    doubtful: set[str] = set()
    look_at = 0.0
    while True:
        try:
            await show(uses, records)
            present = counters()
            if present is not seen:
                seen, doubtful, look_at = present, uses.all_but(present), trio.current_time() + patience_s
            if doubtful and trio.current_time() >= look_at:
                gone, doubtful = sorted(doubtful.difference(counters())), set()
                uses.forget(gone)
                if gone:
                    await spool.committer.commit([ForgetUses(gone)])
        except StoreUnavailable:
            await trio.sleep(RETRY_S)
        else:
            await trio.sleep(PAUSE_S)
