"""The broom on its rounds: what has had its time is erased, and what nobody owns any more, round after round.

Where several nodes share the records each of them sweeps, for an index finds at once what is too old. Rows whose owner
is gone are another matter: every row is looked at for them, so one node does that for all.
"""

import logging
from collections.abc import Callable

import trio

from appliance.configuration import Configuration, retention_ms
from appliance.model.time import SECOND_MS, Clock, wall_clock
from appliance.privacy.sweeper import Sweeper
from appliance.run.chores import is_due
from appliance.storage.records import RecordStore, StoreUnavailable
from appliance.storage.spool import SpoolStore

CHORE = "ownerless"

_log = logging.getLogger(__name__)


def broom(
    config: Configuration, records: RecordStore, spool: SpoolStore, node: str, clock: Clock = wall_clock
) -> Sweeper:
    """The sweeper of a node of this name; the name is empty where the stores are its alone."""

    def seeks_ownerless() -> bool:
        # Half of a round: so whoever had the turn last does not find, by some milliseconds, that it still has.
        return not node or is_due(records, CHORE, node, clock, sweeper.interval_ms() // 2)

    sweeper = Sweeper(records, spool, lambda setting: retention_ms(config, setting), seeks_ownerless)
    return sweeper


async def keep_swept(sweeper: Sweeper, now: Callable[[], int]) -> None:
    """Sweep again and again, until cancelled. Where a store is away, the next round does what this one could not.

    `now`: the latest wall clock that has been seen, in milliseconds since the epoch.
    """
    away = False
    while True:
        try:
            erased = await trio.to_thread.run_sync(sweeper.sweep, now())
        except StoreUnavailable as error:
            if not away:
                _log.warning("what has had its time can't be erased now: %s", error)
            away = True
        else:
            if away:
                _log.info("what has had its time is erased again")
            away = False
            if any(erased.values()):
                _log.info("swept %s", " ".join(f"{name}={count}" for name, count in erased.items() if count))
        await trio.sleep(sweeper.interval_ms() / SECOND_MS)
