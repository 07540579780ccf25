"""What in a spool on MongoDB is due, and taking it: in the order in which SQLite does it (`sqlite_due.py`).

The documents of each priority stand in the index by the time at which they are due. So what is looked at is what is
due, and a step for each priority that there is, however much waits for a later time. What is found is then marked as
claimed where that was not done by another node in between: the condition of that change, not the finding, says whose it
is. Three commands take hundreds, where a find_one_and_update for each would take hundreds. And to look needs no turn of
the thread that writes: where the server is slow, only taking holds up what comes in.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from appliance.model.delivery import DeliveryState
from appliance.storage.mongo_database import MongoDatabase
from appliance.storage.mongo_documents import Document
from appliance.storage.mongo_spool_nodes import ABSENT, NOW
from appliance.storage.shares import divide

_WAITING, _UNDER_WAY, _ = (state.value for state in DeliveryState)


class Due:
    """What is due in one spool. `left_out` are the keys of destinations that do not count. Thread-safe.

    Every method raises StoreUnavailable.
    """

    def __init__(self, database: MongoDatabase, lease_ms: int) -> None:
        self._database = database
        self._lease_ms = lease_ms
        self._deliveries = database["deliveries"]

    def found(self, now: int, limit: int, left_out: Sequence[object]) -> list[str]:
        """The ids of what is due, `limit` at most. Takes nothing."""
        with self._database.translated():
            due = {priority: self._waiting(priority, {"$lte": now}, left_out, limit) for priority in self._priorities()}
        shares = divide(
            {priority: [each["next_attempt_at"] for each in found] for priority, found in due.items()}, limit
        )
        return [each["_id"] for priority, count in shares.items() for each in due[priority][:count]]

    def take(self, found: Sequence[str], token: str, lease: Document) -> list[Document]:
        """Take of these what still waits; `lease` is what is written at each, and its token nobody else's."""
        until = {"$add": [NOW, self._lease_ms]}
        with self._database.translated():
            self._deliveries.update_many(
                {"_id": {"$in": found}, "state": _WAITING, "unit": ABSENT},
                [{"$set": {"state": _UNDER_WAY, "lease": {"$mergeObjects": [{"$literal": lease}, {"until": until}]}}}],
            )
            return list(self._deliveries.find({"_id": {"$in": found}, "lease.token": token}))

    def renew(self, node: str) -> set[str]:
        """Renew the leases of a node; returns the ids of the deliveries that it has."""
        until = {"$add": [NOW, self._lease_ms]}
        with self._database.translated():
            self._deliveries.update_many({"lease.node": node}, [{"$set": {"lease.until": until}}])
            return {str(each["_id"]) for each in self._deliveries.find({"lease.node": node}, {"_id": 1})}

    def next(self, after: int, left_out: Sequence[object]) -> int | None:
        """When the next delivery is due, later than `after`; None where none waits."""
        times: list[int] = []
        with self._database.translated():
            for priority in self._priorities():
                found = self._waiting(priority, {"$gt": after}, left_out, 1)
                times += [int(each["next_attempt_at"]) for each in found]
        return min(times, default=None)

    def _waiting(self, priority: int, due: Document, left_out: Sequence[object], limit: int) -> list[Document]:
        condition: dict[str, Any] = {"state": _WAITING, "priority": priority, "next_attempt_at": due}
        if left_out:
            condition["destination_key"] = {"$nin": list(left_out)}
        found = self._deliveries.find({**condition, "unit": ABSENT}, {"next_attempt_at": 1})
        return list(found.sort("next_attempt_at", 1).limit(limit))

    def _priorities(self) -> Iterator[int]:
        """Those of what waits, from the highest down."""
        condition: dict[str, Any] = {"state": _WAITING}
        while True:
            found = self._deliveries.find_one(condition, {"_id": 0, "priority": 1}, sort=[("priority", -1)])
            if found is None:
                return
            yield int(found["priority"])
            condition["priority"] = {"$lt": found["priority"]}
