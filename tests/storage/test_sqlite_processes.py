"""Several processes in one file: the engine, the control process and the command line."""

import subprocess
import sys
import threading
from pathlib import Path

from stored_values import a_keyring

from appliance.privacy.declarations import ACCOUNTS
from appliance.storage.records import Raise
from appliance.storage.sqlite_records import SqliteRecords

PROCESSES, FILES, CHANGES = 3, 20, 5

CHILD = """
import sys
from pathlib import Path
from appliance.privacy.declarations import ACCOUNTS
from appliance.storage.records import Insert, Raise
from appliance.storage.sqlite_records import SqliteRecords
from stored_values import a_keyring, a_row

directory, child, files, changes = Path(sys.argv[1]), *(int(argument) for argument in sys.argv[2:])
print("ready", flush=True)
sys.stdin.readline()
for number in range(files):
    records = SqliteRecords(directory / f"{number}.sqlite", a_keyring())
    for change in range(changes):
        records.apply([Insert(ACCOUNTS, a_row(ACCOUNTS, 1000 * child + change)), Raise("routing")])
    records.close()
"""


def start(directory: Path, child: int) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(directory), str(child), str(FILES), str(CHANGES)],
        cwd=root,
        env={"PYTHONPATH": f"{root}:{root / 'tests/support'}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_that_make_files_at_once_lose_no_change(tmp_path: Path) -> None:
    """No file exists when they are told to go. One of them makes the tables, and everyone takes turns."""
    children = [start(tmp_path, number) for number in range(PROCESSES)]
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
    for number in range(FILES):
        records = SqliteRecords(tmp_path / f"{number}.sqlite", a_keyring())
        assert records.count(ACCOUNTS, {}) == PROCESSES * CHANGES
        assert records.generation("routing") == PROCESSES * CHANGES
        records.close()


def test_many_who_open_a_new_file_at_the_same_instant_all_get_in(tmp_path: Path) -> None:
    """Changing the journal mode is the one thing for which SQLite does not wait its turn."""
    failures: list[BaseException] = []
    paths = [tmp_path / f"{number}.sqlite" for number in range(30)]
    for path in paths:
        # An empty file, so that nobody comes late for having made it.
        path.touch(0o600)
    start_line = threading.Barrier(4)

    def work() -> None:
        try:
            for path in paths:
                start_line.wait()
                SqliteRecords(path, a_keyring()).close()
        except BaseException as error:  # noqa: BLE001 - told to the main thread
            failures.append(error)
            start_line.abort()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_change_of_another_process_is_seen_at_once(tmp_path: Path) -> None:
    records = SqliteRecords(tmp_path / "0.sqlite", a_keyring())
    records.apply([Raise("routing")])
    assert records.generation("routing") == 1
    child = start(tmp_path, 1)
    child.communicate("go\n", timeout=60)
    assert child.returncode == 0
    assert records.generation("routing") == 1 + CHANGES
    records.close()
