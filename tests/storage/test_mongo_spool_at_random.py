"""Three nodes at work on one spool, which are killed and stopped at random, and the server with them: nothing is lost.

How many disturbances there are says ONWARD_SPOOL_DISTURBANCES; each takes a fifth of a second or so.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import IO

import pytest
from appliance_process import eventually
from mongod import Mongod, running_mongod
from spool_crowd import AT_ONCE
from stored_values import a_keyring

from appliance.storage.mongo_spool import MongoSpool

LEASE_MS = 400
"""What is half a minute elsewhere."""

STOPPED_S = 2 * LEASE_MS / 1000
"""Long enough to be taken for dead."""

DISTURBANCES = int(os.environ.get("ONWARD_SPOOL_DISTURBANCES", "12"))

_ROOT = Path(__file__).parents[2]


class Node:
    """One of them, whichever run of it."""

    def __init__(self, url: str, name: str, firsts: "count[int]") -> None:
        self._url = url
        self._name = name
        self._firsts = firsts
        self.lines: list[str] = []
        self._readers: list[threading.Thread] = []
        self.start()

    def start(self) -> None:
        """Run it, with numbers that no message has had."""
        self.process = subprocess.Popen(
            [
                *(sys.executable, str(_ROOT / "tests/support/spool_crowd.py")),
                *(self._url, self._name, str(next(self._firsts) * 1_000_000), str(LEASE_MS)),
            ],
            env={"PYTHONPATH": f"{_ROOT}:{_ROOT / 'tests/support'}", "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        reader = threading.Thread(target=self._read, args=(self.process.stdout,))
        reader.start()
        self._readers.append(reader)

    def _read(self, said: IO[str]) -> None:
        with said:
            self.lines.extend(said)

    def kill(self) -> None:
        """End it, and read what it has said."""
        self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join()


@pytest.fixture(params=[False, True], ids=["mongod", "mongod_replica_set"])
def server(request: pytest.FixtureRequest) -> Iterator[Mongod]:
    """One that is stopped."""
    with running_mongod(replica_set=request.param) as running:
        yield running


def disturb(server: Mongod, nodes: list[Node], chance: random.Random) -> None:
    """Kill a node or the server, or stop one of them for long enough."""
    node = chance.choice(nodes)
    match chance.choice(("kill", "kill", "stop", "stop", "freeze", "crash")):
        case "kill":
            node.kill()
            node.start()
        case "stop":
            node.process.send_signal(signal.SIGSTOP)
            time.sleep(STOPPED_S)
            node.process.send_signal(signal.SIGCONT)
        case "freeze":
            server.freeze()
            time.sleep(STOPPED_S)
            server.thaw()
        case "crash":
            server.kill()
            server.start()
    time.sleep(chance.random() * 0.3)


def test_nodes_that_die_at_random_lose_nothing_and_bring_nothing_back(server: Mongod) -> None:
    url = server.url_of("crowd")
    MongoSpool(url, a_keyring(), "first").close()
    firsts = count(1)
    nodes = [Node(url, f"node-{number}", firsts) for number in range(3)]
    chance = random.Random(7)
    try:
        eventually(lambda: all(node.lines for node in nodes), what="all of them are at work")
        for _ in range(DISTURBANCES):
            disturb(server, nodes, chance)
            assert [node.process.poll() for node in nodes] == [None] * 3
    finally:
        for node in nodes:
            node.kill()
    said = [line.split() for node in nodes for line in node.lines if line.endswith("\n")]
    accepted, done = ({id for word, id in said if word == what} for what in ("accepted", "done"))
    sent = Counter(id for word, id in said if word == "sent")

    spool = MongoSpool(url, a_keyring(), "last", lease_ms=LEASE_MS)
    eventually(lambda: spool.tidy() and all(each.gone or each.name == "last" for each in spool.nodes()), what="peace")
    assert spool.tidy()
    queued: set[str] = set()
    while page := spool.deliveries(after=max(queued, default=None)):
        queued |= {delivery.id for delivery in page}
    assert accepted - queued - set(sent) == set(), "lost"
    assert done & queued == set(), "came back"
    assert len(done) > DISTURBANCES, "they have hardly been at work"
    # A second copy only where somebody was interrupted between the sending and the writing down.
    assert sum(times - 1 for times in sent.values()) <= DISTURBANCES * AT_ONCE
    with server.client() as client:
        content = client["crowd"]["content"].distinct("_id.message_id")
        marks = [
            client["crowd"][name].count_documents({"unit": {"$exists": True}}) for name in ("deliveries", "outbox")
        ]
    assert set(content) == queued
    assert marks == [0, 0]
    assert {str(row["id"]) for row in spool.outbox(1_000_000)} >= accepted
    spool.close()
