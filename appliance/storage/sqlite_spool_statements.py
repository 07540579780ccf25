"""The SQL texts of the spool: what a group writes, kind by kind, how deliveries are claimed, and what is read."""

from enum import IntEnum
from functools import cache

from appliance.privacy.declarations import ALIAS_USES, CLOCKS, CONTENT, DELIVERIES, HOLDS, OUTBOX, RETURN_PATHS
from appliance.storage import sqlite_statements as sql
from appliance.storage.codec import row_columns, stored_columns

OUTBOX_COLUMNS = stored_columns(OUTBOX)


class Kind(IntEnum):
    """The kinds of row that a group writes, in the order in which it writes them: that of a delivery's life."""

    ADD_PART = 0
    ADD_DELIVERY = 1
    ADD_RETURN_PATH = 2
    KEEP_DELIVERY = 3
    ERASE_DELIVERY = 4
    ERASE_CONTENT = 5
    ADD_EVENT = 6
    ERASE_EVENT = 7
    ADD_HOLD = 8
    ERASE_HOLD = 9
    MARK_CLOCK = 10
    COUNT_USE = 11
    ERASE_USES = 12

    # An Enum's own is made from its name, in Python; and every row of a unit is looked up by its kind.
    __hash__ = int.__hash__


@cache
def write(kind: Kind, rows: int) -> str:
    """The SQL text that writes so many rows of a kind."""
    match kind:
        case Kind.ADD_PART:
            return sql.insert(CONTENT, rows=rows)
        case Kind.ADD_DELIVERY:
            return sql.insert(DELIVERIES, rows=rows)
        case Kind.ADD_RETURN_PATH:
            # A token stands for the same sender each time; being used again begins its time anew.
            renewed = ", ".join(f"{name} = excluded.{name}" for name in ("reference", "created_at", "sealed"))
            return sql.insert(RETURN_PATHS, f"ON CONFLICT (token) DO UPDATE SET {renewed}", rows)
        case Kind.KEEP_DELIVERY:
            # An UPDATE, not a REPLACE: a delivery that was dropped meanwhile does not come back.
            return sql.update(DELIVERIES, stored_columns(DELIVERIES), "id = ?")
        case Kind.ERASE_DELIVERY:
            return sql.delete(DELIVERIES, sql.one_of("id", rows))
        case Kind.ERASE_CONTENT:
            # Also for a reception that was broken off: never where a delivery of the message is left.
            left = "EXISTS (SELECT 1 FROM deliveries WHERE deliveries.message_id = content.message_id)"
            return sql.delete(CONTENT, f"{sql.one_of('message_id', rows)} AND NOT {left}")
        case Kind.ADD_EVENT:
            return sql.insert(OUTBOX, rows=rows)
        case Kind.ERASE_EVENT:
            return sql.delete(OUTBOX, sql.one_of("id", rows))
        case Kind.ADD_HOLD:
            return sql.insert(HOLDS, rows=rows)
        case Kind.ERASE_HOLD:
            return sql.delete(HOLDS, sql.one_of("id", rows))
        case Kind.COUNT_USE:
            return sql.insert(ALIAS_USES, "ON CONFLICT (id) DO UPDATE SET uses = uses + 1", rows)
        case Kind.ERASE_USES:
            return sql.delete(ALIAS_USES, sql.one_of("id", rows))
        case Kind.MARK_CLOCK:
            return sql.insert(CLOCKS, "ON CONFLICT (id) DO UPDATE SET value = excluded.value", rows)


@cache
def claim(without: int) -> str:
    """The SQL text that claims of one priority, leaving out so many destinations. The index has the rows in this order
    already."""
    rest = f"{_OF_ONE_PRIORITY} AND next_attempt_at <= ?{_elsewhere(without)} ORDER BY next_attempt_at LIMIT ?"
    due = sql.select(DELIVERIES, rest, ["rowid"])
    claimed = sql.update(DELIVERIES, ["state"], f"rowid IN ({due})")
    return f"{claimed} RETURNING {sql.names(row_columns(DELIVERIES))}"


@cache
def next_due(without: int) -> str:
    """The SQL text that finds when something of one priority is due behind a time, leaving out so many destinations."""
    rest = f"{_OF_ONE_PRIORITY} AND next_attempt_at > ?{_elsewhere(without)} ORDER BY next_attempt_at LIMIT 1"
    return sql.select(DELIVERIES, rest, ["next_attempt_at"])


@cache
def due(without: int) -> str:
    """The SQL text that finds when what is due of one priority became due, leaving out so many destinations."""
    rest = f"{_OF_ONE_PRIORITY} AND next_attempt_at <= ?{_elsewhere(without)} ORDER BY next_attempt_at LIMIT ?"
    return sql.select(DELIVERIES, rest, ["next_attempt_at"])


def _elsewhere(without: int) -> str:
    return f" AND NOT {sql.one_of('destination_key', without)}" if without else ""


_OF_ONE_PRIORITY = "WHERE state = ? AND priority = ?"

NEXT_PRIORITY = sql.select(DELIVERIES, "WHERE state = ? AND priority < ? ORDER BY priority DESC LIMIT 1", ["priority"])
"""From one priority to the next lower one, without a look at the rows between."""

HOLD = sql.update(DELIVERIES, ["state"], "id = ?")

COUNT_DELIVERIES = sql.count(DELIVERIES, "TRUE")
SELECT_OLDEST = sql.select(DELIVERIES, "ORDER BY id LIMIT 1", ["accepted_at"])

SELECT_DELIVERIES = sql.select(DELIVERIES, "WHERE id > ? ORDER BY id LIMIT ?")
SELECT_DELIVERY = sql.select(DELIVERIES, "WHERE id = ?")
SELECT_DELIVERIES_OF = sql.select(DELIVERIES, "WHERE message_id = ? ORDER BY id")
SELECT_PART = sql.select(CONTENT, "WHERE message_id = ? AND part = ?")
SELECT_RETURN_PATH = sql.select(RETURN_PATHS, "WHERE token = ?")
SELECT_HOLDS = sql.select(HOLDS, "ORDER BY id")
SELECT_CLOCKS = sql.select(CLOCKS, "ORDER BY id")
SELECT_USES = sql.select(ALIAS_USES, "ORDER BY id")
SELECT_OUTBOX = sql.select(OUTBOX, "ORDER BY id LIMIT ?", OUTBOX_COLUMNS)
