"""The record store in a database of MongoDB: accounts, domains, aliases, the log, for any number of nodes.

One change of one row is one write of one document. Whatever is more goes through `mongo_batches.py`, and a document
that such a batch is still at is not written to by anybody else.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pymongo.collection import Collection as Stored
from pymongo.errors import BulkWriteError

from appliance.privacy.declarations import GENERATIONS, Collection, Retention, Row, Store, collections_of
from appliance.privacy.sealing import Keyring
from appliance.storage.codec import Codec, RowRefused, stored_columns
from appliance.storage.mongo_batches import ABANDONED_MS, INTENTS, Batches
from appliance.storage.mongo_conditions import Condition, condition, outlived
from appliance.storage.mongo_database import MongoDatabase
from appliance.storage.mongo_documents import Document, Documents, path_of, shape_of
from appliance.storage.mongo_errors import DUPLICATE_KEY
from appliance.storage.mongo_keys import keys_in_use
from appliance.storage.mongo_plans import Checked, Table, check
from appliance.storage.mongo_writes import (
    BATCH,
    BATCH_FIELD,
    FREE,
    erase_all,
    raise_generation,
    stamped,
    unchanged,
    with_stamp,
)
from appliance.storage.records import Change, Duplicate, Page, StoredRow, StoreUnavailable, Where

PAGE_ROWS = 1000
"""Rows looked at in one question where what is wanted of them is fewer: their different values, or their owners."""

SETTLE_EVERY_S = 5.0
"""How often a process that asks for generations looks for batches that others have left half done."""

_FIRST_PAGE = Page()
_ASCENDING, _DESCENDING = 1, -1


class MongoRecords:
    """A `RecordStore` in one database, which may hold the spool too. Thread-safe."""

    def __init__(self, url: str, keyring: Keyring, *, abandoned_ms: int = ABANDONED_MS) -> None:
        """Reach the database, make what is missing in it, and finish what others have left half done.

        What is sealed under a key that the keyring lacks raises KeyMissing, but only when it is asked for. Raises
        StoreUnavailable, SchemaMismatch.
        """
        declared = collections_of(Store.RECORDS, shared=True)
        self._tables = {each.name: Table(Codec(each, keyring), Documents(each)) for each in declared}
        shapes = [shape_of(collection, beside=BATCH_FIELD) for collection in declared]
        self._database = MongoDatabase(url, (*shapes, INTENTS))
        self._batches = Batches(self._database, lambda name: self._tables[name].collection, abandoned_ms)
        self._settling = threading.Lock()
        self._settled_at = time.monotonic()
        try:
            self.settle()
        except BaseException:
            self.close()
            raise

    def apply(self, changes: Sequence[Change]) -> list[int]:
        """See `RecordStore`. What the declarations refuse raises RowRefused, before anything is changed.

        After StoreUnavailable nobody knows: the changes are made or will be, all of them, or none.
        """
        checked = [check(change, self._table) for change in changes]
        if len(checked) == 1:
            touched = self._at_once(checked[0])
            if touched is not None:
                return [touched]
        return self._batches.apply(checked) if checked else []

    def get(self, collection: Collection, where: Where) -> dict[str, object] | None:
        """See `RecordStore`."""
        rows = self.find(collection, where, Page(limit=1))
        return rows[0] if rows else None

    def find(self, collection: Collection, where: Where, page: Page = _FIRST_PAGE) -> list[dict[str, object]]:
        """See `RecordStore`."""
        table = self._table(collection)
        return [table.row(document) for document in self._page(table, condition(table.codec, where), page)]

    def count(self, collection: Collection, where: Where) -> int:
        """See `RecordStore`."""
        met = condition(self._table(collection).codec, where)
        with self._database.translated(collection):
            return self._stored(collection).count_documents(met.filter)

    def distinct(self, collection: Collection, field: str, where: Where, page: Page = _FIRST_PAGE) -> list[object]:
        """See `RecordStore`."""
        table = self._table(collection)
        met = condition(table.codec, where)
        table.codec.comparable(field, page.after)
        values: list[object] = []
        after: object = page.after
        while len(values) < page.limit:
            some = self._values(table, field, met, after, page.newest_first)
            if not some:
                break
            values += some
            after = values[-1]
        return values[: page.limit]

    def generation(self, name: str) -> int:
        """See `RecordStore`. A fraction of a millisecond and the way to the server; asked several times a second."""
        self._settle_now_and_then()
        with self._database.translated(GENERATIONS):
            found = self._stored(GENERATIONS).find_one({"_id": name})
        return 0 if found is None else int(found["value"])

    def stored(self, collection: Collection, page: Page = _FIRST_PAGE) -> list[StoredRow]:
        """See `RecordStore`."""
        table = self._table(collection)
        return [table.documents.stored_row(document) for document in self._page(table, Condition({}), page)]

    def import_stored(self, collection: Collection, rows: Iterable[StoredRow]) -> None:
        """See `RecordStore`. Needs no key: nothing is opened on the way."""
        table = self._table(collection)
        wanted = set(stored_columns(collection))
        documents: list[Document] = []
        for row in rows:
            if row.keys() != wanted:
                name = min(row.keys() ^ wanted)
                raise RowRefused(collection, name, "is missing in a stored row, or is not a column of it")
            documents.append(table.documents.document_of(row))
        if not documents:
            return
        with self._database.translated(collection):
            try:
                self._stored(collection).insert_many(documents, ordered=False)
            except BulkWriteError as error:
                if not all(_is_known(each) for each in error.details["writeErrors"]) or error.details.get(
                    "writeConcernErrors"
                ):
                    raise

    def sweep(self, collection: Collection, retention: Retention, before: int) -> int:
        """See `RecordStore`."""
        return self._erase(collection, outlived(self._table(collection).codec, retention, before))

    def erase_ownerless(self, collection: Collection) -> int:
        """See `RecordStore`. One look at every thousand rows, in the index of their owners."""
        table = self._table(collection)
        belongs_to = table.collection.belongs_to
        if belongs_to is None or belongs_to.owner == collection.name:
            return 0
        owners = self._tables[belongs_to.owner].collection
        erased, after = 0, None
        while named := self._values(table, belongs_to.by, Condition({}), after, newest_first=False):
            with self._database.translated(owners):
                there = {each["_id"] for each in self._stored(owners).find({"_id": {"$in": named}}, {"_id": 1})}
            path = path_of(collection, belongs_to.by)
            # Ids never come again: whoever is gone now will not be back.
            gone = [owner for owner in named if owner not in there]
            erased += sum(self._erase(collection, Condition({path: {"$eq": owner}})) for owner in gone)
            after = named[-1]
        return erased

    def settle(self) -> int:
        """Finish the batches that other processes have left half done; returns how many. Raises StoreUnavailable."""
        return self._batches.settle()

    def keys_in_use(self) -> dict[str, bool]:
        """The names of the keys that something is sealed under, and whether any row of a sample opens."""
        return keys_in_use(self._database, self._tables.values())

    def close(self) -> None:
        """See `RecordStore`."""
        self._database.close()

    def _table(self, collection: Collection) -> Table:
        table = self._tables.get(collection.name)
        if table is None or table.collection != collection:
            raise RowRefused(collection, "", "is not a collection of the record store")
        return table

    def _stored(self, collection: Collection) -> Stored[Document]:
        return self._database[collection.name]

    def _page(self, table: Table, met: Condition, page: Page) -> list[Document]:
        """The documents on a page of those that meet a condition, in the order of their keys."""
        collection = table.collection
        terms: list[Any] = [met.filter]
        if page.after is not None:
            if len(collection.key) > 1:
                raise RowRefused(
                    collection, collection.key[0], "is not the whole key: such rows can't be paged through"
                )
            table.codec.comparable(collection.key[0], page.after)
            terms.append({"_id": {"$lt" if page.newest_first else "$gt": page.after}})
        direction = _DESCENDING if page.newest_first else _ASCENDING
        with self._database.translated(collection):
            found = self._stored(collection).find(
                {"$and": terms}, sort=[("_id", direction)], limit=page.limit, batch_size=page.limit
            )
            return list(found)

    def _at_once(self, change: Checked) -> int | None:
        """Make a change that is one write of one document; None where it is more."""
        table, stored = change.table, self._stored(change.table.collection)
        try:
            with self._database.translated(table.collection):
                if change.raised:
                    return raise_generation(self._database.__getitem__, change.raised)
                if change.document is not None:
                    stored.insert_one(with_stamp(change.document))
                    return 1
                if change.where is None or not change.where.names_one:
                    return None
                if change.changes is None:
                    return self._write_one(stored, change.where, lambda met: stored.delete_one(met).deleted_count)
                if change.clear is None:
                    return self._reseal(table, change.where, change.changes)
                update = stamped(table.documents.changes(change.clear))
                return self._write_one(stored, change.where, lambda met: stored.update_one(met, update).matched_count)
        except Duplicate:
            # What is there may be of a batch that is taken back: as a batch of one change it is looked at closely.
            return None

    def _write_one(self, stored: Stored[Document], where: Condition, write: Callable[[Document], int]) -> int:
        """Make a write of the one document that meets a condition, when no batch is at it."""
        touched = write({"$and": [where.filter, FREE]})
        while not touched:
            found = stored.find_one(where.filter, {BATCH: 1})
            if found is None:
                return 0
            if not self._batches.release([found.get(BATCH, "")]):
                touched = write({"$and": [where.filter, unchanged(found)]})
        return touched

    def _reseal(self, table: Table, where: Condition, changes: Row) -> int:
        """Change sealed fields of one document, as often as somebody else has changed it meanwhile."""
        stored = self._stored(table.collection)
        while (before := stored.find_one(where.filter)) is not None:
            if not self._batches.release([before.get(BATCH, "")]):
                update = stamped(table.resealed(before, changes))
                if stored.update_one(unchanged(before), update).matched_count:
                    return 1
        return 0

    def _erase(self, collection: Collection, met: Condition) -> int:
        def ready(stamps: Iterable[str]) -> bool:
            self._batches.release(stamps)
            return True

        with self._database.translated(collection):
            return erase_all(self._stored(collection), met.filter, ready)

    def _values(self, table: Table, field: str, met: Condition, after: object, newest_first: bool) -> list[object]:
        """Some different values of a field behind this one, in their order; none where there are no more."""
        path = path_of(table.collection, field)
        beyond = {"$exists": True} if after is None else {"$lt" if newest_first else "$gt": after}
        direction = _DESCENDING if newest_first else _ASCENDING
        with self._database.translated(table.collection):
            found = self._stored(table.collection).find(
                {"$and": [met.filter, {path: beyond}]},
                {"_id": 0, path: 1},
                sort=[(path, direction)],
                limit=PAGE_ROWS,
            )
            return list(dict.fromkeys(table.documents.plain(document[path]) for document in found))

    def _settle_now_and_then(self) -> None:
        # One thread is enough, and no other waits for it.
        if time.monotonic() - self._settled_at < SETTLE_EVERY_S or not self._settling.acquire(blocking=False):
            return
        try:
            self.settle()
        except StoreUnavailable:
            # A server that is away says so to the question that this is beside; what somebody has left can wait.
            pass
        finally:
            self._settled_at = time.monotonic()
            self._settling.release()


def _is_known(error: Document) -> bool:
    return error.get("code") == DUPLICATE_KEY and "_id" in error.get("keyPattern", {})
