"""What a node does where several share a spool: it says that it is alive, keeps its leases, and agrees on the time.

Others take a node's work over when they have not heard of it for a while (`storage.mongo_spool_nodes.LEASE_MS`). So it
says every few seconds that it is there, and an attempt is begun only while that is certain
(`Spool.until_leases_stand`): a process that was stopped, or cut off from the store, first looks what is still its own.
"""

import logging
from collections.abc import Awaitable, Callable, Collection

import trio

from appliance.spool.clocks import Clocks
from appliance.spool.spool import Spool
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import RENEW_S, MarkClocks

RETRY_S = 2.0
"""How soon it is tried again where the store does not answer: a few times before the leases are over."""

_logger = logging.getLogger(__name__)


async def keep_sharing(spool: Spool, clocks: Clocks, lost: Callable[[Collection[str]], Awaitable[None]]) -> None:
    """Renew leases until cancelled, follow the clocks of the nodes that are further, and tidy.

    `lost` is told of deliveries (ids) that others have taken over. Returns at once where the store is one node's alone.
    """
    if spool.store.shared:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep_leases, spool, lost)
            nursery.start_soon(_follow_clocks, spool, clocks)
            nursery.start_soon(spool.keep_tidy)


async def _keep_leases(spool: Spool, lost: Callable[[Collection[str]], Awaitable[None]]) -> None:
    async with trio.open_nursery() as telling:
        while True:
            try:
                taken = await spool.renew()
            except StoreUnavailable:
                # Where the others have taken it for dead, it is one of them again after that.
                await spool.tidy_now()
                await trio.sleep(RETRY_S)
                continue
            if taken:
                _logger.warning("other nodes have taken over %d deliveries of this one", len(taken))
                # It waits for the writing thread. Of a slow store that has much to do, and leases last no longer then.
                telling.start_soon(lost, taken)
            await trio.sleep(RENEW_S)


async def _follow_clocks(spool: Spool, clocks: Clocks) -> None:
    """Apart from the leases: this too waits for the writing thread."""
    while True:
        try:
            await spool.committer.commit([MarkClocks(clocks.marks())])
            clocks.adopt(await trio.to_thread.run_sync(spool.store.clock_marks))
        except StoreUnavailable:
            await trio.sleep(RETRY_S)
        else:
            await trio.sleep(RENEW_S)
