"""The single writes that records are changed with, and the stamps by which they are told apart.

Every write of a document that is there gives it a new stamp (`batch`): a batch its own id, whoever changes one document
alone a stamp of its own. So a write can be tied to the document as it was read, whatever has become of it since; a
document with the id of a batch is as that batch has left it; and as long as the batch is not at its end, nobody else
writes there.
"""

import contextlib
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import bson
from pymongo import DeleteOne, InsertOne, UpdateOne
from pymongo.collection import Collection as Stored
from pymongo.errors import DuplicateKeyError, OperationFailure

from appliance.privacy.declarations import GENERATIONS
from appliance.storage.mongo_documents import Document
from appliance.storage.mongo_errors import DUPLICATE_KEY

BATCH = "batch"
"""The field with the stamp of the write that a document is from."""

BATCH_FIELD: Mapping[str, Mapping[str, object]] = {BATCH: {"bsonType": "string"}}

FREE: Mapping[str, Any] = {BATCH: {"$not": {"$gte": "b"}}}
"""The condition on documents that no batch has written last: ids of batches begin with a letter, others do not."""

AT_ONCE = 2000
"""Documents in one command: some tens of milliseconds of the server."""

Find = Callable[[str], Stored[Document]]
"""A collection of the database by its name."""

Ready = Callable[[Iterable[str]], bool]
"""Called with the stamps of documents before they are written; False where they are not to be written any more."""


class Kind(Enum):
    """What a write does. The first three can be taken back; the others come when it is decided that a batch is made."""

    INSERT = "insert"
    """Add a document."""
    SET = "set"
    """Change one document, as it was before is known."""
    REMOVE = "remove"
    """Erase one document that the batch has written to before."""
    SET_ALL = "set all"
    """Change every document that meets a condition."""
    REMOVE_ALL = "remove all"
    """Erase every document that meets a condition."""
    ANNOUNCE = "announce"
    """Add a document that says what the batch was about."""
    RAISE = "raise"
    """Add one to a generation: the last of all, so that who sees it sees the rest."""


REVOCABLE = frozenset({Kind.INSERT, Kind.SET, Kind.REMOVE})
"""What can be taken back."""


@dataclass(frozen=True, slots=True)
class Write:
    """One write of a batch."""

    kind: Kind
    collection: str
    change: int
    """The number of the change that it belongs to; -1 of one that belongs to none."""
    filter: Mapping[str, Any]
    update: Mapping[str, Any]
    """The update; of an insert the document."""
    before: Mapping[str, Any]
    """The document as it was, where there was one."""


def new_batch() -> str:
    """An id for a batch."""
    return "b" + secrets.token_hex(16)


def batches_of(stamps: Iterable[str]) -> set[str]:
    """The batches that these stamps are of; of one that has several it is what stands before the point."""
    return {stamp.partition(".")[0] for stamp in stamps if stamp.startswith("b")}


def stamped(update: Mapping[str, Any], stamp: str = "") -> Document:
    """An update that leaves this stamp too, or a new one that is no batch's."""
    return {**update, "$set": {**update.get("$set", {}), BATCH: stamp or _new_stamp()}}


def with_stamp(document: Mapping[str, Any], stamp: str = "") -> Document:
    """A document with this stamp, or with a new one that is no batch's."""
    return {**document, BATCH: stamp or _new_stamp()}


def unchanged(document: Mapping[str, Any]) -> Document:
    """The condition that a document is as it was when it was read."""
    stamp = document.get(BATCH)
    return {"_id": document["_id"], BATCH: {"$exists": False} if stamp is None else {"$eq": stamp}}


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


def make(writes: Sequence[Write], find: Find) -> bool:
    """Make writes into one collection that can be taken back; whether each has found its document as it was read.

    May raise OperationFailure for a duplicate.
    """
    result = find(writes[0].collection).bulk_write([_operation(write) for write in writes])
    return result.inserted_count + result.matched_count + result.deleted_count == len(writes)


def _operation(write: Write) -> InsertOne[Document] | UpdateOne | DeleteOne:
    if write.kind is Kind.INSERT:
        return InsertOne(dict(write.update))
    return UpdateOne(write.filter, write.update) if write.kind is Kind.SET else DeleteOne(write.filter)


def make_for_good(write: Write, batch: str, find: Find, ready: Ready) -> int:
    """Make a write of a batch that is not taken back any more; the number of documents that it has touched.

    Others may be at it too, or have been: a condition meets each document once, and a generation that is raised once
    too often does no harm.
    """
    collection = find(write.collection)
    match write.kind:
        case Kind.RAISE:
            return raise_generation(find, write.filter["_id"])
        case Kind.REMOVE_ALL:
            return erase_all(collection, write.filter, ready)
        case Kind.ANNOUNCE:
            with contextlib.suppress(DuplicateKeyError):
                collection.insert_one(dict(write.update))
            return 1
    stamp = f"{batch}.{write.change}"
    met = {"$and": [write.filter, {BATCH: {"$ne": stamp}}]}
    update = stamped(write.update, stamp)
    return _some_at_a_time(collection, met, ready, lambda tied: collection.update_many(tied, update).matched_count)


def erase_all(collection: Stored[Document], filter_: Mapping[str, Any], ready: Ready) -> int:
    """Erase every document that meets a condition; how many that were."""
    return _some_at_a_time(collection, filter_, ready, lambda tied: collection.delete_many(tied).deleted_count)


def _some_at_a_time(
    collection: Stored[Document], filter_: Mapping[str, Any], ready: Ready, write: Callable[[Document], int]
) -> int:
    """Write to all documents that meet a condition, and won't when they are written to: no command takes too long.

    Each command is for documents that have been seen, and as they were seen: one that comes late, because its process
    has been stopped, touches nothing that is newer.
    """
    touched = 0
    while some := list(collection.find(filter_, {BATCH: 1}, limit=AT_ONCE)):
        if not ready(each[BATCH] for each in some if BATCH in each):
            break
        tied = {
            "_id": {"$in": [each["_id"] for each in some]},
            BATCH: {"$in": list({each.get(BATCH) for each in some})},
        }
        touched += write({"$and": [tied, filter_]})
    return touched


def take_back(writes: Sequence[Write], batch: str, certain: int, find: Find, still: Callable[[], bool]) -> bool:
    """Take back what has been made of these writes; whether that was anything. What has not been made never will be.

    `certain`: so many of them have been made; erasing begins behind these. `still`: whether nobody has taken all of it
    back. It may be done any number of times, and by several at once.
    """
    first: dict[tuple[str, str], Write] = {}
    erasable: set[tuple[str, str]] = set()
    for number, write in enumerate(writes):
        where = (write.collection, repr(write.filter["_id"]))
        first.setdefault(where, write)
        # What it had for itself when the erasing began, nobody else can have erased since.
        if number < certain:
            erasable.add(where)
    anything = False
    backwards = reversed(first.items())
    # Added documents first: they may have the names that the others had.
    for where, write in sorted(backwards, key=lambda entry: entry[1].kind is not Kind.INSERT):
        collection = find(write.collection)
        ours = {"_id": write.filter["_id"], BATCH: batch}
        if write.kind is Kind.INSERT:
            anything |= collection.delete_one(ours).deleted_count > 0
        elif collection.update_one(unchanged(write.before), stamped({})).matched_count:
            # Not written yet. Whoever wants to, late, does not find it as it was.
            pass
        elif _restored(collection, ours, write.before):
            anything = True
        elif where in erasable:
            anything |= _brought_back(collection, ours, write.before, still)
    return anything


def _restored(collection: Stored[Document], ours: Document, before: Mapping[str, Any]) -> bool:
    try:
        return collection.replace_one(ours, with_stamp(before)).matched_count > 0
    except DuplicateKeyError:
        # A name that it had is another's by now: it keeps what it has been given.
        return collection.update_one(ours, stamped({})).matched_count > 0


def _brought_back(
    collection: Stored[Document], ours: Document, before: Mapping[str, Any], still: Callable[[], bool]
) -> bool:
    try:
        collection.insert_one(with_stamp(before, ours[BATCH]))
    except DuplicateKeyError:
        # Somebody else has been quicker, or its names are another's by now.
        return _restored(collection, ours, before)
    if not still():
        # Somebody has brought it back long ago, and it may have been erased since.
        collection.delete_one(ours)
        return False
    return collection.update_one(ours, stamped({})).matched_count > 0


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


def _new_stamp() -> str:
    return "0" + secrets.token_hex(8)
