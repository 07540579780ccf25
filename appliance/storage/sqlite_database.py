"""One SQLite file: how it is opened, how a transaction begins and ends, and what its errors mean to the house.

Two connections stand on each file, so that readers never wait for the writer's fsync: one writes, under a lock, one
reads, under another. In WAL mode (https://sqlite.org/wal.html) they do not get in each other's way.

What a commit promises: with `synchronous=FULL` the log is synced before COMMIT returns, so that it survives power loss.
With `durable=False` it is not: such a transaction survives the process but perhaps not the machine, and nothing after
it is ever kept without it.

Error handling: whatever apsw raises is turned, here at the border, into StoreUnavailable (StoreFull, Damaged,
DiskFailed) with a short cause, or into Duplicate. An error in our SQL stays what it is.

A commit that fails may stand in the log whole, so that the next start would find it: what is behind the last commit is
cut off before anybody hears of the failure. And once a write or a sync has failed, nobody knows what the disk has: the
kernel reports an error once, may drop what it could not write, and calls the next sync a success (LWN 752063; "Can
Applications Recover from fsync Failures?", USENIX ATC 2020). So this is remembered (`failure`), and it is for the owner
of the file to go on in another one (`sqlite_salvage.py`).
"""

import contextlib
import itertools
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import apsw

from appliance.privacy.declarations import Collection
from appliance.storage.codec import StoredValue
from appliance.storage.directory import PRIVATE_FILE_MODE, make_private_directory
from appliance.storage.disk import THE_DISK, Disk
from appliance.storage.records import Damaged, Duplicate, SchemaMismatch, StoreFull, StoreUnavailable
from appliance.storage.sqlite_tables import is_settled, settle

BUSY_TIMEOUT_MS = 5000
"""How long to wait for another process in the same file: more than its largest transaction takes."""

WAL_PAGES = 4000
"""The log is written back into the file when it has this many pages (16 MiB). Most mail has come and gone by then, and
its pages are written once instead of again and again; a restart reads no more than this."""

WAL_OCTETS_KEPT = 64 << 20
"""A log that a burst has made larger than this is cut when it begins anew."""

CACHE_KIBIBYTES = 16 << 10
"""Of pages, per connection: the queue's indexes, and the pages of one group before they are committed."""

_SETTINGS = (
    # Deleted content is overwritten with zeros, in the file as in the log.
    "secure_delete=ON",
    # No sorter and no statement journal in a temporary file: what is under way is nowhere but here.
    "temp_store=MEMORY",
    f"journal_size_limit={WAL_OCTETS_KEPT}",
    f"cache_size=-{CACHE_KIBIBYTES}",
    # Tables are plain; a file that someone has put a function into gets it refused.
    "trusted_schema=OFF",
)

_CAUSES: tuple[tuple[type[apsw.Error], str], ...] = (
    (apsw.BusyError, "another process holds it"),
    (apsw.LockedError, "another process holds it"),
    (apsw.IOError, "the disk reports an error"),
    (apsw.ReadOnlyError, "it can't be written"),
    (apsw.PermissionsError, "it can't be written"),
    (apsw.AuthError, "it can't be written"),
    (apsw.CantOpenError, "it can't be opened"),
    (apsw.NoLFSError, "the file is too large for this system"),
    (apsw.ProtocolError, "another process holds it"),
    (apsw.ConnectionClosedError, "it has been closed"),
    (apsw.NoMemError, "there is no memory"),
)
_DAMAGE: tuple[tuple[type[apsw.Error], str], ...] = (
    (apsw.CorruptError, "the file is damaged"),
    (apsw.NotADBError, "the file is not a database"),
)
_UNCERTAIN = {
    apsw.SQLITE_IOERR,
    apsw.SQLITE_IOERR_WRITE,
    apsw.SQLITE_IOERR_FSYNC,
    apsw.SQLITE_IOERR_DIR_FSYNC,
    apsw.SQLITE_IOERR_TRUNCATE,
}
"""After these nobody knows what the disk has. Errors of reading and of locks have changed nothing."""

_LOG_HEADER_OCTETS, _FRAME_HEADER_OCTETS = 32, 24
"""Of a write-ahead log, and of each page in it (https://sqlite.org/fileformat2.html §4.1)."""


class DiskFailed(StoreUnavailable):
    """A write or a sync has failed: what is on the disk is known up to the last commit, and not beyond."""


class Database:
    """One file with the tables of these collections. Thread-safe; several processes may have it open."""

    def __init__(self, path: Path, collections: Sequence[Collection], *, disk: Disk = THE_DISK) -> None:
        """Open the file, make it where there is none, and see that it holds what is declared and nothing else.

        Raises StoreUnavailable, SchemaMismatch.
        """
        self.path = path
        self.failure: str | None = None
        """Why this file is not to be written any more, from the first write or sync that has failed."""
        self.undecided = False
        """A commit has failed and may stand in the log whole: the next start may find it."""
        self._disk = disk
        self._log_pages = 0
        self._free_octets = 0
        self._collections = {collection.name: collection for collection in collections}
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        try:
            make_private_directory(path.parent)
            _make_private_file(path, disk)
        except OSError as error:
            raise StoreUnavailable(f"{path}: {error.strerror}") from error
        with self._translated():
            self._writer = self._connect()
            _enter_wal(self._writer)
            self._writer.set_wal_hook(self._note_log)
            self._reader = self._connect()
            self._reader.execute("PRAGMA query_only=ON")
        try:
            # Looked first: whoever only opens the file does not wait for whoever writes in it.
            if not self._is_settled(collections):
                with self.transaction() as cursor:
                    settle(cursor.connection, collections)
        except SchemaMismatch as error:
            self.close()
            raise SchemaMismatch(f"{path}: {error}") from None
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[apsw.Cursor]:
        """All or nothing of what is executed inside; on stable storage when it ends without an error.

        With durable=False the fsync is left out, for what a restart makes again anyway.
        """
        with self._write_lock, self._translated():
            cursor = self._writer.cursor()
            if not durable:
                # SQLite sets this when the statement is compiled, so that one from the cache would do nothing.
                cursor.execute("PRAGMA synchronous=NORMAL", can_cache=False)
            try:
                cursor.execute("BEGIN IMMEDIATE")
                try:
                    yield cursor
                    self._commit(cursor)
                except BaseException as error:
                    self._roll_back(cursor)
                    if self._is_uncertain(error):
                        self.failure = str(error)
                    raise
            finally:
                if not durable:
                    cursor.execute("PRAGMA synchronous=FULL", can_cache=False)
            if self._log_pages >= WAL_PAGES:
                self._write_back(apsw.SQLITE_CHECKPOINT_PASSIVE)

    def read(self, statement: str, values: Sequence[StoredValue] = ()) -> list[tuple[StoredValue, ...]]:
        """The rows that a SELECT finds in what is committed."""
        with self._read_lock, self._translated():
            return cast("list[tuple[StoredValue, ...]]", self._reader.execute(statement, values).fetchall())

    def cut_log(self) -> None:
        """Write the log back into the file and give its room back to the disk.

        Where that can't be done now, as much as can be is done, and nothing is said: it is done at some later time.
        """
        with self._write_lock:
            self._write_back(apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def copy_into(self, path: Path) -> None:
        """Write all that is committed into this file, which is there and empty. Raises StoreUnavailable.

        Whoever reads need not wait. The copy has been synced by nobody. What is read for it may be other than what was
        written, where that never came to the disk: a copy whose tables and indexes do not agree is Damaged.
        """
        with self._write_lock, self._translated():
            self._writer.execute("VACUUM INTO ?", (str(path),))
            copy = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, vfs=self._disk.vfs)
            with contextlib.closing(copy):
                ((found,),) = copy.execute("PRAGMA integrity_check(1)").fetchall()
            if found != "ok":
                raise Damaged(f"{self.path.name}: the copy is not whole: {found}")

    def log_octets(self) -> int:
        """How large the log is on the disk."""
        try:
            return os.stat(f"{self.path}-wal").st_size
        except FileNotFoundError:
            return 0

    def free_octets(self) -> int:
        """How much of the file itself is free: what is written there does not make it larger.

        Never waits for somebody who is reading: then it is what it was the last time.
        """
        if self._read_lock.acquire(blocking=False):
            try:
                with self._translated():
                    ((pages,),) = self._reader.execute("PRAGMA freelist_count").fetchall()
                    ((octets,),) = self._reader.execute("PRAGMA page_size").fetchall()
            finally:
                self._read_lock.release()
            self._free_octets = cast(int, pages) * cast(int, octets)
        return self._free_octets

    def abandon(self) -> None:
        """Let go of a file without writing anything more to it."""
        for connection in (self._reader, self._writer):
            with contextlib.suppress(apsw.Error):
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self.close()

    def close(self) -> None:
        """Let go of the file; a second time does nothing. What can't be written back now is so at the next start."""
        # The reader first: the last connection to go writes the log back, and only one that may write can.
        with self._read_lock, contextlib.suppress(apsw.Error):
            self._reader.close()
        with self._write_lock, contextlib.suppress(apsw.Error):
            self._writer.close()

    def _is_settled(self, collections: Sequence[Collection]) -> bool:
        with self._translated():
            # One transaction, so that what is compared is of one moment.
            self._writer.execute("BEGIN")
            try:
                return is_settled(self._writer, collections)
            finally:
                self._roll_back(self._writer.cursor())

    def _connect(self) -> apsw.Connection:
        connection = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=self._disk.vfs)
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        # A misspelt column is an error, not the text of its name.
        connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
        connection.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
        # One statement a call: apsw stops at the first that returns rows.
        for setting in _SETTINGS:
            connection.execute(f"PRAGMA {setting}").fetchall()
        connection.execute("PRAGMA synchronous=FULL", can_cache=False)
        return connection

    def _commit(self, cursor: apsw.Cursor) -> None:
        try:
            cursor.execute("COMMIT")
        except apsw.BusyError:
            raise
        except apsw.Error:
            # The log may hold the whole transaction, and only its fsync have failed: to this process it never was, but
            # a crash now would bring it back at the next start. What is cut off can't.
            self._roll_back(cursor)
            self._cut_off_the_rest()
            raise

    def _cut_off_the_rest(self) -> None:
        """Cut off what is in the log behind the last commit. Nobody reads there, and the next commit goes there."""
        try:
            # So that no other process is the next one meanwhile.
            self._writer.execute("BEGIN IMMEDIATE")
            with self._read_lock:
                # Only who has read something has the log open, and can tell how far it goes.
                self._reader.execute("SELECT count(*) FROM sqlite_schema").fetchall()
                frames, _ = self._reader.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
            ((page_octets,),) = self._writer.execute("PRAGMA page_size").fetchall()
            assert isinstance(page_octets, int)
            assert frames >= 0
            kept = _LOG_HEADER_OCTETS + frames * (_FRAME_HEADER_OCTETS + page_octets)
            if self.log_octets() > kept:
                self._disk.cut(self.path.with_name(f"{self.path.name}-wal"), kept)
        except (apsw.Error, OSError):
            self.undecided = True
        finally:
            self._roll_back(self._writer.cursor())

    def _note_log(self, connection: apsw.Connection, name: str, pages: int) -> int:
        # In place of SQLite's own checkpoints, whose errors nobody hears.
        self._log_pages = pages
        return apsw.SQLITE_OK

    def _write_back(self, mode: int) -> None:
        """Write the log back into the file, as far as can be now. An error is remembered and not raised."""
        try:
            self._writer.wal_checkpoint(mode=mode)
        except apsw.Error as error:
            if self._is_uncertain(error):
                self.failure = str(error)

    def _is_uncertain(self, error: BaseException) -> bool:
        return isinstance(error, apsw.IOError) and _extended(error) in _UNCERTAIN

    def _roll_back(self, cursor: apsw.Cursor) -> None:
        # Some errors have ended the transaction already, and one while ending it is not the one to tell about: SQLite
        # is out of the transaction in any case.
        if self._writer.in_transaction:
            with contextlib.suppress(apsw.Error):
                cursor.execute("ROLLBACK")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except apsw.ConstraintError as error:
            duplicate = self._duplicate(error)
            if duplicate is None:
                raise
            raise duplicate from error
        except apsw.Error as error:
            # Also where the log's index can't grow: SQLite calls that an error of the disk.
            if isinstance(error, apsw.FullError) or _extended(error) == apsw.SQLITE_IOERR_SHMSIZE:
                raise StoreFull(f"{self.path.name}: the disk is full") from error
            if self._is_uncertain(error):
                raise DiskFailed(f"{self.path.name}: the disk reports an error") from error
            for kind, cause in _DAMAGE:
                if isinstance(error, kind):
                    raise Damaged(f"{self.path.name}: {cause}") from error
            for kind, cause in _CAUSES:
                if isinstance(error, kind):
                    raise StoreUnavailable(f"{self.path.name}: {cause}") from error
            raise

    def _duplicate(self, error: apsw.ConstraintError) -> Duplicate | None:
        if _extended(error) not in (
            apsw.SQLITE_CONSTRAINT_UNIQUE,
            apsw.SQLITE_CONSTRAINT_PRIMARYKEY,
        ):
            return None
        # SQLite says which: "UNIQUE constraint failed: aliases.domain_id, aliases.pattern"
        pairs = [name.split(".") for name in str(error).rpartition(": ")[2].split(", ")]
        return Duplicate(self._collections[pairs[0][0]], tuple(field for _table, field in pairs))


_AT_ONCE = (64, 16, 4, 1)
"""Rows in one statement. Few sizes, so that every text is soon found prepared."""


def execute_for(cursor: apsw.Cursor, statement: Callable[[int], str], rows: Sequence[Sequence[StoredValue]]) -> None:
    """Execute for all of these rows in few statements; `statement` gives the text for so many rows at once.

    SQLite would be as quick row by row. But each statement lets go of the interpreter's lock and has to get it back
    from the thread that serves the network, and that costs both of them far more than the statement itself.
    """
    done = 0
    for size in _AT_ONCE:
        while len(rows) - done >= size:
            cursor.execute(statement(size), tuple(itertools.chain.from_iterable(rows[done : done + size])))
            done += size


def _extended(error: BaseException) -> int:
    """SQLite's own number of an error. apsw sets it on each, and its stubs do not know."""
    return getattr(error, "extendedresult", apsw.SQLITE_IOERR)


def _make_private_file(path: Path, disk: Disk) -> None:
    """Make the file, empty and durable by name, or shut one that is there. SQLite gives its mode to -wal and -shm."""
    try:
        disk.create(path)
    except FileExistsError:
        # By name only: to open and close a file that SQLite has open would drop its locks (POSIX fcntl).
        for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            # Another process may be closing the last connection, and then -wal and -shm go.
            with contextlib.suppress(FileNotFoundError):
                if stat.S_IMODE(file.stat().st_mode) != PRIVATE_FILE_MODE:
                    file.chmod(PRIVATE_FILE_MODE)


def _enter_wal(connection: apsw.Connection) -> None:
    """The file says for itself that it is in WAL mode; the first process to open it writes that down."""
    patience_ends = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            ((mode,),) = connection.execute("PRAGMA journal_mode=WAL").fetchall()
        except apsw.BusyError:
            # Here alone SQLite does not wait: another process is changing the mode at this moment.
            if time.monotonic() > patience_ends:
                raise
            time.sleep(0.005)
        else:
            if mode != "wal":
                # SQLite says no in this way where the file system has no shared memory: a network file system.
                raise StoreUnavailable("the data directory lies on a file system that can't keep a write-ahead log")
            return
