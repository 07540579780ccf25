"""`onward run`, for whom a node is dead six times sooner than for others: so that a test of nodes need not wait.

What the times are to each other is as in the appliance: a node may miss two of three signs of life, and an attempt is
begun in the first two thirds of a lease.
"""

from functools import partial

from appliance.command_line.root import main
from appliance.delivery import scheduler
from appliance.spool import sharing, spool
from appliance.storage import mongo_spool, mongo_spool_nodes
from appliance.storage.mongo_spool import MongoSpool
from appliance.storage.spool import RENEW_S

FASTER = 6

LEASE_S = mongo_spool_nodes.LEASE_MS / 1000 / FASTER

TAKEN_OVER_WITHIN_S = 60 / FASTER
"""After its last sign of life, what a node had under way is somewhere else."""

_SOONER = (
    (scheduler, "LOOK_S", scheduler.LOOK_S / FASTER),
    (mongo_spool, "MongoSpool", partial(MongoSpool, lease_ms=round(LEASE_S * 1000))),
    (sharing, "RENEW_S", RENEW_S / FASTER),
    (sharing, "RETRY_S", sharing.RETRY_S / FASTER),
    (spool, "STANDS_MS", spool.STANDS_MS // FASTER),
    (spool, "TIDY_S", spool.TIDY_S / FASTER),
)

if __name__ == "__main__":
    for room, name, value in _SOONER:
        setattr(room, name, value)
    main()
