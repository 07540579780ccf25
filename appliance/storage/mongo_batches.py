"""Several changes as one, on a server that keeps one document whole and no more.

A batch first writes down what it is about to do: an intent, with all its writes and with how each document was before.
Then it makes what can be taken back: each write for the document as it was read, and with the batch's id in it. Then it
is decided, by one conditional write of the intent, that the batch is made. What is made by its condition alone follows,
and what tells others of the batch, and the intent is erased.

- A duplicate on the way, or a document that somebody else has changed meanwhile: it is taken back from the intent. The
  caller hears of the duplicate; the other is begun anew.
- The process dies, or the server is away: whoever finds the intent when nobody has been at it for ABANDONED_MS takes it
  back, or makes the rest where that was decided.
- Somebody wants to write to a document that a batch has written which is not at its end: it is brought to its end first
  (`release`). So what others write is before all of a batch, or behind all of it.

Whoever is taken for dead and goes on finds out when it decides. What it writes until then meets no document any more,
for each has another stamp; only one that it adds can be there until it looks, or others look once more.

Three things are not promised. A key or a unique name that a batch had freed, and that is another's when the batch is
taken back, stays with the other. A row that was erased and is brought back can come twice, where somebody erases it in
the very moment in which it is brought back, by two at once or by one who dies over it. And two batches that are decided
at the same moment may each meet by a condition what the other has left.

What this is not: until a batch is at its end, others can read the part of it that is there. Generations are raised
last, and also when a batch is taken back, for whoever has read too early.
"""

import logging
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice

from pymongo import ReturnDocument
from pymongo.errors import OperationFailure

from appliance.privacy.declarations import Collection
from appliance.storage.codec import RowRefused
from appliance.storage.mongo_database import OPERATION_MS, MongoDatabase
from appliance.storage.mongo_documents import Document, Index, Shape
from appliance.storage.mongo_errors import NotDeclared
from appliance.storage.mongo_plans import Checked, Plan
from appliance.storage.mongo_writes import (
    REVOCABLE,
    Kind,
    Write,
    batches_of,
    make,
    make_for_good,
    new_batch,
    pack,
    raise_generation,
    take_back,
    unpack,
)
from appliance.storage.records import Damaged, Duplicate, StoreUnavailable

ABANDONED_MS = 10_000
"""By the server's clock: twice as long as any one write may take, so that hardly anyone alive is taken for dead."""

IMPATIENT_MS = 2000
"""The same for who wants to write to a document of a batch, and whose own caller waits. Who is alive begins anew."""

HEARD_OF_S = 1.0
"""How often a batch that takes long says that it is under way: well within the others' patience."""

LOOK_AGAIN_S = 0.02
"""How long to wait between two looks at a batch that is under way: it takes a few such moments."""

SETTLING_S = 1.0
"""How long to be at a batch that somebody has left before other things are done: it may erase millions of rows."""

MADE_AT_ONCE = 1000
"""Writes in one command."""

ATTEMPTS = 10
"""So often a batch is begun anew because others have changed the same documents. Each time one of them got on."""

LARGEST_INTENT = 15 << 20
"""Octets. A document of MongoDB has 16 MiB at most."""

LONGEST_PAUSE_MS = 3_600_000
"""An intent that can't be brought to its end is tried again after twice as long each time, up to this."""

FORGOTTEN_AFTER = 32
"""So many looks, which is about a day, an intent is kept that others have taken back: whoever is alive after all may
have added a document late. It has but the ids of what was added; all else is gone when it is taken back."""

MADE, TAKEN_BACK = "made", "taken back"
"""What is decided about an intent."""

INTENTS = Shape(
    "intents",
    {
        "_id": {"bsonType": "string"},
        "at": {"bsonType": "date"},
        "writes": {"bsonType": "binData"},
        "certain": {"bsonType": ["int", "long"]},
        "outcome": {"enum": [MADE, TAKEN_BACK]},
        "looks": {"bsonType": ["int", "long"]},
    },
    frozenset({"_id", "at"}),
    (Index("by_at", ("at",)),),
)

_log = logging.getLogger(__name__)


class _Overtaken(Exception):
    """Somebody else has changed a document of a batch, or has taken the batch back."""


class _MoreToDo(StoreUnavailable):
    """A batch of others is not at its end in the time that there was for it."""


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
        self._find = database.__getitem__

    def apply(self, changes: Sequence[Checked]) -> list[int]:
        """Make these changes as one; the number of documents that each has touched.

        Raises Duplicate; StoreUnavailable, and then it is made or taken back by who finds the intent.
        """
        for attempt in range(ATTEMPTS):
            batch = new_batch()
            writes = Plan(self._database, batch, self.release).writes(changes)
            touched = [0] * len(changes)
            if not writes:
                return touched
            try:
                self._apply(batch, writes, touched)
            except _Overtaken:
                # Not in step with the others.
                time.sleep(random.uniform(0, LOOK_AGAIN_S * attempt))
            except Duplicate:
                # It may have been of a batch that is taken back: the next plan waits for that.
                if attempt:
                    raise
            else:
                return touched
        raise StoreUnavailable(f"{self._database.place}: others are changing the same rows all the time")

    def settle(self) -> int:
        """Bring to their end the batches that others have left. Returns how many that were. Raises StoreUnavailable.

        One that can't be brought to its end is told of in the log, tried again later and later, and hinders no other.
        """
        settled = 0
        seen: list[str] = []
        while (intent := self._abandoned(seen)) is not None:
            seen.append(intent["_id"])
            try:
                done = self._finish(intent["_id"], time.monotonic() + SETTLING_S)
            except _MoreToDo:
                # As if nobody had looked at it: somebody goes on soon.
                with self._database.translated():
                    self._intents.update_one({"_id": intent["_id"]}, {"$unset": {"looks": ""}})
                continue
            except StoreUnavailable as error:
                _log.warning("a batch that another process has left is not at its end yet: %s", error)
                continue
            if intent.get("outcome") != TAKEN_BACK:
                settled += done
            elif intent["looks"] > FORGOTTEN_AFTER:
                with self._database.translated():
                    self._intents.delete_one({"_id": intent["_id"]})
        return settled

    def release(self, stamps: Iterable[str], but: frozenset[str] = frozenset()) -> bool:
        """Bring the batches that documents with these stamps are from to their end; True where one was not there yet.

        One that is under way is waited for. `but`: batches that are being brought to their end for this one's sake.
        Raises StoreUnavailable.
        """
        batches = batches_of(stamps) - but
        if not batches:
            return False
        with self._database.translated():
            found = list(self._intents.find({"_id": {"$in": list(batches)}}, {"_id": 1}))
        released = [self._released(intent["_id"], but) for intent in found]
        return any(released)

    # -------------------------------------------------------------- one's own

    def _apply(self, batch: str, writes: Sequence[Write], touched: list[int]) -> None:
        """Raises Duplicate, StoreUnavailable, _Overtaken."""
        packed = pack(writes)
        if len(packed) > LARGEST_INTENT:
            raise RowRefused(self._declared(writes[0].collection), "", "is changed in too much at once")
        revocable = [write for write in writes if write.kind in REVOCABLE]
        rest = writes[len(revocable) :]
        begun = {"writes": packed, "certain": 0} | ({} if revocable else {"outcome": MADE})
        with self._database.translated():
            self._intents.update_one({"_id": batch}, {"$set": begun, "$currentDate": {"at": True}}, upsert=True)
        if revocable:
            certain = [0]
            try:
                self._make(batch, revocable, certain)
                self._decide(batch, is_the_end=not rest)
            except (Duplicate, NotDeclared, OperationFailure, _Overtaken):
                self._give_up(batch, writes, certain[0])
                raise
        for write in revocable:
            if write.change >= 0:
                touched[write.change] += 1
        if rest:
            with self._database.translated():
                self._make_for_good(batch, rest, touched)

    def _make(self, batch: str, writes: Sequence[Write], certain: list[int]) -> None:
        """Make what can be taken back; `certain` becomes how many writes the intent says to have been made."""
        heard_of, number = time.monotonic(), 0
        for (name, erasing), group in groupby(writes, key=lambda write: (write.collection, write.kind is Kind.REMOVE)):
            for some in _in_commands(group):
                if erasing or time.monotonic() - heard_of > HEARD_OF_S:
                    self._say(batch, number)
                    certain[0], heard_of = number, time.monotonic()
                with self._database.translated(self._declared(name)):
                    if not make(some, self._find):
                        raise _Overtaken
                number += len(some)

    def _say(self, batch: str, certain: int) -> None:
        """Note that the batch is under way, and how many of its writes have been made. Raises _Overtaken."""
        noted = {"$set": {"certain": certain}, "$currentDate": {"at": True}}
        with self._database.translated():
            if not self._intents.update_one(_OPEN | {"_id": batch}, noted).matched_count:
                raise _Overtaken

    def _decide(self, batch: str, *, is_the_end: bool) -> None:
        """The batch is made from here on. Raises _Overtaken."""
        ours = _OPEN | {"_id": batch}
        with self._database.translated():
            if is_the_end:
                decided = self._intents.delete_one(ours).deleted_count
            else:
                decided = self._intents.update_one(ours, {"$set": {"outcome": MADE}}).matched_count
        if not decided:
            raise _Overtaken

    def _give_up(self, batch: str, writes: Sequence[Write], certain: int) -> None:
        """Take back what has been made of our own batch."""
        with self._database.translated():
            ours = self._intents.update_one(_OPEN | {"_id": batch}, {"$set": {"outcome": TAKEN_BACK}}).matched_count
            # Where nothing has been made, nobody has read it.
            self._take_back(batch, writes, certain, again=True)
            if ours:
                self._intents.delete_one({"_id": batch})

    # -------------------------------------------------------------- anybody's

    def _abandoned(self, seen: Sequence[str]) -> Document | None:
        """Another intent that nobody has been at for a while. It is ours from now on, and each time for longer."""
        looks = {"$ifNull": ["$looks", 0]}
        longer = {"$multiply": [self._abandoned_ms, {"$subtract": [{"$pow": [2, {"$min": [looks, 20]}]}, 1]}]}
        looked = {"$add": [looks, 1]}
        with self._database.translated():
            return self._intents.find_one_and_update(
                {"_id": {"$nin": list(seen)}} | _older_than(self._abandoned_ms),
                [{"$set": {"at": {"$add": ["$$NOW", {"$min": [longer, LONGEST_PAUSE_MS]}]}, "looks": looked}}],
                sort=[("at", 1)],
                return_document=ReturnDocument.AFTER,
            )

    def _released(self, batch: str, but: frozenset[str]) -> bool:
        """Wait until this batch is at its end, or bring it there; False where it can't be brought."""
        deadline = time.monotonic() + OPERATION_MS / 1000
        patience = min(IMPATIENT_MS, self._abandoned_ms)
        nobody_is_at_it = {"$or": [{"outcome": {"$exists": True}}, {"looks": {"$exists": True}}, _older_than(patience)]}
        while True:
            with self._database.translated():
                intent = self._intents.find_one({"_id": batch} | nobody_is_at_it)
                if intent is None and self._intents.find_one({"_id": batch}, {"_id": 1}) is None:
                    return True
            if intent is not None:
                return self._finish(batch, deadline, but)
            if time.monotonic() > deadline:
                raise _MoreToDo(f"{self._database.place}: others are still changing the same rows")
            time.sleep(LOOK_AGAIN_S)

    def _finish(self, batch: str, deadline: float, but: frozenset[str] = frozenset()) -> bool:
        """Bring a batch to its end that somebody has begun; False where it can't be brought, which the log tells.

        Raises StoreUnavailable; _MoreToDo when it is later than the deadline.
        """
        try:
            with self._database.translated():
                # Read when it is decided: until then its process may have got on.
                intent = self._intents.find_one_and_update(
                    _OPEN | {"_id": batch}, {"$set": {"outcome": TAKEN_BACK}}, return_document=ReturnDocument.AFTER
                ) or self._intents.find_one({"_id": batch})
                if intent is None:
                    return True
                writes = unpack(intent["writes"])
                if intent["outcome"] == MADE:
                    touched = [0] * (1 + max(write.change for write in writes))
                    self._make_for_good(batch, writes, touched, deadline, but)
                    return True
                self._take_back(batch, writes, intent.get("certain", 0), again="certain" not in intent)
                late = {"$set": {"writes": pack(_what_may_come_late(writes))}, "$unset": {"certain": ""}}
                self._intents.update_one({"_id": batch}, late)
        except Exception as error:
            # What others have begun stops nobody.
            if isinstance(error, StoreUnavailable) and not isinstance(error, Damaged):
                raise
            # The error's words may have values of documents in them.
            _log.error("a batch that another process has left can't be brought to its end: %s", type(error).__name__)
            return False
        return True

    def _make_for_good(
        self,
        batch: str,
        writes: Sequence[Write],
        touched: list[int],
        deadline: float = math.inf,
        but: frozenset[str] = frozenset(),
    ) -> None:
        """Make what comes when it is decided, and erase the intent. Raises _MoreToDo between two commands."""

        def ready(stamps: Iterable[str]) -> bool:
            if time.monotonic() > deadline:
                raise _MoreToDo(f"{self._database.place}: others are still changing the same rows")
            self.release(stamps, but | {batch})
            # Asked when the documents have been read: what is newer than the end of the batch is not among them.
            return self._intents.find_one({"_id": batch}, {"_id": 1}) is not None

        for write in writes:
            if write.kind not in REVOCABLE:
                touched[write.change] += make_for_good(write, batch, self._find, ready)
        self._intents.delete_one({"_id": batch})

    def _take_back(self, batch: str, writes: Sequence[Write], certain: int, *, again: bool) -> None:
        """Take back what has been made of a batch; `again`: only what has come late."""

        def still() -> bool:
            return self._intents.find_one({"_id": batch, "certain": {"$exists": True}}, {"_id": 1}) is not None

        revocable = [write for write in writes if write.kind in REVOCABLE]
        anything = take_back(revocable, batch, certain, self._find, still)
        for write in writes:
            if write.kind is Kind.RAISE and (anything or not again):
                # Twice: who counts announcements is to see that one is missing, also where one was read too early.
                raise_generation(self._find, write.filter["_id"])
                raise_generation(self._find, write.filter["_id"])


_OPEN: Document = {"outcome": {"$exists": False}}
"""Nothing has been decided about it."""


def _older_than(span_ms: int) -> Document:
    return {"$expr": {"$lte": ["$at", {"$subtract": ["$$NOW", span_ms]}]}}


def _in_commands(writes: Iterator[Write]) -> Iterator[list[Write]]:
    while some := list(islice(writes, MADE_AT_ONCE)):
        yield some


def _what_may_come_late(writes: Sequence[Write]) -> list[Write]:
    """Of a batch that has been taken back: the documents that it adds, or that were brought back, by their ids."""
    late = [
        Write(Kind.INSERT, write.collection, -1, {"_id": write.filter["_id"]}, {}, {})
        for write in writes
        if write.kind in (Kind.INSERT, Kind.REMOVE)
    ]
    return late + [write for write in writes if write.kind is Kind.RAISE]
