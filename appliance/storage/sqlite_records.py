"""The record store in one SQLite file: accounts, domains, aliases, the log.

The command line, the control process and the engine may all have it open at once: a change waits its turn for a few
seconds, and is visible to everyone when it has returned.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path

import apsw

from appliance.privacy.declarations import GENERATIONS, Collection, Retention, Row, Store, collections_of
from appliance.privacy.sealing import Keyring, Unsealable
from appliance.storage import sqlite_statements as sql
from appliance.storage.codec import Codec, RowRefused, stored_columns
from appliance.storage.disk import THE_DISK, Disk
from appliance.storage.records import (
    Change,
    Damaged,
    Delete,
    Insert,
    Page,
    Raise,
    StoredRow,
    Update,
    Where,
)
from appliance.storage.sqlite_conditions import Bindings, condition, outlived
from appliance.storage.sqlite_database import Database, execute_for
from appliance.storage.sqlite_keys import keys_in_use

SWEEP_ROWS = 2000
"""Rows erased in one transaction of a sweep: some milliseconds, so that nobody waits for the broom."""

_FIRST_PAGE = Page()

_Prepared = Callable[[apsw.Cursor], int]
"""A change with everything encoded and checked; returns the number of rows that it has touched."""


class SqliteRecords:
    """A `RecordStore` in one file. Thread-safe."""

    def __init__(self, path: Path, keyring: Keyring, *, disk: Disk = THE_DISK) -> None:
        """Open the file, or make it.

        What is sealed under a key that the keyring lacks raises KeyMissing, but only when it is asked for. Raises
        StoreUnavailable, SchemaMismatch.
        """
        collections = collections_of(Store.RECORDS)
        self._codecs = {collection.name: Codec(collection, keyring) for collection in collections}
        self._database = Database(path, collections, disk=disk)

    def apply(self, changes: Sequence[Change]) -> list[int]:
        """See `RecordStore`. What the declarations refuse raises RowRefused, before anything is changed."""
        prepared = [self._prepare(change) for change in changes]
        if not prepared:
            return []
        with self._database.transaction() as cursor:
            return [carry_out(cursor) for carry_out in prepared]

    def get(self, collection: Collection, where: Where) -> dict[str, object] | None:
        """See `RecordStore`."""
        rows = self.find(collection, where, Page(limit=1))
        return rows[0] if rows else None

    def find(self, collection: Collection, where: Where, page: Page = _FIRST_PAGE) -> list[dict[str, object]]:
        """See `RecordStore`."""
        codec = self._codec(collection)
        terms, values = condition(codec, where)
        if page.after is not None:
            if len(collection.key) > 1:
                raise RowRefused(
                    collection, collection.key[0], "is not the whole key: such rows can't be paged through"
                )
            column = codec.comparable(collection.key[0], page.after)
            terms += f" AND {sql.quoted(column)} {'<' if page.newest_first else '>'} ?"
            values = (*values, page.after)
        direction = " DESC" if page.newest_first else ""
        order = ", ".join(f"{sql.quoted(name)}{direction}" for name in collection.key)
        statement = sql.select(collection, f"WHERE {terms} ORDER BY {order} LIMIT ?")
        found = self._database.read(statement, (*values, page.limit))
        return [_opened(codec, stored) for stored in found]

    def count(self, collection: Collection, where: Where) -> int:
        """See `RecordStore`."""
        terms, values = condition(self._codec(collection), where)
        return self._number(sql.count(collection, terms), values)

    def distinct(self, collection: Collection, field: str, where: Where, page: Page = _FIRST_PAGE) -> list[object]:
        """See `RecordStore`."""
        codec = self._codec(collection)
        terms, values = condition(codec, where)
        column = sql.quoted(codec.comparable(field, page.after))
        if page.after is not None:
            terms += f" AND {column} {'<' if page.newest_first else '>'} ?"
            values = (*values, page.after)
        found = self._database.read(sql.distinct(collection, field, terms, page.newest_first), (*values, page.limit))
        return [value for (value,) in found]

    def generation(self, name: str) -> int:
        """See `RecordStore`. Some microseconds: asked for several times a second."""
        return self._number("SELECT coalesce(max(value), 0) FROM generations WHERE id = ?", (name,))

    def stored(self, collection: Collection, page: Page = _FIRST_PAGE) -> list[StoredRow]:
        """See `RecordStore`."""
        columns = stored_columns(self._codec(collection).collection)
        (key,) = map(sql.quoted, collection.key)
        direction, behind = (" DESC", "<") if page.newest_first else ("", ">")
        terms, values = ("1", ()) if page.after is None else (f"{key} {behind} ?", (page.after,))
        statement = sql.select(collection, f"WHERE {terms} ORDER BY {key}{direction} LIMIT ?", columns)
        found = self._database.read(statement, (*values, page.limit))
        return [dict(zip(columns, row, strict=True)) for row in found]

    def import_stored(self, collection: Collection, rows: Iterable[StoredRow]) -> None:
        """See `RecordStore`. Needs no key: nothing is opened on the way."""
        columns = stored_columns(self._codec(collection).collection)
        wanted, in_order = set(columns), itemgetter(*columns)
        values: list[Bindings] = []
        for row in rows:
            if row.keys() != wanted:
                name = min(row.keys() ^ wanted)
                raise RowRefused(collection, name, "is missing in a stored row, or is not a column of it")
            values.append(in_order(row))
        if not values:
            return
        known = f"ON CONFLICT ({sql.names(collection.key)}) DO NOTHING"
        with self._database.transaction() as cursor:
            execute_for(cursor, lambda rows: sql.insert(collection, known, rows), values)

    def sweep(self, collection: Collection, retention: Retention, before: int) -> int:
        """See `RecordStore`."""
        return self._erase(collection, *outlived(self._codec(collection), retention, before))

    def _erase(self, collection: Collection, terms: str, values: Bindings) -> int:
        """Erase what meets a condition, some rows at a time."""
        statement = sql.delete_some(collection, terms, SWEEP_ROWS)
        erased = 0
        while True:
            with self._database.transaction() as cursor:
                last = _touched(cursor, statement, values)
            erased += last
            if last < SWEEP_ROWS:
                return erased

    def erase_ownerless(self, collection: Collection) -> int:
        """See `RecordStore`. Some microseconds for each owner that is named, however many rows name it."""
        belongs_to = self._codec(collection).collection.belongs_to
        if belongs_to is None or belongs_to.owner == collection.name:
            return 0
        owners = self._codecs[belongs_to.owner].collection
        gone = self._database.read(sql.named_and_gone(collection, belongs_to.by, owners), ())
        # Ids never come again: whoever is gone now will not be back.
        return sum(self._erase(collection, f"{sql.quoted(belongs_to.by)} = ?", (str(owner),)) for (owner,) in gone)

    def keys_in_use(self) -> dict[str, bool]:
        """The names of the keys that something is sealed under, and whether any of it opens. Needs no key."""
        return keys_in_use(self._database.read, self._codecs.values())

    def close(self) -> None:
        """See `RecordStore`."""
        self._database.close()

    def _codec(self, collection: Collection) -> Codec:
        codec = self._codecs.get(collection.name)
        if codec is None or codec.collection != collection:
            raise RowRefused(collection, "", "is not a collection of the record store")
        return codec

    def _number(self, statement: str, values: Bindings) -> int:
        ((number,),) = self._database.read(statement, values)
        assert isinstance(number, int)
        return number

    def _prepare(self, change: Change) -> _Prepared:
        match change:
            case Insert(collection, row):
                values = self._codec(collection).encode(row)
                return partial(_touched, statement=sql.insert(collection), values=values)
            case Update(collection, where, changes):
                return self._prepare_update(self._codec(collection), where, changes)
            case Delete(collection, where):
                terms, values = condition(self._codec(collection), where)
                return partial(_touched, statement=sql.delete(collection, terms), values=values)
            case Raise(name):
                (_, value) = self._codecs[GENERATIONS.name].encode({"id": name, "value": 1})
                statement = sql.insert(GENERATIONS, "ON CONFLICT (id) DO UPDATE SET value = value + 1")
                return partial(_touched, statement=statement, values=(name, value))

    def _prepare_update(self, codec: Codec, where: Where, changes: Row) -> _Prepared:
        terms, values = condition(codec, where)
        clear = codec.encode_changes(changes)
        if clear is None:
            return partial(_reseal, codec=codec, terms=terms, values=values, changes=changes)
        if not clear:
            raise RowRefused(codec.collection, "", "is to be changed in nothing")
        return partial(
            _touched,
            statement=sql.update(codec.collection, clear, terms),
            values=(*clear.values(), *values),
        )


def _touched(cursor: apsw.Cursor, statement: str, values: Bindings) -> int:
    cursor.execute(statement, values)
    return cursor.connection.changes()


def _reseal(cursor: apsw.Cursor, codec: Codec, terms: str, values: Bindings, changes: Row) -> int:
    """Change sealed fields: what is sealed together has to be opened, changed and sealed again, row by row."""
    collection = codec.collection
    rows = cursor.execute(sql.select(collection, f"WHERE {terms}"), values).fetchall()
    update = sql.update(collection, stored_columns(collection), sql.key_is(collection))
    for stored in rows:
        row = _opened(codec, stored) | dict(changes)
        cursor.execute(update, (*codec.encode(row), *codec.key_of(row)))
    return len(rows)


def _opened(codec: Codec, stored: Sequence[object]) -> dict[str, object]:
    try:
        return codec.decode(stored)
    except Unsealable as error:
        raise Damaged(f"a row of {codec.collection.name} can't be opened: {error}") from error
