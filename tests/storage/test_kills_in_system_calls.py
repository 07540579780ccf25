"""Killed in the middle of any system call that changes the disk: what was answered is there, and nothing else.

A process plays a spool's whole life on a real directory, with a sync that fails on the way, so that it goes over to a
fresh file. strace kills it in its so-manyth fdatasync, write, rename and so on; then a spool is started on what is
there and held against the lines that it had printed by then.
"""

import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from breaking_disk import BreakingDisk, Deed, Fault
from spool_ledger import Kept, found_in, started
from spool_scenes import Asked, Scene, Word, a_whole_life
from stored_values import a_keyring

from appliance.storage.sqlite_spool import SqliteSpool

CALLS = ("fsync", "fdatasync", "pwrite64", "ftruncate", "fallocate", "rename", "unlink")
"""Those by which a spool changes the disk, as Linux has them on this machine's C library."""

FAILING_SYNC = 14
"""Of SQLite's. In the commit of a message."""

AT_LEAST = 4
"""Kills of each kind in the quick test, where there are so many."""
QUICK_KILLS = 60
"""Of every kind together."""

TOKENS = [f"t{number}" for number in range(1, 10)]
_ROOT = Path(__file__).parents[2]


def _play(directory: Path, *strace: str) -> list[str]:
    """Play the scene in a process of its own, under strace with these options. Returns what it has said."""
    done = subprocess.run(
        [
            *("strace", "-f", "-qq", *strace, sys.executable, str(_ROOT / "tests/support/spool_player.py")),
            *(str(directory), a_whole_life.__name__, str(FAILING_SYNC)),
        ],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{_ROOT}:{_ROOT / 'tests/support'}",
            # Nothing of Python's own is to be written.
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    return done.stdout.split()


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """How often each of the calls is made in a life that nobody ends."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    place = tmp_path_factory.mktemp("counted")
    said = _play(place / "data", "-o", str(place / "trace"), "-e", f"trace={','.join(CALLS)}")
    if not said:
        pytest.skip("strace may not look into other processes here")
    assert said.count("Refused") == 1
    return Counter(re.findall(r"^[0-9]+ +(\w+)\(", (place / "trace").read_text(), re.MULTILINE))


def _kill_and_look(directory: Path, call: str, number: int, asked: list[Kept]) -> None:
    """Kill it in this call, start a spool on what is there, and hold that against what had been said."""
    only = ("-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}")
    said = _play(directory, *only)
    answered, begun = Kept(), 0
    for word in said:
        begun += word == "Asked"
        if word == "Answered":
            answered = asked[begun - 1]
    allowed = [answered.found_by_a_start()]
    if said and said[-1] == "Asked":
        allowed.append(asked[begun - 1].found_by_a_start())
    spool = SqliteSpool(directory / "spool.sqlite", a_keyring())
    found = found_in(started(spool), TOKENS)
    spool.close()
    assert found in allowed, f"killed in {call} number {number}, after {begun} groups"
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[Kept]:
    """What there is after each group, as long as nobody ends it; told here by the same scene in this process."""
    heard: list[Kept] = []

    def hear(word: Word) -> None:
        if isinstance(word, Asked):
            heard.append(word.kept)

    disk = BreakingDisk("kills-in-system-calls")
    disk.fault = Fault(Deed.SYNC, FAILING_SYNC, for_ever=False)
    a_whole_life(Scene(tmp_path_factory.mktemp("told") / "data", disk, hear))
    disk.close()
    return heard


def test_a_life_that_is_ended_in_a_system_call_keeps_what_it_promised(
    calls: Counter[str], asked: list[Kept], tmp_path: Path
) -> None:
    lots = random.Random(20)
    chosen = {
        (call, number)
        for call, count in calls.items()
        for number in lots.sample(range(1, count + 1), min(count, AT_LEAST))
    }
    every = [(call, number) for call, count in calls.items() for number in range(1, count + 1)]
    chosen.update(lots.sample(every, QUICK_KILLS - len(chosen)))
    for call, number in sorted(chosen):
        _kill_and_look(tmp_path / "data", call, number, asked)


@pytest.mark.long
def test_a_life_that_is_ended_in_any_system_call_keeps_what_it_promised(
    calls: Counter[str], asked: list[Kept], tmp_path: Path
) -> None:
    for call, count in calls.items():
        for number in range(1, count + 1):
            _kill_and_look(tmp_path / "data", call, number, asked)
