"""The log of HTTP in a real store: what of a request is written, and what becomes of lines that can't be."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest
import trio
from faulty_disk import FaultyDisk
from stored_values import NOON, a_keyring, a_row

from appliance.logbook import requests
from appliance.logbook.requests import BATCH, MAX_TEXT, LoggedRequest, RequestLog
from appliance.model.time import DAY_MS
from appliance.privacy.declarations import ACCOUNTS, HTTP_REQUESTS
from appliance.privacy.sweeper import Sweeper
from appliance.storage.records import Change, Insert, RecordStore, StoreUnavailable
from appliance.storage.sqlite_records import SqliteRecords
from appliance.storage.sqlite_spool import SqliteSpool

ASKED = LoggedRequest(
    method="POST",
    path="/graphql",
    status=200,
    duration_s=0.0123,
    client_address="192.0.2.7",
    operation="ListAliases",
    code="FORBIDDEN",
    account_id="an account",
)


@pytest.fixture
def disk() -> Iterator[FaultyDisk]:
    made = FaultyDisk()
    yield made
    made.unregister()


@contextmanager
def opened(tmp_path: Path, disk: FaultyDisk) -> Iterator[SqliteRecords]:
    """A record store on this disk."""
    records = SqliteRecords(tmp_path / "records.sqlite", a_keyring(), disk=disk.disk)
    try:
        yield records
    finally:
        records.close()


async def write_all(log: RequestLog) -> None:
    """Run for no time at all, and be cancelled, as at the end of the process."""
    with trio.move_on_after(0):
        await log.run()


def paths(records: RecordStore) -> list[object]:
    """What was asked for, in the order of the log."""
    return [row["path"] for row in records.find(HTTP_REQUESTS, {})]


async def test_a_line_has_what_is_declared_and_the_disk_shows_no_person(tmp_path: Path, disk: FaultyDisk) -> None:
    with opened(tmp_path, disk) as records:
        log = RequestLog(records, lambda: NOON)
        log.add(ASKED)
        log.add(LoggedRequest("GET", "/nobody@people.test", 404, 0.0))
        await write_all(log)
        first, second = records.find(HTTP_REQUESTS, {})
        assert first == {
            "id": first["id"],
            "at": NOON,
            "method": "POST",
            "path": "/graphql",
            "status": 200,
            "duration_ms": 12,
            "client_address": "192.0.2.7",
            "operation": "ListAliases",
            "code": "FORBIDDEN",
            "account_id": "an account",
        }
        assert [second[name] for name in ("client_address", "operation", "code", "account_id")] == [None] * 4
        assert log.written == 2
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    for personal in (b"192.0.2.7", b"people.test", b"ListAliases"):
        assert personal not in stored


async def test_what_a_client_has_written_is_cut(tmp_path: Path, disk: FaultyDisk) -> None:
    with opened(tmp_path, disk) as records:
        log = RequestLog(records)
        log.add(LoggedRequest("GET", "/" + "x" * 10_000, 404, 0.0))
        # What no text can be stored as.
        log.add(LoggedRequest("GET", "/\ud800", 404, 0.0))
        await write_all(log)
        assert paths(records) == ["/" + "x" * (MAX_TEXT - 1), "/?"]


async def test_many_lines_are_few_transactions(tmp_path: Path, disk: FaultyDisk) -> None:
    with opened(tmp_path, disk) as records:
        log = RequestLog(records)
        for number in range(2 * BATCH):
            log.add(LoggedRequest("GET", f"/{number}", 404, 0.0))
        before = disk.syncs
        await write_all(log)
        assert len(paths(records)[:1]) == 1
        assert records.count(HTTP_REQUESTS, {}) == log.written == 2 * BATCH
        assert disk.syncs - before < 20


async def test_a_full_disk_loses_lines_beyond_a_limit_and_nothing_else(
    tmp_path: Path, disk: FaultyDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "MAX_WAITING", 3)
    with opened(tmp_path, disk) as records:
        log = RequestLog(records)
        with disk.failing(write=apsw.FullError("no space")):
            for number in range(5):
                log.add(LoggedRequest("GET", f"/{number}", 404, 0.0))
                await write_all(log)
            assert (log.written, log.lost) == (0, 2)
        await write_all(log)
        assert paths(records) == ["/0", "/1", "/2"]
        assert (log.written, log.lost) == (3, 2)


async def test_a_store_that_has_taken_what_it_was_away_for_has_each_line_once(
    tmp_path: Path, disk: FaultyDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, disk) as records:
        log = RequestLog(records)

        def half_of_it(changes: Sequence[Change]) -> list[int]:
            SqliteRecords.apply(records, changes[:1])
            raise StoreUnavailable("the answer got lost")

        for number in range(3):
            log.add(LoggedRequest("GET", f"/{number}", 404, 0.0))
        with monkeypatch.context() as away:
            away.setattr(records, "apply", half_of_it)
            await write_all(log)
        assert (paths(records), log.written) == (["/0"], 0)
        await write_all(log)
        assert (paths(records), log.written) == (["/0", "/1", "/2"], 3)


async def test_lines_go_when_their_time_is_over_and_with_their_account(tmp_path: Path, disk: FaultyDisk) -> None:
    settings = {"log.http_retention": 2 * DAY_MS, "log.delivery_retention": DAY_MS, "log.error_retention": DAY_MS}
    now = NOON
    with opened(tmp_path, disk) as records:
        spool = SqliteSpool(tmp_path / "spool.sqlite", a_keyring())
        sweeper = Sweeper(records, spool, settings.__getitem__)
        account = a_row(ACCOUNTS, 1) | {"email_verified": True}
        records.apply([Insert(ACCOUNTS, account)])
        log = RequestLog(records, lambda: now)
        for path, account_id in (("/theirs", str(account["id"])), ("/nobodys", None), ("/of the deleted", "gone")):
            log.add(LoggedRequest("GET", path, 200, 0.0, account_id=account_id))
            now += 1
        await write_all(log)
        # The last was written for an account in the moment of its deletion.
        assert sweeper.sweep(now)["http_requests"] == 1
        assert sweeper.sweep(NOON + 2 * DAY_MS + 1)["http_requests"] == 1
        assert paths(records) == ["/nobodys"]
        assert sweeper.sweep(NOON + 2 * DAY_MS + 2)["http_requests"] == 1
        spool.close()


async def test_strangers_do_not_fill_the_disk(
    tmp_path: Path, disk: FaultyDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "MAX_OF_STRANGERS", 2)
    now = NOON
    with opened(tmp_path, disk) as records:
        log = RequestLog(records, lambda: now)
        for path in ("/a", "/b", "/c"):
            log.add(LoggedRequest("GET", path, 404, 0.0, client_address="192.0.2.7"))
        log.add(ASKED)
        log.add(LoggedRequest("POST", "/machine", 200, 0.0))
        now += DAY_MS
        log.add(LoggedRequest("GET", "/d", 404, 0.0, client_address="192.0.2.7"))
        await write_all(log)
        assert paths(records) == ["/a", "/b", "/graphql", "/machine", "/d"]
        assert log.lost == 1
