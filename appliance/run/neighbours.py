"""What this engine hears of the other nodes that share its stores, beside the mail that they take from each other.

What one node does is in the stores at once; what the others keep in memory of it, they read here now and then: the
rules by which mail is held, how often aliases have been used, and what accounts have received. Until then each goes by
what it knew, so that a limit may be met once by each node. Changes of aliases come by the routing snapshot, events by
the log.
"""

import logging

import trio

from appliance.delivery.holds import Holds
from appliance.spool.uses import Uses
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import SpoolStore

HOLDS_S = 1.0
"""How often the rules of holds are read: what is held at one node leaves no other a moment later."""

USES_S = 5.0
"""How often it is read how many messages aliases have taken."""

_log = logging.getLogger(__name__)


async def keep_hearing(store: SpoolStore, holds: Holds, uses: Uses) -> None:
    """Hear of the others, until cancelled. A store that is away leaves what was known in place."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_hear_of_holds, store, holds)
        nursery.start_soon(_hear_of_uses, store, uses)


async def _hear_of_holds(store: SpoolStore, holds: Holds) -> None:
    is_away = False
    while True:
        await trio.sleep(HOLDS_S)
        changes = holds.changes
        try:
            holds.learn(await trio.to_thread.run_sync(store.holds), changes)
        except StoreUnavailable as error:
            if not is_away:
                _log.warning("the rules of holds can't be read now, they stay as they are: %s", error)
            is_away = True
        else:
            is_away = False


async def _hear_of_uses(store: SpoolStore, uses: Uses) -> None:
    is_away = False
    while True:
        await trio.sleep(USES_S)
        try:
            uses.learn(await trio.to_thread.run_sync(store.uses))
        except StoreUnavailable as error:
            if not is_away:
                _log.warning("how often aliases were used elsewhere can't be read now: %s", error)
            is_away = True
        else:
            is_away = False
