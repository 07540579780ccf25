"""From the changes of a batch to its writes: what will be written to which document, and how it stood before.

All changes up to the last that could turn out to be a duplicate are followed to each document, so that they can be
undone. Those behind it cannot fail for what they say, and are made by their condition alone, however many they touch;
so is what a batch erases, where behind it comes nothing but that it is announced.

A batch sees what its own earlier changes leave. Unique fields are looked up first: most duplicates are found before
anything has been written, and only who is overtaken in the same moment finds them later.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.privacy.declarations import GENERATIONS, ROUTING_CHANGES, Collection, Row
from appliance.privacy.sealing import Unsealable
from appliance.storage.codec import Codec, RowRefused, StoredValue, stored_columns
from appliance.storage.mongo_conditions import Condition, condition, same_fields
from appliance.storage.mongo_database import MongoDatabase
from appliance.storage.mongo_documents import Document, Documents
from appliance.storage.mongo_writes import BATCH, Kind, Write, insert
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
    def may_be_duplicate(self) -> bool:
        """Whether a unique field may say no."""
        if self.changes is None:
            return self.document is not None
        return any(name in self.changes for fields in self.table.collection.unique for name in fields)


def _last(are: Iterable[bool]) -> int:
    """The number of the last that is so; -1 for none."""
    return max((number for number, is_so in enumerate(are) if is_so), default=-1)


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

    def __init__(self, database: MongoDatabase, batch: str) -> None:
        self._database = database
        self._batch = batch
        # By collection and `_id`: the documents that earlier changes have left, None where one is erased.
        self._left: dict[str, dict[str, Document | None]] = {}

    def writes(self, changes: Sequence[Checked]) -> list[Write]:
        """What is to be done, in this order. Raises Duplicate, StoreUnavailable."""
        last = _last(change.may_be_duplicate for change in changes)
        # Erased is by condition what may be any number of rows, such as the log of an account with it. That routing is
        # told of it comes behind, under an id drawn for that.
        last_in_doubt = _last(change.may_be_duplicate and not change.is_announcement for change in changes)
        self._look_up_keys(changes)
        inserts = sum(change.document is not None for change in changes)
        writes: list[Write] = []
        raised: list[Write] = []
        for number, change in enumerate(changes):
            name = change.table.collection.name
            if change.raised:
                raised.append(Write(Kind.RAISE, name, number, {"_id": change.raised}, {}, {}))
            elif change.document is not None:
                if self._left.get(name, {}).get(str(change.document["_id"])) is not None:
                    raise Duplicate(change.table.collection, change.table.collection.key)
                if inserts <= LOOKED_UP:
                    self._look_up(change.table, change.document, change.table.collection.unique)
                writes.append(insert(name, number, self._leave(name, change.document | {BATCH: self._batch})))
            elif change.where is not None and (
                number > last_in_doubt if change.changes is None else number > last and change.clear is not None
            ):
                writes.append(self._by_condition(number, change, change.where))
            elif change.where is not None:
                writes += self._one_by_one(number, change, change.where)
        return writes + raised

    def _by_condition(self, number: int, change: Checked, where: Condition) -> Write:
        name = change.table.collection.name
        if change.clear is None:
            return Write(Kind.REMOVE_ALL, name, number, where.filter, {}, {})
        return Write(Kind.SET_ALL, name, number, where.filter, self._stamped(change, change.clear), {})

    def _one_by_one(self, number: int, change: Checked, where: Condition) -> Iterator[Write]:
        table, name = change.table, change.table.collection.name
        for before in self._matching(table.collection, where):
            met: dict[str, Any] = {"$and": [{"_id": before["_id"]}, where.filter]}
            if change.changes is None:
                self._left.setdefault(name, {})[str(before["_id"])] = None
                yield Write(Kind.REMOVE, name, number, met, {}, before)
                continue
            if change.clear is None:
                update = self._stamp(table.resealed(before, change.changes))
                # Nobody has sealed anything else there since it was opened.
                met["sealed"] = before["sealed"]
            else:
                update = self._stamped(change, change.clear)
            after = {path: value for path, value in before.items() if path not in update.get("$unset", {})}
            after |= update["$set"]
            changed = set(change.changes)
            self._look_up(table, after, [each for each in table.collection.unique if changed.intersection(each)])
            self._leave(name, after)
            yield Write(Kind.SET, name, number, met, update, before)

    def _stamped(self, change: Checked, clear: Mapping[str, StoredValue]) -> Document:
        return self._stamp(change.table.documents.changes(clear))

    def _stamp(self, update: Document) -> Document:
        return update | {"$set": {**update.get("$set", {}), BATCH: self._batch}}

    def _leave(self, name: str, document: Document) -> Document:
        self._left.setdefault(name, {})[str(document["_id"])] = document
        return document

    def _matching(self, collection: Collection, where: Condition) -> list[Document]:
        """The documents that meet a condition after the changes up to here."""
        left = self._left.get(collection.name, {})
        with self._database.translated(collection):
            found = list(self._database[collection.name].find(where.filter))
        untouched = [document for document in found if str(document["_id"]) not in left]
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
            with self._database.translated(collection):
                found = self._database[name].find_one({"_id": {"$in": identities}}, {"_id": 1})
            if found is not None:
                raise Duplicate(collection, collection.key)
