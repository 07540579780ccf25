"""Full disks, broken disks and sudden death: what was promised is there, what was not is not."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from faulty_disk import FaultyDisk
from storage_backends import SqliteBackend
from stored_values import NOON, a_delivery, a_keyring, a_row, an_event, an_id

from appliance.model.delivery import DeliveryState
from appliance.privacy.declarations import ACCOUNTS
from appliance.storage.records import Insert, StoreUnavailable
from appliance.storage.spool import Accept, AddPart, Complete, Operation, ReturnPath, Undecided
from appliance.storage.sqlite_database import Database
from appliance.storage.sqlite_spool import SqliteSpool


@pytest.fixture
def disk() -> Iterator[FaultyDisk]:
    """A disk that works until it is told not to."""
    disk = FaultyDisk()
    yield disk
    disk.unregister()


def group(number: int, octets: int = 5000) -> list[Operation]:
    return [
        AddPart(an_id(number), 0, b"x" * octets),
        Accept([a_delivery(number)], [an_event(number)], [ReturnPath(f"{number}", "s@sender.example", "abcdef", NOON)]),
    ]


def nothing_of(spool: SqliteSpool, number: int) -> bool:
    return (
        spool.delivery(an_id(number)) is None
        and spool.part(an_id(number), 0) is None
        and an_id(number) not in [row["id"] for row in spool.outbox(100)]
        and spool.return_path(f"{number}") is None
    )


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ({"write": apsw.FullError()}, "spool.sqlite: the disk is full"),
        ({"write": apsw.IOError()}, "spool.sqlite: the disk reports an error"),
        ({"sync": [apsw.IOError()] * 9}, "spool.sqlite: the disk reports an error"),
        ({"write": apsw.ReadOnlyError()}, "spool.sqlite: it can't be written"),
    ],
    ids=["full", "write", "sync", "read-only"],
)
def test_nothing_of_a_group_remains_when_the_disk_fails_and_the_next_one_goes_well(
    sqlite: SqliteBackend, disk: FaultyDisk, fault: dict[str, Any], cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.storage.sqlite_salvage.SALVAGE_EVERY_S", 0)
    spool = sqlite.spool(disk=disk.disk)
    spool.apply(group(1))
    with disk.failing(**fault), pytest.raises(StoreUnavailable, match=cause):
        spool.apply([*group(2), Complete(an_id(1), an_id(1))])
    assert nothing_of(spool, 2)
    assert spool.deliveries() == [a_delivery(1)]
    spool.apply(group(2))
    assert spool.deliveries() == [a_delivery(1), a_delivery(2)]
    # What was accepted keeps flowing out while nothing can be taken in.
    with disk.failing(**fault):
        assert spool.part(an_id(1), 0) == b"x" * 5000
    spool.close()
    assert sqlite.spool().deliveries() == [a_delivery(1), a_delivery(2)]


def test_a_full_file_system_takes_nothing_and_recovers_by_itself(sqlite: SqliteBackend) -> None:
    """The page limit of SQLite is what a full disk is, as far as SQLite is concerned."""
    spool = sqlite.spool()
    spool.apply(group(1))
    writer = spool._database.current._writer
    (limit,) = next(iter(writer.execute("PRAGMA max_page_count")))
    writer.execute("PRAGMA max_page_count=40").fetchall()
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        spool.apply([*group(2), *group(3, octets=250_000)])
    assert nothing_of(spool, 2)
    assert nothing_of(spool, 3)
    (claimed,) = spool.claim(NOON, 10)
    spool.apply([Complete(claimed.id, claimed.message_id)])
    writer.execute(f"PRAGMA max_page_count={limit}").fetchall()
    spool.apply(group(3, octets=250_000))
    assert spool.deliveries() == [a_delivery(3)]


def test_a_group_whose_sync_failed_does_not_come_back_after_a_crash(
    sqlite: SqliteBackend, disk: FaultyDisk, tmp_path: Path
) -> None:
    """Its frames are all in the log, commit record included: read again at the next start, they would be a ghost."""
    spool = sqlite.spool(disk=disk.disk)
    spool.apply(group(1))
    # The disk fails for one sync and then works again.
    with disk.failing(sync=[apsw.IOError()]), pytest.raises(StoreUnavailable):
        spool.apply(group(2))
    crashed = SqliteBackend(tmp_path / "crashed")
    shutil.copytree(sqlite.spool_path.parent, crashed.spool_path.parent)
    found = crashed.spool()
    assert found.deliveries() == [a_delivery(1)]
    crashed.close()


@pytest.mark.parametrize("can_be_cut", [True, False])
def test_it_does_not_come_back_where_nothing_else_works_either_or_nobody_is_told_what_became_of_it(
    sqlite: SqliteBackend, disk: FaultyDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_be_cut: bool
) -> None:
    """No sync succeeds any more, so that no fresh file can be begun. The log can be cut off, or not even that."""
    monkeypatch.setattr("appliance.storage.sqlite_salvage.SALVAGE_EVERY_S", 0)

    def refuse(path: Path, octets: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    spool = sqlite.spool(disk=disk.disk)
    spool.apply(group(1))
    if not can_be_cut:
        monkeypatch.setattr(disk.disk, "cut", refuse)
    with disk.failing(sync=[apsw.IOError()] * 9):
        with pytest.raises(StoreUnavailable) as told:
            spool.apply(group(2))
        assert spool.degraded
        crashed = SqliteBackend(tmp_path / "crashed")
        shutil.copytree(sqlite.spool_path.parent, crashed.spool_path.parent)
    is_back = crashed.spool().deliveries() != [a_delivery(1)]
    crashed.close()
    # Raised and told as long as the next start might find it; certain again once a fresh file has been begun.
    assert (isinstance(told.value, Undecided), spool.undecided, is_back) == (not can_be_cut,) * 3
    spool.tidy()
    assert not spool.degraded
    assert not spool.undecided
    assert spool.deliveries() == [a_delivery(1)]


def test_a_group_is_synced_once_and_a_claim_not_at_all(sqlite: SqliteBackend, disk: FaultyDisk) -> None:
    spool = sqlite.spool(disk=disk.disk)
    spool.apply(group(1))
    before = disk.syncs
    spool.apply([*group(2), *group(3), *group(4)])
    assert disk.syncs == before + 1
    assert len(spool.claim(NOON, 10)) == 4
    assert disk.syncs == before + 1
    spool.apply([Complete(an_id(1), an_id(1))])
    assert disk.syncs == before + 2


CHILD = """
import json, sys
from pathlib import Path
from appliance.storage.spool import Accept, AddPart, Complete
from appliance.storage.sqlite_spool import SqliteSpool
from stored_values import NOON, a_delivery, a_keyring, an_event, an_id

spool = SqliteSpool(Path(sys.argv[1]), a_keyring())
for number in range(1, 100_000):
    operations = [
        AddPart(an_id(number), 0, b"x" * 3000),
        AddPart(an_id(number), 1, b"y" * 3000),
        Accept([a_delivery(number)], [an_event(number)]),
    ]
    if number > 10:
        operations.append(Complete(an_id(number - 10), an_id(number - 10)))
    spool.apply(operations)
    if number % 3 == 0:
        spool.claim(NOON, 1)
    print(json.dumps(number), flush=True)
"""


@pytest.mark.parametrize("applied", [1, 9, 40])
def test_what_was_applied_survives_sigkill_and_nothing_is_there_by_half(tmp_path: Path, applied: int) -> None:
    path = tmp_path / "data" / "spool.sqlite"
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)],
        cwd=root,
        env={"PYTHONPATH": f"{root}:{root / 'tests/support'}"},
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        told = 0
        for line in child.stdout:
            told = json.loads(line)
            if told >= applied:
                break
        child.send_signal(signal.SIGKILL)
        # It may have come further than it has told: by one group at most that it did not tell of.
        told = max([told, *(json.loads(line) for line in child.stdout if line.endswith("\n"))])
    spool = SqliteSpool(path, a_keyring())
    spool.recover()
    found = spool.deliveries()
    last = int(found[-1].id, 16)
    assert last in (told, told + 1)
    assert [int(delivery.id, 16) for delivery in found] == list(range(max(1, last - 9), last + 1))
    assert all(delivery.state is DeliveryState.WAITING for delivery in found)
    for delivery in found:
        assert spool.part(delivery.id, 0) == b"x" * 3000
        assert spool.part(delivery.id, 1) == b"y" * 3000
    assert spool.part(an_id(last - 10), 0) is None
    assert [row["id"] for row in spool.outbox(1000)] == [an_id(number) for number in range(1, last + 1)]
    spool.close()


def test_a_damaged_file_is_said_to_be_damaged(sqlite: SqliteBackend) -> None:
    spool = sqlite.spool()
    for number in range(1, 30):
        spool.apply(group(number))
    spool.close()
    octets = bytearray(sqlite.spool_path.read_bytes())
    for page in range(8192, len(octets), 4096):
        octets[page : page + 100] = b"\xff" * 100
    sqlite.spool_path.write_bytes(octets)
    with pytest.raises(StoreUnavailable, match="the file is damaged"):
        sqlite.spool().deliveries()


def test_another_process_that_holds_the_file_for_too_long_is_said_to(
    sqlite: SqliteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.storage.sqlite_database.BUSY_TIMEOUT_MS", 20)
    records = sqlite.records()
    other = Database(sqlite.records_path, list(records._database._collections.values()))
    with other.transaction(), pytest.raises(StoreUnavailable, match=r"records\.sqlite: another process holds it"):
        records.apply([Insert(ACCOUNTS, a_row(ACCOUNTS))])
    records.apply([Insert(ACCOUNTS, a_row(ACCOUNTS))])
    other.close()


def test_a_file_that_somebody_writes_in_can_be_opened_and_read(
    sqlite: SqliteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.storage.sqlite_database.BUSY_TIMEOUT_MS", 20)
    records = sqlite.records()
    records.apply([Insert(ACCOUNTS, a_row(ACCOUNTS))])
    with records._database.transaction() as cursor:
        cursor.execute("DELETE FROM accounts")
        assert sqlite.records().count(ACCOUNTS, {}) == 1
