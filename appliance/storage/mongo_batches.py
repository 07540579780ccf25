"""Several changes as one, on a server that keeps one document whole and no more.

A batch first writes down what it is about to do (an intent, with all its writes and with how each document was before),
then does it, then erases the intent:

- A duplicate on the way: it is undone from the intent, and the caller hears of it.
- The process dies, or the server is away in the middle: whoever finds the intent when it is ABANDONED_MS old does the
  rest of it; or undoes it, where a duplicate says so now. What others have written since stays.

Which of the two it is, is decided in the intent (`outcome`), by one conditional write: whoever has been taken for dead
and goes on finds there what has become of its batch. Each write may be done, and undone, any number of times.

What this is not: until a batch is whole, others can see the part of it that is there. A generation is raised last, so
that nobody who goes by it has read too early.
"""

import secrets
from collections.abc import Callable, Sequence
from itertools import groupby

from pymongo.errors import OperationFailure

from appliance.privacy.declarations import Collection
from appliance.storage.codec import RowRefused
from appliance.storage.mongo_database import MongoDatabase
from appliance.storage.mongo_documents import Document, Index, Shape
from appliance.storage.mongo_errors import NotDeclared, is_hopeless
from appliance.storage.mongo_plans import Checked, Plan
from appliance.storage.mongo_writes import Kind, Write, do, do_again, insert_all, made, pack, undo, unpack
from appliance.storage.records import Duplicate, StoreUnavailable

ABANDONED_MS = 10_000
"""By the server's clock: twice as long as any one write may take, so that hardly anyone alive is taken for dead."""

LARGEST_INTENT = 15 << 20
"""Octets. A document of MongoDB has 16 MiB at most."""

REMEMBERED_MS = 86_400_000
"""So long an intent that another process has settled keeps its outcome, for whoever is alive after all and asks. Its
writes are gone when they are made or undone."""

DONE, UNDONE = "done", "undone"
"""What has become of an intent that its own process has not settled."""

INTENTS = Shape(
    "intents",
    {
        "_id": {"bsonType": "string"},
        "at": {"bsonType": "date"},
        "writes": {"bsonType": "binData"},
        "outcome": {"enum": [DONE, UNDONE]},
    },
    frozenset({"_id", "at"}),
    (Index("by_at", ("at",)),),
)


class Batches:
    """The batches of one database. Thread-safe."""

    def __init__(
        self, database: MongoDatabase, declared: Callable[[str], Collection], abandoned_ms: int = ABANDONED_MS
    ) -> None:
        """`declared`: a collection by its name."""
        self._database = database
        self._declared = declared
        self._abandoned_ms = abandoned_ms
        self._intents = database[INTENTS.name]

    def apply(self, changes: Sequence[Checked]) -> list[int]:
        """Make these changes as one; the number of documents that each has touched.

        Raises Duplicate; StoreUnavailable, and then all of it may still be done by who finds the intent.
        """
        batch = secrets.token_hex(16)
        writes = Plan(self._database, batch).writes(changes)
        touched = [0] * len(changes)
        if not writes:
            return touched
        packed = pack(writes)
        if len(packed) > LARGEST_INTENT:
            raise RowRefused(self._declared(writes[0].collection), "", "is changed in too much at once")
        with self._database.translated():
            self._intents.update_one(
                {"_id": batch}, {"$set": {"writes": packed}, "$currentDate": {"at": True}}, upsert=True
            )
        done: list[Write] = []
        try:
            for (_, name), group in groupby(writes, key=lambda write: (write.kind is Kind.INSERT, write.collection)):
                self._carry_out(self._declared(name), list(group), batch, touched, done)
        except (Duplicate, NotDeclared, OperationFailure):
            # Nothing has been raised yet, and whoever has seen what is undone has to look again.
            self._take_back(batch, done + [write for write in writes if write.kind is Kind.RAISE])
            raise
        self._close(batch, writes)
        return touched

    def settle(self) -> int:
        """Finish, one way or the other, the batches that others have left. Returns how many that were."""
        settled = 0
        with self._database.translated():
            while (intent := self._abandoned()) is not None:
                self._settle(intent)
                settled += 1
            self._intents.delete_many({"writes": {"$exists": False}} | _older_than(REMEMBERED_MS))
        return settled

    def _carry_out(
        self, collection: Collection, writes: list[Write], batch: str, touched: list[int], done: list[Write]
    ) -> None:
        with self._database.translated(collection):
            if writes[0].kind is Kind.INSERT:
                # Whatever of them is there when one is a duplicate has the batch's id.
                done += writes
                insert_all(writes, batch, self._database.__getitem__)
                for write in writes:
                    touched[write.change] += 1
            else:
                for write in writes:
                    touched[write.change] += do(write, batch, self._database.__getitem__)
                    done.append(write)

    def _take_back(self, batch: str, done: Sequence[Write]) -> None:
        """Undo what has been done of a batch that cannot be made whole."""
        with self._database.translated():
            decided = self._intents.update_one(_OPEN | {"_id": batch}, {"$set": {"outcome": UNDONE}})
            if not decided.matched_count and self._outcome(batch) == DONE:
                raise StoreUnavailable(f"{self._database.place}: another node has made these changes meanwhile")
            self._undo(batch, done)
            self._intents.delete_one({"_id": batch})

    def _close(self, batch: str, writes: Sequence[Write]) -> None:
        """Erase the intent of a batch that is whole."""
        with self._database.translated():
            if self._intents.delete_one(_OPEN | {"_id": batch}).deleted_count or self._outcome(batch) == DONE:
                return
            # Taken for dead, overtaken, and undone: so must be what has been done since.
            self._undo(batch, writes)
        raise StoreUnavailable(f"{self._database.place}: another node has undone these changes meanwhile")

    def _outcome(self, batch: str) -> str:
        intent = self._intents.find_one({"_id": batch}) or {}
        return str(intent.get("outcome", ""))

    def _abandoned(self) -> Document | None:
        """An intent that nobody has been at for a while. It is ours from now on, for as long."""
        return self._intents.find_one_and_update(
            {"writes": {"$exists": True}} | _older_than(self._abandoned_ms),
            {"$currentDate": {"at": True}},
            sort=[("at", 1)],
        )

    def _settle(self, intent: Document) -> None:
        batch, writes = intent["_id"], unpack(intent["writes"])
        outcome = intent.get("outcome")
        if outcome is None:
            outcome = DONE
            try:
                for write in writes[made(writes, batch, self._database.__getitem__) :]:
                    do_again(write, batch, self._database.__getitem__)
            except OperationFailure as error:
                if not is_hopeless(error):
                    raise
                outcome = UNDONE
            if not self._intents.update_one(_OPEN | {"_id": batch}, {"$set": {"outcome": outcome}}).matched_count:
                # Its own process was not dead, and has decided in the same moment.
                outcome = self._outcome(batch) or DONE
        if outcome == UNDONE:
            self._undo(batch, writes)
        self._intents.update_one({"_id": batch}, {"$unset": {"writes": ""}})

    def _undo(self, batch: str, writes: Sequence[Write]) -> None:
        raised = [write for write in writes if write.kind is Kind.RAISE]
        others = [write for write in writes if write.kind is not Kind.RAISE]
        for write in (*reversed(others), *raised):
            undo(write, batch, self._database.__getitem__)


_OPEN: Document = {"outcome": {"$exists": False}}
"""Nobody has decided about it."""


def _older_than(span_ms: int) -> Document:
    return {"$expr": {"$lte": ["$at", {"$subtract": ["$$NOW", span_ms]}]}}
