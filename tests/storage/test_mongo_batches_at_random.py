"""Several processes change the same few records, alone and in batches; they are killed and stopped at random, and the
server fails now and then. What is left is what some order of whole changes leaves.

How many disturbances there are says ONWARD_RECORDS_DISTURBANCES, and which, ONWARD_RECORDS_SEED; each takes half a
second or so.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from graphlib import TopologicalSorter
from itertools import count
from pathlib import Path
from typing import Any

from mongod import running_mongod
from records_crowd import ROWS, Told, read
from storage_backends import MongoBackend
from stored_values import a_row, an_id

from appliance.privacy.declarations import ACCOUNTS, ALIASES
from appliance.storage.mongo_batches import TAKEN_BACK
from appliance.storage.records import Insert

DISTURBANCES = int(os.environ.get("ONWARD_RECORDS_DISTURBANCES", "20"))

SEED = int(os.environ.get("ONWARD_RECORDS_SEED", "1"))

ABANDONED_MS = 300
"""What is ten seconds elsewhere."""

STOPPED_S = 2.5 * ABANDONED_MS / 1000
"""Long enough to be taken for dead."""

FAILING = 0.03
"""How often a write is refused, or is made and not answered."""

LOCK_TIMEOUT = 24

REFUSED: Mapping[str, Any] = {"errorCode": LOCK_TIMEOUT}
NOT_ANSWERED: Mapping[str, Any] = {"writeConcernError": {"code": 64, "errmsg": "", "codeName": "WriteConcernFailed"}}

PROCESSES = 3

_ROOT = Path(__file__).parents[2]


class Crowd:
    """The processes, and all that any of them has said."""

    def __init__(self, url: str, directory: Path) -> None:
        self._url = url
        self._directory = directory
        self._numbers = count(1)
        self._running = [self._start() for _ in range(PROCESSES)]

    def _start(self) -> subprocess.Popen[bytes]:
        number = str(next(self._numbers))
        with (self._directory / f"{number}.said").open("wb") as said:
            return subprocess.Popen(
                [sys.executable, str(_ROOT / "tests/support/records_crowd.py"), self._url, number, str(ABANDONED_MS)],
                env={"PYTHONPATH": f"{_ROOT}:{_ROOT / 'tests/support'}", "PYTHONDONTWRITEBYTECODE": "1"},
                stdout=said,
            )

    def disturb(self, chance: random.Random) -> None:
        """Kill one of them and start another, or stop one for long enough."""
        number = chance.randrange(PROCESSES)
        process = self._running[number]
        assert process.poll() is None
        if chance.random() < 0.4:
            process.kill()
            process.wait()
            self._running[number] = self._start()
        else:
            process.send_signal(signal.SIGSTOP)
            time.sleep(STOPPED_S)
            process.send_signal(signal.SIGCONT)
        time.sleep(chance.random() * 0.2)

    def end(self) -> tuple[dict[str, Told], dict[str, Told]]:
        """Kill all of them; what they have begun, and what has been answered."""
        for process in self._running:
            process.kill()
            process.wait()
        lines = [line for path in self._directory.glob("*.said") for line in path.read_text().splitlines(keepends=True)]
        told = [read(line) for line in lines if line.endswith("\n")]
        begun = {each.name: each for each in told if each.touched is None}
        return begun, {each.name: each for each in told if each.touched is not None}


def test_what_processes_leave_that_die_at_random_is_what_some_order_of_whole_changes_leaves(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    # What is old stays: no TTL index acts.
    with running_mongod(parameters=["ttlMonitorEnabled=false"]) as server:
        house = MongoBackend(server)
        house.records().apply(
            [Insert(ACCOUNTS, a_row(ACCOUNTS, row) | {"created_at": 0, "role": "crowd", "plan": ""}) for row in ROWS]
        )
        crowd = Crowd(house.url, tmp_path)
        try:
            with server.client() as client:
                for _ in range(DISTURBANCES):
                    how = chance.choice((REFUSED, NOT_ANSWERED))
                    data = {**how, "failCommands": ["insert", "update", "delete", "findAndModify"], "appName": "onward"}
                    mode = {"activationProbability": FAILING}
                    client.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)
                    crowd.disturb(chance)
                client.admin.command("configureFailPoint", "failCommand", mode="off")
        finally:
            begun, answered = crowd.end()
        records = house.records(abandoned_ms=0)
        accounts = {row: records.get(ACCOUNTS, {"id": an_id(row)}) or {} for row in ROWS}
        pairs = {name: records.count(ALIASES, {"domain_id": name}) for name, told in begun.items() if told.adds}
        total = records.count(ALIASES, {})
        with server.client() as client:
            left = client[house.database]["intents"].count_documents({"outcome": {"$ne": TAKEN_BACK}})
        house.close()
    assert left == 0
    assert len(answered) > 2 * DISTURBANCES, "they have hardly been at work"
    nothing_lost_of_what_was_counted(accounts, begun, answered)
    some_order_leaves_the_marks(accounts, begun, answered)
    assert total == sum(pairs.values())
    every_pair_is_whole(pairs, begun, answered)


def nothing_lost_of_what_was_counted(
    accounts: dict[int, dict[str, Any]], begun: dict[str, Told], answered: dict[str, Told]
) -> None:
    for row in ROWS:
        counts = [name for name, told in begun.items() if name.startswith("count") and told.rows == (row,)]
        certain = sum(1 for name in counts if name in answered and answered[name].touched == (1,))
        possible = certain + sum(1 for name in counts if name not in answered)
        assert certain <= accounts[row]["created_at"] <= possible


def some_order_leaves_the_marks(
    accounts: dict[int, dict[str, Any]], begun: dict[str, Told], answered: dict[str, Told]
) -> None:
    """Who has marked an account last comes behind all others who have; and who began behind an answer, behind that."""
    last = {row: str(accounts[row]["plan"]) for row in ROWS if accounts[row]["plan"]}
    # Whatever was not answered may have been made; and what has left a mark was.
    marks = {name for name, told in begun.items() if told.rows and not name.startswith("count") and name in answered}
    marks |= set(last.values())
    order: TopologicalSorter[str] = TopologicalSorter()
    for row, name in last.items():
        for each in marks - {name}:
            if row in begun[each].rows or (each in answered and answered[each].at < begun[name].at):
                order.add(name, each)
            if name in answered and answered[name].at < begun[each].at:
                order.add(each, name)
    order.prepare()


def every_pair_is_whole(pairs: dict[str, int], begun: dict[str, Told], answered: dict[str, Told]) -> None:
    assert set(pairs.values()) <= {0, 2}
    to_be_erased = {told.gone for told in begun.values()}
    erased = {told.gone for told in answered.values() if told.gone and (told.touched or (0,))[0]}
    for name, there in pairs.items():
        if name in erased:
            assert there == 0, "it has come back"
        elif name in answered and name not in to_be_erased:
            assert there == 2, "it is lost"
