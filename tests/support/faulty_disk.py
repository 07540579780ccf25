"""A disk that fails when told to: a SQLite file layer over the real one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import apsw

from appliance.storage.disk import Disk


class FaultyDisk(apsw.VFS):
    """Passes everything on to the real disk, counts syncs, and raises what `failing` says instead."""

    NAME = "faulty-disk"

    def __init__(self) -> None:
        super().__init__(self.NAME, "")
        self.syncs = 0
        self.write_error: apsw.Error | None = None
        self.sync_errors: list[apsw.Error] = []
        self.disk = Disk()
        """This disk, as the stores take it."""
        self.disk.vfs = self.NAME

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _File(self, name, flags)

    @contextmanager
    def failing(self, *, write: apsw.Error | None = None, sync: Sequence[apsw.Error] = ()) -> Iterator[None]:
        """Within this block, every write raises this error, and each of the next syncs raises one of these."""
        self.write_error, self.sync_errors = write, list(sync)
        try:
            yield
        finally:
            self.write_error, self.sync_errors = None, []


class _File(apsw.VFSFile):
    def __init__(self, disk: FaultyDisk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._disk = disk

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._disk.write_error is not None:
            raise self._disk.write_error
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._disk.syncs += 1
        if self._disk.sync_errors:
            raise self._disk.sync_errors.pop(0)
        super().xSync(flags)
