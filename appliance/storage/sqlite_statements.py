"""The SQL texts of the SQLite backends, made from declared names and conditions.

Only names from the declarations and conditions from `sqlite_conditions.py` ever become text; every value is bound. So
the text of a statement depends on its shape alone, and SQLite's prepared statements are found again.
"""
# ruff: noqa: S608 - said above: this is the one file that puts SQL together.

from collections.abc import Iterable

from appliance.privacy.declarations import Collection
from appliance.storage.codec import row_columns, stored_columns


def quoted(name: str) -> str:
    """A name as an SQL identifier. Only declared names ever come here."""
    return '"' + name.replace('"', '""') + '"'


def names(columns: Iterable[str]) -> str:
    """A list of names as SQL takes it."""
    return ", ".join(quoted(column) for column in columns)


def key_is(collection: Collection) -> str:
    """The condition on one row by its key."""
    return " AND ".join(f"{quoted(name)} = ?" for name in collection.key)


def insert(collection: Collection, conflict: str = "", rows: int = 1) -> str:
    """The INSERT of so many rows as the codec encodes them; `conflict` is its ON CONFLICT clause."""
    columns = stored_columns(collection)
    places = ", ".join([f"({', '.join('?' * len(columns))})"] * rows)
    return f"INSERT INTO {quoted(collection.name)} ({names(columns)}) VALUES {places} {conflict}".rstrip()


def select(collection: Collection, rest: str, columns: Iterable[str] = ()) -> str:
    """A SELECT of rows as the codec decodes them, or of other columns; `rest` is all that follows the table."""
    return f"SELECT {names(columns or row_columns(collection))} FROM {quoted(collection.name)} {rest}"


def count(collection: Collection, where: str) -> str:
    """How many rows meet a condition."""
    return f"SELECT count(*) FROM {quoted(collection.name)} WHERE {where}"


def distinct(collection: Collection, column: str, where: str, newest_first: bool) -> str:
    """The different values of a column in the rows that meet a condition; the last value bound is how many."""
    order = f"{quoted(column)}{' DESC' if newest_first else ''}"
    return f"SELECT DISTINCT {quoted(column)} FROM {quoted(collection.name)} WHERE {where} ORDER BY {order} LIMIT ?"


def update(collection: Collection, columns: Iterable[str], where: str) -> str:
    """An UPDATE of these columns, whose values come first."""
    assignments = ", ".join(f"{quoted(column)} = ?" for column in columns)
    return f"UPDATE {quoted(collection.name)} SET {assignments} WHERE {where}"


def delete(collection: Collection, where: str) -> str:
    """The DELETE of what meets a condition."""
    return f"DELETE FROM {quoted(collection.name)} WHERE {where}"


def one_of(column: str, values: int) -> str:
    """The condition that a column has one of so many values."""
    return f"{quoted(column)} IN ({', '.join('?' * values)})"


def named_and_gone(collection: Collection, by: str, owners: Collection) -> str:
    """The SELECT of every value of a field that is the key of no row of `owners`.

    It goes from value to value in the field's index, so that many rows with the same value cost as little as one.
    """
    table, column, (key,) = quoted(collection.name), quoted(by), owners.key
    following = f"SELECT (SELECT min({column}) FROM {table} WHERE {column} > value) FROM named WHERE value IS NOT NULL"
    return (
        f"WITH RECURSIVE named (value) AS (SELECT min({column}) FROM {table} UNION ALL {following}) "
        f"SELECT value FROM named WHERE value IS NOT NULL "
        f"AND NOT EXISTS (SELECT 1 FROM {quoted(owners.name)} WHERE {quoted(key)} = value)"
    )


def delete_some(collection: Collection, where: str, limit: int) -> str:
    """The DELETE of at most so many rows of those that meet a condition."""
    key, table = names(collection.key), quoted(collection.name)
    return f"DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {where} LIMIT {limit})"
