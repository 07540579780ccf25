"""Plays a scene of a spool's life (`spool_scenes.py`) in a process of its own, and says each answer in a line.

    python spool_player.py DIRECTORY SCENE FAILING_SYNC

Whoever has started it can end it at any instant and knows what it had promised by then. The so-manyth sync of SQLite
fails (0: none), so that a fresh file is begun.
"""

import os
import sys
from pathlib import Path

import spool_scenes
from breaking_disk import BreakingDisk, Deed, Fault
from spool_scenes import Scene, Word

import appliance.storage.sqlite_salvage


def play(directory: Path, scene: str, failing_sync: int) -> None:
    """Play it to the end, unless somebody ends this process before."""
    disk = BreakingDisk("spool-player")
    disk.fault = Fault(Deed.SYNC, failing_sync, for_ever=False) if failing_sync else None
    appliance.storage.sqlite_salvage.SALVAGE_EVERY_S = 0
    getattr(spool_scenes, scene)(Scene(directory, disk, say))


def say(word: Word) -> None:
    """One word, at once."""
    os.write(1, f"{type(word).__name__}\n".encode())


if __name__ == "__main__":
    play(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
