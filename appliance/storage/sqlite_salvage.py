"""A database that goes on in a fresh file when the disk has failed under the old one.

After a write or a sync that failed, nobody knows what the disk has, and to try again proves nothing (see
`sqlite_database.py`). So nothing is tried again on that file: what was committed is read through the connection that is
still open, written into a new file, and that one is used from then on. The old one is erased.

The files of a store are numbered: `spool.sqlite`, then `spool-2.sqlite` and so on. The highest number counts:

    spool.sqlite                          in use
    spool.sqlite, spool-2.sqlite.new      the salvage is being written; it counts for nothing
    spool.sqlite, spool-2.sqlite          looked through, synced, renamed, and with its log durable by name: it counts
    spool-2.sqlite                        the old one is erased with its log

Until then nothing new is written to either: killed at any instant, a start finds one or two files that say the same.
"""

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import apsw

from appliance.privacy.declarations import Collection
from appliance.storage.codec import StoredValue
from appliance.storage.disk import THE_DISK, Disk
from appliance.storage.records import StoreFull, StoreUnavailable
from appliance.storage.spool import Undecided
from appliance.storage.sqlite_database import Database, DiskFailed

SALVAGE_EVERY_S = 3.0
"""How often a salvage that has failed is tried again: a disk that comes back is noticed soon, and one that does not is
not written to all the time."""

_log = logging.getLogger(__name__)


class LastingDatabase:
    """The verbs of `Database`, on the file that counts. Thread-safe; one process may have it open."""

    def __init__(
        self,
        path: Path,
        collections: Sequence[Collection],
        *,
        disk: Disk = THE_DISK,
        make_room: Callable[[], None] = lambda: None,
    ) -> None:
        """Open the file with the highest number, or make the one without; `path` is the name without a number.

        `make_room` is called where there is no room for a salvage. Raises StoreUnavailable, SchemaMismatch.
        """
        self._path = path
        self._collections = collections
        self._disk = disk
        self._make_room = make_room
        self._lock = threading.RLock()
        self._failure: str | None = None
        self._salvage_at = float("-inf")
        self.undecided = False
        """A group has failed and may be found by the next start: nobody may be told what became of it."""
        try:
            self._number = max(numbers_of(path, disk), default=1)
            self._renew_log(self._numbered(self._number))
        except OSError as error:
            raise StoreUnavailable(f"{path.parent}: {error.strerror}") from error
        self._database = self._opened(self._numbered(self._number))
        self._erase_the_others()
        # What the log says goes into the file now, so that no later start has to do with it again.
        self._database.cut_log()
        self._look_for_failure()

    @property
    def failure(self) -> str | None:
        """Why nothing can be written now; None where it can."""
        return self._failure

    @property
    def current(self) -> Database:
        """The file that counts."""
        return self._database

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[apsw.Cursor]:
        """See `Database`. Raises Undecided where it has failed and may come back."""
        with self._lock:
            self.salvage()
            database = self._database
            try:
                with database.transaction(durable=durable) as cursor:
                    yield cursor
            except StoreUnavailable as error:
                self.undecided = durable and database.undecided
                if isinstance(error, DiskFailed) or self.undecided:
                    self._give_up(str(error))
                    with contextlib.suppress(StoreUnavailable):
                        self.salvage()
                if self.undecided:
                    raise Undecided(str(error)) from error
                raise
            self._look_for_failure()

    def read(self, statement: str, values: Sequence[StoredValue] = ()) -> list[tuple[StoredValue, ...]]:
        """See `Database`."""
        database = self._database
        try:
            return database.read(statement, values)
        except StoreUnavailable:
            if database is self._database:
                raise
            # It has been put aside meanwhile.
            return self._database.read(statement, values)

    def cut_log(self) -> None:
        """See `Database`."""
        with self._lock:
            if self._failure is None:
                self._database.cut_log()
                self._look_for_failure()

    def log_octets(self) -> int:
        """See `Database`."""
        return self._database.log_octets()

    def free_octets(self) -> int:
        """See `Database`."""
        return self._database.free_octets()

    def salvage(self) -> None:
        """Where the disk has failed, go on in a fresh file; not more often than it makes sense to try.

        Raises StoreUnavailable where that can't be done now. Does nothing where nothing has failed.
        """
        with self._lock:
            if self._failure is None:
                return
            if time.monotonic() < self._salvage_at:
                raise StoreUnavailable(self._failure)
            try:
                self._go_over()
            except StoreUnavailable as error:
                if self._salvage_at == float("-inf"):
                    _log.error("%s, and no fresh file can be begun yet: %s", self._failure, error)
                self._salvage_at = time.monotonic() + SALVAGE_EVERY_S
                raise StoreUnavailable(self._failure) from error
            _log.warning("%s: going on in the fresh file %s", self._failure, self._database.path.name)
            self._failure = None
            self.undecided = False
            self._look_for_failure()

    def close(self) -> None:
        """See `Database`. A file under which the disk has failed is left as it is."""
        with self._lock:
            if self._failure is None:
                self._database.close()
            else:
                self._database.abandon()

    def _look_for_failure(self) -> None:
        if self._database.failure is not None:
            self._give_up(f"{self._database.path.name}: the disk reports an error")

    def _give_up(self, reason: str) -> None:
        self._failure = reason
        self._salvage_at = float("-inf")

    def _go_over(self) -> None:
        """Begin a fresh file with all that is committed in the old one. Raises StoreUnavailable."""
        old = self._database
        try:
            # A number is never used twice: the log of another file of that name would be taken for its own.
            number = max(_numbers(self._path, self._disk.names(self._path.parent))) + 1
            # What was finished the last time and could not be opened would fill the disk in the end.
            self._erase_the_others()
            path = self._numbered(number)
            unfinished = path.with_name(f"{path.name}.new")
            try:
                self._copy(old, unfinished)
            except StoreUnavailable:
                # Others need the room meanwhile.
                self._disk.erase(unfinished)
                raise
            self._disk.sync(unfinished)
            self._disk.rename(unfinished, path)
        except OSError as error:
            raise StoreUnavailable(f"{self._path.parent}: {error.strerror}") from error
        self._database = self._opened(path)
        self._number = number
        self._erase_the_others()
        old.abandon()

    def _renew_log(self, path: Path) -> None:
        """Make a log that somebody has left behind as durable as it looks. Raises OSError.

        He may have been killed after a sync had failed: it is all there to be read, and may be on no disk. SQLite would
        sync it, which proves nothing, and then write into the file what the log has to be there for.
        """
        log = path.with_name(f"{path.name}-wal")
        if log.exists():
            self._disk.renew(log)

    def _opened(self, path: Path) -> Database:
        """Open a file, durable by name with its log. Raises StoreUnavailable, SchemaMismatch.

        SQLite syncs the name of its log with the first commit, and says nothing where that fails. Without the name,
        all that is in the log would be gone. And whoever made the file may have been killed before its own name was
        durable: the others are there until it is.
        """
        database = Database(path, self._collections, disk=self._disk)
        try:
            self._disk.sync_directory(path.parent)
        except OSError as error:
            database.close()
            raise StoreUnavailable(f"{path.parent}: {error.strerror}") from error
        return database

    def _copy(self, old: Database, unfinished: Path) -> None:
        self._disk.erase(unfinished)
        self._disk.create(unfinished)
        try:
            old.copy_into(unfinished)
        except StoreFull:
            self._make_room()
            self._disk.erase(unfinished)
            self._disk.create(unfinished)
            old.copy_into(unfinished)

    def _erase_the_others(self) -> None:
        """Erase every file of this store but the one that counts, finished or not, with what belongs to it."""
        kept = self._numbered(self._number).name
        with contextlib.suppress(OSError):
            others = [
                name
                for name in self._disk.names(self._path.parent)
                if (found := _pattern(self._path).fullmatch(name)) and found["file"] != kept
            ]
            for name in others:
                self._disk.erase(self._path.with_name(name))
            if others:
                self._disk.sync_directory(self._path.parent)

    def _numbered(self, number: int) -> Path:
        return self._path if number == 1 else self._path.with_stem(f"{self._path.stem}-{number}")


def numbers_of(path: Path, disk: Disk = THE_DISK) -> list[int]:
    """The numbers of the finished files of a store; `path` is the name without a number. Raises OSError."""
    finished = [name for name in disk.names(path.parent) if name.endswith(path.suffix)]
    return _numbers(path, finished)


def _numbers(path: Path, names: Sequence[str]) -> list[int]:
    """The numbers in these names, of whatever belongs to this store."""
    found = [match for name in names if (match := _pattern(path).fullmatch(name))]
    return [int(match["number"] or 1) for match in found]


def _pattern(path: Path) -> re.Pattern[str]:
    name = rf"(?P<file>{re.escape(path.stem)}(-(?P<number>[0-9]+))?{re.escape(path.suffix)})"
    return re.compile(rf"{name}(-wal|-shm|-journal|\.new|\.new-journal)?")
