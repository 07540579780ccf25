"""One node at a time does what is to be done once."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from appliance.privacy.sealing import Keyring
from appliance.run.chores import TURN_MS, is_due, turn
from appliance.storage.records import RecordStore

NOON = 1_750_000_000_000


@pytest.fixture
def records(opened: Callable[[Keyring], RecordStore]) -> Iterator[RecordStore]:
    """What the nodes share."""
    records = opened({})
    yield records
    records.close()


def taken(records: RecordStore, node: str, now: int, chore: str = "sweep") -> bool:
    """Whether a node gets the turn at this instant; it gives it back."""
    with turn(records, chore, node, lambda: now) as mine:
        return mine


def test_a_turn_is_one_nodes_until_it_is_given_back(records: RecordStore) -> None:
    with turn(records, "sweep", "one", lambda: NOON) as mine:
        assert mine
        assert not taken(records, "two", NOON + 1)
        assert taken(records, "two", NOON + 1, chore="dust")
    assert taken(records, "two", NOON + 1)
    assert taken(records, "one", NOON + 1)


def test_what_is_done_now_and_then_is_done_by_one_of_all(records: RecordStore) -> None:
    asked = [(NOON + second * 1000, node) for second in range(0, 130, 10) for node in ("one", "two", "three")]
    done = [now for now, node in asked if is_due(records, "dust", node, lambda: now, 60_000)]  # noqa: B023
    assert [now - NOON for now in done] == [0, 70_000]
    assert taken(records, "two", NOON + 80_000), "another chore has turns of its own"


def test_a_turn_is_given_back_by_one_that_fails_too(records: RecordStore) -> None:
    with pytest.raises(ZeroDivisionError), turn(records, "sweep", "one", lambda: NOON):
        raise ZeroDivisionError
    assert taken(records, "two", NOON)


def test_of_many_that_ask_at_once_one_has_the_turn(records: RecordStore) -> None:
    for now in range(NOON, NOON + 20 * (TURN_MS + 1), TURN_MS + 1):
        together = Barrier(4)

        def ask(node: str, now: int = now, together: Barrier = together) -> bool:
            together.wait()
            with turn(records, "sweep", node, lambda: now) as mine:
                together.wait()
                return mine

        with ThreadPoolExecutor(4) as threads:
            assert sorted(threads.map(ask, ["one", "two", "three", "four"])) == [False, False, False, True]


def test_the_turn_of_a_node_that_died_over_it_ends_with_its_time(records: RecordStore) -> None:
    with turn(records, "sweep", "one", lambda: NOON):
        assert not taken(records, "two", NOON + TURN_MS)
        with turn(records, "sweep", "two", lambda: NOON + TURN_MS + 1) as mine:
            assert mine
            assert not taken(records, "three", NOON + TURN_MS + 2)


def test_one_that_took_too_long_gives_back_nobody_elses_turn(records: RecordStore) -> None:
    late = turn(records, "sweep", "one", lambda: NOON)
    assert late.__enter__()
    with turn(records, "sweep", "two", lambda: NOON + TURN_MS + 1) as mine:
        assert mine
        late.__exit__(None, None, None)
        assert not taken(records, "three", NOON + TURN_MS + 2)


@pytest.mark.parametrize(("ahead_ms", "waits"), [(TURN_MS // 2, True), (30 * 86_400_000, False)])
def test_a_clock_that_was_wrong_keeps_nobody_waiting(records: RecordStore, ahead_ms: int, waits: bool) -> None:
    """One that is ahead by a little is believed; after one that is ahead by a month nobody would ever have a turn."""
    with turn(records, "sweep", "one", lambda: NOON + ahead_ms):
        assert taken(records, "two", NOON) is not waits
