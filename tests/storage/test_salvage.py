"""When the disk has failed under the spool: nothing is tried again on that file, and a fresh one is gone on with."""

import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from breaking_disk import BreakingDisk, Deed, Fault
from small_disk import on_a_small_disk
from storage_backends import SqliteBackend
from stored_values import NOON, a_delivery, an_event, an_id

from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import Accept, AddPart, Complete, Operation

PAGE_OCTETS = 4096
"""Of SQLite's files."""


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[BreakingDisk]:
    """A disk that fails where it is told to. A salvage is tried again at once."""
    monkeypatch.setattr("appliance.storage.sqlite_salvage.SALVAGE_EVERY_S", 0)
    disk = BreakingDisk()
    yield disk
    disk.close()


def group(number: int) -> list[Operation]:
    return [AddPart(an_id(number), 0, b"x" * 5000), Accept([a_delivery(number)], [an_event(number)])]


def fail(disk: BreakingDisk, deed: Deed, *, for_ever: bool = False) -> None:
    """From the next one of these on."""
    disk.fault = Fault(deed, disk.done[deed] + 1, for_ever)


def files(sqlite: SqliteBackend) -> list[str]:
    return sorted(path.name for path in sqlite.spool_path.parent.iterdir() if path.suffix != ".reserve")


def test_what_was_under_way_goes_on_in_the_fresh_file(sqlite: SqliteBackend, disk: BreakingDisk) -> None:
    spool = sqlite.spool(disk=disk)
    spool.apply([*group(1), *group(2)])
    (claimed, _) = spool.claim(NOON, 10)
    fail(disk, Deed.SYNC)
    with pytest.raises(StoreUnavailable, match=r"spool\.sqlite: the disk reports an error"):
        spool.apply(group(3))
    assert spool.degraded is None
    assert files(sqlite) == ["spool-2.sqlite", "spool-2.sqlite-shm", "spool-2.sqlite-wal"]
    # Nobody else gets what a courier has in its hands, and what became of it is written down.
    assert spool.claim(NOON, 10) == []
    assert spool.part(claimed.message_id, 0) == b"x" * 5000
    spool.apply([Complete(claimed.id, claimed.message_id, [an_event(11)])])
    assert [delivery.id for delivery in spool.deliveries()] == [an_id(2)]
    assert [row["id"] for row in spool.outbox(10)] == [an_id(1), an_id(2), an_id(11)]
    spool.close()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in sqlite.spool_path.parent.iterdir()}
    assert modes == {0o600}


def test_a_spool_that_cannot_go_on_says_why_and_is_not_written_until_it_can(
    sqlite: SqliteBackend, disk: BreakingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = sqlite.spool(disk=disk)
    spool.apply(group(1))
    monkeypatch.setattr("appliance.storage.sqlite_salvage.SALVAGE_EVERY_S", 3600)
    fail(disk, Deed.SYNC, for_ever=True)
    with pytest.raises(StoreUnavailable):
        spool.apply(group(2))
    disk.fault = None
    written = disk.done[Deed.WRITE]
    for write in (lambda: spool.apply(group(2)), lambda: spool.claim(NOON, 10)):
        with pytest.raises(StoreUnavailable, match="the disk reports an error"):
            write()
    assert not spool.tidy()
    assert disk.done[Deed.WRITE] == written
    assert spool.degraded == "spool.sqlite: the disk reports an error"
    # What was accepted can be read all the time, and so be sent.
    assert spool.part(an_id(1), 0) == b"x" * 5000
    assert spool.deliveries() == [a_delivery(1)]
    spool.close()
    spool = sqlite.spool()
    spool.apply(group(2))
    assert spool.degraded is None
    assert spool.deliveries() == [a_delivery(1), a_delivery(2)]


@pytest.mark.parametrize("deed", [Deed.CREATE, Deed.SYNC_FILE, Deed.RENAME, Deed.SYNC_NAMES, Deed.ERASE], ids=str)
def test_a_salvage_that_fails_somewhere_is_begun_anew(sqlite: SqliteBackend, disk: BreakingDisk, deed: Deed) -> None:
    spool = sqlite.spool(disk=disk)
    spool.apply(group(1))
    fail(disk, Deed.SYNC)
    spool._database.cut_log()
    assert spool.degraded
    fail(disk, deed)
    # Tidying is what brings it back where nobody writes.
    while spool.degraded:
        spool.tidy()
    spool.apply(group(2))
    spool.close()
    spool = sqlite.spool()
    assert spool.deliveries() == [a_delivery(1), a_delivery(2)]
    assert len([name for name in files(sqlite) if name.endswith(".sqlite")]) == 1


def test_a_start_takes_the_file_with_the_highest_number_and_erases_the_others(sqlite: SqliteBackend) -> None:
    sqlite.spool().apply(group(1))
    sqlite.close()
    first, directory = sqlite.spool_path, sqlite.spool_path.parent
    for number in (9, 10):
        first.with_name(f"spool-{number}.sqlite").write_bytes(first.read_bytes())
    for name in ("spool-11.sqlite.new", "spool-11.sqlite.new-journal", "spool-9.sqlite-wal"):
        (directory / name).write_bytes(b"unfinished")
    (directory / "spool-notes.txt").write_bytes(b"somebody else's")
    spool = sqlite.spool()
    assert spool.deliveries() == [a_delivery(1)]
    spool.close()
    assert files(sqlite) == ["spool-10.sqlite", "spool-notes.txt"]


def test_a_salvage_waits_for_room_and_gives_up_the_reserve_for_it(tmp_path: Path) -> None:
    said = on_a_small_disk(
        "10m",
        tmp_path / "disk",
        """
import json, sys
from pathlib import Path
import appliance.storage.sqlite_salvage
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import PART_OCTETS, Accept, AddPart, Complete
from breaking_disk import BreakingDisk, Deed, Fault
from stored_values import NOON, a_delivery, a_keyring, an_id
from appliance.storage.disk import Disk
from appliance.storage.sqlite_spool import SqliteSpool

appliance.storage.sqlite_salvage.SALVAGE_EVERY_S = 0
directory = Path(sys.argv[1])
disk = BreakingDisk()
disk.space = Disk.space.__get__(disk)
spool = SqliteSpool(directory / "spool.sqlite", a_keyring(), disk=disk)
spool.apply([*(AddPart(an_id(1), part, bytes(PART_OCTETS)) for part in range(12)), Accept([a_delivery(1)])])
spool.claim(NOON, 1)
(directory / "other").write_bytes(bytes(4_500_000))
disk.fault = Fault(Deed.SYNC, disk.done[Deed.SYNC] + 1, for_ever=False)
spool._database.cut_log()
spool.tidy()
print(json.dumps([spool.degraded is not None, len(spool.part(an_id(1), 11)), (directory / "spool.reserve").exists()]))
(directory / "other").unlink()
spool.apply([Complete(an_id(1), an_id(1))])
while not spool.tidy():
    pass
print(json.dumps([spool.degraded is not None, spool.deliveries(), (directory / "spool.reserve").exists()]))
""",
    )
    assert said == [[True, 1 << 18, False], [False, [], True]]


def test_a_directory_that_cannot_be_read_is_not_taken_for_an_empty_one(
    sqlite: SqliteBackend, disk: BreakingDisk
) -> None:
    spool = sqlite.spool(disk=disk)
    spool.apply(group(1))
    fail(disk, Deed.SYNC)
    with pytest.raises(StoreUnavailable):
        spool.apply(group(2))
    spool.close()
    for deed in (Deed.LIST, Deed.SYNC_NAMES):
        fail(disk, deed)
        with pytest.raises(StoreUnavailable):
            sqlite.spool(disk=disk)
        assert files(sqlite) == ["spool-2.sqlite"]
    assert sqlite.spool(disk=disk).deliveries() == [a_delivery(1)]


def test_a_copy_that_is_not_whole_does_not_take_the_place_of_the_file(
    sqlite: SqliteBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a page that could not be written, some file systems give back afterwards what stood there before."""
    spool = sqlite.spool()
    spool.apply(group(1))
    spool.close()
    before = sqlite.spool_path.read_bytes()
    spool = sqlite.spool()
    spool.apply(group(2))
    spool.close()
    with closing(apsw.Connection(str(sqlite.spool_path))) as connection:
        ((page,),) = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'deliveries_by_message_id'"
        ).fetchall()
    assert isinstance(page, int)
    with sqlite.spool_path.open("r+b") as file:
        file.seek((page - 1) * PAGE_OCTETS)
        file.write(before[(page - 1) * PAGE_OCTETS : page * PAGE_OCTETS])
    spool = sqlite.spool()
    spool._database._give_up("told to")
    with pytest.raises(StoreUnavailable, match="told to"):
        spool.apply(group(3))
    assert "the copy is not whole" in caplog.text
    assert [name for name in files(sqlite) if "-2" in name] == []
    assert spool.deliveries() == [a_delivery(1), a_delivery(2)]


def test_a_start_leaves_nothing_in_the_log_for_the_next(sqlite: SqliteBackend, disk: BreakingDisk) -> None:
    spool = sqlite.spool(disk=disk)
    spool.apply(group(1))
    spool._database.current.abandon()
    renewed = disk.done[Deed.RENEW]
    spool = sqlite.spool(disk=disk)
    assert disk.done[Deed.RENEW] == renewed + 1
    assert spool._database.log_octets() == 0
    assert spool.deliveries() == [a_delivery(1)]
