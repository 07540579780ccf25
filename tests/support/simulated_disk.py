"""A disk whose power can be cut at any instant.

`SimulatedDisk` works on a real directory and writes down, in order, everything that is done to it: by SQLite through a
file layer of our own, by the stores through the verbs of `Disk`. `power_cuts` replays that list and says, for each
point in it, in which states a real disk may be found when the power comes back:

    ordered     everything that was asked for up to then is there: the process died, or the disk writes in order
    lost        only what was synced is there, and only names whose directory was synced
    written     any part of what was not synced is there: whole writes and single sectors of them, in any selection,
                and so of the names

After a sync that failed, what it was about stays uncertain for ever: a later sync that succeeds says nothing about it,
as with kernels that drop what they could not write ("Can Applications Recover from fsync Failures?", USENIX ATC 2020).

Two syncs of SQLite's are not believed in. The first of a log syncs its directory too, and passes over it where that
fails (`unixSync`); and VACUUM INTO need not sync what it writes (https://sqlite.org/lang_vacuum.html). That of a
rollback journal is: one is written only when a file is put into WAL mode, for a few octets of its first sector.
"""

import errno
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from appliance.storage.disk import Disk, Space

SECTORS = (512, 4096)
"""What a disk writes whole or not at all."""

_LIKELY = (0.1, 0.5, 0.9, 1.0)
"""How likely it is that something is there that was not synced, each as often as the other."""

ROOM = 1 << 20
"""How large the stores take this disk for: what they keep back is a part of it, and no test waits for that."""


@dataclass(frozen=True, slots=True)
class Write:
    """Octets were written."""

    file: int
    offset: int
    octets: bytes


@dataclass(frozen=True, slots=True)
class Cut:
    """A file was made so short."""

    file: int
    octets: int


@dataclass(frozen=True, slots=True)
class Sync:
    """A file was synced, or that failed."""

    file: int
    ok: bool = True


@dataclass(frozen=True, slots=True)
class Name:
    """A name now leads to this file; None where it leads nowhere any more. `of` is the name that it had before."""

    name: str
    file: int | None
    of: str | None = None


@dataclass(frozen=True, slots=True)
class SyncNames:
    """The directory was synced."""


@dataclass(frozen=True, slots=True)
class Said:
    """Not a deed: a word of whoever uses the disk, with the instant at which it was said."""

    word: object


Deed = Write | Cut | Sync | Name | SyncNames | Said
Files = dict[str, bytes]
"""What is in a directory."""


class SimulatedDisk(Disk):
    """A real directory whose deeds are written down. To be unregistered by `close`."""

    def __init__(self, name: str = "simulated-disk") -> None:
        self.vfs = name
        self.deeds: list[Deed] = []
        self.sync_failures = 0
        """How many of the next syncs fail."""
        self.capacity: int | None = None
        """How many octets all files together may have; None for no limit."""
        self._files: dict[str, int] = {}
        self._next = 0
        self._layer = _Layer(name, self)

    def close(self) -> None:
        self._layer.unregister()

    def say(self, word: object) -> None:
        """Write down a word between the deeds."""
        self.deeds.append(Said(word))

    # ------------------------------------------------------------------ the verbs of Disk

    def create(self, path: Path) -> None:
        super().create(path)
        self.made(path.name)
        self.deeds.append(SyncNames())

    def cut(self, path: Path, octets: int) -> None:
        super().cut(path, octets)
        self.deeds.append(Cut(self._files[path.name], octets))
        self._sync(path)

    def sync(self, path: Path) -> None:
        super().sync(path)
        self._sync(path)

    def renew(self, path: Path) -> None:
        super().renew(path)
        file = self.made(path.name)
        self.deeds.append(Write(file, 0, path.read_bytes()))
        self._sync(path)

    def rename(self, path: Path, to: Path) -> None:
        super().rename(path, to)
        self._files[to.name] = self._files.pop(path.name)
        self.deeds.append(Name(to.name, self._files[to.name], path.name))

    def erase(self, path: Path) -> None:
        super().erase(path)
        self.erased(path.name)

    def sync_directory(self, directory: Path) -> None:
        super().sync_directory(directory)
        self.deeds.append(SyncNames())

    def space(self, directory: Path) -> Space:
        taken = sum(path.stat().st_size for path in directory.iterdir() if path.suffix != ".reserve")
        return Space(1 << 30 if self.capacity is None else max(0, self.capacity - taken), None, ROOM)

    # ------------------------------------------------------------------ what the file layer tells

    def made(self, name: str) -> int:
        if name not in self._files:
            self._files[name] = self._new_file()
            self.deeds.append(Name(name, self._files[name]))
        return self._files[name]

    def erased(self, name: str) -> None:
        if self._files.pop(name, None) is not None:
            self.deeds.append(Name(name, None))

    def synced(self, file: int) -> None:
        failing = self.sync_failures > 0
        self.sync_failures -= failing
        self.deeds.append(Sync(file, ok=not failing))
        if failing:
            raise io_error(apsw.SQLITE_IOERR_FSYNC)

    def _sync(self, path: Path) -> None:
        try:
            self.synced(self._files[path.name])
        except apsw.IOError as error:
            raise OSError(errno.EIO, "the disk reports an error", str(path)) from error

    def _new_file(self) -> int:
        self._next += 1
        return self._next


def io_error(number: int) -> apsw.IOError:
    """The error of this extended number, as a file layer raises it."""
    error = apsw.IOError("the disk reports an error")
    error.extendedresult = number  # type: ignore[attr-defined]
    return error


class _Layer(apsw.VFS):
    def __init__(self, name: str, disk: SimulatedDisk) -> None:
        super().__init__(name, "")
        self._disk = disk

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _File(self._disk, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        self._disk.erased(Path(filename).name)
        if syncdir:
            self._disk.deeds.append(SyncNames())


class _File(apsw.VFSFile):
    def __init__(self, disk: SimulatedDisk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._disk = disk
        assert name is not None, "a file without a name"
        self._path = Path(name if isinstance(name, str) else name.filename())
        self._file = disk.made(self._path.name)
        # As SQLite does it itself: with the first sync of a file that it has made, its name is there too.
        self._syncs_names = bool(flags[0] & (apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL))

    def xWrite(self, data: bytes, offset: int) -> None:
        capacity = self._disk.capacity
        if capacity is not None and offset + len(data) > self._path.stat().st_size:
            taken = sum(path.stat().st_size for path in self._path.parent.iterdir() if path.suffix != ".reserve")
            if taken + len(data) > capacity:
                raise apsw.FullError("the disk is full")
        super().xWrite(data, offset)
        self._disk.deeds.append(Write(self._file, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        super().xTruncate(newsize)
        self._disk.deeds.append(Cut(self._file, newsize))

    def xSync(self, flags: int) -> None:
        if self._path.suffix != ".new":
            self._disk.synced(self._file)
        super().xSync(flags)
        if self._syncs_names:
            self._disk.deeds.append(SyncNames())
            self._syncs_names = False


def contents(directory: Path) -> Files:
    """What is in a directory and would be found after a power cut; what only processes share is not."""
    return {
        path.name: path.read_bytes()
        for path in directory.iterdir()
        if not path.name.endswith("-shm") and path.suffix != ".reserve"
    }


# ------------------------------------------------------------------ after the power cut


@dataclass(slots=True)
class _Inode:
    """One file: what is certainly there, and behind it what was done since, in order. True: that is certain too."""

    certain: bytearray = field(default_factory=bytearray)
    since: list[tuple[Write | Cut, bool]] = field(default_factory=list)
    lost_for_good: int = 0
    """How many of the first of `since` no sync makes certain any more."""

    def sync(self) -> None:
        if self.lost_for_good == 0:
            for deed, _ in self.since:
                _do(deed, self.certain)
            self.since.clear()
        else:
            self.since = [(deed, sure or n >= self.lost_for_good) for n, (deed, sure) in enumerate(self.since)]

    def fail(self) -> None:
        self.lost_for_good = len(self.since)


class Replay:
    """The disk at one point of the list of deeds."""

    def __init__(self) -> None:
        self._inodes: dict[int, _Inode] = {}
        self._names: dict[str, int] = {}
        self._names_since: list[Name] = []

    @property
    def is_uncertain(self) -> bool:
        """Something was done, and it is not certain that it is there."""
        return bool(self._names_since) or any(not sure for inode in self._inodes.values() for _, sure in inode.since)

    def go_on(self, deed: Deed) -> None:
        """The next deed."""
        match deed:
            case Write() | Cut():
                self._inodes[deed.file].since.append((deed, False))
            case Sync(file, ok):
                if ok:
                    self._inodes[file].sync()
                else:
                    self._inodes[file].fail()
            case Name(_, file):
                if file is not None:
                    self._inodes.setdefault(file, _Inode())
                self._names_since.append(deed)
            case SyncNames():
                for each in self._names_since:
                    _rename(each, self._names)
                self._names_since.clear()
            case Said():
                pass

    def ordered(self) -> Files:
        """Everything that was asked for is there."""
        return self._found(None, 1.0)

    def lost(self) -> Files:
        """Nothing is there that was not synced."""
        return self._found(None, 0.0)

    def written(self, lots: random.Random) -> Files:
        """Some of what was not synced is there."""
        return self._found(lots, lots.choice(_LIKELY), lots.choice(_LIKELY))

    def _found(self, lots: random.Random | None, likely: float, cut_likely: float = 0.0) -> Files:
        def happened(deed: Deed | None = None) -> bool:
            if lots is None:
                return likely == 1.0
            return lots.random() < (cut_likely if isinstance(deed, Cut) else likely)

        names = dict(self._names)
        for each in self._names_since:
            if happened():
                _rename(each, names)
        found = {}
        for name, file in names.items():
            inode = self._inodes[file]
            octets = bytearray(inode.certain)
            for deed, sure in inode.since:
                if sure or happened(deed):
                    _do(deed, octets)
                elif lots is not None and isinstance(deed, Write) and lots.random() < 0.5:
                    for piece in _sectors(deed, lots.choice(SECTORS)):
                        if happened():
                            _do(piece, octets)
            found[name] = bytes(octets)
        return found


def _do(deed: Write | Cut, octets: bytearray) -> None:
    if isinstance(deed, Cut):
        del octets[deed.octets :]
        return
    if len(octets) < deed.offset:
        octets.extend(bytes(deed.offset - len(octets)))
    octets[deed.offset : deed.offset + len(deed.octets)] = deed.octets


def _rename(deed: Name, names: dict[str, int]) -> None:
    if deed.of is not None:
        names.pop(deed.of, None)
    if deed.file is None:
        names.pop(deed.name, None)
    else:
        names[deed.name] = deed.file


def _sectors(deed: Write, size: int) -> Iterator[Write]:
    """A write in pieces that end where sectors of the file end."""
    at = 0
    while at < len(deed.octets):
        end = min(len(deed.octets), at + size - (deed.offset + at) % size)
        yield Write(deed.file, deed.offset + at, deed.octets[at:end])
        at = end


def power_cuts(deeds: Sequence[Deed], lots: random.Random) -> Iterator[tuple[int, Files]]:
    """States of a disk that was empty, each with the number of deeds begun by then.

    First two for every point, and then again and again one drawn for each at which something is uncertain, without an
    end. Many are alike.
    """
    points = {0, *(n + 1 for n, deed in enumerate(deeds) if not isinstance(deed, Said))}
    for point, replay in _replayed(deeds):
        if point in points:
            yield point, replay.ordered()
            yield point, replay.lost()
    while True:
        for point, replay in _replayed(deeds):
            if point in points and replay.is_uncertain:
                yield point, replay.written(lots)


def after_all(deeds: Sequence[Deed]) -> Files:
    """What is there when everything has been done."""
    *_, (_, replay) = _replayed(deeds)
    return replay.ordered()


def _replayed(deeds: Sequence[Deed]) -> Iterator[tuple[int, Replay]]:
    replay = Replay()
    yield 0, replay
    for n, deed in enumerate(deeds):
        replay.go_on(deed)
        yield n + 1, replay
