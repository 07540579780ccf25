"""Room on the disk for mail under way: how much there is, and a little that is kept back.

A spool on a full disk must still be able to do two things: to write down what became of the mail that it has, and to
erase. Both need room before they give any back (what is erased is overwritten, and that is written to the log first).
So new mail is refused while a floor is still free; and for the day when somebody else fills the disk up to the brim, a
file of real blocks lies in reserve, which is deleted then and made again later.
"""

import contextlib
import os
from pathlib import Path

from appliance.storage.directory import PRIVATE_FILE_MODE
from appliance.storage.records import StoreUnavailable

FLOOR_OCTETS = 16 << 20
"""New mail takes no more than leaves this much free."""

RESERVE_OCTETS = 20 << 20
"""What lies in reserve: enough to write back the largest log that stands between two checkpoints (16 MiB), and to write
the first outcomes."""

SMALLEST_SHARE = 16
"""On a small disk, neither is more than one part in so many of the whole."""


class Room:
    """The room in the file system of one directory, and the reserve in it. Thread-safe as far as its callers need."""

    def __init__(self, reserve: Path) -> None:
        """`reserve` is the file that lies in reserve. Raises OSError where its directory does not exist."""
        directory = reserve.parent
        system = os.statvfs(directory)
        share = system.f_blocks * system.f_frsize // SMALLEST_SHARE
        self._directory = directory
        self._reserve = reserve
        self._reserve_octets = min(RESERVE_OCTETS, share)
        self.floor = min(FLOOR_OCTETS, share)
        """Octets that new mail leaves free. Half of it is for logs: of what needs no room in the file itself."""
        self.reserved = False
        """The reserve is there."""

    def free(self) -> int:
        """Octets that are free now. Raises StoreUnavailable."""
        try:
            system = os.statvfs(self._directory)
        except OSError as error:
            raise StoreUnavailable(f"{self._directory}: {error.strerror}") from error
        return system.f_bavail * system.f_frsize

    def reserve(self) -> bool:
        """See that the reserve is there, where there is room for it and for the floor. Returns whether it is."""
        with contextlib.suppress(OSError, StoreUnavailable):
            found = self._reserve.stat() if self._reserve.exists() else None
            if found is not None and found.st_size == self._reserve_octets <= found.st_blocks * 512:
                self.reserved = True
            elif not self.reserved and self.free() >= self._reserve_octets + self.floor:
                self._make()
        return self.reserved

    def give_up(self) -> None:
        """Delete the reserve, so that its room can be used."""
        self.reserved = False
        with contextlib.suppress(OSError):
            self._reserve.unlink(missing_ok=True)

    def _make(self) -> None:
        descriptor = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE_MODE)
        try:
            os.posix_fallocate(descriptor, 0, self._reserve_octets)
        except OSError:
            # Somebody else was quicker.
            self.give_up()
        else:
            self.reserved = True
        finally:
            os.close(descriptor)
