"""The spool store in one SQLite file of its own, never in a backup: mail under way.

This is on the way of every message. A unit is encoded and sealed by the task that brings it, so that the writing
thread does nothing but SQLite's work; the rows of a whole group go in few statements, whose texts SQLite finds
prepared; and one group is one transaction and one fsync.

Where a row can't be opened (damaged, or the key is not the one it was sealed under) its delivery is held, so that the
others go on, and says so in the log of the process; its content is never erased for that.
"""

import logging
from collections.abc import Sequence
from enum import IntEnum
from functools import cache, partial
from pathlib import Path

import apsw

from appliance.model.delivery import Delivery, DeliveryState
from appliance.privacy.declarations import (
    CONTENT,
    DELIVERIES,
    OUTBOX,
    RETURN_PATHS,
    Retention,
    Store,
    collections_of,
)
from appliance.privacy.sealing import Keyring, Unsealable
from appliance.storage import sqlite_statements as sql
from appliance.storage.codec import Codec, RowRefused, row_columns, stored_columns
from appliance.storage.delivery_rows import delivery_to_row, return_path_to_row, row_to_delivery, row_to_return_path
from appliance.storage.event_rows import event_to_row
from appliance.storage.records import StoredRow, StoreUnavailable
from appliance.storage.spool import (
    PART_OCTETS,
    Abandon,
    Accept,
    AddPart,
    Complete,
    Forget,
    Keep,
    Operation,
    Prepared,
    Record,
    ReturnPath,
)
from appliance.storage.sqlite_conditions import Bindings, outlived
from appliance.storage.sqlite_database import Database, execute_for

_log = logging.getLogger(__name__)

_WAITING, _UNDER_WAY, _HELD = (state.value for state in DeliveryState)

_OUTBOX_COLUMNS = stored_columns(OUTBOX)

_ERASE_LEFT_CONTENT = sql.delete(CONTENT, "message_id NOT IN (SELECT message_id FROM deliveries)")


class _Kind(IntEnum):
    """The kinds of row that a group writes, in the order in which it writes them: that of a delivery's life."""

    ADD_PART = 0
    ADD_DELIVERY = 1
    ADD_RETURN_PATH = 2
    KEEP_DELIVERY = 3
    ERASE_DELIVERY = 4
    ERASE_CONTENT = 5
    ADD_EVENT = 6
    ERASE_EVENT = 7


@cache
def _statement(kind: _Kind, rows: int) -> str:
    """The SQL text that writes so many rows of a kind."""
    match kind:
        case _Kind.ADD_PART:
            return sql.insert(CONTENT, rows=rows)
        case _Kind.ADD_DELIVERY:
            return sql.insert(DELIVERIES, rows=rows)
        case _Kind.ADD_RETURN_PATH:
            # A token stands for the same sender each time; being used again begins its time anew.
            renewed = ", ".join(f"{name} = excluded.{name}" for name in ("reference", "created_at", "sealed"))
            return sql.insert(RETURN_PATHS, f"ON CONFLICT (token) DO UPDATE SET {renewed}", rows)
        case _Kind.KEEP_DELIVERY:
            # An UPDATE, not a REPLACE: a delivery that was dropped meanwhile does not come back.
            return sql.update(DELIVERIES, stored_columns(DELIVERIES), "id = ?")
        case _Kind.ERASE_DELIVERY:
            return sql.delete(DELIVERIES, sql.one_of("id", rows))
        case _Kind.ERASE_CONTENT:
            # Also for a reception that was broken off: never where a delivery of the message is left.
            left = "EXISTS (SELECT 1 FROM deliveries WHERE deliveries.message_id = content.message_id)"
            return sql.delete(CONTENT, f"{sql.one_of('message_id', rows)} AND NOT {left}")
        case _Kind.ADD_EVENT:
            return sql.insert(OUTBOX, rows=rows)
        case _Kind.ERASE_EVENT:
            return sql.delete(OUTBOX, sql.one_of("id", rows))


# The index on state and time has the rows in this order already, and equal ones as they came.
_DUE = (
    "rowid IN (SELECT rowid FROM deliveries WHERE state = ? AND next_attempt_at <= ? ORDER BY next_attempt_at LIMIT ?)"
)
_CLAIM = f"{sql.update(DELIVERIES, ['state'], _DUE)} RETURNING {sql.names(row_columns(DELIVERIES))}"
_HOLD = sql.update(DELIVERIES, ["state"], "id = ?")
_SET_STATE = sql.update(DELIVERIES, ["state"], "state = ?")

_SELECT_DELIVERIES = sql.select(DELIVERIES, "WHERE id > ? ORDER BY id LIMIT ?")
_SELECT_DELIVERY = sql.select(DELIVERIES, "WHERE id = ?")
_SELECT_PART = sql.select(CONTENT, "WHERE message_id = ? AND part = ?")
_SELECT_RETURN_PATH = sql.select(RETURN_PATHS, "WHERE token = ?")
_SELECT_OUTBOX = sql.select(OUTBOX, "ORDER BY id LIMIT ?", _OUTBOX_COLUMNS)

_Rows = dict[_Kind, list[Bindings]]
"""What a unit writes: rows by their kind, encoded and sealed."""


class SqliteSpool:
    """A `SpoolStore` in one file. Reading never waits for the writer."""

    def __init__(self, path: Path, keyring: Keyring, *, vfs: str | None = None) -> None:
        """Open the file, or make it. `vfs` names the SQLite file layer to go through; tests put a failing disk there.

        Raises StoreUnavailable, SchemaMismatch.
        """
        self._deliveries = Codec(DELIVERIES, keyring)
        self._content = Codec(CONTENT, keyring)
        self._outbox = Codec(OUTBOX, keyring)
        self._return_paths = Codec(RETURN_PATHS, keyring)
        self._database = Database(path, collections_of(Store.SPOOL), vfs=vfs)

    def apply(self, operations: Sequence[Operation]) -> None:
        """See `SpoolStore`."""
        self.write([self.prepare(operations)])

    def prepare(self, operations: Sequence[Operation]) -> Prepared:
        """See `SpoolStore`. What the declarations refuse raises RowRefused."""
        rows: _Rows = {}
        for operation in operations:
            self._prepare(operation, rows)
        return Prepared(rows)

    def write(self, units: Sequence[Prepared]) -> None:
        """See `SpoolStore`."""
        rows: _Rows = {}
        for unit in units:
            for kind, more in unit.content.items():
                rows.setdefault(kind, []).extend(more)
        if not rows:
            return
        with self._database.transaction() as cursor:
            for kind in sorted(rows):
                if kind is _Kind.KEEP_DELIVERY:
                    cursor.executemany(_statement(kind, 1), rows[kind])
                else:
                    execute_for(cursor, partial(_statement, kind), rows[kind])

    def claim(self, now: int, limit: int) -> list[Delivery]:
        """See `SpoolStore`. Without an fsync: `recover` makes of it what a lost claim would have been."""
        with self._database.transaction(durable=False) as cursor:
            claimed = [
                delivery
                for stored in cursor.execute(_CLAIM, (_UNDER_WAY, _WAITING, now, limit)).fetchall()
                if (delivery := self._opened_or_held(stored, cursor)) is not None
            ]
        claimed.sort(key=lambda delivery: (delivery.next_attempt_at, delivery.id))
        return claimed

    def next_due(self) -> int | None:
        """See `SpoolStore`."""
        ((due,),) = self._database.read("SELECT min(next_attempt_at) FROM deliveries WHERE state = ?", (_WAITING,))
        assert due is None or isinstance(due, int)
        return due

    def recover(self) -> None:
        """See `SpoolStore`."""
        with self._database.transaction() as cursor:
            cursor.execute(_SET_STATE, (_WAITING, _UNDER_WAY))
            cursor.execute(_ERASE_LEFT_CONTENT)

    def part(self, message_id: str, part: int) -> bytes | None:
        """See `SpoolStore`. A part that can't be opened is StoreUnavailable: the delivery has to wait."""
        rows = self._database.read(_SELECT_PART, (message_id, part))
        if not rows:
            return None
        try:
            octets = self._content.decode(rows[0])["octets"]
        except Unsealable as error:
            raise StoreUnavailable(f"part {part} of message {message_id} can't be opened: {error}") from error
        assert isinstance(octets, bytes)
        return octets

    def deliveries(self, after: str | None = None, limit: int = 1000) -> list[Delivery]:
        """See `SpoolStore`. What can't be opened is passed over; the page is filled with what comes behind it."""
        found: list[Delivery] = []
        position = after or ""
        while len(found) < limit:
            rows = self._database.read(_SELECT_DELIVERIES, (position, limit - len(found)))
            found += [delivery for stored in rows if (delivery := self._opened(stored)) is not None]
            if not rows:
                break
            position = str(rows[-1][0])
        return found

    def delivery(self, delivery_id: str) -> Delivery | None:
        """See `SpoolStore`."""
        rows = self._database.read(_SELECT_DELIVERY, (delivery_id,))
        return self._opened(rows[0]) if rows else None

    def depth(self) -> tuple[int, int | None]:
        """See `SpoolStore`."""
        ((count, oldest),) = self._database.read("SELECT count(*), min(accepted_at) FROM deliveries")
        assert isinstance(count, int)
        assert oldest is None or isinstance(oldest, int)
        return count, oldest

    def outbox(self, limit: int) -> list[StoredRow]:
        """See `SpoolStore`. Needs no key: nothing is opened on the way."""
        rows = self._database.read(_SELECT_OUTBOX, (limit,))
        return [dict(zip(_OUTBOX_COLUMNS, row, strict=True)) for row in rows]

    def return_path(self, token: str) -> ReturnPath | None:
        """See `SpoolStore`."""
        rows = self._database.read(_SELECT_RETURN_PATH, (token,))
        if not rows:
            return None
        try:
            return row_to_return_path(self._return_paths.decode(rows[0]))
        except Unsealable as error:
            raise StoreUnavailable(f"the return path {token} can't be opened: {error}") from error

    def sweep(self, retention: Retention, before: int) -> int:
        """See `SpoolStore`."""
        if retention not in RETURN_PATHS.retention:
            raise RowRefused(RETURN_PATHS, retention.since, "has no such retention")
        terms, values = outlived(self._return_paths, retention, before)
        with self._database.transaction() as cursor:
            cursor.execute(sql.delete(RETURN_PATHS, terms), values)
            return cursor.connection.changes()

    def close(self) -> None:
        """See `SpoolStore`."""
        self._database.close()

    def _prepare(self, operation: Operation, rows: _Rows) -> None:
        def add(kind: _Kind, *more: Bindings) -> None:
            rows.setdefault(kind, []).extend(more)

        match operation:
            case AddPart(message_id, part, octets):
                if len(octets) > PART_OCTETS:
                    raise RowRefused(CONTENT, "octets", f"takes at most {PART_OCTETS} octets a part")
                row = {"message_id": message_id, "part": part, "octets": octets}
                add(_Kind.ADD_PART, self._content.encode(row))
            case Accept(deliveries, _, return_paths):
                for delivery in deliveries:
                    add(_Kind.ADD_DELIVERY, self._deliveries.encode(delivery_to_row(delivery)))
                for path in return_paths:
                    add(_Kind.ADD_RETURN_PATH, self._return_paths.encode(return_path_to_row(path)))
            case Complete(delivery_id, message_id):
                add(_Kind.ERASE_DELIVERY, (delivery_id,))
                add(_Kind.ERASE_CONTENT, (message_id,))
            case Keep(delivery):
                add(_Kind.KEEP_DELIVERY, (*self._deliveries.encode(delivery_to_row(delivery)), delivery.id))
            case Abandon(message_id):
                add(_Kind.ERASE_CONTENT, (message_id,))
            case Forget(event_ids):
                add(_Kind.ERASE_EVENT, *((event_id,) for event_id in event_ids))
        if isinstance(operation, Accept | Complete | Keep | Record):
            for event in operation.events:
                add(_Kind.ADD_EVENT, self._outbox.encode(event_to_row(event)))

    def _opened(self, stored: Sequence[object]) -> Delivery | None:
        try:
            return row_to_delivery(self._deliveries.decode(stored))
        except Unsealable as error:
            _log.error("delivery %s can't be opened: %s", stored[0], error)
            return None

    def _opened_or_held(self, stored: Sequence[object], cursor: apsw.Cursor) -> Delivery | None:
        delivery = self._opened(stored)
        if delivery is None:
            cursor.execute(_HOLD, (_HELD, str(stored[0])))
        return delivery
