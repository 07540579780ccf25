"""`onward run`, for whom a node is dead six times sooner than for others: so that a test of nodes need not wait.

What the times are to each other is as in the appliance: a node may miss two of three signs of life, and an attempt is
begun in the first two thirds of a lease.
"""

from functools import partial

from appliance.command_line.root import main
from appliance.spool import sharing, spool
from appliance.storage import mongo_spool, mongo_spool_nodes
from appliance.storage.mongo_spool import MongoSpool

FASTER = 6

LEASE_S = mongo_spool_nodes.LEASE_MS / 1000 / FASTER

TAKEN_OVER_WITHIN_S = LEASE_S + spool.TIDY_S / FASTER + 2
"""After its last sign of life, what a node had under way is somewhere else. The two seconds are for a busy machine."""

_SOONER = (
    (mongo_spool, "MongoSpool", partial(MongoSpool, lease_ms=round(LEASE_S * 1000))),
    (sharing, "RENEW_S", sharing.RENEW_S / FASTER),
    (sharing, "RETRY_S", sharing.RETRY_S / FASTER),
    (spool, "STANDS_MS", spool.STANDS_MS // FASTER),
    (spool, "TIDY_S", spool.TIDY_S / FASTER),
)

if __name__ == "__main__":
    for room, name, value in _SOONER:
        setattr(room, name, value)
    main()
