"""One appliance on one data directory: two would deliver the same mail twice.

The lock is an flock on `<data_dir>/lock`. A forked child inherits it, so that it is held until the last process of an
appliance is gone, however it went.
"""

import fcntl
import os
import time
from pathlib import Path

from appliance.run import CannotStart

WAIT_S = 2.0
"""How long to wait for the lock: the children of an appliance that was just killed need a moment to be gone."""

_LOOK_AGAIN_S = 0.05


def hold(data_dir: Path) -> bool:
    """Make the data directory where it is missing, and hold it until this process and its children have ended.

    Returns whether an appliance ran here before. Raises CannotStart.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotStart(
            f"the data directory {data_dir} cannot be written: {error.strerror}; "
            "give it to the user that runs the appliance, or choose another with data_dir"
        ) from None
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
                os.close(fd)
                raise CannotStart(f"another appliance runs on this data directory (pid {holder}): {data_dir}") from None
            time.sleep(_LOOK_AGAIN_S)
    ran_before = os.fstat(fd).st_size > 0
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        raise CannotStart(f"the data directory {data_dir} cannot be written: {error.strerror}") from None
    return ran_before
