"""A real file system of a few megabytes, for one child process that no other process can see into."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_ENTER = ["unshare", "--map-root-user", "--mount"]
_MOUNT = 'mount -t tmpfs -o size="$1" small-disk "$2" && shift 2 && exec "$@"'


def on_a_small_disk(size: str, directory: Path, script: str, *, timeout_s: float = 60) -> list[Any]:
    """Run a Python script whose first argument is a directory on a file system of this size (`10m`).

    Returns what it has printed, a JSON value in each line. Skips the test where this user may not mount anything.
    """
    if shutil.which("unshare") is None or subprocess.run([*_ENTER, "true"], capture_output=True).returncode != 0:
        pytest.skip("this user may not mount a file system, not even for himself")
    root = Path(__file__).parents[2]
    directory.mkdir(exist_ok=True)
    done = subprocess.run(
        [*_ENTER, "sh", "-c", _MOUNT, "sh", size, str(directory), sys.executable, "-c", script, str(directory)],
        cwd=root,
        env={"PYTHONPATH": f"{root}:{root / 'tests/support'}", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
