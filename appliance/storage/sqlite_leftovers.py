"""What the last run has left behind, and what a full disk has left undone, cleared away in small steps.

A start must not take longer because much mail waits. What was under way is found by an index and set back at once; what
is held is looked at, and content without a delivery searched for, while mail flows already: nobody is waiting for it.

To erase takes room before it gives any: what is erased is overwritten with zeros, and these are written to the log
first. So nothing here is one large transaction. A step that fails has changed nothing and can be taken again later.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import cast

import apsw

from appliance.model.delivery import DeliveryState
from appliance.privacy.declarations import CONTENT, DELIVERIES
from appliance.storage import sqlite_statements as sql
from appliance.storage.sqlite_salvage import LastingDatabase

DELIVERIES_AT_ONCE = 500
"""Deliveries that one step sets back."""

MAX_CONTENTS = 10_000
"""Messages whose content is to be erased that are remembered; what is beyond, the next start finds."""

MAX_HELD = 100_000
"""Deliveries that one start looks at whether they need be held any longer; so many numbers are 4 MB."""

MESSAGES_AT_ONCE = 500
"""Messages that one step of the search looks at: some milliseconds, in two indexes."""

_WAITING, _UNDER_WAY, _HELD = (state.value for state in DeliveryState)

_FIND_UNDER_WAY = sql.select(DELIVERIES, "WHERE state = ?", ["id"])
_FIND_HELD = sql.select(DELIVERIES, "WHERE state = ? LIMIT ?", ["rowid"])
_LAST_CONTENT = "SELECT max(message_id) FROM content"
_SEARCH = (
    "SELECT message_id, NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.message_id = found.message_id)"
    " FROM (SELECT DISTINCT message_id FROM content WHERE message_id > ? ORDER BY message_id LIMIT ?) AS found"
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

    def __init__(self, database: LastingDatabase, may_go_on: Callable[[Sequence[object]], bool]) -> None:
        """`may_go_on` says whether a row of DELIVERIES that is HELD need not be."""
        self._database = database
        self._may_go_on = may_go_on
        self.under_way: list[str] = []
        """Deliveries that the last run had in its hands."""
        self._held: list[int] = []
        """Numbers of rows: they stand in the index. What is found by one is looked at again before it is changed."""
        self._contents: dict[str, None] = {}
        self._searched = ""
        """Up to which message content has been looked at."""
        self._last = ""
        """With which message the search ends; none where it has ended."""
        self._arriving: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self.under_way or self._held or self._contents or self._last)

    def find(self) -> None:
        """Begin to look what the last run has left behind. Only now is all of it known to be of the last run."""
        self.under_way = [str(each) for (each,) in self._database.read(_FIND_UNDER_WAY, (_UNDER_WAY,))]
        self._held = [cast(int, row) for (row,) in self._database.read(_FIND_HELD, (_HELD, MAX_HELD))]
        ((last,),) = self._database.read(_LAST_CONTENT)
        self._searched, self._last = "", str(last or "")

    def add(self, message_ids: Sequence[str]) -> None:
        """The content of these messages is to be erased, where no delivery of them is left."""
        for message_id in message_ids:
            if len(self._contents) < MAX_CONTENTS:
                self._contents[message_id] = None

    def spare(self, message_ids: Iterable[str]) -> None:
        """Parts of these messages have been kept that have no delivery yet, because they are arriving now."""
        if self._last:
            self._arriving.update(message_ids)

    def step(self, parts: int) -> None:
        """Take one step, erasing at most so many parts. Raises StoreUnavailable, and then nothing has happened."""
        if self.under_way:
            ids = self.under_way[-DELIVERIES_AT_ONCE:]
            self._set_waiting(ids, _UNDER_WAY)
            del self.under_way[-len(ids) :]
        elif self._contents:
            message_id = next(iter(self._contents))
            with self._database.transaction() as cursor:
                erased = _touched(cursor, _ERASE_PARTS, (message_id, parts))
            if erased < parts:
                del self._contents[message_id]
        elif self._held:
            rows = self._held[-DELIVERIES_AT_ONCE:]
            held = self._database.read(sql.select(DELIVERIES, f"WHERE {sql.one_of('rowid', len(rows))}"), rows)
            self._set_waiting([str(row[0]) for row in held if self._may_go_on(row)], _HELD)
            del self._held[-len(rows) :]
        elif self._last:
            self._search()

    def _search(self) -> None:
        found = self._database.read(_SEARCH, (self._searched, MESSAGES_AT_ONCE))
        for message_id, is_left in found:
            self._searched = str(message_id)
            if is_left and message_id not in self._arriving:
                self._contents[self._searched] = None
        if len(found) < MESSAGES_AT_ONCE or self._searched >= self._last:
            self._last = ""
            self._arriving.clear()

    def _set_waiting(self, ids: Sequence[str], state: str) -> None:
        if ids:
            # Without an fsync: the next start would do the same again.
            with self._database.transaction(durable=False) as cursor:
                where = f"state = ? AND {sql.one_of('id', len(ids))}"
                cursor.execute(sql.update(DELIVERIES, ["state"], where), (_WAITING, state, *ids))


def _touched(cursor: apsw.Cursor, statement: str, values: tuple[str | int, ...]) -> int:
    cursor.execute(statement, values)
    return cursor.connection.changes()
