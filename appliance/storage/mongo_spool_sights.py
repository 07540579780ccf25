"""Looks whether there is anything to bring to its end in a spool that nodes share (`mongo_spool_leftovers.py`).

That is asked every few seconds, and mostly there is nothing. To look takes several commands, and needs no turn of the
thread that writes; only what was seen is seen to in its turn, and there it is looked at again.
"""

import time

from appliance.storage.mongo_database import MongoDatabase
from appliance.storage.mongo_spool_groups import Groups
from appliance.storage.mongo_spool_nodes import ABSENT, Membership, node_of, number_of
from appliance.storage.mongo_spool_units import Units

AT_LEAST_EVERY_S = 600.0
"""How often it is gone through all the same: there is also what grows old unseen, such as a lease of a node that was
forgotten, the entries of nodes that are to be forgotten, and content that no delivery has."""


class Sights:
    """What this node has seen of what others have left. For one thread at a time."""

    def __init__(self, database: MongoDatabase, node: Membership, groups: Groups, units: Units) -> None:
        self._database = database
        self._node = node
        self._groups = groups
        self._units = units
        self._gone: set[str] = set()
        self._buried: set[str] = set()
        """Nodes that were gone when everything was last gone through."""
        self._gone_through_at = float("-inf")

    def anything(self, last_unit: str, *, silent: bool) -> bool:
        """Whether `Leftovers.take_over` will find something to do, or it is time to see. Raises StoreUnavailable.

        `last_unit`: this node's own groups before it have come to their end, or will when the next one is written.
        `silent` is told to `take_over` too.
        """
        if silent:
            self._node.mark_the_dead()
        # The marks first: a node enters before it marks anything, so that it is found to be alive.
        marked = self._units.marked({"$gt": ""})
        living, gone = self._node.living_and_gone()
        self._gone = set(gone)
        return (
            time.monotonic() - self._gone_through_at >= AT_LEAST_EVERY_S
            or self._groups.in_doubt
            or not self._buried.issuperset(gone)
            or any(self._is_left(unit, last_unit, living) for unit in marked)
            or self._have_something(list(gone))
        )

    def is_seen_to(self) -> None:
        """What was there when `anything` looked last has been seen to."""
        self._buried = self._gone
        self._gone_through_at = time.monotonic()

    def _is_left(self, unit: str, last_unit: str, living: set[str]) -> bool:
        """Whether nobody is at a group, of which marks were found, to bring it to its end."""
        node = node_of(unit)
        if node == node_of(last_unit):
            return number_of(unit) < number_of(last_unit)
        return node not in living

    def _have_something(self, gone: list[str]) -> bool:
        """Whether something is under the names of nodes that are gone."""
        if not gone:
            return False
        with self._database.translated():
            return any(
                self._database[name].find_one({field: {"$in": gone}, "unit": ABSENT}, {"_id": 1}) is not None
                for name, field in (("deliveries", "lease.node"), ("outbox", "node"))
            )
