"""A node dies, or stands still, at any command of a group: the others find all of it or nothing, and it stays so."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from appliance_process import eventually
from mongod import Mongod
from spool_writer import prepare, seen, the_group
from storage_backends import MONGODS, MongoBackend
from stored_values import NOON

from appliance.model.delivery import DeliveryState
from appliance.storage.mongo_spool import MongoSpool

LEASE_MS = 150
"""What is half a minute elsewhere."""

AT_LEAST = 12
"""Commands of one group that write: fewer, and the group is not what it was made for."""

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


def before_and_after(spool: MongoSpool) -> tuple[dict[str, object], dict[str, object]]:
    """What a group leaves that does not happen, and what one that does; for the group 0."""
    prepare(spool, 0)
    nothing = seen(spool, 0)
    spool.apply(the_group(0))
    return nothing, seen(spool, 0)


def taken_over(spool: MongoSpool, group: int) -> dict[str, object]:
    """What is there once this node has the other's work."""

    def is_gone() -> bool:
        return spool.tidy() and all(node.gone for node in spool.nodes() if node.name == f"writer-{group}")

    eventually(is_gone, what="the other node is taken for dead")
    return seen(spool, group)


def test_what_a_dead_node_was_writing_is_there_whole_or_not_at_all(house: MongoBackend, writer: Writer) -> None:
    spool = house.spool(node="rescuer", lease_ms=LEASE_MS)
    nothing, whole = before_and_after(spool)
    assert nothing != whole
    found = []
    for number in range(1, 100):
        if writer.ask(f"SIGKILL {number} {number}") != "killed":
            break
        found.append(taken_over(spool, number))
        assert found[-1] in (nothing, whole), f"killed before command {number}"
    # From the word on it counts, whatever came later.
    assert len(found) >= AT_LEAST
    assert found == sorted(found, key=lambda state: state == whole)
    assert found[0] == nothing
    assert found[-1] == whole
    # What they had under way is due once, for the one that is left; the last one has got through and died since.
    taken_over(spool, len(found) + 1)
    mine = {each.id for each in spool.deliveries() if each.state is DeliveryState.UNDER_WAY}
    claimed = [each.id for each in spool.claim(LATER, 10_000)]
    assert sorted([*mine, *claimed]) == [each.id for each in spool.deliveries()]


def test_a_node_that_stood_still_changes_nothing_when_it_goes_on(house: MongoBackend, writer: Writer) -> None:
    spool = house.spool(node="rescuer", lease_ms=LEASE_MS)
    nothing, whole = before_and_after(spool)
    words = []
    for number in range(1, 100):
        if writer.ask(f"SIGSTOP {number} {number}") != "stopped":
            break
        state = taken_over(spool, number)
        assert state in (nothing, whole), f"stopped before command {number}"
        words.append(writer.ask("continue"))
        assert words[-1] == ("written" if state == whole else "refused")
        assert taken_over(spool, number) == state, f"went on with command {number}"
    assert len(words) >= AT_LEAST
    assert words == sorted(words)
    assert set(words) == {"refused", "written"}
