"""The spool store in one SQLite file of its own, never in a backup: mail under way.

This is on the way of every message. A group is encoded and sealed before the transaction begins, so that the writer
holds the file no longer than SQLite needs; every statement has a constant text, so that SQLite finds it prepared; and
one group is one transaction and one fsync.

Where a row can't be opened (damaged, or the key is not the one it was sealed under) its delivery is held, so that the
others go on, and says so in the log of the process; its content is never erased for that.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import apsw

from appliance.model.delivery import Delivery, DeliveryState
from appliance.model.event import DeliveryEvent
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
    Record,
    ReturnPath,
)
from appliance.storage.sqlite_conditions import Bindings, outlived
from appliance.storage.sqlite_database import Database

_log = logging.getLogger(__name__)

_WAITING, _UNDER_WAY, _HELD = (state.value for state in DeliveryState)

_OUTBOX_COLUMNS = stored_columns(OUTBOX)

_ADD_PART = sql.insert(CONTENT)
_ADD_DELIVERY = sql.insert(DELIVERIES)
_ADD_EVENT = sql.insert(OUTBOX)
# A token stands for the same sender each time; being used again begins its time anew.
_ADD_RETURN_PATH = sql.insert(
    RETURN_PATHS,
    "ON CONFLICT (token) DO UPDATE SET "
    "reference = excluded.reference, created_at = excluded.created_at, sealed = excluded.sealed",
)
# An UPDATE, not a REPLACE: a delivery that was dropped meanwhile does not come back.
_KEEP_DELIVERY = sql.update(DELIVERIES, stored_columns(DELIVERIES), "id = ?")
_ERASE_DELIVERY = sql.delete(DELIVERIES, "id = ?")
# Also for a reception that was broken off: never where a delivery of the message is left.
_ERASE_CONTENT = sql.delete(CONTENT, "message_id = ?1 AND NOT EXISTS (SELECT 1 FROM deliveries WHERE message_id = ?1)")
_ERASE_LEFT_CONTENT = sql.delete(CONTENT, "message_id NOT IN (SELECT message_id FROM deliveries)")
_ERASE_EVENT = sql.delete(OUTBOX, "id = ?")

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

_Statement = tuple[str, list[Bindings]]
"""An SQL text and what to execute it with, once for each."""


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
        """See `SpoolStore`. What the declarations refuse raises RowRefused, before anything is changed."""
        statements: list[_Statement] = []
        for operation in operations:
            self._prepare(operation, statements)
        if not statements:
            return
        with self._database.transaction() as cursor:
            for statement, rows in statements:
                if len(rows) == 1:
                    cursor.execute(statement, rows[0])
                else:
                    cursor.executemany(statement, rows)

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

    def _prepare(self, operation: Operation, statements: list[_Statement]) -> None:
        match operation:
            case AddPart(message_id, part, octets):
                if len(octets) > PART_OCTETS:
                    raise RowRefused(CONTENT, "octets", f"takes at most {PART_OCTETS} octets a part")
                row = {"message_id": message_id, "part": part, "octets": octets}
                statements.append((_ADD_PART, [self._content.encode(row)]))
            case Accept(deliveries, events, return_paths):
                if deliveries:
                    encode = self._deliveries.encode
                    statements.append((_ADD_DELIVERY, [encode(delivery_to_row(delivery)) for delivery in deliveries]))
                if return_paths:
                    encode = self._return_paths.encode
                    statements.append((_ADD_RETURN_PATH, [encode(return_path_to_row(path)) for path in return_paths]))
                self._prepare_events(events, statements)
            case Complete(delivery_id, message_id, events):
                statements.append((_ERASE_DELIVERY, [(delivery_id,)]))
                statements.append((_ERASE_CONTENT, [(message_id,)]))
                self._prepare_events(events, statements)
            case Keep(delivery, events):
                values = self._deliveries.encode(delivery_to_row(delivery))
                statements.append((_KEEP_DELIVERY, [(*values, delivery.id)]))
                self._prepare_events(events, statements)
            case Abandon(message_id):
                statements.append((_ERASE_CONTENT, [(message_id,)]))
            case Record(events):
                self._prepare_events(events, statements)
            case Forget(event_ids):
                if event_ids:
                    statements.append((_ERASE_EVENT, [(event_id,) for event_id in event_ids]))

    def _prepare_events(self, events: Sequence[DeliveryEvent], statements: list[_Statement]) -> None:
        if events:
            statements.append((_ADD_EVENT, [self._outbox.encode(event_to_row(event)) for event in events]))

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
