"""What the last run has left behind, and what a full disk has left undone, cleared away in small steps.

To erase takes room before it gives any: what is erased is overwritten with zeros, and these are written to the log
first. So nothing here is one large transaction. A step that fails has changed nothing and can be taken again later.
"""

from collections.abc import Callable, Sequence

import apsw

from appliance.model.delivery import DeliveryState
from appliance.privacy.declarations import CONTENT, DELIVERIES
from appliance.storage import sqlite_statements as sql
from appliance.storage.sqlite_database import Database

DELIVERIES_AT_ONCE = 500
"""Deliveries that one step sets back."""

MAX_CONTENTS = 10_000
"""Messages whose content is to be erased that are remembered; what is beyond, the next start finds."""

_WAITING, _UNDER_WAY, _HELD = (state.value for state in DeliveryState)

_FIND_DELIVERIES = sql.select(DELIVERIES, "WHERE state = ?", ["id"])
_FIND_CONTENTS = (
    "SELECT DISTINCT message_id FROM content WHERE message_id NOT IN (SELECT message_id FROM deliveries) LIMIT ?"
)
_SOME_PARTS = sql.select(
    CONTENT,
    "WHERE message_id = ?"
    " AND NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.message_id = content.message_id) LIMIT ?",
    ["rowid"],
)
_ERASE_PARTS = sql.delete(CONTENT, f"rowid IN ({_SOME_PARTS})")


class Leftovers:
    """What is still to be cleared away in one spool. True while there is something. For the writing thread alone."""

    def __init__(self, database: Database, opens: Callable[[Sequence[object]], bool]) -> None:
        """`opens` says whether a row of DELIVERIES can be opened."""
        self._database = database
        self._opens = opens
        self._under_way: list[str] = []
        self._held: list[str] = []
        self._contents: dict[str, None] = {}

    def __bool__(self) -> bool:
        return bool(self._under_way or self._held or self._contents)

    def find(self) -> None:
        """Look what the last run has left behind. Only now is all of it known to be of the last run."""
        self._under_way = self._texts(_FIND_DELIVERIES, _UNDER_WAY)
        self._held = self._texts(_FIND_DELIVERIES, _HELD)
        self._contents = dict.fromkeys(self._texts(_FIND_CONTENTS, MAX_CONTENTS))

    def add(self, message_ids: Sequence[str]) -> None:
        """The content of these messages is to be erased, where no delivery of them is left."""
        for message_id in message_ids:
            if len(self._contents) < MAX_CONTENTS:
                self._contents[message_id] = None

    def step(self, parts: int) -> None:
        """Take one step, erasing at most so many parts. Raises StoreUnavailable, and then nothing has happened."""
        if self._under_way:
            ids = self._under_way[-DELIVERIES_AT_ONCE:]
            self._set_waiting(ids, _UNDER_WAY)
            del self._under_way[-len(ids) :]
        elif self._held:
            ids = self._held[-DELIVERIES_AT_ONCE:]
            rows = self._database.read(sql.select(DELIVERIES, f"WHERE {sql.one_of('id', len(ids))}"), ids)
            self._set_waiting([str(row[0]) for row in rows if self._opens(row)], _HELD)
            del self._held[-len(ids) :]
        elif self._contents:
            message_id = next(iter(self._contents))
            with self._database.transaction() as cursor:
                erased = _touched(cursor, _ERASE_PARTS, (message_id, parts))
            if erased < parts:
                del self._contents[message_id]

    def _set_waiting(self, ids: Sequence[str], state: str) -> None:
        if ids:
            # Without an fsync: the next start would do the same again.
            with self._database.transaction(durable=False) as cursor:
                where = f"state = ? AND {sql.one_of('id', len(ids))}"
                cursor.execute(sql.update(DELIVERIES, ["state"], where), (_WAITING, state, *ids))

    def _texts(self, statement: str, value: str | int) -> list[str]:
        return [str(text) for (text,) in self._database.read(statement, (value,))]


def _touched(cursor: apsw.Cursor, statement: str, values: tuple[str | int, ...]) -> int:
    cursor.execute(statement, values)
    return cursor.connection.changes()
