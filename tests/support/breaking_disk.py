"""A disk on which one thing fails: the so-manyth read, write, sync and so on, once or from then on."""

import errno
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TypeVar

import apsw

from appliance.storage.disk import Disk, Space

T = TypeVar("T")

ROOM = 1 << 20
"""How large the stores take this disk for: what they keep back is a part of it."""


class Deed(Enum):
    """What can fail, and what SQLite calls that. Those without a number of SQLite are done by the stores alone."""

    READ = apsw.SQLITE_IOERR_READ
    WRITE = apsw.SQLITE_IOERR_WRITE
    SYNC = apsw.SQLITE_IOERR_FSYNC
    TRUNCATE = apsw.SQLITE_IOERR_TRUNCATE
    LOCK = apsw.SQLITE_IOERR_LOCK
    DELETE = apsw.SQLITE_IOERR_DELETE
    ACCESS = apsw.SQLITE_IOERR_ACCESS
    OPEN = apsw.SQLITE_CANTOPEN
    CREATE = "create"
    CUT = "cut"
    RENEW = "write once more"
    SYNC_FILE = "sync a file"
    SYNC_NAMES = "sync a directory"
    RENAME = "rename"
    ERASE = "erase"
    LIST = "list a directory"
    FILL = "fill"
    LOOK = "look how much room there is"


@dataclass(frozen=True, slots=True)
class Fault:
    """What fails: from which of these deeds on, and whether all that follow fail too, or only this one."""

    deed: Deed
    at: int
    for_ever: bool


class BreakingDisk(Disk):
    """The real disk, until the fault. To be unregistered by `close`."""

    def __init__(self, name: str = "breaking-disk") -> None:
        self.vfs = name
        self.fault: Fault | None = None
        self.done: Counter[Deed] = Counter()
        self.failed = 0
        """How many deeds have failed."""
        self._layer = _Layer(name, self)

    def close(self) -> None:
        self._layer.unregister()

    def fails(self, deed: Deed) -> bool:
        """Whether this deed, which somebody is about to do, fails."""
        self.done[deed] += 1
        fault, count = self.fault, self.done[deed]
        failing = (
            fault is not None and deed is fault.deed and (count == fault.at or (fault.for_ever and count > fault.at))
        )
        self.failed += failing
        return failing

    # ------------------------------------------------------------------ the verbs of Disk

    def names(self, directory: Path) -> list[str]:
        return self._do(Deed.LIST, lambda: super(BreakingDisk, self).names(directory))

    def create(self, path: Path) -> None:
        self._do(Deed.CREATE, lambda: super(BreakingDisk, self).create(path))

    def fill(self, path: Path, octets: int) -> None:
        self._do(Deed.FILL, lambda: super(BreakingDisk, self).fill(path, octets))

    def cut(self, path: Path, octets: int) -> None:
        self._do(Deed.CUT, lambda: super(BreakingDisk, self).cut(path, octets))

    def sync(self, path: Path) -> None:
        self._do(Deed.SYNC_FILE, lambda: super(BreakingDisk, self).sync(path))

    def renew(self, path: Path) -> None:
        self._do(Deed.RENEW, lambda: super(BreakingDisk, self).renew(path))

    def rename(self, path: Path, to: Path) -> None:
        self._do(Deed.RENAME, lambda: super(BreakingDisk, self).rename(path, to))

    def erase(self, path: Path) -> None:
        self._do(Deed.ERASE, lambda: super(BreakingDisk, self).erase(path))

    def sync_directory(self, directory: Path) -> None:
        self._do(Deed.SYNC_NAMES, lambda: super(BreakingDisk, self).sync_directory(directory))

    def space(self, directory: Path) -> Space:
        return self._do(Deed.LOOK, lambda: Space(1 << 30, None, ROOM))

    def _do(self, deed: Deed, really: Callable[[], T]) -> T:
        if self.fails(deed):
            raise OSError(errno.EIO, "the disk reports an error")
        return really()


class _Layer(apsw.VFS):
    def __init__(self, name: str, disk: BreakingDisk) -> None:
        super().__init__(name, "")
        self._disk = disk

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        if self._disk.fails(Deed.OPEN):
            raise apsw.CantOpenError("the disk reports an error")
        return _File(self._disk, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        _see(self._disk, Deed.DELETE)
        super().xDelete(filename, syncdir)

    def xAccess(self, pathname: str, flags: int) -> bool:
        _see(self._disk, Deed.ACCESS)
        return super().xAccess(pathname, flags)


class _File(apsw.VFSFile):
    def __init__(self, disk: BreakingDisk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._disk = disk

    def xRead(self, amount: int, offset: int) -> bytes:
        _see(self._disk, Deed.READ)
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:
        _see(self._disk, Deed.WRITE)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        _see(self._disk, Deed.SYNC)
        super().xSync(flags)

    def xTruncate(self, newsize: int) -> None:
        _see(self._disk, Deed.TRUNCATE)
        super().xTruncate(newsize)

    def xLock(self, level: int) -> None:
        _see(self._disk, Deed.LOCK)
        super().xLock(level)


def _see(disk: BreakingDisk, deed: Deed) -> None:
    if disk.fails(deed):
        raise _error(deed)


def _error(deed: Deed) -> apsw.IOError:
    error = apsw.IOError("the disk reports an error")
    error.extendedresult = deed.value  # type: ignore[attr-defined]
    return error
