"""A node dies, or stands still, at any command of two groups: the others find all of each or nothing, and it stays so.

The second is about what the first has brought, and is marked while that is being finished.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from appliance_process import eventually
from mongod import Mongod
from spool_writer import prepare, seen, the_group, the_next_group
from storage_backends import MONGODS, MongoBackend
from stored_values import NOON

from appliance.model.delivery import DeliveryState
from appliance.storage.mongo_spool import MongoSpool

LEASE_MS = 150
"""What is half a minute elsewhere."""

AT_LEAST = 20
"""Commands of the groups that write: fewer, and they are not what they were made for."""

LATER = NOON + 1_000_000

_ROOT = Path(__file__).parents[2]


class Writer:
    """The other node, in a process of its own."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(_ROOT / "tests/support/spool_writer.py"), url],
            env={"PYTHONPATH": f"{_ROOT}:{_ROOT / 'tests/support'}", "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(params=MONGODS)
def house(request: pytest.FixtureRequest) -> Iterator[MongoBackend]:
    """A database on a server."""
    server: Mongod = request.getfixturevalue(request.param)
    place = MongoBackend(server)
    yield place
    place.close()


@pytest.fixture
def writer(house: MongoBackend) -> Iterator[Writer]:
    """The node that dies."""
    process = Writer(house.url)
    yield process
    process.close()


def before_between_and_after(spool: MongoSpool) -> list[dict[str, object]]:
    """What is there where neither of the groups happens, where the first does, and where both do; by the number 0."""
    prepare(spool, 0)
    states = [seen(spool, 0)]
    for operations in (the_group(0), the_next_group(0)):
        spool.apply(operations)
        states.append(seen(spool, 0))
    return states


def taken_over(spool: MongoSpool, group: int) -> dict[str, object]:
    """What is there once this node has the other's work."""

    def is_gone() -> bool:
        return spool.tidy() and all(node.gone for node in spool.nodes() if node.name == f"writer-{group}")

    eventually(is_gone, what="the other node is taken for dead")
    return seen(spool, group)


def test_what_a_dead_node_was_writing_is_there_whole_or_not_at_all(house: MongoBackend, writer: Writer) -> None:
    spool = house.spool(node="rescuer", lease_ms=LEASE_MS)
    nothing, first, both = before_between_and_after(spool)
    assert nothing != first != both
    found = []
    for number in range(1, 100):
        if writer.ask(f"SIGKILL {number} {number}") != "killed":
            break
        found.append(taken_over(spool, number))
        assert found[-1] in (nothing, first, both), f"killed before command {number}"
    assert len(found) >= AT_LEAST
    assert found[0] == nothing
    # From its word on the first counts, whatever came later. About the second's word content goes, sooner or later.
    assert nothing not in found[found.index(first) :]
    assert found[-1] == both
    # What they had under way is due once, for the one that is left; the last one has got through and died since.
    taken_over(spool, len(found) + 1)
    mine = {each.id for each in spool.deliveries() if each.state is DeliveryState.UNDER_WAY}
    claimed = [each.id for each in spool.claim(LATER, 10_000)]
    assert sorted([*mine, *claimed]) == [each.id for each in spool.deliveries()]


def test_a_node_that_stood_still_changes_nothing_when_it_goes_on(house: MongoBackend, writer: Writer) -> None:
    spool = house.spool(node="rescuer", lease_ms=LEASE_MS)
    nothing, first, both = before_between_and_after(spool)
    words = []
    for number in range(1, 100):
        if writer.ask(f"SIGSTOP {number} {number}") != "stopped":
            break
        state = taken_over(spool, number)
        assert state in (nothing, first, both), f"stopped before command {number}"
        words.append(writer.ask("continue"))
        assert words[-1] == ("written" if state == both else "refused")
        assert taken_over(spool, number) == state, f"went on with command {number}"
    assert len(words) >= AT_LEAST
    assert [words[0], words[-1]] == ["refused", "written"]
