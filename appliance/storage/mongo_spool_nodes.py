"""Which nodes share a spool, and how one of them gives its word.

A node has one document in `nodes`, and its word is in it: a group of changes counts from the instant at which its
number stands there in `decided`. (One number is enough: a node decides on the next group when the one before is
finished.) That is one conditional update of one document, so it happens or it does not, and it can't happen any more
once the node is marked as gone. Whoever takes over marks first, then looks. So a node that was stopped in between (a
machine that was suspended, say) and goes on hours later can decide nothing and undo nothing; it enters again, under
another id.

Each decision is tied to the one before by its number (`turn`). Where an answer got lost, the number is moved on: from
then on the lost command finds nothing to change when it is carried out late, and what stands there is the truth.

All instants here are the server's clock, and only that; our own counts how long something has lasted.
"""

import socket
import threading
import time
from typing import Any

from appliance.model.ids import IdSource, id_source
from appliance.model.time import HOUR_MS, wall_clock
from appliance.storage.mongo_database import MongoDatabase
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import Node

LEASE_MS = 30_000
"""For how long a node that is not heard of keeps what it has under way. It says every `spool.RENEW_S` that it is alive,
and others look every `spool.spool.TIDY_S`: within 60 s the work of a dead one has been taken over."""

FORGOTTEN_AFTER_MS = HOUR_MS
"""A node that is gone stays known for so long: one that was stopped and goes on can still learn what it had decided.
Its senders wait for that no longer than ten minutes (RFC 5321 §4.5.3.2.6)."""

NOW = {"$toLong": "$$NOW"}
"""The server's clock, in milliseconds, in a pipeline of changes."""

ABSENT = {"$exists": False}


def older_than(field: str, span_ms: int) -> dict[str, Any]:
    """The condition that an instant in a field is longer ago than this, by the server's clock."""
    return {"$lt": [f"${field}", {"$subtract": [NOW, span_ms]}]}


def node_of(unit: str) -> str:
    """The node whose group this is."""
    return unit.partition(".")[0]


def number_of(unit: str) -> int:
    """The number of a group among those of its node."""
    return int(unit.partition(".")[2])


def _clock_ahead() -> dict[str, Any]:
    """By how much our own clock is ahead of the server's, but for the way there, in a pipeline of changes."""
    return {"$subtract": [wall_clock(), NOW]}


class Membership:
    """This node among those that share the spool. What decides is for the writing thread, the rest for any."""

    def __init__(self, database: MongoDatabase, name: str, version: str, lease_ms: int) -> None:
        """`name` is the node's over all its runs; no two that are alive may have the same."""
        self._database = database
        self._nodes = database["nodes"]
        self._name = name
        self._version = version
        self._lease_ms = lease_ms
        self._new_id: IdSource = id_source()
        self._turn = 0
        self._numbered = 0
        self._lock = threading.Lock()
        self._is_out = False
        self._signs: dict[str, tuple[int, float]] = {}
        """The last sign of life of each other node, and since when it has been that, by our own clock."""
        self.id = ""
        """Another one each time that it enters."""

    @property
    def is_out(self) -> bool:
        """Others have taken it for dead: it has to enter again before it can decide anything."""
        return self._is_out

    def enter(self) -> None:
        """Be one of the nodes, under a new id. Raises StoreUnavailable."""
        id = self._new_id()
        fields = {
            "name": {"$literal": self._name},
            "hostname": {"$literal": socket.gethostname()},
            "version": {"$literal": self._version},
            "started_at": NOW,
            "seen_at": NOW,
            "turn": 0,
            "decided": 0,
            "clock_ahead_ms": _clock_ahead(),
        }
        with self._database.translated():
            self._nodes.update_one({"_id": id}, [{"$set": fields}], upsert=True)
        with self._lock:
            self.id, self._turn, self._numbered, self._is_out = id, 0, 0, False

    def beat(self) -> bool:
        """Say that it is alive; returns whether the others believe it. Raises StoreUnavailable."""
        id = self.id
        with self._database.translated():
            sign = {"seen_at": NOW, "clock_ahead_ms": _clock_ahead()}
            found = self._nodes.update_one({"_id": id, "gone": ABSENT}, [{"$set": sign}])
        if not found.matched_count:
            self._see_that_it_is_out(id)
        return bool(found.matched_count)

    def leave(self) -> None:
        """Be gone, in order: others take at once what is left. Raises StoreUnavailable."""
        with self._database.translated():
            self._nodes.update_one({"_id": self.id}, {"$set": {"gone": True}})

    # ------------------------------------------------------------------ deciding

    def next_unit(self) -> str:
        """The name of the next group."""
        self._numbered += 1
        return f"{self.id}.{self._numbered}"

    def decide(self, unit: str) -> bool:
        """Give the word for a group whose marks are all there, and those of the groups before are gone; false where the
        others have taken this node for dead.

        Raises StoreUnavailable: then it may have happened, and `was_decided` finds out.
        """
        change = {"turn": number_of(unit), "decided": number_of(unit)}
        with self._database.translated():
            found = self._nodes.update_one({"_id": node_of(unit), "turn": self._turn, "gone": ABSENT}, {"$set": change})
        if found.matched_count:
            self._turn = number_of(unit)
            return True
        self._see_that_it_is_out(node_of(unit))
        return False

    def was_decided(self, unit: str) -> bool | None:
        """Whether a group counts, of which the answer got lost. Where not, it never will.

        None where nobody knows any more: this node was gone for so long that it was forgotten, and the others have seen
        to the group, either way. Raises StoreUnavailable.
        """
        number = number_of(unit)
        with self._database.translated():
            moved = self._nodes.update_one({"_id": node_of(unit), "turn": self._turn}, {"$set": {"turn": number}})
            # An update that finds nothing is answered when what it has seen stands with the majority.
            found = None if moved.matched_count else self._nodes.find_one({"_id": node_of(unit)})
        if moved.matched_count:
            self._turn = number
            return False
        if found is None:
            self._see_that_it_is_out(node_of(unit))
            return None
        if found["turn"] != number:
            raise StoreUnavailable(f"{self._database.place}: it is not known yet which of our changes count")
        self._turn = number
        return bool(found["decided"] == number)

    def _see_that_it_is_out(self, id: str) -> None:
        with self._lock:
            # It may have entered again meanwhile.
            if id == self.id:
                self._is_out = True

    # ------------------------------------------------------------------ the others

    def mark_the_dead(self) -> bool:
        """Mark nodes as gone that have not been seen for too long; returns whether there were any. Raises
        StoreUnavailable.

        By the server's clock, and of those only whose last sign of life has been the same here for half that time:
        behind a failover there is another clock, and who is alive gives another sign before that.
        """
        with self._database.translated():
            found = list(self._nodes.find({"_id": {"$ne": self.id}, "gone": ABSENT}, {"seen_at": 1}))
        now = time.monotonic()
        before, self._signs = self._signs, {}
        for each in found:
            seen_at, since = before.get(each["_id"], (None, now))
            self._signs[each["_id"]] = each["seen_at"], since if seen_at == each["seen_at"] else now
        silent = [id for id, (_, since) in self._signs.items() if now - since >= self._lease_ms / 2000]
        return bool(silent) and self._mark({"_id": {"$in": silent}, "$expr": older_than("seen_at", self._lease_ms)})

    def mark_earlier_runs(self) -> bool:
        """Mark this node's own earlier runs as gone: whoever starts it knows that they are. Raises StoreUnavailable."""
        return self._mark({"name": self._name})

    def _mark(self, condition: dict[str, Any]) -> bool:
        with self._database.translated():
            found = self._nodes.update_many(
                {"$and": [{"_id": {"$ne": self.id}, "gone": ABSENT}, condition]}, {"$set": {"gone": True}}
            )
        return bool(found.matched_count)

    def living_and_gone(self) -> tuple[set[str], dict[str, int]]:
        """The ids of the nodes that are alive; and of those that are gone, with the number of the group that they have
        decided on last: that was their last word. Raises StoreUnavailable."""
        # In one reading: one that is marked as gone between two would be found by neither.
        with self._database.translated():
            found = list(self._nodes.find())
        living = {str(each["_id"]) for each in found if "gone" not in each}
        return living, {str(each["_id"]): int(each["decided"]) for each in found if "gone" in each}

    def forget_the_gone(self) -> None:
        """Erase nodes that have been gone for long. To be called when nothing of theirs is left. Raises
        StoreUnavailable."""
        with self._database.translated():
            self._nodes.delete_many({"gone": True, "$expr": older_than("seen_at", FORGOTTEN_AFTER_MS)})

    def all(self) -> list[Node]:
        """See `SpoolStore.nodes`. Raises StoreUnavailable."""
        leased = {"$match": {"lease.node": {"$exists": True}}}
        counted = {"$group": {"_id": "$lease.node", "deliveries": {"$sum": 1}}}
        with self._database.translated():
            found = list(self._nodes.find().sort([("name", 1), ("_id", 1)]))
            under_way = {
                str(each["_id"]): int(each["deliveries"])
                for each in self._database["deliveries"].aggregate([leased, counted])
            }
        return [
            Node(
                id=str(each["_id"]),
                name=str(each["name"]),
                hostname=str(each["hostname"]),
                version=str(each["version"]),
                started_at=int(each["started_at"]),
                seen_at=int(each["seen_at"]),
                gone=bool(each.get("gone", False)),
                under_way=under_way.get(str(each["_id"]), 0),
                clock_ahead_ms=int(each.get("clock_ahead_ms", 0)),
            )
            for each in found
        ]
