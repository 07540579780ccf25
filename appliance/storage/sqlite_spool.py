"""The spool store in one SQLite file of its own, never in a backup: mail under way.

This is on the way of every message. A unit is encoded and sealed by the task that brings it, so that the writing
thread does nothing but SQLite's work; the rows of a whole group go in few statements, whose texts SQLite finds
prepared; and one group is one transaction and one fsync.

A disk that is full takes no new mail, but it does take what became of the mail that is there: for that a reserve is
given up (`room.py`), and content that can't be erased in the group of its last delivery is erased right after it, in
steps (`sqlite_leftovers.py`). A disk that has failed is left for a fresh file (`sqlite_salvage.py`).

Where a row can't be opened (damaged, or the key is not the one it was sealed under) its delivery is held, so that the
others go on, and says so in the log of the process; its content is never erased for that. The next start looks whether
it can be opened by then.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from functools import lru_cache, partial
from pathlib import Path

import apsw

from appliance.model.delivery import Delivery, DeliveryState
from appliance.model.hold import Hold
from appliance.privacy.declarations import (
    RETURN_PATHS,
    Retention,
    Store,
    collections_of,
)
from appliance.privacy.sealing import Keyring, Unsealable
from appliance.storage import sqlite_spool_statements as texts
from appliance.storage import sqlite_statements as sql
from appliance.storage.codec import RowRefused, StoredValue
from appliance.storage.delivery_rows import (
    row_to_delivery,
    row_to_hold,
    row_to_return_path,
)
from appliance.storage.directory import make_private_directory
from appliance.storage.disk import THE_DISK, Disk
from appliance.storage.records import Damaged, StoredRow, StoreFull, StoreUnavailable
from appliance.storage.room import Room
from appliance.storage.spool import (
    PART_OCTETS,
    ClockMarks,
    Node,
    Operation,
    Prepared,
    ReturnPath,
    Turn,
    at_once,
)
from appliance.storage.sqlite_ages import ages
from appliance.storage.sqlite_conditions import Bindings, outlived
from appliance.storage.sqlite_database import execute_for
from appliance.storage.sqlite_due import Due
from appliance.storage.sqlite_keys import keys_in_use
from appliance.storage.sqlite_leftovers import Leftovers
from appliance.storage.sqlite_salvage import LastingDatabase
from appliance.storage.sqlite_spool_rows import Rows, SpoolRows, settles

_log = logging.getLogger(__name__)

_WAITING, _UNDER_WAY, _HELD = (state.value for state in DeliveryState)

PARTS_AT_ONCE = 16
"""Parts erased in one step (4 MiB): some milliseconds."""

TIDY_STEPS = 16
"""Steps of one tidying: nobody waits longer than for a large group."""

KEYS_KEPT = 4096
"""Destinations whose keyed form is kept for the next claim that leaves them out: more than are ever left out at once.
"""

RECOVERY_STEPS = 32
"""Steps that a start takes before mail flows, once what was under way is set back: a small spool is tidy by then."""

MEASURED_FOR_S = 1.0
"""How long one look at the disk serves those who ask for room."""


class SqliteSpool:
    """A `SpoolStore` in one file. Reading never waits for the writer."""

    def __init__(self, path: Path, keyring: Keyring, *, disk: Disk = THE_DISK) -> None:
        """Open the file, or make it; `path` is its name as long as no disk has failed under it.

        Raises StoreUnavailable, SchemaMismatch.
        """
        self._rows = SpoolRows(keyring)
        try:
            make_private_directory(path.parent)
            self._room = Room(path.with_suffix(".reserve"), disk)
        except OSError as error:
            raise StoreUnavailable(f"{path.parent}: {error.strerror}") from error
        self._name = path.name
        self._database = self._open(path, disk)
        self._leftovers = Leftovers(self._database, self._may_go_on)
        self._due = Due(self._database.read)
        self._destination_key = lru_cache(KEYS_KEPT)(
            lambda domain: self._rows.deliveries.lookup("destination", domain)[1]
        )
        self._is_stuck = False
        self._measured = (0, 0)
        self._measured_at = float("-inf")
        self._room.reserve()

    @property
    def shared(self) -> bool:
        """See `SpoolStore`."""
        return False

    @property
    def degraded(self) -> str | None:
        """See `SpoolStore`."""
        return self._database.failure

    @property
    def undecided(self) -> bool:
        """See `SpoolStore`."""
        return self._database.undecided

    def apply(self, operations: Sequence[Operation]) -> None:
        """See `SpoolStore`."""
        self.write([self.prepare(operations)])

    def prepare(self, operations: Sequence[Operation]) -> Prepared:
        """See `SpoolStore`. What the declarations refuse raises RowRefused."""
        return self._rows.prepare(operations)

    def write(self, units: Sequence[Prepared]) -> None:
        """See `SpoolStore`."""
        rows: Rows = defaultdict(list)
        new_octets = 0
        for unit in units:
            for kind, more in unit.content.items():
                rows[kind].extend(more)
            if texts.Kind.ADD_PART in unit.content and texts.Kind.ADD_DELIVERY not in unit.content:
                self._leftovers.spare(str(message_id) for message_id, _, _ in unit.content[texts.Kind.ADD_PART])
            if not settles(unit):
                new_octets += sum(len(sealed) for _, _, sealed in unit.content.get(texts.Kind.ADD_PART, ()))
        if not rows:
            return
        if new_octets:
            self._see_that_there_is_room(new_octets)
        try:
            self._write(rows)
        except StoreFull:
            if all(settles(unit) for unit in units):
                self._write_at_last(rows)
            else:
                self._database.cut_log()
                raise

    def claim(self, now: int, limit: int, without: Collection[str] = (), turn: Turn = at_once) -> list[Delivery]:
        """See `SpoolStore`. Without an fsync: `recover` makes of it what a lost claim would have been.

        To look for what is due takes microseconds, so all of it is done in turn.
        """
        return turn(partial(self._claim, now, limit, self._destination_keys(without)))

    def _claim(self, now: int, limit: int, left_out: Sequence[StoredValue]) -> list[Delivery]:
        values = [
            (_UNDER_WAY, _WAITING, priority, now, *left_out, count)
            for priority, count in self._due.shares(now, limit, left_out).items()
        ]
        try:
            claimed = self._claimed(texts.claim(len(left_out)), values)
        except StoreFull:
            self._give_room()
            claimed = self._claimed(texts.claim(len(left_out)), values)
        claimed.sort(key=lambda delivery: (delivery.next_attempt_at, delivery.id))
        return claimed

    def renew(self) -> Collection[str]:
        """See `SpoolStore`. The file is this node's alone."""
        return ()

    def nodes(self) -> list[Node]:
        """See `SpoolStore`."""
        return []

    def next_due(self, without: Collection[str] = (), after: int = 0) -> int | None:
        """See `SpoolStore`."""
        return self._due.next(after, self._destination_keys(without))

    def recover(self) -> None:
        """See `SpoolStore`."""
        self._leftovers.find()
        try:
            while self._leftovers.under_way:
                self._clear_away()
            for _ in range(RECOVERY_STEPS):
                self._clear_away()
        except StoreUnavailable as error:
            self._is_stuck = True
            _log.warning("what the last run has left behind can't be cleared away now: %s", error)

    def tidy(self, turn: Turn = at_once) -> bool:
        """See `SpoolStore`."""
        return turn(self._tidy)

    def _tidy(self) -> bool:
        try:
            self._database.salvage()
            for _ in range(TIDY_STEPS):
                if not self._leftovers:
                    break
                self._clear_away()
            # A log that nobody adds to is written back by nobody.
            if self._room.free() < self._room.floor + self._database.log_octets():
                self._database.cut_log()
        except StoreUnavailable as error:
            if not self._is_stuck:
                _log.warning("the spool can't be tidied now: %s", error)
            self._is_stuck = True
            return False
        self._is_stuck = False
        return not self._leftovers and self._room.reserve()

    def has_room(self, octets: int) -> bool:
        """See `SpoolStore`."""
        if time.monotonic() - self._measured_at >= MEASURED_FOR_S:
            try:
                self._measured = (self._room.free(), self._database.free_octets())
            except StoreUnavailable:
                self._measured = (0, 0)
            self._measured_at = time.monotonic()
        return self._fits(octets, min(octets, PART_OCTETS), *self._measured)

    def part(self, message_id: str, part: int) -> bytes | None:
        """See `SpoolStore`. A part that can't be opened is Damaged."""
        rows = self._database.read(texts.SELECT_PART, (message_id, part))
        if not rows:
            return None
        try:
            octets = self._rows.content.decode(rows[0])["octets"]
        except Unsealable as error:
            raise Damaged(f"part {part} of message {message_id} can't be opened: {error}") from error
        assert isinstance(octets, bytes)
        return octets

    def deliveries(self, after: str | None = None, limit: int = 1000) -> list[Delivery]:
        """See `SpoolStore`. What can't be opened is passed over; the page is filled with what comes behind it."""
        found: list[Delivery] = []
        position = after or ""
        while len(found) < limit:
            rows = self._database.read(texts.SELECT_DELIVERIES, (position, limit - len(found)))
            found += [delivery for stored in rows if (delivery := self._opened(stored)) is not None]
            if not rows:
                break
            position = str(rows[-1][0])
        return found

    def delivery(self, delivery_id: str) -> Delivery | None:
        """See `SpoolStore`."""
        rows = self._database.read(texts.SELECT_DELIVERY, (delivery_id,))
        return self._opened(rows[0]) if rows else None

    def deliveries_of(self, message_id: str) -> list[Delivery]:
        """See `SpoolStore`."""
        rows = self._database.read(texts.SELECT_DELIVERIES_OF, (message_id,))
        return [delivery for stored in rows if (delivery := self._opened(stored)) is not None]

    def depth(self) -> tuple[int, int | None]:
        """See `SpoolStore`. From indexes: whoever asks for it every few seconds must not read a long queue through."""
        ((count,),) = self._database.read(texts.COUNT_DELIVERIES)
        assert isinstance(count, int)
        for (accepted_at,) in self._database.read(texts.SELECT_OLDEST):
            assert isinstance(accepted_at, int)
            return count, accepted_at
        return 0, None

    def states(self) -> dict[DeliveryState, int]:
        """See `SpoolStore`. The index alone has the answer."""
        found = self._database.read("SELECT state, count(*) FROM deliveries GROUP BY state")
        return {DeliveryState(state): int(str(count)) for state, count in found}

    def ages(self, instants: Sequence[int]) -> list[int]:
        """See `SpoolStore`."""
        return ages(self._database.read, instants)

    def outbox(self, limit: int) -> list[StoredRow]:
        """See `SpoolStore`. Needs no key: nothing is opened on the way."""
        rows = self._database.read(texts.SELECT_OUTBOX, (limit,))
        return [dict(zip(texts.OUTBOX_COLUMNS, row, strict=True)) for row in rows]

    def return_path(self, token: str) -> ReturnPath | None:
        """See `SpoolStore`."""
        rows = self._database.read(texts.SELECT_RETURN_PATH, (token,))
        if not rows:
            return None
        try:
            return row_to_return_path(self._rows.return_paths.decode(rows[0]))
        except Unsealable as error:
            raise Damaged(f"the return path {token} can't be opened: {error}") from error

    def holds(self) -> list[Hold]:
        """See `SpoolStore`. One that can't be opened holds nothing, and says so in the log of the process."""
        found: list[Hold] = []
        for stored in self._database.read(texts.SELECT_HOLDS):
            try:
                found.append(row_to_hold(self._rows.holds.decode(stored)))
            except (Unsealable, RowRefused) as error:
                _log.error("hold %s can't be opened: %s", stored[0], error)
        return found

    def uses(self) -> dict[str, int]:
        """See `SpoolStore`."""
        rows = [self._rows.uses.decode(stored) for stored in self._database.read(texts.SELECT_USES)]
        return {str(row["id"]): int(str(row["uses"])) for row in rows}

    def clock_marks(self) -> ClockMarks:
        """See `SpoolStore`."""
        rows = [self._rows.clocks.decode(stored) for stored in self._database.read(texts.SELECT_CLOCKS)]
        marks = {row["id"]: row["value"] for row in rows}
        steady, running, latest = (marks.get(name, 0) for name in ("steady", "running", "latest"))
        assert isinstance(steady, int)
        assert isinstance(running, int)
        assert isinstance(latest, int)
        return ClockMarks(steady, running, latest)

    def sweep(self, retention: Retention, before: int) -> int:
        """See `SpoolStore`."""
        if retention not in RETURN_PATHS.retention:
            raise RowRefused(RETURN_PATHS, retention.since, "has no such retention")
        terms, values = outlived(self._rows.return_paths, retention, before)
        with self._database.transaction() as cursor:
            cursor.execute(sql.delete(RETURN_PATHS, terms), values)
            return cursor.connection.changes()

    def keys_in_use(self) -> dict[str, bool]:
        """The names of the keys that something is sealed under, and whether any of it opens. Needs no key."""
        rows = self._rows
        sealed = [rows.deliveries, rows.content, rows.outbox, rows.return_paths, rows.holds]
        return keys_in_use(self._database.read, sealed)

    def close(self) -> None:
        """See `SpoolStore`. What is not open keeps nothing back."""
        self._database.close()
        self._room.give_up()

    def _open(self, path: Path, disk: Disk) -> LastingDatabase:
        def opened() -> LastingDatabase:
            return LastingDatabase(path, collections_of(Store.SPOOL), disk=disk, make_room=self._room.give_up)

        try:
            return opened()
        except StoreUnavailable:
            # To open it takes a little room too. What SQLite says when there is none depends on where it met that.
            if self._room.free() >= self._room.floor:
                raise
            self._room.give_up()
            return opened()

    def _write(self, rows: Rows) -> None:
        with self._database.transaction() as cursor:
            for kind in sorted(rows):
                if kind is texts.Kind.KEEP_DELIVERY:
                    cursor.executemany(texts.write(kind, 1), rows[kind])
                else:
                    execute_for(cursor, partial(texts.write, kind), rows[kind])

    # ------------------------------------------------------------------ when the disk is full

    def _see_that_there_is_room(self, octets: int) -> None:
        """Before new content is written. Raises StoreFull.

        The log is taken for as large as it is: what is in it must fit into the file too, or it could never be cut.
        """
        if self._room.free() >= self._room.floor + 2 * octets + self._database.log_octets():
            return
        self._database.cut_log()
        if not self._fits(octets, octets, self._room.free(), self._database.free_octets()):
            raise StoreFull(f"{self._name}: the disk is full")

    def _fits(self, octets: int, logged: int, free: int, free_inside: int) -> bool:
        """Whether content fits, of which so much is in the log at once. Where the file need not grow, half the floor
        will do: mail that has gone has made room inside the file, and none on the disk."""
        growth = max(0, octets - free_inside)
        return free >= growth + logged + (self._room.floor if growth else self._room.floor // 2)

    def _write_at_last(self, rows: Rows) -> None:
        """Write down what became of mail, although the disk is full. Raises StoreFull where it can't be done."""
        self._give_room()
        try:
            self._write(rows)
        except StoreFull:
            erased = rows.pop(texts.Kind.ERASE_CONTENT, None)
            if erased is None:
                raise
            self._write(rows)
            self._leftovers.add([str(message_id) for (message_id,) in erased])
            self.tidy()

    def _clear_away(self) -> None:
        """One step of clearing away; a small one where the disk is full. Raises StoreUnavailable."""
        try:
            self._leftovers.step(PARTS_AT_ONCE)
        except StoreFull:
            self._give_room()
            self._leftovers.step(1)

    def _give_room(self) -> None:
        """Let go of what is kept back: the reserve, and the log."""
        self._room.give_up()
        self._database.cut_log()

    # ------------------------------------------------------------------ rows

    def _destination_keys(self, domains: Collection[str]) -> tuple[StoredValue, ...]:
        """What stands for these destinations in the table; the last one again and again up to a power of two, so that
        few statements are ever prepared."""
        keys = [self._destination_key(domain) for domain in domains]
        return (*keys, *keys[-1:] * ((1 << (len(keys) - 1).bit_length()) - len(keys))) if keys else ()

    def _claimed(self, statement: str, values: Sequence[Bindings]) -> list[Delivery]:
        if not values:
            return []
        with self._database.transaction(durable=False) as cursor:
            rows = [row for each in values for row in cursor.execute(statement, each).fetchall()]
            opened = [self._opened_or_held(stored, cursor) for stored in rows]
        return [delivery for delivery in opened if delivery is not None]

    def _opened(self, stored: Sequence[object]) -> Delivery | None:
        try:
            return row_to_delivery(self._rows.deliveries.decode(stored))
        except (Unsealable, RowRefused) as error:
            _log.error("delivery %s can't be opened: %s", stored[0], error)
            return None

    def _may_go_on(self, stored: Sequence[object]) -> bool:
        """Whether a delivery that is held was held only because it could not be opened, and now can be."""
        delivery = self._opened(stored)
        return delivery is not None and not delivery.held_for

    def _opened_or_held(self, stored: Sequence[object], cursor: apsw.Cursor) -> Delivery | None:
        delivery = self._opened(stored)
        if delivery is None:
            cursor.execute(texts.HOLD, (_HELD, str(stored[0])))
        return delivery
