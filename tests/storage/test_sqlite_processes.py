"""Several processes in one file: the engine, the control process and the command line."""

import subprocess
import sys
from pathlib import Path

from storage_backends import SqliteBackend

from appliance.privacy.declarations import ACCOUNTS
from appliance.storage.records import Raise

PROCESSES, CHANGES = 3, 25

CHILD = """
import sys
from pathlib import Path
from appliance.privacy.declarations import ACCOUNTS
from appliance.storage.records import Insert, Raise
from appliance.storage.sqlite_records import SqliteRecords
from stored_values import a_keyring, a_row

print("ready", flush=True)
sys.stdin.readline()
records = SqliteRecords(Path(sys.argv[1]), a_keyring())
first = int(sys.argv[2])
for number in range(first, first + int(sys.argv[3])):
    records.apply([Insert(ACCOUNTS, a_row(ACCOUNTS, number)), Raise("routing")])
records.close()
"""


def start(path: Path, first: int) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(first), str(CHANGES)],
        cwd=root,
        env={"PYTHONPATH": f"{root}:{root / 'tests/support'}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_that_make_the_file_at_once_lose_no_change(sqlite: SqliteBackend) -> None:
    """The file does not exist when they are told to go: one makes the tables, and everyone takes turns."""
    children = [start(sqlite.records_path, number * 1000) for number in range(1, PROCESSES + 1)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        child.communicate(timeout=60)
        assert child.returncode == 0
    records = sqlite.records()
    assert records.count(ACCOUNTS, {}) == PROCESSES * CHANGES
    assert records.generation("routing") == PROCESSES * CHANGES


def test_a_change_of_another_process_is_seen_at_once(sqlite: SqliteBackend) -> None:
    records = sqlite.records()
    records.apply([Raise("routing")])
    assert records.generation("routing") == 1
    child = start(sqlite.records_path, 1)
    child.communicate("go\n", timeout=60)
    assert child.returncode == 0
    assert records.generation("routing") == 1 + CHANGES
