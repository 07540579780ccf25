"""What accounts have received today, over the record store: the next run goes on from it, and a new day does not."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock
from values import NOW

from appliance.model.time import DAY_MS, parse_duration
from appliance.privacy.declarations import RECEIVED_TODAY
from appliance.reception.day_counts import (
    WRITE_S,
    DayCounts,
    hear_of_others,
    keep_written,
    stored_count,
    stored_counts,
    write_down,
)
from appliance.storage.records import StoreUnavailable
from appliance.storage.sqlite_records import SqliteRecords


@pytest.fixture
def records(tmp_path: Path) -> Iterator[SqliteRecords]:
    """With nothing stored."""
    records = SqliteRecords(tmp_path / "records.sqlite", {})
    yield records
    records.close()


def counted(*accounts: str) -> DayCounts:
    """A message was accepted for each of these."""
    counts = DayCounts()
    counts.count(accounts, NOW)
    return counts


async def test_the_next_run_goes_on_from_what_was_written(records: SqliteRecords) -> None:
    counts = DayCounts()
    for accounts in (["a", "b"], ["b"]):
        counts.count(accounts, NOW)
    await write_down(counts, records, NOW)
    assert (stored_count(records, "b", NOW), stored_count(records, "c", NOW)) == (2, 0)
    following = DayCounts(stored_counts(records, NOW)[0], NOW)
    following.count(["b"], NOW)
    assert [following.received(account, NOW) for account in "abc"] == [1, 3, 0]
    await write_down(following, records, NOW)
    assert stored_counts(records, NOW)[0] == {"a": 1, "b": 3}


async def test_another_day_begins_at_nothing(records: SqliteRecords) -> None:
    counts = counted("a")
    await write_down(counts, records, NOW)
    for other in (NOW + DAY_MS, NOW - DAY_MS):
        assert stored_counts(records, other) == ({}, {})
        assert stored_count(records, "a", other) == 0
        assert DayCounts({"a": 1}, NOW).received("a", other) == 0
    counts.count(["a"], NOW)
    counts.count(["b"], NOW + DAY_MS)
    assert counts.unwritten(NOW + DAY_MS) == {"b": 1}, "what is left of yesterday is of no use to anybody"
    counts.written({"b": 1}, NOW)
    assert counts.unwritten(NOW + DAY_MS) == {"b": 1}, "it was yesterday's that was written"


async def test_what_a_store_refuses_is_written_the_next_time(
    records: SqliteRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = counted("a")

    def refuse(changes: object) -> None:
        raise StoreUnavailable("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(records, "apply", refuse)
        with pytest.raises(StoreUnavailable):
            await write_down(counts, records, NOW)
    assert counts.received("a", NOW) == 1
    await write_down(counts, records, NOW)
    assert stored_counts(records, NOW)[0] == {"a": 1}


async def test_what_has_not_changed_is_not_written_again(records: SqliteRecords) -> None:
    counts = counted("a", "b")
    await write_down(counts, records, NOW)
    assert counts.unwritten(NOW) == {}
    counts.count(["b"], NOW)
    counts.written({"a": 1, "b": 1}, NOW)
    assert counts.unwritten(NOW) == {"b": 2}, "counted while it was being written"


async def test_what_is_stored_is_erased_when_its_day_is_over(records: SqliteRecords) -> None:
    await write_down(counted("a"), records, NOW)
    (retention,) = RECEIVED_TODAY.retention
    kept, midnight = parse_duration(retention.setting), NOW - NOW % DAY_MS + DAY_MS
    assert records.sweep(RECEIVED_TODAY, retention, midnight - kept) == 0
    assert records.sweep(RECEIVED_TODAY, retention, midnight + 1 - kept) == 1


async def test_what_is_counted_is_written_before_long(records: SqliteRecords, autojump_clock: MockClock) -> None:
    # The clock waits for the thread that writes.
    autojump_clock.autojump_threshold = 0.1
    counts = counted("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_written, counts, records, lambda: NOW)
        await trio.sleep(WRITE_S * 1.5)
        assert stored_counts(records, NOW)[0] == {"a": 1}
        counts.count(["a"], NOW)
        await trio.sleep(WRITE_S)
        assert stored_counts(records, NOW)[0] == {"a": 2}
        nursery.cancel_scope.cancel()


async def test_an_outage_is_told_when_it_begins_and_when_it_is_over(
    records: SqliteRecords,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    autojump_clock.autojump_threshold = 0.1
    caplog.set_level(logging.INFO, "appliance")

    def refuse(changes: object) -> None:
        raise StoreUnavailable("the disk is full")

    counts = counted("a")
    async with trio.open_nursery() as nursery:
        with monkeypatch.context() as patch:
            patch.setattr(records, "apply", refuse)
            nursery.start_soon(keep_written, counts, records, lambda: NOW)
            await trio.sleep(WRITE_S * 4.5)
        await trio.sleep(WRITE_S * 3)
        nursery.cancel_scope.cancel()
    assert [record.getMessage() for record in caplog.records] == [
        "what accounts have received today can't be written down now: the disk is full",
        "what accounts have received today is written down again",
    ]


async def test_nodes_that_share_a_store_hear_of_each_other(records: SqliteRecords) -> None:
    one, other = DayCounts(node="mx1"), DayCounts(node="mx2")
    one.count(["a", "b"], NOW)
    other.count(["b"], NOW)
    for counts in (one, other):
        await write_down(counts, records, NOW)
    for counts in (one, other):
        await hear_of_others(counts, records, NOW)
    assert [one.received(account, NOW) for account in "ab"] == [1, 2]
    assert [other.received(account, NOW) for account in "ab"] == [1, 2]
    other.count(["b"], NOW)
    await write_down(other, records, NOW)
    assert stored_count(records, "b", NOW) == 3
    assert stored_counts(records, NOW, "mx2") == ({"b": 2}, {"a": 1, "b": 1})
    assert one.received("b", NOW + DAY_MS) == 0, "what others have received yesterday is over as well"
