"""P7: a wall clock that jumps 30 days neither bounces nor freezes mail."""

import time
from functools import partial
from pathlib import Path

import pytest
from appliance_process import eventually
from destination_scripts import Answer, Moment, Stage
from false_clock import FalseClock
from world import World

from appliance.model.time import parse_instant

MESSAGES = 30

pytestmark = pytest.mark.skipif(not FalseClock.is_installed(), reason="libfaketime is missing: run tests/install-peers")


class Mailbox:
    """A mailbox that is full, until somebody has tidied it."""

    def __init__(self) -> None:
        self.full = True
        self.asked = 0

    def __call__(self, moment: Moment) -> Answer | None:
        if moment.stage is not Stage.RCPT or not self.full:
            return None
        self.asked += 1
        return Answer(452, "4.2.2 Mailbox full")


def test_mail_outlives_a_clock_that_is_set_forward_and_back(tmp_path: Path) -> None:
    clock, mailbox = FalseClock(tmp_path), Mailbox()
    town = {"info@forward.test": ["owner@dest.test"]}
    with World(tmp_path / "world", town, environment=clock.environment) as world:
        world.mailbox_says(mailbox)
        # A look-up in whose middle the clock is set may time out, and then the next host has its turn.
        world.second.script = mailbox

        def send(count: int) -> None:
            for _ in range(count):
                assert world.send("info@forward.test").code == 250

        def goes_on() -> None:
            before = mailbox.asked
            eventually(lambda: mailbox.asked >= before + MESSAGES, 30, "new attempts")

        send(MESSAGES)
        goes_on()
        for days in (30, -30):
            clock.set_days(days)
            eventually(partial(_shows, world, days), 10, f"a clock that is {days} days off")
            send(MESSAGES)
            goes_on()
        # Also over a restart, at which steady time catches up with a wall clock that is ahead and not with one behind.
        world.appliance.kill()
        clock.set_days(30)
        world.appliance.start()
        goes_on()
        # What waits now waits for a time that the wall clock will not show for thirty days.
        world.appliance.stop()
        clock.set_days(0)
        world.appliance.start()
        goes_on()
        assert not world.senders.messages, "something has bounced"
        assert len(world.appliance.queue()) == 3 * MESSAGES
        mailbox.full = False
        eventually(lambda: _arrived(world) == 3 * MESSAGES, 30, "all of it")
        world.queue_is_empty()
        assert not world.senders.messages, "something has bounced"


def _arrived(world: World) -> int:
    return sum(len(server.for_recipient("owner@dest.test")) for server in (world.main, world.second))


def _shows(world: World, days: int) -> bool:
    """Whether the clock that people are shown the next attempts by is so far off."""
    due = [parse_instant(row["nextAttemptAt"]) for row in world.appliance.queue() if row["nextAttemptAt"]]
    return any(round((instant / 1000 - time.time()) / 86_400) == days for instant in due)
