"""A start: what the last run has left behind is found, however much waits, and mail need not wait for the search."""

from collections.abc import Iterator

import pytest
from breaking_disk import BreakingDisk, Deed
from spool_ledger import started
from storage_backends import SqliteBackend
from stored_values import NOON, a_delivery, an_id

from appliance.model.delivery import DeliveryState
from appliance.storage.spool import Abandon, Accept, AddPart, Complete, Keep
from appliance.storage.sqlite_leftovers import MESSAGES_AT_ONCE
from appliance.storage.sqlite_spool import RECOVERY_STEPS


@pytest.fixture
def disk() -> Iterator[BreakingDisk]:
    """A disk that counts what is done to it."""
    disk = BreakingDisk()
    yield disk
    disk.close()


def fill(sqlite: SqliteBackend, first: int, last: int) -> None:
    """Messages that wait, of these numbers."""
    spool = sqlite.spool()
    for start in range(first, last, 500):
        numbers = range(start, min(start + 500, last))
        later = [a_delivery(number, next_attempt_at=NOON + 3_600_000) for number in numbers]
        spool.apply([*(AddPart(an_id(number), 0, b"x" * 300) for number in numbers), Accept(later)])
    spool.close()


def test_a_start_reads_no_more_because_more_mail_waits(sqlite: SqliteBackend, disk: BreakingDisk) -> None:
    """Counted in pages: the height of the trees may grow, and what a start looks at of the queue is limited."""
    read = []
    searched = RECOVERY_STEPS * MESSAGES_AT_ONCE
    for first, last in ((1, searched + 1), (searched + 1, 2 * searched + 1)):
        fill(sqlite, first, last)
        disk.done.clear()
        spool = sqlite.spool(disk=disk)
        spool.recover()
        spool.claim(NOON, 500)
        read.append(disk.done[Deed.READ])
        spool.close()
    assert read[1] < read[0] * 1.1 + 20


def test_everything_that_was_left_behind_is_found_in_the_end(
    sqlite: SqliteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.storage.sqlite_leftovers.MESSAGES_AT_ONCE", 7)
    spool = sqlite.spool()
    for number in range(1, 1001):
        spool.apply([AddPart(an_id(number), part, b"x") for part in range(number % 3 + 1)])
        if number % 5:
            spool.apply([Accept([a_delivery(number)])])
    spool.close()
    spool = sqlite.spool()
    spool.recover()
    assert not spool.tidy(), "it is too soon for that"
    started(spool)
    left = [number for number in range(1, 1001) if spool.part(an_id(number), 0) is not None]
    assert left == [number for number in range(1, 1001) if number % 5]


def test_the_search_leaves_alone_what_is_arriving_meanwhile(
    sqlite: SqliteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the clock has been set back, so that the new message stands before the old ones."""
    monkeypatch.setattr("appliance.storage.sqlite_leftovers.MESSAGES_AT_ONCE", 7)
    fill(sqlite, 1, 2001)
    spool = sqlite.spool()
    spool.recover()
    arriving, given_up = "0000000000000000012f-new", f"{an_id(1500)}-new"
    for message_id in (arriving, given_up):
        spool.apply([AddPart(message_id, 0, b"first")])
    started(spool)
    assert spool.part(arriving, 0) == b"first"
    spool.apply([AddPart(arriving, 1, b"second"), Accept([a_delivery(5000, message_id=arriving)])])
    spool.apply([Abandon(given_up)])
    assert spool.part(arriving, 1) == b"second"
    assert spool.part(given_up, 0) is None
    # The next run finds nothing to search for in it, and the message goes its way.
    spool.close()
    spool = started(sqlite.spool())
    assert spool.part(arriving, 0) == b"first"
    spool.apply([Complete(an_id(5000), arriving)])
    assert spool.part(arriving, 0) is None


def test_what_an_operator_holds_is_held_after_any_start(sqlite: SqliteBackend) -> None:
    fill(sqlite, 1, 700)
    spool = sqlite.spool()
    for number in range(1, 700):
        spool.apply([Keep(a_delivery(number, state=DeliveryState.HELD, held_for="held by the operator"))])
    spool.close()
    spool = started(sqlite.spool())
    assert {delivery.state for delivery in spool.deliveries()} == {DeliveryState.HELD}
