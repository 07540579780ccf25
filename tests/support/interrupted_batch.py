"""A batch of changes on MongoDB in a process of its own, which is killed or stopped before any write that it sends.

`python interrupted_batch.py URL STEP SIGNAL [AND_KILLED]` opens the record store at that URL, sends itself the signal
before the STEP-th write of the batch (0: never), and prints what came of it; with AND_KILLED it kills itself before the
next write. Imported, it is how a test starts that, and what the batch is about.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pymongo.monitoring
from stored_values import a_keyring, a_row, an_event, an_id

from appliance.privacy.declarations import ACCOUNTS, ALIASES, DOMAINS, EVENTS
from appliance.storage.event_rows import event_to_row
from appliance.storage.mongo_records import MongoRecords
from appliance.storage.records import Change, Delete, Duplicate, Insert, Raise, RecordStore, StoreUnavailable, Update

WRITES = ("insert", "update", "delete", "findAndModify")

TOUCHED = (ACCOUNTS, DOMAINS, ALIASES, EVENTS)
"""The collections that the batch is about."""

BEFORE: tuple[Change, ...] = (
    *(Insert(ACCOUNTS, a_row(ACCOUNTS, number)) for number in (1, 2, 3)),
    *(Insert(DOMAINS, a_row(DOMAINS, number)) for number in (1, 2)),
    *(Insert(ALIASES, a_row(ALIASES, number)) for number in (1, 2)),
    *(Insert(EVENTS, event_to_row(an_event(number))) for number in (1, 2)),
)

BATCH: tuple[Change, ...] = (
    # Some that are followed to each row, because what comes behind them may turn out to be a duplicate...
    Update(ACCOUNTS, {"email_verified": True}, {"plan": "premium"}),
    Update(EVENTS, {"id": an_id(1)}, {"subject": "changed", "code": 451}),
    Delete(DOMAINS, {"account_id": "account_id 1"}),
    Insert(ACCOUNTS, a_row(ACCOUNTS, 4)),
    Insert(ALIASES, a_row(ALIASES, 3)),
    Insert(DOMAINS, a_row(DOMAINS, 1) | {"log_level": "all"}),
    Raise("routing"),
    Update(ALIASES, {"id": an_id(2)}, {"pattern": "another", "expires_at": None}),
    # ... and some that are made by their condition, and see what those before have left.
    Update(ACCOUNTS, {"plan": "premium"}, {"role": "operator"}),
    Delete(ALIASES, {"domain_id": "domain_id 1"}),
)

RIVAL: tuple[Change, ...] = (Insert(ALIASES, a_row(ALIASES, 9) | {"reference": "reference 3"}),)
"""What takes the unique reference of the alias that the batch inserts."""


def rows(records: RecordStore) -> dict[str, list[dict[str, object]]]:
    """Everything that the batch could have touched."""
    return {collection.name: records.find(collection, {}) for collection in TOUCHED}


@contextmanager
def stopped_before(step: int, url: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has stopped before this step; it goes on with SIGCONT, and has printed when it ends."""
    process = _started(url, step, signal.SIGSTOP)
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), process.communicate()
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def killed_after_a_stop_before(step: int, url: str) -> Iterator[None]:
    """A process that has stopped before this step; when the block is left it makes that step, and is killed."""
    process = _started(url, step, signal.SIGSTOP, "and killed")
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), process.communicate()
        yield
        assert continued(process) == ""
    finally:
        process.kill()
        process.communicate()


def continued(process: subprocess.Popen[str]) -> str:
    """What one prints that goes on."""
    process.send_signal(signal.SIGCONT)
    printed, _ = process.communicate(timeout=60)
    return printed.strip()


def killed_before(step: int, url: str) -> str:
    """What is printed by a process that is killed before this step: nothing, unless it ended before."""
    printed, _ = _started(url, step, signal.SIGKILL).communicate(timeout=60)
    return printed.strip()


def _started(url: str, step: int, how: signal.Signals, *more: str) -> subprocess.Popen[str]:
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    return subprocess.Popen(
        [sys.executable, __file__, url, str(step), str(int(how)), *more],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


class _Interruption(pymongo.monitoring.CommandListener):
    """Sends this process a signal before it sends a certain write."""

    def __init__(self, step: int, how: int, and_killed: bool) -> None:
        self.armed = False
        self._and_killed = and_killed
        self._left = step
        self._how = how

    def started(self, event: pymongo.monitoring.CommandStartedEvent) -> None:
        if self.armed and event.command_name in WRITES:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), self._how)
            elif self._left < 0 and self._and_killed:
                os.kill(os.getpid(), signal.SIGKILL)

    def succeeded(self, event: pymongo.monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: pymongo.monitoring.CommandFailedEvent) -> None:
        pass


def _main(url: str, step: str, how: str, *and_killed: str) -> None:
    interruption = _Interruption(int(step), int(how), bool(and_killed))
    pymongo.monitoring.register(interruption)
    records = MongoRecords(url, a_keyring())
    interruption.armed = True
    try:
        print("done", records.apply(BATCH))
    except Duplicate as error:
        print("duplicate", *error.fields)
    except StoreUnavailable as error:
        print("unavailable", error)
    records.close()


if __name__ == "__main__":
    _main(*sys.argv[1:])
