"""Disks that are read-only or lose what is written, with the kernel's own errors: no file layer of a test between."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from real_disks import Mounted, ext4, tmpfs
from stored_values import NOON, a_delivery, a_keyring, an_event, an_id

from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import Accept, AddPart, Complete, Operation, Undecided
from appliance.storage.sqlite_spool import SqliteSpool


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Mounted]:
    with tmpfs(tmp_path / "small", "24m") as mounted:
        yield mounted


@pytest.fixture
def thin(small: Mounted, tmp_path: Path) -> Iterator[Mounted]:
    """It says that it has far more room than what it stands on: where that is full, writing back fails."""
    with ext4(tmp_path / "thin", small.directory / "image", "256m") as mounted:
        yield mounted


def opened(disk: Mounted) -> SqliteSpool:
    spool = SqliteSpool(disk.directory / "spool.sqlite", a_keyring())
    spool.recover()
    return spool


def group(number: int, octets: int = 5000) -> list[Operation]:
    return [AddPart(an_id(number), 0, b"x" * octets), Accept([a_delivery(number)], [an_event(number)])]


def test_a_start_on_a_read_only_disk_changes_nothing_and_a_later_one_goes_well(small: Mounted) -> None:
    spool = opened(small)
    spool.apply(group(1))
    spool.close()
    small.remount("ro")
    with pytest.raises(StoreUnavailable):
        opened(small)
    small.remount("rw")
    spool = opened(small)
    assert spool.deliveries() == [a_delivery(1)]
    spool.apply(group(2))
    spool.close()


def test_a_disk_that_turns_read_only_takes_no_mail_and_keeps_what_it_has(thin: Mounted) -> None:
    spool = opened(thin)
    spool.apply(group(1))
    # As ext4 does it by itself after an error, with files open for writing.
    thin.remount("abort")
    with pytest.raises(StoreUnavailable):
        spool.apply(group(2))
    with pytest.raises(StoreUnavailable):
        spool.claim(NOON, 10)
    assert not spool.tidy()
    assert spool.part(an_id(1), 0) == b"x" * 5000
    assert [each.id for each in spool.deliveries()] == [an_id(1)]
    spool.close()
    thin.unmount()
    thin.mount()
    spool = opened(thin)
    assert spool.deliveries() == [a_delivery(1)]
    spool.apply(group(2))
    spool.close()


def test_a_disk_that_loses_what_is_written_back_is_gone_on_with_when_it_works_again(
    small: Mounted, thin: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real error of a sync, after which the kernel drops what it could not write."""
    monkeypatch.setattr("appliance.storage.sqlite_salvage.SALVAGE_EVERY_S", 0)
    spool = opened(thin)
    spool.apply(group(1))
    (claimed,) = spool.claim(NOON, 10)
    other = small.fill()
    kept, refused, undecided = [1], [], []
    for number in range(2, 60):
        try:
            spool.apply(group(number, 200_000))
        except Undecided:
            undecided.append(number)
        except StoreUnavailable:
            refused.append(number)
        else:
            kept.append(number)
    assert refused or undecided
    assert spool.degraded
    assert spool.part(an_id(1), 0) == b"x" * 5000
    other.unlink()
    while spool.degraded:
        spool.tidy()
    # What was in a courier's hands is, and nothing that was refused has come back.
    assert an_id(1) not in [each.id for each in spool.claim(NOON, 100)]
    spool.apply([Complete(claimed.id, claimed.message_id)])
    spool.apply(group(90))
    spool._database.current.abandon()
    # Nobody has it in memory any more.
    thin.unmount()
    thin.mount()
    spool = opened(thin)
    assert [each.id for each in spool.deliveries()] == [an_id(number) for number in (*kept[1:], 90)]
    for number in kept[1:]:
        assert spool.part(an_id(number), 0) == b"x" * 200_000
    spool.close()
