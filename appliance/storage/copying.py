"""Copying a record store into another: the rows as they stand, sealed ones sealed, and proof that both have the same.

Both sides are read through in the order of their keys, and what differs is brought over. So a copy that was broken off
is finished by being begun again: what is there already is read, and not written. A mark in the target says that it is
not whole yet, and nobody may work with it; the mark goes with the last of it.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from appliance.privacy.declarations import GENERATIONS, Collection, Store, collections_of
from appliance.storage.codec import stored_columns
from appliance.storage.records import Delete, Insert, Page, RecordStore, StoredRow

PAGE_ROWS = 1000
"""Rows that are read, and at most written, at once."""

UNFINISHED = "copy-unfinished"
"""The generation that stands in a store as long as it is half a copy."""

_pack = msgspec.msgpack.Encoder().encode


class TargetInUse(Exception):
    """The target has rows of its own, which a copy would erase."""


class NotAlike(Exception):
    """After all, the two do not have the same: somebody has written to one of them meanwhile."""

    def __init__(self, collection: Collection) -> None:
        super().__init__(
            f"{collection.name} is not the same on both sides: something has written to one of them meanwhile. Stop "
            "every appliance on either, and begin again"
        )


@dataclass(frozen=True, slots=True)
class Contents:
    """What a store has of one collection."""

    rows: int
    digest: str
    """SHA-256 over all columns of all rows in the order of the key, in hexadecimal."""


Progress = Callable[[Collection, int, int], None]
"""Is told how many rows of a collection have been looked at, and how many of them were brought over."""


def copy(source: RecordStore, target: RecordStore, progress: Progress) -> dict[str, Contents]:
    """Make the target have what the source has, and prove it. Returns what both have, by collection.

    What belongs to nodes that share a store stays where it is: its keys, and who does what. Nobody else may write to
    either side meanwhile. Raises TargetInUse where the target has rows and no unfinished copy, NotAlike, and
    StoreUnavailable.
    """
    collections = collections_of(Store.RECORDS)
    _mark(target, collections)
    for collection in collections:
        _bring(source, target, collection, progress)
    found: dict[str, Contents] = {}
    for collection in collections:
        found[collection.name] = contents(source, collection)
        if contents(target, collection) != found[collection.name]:
            raise NotAlike(collection)
    target.apply([Delete(GENERATIONS, {"id": UNFINISHED})])
    return found


def is_unfinished(records: RecordStore) -> bool:
    """Whether a copy into this store was broken off. Raises StoreUnavailable."""
    return records.generation(UNFINISHED) > 0


def contents(records: RecordStore, collection: Collection) -> Contents:
    """What a store has of a collection. Raises StoreUnavailable."""
    digest, count = hashlib.sha256(), 0
    for row in _rows(records, collection):
        digest.update(_octets(collection, row))
        count += 1
    return Contents(count, digest.hexdigest())


def _mark(target: RecordStore, collections: tuple[Collection, ...]) -> None:
    if is_unfinished(target):
        return
    for collection in collections:
        if target.count(collection, {}):
            raise TargetInUse(f"there are {collection.name} in it already, and a copy would erase what differs")
    target.apply([Insert(GENERATIONS, {"id": UNFINISHED, "value": 1})])


def _bring(source: RecordStore, target: RecordStore, collection: Collection, progress: Progress) -> None:
    """Bring over what differs, page by page of the source."""
    theirs = _rows(target, collection)
    here = next(theirs, None)
    seen = brought = 0
    missing: list[StoredRow] = []
    surplus: list[str] = []

    def write() -> None:
        nonlocal brought
        if surplus:
            target.apply([Delete(collection, {collection.key[0]: key}) for key in surplus])
            surplus.clear()
        if missing:
            target.import_stored(collection, missing)
            brought += len(missing)
            missing.clear()

    for row in _rows(source, collection):
        seen += 1
        key = _key(collection, row)
        while here is not None and _key(collection, here) < key:
            surplus.append(_key(collection, here))
            here = next(theirs, None)
        if here is not None and _key(collection, here) == key:
            if _octets(collection, here) != _octets(collection, row):
                surplus.append(key)
                missing.append(row)
            here = next(theirs, None)
        else:
            missing.append(row)
        if len(missing) + len(surplus) >= PAGE_ROWS:
            write()
        if seen % PAGE_ROWS == 0:
            progress(collection, seen, brought)
    while here is not None:
        surplus.append(_key(collection, here))
        here = next(theirs, None)
        if len(surplus) >= PAGE_ROWS:
            write()
    write()
    progress(collection, seen, brought)


def _rows(records: RecordStore, collection: Collection) -> Iterator[StoredRow]:
    after = None
    while rows := records.stored(collection, Page(after=after, limit=PAGE_ROWS)):
        yield from (row for row in rows if collection is not GENERATIONS or row["id"] != UNFINISHED)
        after = _key(collection, rows[-1])


def _key(collection: Collection, row: StoredRow) -> str:
    (name,) = collection.key
    return str(row[name])


def _octets(collection: Collection, row: StoredRow) -> bytes:
    # What SQLite has for a truth is a number.
    values = [row[name] for name in stored_columns(collection)]
    return _pack([int(value) if isinstance(value, bool) else value for value in values])
