"""Directories that are ours alone, and names in them that survive a power failure.

A file that was synced is safe only once the directory that names it has been synced too. Stores and secrets both need
that, and both keep their directories shut.
"""

import os
from pathlib import Path

PRIVATE_DIRECTORY_MODE = 0o700
PRIVATE_FILE_MODE = 0o600


def sync_directory(directory: Path) -> None:
    """Make the names in this directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private_directory(directory: Path) -> None:
    """Make this directory and those above it, durable and for us alone; one that exists is left as it is.

    Its mode is not changed then: a mistaken `data_dir = "/var/lib"` must not shut out the rest of the machine. Every
    file in it is private for itself.
    """
    if directory.is_dir():
        return
    make_private_directory(directory.parent)
    try:
        directory.mkdir(PRIVATE_DIRECTORY_MODE)
    except FileExistsError:
        if not directory.is_dir():
            raise
        return
    sync_directory(directory.parent)
