"""Real file systems that a test may fill, break and take away. Only root may have them; others' tests are skipped."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_BLOCK = 4096


class Mounted:
    """A file system of one's own, and the directory that it is mounted on."""

    def __init__(self, directory: Path, *mounting: str) -> None:
        self.directory = directory
        self._mounting = mounting

    def mount(self) -> None:
        _run("mount", *self._mounting, str(self.directory))

    def remount(self, options: str) -> None:
        _run("mount", "-o", f"remount,{options}", str(self.directory))

    def unmount(self) -> None:
        """What the disk does not have is gone: nothing stays in the memory of the machine."""
        _run("umount", str(self.directory))

    def fill(self, left: int = 0) -> Path:
        """Somebody else takes all the room but so many octets. Returns his file."""
        other = self.directory / "somebody-else"
        with contextlib.suppress(OSError), other.open("ab", buffering=0) as file:
            while os.statvfs(self.directory).f_bavail * _BLOCK > left:
                file.write(bytes(_BLOCK))
        return other


@contextlib.contextmanager
def tmpfs(directory: Path, size: str) -> Iterator[Mounted]:
    """One in memory, of this size (`24m`)."""
    directory.mkdir(parents=True, exist_ok=True)
    mounted = Mounted(directory, "-t", "tmpfs", "-o", f"size={size},mode=0700", "onward-test")
    _begin(mounted)
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


@contextlib.contextmanager
def ext4(directory: Path, image: Path, size: str) -> Iterator[Mounted]:
    """One without a journal, in an image that takes from its own file system only as much room as is written to it."""
    if shutil.which("mkfs.ext4") is None or not Path("/dev/loop-control").exists():
        pytest.skip("there is no mkfs.ext4 or no loop device here")
    directory.mkdir(parents=True, exist_ok=True)
    _run("truncate", "-s", size, str(image))
    _run("mkfs.ext4", "-q", "-F", "-O", "^has_journal", str(image))
    mounted = Mounted(directory, "-o", "loop,errors=continue", str(image))
    _begin(mounted)
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=False, stderr=subprocess.DEVNULL)


def _begin(mounted: Mounted) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system that other processes see")
    try:
        mounted.mount()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"nothing can be mounted here: {error.stderr.strip()}")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
