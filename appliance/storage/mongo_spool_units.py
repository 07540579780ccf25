"""How a group of changes comes to be as one in MongoDB, of which only a single document is changed as one.

    mark      What the group brings is written, and seen by nobody (`fresh`). At each document that it changes or takes
              away it writes what is to become of it (`next`, `gone`), where nobody else is at it and the lease is still
              ours. Each of these documents carries the name of the group (`unit`).
    decide    The node gives its word (`mongo_spool_nodes.py`): one change of one document. Here the group begins to
              count; here the sender may be told 250.
    finish    What is marked becomes what it was to be, and the marks go. Nobody waits for that: the next group is
              marked meanwhile, where it is about other documents, and decided when this one is finished.

Where it is not decided, the marks are taken away and nothing has happened. Every step after the decision, either way,
is one that can be taken again and by anybody: it changes only what still carries the group's name. So a node that dies
anywhere leaves marks, and whoever finds them looks whether there was a word.

What can be done twice needs no word, and goes without marks: content (nobody reads it before there is a delivery), what
the clocks have come to, return paths, and that events have reached the log. Content goes behind the last delivery of
its message, that of many together; a death in between leaves it to the search (`mongo_spool_leftovers.py`).

All of it waits for the majority and the journal, also what could be done twice. A finish that a new primary does not
know of would be found as marks of a group before the last word, and such are taken away.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from appliance.model.delivery import DeliveryState
from appliance.storage.mongo_database import MongoDatabase
from appliance.storage.mongo_spool_nodes import ABSENT, NOW
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import LeaseLost

MARKED = ("deliveries", "outbox", "holds")
"""The collections whose documents carry the name of a group."""

COUNTED = "alias_uses"
"""Many groups may count under the same counter at once; each has an entry of its own in the document."""


@dataclass(frozen=True, slots=True)
class Touched:
    """What a group may have marked in one collection."""

    name: str
    brings: bool = True
    """Documents that come, or become something else."""
    takes: bool = True
    """Documents that go."""


EVERYWHERE = (*(Touched(name) for name in MARKED), Touched(COUNTED))

AT_ONCE = 6
"""Commands that are under way at once, beside the threads that have brought them: those of one step are about different
documents, and each waits for the server's disk. One step is a group being marked, the other the one before it being
finished."""

ERASED_WITHIN_S = 0.1
"""How long content stays behind the last delivery of its message, where the server is there: to look for each message
whether it was the last, and to erase it, costs as much as for all of this time together. A tenth of what is asked of
the server for a message goes into it otherwise."""

_UNMARK = {"$unset": {"unit": "", "next": "", "gone": ""}}


class Units:
    """Finishes groups, or takes their marks away. Every method raises StoreUnavailable. Thread-safe."""

    def __init__(self, database: MongoDatabase, lease_ms: int) -> None:
        self._database = database
        self._lease_ms = lease_ms
        self._threads = ThreadPoolExecutor(AT_ONCE, "spool-command")
        self._behind = ThreadPoolExecutor(1, "spool-finish")
        self._erasing = ThreadPoolExecutor(1, "spool-erase")
        self._is_ending = threading.Event()
        self._spent: set[str] = set()
        """Messages that have no delivery any more, as it seems, and whose content is still there."""
        self._lock = threading.Lock()
        self._eraser = threading.Lock()
        """Held by who erases what is spent: when it is free, all of it was tried."""

    def close(self) -> None:
        """End the threads that commands are sent by, when they are through with what they have begun."""
        self._is_ending.set()
        self._behind.shutdown()
        self._erasing.shutdown()
        self._threads.shutdown()

    def behind(self, step: Callable[[], None]) -> Future[None]:
        """Take a step while the thread that brings it goes on; one at a time, in their order."""
        return self._behind.submit(step)

    def at_once(self, steps: Sequence[Callable[[], object]]) -> None:
        """Take steps that do not depend on each other. Returns, or raises what one has raised, when all have ended.

        LeaseLost goes before: it says that nothing of this is our business any more, whatever else is wrong.
        """
        others = [self._threads.submit(step) for step in steps[1:]]
        errors: list[BaseException] = []
        for step in (*steps[:1], *(each.result for each in others)):
            try:
                step()
            except Exception as error:  # noqa: BLE001  raised below
                errors.append(error)
        if errors:
            raise next((each for each in errors if isinstance(each, LeaseLost)), errors[0])

    # ------------------------------------------------------------------ groups that are decided, or are not

    def finish(
        self, unit: str, where: Collection[Touched] = EVERYWHERE, beside: Sequence[Callable[[], object]] = ()
    ) -> None:
        """Carry out a group that counts, where it may have marks; other steps beside it."""
        self.at_once([*beside, *(step for touched in where for step in self._steps(touched, unit))])

    def finish_what_is_left(self, unit: str) -> None:
        """Carry out a group that counts, of which nothing is known but its name, and erase the content of what it has
        taken away."""
        with self._database.translated():
            spent = self._database["deliveries"].distinct("message_id", {"unit": unit, "gone": True})
        self.finish(unit)
        self.erase_content(spent)

    def abort(self, unit: str) -> None:
        """Take away the marks of a group that does not count. Does nothing to one that was finished meanwhile."""
        with self._database.translated():
            for name in MARKED:
                self._database[name].delete_many({"unit": unit, "fresh": True})
                self._database[name].update_many({"unit": unit}, _UNMARK)
            self._database[COUNTED].update_many({"pending.unit": unit}, {"$pull": {"pending": {"unit": unit}}})

    def erase_what_came_with(self, unit: str) -> None:
        """Erase the content that a group has brought; only for who knows for certain that it does not count."""
        with self._database.translated():
            self._database["content"].delete_many({"origin": unit})

    def marked(self, condition: Any) -> set[str]:
        """The groups with marks anywhere whose names meet a condition of MongoDB's."""
        found: set[str] = set()
        with self._database.translated():
            for name in MARKED:
                found.update(self._database[name].distinct("unit", {"unit": condition}))
            pending = self._database[COUNTED].find({"pending.unit": condition}, {"pending.unit": 1})
            found.update(each["unit"] for document in pending for each in document["pending"])
        return found

    def _steps(self, touched: Touched, unit: str) -> Iterator[Callable[[], object]]:
        if touched.name == COUNTED:
            yield partial(self._count, unit)
            return
        if touched.brings:
            yield partial(self._bring, touched.name, unit)
        if touched.takes:
            yield partial(self._take, touched.name, unit)

    def _bring(self, name: str, unit: str) -> None:
        with self._database.translated():
            self._database[name].update_many({"unit": unit, "gone": ABSENT}, self._becomes(name))

    def _take(self, name: str, unit: str) -> None:
        with self._database.translated():
            self._database[name].delete_many({"unit": unit, "gone": True})

    def _becomes(self, name: str) -> list[dict[str, Any]]:
        """The change that makes of a marked document what it was to be."""
        stages: list[dict[str, Any]] = []
        if name == "deliveries":
            is_kept = {"$eq": [{"$type": "$next"}, "object"]}
            kept = {"$mergeObjects": [{"_id": "$_id", "lease": "$lease"}, "$next"]}
            under_way = {"$eq": ["$state", DeliveryState.UNDER_WAY.value]}
            renewed = {"$mergeObjects": ["$lease", {"until": {"$add": [NOW, self._lease_ms]}}]}
            stages = [
                {"$replaceWith": {"$cond": [is_kept, kept, "$$ROOT"]}},
                {"$set": {"lease": {"$cond": [under_way, renewed, "$$REMOVE"]}}},
            ]
        return [*stages, {"$unset": ["unit", "fresh"]}]

    def _count(self, unit: str) -> None:
        of_it = {"$filter": {"input": "$pending", "cond": {"$eq": ["$$this.unit", unit]}}}
        others = {"$filter": {"input": "$pending", "cond": {"$ne": ["$$this.unit", unit]}}}
        added = {"$sum": {"$map": {"input": of_it, "in": "$$this.uses"}}}
        with self._database.translated():
            self._database[COUNTED].update_many(
                {"pending.unit": unit}, [{"$set": {"uses": {"$add": ["$uses", added]}, "pending": others}}]
            )

    # ------------------------------------------------------------------ content

    def erase_content(self, message_ids: Collection[str]) -> None:
        """Erase the content of those of these messages that have no delivery any more."""
        if not message_ids:
            return
        asked = list(message_ids)
        with self._database.translated():
            left = self._database["deliveries"].distinct("message_id", {"message_id": {"$in": asked}})
            spent = sorted(set(asked).difference(left))
            if spent:
                self._database["content"].delete_many({"_id.message_id": {"$in": spent}})

    def erase_soon(self, message_ids: Collection[str]) -> None:
        """The same, within ERASED_WITHIN_S, and while the thread that says so goes on. What fails is left to
        `erase_spent`."""
        with self._lock:
            if message_ids and not self._spent:
                self._erasing.submit(self._erase_together)
            self._spent.update(message_ids)

    def erase_spent(self) -> None:
        """Erase now what was to be erased soon."""
        with self._eraser:
            with self._lock:
                spent, self._spent = self._spent, set()
            try:
                self.erase_content(spent)
            except StoreUnavailable:
                with self._lock:
                    self._spent |= spent
                raise

    def _erase_together(self) -> None:
        self._is_ending.wait(ERASED_WITHIN_S)
        self.erase_spent()
