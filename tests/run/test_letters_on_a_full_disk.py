"""Letters of the appliance's own where there is no room for them: refused whole, and taken again afterwards."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from appliance_process import eventually
from graphql_client import GraphqlClient
from real_disks import Mounted, tmpfs
from world import World

from appliance.configuration import ENGINE_SOCKET
from appliance.wire import WireError, call

SIGN_UP = 'mutation ($e: String!) { signUp(email: $e, password: "correct horse") { errors { code } } }'


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Mounted]:
    with tmpfs(tmp_path / "world" / "var", "48m") as mounted:
        yield mounted


@pytest.fixture
def world(disk: Mounted) -> Iterator[World]:
    with World(disk.directory.parent, {"info@forward.test": ["owner@dest.test"]}) as world:
        yield world
        assert world.objections() == []


def send(world: World, recipient: str) -> None:
    """As the control process asks for it."""
    socket = world.appliance.data_dir / ENGINE_SOCKET
    answers = list(call(socket, "letter.send", recipient=recipient, subject="A letter", text="Good morning.\n"))
    assert answers == [{"mailboxes": 1}]


def test_a_full_disk_takes_no_letter_and_leaves_nothing_of_it_behind(world: World, disk: Mounted) -> None:
    send(world, "before@dest.test")
    world.arrived("before@dest.test")
    other = disk.fill()
    eventually(lambda: world.appliance.http("/health/ready")[0] == 503, what="health tells")
    with pytest.raises(WireError):
        send(world, "during@dest.test")
    with GraphqlClient(world.appliance.http_port) as browser:
        assert browser.ask(SIGN_UP, e="new@dest.test").codes == ["UNAVAILABLE"]
        assert world.appliance.queue() == []
        other.unlink()
        eventually(lambda: world.appliance.http("/health/ready")[0] == 200, what="health is well again")
        assert browser.data(SIGN_UP, e="new@dest.test")["signUp"]["errors"] == []
    world.arrived("new@dest.test")
    send(world, "after@dest.test")
    world.arrived("after@dest.test")
    world.queue_is_empty()
    assert world.main.for_recipient("during@dest.test") == []
    assert len(world.main.for_recipient("new@dest.test")) == 1
