"""The power is cut at any instant, and what was promised is there: whole, once, and nothing else.

Each scene is played once on a disk that writes down what is done to it. Then the disk is put into the states in which
a power cut may leave it, at every point and in a drawn selection of what had not been synced (`simulated_disk.py`). In
each of them a spool is opened and started, and what it has is held against what had been answered by then
(`spool_ledger.py`): every group whose write had returned, no group whose write had raised, and the one that was being
written either whole or not at all.

`ONWARD_POWER_CUTS=1000000` is for the night.
"""

import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from simulated_disk import Deed, Files, Said, SimulatedDisk, after_all, contents, power_cuts
from spool_ledger import Kept, found_in, started
from spool_scenes import (
    SCENES,
    Answered,
    Asked,
    Refused,
    Scene,
    accept,
    checkpoints_in_the_middle,
    complete,
    defer,
)
from stored_values import a_keyring

from appliance.storage.disk import Disk, Space
from appliance.storage.sqlite_spool import SqliteSpool

POWER_CUTS = int(os.environ.get("ONWARD_POWER_CUTS", "20000"))
"""How many different states are looked at in all scenes together. A cut that leaves what another has left, under the
same promises, is not one of them."""
ALIKE = 20
"""A scene has states enough if of so many cuts one is new."""
SEED = int(os.environ.get("ONWARD_SEED", "20"))


# ------------------------------------------------------------------ scenes in which the disk fails


def the_disk_is_full(scene: Scene[SimulatedDisk]) -> None:
    scene.group(accept(1, 20_000))
    scene.disk.capacity = sum(path.stat().st_size for path in scene.directory.iterdir()) - 40_000
    for number in range(2, 5):
        scene.group(accept(number, 9000))
    assert scene.refused == 3
    scene.claim()
    scene.group(complete(1))
    scene.disk.capacity = None
    scene.group(accept(5))


def the_disk_fills_up_while_it_is_written(scene: Scene[SimulatedDisk]) -> None:
    scene.group(accept(1))
    taken = sum(path.stat().st_size for path in scene.directory.iterdir() if path.suffix != ".reserve")
    scene.disk.space = lambda directory: Space(1 << 30, None, 1 << 20)  # type: ignore[method-assign]
    scene.disk.capacity = taken + 30_000
    scene.group(accept(2, 60_000))
    scene.group(accept(3, 60_000))
    assert scene.refused == 2
    scene.disk.capacity = None
    scene.group(accept(4))


def a_sync_fails(scene: Scene[SimulatedDisk]) -> None:
    """The sync of a commit, with a claim before it that was never synced either."""
    scene.group(accept(1), accept(2))
    scene.claim()
    scene.disk.sync_failures = 1
    scene.group(accept(3), complete(1))
    assert scene.refused == 1
    scene.group(accept(4), complete(1))
    scene.group(defer(2))


def every_sync_fails_for_a_while(scene: Scene[SimulatedDisk]) -> None:
    """Nobody is told anything until it is certain; what comes meanwhile is refused at once."""
    scene.group(accept(1))
    scene.claim()
    scene.disk.sync_failures = 12
    scene.group(accept(2))
    assert scene.spool.degraded
    while scene.spool.degraded:
        scene.group(accept(3))
        scene.tidy()
    scene.group(accept(4), complete(1))


def a_checkpoint_fails(scene: Scene[SimulatedDisk]) -> None:
    """Nobody waits for a checkpoint, but after its sync has failed nothing more is written to that file."""
    scene.group(accept(1, 3000))
    scene.claim()
    scene.disk.sync_failures = 1
    scene.spool._database.cut_log()
    assert scene.spool.degraded
    scene.group(accept(2))
    assert not scene.spool.degraded
    scene.group(complete(1))


def two_failures_and_a_crash(scene: Scene[SimulatedDisk]) -> None:
    scene.group(accept(1))
    for number in (2, 3):
        scene.disk.sync_failures = 1
        scene.group(accept(number))
        scene.group(accept(number))
    scene.claim()
    scene.die()
    scene.open()
    scene.group(complete(2))


def killed_after_a_failed_sync(scene: Scene[SimulatedDisk]) -> None:
    """The next process finds everything in the memory of the machine, and must not believe that it is on the disk."""
    scene.group(accept(1), accept(2))
    scene.claim()
    scene.disk.sync_failures = 1000
    scene.group(accept(3))
    scene.die()
    scene.disk.sync_failures = 0
    scene.open()
    scene.group(accept(4))
    scene.claim()
    scene.group(complete(1))


def killed_after_the_sync_of_a_claim_has_failed(scene: Scene[SimulatedDisk]) -> None:
    """What the claim has written is nowhere else in the log, and the next start writes it into the file."""
    scene.group(accept(1), accept(2))
    scene.spool._database.cut_log()
    scene.claim()
    scene.disk.sync_failures = 1000
    scene.group(accept(3))
    scene.die()
    scene.disk.sync_failures = 0
    scene.open()
    scene.group(complete(1), defer(2))


_ALL = (
    *SCENES,
    the_disk_is_full,
    the_disk_fills_up_while_it_is_written,
    a_sync_fails,
    every_sync_fails_for_a_while,
    a_checkpoint_fails,
    two_failures_and_a_crash,
    killed_after_a_failed_sync,
    killed_after_the_sync_of_a_claim_has_failed,
)


# ------------------------------------------------------------------ the power cuts


@pytest.fixture
def directory() -> Iterator[Path]:
    """In memory where that is possible: it is what the disk is that is simulated, not how slow it is."""
    shared = Path("/dev/shm")
    place = Path(tempfile.mkdtemp(prefix="onward-", dir=shared if shared.is_dir() else None))
    yield place
    shutil.rmtree(place)


@pytest.fixture
def disk() -> Iterator[SimulatedDisk]:
    disk = SimulatedDisk()
    yield disk
    disk.close()


class SmallDisk(Disk):
    """The real disk, in no larger dimensions than the simulated one."""

    def space(self, directory: Path) -> Space:
        return Space(1 << 30, None, 1 << 16)


@pytest.mark.parametrize("play", _ALL, ids=lambda scene: scene.__name__.replace("_", " "))
def test_what_was_answered_is_there_after_a_power_cut(
    play: Callable[[Scene[SimulatedDisk]], None],
    directory: Path,
    disk: SimulatedDisk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("appliance.storage.sqlite_salvage.SALVAGE_EVERY_S", 0)
    monkeypatch.setattr("appliance.storage.sqlite_spool.MEASURED_FOR_S", 0)
    if play is checkpoints_in_the_middle:
        # Often, and also while the tables of a new file are being made.
        monkeypatch.setattr("appliance.storage.sqlite_database.WAL_PAGES", 12)
    stage = directory / "stage"
    stage.mkdir()
    scene = Scene(stage, disk, disk.say)
    play(scene)
    scene.die()
    allowed = _allowed(disk.deeds)
    tokens = [f"t{number}" for number in range(1, 10)]
    wanted = POWER_CUTS // len(_ALL) + 1
    seen: set[int] = set()
    lots = random.Random(f"{SEED}{play.__name__}")
    for point, files in itertools.islice(power_cuts(disk.deeds, lots), wanted * ALIKE):
        state = hash((tuple(sorted(files.items())), id(allowed[point])))
        if state not in seen:
            seen.add(state)
            found = _start(directory / "found", files, tokens)
            assert found in allowed[point], f"after {point} of {len(disk.deeds)} deeds: {sorted(files)}"
            if len(seen) >= wanted:
                break
    assert len(seen) >= wanted
    # What was written down is what was done.
    assert after_all(disk.deeds) == contents(stage)


def _allowed(deeds: Sequence[Deed]) -> list[list[dict[str, object]]]:
    """What may be found after each number of deeds: what was answered, and what was asked and not answered."""
    answered, asked = Kept().found_by_a_start(), list[dict[str, object]]()
    found: list[list[dict[str, object]]] = [[answered]]
    for deed in deeds:
        if not isinstance(deed, Said):
            found.append(found[-1])
        else:
            match deed.word:
                case Asked(kept):
                    asked.append(kept.found_by_a_start())
                case Answered():
                    answered = asked.pop()
                case Refused():
                    asked.pop()
            found.append([answered, *asked])
    # An answer may be read before anything more is done.
    for n in range(len(deeds) - 1, -1, -1):
        deed = deeds[n]
        if isinstance(deed, Said) and not isinstance(deed.word, Asked):
            found[n] = found[n + 1]
    return found


def _start(directory: Path, files: Files, tokens: Sequence[str]) -> dict[str, object]:
    """Put files there, start a spool on them, and say what it has."""
    directory.mkdir()
    for name, octets in files.items():
        (directory / name).write_bytes(octets)
    spool = SqliteSpool(directory / "spool.sqlite", a_keyring(), disk=SmallDisk())
    try:
        return found_in(started(spool), tokens)
    finally:
        spool._database.current.abandon()
        shutil.rmtree(directory)
