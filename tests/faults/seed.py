"""Faults put into our own code on purpose, one at a time: do the tests that keep the promise find each of them?

    python tests/faults/seed.py            every fault of faults.toml
    python tests/faults/seed.py --only synchronous-normal --only null-mx-ignored
    python tests/faults/seed.py --jobs 4   so many at a time; 2 where nothing is said

Each works on a copy of the tree, which is thrown away: the fault is written into the copy, the tests named with it run
there, and at least one of them must fail. Before the first fault they must all pass, without one.

A fault names a text that stands in a file exactly once. Where the code has moved on, the program says so and fails, and
so does tests/docs/test_faults.py long before: a fault that can't be put in any more tests nothing.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FAULTS = Path(__file__).with_name("faults.toml")

RUN_WITHIN_S = 120
"""For the tests of one fault. A fault that makes them hang is found as well."""

SOUND_WITHIN_S = 900
"""For the tests of all faults without any."""

_NOT_COPIED = (".git", ".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", "dist", "__pycache__")


class Misplaced(Exception):
    """The text that a fault replaces does not stand there exactly once, or its tests are not there or fail anyhow."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: what it breaks, where, and which tests should find it."""

    name: str
    breaks: str
    """Which promise or rule, for people."""
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def put_into(self, root: Path) -> None:
        """Write it into a tree. Raises Misplaced."""
        path = root / self.file
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if text.count(self.old) != 1:
            raise Misplaced(f"{self.name}: {self.file} has its text {text.count(self.old)} times, not once")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


def read_faults(path: Path = FAULTS) -> list[Fault]:
    """All faults. Raises TypeError for one that lacks something."""
    with path.open("rb") as file:
        return [Fault(**{**row, "tests": tuple(row["tests"])}) for row in tomllib.load(file)["fault"]]


def copy_tree(target: Path) -> None:
    """The tree without what is made from it."""
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*_NOT_COPIED))


def run(root: Path, tests: Sequence[str], within_s: float) -> tuple[bool, str]:
    """Whether the tests pass in a tree, and the line that says how they went."""
    suites = os.environ.get("ONWARD_SUITES", str(ROOT.parent / "shared" / "suites"))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = {
        **os.environ,
        "ONWARD_SUITES": suites,
        "PYTHONDONTWRITEBYTECODE": "1",
        # For the processes that tests start: the tree that this Python is installed for is another one.
        "PYTHONPATH": f"{root}{os.pathsep}{root / 'graphql'}",
    }
    with subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A group of its own, so that what hangs is ended with all that it has started.
        start_new_session=True,
    ) as process:
        try:
            said, complained = process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return False, f"they hang for {within_s:.0f} s"
    lines = said.strip().splitlines() or [complained.strip()[-200:]]
    failed = [line for line in lines if line.startswith(("FAILED tests/", "ERROR tests/"))]
    # pytest's own 1: a test has failed. Any other status is trouble with the run, and finds nothing.
    if process.returncode not in (0, 1):
        raise Misplaced(
            f"the tests could not be run (status {process.returncode}):\n{said[-2000:]}{complained[-2000:]}"
        )
    return process.returncode == 0, failed[0] if failed else lines[-1]


def try_fault(fault: Fault, sound: Path) -> bool:
    """Put a fault into a copy of the sound tree, and say whether its tests find it. Raises Misplaced."""
    tree = sound.with_name(fault.name)
    shutil.copytree(sound, tree)
    fault.put_into(tree)
    began = time.monotonic()
    passes, how = run(tree, fault.tests, RUN_WITHIN_S)
    print(f"{'MISSED' if passes else 'found '} {fault.name:42} {time.monotonic() - began:5.1f} s  {how}", flush=True)
    shutil.rmtree(tree, ignore_errors=True)
    return not passes


def main() -> None:
    """Put in each fault, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="NAME", help="this fault; may be given again")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="so many faults at a time")
    arguments = parser.parse_args()
    faults = [fault for fault in read_faults() if not arguments.only or fault.name in arguments.only]
    try:
        found = try_all(faults, arguments.jobs)
    except Misplaced as misplaced:
        sys.exit(str(misplaced))
    print(f"{found} found, {len(faults) - found} missed")
    sys.exit(0 if found == len(faults) else 1)


def try_all(faults: Sequence[Fault], at_a_time: int) -> int:
    """How many of these faults are found. Raises Misplaced."""
    with tempfile.TemporaryDirectory(prefix="onward-faults-") as place, ThreadPoolExecutor(at_a_time) as jobs:
        sound = Path(place) / "sound"
        copy_tree(sound)
        tests = sorted({test for fault in faults for test in fault.tests})
        shares = [tests[start::at_a_time] for start in range(min(at_a_time, len(tests)))]
        for passes, how in jobs.map(lambda share: run(sound, share, SOUND_WITHIN_S), shares):
            print(f"without a fault: {how}", flush=True)
            if not passes:
                raise Misplaced("the tests fail without any fault")
        return sum(jobs.map(lambda fault: try_fault(fault, sound), faults))


if __name__ == "__main__":
    main()
