"""From the changes of a batch to its writes: what will be written to which document, and how it stood before.

All changes up to the last that could turn out to be a duplicate are followed to each document, so that they can be
taken back. Those behind it cannot fail for what they say, and are made by their condition alone, however many they
touch, when it is decided that the batch is made. What a batch was about (`routing.changes`) is announced when all else
is there: whoever sees that sees the rest.

A batch sees what its own earlier changes leave. Unique fields are looked up first: most duplicates are found before
anything has been written, and only who is overtaken in the same moment finds them later.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.privacy.declarations import GENERATIONS, ROUTING_CHANGES, Collection, Row
from appliance.privacy.sealing import Unsealable
from appliance.storage.codec import Codec, KeyMissing, RowRefused, StoredValue, stored_columns
from appliance.storage.mongo_conditions import Condition, condition, same_fields
from appliance.storage.mongo_database import MongoDatabase
from appliance.storage.mongo_documents import Document, Documents
from appliance.storage.mongo_writes import BATCH, Kind, Write, stamped, unchanged, with_stamp
from appliance.storage.records import Change, Damaged, Delete, Duplicate, Insert, Raise, Update

LOOKED_UP = 64
"""Of so many inserts in one batch each unique field is looked up first; of more, their keys alone."""


@dataclass(frozen=True, slots=True)
class Table:
    """A declared collection, and how its rows become documents."""

    codec: Codec
    documents: Documents

    @property
    def collection(self) -> Collection:
        """The declaration."""
        return self.codec.collection

    def row(self, document: Mapping[str, Any]) -> dict[str, object]:
        """The row of a document. Raises Damaged, KeyMissing, RowRefused."""
        try:
            return self.codec.decode(self.documents.stored(document))
        except Unsealable as error:
            raise Damaged(f"a row of {self.collection.name} can't be opened: {error}") from error

    def opens(self, document: Mapping[str, Any]) -> bool:
        """Whether the key that is held opens it."""
        try:
            self.row(document)
        except (Damaged, RowRefused, KeyMissing):
            return False
        return True

    def encoded(self, row: Row) -> Document:
        """The document of a row. Raises RowRefused, KeyMissing."""
        return self.documents.document(self.codec.encode(row))

    def resealed(self, document: Mapping[str, Any], changes: Row) -> Document:
        """The update that changes sealed fields: what is sealed together is opened and sealed again."""
        values = self.codec.encode(self.row(document) | dict(changes))
        columns = dict(zip(stored_columns(self.collection), values, strict=True))
        return self.documents.changes({name: columns[name] for name in columns if name not in self.collection.key})


@dataclass(frozen=True, slots=True)
class Checked:
    """A change with everything checked that the declarations have to say to it."""

    table: Table
    document: Document | None = None
    """Of an insert."""
    where: Condition | None = None
    changes: Row | None = None
    """Of an update."""
    clear: dict[str, StoredValue] | None = None
    """Of an update of clear fields alone: the stored values."""
    raised: str = ""

    @property
    def is_announcement(self) -> bool:
        """Whether it only says what a batch was about (`routing.changes`)."""
        return self.document is not None and self.table.collection is ROUTING_CHANGES

    @property
    def has_to_be_followed(self) -> bool:
        """Whether a unique field may say no, or each document needs an update of its own."""
        if self.changes is None:
            return self.document is not None and not self.is_announcement
        unique = {name for fields in self.table.collection.unique for name in fields}
        return self.clear is None or not unique.isdisjoint(self.changes)

    @property
    def is_of_one(self) -> bool:
        """Whether it changes one document at most."""
        return self.changes is not None and self.where is not None and self.where.names_one


def check(change: Change, table_of: Callable[[Collection], Table]) -> Checked:
    """Encode a change. Raises RowRefused, KeyMissing."""
    match change:
        case Insert(collection, row):
            table = table_of(collection)
            return Checked(table, document=table.encoded(row))
        case Update(collection, where, changes):
            table = table_of(collection)
            met = condition(table.codec, where)
            clear = table.codec.encode_changes(changes)
            if clear is not None and not clear:
                raise RowRefused(collection, "", "is to be changed in nothing")
            return Checked(table, where=met, changes=changes, clear=clear)
        case Delete(collection, where):
            table = table_of(collection)
            return Checked(table, where=condition(table.codec, where))
        case Raise(name):
            table = table_of(GENERATIONS)
            table.codec.encode({"id": name, "value": 1})
            return Checked(table, raised=name)


class Plan:
    """The writes of one batch. For one thread, and one time."""

    def __init__(self, database: MongoDatabase, batch: str, release: Callable[[Iterable[str]], bool]) -> None:
        """`release` brings to their end the batches of these stamps, and is True where any was not there yet."""
        self._database = database
        self._batch = batch
        self._release = release
        # By collection and `_id`: the documents that earlier changes have left, None where one is erased.
        self._left: dict[str, dict[str, Document | None]] = {}

    def writes(self, changes: Sequence[Checked]) -> list[Write]:
        """What is to be done, in this order: first what can be taken back. Raises Duplicate, StoreUnavailable."""
        self._look_up_keys(changes)
        inserts = sum(change.document is not None for change in changes)
        followed = _followed(changes)
        writes: list[Write] = []
        by_condition: list[Write] = []
        announced: list[Write] = []
        raised: list[Write] = []
        for number, change in enumerate(changes):
            name = change.table.collection.name
            if change.raised:
                raised.append(Write(Kind.RAISE, name, number, {"_id": change.raised}, {}, {}))
            elif change.document is not None:
                write = self._insert(number, change, change.document, look_up=inserts <= LOOKED_UP)
                (announced if change.is_announcement else writes).append(write)
            elif change.where is None:
                continue
            elif number >= followed:
                by_condition.append(_by_condition(number, change, change.where))
            elif change.changes is None:
                writes += self._remove(number, change.table.collection, change.where)
            else:
                writes += self._set(number, change, change.where, change.changes)
        return writes + by_condition + announced + raised

    def _insert(self, number: int, change: Checked, document: Document, *, look_up: bool) -> Write:
        collection, identity = change.table.collection, document["_id"]
        if self._left.get(collection.name, {}).get(str(identity)) is not None:
            raise Duplicate(collection, collection.key)
        if look_up:
            self._look_up(change.table, document, collection.unique)
        left = self._leave(collection.name, with_stamp(document, self._batch))
        kind = Kind.ANNOUNCE if change.is_announcement else Kind.INSERT
        return Write(kind, collection.name, number, {"_id": identity}, left, {})

    def _remove(self, number: int, collection: Collection, where: Condition) -> Iterator[Write]:
        """Each document is made the batch's own before the first is erased: so it is known who has erased it."""
        found = self._matching(collection, where)
        for before in found:
            if before.get(BATCH) != self._batch:
                yield Write(Kind.SET, collection.name, -1, unchanged(before), stamped({}, self._batch), before)
        for before in found:
            self._left.setdefault(collection.name, {})[str(before["_id"])] = None
            ours = {"_id": before["_id"], BATCH: self._batch}
            yield Write(Kind.REMOVE, collection.name, number, ours, {}, {})

    def _set(self, number: int, change: Checked, where: Condition, changes: Row) -> Iterator[Write]:
        table, name = change.table, change.table.collection.name
        unique = [fields for fields in table.collection.unique if not set(fields).isdisjoint(changes)]
        for before in self._matching(table.collection, where):
            alone = table.resealed(before, changes) if change.clear is None else table.documents.changes(change.clear)
            update = stamped(alone, self._batch)
            after = {path: value for path, value in before.items() if path not in update.get("$unset", {})}
            after |= update["$set"]
            self._look_up(table, after, unique)
            self._leave(name, after)
            yield Write(Kind.SET, name, number, unchanged(before), update, before)

    def _leave(self, name: str, document: Document) -> Document:
        self._left.setdefault(name, {})[str(document["_id"])] = document
        return document

    def _matching(self, collection: Collection, where: Condition) -> list[Document]:
        """The documents that meet a condition after the changes up to here, none of them in the hands of others."""
        left = self._left.get(collection.name, {})
        while True:
            with self._database.translated(collection):
                found = list(self._database[collection.name].find(where.filter))
            untouched = [document for document in found if str(document["_id"]) not in left]
            if not self._release(document.get(BATCH, "") for document in untouched):
                break
        return untouched + [document for document in left.values() if document is not None and where.holds(document)]

    def _look_up(self, table: Table, document: Document, unique: Sequence[tuple[str, ...]]) -> None:
        """Raises Duplicate where another document has the same."""
        if not unique:
            return
        columns = table.documents.stored_row(document)
        for fields in unique:
            same = same_fields(table.codec, fields, columns)
            if same is None:
                continue
            if any(found["_id"] != document["_id"] for found in self._matching(table.collection, same)):
                raise Duplicate(table.collection, fields)

    def _look_up_keys(self, changes: Sequence[Checked]) -> None:
        """Raises Duplicate where a document has the key of one that is to be inserted, and is not erased before."""
        wanted: dict[str, list[Any]] = {}
        erasing: set[str] = set()
        tables: dict[str, Table] = {}
        for change in changes:
            name = change.table.collection.name
            if change.document is not None:
                tables[name] = change.table
                if name not in erasing:
                    wanted.setdefault(name, []).append(change.document["_id"])
            elif change.changes is None and not change.raised:
                erasing.add(name)
        for name, identities in wanted.items():
            collection = tables[name].collection
            there = True
            while there:
                with self._database.translated(collection):
                    found = self._database[name].find_one({"_id": {"$in": identities}}, {BATCH: 1})
                there = found is not None
                if found is not None and not self._release([found.get(BATCH, "")]):
                    raise Duplicate(collection, collection.key)


def _followed(changes: Sequence[Checked]) -> int:
    """So many changes from the first on are followed to each document."""
    followed = 0
    for number, change in enumerate(changes):
        # One document behind them is soon found, and then it is known whether it was there.
        if change.has_to_be_followed or (number == followed and change.is_of_one):
            followed = number + 1
    return followed


def _by_condition(number: int, change: Checked, where: Condition) -> Write:
    name = change.table.collection.name
    if change.clear is None:
        return Write(Kind.REMOVE_ALL, name, number, where.filter, {}, {})
    return Write(Kind.SET_ALL, name, number, where.filter, change.table.documents.changes(change.clear), {})
