"""A wall clock that can be set while the appliance runs: libfaketime between Python and the system's clock.

Only the wall clock is false. What counts elapsed time (CLOCK_MONOTONIC, CLOCK_BOOTTIME) goes on as it does, which is
what happens on a machine whose clock is set.
"""

import os
from collections.abc import Mapping
from pathlib import Path

_LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


class FalseClock:
    """One wall clock, for the processes that run with its `environment`."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self.set_days(0)

    @staticmethod
    def is_installed() -> bool:
        """Whether libfaketime is there; tests/install-peers brings it."""
        return bool(_LIBRARIES)

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs to believe it."""
        return {
            "LD_PRELOAD": str(_LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_NO_CACHE": "1",
        }

    def set_days(self, days: int) -> None:
        """Set it so many days ahead of the true time, or behind."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{days:+d}d\n", encoding="ascii")
        os.replace(new, self._file)
