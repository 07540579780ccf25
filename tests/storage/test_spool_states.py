"""The table of a message's states (`appliance/spool/STATES.md`) is what a real spool does."""

from collections.abc import Iterator
from itertools import product

import apsw
import pytest
from breaking_disk import BreakingDisk, Deed
from spool_ledger import started
from spool_states import DOCUMENT, STANDINGS, STEPS, State, Step, document
from storage_backends import SqliteBackend
from stored_values import NOON

from appliance.model.delivery import DeliveryState
from appliance.storage.sqlite_spool import SqliteSpool

_WAYS: dict[State, tuple[State, ...]] = {
    State.NOWHERE: (),
    State.ARRIVING: (State.ARRIVING,),
    State.WAITING: (State.WAITING,),
    State.UNDER_WAY: (State.UNDER_WAY,),
    State.HELD: (State.WAITING, State.HELD),
}
"""From nowhere to each state."""


@pytest.fixture
def disk() -> Iterator[BreakingDisk]:
    """A disk that counts what is done to it."""
    disk = BreakingDisk()
    yield disk
    disk.close()


def brought(sqlite: SqliteBackend, state: State, disk: BreakingDisk) -> SqliteSpool:
    """A spool with a message in this state."""
    store = sqlite.spool(disk=disk)
    before = State.NOWHERE
    for after in _WAYS[state]:
        next(step for step in STEPS if (step.before, step.after) == (before, after)).take(store)
        before = after
    assert on_the_disk(sqlite) is state
    return store


def on_the_disk(sqlite: SqliteBackend) -> State:
    """The state that the two tables say, read by nobody of ours."""
    connection = apsw.Connection(str(sqlite.spool_path), flags=apsw.SQLITE_OPEN_READONLY)
    parts = connection.execute("SELECT count(*) FROM content").get
    rows = connection.execute("SELECT state FROM deliveries").fetchall()
    connection.close()
    states: list[DeliveryState | None] = [DeliveryState(state) for (state,) in rows]
    assert len(states) <= 1
    [found] = [
        state
        for state, standing in STANDINGS.items()
        if standing.content is bool(parts) and [standing.delivery] == (states or [None])
    ]
    return found


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step.before.value} - {step.name}")
def test_a_step_leads_where_the_table_says_and_is_synced_where_it_says(
    sqlite: SqliteBackend, step: Step, disk: BreakingDisk
) -> None:
    store = brought(sqlite, step.before, disk)
    syncs = disk.done[Deed.SYNC]
    step.take(store)
    assert on_the_disk(sqlite) is step.after
    assert (disk.done[Deed.SYNC] > syncs) is step.synced


@pytest.mark.parametrize(("state", "in_order"), list(product(State, (True, False))), ids=str)
def test_a_start_makes_of_each_state_what_the_table_says(
    sqlite: SqliteBackend, state: State, in_order: bool, disk: BreakingDisk
) -> None:
    store = brought(sqlite, state, disk)
    if in_order:
        store.close()
    else:
        store._database.current.abandon()
    store = started(sqlite.spool())
    assert on_the_disk(sqlite) is STANDINGS[state].after_a_start
    # What waits is claimed, once, and nothing else is.
    assert len(store.claim(NOON, 10)) == (STANDINGS[state].after_a_start is State.WAITING)


def test_the_page_is_what_the_table_says() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document()
