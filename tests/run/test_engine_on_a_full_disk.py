"""P4 with the whole appliance on a disk of its own that somebody else fills: a real one, as root may mount it."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from appliance_process import eventually
from destination_scripts import Answer, Moment, Stage
from real_disks import Mounted, tmpfs
from smtp_client import Reply
from world import World, letter

BEFORE = 5
"""Messages that wait when the disk fills up."""


class Mailbox:
    """Takes nothing until it is opened."""

    def __init__(self) -> None:
        self.is_open = False

    def __call__(self, moment: Moment) -> Answer | None:
        return Answer(450, "4.2.1 Later") if moment.stage is Stage.RCPT and not self.is_open else None


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Mounted]:
    with tmpfs(tmp_path / "world" / "var", "48m") as mounted:
        yield mounted


@pytest.fixture
def world(disk: Mounted) -> Iterator[World]:
    with World(disk.directory.parent, {"info@forward.test": ["owner@dest.test"]}) as world:
        yield world
        assert world.objections() == []


def test_a_full_disk_takes_no_mail_lets_go_of_what_it_has_and_takes_mail_again(world: World, disk: Mounted) -> None:
    engine, _ = world.appliance.children()
    mailbox = Mailbox()
    world.mailbox_says(mailbox)
    for _ in range(BEFORE):
        assert world.send("info@forward.test").code == 250
    assert world.appliance.http("/health/ready")[0] == 200
    other = disk.fill()

    def refusal(parameters: str) -> Reply | None:
        with world.appliance.client() as client:
            reply = client.envelope("ann@sender.test", ["info@forward.test"], parameters=parameters)[-1]
        return reply if reply.code != 250 else None

    # Before anything of it is sent, whether or not it says how large it will be; and health knows without being asked.
    for parameters in ("SIZE=1000", ""):
        assert str(eventually(partial(refusal, parameters))).startswith("452 4.3.1")
    eventually(lambda: world.appliance.http("/health/ready")[0] == 503, what="health tells")
    mailbox.is_open = True
    world.arrived("owner@dest.test", BEFORE)
    world.queue_is_empty()
    other.unlink()
    eventually(lambda: world.appliance.http("/health/ready")[0] == 200, what="health is well again")
    large = letter("info@forward.test", body="Good morning.\r\n" * 60_000)
    assert world.send("info@forward.test", content=large).code == 250
    world.arrived("owner@dest.test", BEFORE + 1)
    world.queue_is_empty()
    assert len(world.main.for_recipient("owner@dest.test")) == BEFORE + 1
    assert world.appliance.children()[0] == engine
