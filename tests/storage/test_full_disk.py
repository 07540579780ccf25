"""A disk that is full takes no new mail, lets go of what it has, and is as good as before when there is room again."""

import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from faulty_disk import FaultyDisk
from small_disk import on_a_small_disk
from storage_backends import SqliteBackend
from stored_values import NOON, a_delivery, an_id

from appliance.storage.records import StoreFull
from appliance.storage.room import Room
from appliance.storage.spool import Abandon, Accept, AddPart, Complete


@pytest.fixture
def disk() -> Iterator[FaultyDisk]:
    """A disk that works until it is told not to."""
    disk = FaultyDisk()
    yield disk
    disk.unregister()


SCENE = """
import json, os, sys
from pathlib import Path
import appliance.storage.sqlite_spool
from appliance.storage.records import StoreFull
from appliance.storage.spool import PART_OCTETS, Abandon, Accept, AddPart, Complete, Keep, Record
from appliance.storage.sqlite_spool import SqliteSpool
from stored_values import NOON, a_delivery, a_keyring, an_event, an_id

directory = Path(sys.argv[1])

def opened():
    return SqliteSpool(directory / "spool.sqlite", a_keyring())

def small(number):
    spool.apply([AddPart(an_id(number), 0, b"small"), Accept([a_delivery(number)])])

def too_large(number):
    # Parts of a message without an end, until there is no room; how many went in.
    for part in range(1000):
        try:
            spool.apply([AddPart(an_id(number), part, bytes(PART_OCTETS))])
        except StoreFull:
            return part

def fill():
    # Somebody else takes all that is left.
    with open(directory / "other", "ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass

def tidied():
    return any(spool.tidy() for _ in range(20))

def say(value):
    print(json.dumps(value), flush=True)

spool = opened()
"""


def test_a_message_larger_than_the_disk_leaves_room_for_others(tmp_path: Path) -> None:
    said = on_a_small_disk(
        "10m",
        tmp_path / "disk",
        SCENE
        + """
say([spool.has_room(1000), spool.has_room(12 << 20)])
for number in (100, 101, 102):
    small(number)
    parts = too_large(number + 50)
    small(number + 10)
    spool.apply([Abandon(an_id(number + 50))])
    say([parts, tidied(), spool.part(an_id(number + 50), 0), spool.part(an_id(number + 50), parts - 1)])
    small(number + 20)
say(len(spool.claim(NOON, 100)))
""",
    )
    assert said[0] == [True, False]
    # Each time as many as before: what is erased is used again.
    assert said[1:4] == [[said[1][0], True, None, None]] * 3
    assert said[1][0] > 20
    assert said[4] == 9


def test_what_became_of_mail_is_written_down_when_somebody_else_fills_the_disk(tmp_path: Path) -> None:
    said = on_a_small_disk(
        "10m",
        tmp_path / "disk",
        SCENE
        + """
large = [AddPart(an_id(1), part, bytes(PART_OCTETS)) for part in range(12)]
spool.apply([*large, Accept([a_delivery(1)])])
small(2)
too_large(3)
fill()
say(spool.has_room(1000))
try:
    small(4)
except StoreFull:
    say("full")
spool.claim(NOON, 10)
spool.apply([Complete(an_id(1), an_id(1), [an_event(1)])])
spool.apply([Keep(a_delivery(2, attempts=1), [an_event(2)])])
spool.apply([Abandon(an_id(3))])
say([tidied(), [each.attempts for each in spool.deliveries()], len(spool.outbox(10))])
say([spool.part(an_id(1), 11), spool.part(an_id(3), 0)])
(directory / "other").unlink()
say([tidied(), (directory / "spool.reserve").exists()])
small(5)
""",
    )
    assert said[:2] == [False, "full"]
    # There is no reserve while the disk is full, so it is not all in order.
    assert said[2] == [False, [1], 2]
    assert said[3:] == [[None, None], [True, True]]


def test_what_a_full_disk_leaves_to_be_erased_is_looked_at_again_first(tmp_path: Path) -> None:
    """Of two messages in one group, one is done with, and the other has a delivery left."""
    said = on_a_small_disk(
        "10m",
        tmp_path / "disk",
        SCENE
        + """
large = [AddPart(an_id(1), part, bytes(PART_OCTETS)) for part in range(12)]
spool.apply([*large, Accept([a_delivery(1)])])
spool.apply([AddPart(an_id(2), 0, b"small"), Accept([a_delivery(2), a_delivery(3, message_id=an_id(2))])])
spool._database.cut_log()
fill()
spool.apply([Complete(an_id(1), an_id(1)), Complete(an_id(2), an_id(2))])
(directory / "other").unlink()
say(tidied())
say([spool.part(an_id(1), 0), spool.part(an_id(2), 0) == b"small"])
say([each.id == an_id(3) for each in spool.deliveries()])
""",
    )
    assert said == [True, [None, True], [True]]


def test_a_disk_without_room_for_another_file_takes_no_mail_and_lets_go_of_what_it_has(tmp_path: Path) -> None:
    """It has run out of inodes: there is room for octets enough, and none for the files that going on may take."""
    said = on_a_small_disk(
        "10m,nr_inodes=60",
        tmp_path / "disk",
        SCENE
        + """
small(1)
small(2)
others = []
try:
    while True:
        others.append(directory / f"other{len(others)}")
        others[-1].touch()
except OSError:
    others.pop()
appliance.storage.sqlite_spool.MEASURED_FOR_S = 0
say([spool.has_room(1000), os.statvfs(directory).f_bavail * 4096 > 5_000_000])
try:
    small(3)
except StoreFull:
    say("full")
spool.claim(NOON, 10)
spool.apply([Complete(an_id(1), an_id(1), [an_event(1)]), Keep(a_delivery(2, attempts=1), [an_event(2)])])
say([[each.attempts for each in spool.deliveries()], len(spool.outbox(10))])
for other in others:
    other.unlink()
small(3)
say([tidied(), spool.has_room(1000)])
""",
    )
    assert said == [[False, True], "full", [[1], 2], [True, True]]


def test_a_start_on_a_full_disk_goes_well_and_what_is_left_is_cleared_away_later(tmp_path: Path) -> None:
    said = on_a_small_disk(
        "10m",
        tmp_path / "disk",
        SCENE
        + """
small(1)
spool.claim(NOON, 1)
too_large(2)
fill()
if os.fork() == 0:
    # As after SIGKILL, and without anything in reserve.
    (directory / "spool.reserve").unlink()
    fill()
    spool = opened()
    spool.recover()
    say([spool.part(an_id(2), 0) is None, len(spool.claim(NOON, 10))])
    (directory / "other").unlink()
    say([tidied(), spool.part(an_id(2), 0) is None, len(spool.claim(NOON, 10))])
    os._exit(0)
_, status = os.wait()
os._exit(os.waitstatus_to_exitcode(status))
""",
    )
    before, after = said
    assert after[:2] == [True, True]
    assert before[1] + after[2] == 1


def test_an_abandoned_message_is_erased_when_the_disk_lets_it(sqlite: SqliteBackend, disk: FaultyDisk) -> None:
    spool = sqlite.spool(disk=disk.disk)
    spool.apply([AddPart(an_id(1), 0, b"one"), Accept([a_delivery(1)])])
    for part in range(3):
        spool.apply([AddPart(an_id(2), part, b"two")])
    with disk.failing(write=apsw.FullError()):
        spool.apply([Abandon(an_id(1)), Abandon(an_id(2))])
        assert not spool.tidy()
        with pytest.raises(StoreFull):
            spool.apply([Complete(an_id(1), an_id(1))])
    assert spool.part(an_id(2), 2) == b"two"
    assert spool.tidy()
    assert [spool.part(an_id(2), part) for part in range(3)] == [None, None, None]
    # What has a delivery is not abandoned, neither now nor later.
    assert spool.part(an_id(1), 0) == b"one"
    spool.claim(NOON, 1)


def test_who_asks_for_room_does_not_wait_for_somebody_who_reads(sqlite: SqliteBackend) -> None:
    """It is asked while senders wait, by the thread that serves all of them."""
    spool = sqlite.spool()
    begun, asked = threading.Event(), threading.Event()
    answers: list[bool] = []

    def wait(*_: object) -> int:
        begun.set()
        return int(asked.wait(60))

    database = spool._database.current
    database._reader.create_scalar_function("wait", wait)
    reading = threading.Thread(target=lambda: answers.append(database.read("SELECT wait()") == [(1,)]))
    reading.start()
    begun.wait()
    assert spool.has_room(1000)
    asked.set()
    reading.join()
    assert answers == [True]


def test_the_reserve_is_real_and_can_be_given_up(tmp_path: Path) -> None:
    room = Room(tmp_path / "spool.reserve")
    assert room.reserve()
    reserve = (tmp_path / "spool.reserve").stat()
    assert reserve.st_blocks * 512 >= reserve.st_size > 0
    room.give_up()
    assert list(tmp_path.iterdir()) == []
    # One that is cut off is made anew.
    (tmp_path / "spool.reserve").write_bytes(b"x")
    assert room.reserve()
    assert (tmp_path / "spool.reserve").stat().st_size == reserve.st_size


def test_a_spool_that_is_closed_keeps_nothing_back(sqlite: SqliteBackend) -> None:
    spool = sqlite.spool()
    assert sqlite.spool_path.with_name("spool.reserve").exists()
    spool.close()
    assert [path.name for path in sqlite.spool_path.parent.iterdir()] == ["spool.sqlite"]
