"""The real engine in its house: what it says of itself, and what it does where the ground moves under it."""

import os
import resource
import sqlite3
from pathlib import Path

import pytest
from appliance_process import Appliance, eventually

from appliance import wire
from appliance.configuration import ENGINE_SOCKET
from appliance.model.time import DAY_MS, wall_clock
from appliance.run.stores import RECORDS_FILE, SPOOL_FILE

NOBODY = "127.0.0.1:9"


@pytest.fixture
def appliance(tmp_path: Path) -> Appliance:
    """With one alias; its mail stays in the queue, because there is nobody to ask for names."""
    made = Appliance(tmp_path, nameserver=NOBODY, delivery_port=9)
    made.settle("account", "add", "owner@people.test")
    made.settle("domain", "add", "forward.test", "--account", "owner@people.test", "--verified")
    made.settle("alias", "add", "first@forward.test", "box@dest.test", "--confirmed")
    return made


def send(appliance: Appliance, recipient: str) -> int:
    """Send a message, and return the code that it ends with."""
    with appliance.client() as client:
        replies = client.envelope("ann@sender.test", [recipient])
        return replies[-1].code if replies[-1].code != 250 else client.data(b"Subject: x\r\n\r\nx\r\n").code


def test_a_spool_that_refuses_is_told_and_one_that_works_again_too(appliance: Appliance) -> None:
    with appliance:
        assert send(appliance, "first@forward.test") == 250
        assert appliance.http("/health/ready") == (200, {"ready": True, "engine": "ready"})
        engine, _ = appliance.children()
        unlimited = resource.prlimit(engine, resource.RLIMIT_FSIZE)
        # From here on no write reaches a file, as on a disk that is full.
        resource.prlimit(engine, resource.RLIMIT_FSIZE, (1, unlimited[1]))
        assert send(appliance, "first@forward.test") in (451, 452)
        eventually(lambda: appliance.http("/health/ready") == (503, {"ready": False, "engine": "not healthy"}))
        checked = appliance.cli("check")
        assert checked.status == 1
        assert "its spool takes no mail: " in checked.out
        resource.prlimit(engine, resource.RLIMIT_FSIZE, unlimited)
        # Nobody sends anything: it tries by itself.
        eventually(lambda: appliance.http("/health/ready")[0] == 200)
        assert send(appliance, "first@forward.test") == 250


def test_mail_waits_by_the_clock_of_the_run_before_where_the_wall_clock_is_behind_it(appliance: Appliance) -> None:
    def told(statement: str, *values: int) -> list[tuple[int]]:
        with sqlite3.connect(appliance.data_dir / SPOOL_FILE) as connection:
            found = connection.execute(statement, values).fetchall()
        connection.close()
        return found

    ahead = wall_clock() + 30 * DAY_MS
    with appliance:
        assert send(appliance, "first@forward.test") == 250
    # As if the wall clock had been thirty days ahead, for the run that has just ended.
    assert told("UPDATE clocks SET value = value + ? WHERE id = 'steady' RETURNING value", 30 * DAY_MS)[0][0] >= ahead
    with appliance:
        assert send(appliance, "first@forward.test") == 250
        eventually(lambda: told("SELECT max(next_attempt_at) FROM deliveries")[0][0] >= ahead)
    assert told("SELECT value FROM clocks WHERE id = 'steady'")[0][0] >= ahead


def test_what_the_clocks_have_come_to_is_known_from_the_first_moment(appliance: Appliance) -> None:
    """Or else mail would wait too long where the first run dies soon, and the wall clock is set back."""
    before = wall_clock()

    def marked() -> list[tuple[int]]:
        with sqlite3.connect(appliance.data_dir / SPOOL_FILE) as connection:
            found = connection.execute("SELECT value FROM clocks WHERE id = 'steady'").fetchall()
        connection.close()
        return found

    with appliance:
        assert eventually(marked)[0][0] >= before


def test_records_that_were_replaced_are_taken_up(appliance: Appliance) -> None:
    records = appliance.data_dir / RECORDS_FILE
    backup = appliance.directory / "backup.sqlite"
    with sqlite3.connect(records) as connection:
        connection.execute("VACUUM INTO ?", [str(backup)])
    connection.close()
    appliance.settle("alias", "add", "second@forward.test", "box@dest.test", "--confirmed")
    with appliance:
        assert send(appliance, "second@forward.test") == 250
        engine, control = appliance.children()
        for left in ("-wal", "-shm"):
            records.with_name(records.name + left).unlink(missing_ok=True)
        os.replace(backup, records)
        eventually(lambda: "the engine process is ready again" in appliance.said())
        assert 'the engine process ended by itself how="status 0"' in appliance.said()
        assert f"{RECORDS_FILE} has been replaced" in appliance.said()
        assert engine not in appliance.children()
        assert control in appliance.children()
        assert send(appliance, "second@forward.test") == 550
        assert send(appliance, "first@forward.test") == 250
        # The log goes on in the new file.
        eventually(lambda: any(event["type"] == "REFUSED" for event in appliance.log_events()))


def test_one_who_wants_to_be_caught_up_finds_everything_from_before_in_the_log(appliance: Appliance) -> None:
    with appliance:
        for _ in range(5):
            assert send(appliance, "nobody@forward.test") == 550
        told = wire.call(appliance.data_dir / ENGINE_SOCKET, "events", follow=True, caughtUp=True)
        assert next(told) == {"following": True}
        assert len(appliance.log_events()) == 5
        assert send(appliance, "nobody@forward.test") == 550
        assert next(told)["type"] == "REFUSED"
        told.close()  # type: ignore[attr-defined]
