"""What the stores do to the disk themselves: one screen of verbs, which tests can put another disk behind.

SQLite goes to the disk through a file layer of its own (a VFS); `vfs` names it, so that a disk is whole in one value.
Names are safe only once their directory has been synced: `rename` and `erase` alone promise nothing.

Every verb raises OSError.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from appliance.storage.directory import PRIVATE_FILE_MODE, sync_directory

RENEWED_AT_ONCE = 1 << 20
"""Octets of a file that are in memory while it is written once more."""


@dataclass(frozen=True, slots=True)
class Space:
    """What a file system has left, for us who are not root."""

    octets: int
    files: int | None
    """How many files can still be made (inodes); None where the file system sets no limit."""
    all_octets: int
    """How large it is, with what is taken."""


class Disk:
    """The real disk."""

    vfs: str | None = None
    """The file layer that SQLite goes through; None for its own."""

    def names(self, directory: Path) -> list[str]:
        """What is in a directory."""
        return os.listdir(directory)

    def create(self, path: Path) -> None:
        """Make an empty file for us alone, durable by name. FileExistsError where there is one."""
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE_MODE))
        sync_directory(path.parent)

    def fill(self, path: Path, octets: int) -> None:
        """Make a file of so many octets of real blocks, for us alone, in place of one that is there."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE_MODE)
        try:
            os.posix_fallocate(descriptor, 0, octets)
        finally:
            os.close(descriptor)

    def cut(self, path: Path, octets: int) -> None:
        """Make a file so short, durably."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.ftruncate(descriptor, octets)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync(self, path: Path) -> None:
        """Make what is in a file durable."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def renew(self, path: Path) -> None:
        """Write what is in a file to where it is once more, and make it durable: what a sync has failed to write may
        be in memory alone, and a later sync would not say so.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            offset = 0
            while octets := os.pread(descriptor, RENEWED_AT_ONCE, offset):
                offset += os.pwrite(descriptor, octets, offset)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, path: Path, to: Path) -> None:
        """Give a file another name; what had that name is gone."""
        path.rename(to)

    def erase(self, path: Path) -> None:
        """Remove a file; one that is not there is removed already."""
        path.unlink(missing_ok=True)

    def sync_directory(self, directory: Path) -> None:
        """Make the names in a directory durable."""
        sync_directory(directory)

    def space(self, directory: Path) -> Space:
        """How much room the file system of a directory has."""
        system = os.statvfs(directory)
        return Space(
            system.f_bavail * system.f_frsize,
            system.f_favail if system.f_files else None,
            system.f_blocks * system.f_frsize,
        )


THE_DISK = Disk()
"""The one that stores use unless they are told otherwise."""
