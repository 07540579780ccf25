"""Room on the disk for mail under way: how much there is, and a little that is kept back.

A spool on a full disk must still be able to do two things: to write down what became of the mail that it has, and to
erase. Both need room before they give any back (what is erased is overwritten, and that is written to the log first).
So new mail is refused while a floor is still free; and for the day when somebody else fills the disk up to the brim, a
file of real blocks lies in reserve, which is deleted then and made again later.
"""

import contextlib
from pathlib import Path

from appliance.storage.disk import THE_DISK, Disk, Space
from appliance.storage.records import StoreUnavailable

FLOOR_OCTETS = 16 << 20
"""New mail takes no more than leaves this much free."""

FLOOR_FILES = 16
"""New mail is taken while so many files can still be made: a spool that goes over to a fresh file needs five."""

RESERVE_OCTETS = 64 << 20
"""What lies in reserve: enough to write back the log as large as a burst may leave it (`WAL_OCTETS_KEPT`), and with it
the outcomes of all mail that is under way."""

SMALLEST_SHARE = 16
"""On a small disk, neither is more than one part in so many of the whole."""


class Room:
    """The room in the file system of one directory, and the reserve in it. Thread-safe as far as its callers need."""

    def __init__(self, reserve: Path, disk: Disk = THE_DISK) -> None:
        """`reserve` is the file that lies in reserve. Raises OSError where its directory does not exist."""
        self._disk = disk
        self._directory = reserve.parent
        self._reserve = reserve
        share = disk.space(self._directory).all_octets // SMALLEST_SHARE
        self._reserve_octets = min(RESERVE_OCTETS, share)
        self.floor = min(FLOOR_OCTETS, share)
        """Octets that new mail leaves free. Half of it is for logs: of what needs no room in the file itself."""
        self.reserved = False
        """The reserve is there."""

    def free(self) -> int:
        """Octets that are free now; none where hardly a file can be made any more. Raises StoreUnavailable."""
        space = self._space()
        return space.octets if space.files is None or space.files >= FLOOR_FILES else 0

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
            self._disk.erase(self._reserve)

    def _space(self) -> Space:
        try:
            return self._disk.space(self._directory)
        except OSError as error:
            raise StoreUnavailable(f"{self._directory}: {error.strerror}") from error

    def _make(self) -> None:
        try:
            self._disk.fill(self._reserve, self._reserve_octets)
        except OSError:
            # Somebody else was quicker.
            self.give_up()
        else:
            self.reserved = True
