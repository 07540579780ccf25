"""Whatever fails on the disk, once or for ever: what was accepted is there, what was refused is not, and the service
comes back when the disk does.

Each scene of a spool's life (`spool_scenes.py`) is played on a disk on which the so-manyth of its reads, writes, syncs
and so on fails. Then the disk works again, and the same spool must do its work without being started anew. In the end
it dies, and another is started on a healthy disk and held against what was answered.
"""

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from breaking_disk import BreakingDisk, Deed, Fault
from spool_ledger import Kept, found_in, started
from spool_scenes import SCENES, Answered, Asked, Refused, Scene, Word, accept, checkpoints_in_the_middle
from stored_values import a_keyring, an_id

from appliance.storage.records import StoreUnavailable
from appliance.storage.sqlite_spool import SqliteSpool

# apsw hands an error of our file layer on even where SQLite asks nobody, as while a connection goes that never opened.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

FAULTS = 20
"""In each scene, drawn from all, and every one of what is done SELDOM; the long test has all of them."""
SELDOM = 4

LAST = 90
"""The message that is accepted when the disk works again."""

TOKENS = [f"t{number}" for number in (*range(1, 10), LAST)]


@pytest.fixture
def directory() -> Iterator[Path]:
    """In memory where that is possible."""
    shared = Path("/dev/shm")
    place = Path(tempfile.mkdtemp(prefix="onward-", dir=shared if shared.is_dir() else None))
    yield place
    shutil.rmtree(place)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[BreakingDisk]:
    monkeypatch.setattr("appliance.storage.sqlite_salvage.SALVAGE_EVERY_S", 0)
    disk = BreakingDisk()
    yield disk
    disk.close()


class Words:
    """What was asked and answered."""

    def __init__(self) -> None:
        self.answered = Kept()
        self.asked: list[Kept] = []

    def hear(self, word: Word) -> None:
        match word:
            case Asked(kept):
                self.asked.append(kept)
            case Answered():
                self.answered = self.asked.pop()
            case Refused():
                self.asked.pop()


def _play(
    play: Callable[[Scene[Any]], None], disk: BreakingDisk, directory: Path, fault: Fault | None
) -> Counter[Deed]:
    """Play a scene to its end with this fault, see that all is well, and say how often each thing was done in it."""
    disk.fault, disk.failed = fault, 0
    disk.done.clear()
    directory.mkdir()
    words = Words()
    scene: Scene[BreakingDisk] | None = None
    # A spool that can't be opened ends its process, and the next one is the next try.
    with suppress(StoreUnavailable):
        scene = Scene(directory, disk, words.hear)
        play(scene)
    done = disk.done.copy()
    disk.fault = None
    if scene is None:
        scene = Scene(directory, disk, words.hear)
    elif scene.is_closed:
        scene.open()
    scene.tidy()
    scene.group(accept(LAST))
    assert an_id(LAST) in scene.kept.deliveries, "the service does not come back"
    assert not scene.spool.degraded
    assert not words.asked
    scene.die()
    spool = SqliteSpool(directory / "spool.sqlite", a_keyring())
    assert found_in(started(spool), TOKENS) == words.answered.found_by_a_start()
    spool.close()
    shutil.rmtree(directory)
    return done


def _faults(done: Counter[Deed]) -> list[Fault]:
    counted = [(deed, at) for deed, count in done.items() for at in range(1, count + 1)]
    return [Fault(deed, at, for_ever) for deed, at in counted for for_ever in (False, True)]


def _prepare(
    play: Callable[[Scene[Any]], None], disk: BreakingDisk, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Fault]:
    """Every fault that this scene can meet."""
    if play is checkpoints_in_the_middle:
        monkeypatch.setattr("appliance.storage.sqlite_database.WAL_PAGES", 12)
    return _faults(_play(play, disk, directory / "once", None))


def _words(scene: Callable[[Scene[Any]], None]) -> str:
    return scene.__name__.replace("_", " ")


@pytest.mark.parametrize("play", SCENES, ids=_words)
def test_a_disk_that_fails_somewhere_loses_nothing_and_invents_nothing(
    play: Callable[[Scene[Any]], None], disk: BreakingDisk, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = _prepare(play, disk, directory, monkeypatch)
    often = {fault.deed for fault in faults if fault.at > SELDOM}
    seldom = [fault for fault in faults if fault.deed not in often]
    for fault in (*seldom, *random.Random(play.__name__).sample(faults, FAULTS)):
        try:
            _play(play, disk, directory / "again", fault)
            assert disk.failed, "it was never met"
        except BaseException as error:
            error.add_note(f"{fault}")
            raise


@pytest.mark.long
@pytest.mark.parametrize("play", SCENES, ids=_words)
def test_a_disk_that_fails_anywhere_loses_nothing_and_invents_nothing(
    play: Callable[[Scene[Any]], None], disk: BreakingDisk, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fault in _prepare(play, disk, directory, monkeypatch):
        try:
            _play(play, disk, directory / "again", fault)
            assert disk.failed, "it was never met"
        except BaseException as error:
            error.add_note(f"{fault}")
            raise
