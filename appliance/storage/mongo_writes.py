"""The single writes that a batch is made of: how each is made, made once more, and taken back.

Each is made so that doing it once more changes nothing. What a batch writes carries the batch's id (`batch`), which
says whose a document is: what another batch has changed since is not undone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import bson
from pymongo import InsertOne
from pymongo.collection import Collection as Stored
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure

from appliance.privacy.declarations import GENERATIONS
from appliance.storage.mongo_documents import Document
from appliance.storage.mongo_errors import DUPLICATE_KEY

BATCH = "batch"
"""The field with the id of the batch that has written a document last."""

BATCH_FIELD: Mapping[str, Mapping[str, object]] = {BATCH: {"bsonType": "string"}}

ERASED_AT_ONCE = 2000
"""Documents in one command: some tens of milliseconds of the server."""

Find = Callable[[str], Stored[Document]]
"""A collection of the database by its name."""


class Kind(Enum):
    """What a write does."""

    INSERT = "insert"
    """Add a document."""
    SET = "set"
    """Change one document, as it was before is known."""
    REMOVE = "remove"
    """Erase one document, as it was before is known."""
    SET_ALL = "set all"
    """Change every document that meets a condition. Cannot be undone, and comes behind all that may have to be."""
    REMOVE_ALL = "remove all"
    """Erase every document that meets a condition. The same."""
    RAISE = "raise"
    """Add one to a generation: the last of all, so that who sees it sees the rest. Once too often does no harm."""


@dataclass(frozen=True, slots=True)
class Write:
    """One write of a batch."""

    kind: Kind
    collection: str
    change: int
    """The number of the change that it belongs to."""
    filter: Mapping[str, Any]
    update: Mapping[str, Any]
    """The update; of an insert the document."""
    before: Mapping[str, Any]
    """The document as it was, where it can be undone."""


def insert(collection: str, change: int, document: Document) -> Write:
    """A write that adds a document."""
    return Write(Kind.INSERT, collection, change, {"_id": document["_id"]}, document, {})


def pack(writes: Sequence[Write]) -> bytes:
    """Writes as octets, so that conditions and updates can stand in a document."""
    return bson.encode(
        {
            "writes": [
                [each.kind.value, each.collection, each.change, each.filter, each.update, each.before]
                for each in writes
            ]
        }
    )


def unpack(packed: bytes) -> list[Write]:
    """The writes again."""
    codec: bson.codec_options.CodecOptions[Document] = bson.codec_options.CodecOptions(
        datetime_conversion=bson.codec_options.DatetimeConversion.DATETIME_MS
    )
    return [
        Write(Kind(kind), collection, change, filter_, update, before)
        for kind, collection, change, filter_, update, before in bson.decode(packed, codec)["writes"]
    ]


def do(write: Write, batch: str, find: Find) -> int:
    """Make a write; the number of documents that it has touched. May raise DuplicateKeyError of pymongo."""
    collection = find(write.collection)
    match write.kind:
        case Kind.INSERT:
            return insert_all([write], batch, find)
        case Kind.SET:
            return collection.update_one(write.filter, write.update).matched_count
        case Kind.REMOVE:
            return collection.delete_one(write.filter).deleted_count
        case Kind.SET_ALL:
            return collection.update_many(write.filter, write.update).matched_count
        case Kind.REMOVE_ALL:
            return erase_all(collection, write.filter)
        case Kind.RAISE:
            return raise_generation(find, write.filter["_id"])


def insert_all(writes: Sequence[Write], batch: str, find: Find) -> int:
    """Make several inserts into one collection; how many that were. May raise OperationFailure for a duplicate.

    One that is there already with the id of the batch has been made for us, by who took us for dead.
    """
    collection = find(writes[0].collection)
    done = 0
    while done < len(writes):
        try:
            collection.bulk_write([InsertOne(dict(each.update)) for each in writes[done:]])
            break
        except BulkWriteError as error:
            (first,) = error.details["writeErrors"][:1] or [{}]
            if first.get("code") != DUPLICATE_KEY:
                raise
            done += first["index"]
            if collection.find_one(writes[done].filter | {BATCH: batch}) is None:
                raise
            done += 1
    return len(writes)


def made(writes: Sequence[Write], batch: str, find: Find) -> int:
    """How many of a batch's writes have certainly been made: they are made in order, and an insert leaves a trace.

    To make these once more would bring back what somebody has erased since, or had changed.
    """
    for number in range(len(writes), 0, -1):
        last = writes[number - 1]
        if last.kind is Kind.INSERT and find(last.collection).find_one({**last.filter, BATCH: batch}, {"_id": 1}):
            return number
    return 0


def do_again(write: Write, batch: str, find: Find) -> None:
    """Make a write that has perhaps been made. May raise DuplicateKeyError of pymongo."""
    if write.kind is Kind.SET:
        # What somebody has changed since is newer than this.
        unchanged = {path: _equal(write.before, path) for kind in write.update.values() for path in kind}
        unchanged.pop(BATCH, None)
        find(write.collection).update_one({"$and": [write.filter, unchanged]}, write.update)
        return
    if write.kind is not Kind.INSERT:
        do(write, batch, find)
        return
    try:
        find(write.collection).insert_one(dict(write.update))
    except DuplicateKeyError as error:
        # There was none with this key when the batch began: it is ours, whoever has changed it since.
        if "_id" not in (error.details or {}).get("keyPattern", {}):
            raise


def _equal(document: Mapping[str, Any], path: str) -> Document:
    return {"$eq": document[path]} if path in document else {"$exists": False}


def undo(write: Write, batch: str, find: Find) -> None:
    """Take a write back, as far as nobody has written there since."""
    collection = find(write.collection)
    ours = {"_id": write.before.get("_id", write.filter.get("_id")), BATCH: batch}
    match write.kind:
        case Kind.INSERT:
            collection.delete_one(ours)
        case Kind.SET:
            collection.replace_one(ours, dict(write.before))
        case Kind.REMOVE:
            try:
                collection.insert_one(dict(write.before))
            except DuplicateKeyError:
                # It never was erased, or its unique fields are another's by now.
                pass
        case Kind.RAISE:
            # Once more, for what is undone.
            raise_generation(find, write.filter["_id"])
        case Kind.SET_ALL | Kind.REMOVE_ALL:
            pass


def erase_all(collection: Stored[Document], filter_: Mapping[str, Any]) -> int:
    """Erase every document that meets a condition, some at a time: no command takes longer than one may."""
    erased = 0
    while True:
        some = [each["_id"] for each in collection.find(filter_, {"_id": 1}, limit=ERASED_AT_ONCE)]
        if some:
            # The condition once more: a document may have changed since.
            erased += collection.delete_many({"$and": [{"_id": {"$in": some}}, filter_]}).deleted_count
        if len(some) < ERASED_AT_ONCE:
            return erased


def raise_generation(find: Find, name: str) -> int:
    """Add one to the generation of this name."""
    generations = find(GENERATIONS.name)
    try:
        generations.update_one({"_id": name}, {"$inc": {"value": 1}}, upsert=True)
    except OperationFailure as error:
        if error.code != DUPLICATE_KEY:
            raise
        # Two have begun it at the same moment; now it is there.
        generations.update_one({"_id": name}, {"$inc": {"value": 1}}, upsert=True)
    return 1
