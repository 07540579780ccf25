"""Under which keys a file's rows are sealed, and whether the keys that are held open them."""

from collections.abc import Callable, Iterable

from appliance.privacy.sealing import Unsealable
from appliance.storage import sqlite_statements as sql
from appliance.storage.codec import Codec, KeyMissing, RowRefused, StoredValue

SAMPLE = 5
"""Rows of a collection that are tried from either end: one may be damaged, and the oldest may be of a key before."""


def keys_in_use(read: Callable[[str], list[tuple[StoredValue, ...]]], codecs: Iterable[Codec]) -> dict[str, bool]:
    """The names of the keys that something is sealed under, and whether any row of a sample opens.

    `read` finds the rows of a SELECT.
    """
    found: dict[str, bool] = {}
    for codec in codecs:
        name = codec.collection.sealed_under
        if not name or found.get(name):
            continue
        order = ", ".join(sql.quoted(column) for column in codec.collection.key)
        oldest = read(sql.select(codec.collection, f"ORDER BY {order} LIMIT {SAMPLE}"))
        backwards = ", ".join(f"{sql.quoted(column)} DESC" for column in codec.collection.key)
        newest = read(sql.select(codec.collection, f"ORDER BY {backwards} LIMIT {SAMPLE}")) if oldest else []
        if oldest:
            found[name] = any(_opens(codec, row) for row in (*oldest, *newest))
    return found


def _opens(codec: Codec, row: tuple[object, ...]) -> bool:
    try:
        codec.decode(row)
    except (Unsealable, RowRefused, KeyMissing):
        return False
    return True
