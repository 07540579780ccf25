"""The whole appliance on a disk that refuses, and under messages that would not fit into memory.

That the disk refuses is the kernel's word here: a limit is set on how large a file the engine may write (setrlimit(2),
RLIMIT_FSIZE), and every write beyond it fails with EFBIG. SQLite knows no such error and calls it one of the disk.
"""

import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from appliance_process import Settings, eventually
from destination_scripts import Answer, Stage, always
from process_tree import PeakMemory
from smtp_client import Reply
from world import World, letter

FILE_OCTETS = 40_000
"""The largest file that the engine may write while its disk refuses: less than an empty spool has, and more than it has
said by then."""

LARGE = 25_000_000
AT_ONCE = 50
ENGINE_OCTETS = 600 << 20
"""What the engine may have in memory while it takes so many large messages at once: half of what they are together."""

PATIENCE_S = 300
"""For one reply: all the others are written to the disk meanwhile."""

NO_LIMIT = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    town = {f"{name}@forward.test": [f"{name}.box@dest.test"] for name in ("before", "after", "large")}
    settings: Settings = {"delivery": {"retry": ["1s", "1s", "1h"]}}
    with World(tmp_path_factory.mktemp("disk"), town, settings) as world:
        yield world
        assert world.objections() == []


def test_a_disk_that_refuses_is_answered_451_and_told_by_health_and_all_is_well_when_it_is(world: World) -> None:
    engine, _ = world.appliance.children()
    world.mailbox_says(always(Stage.RCPT, Answer(450, "4.2.1 Later"), recipient="before.box@dest.test", times=1))
    assert world.send("before@forward.test").code == 250
    large = letter("after@forward.test") + b"a line that makes a message large, again and again\r\n" * 6000
    resource.prlimit(engine, resource.RLIMIT_FSIZE, (FILE_OCTETS, resource.RLIM_INFINITY))
    refused = world.send("after@forward.test", content=large)
    assert str(refused).startswith("451 4.3.0")
    eventually(lambda: world.appliance.http("/health/ready")[0] == 503, what="health tells")
    assert str(world.send("after@forward.test", content=large)).startswith("451 4.3.0")
    resource.prlimit(engine, resource.RLIMIT_FSIZE, NO_LIMIT)
    eventually(lambda: world.appliance.http("/health/ready")[0] == 200, what="health is well again")
    assert world.send("after@forward.test", content=large).code == 250
    world.arrived("after.box@dest.test")
    world.arrived("before.box@dest.test")
    world.queue_is_empty()
    # Each once, though one was refused twice, and the same engine did it all.
    assert len(world.main.for_recipient("after.box@dest.test")) == 1
    assert len(world.main.for_recipient("before.box@dest.test")) == 1
    assert world.appliance.children()[0] == engine
    assert "going on in the fresh file" in world.appliance.said()


def send(world: World, content: bytes) -> Reply:
    """With more patience than a small message needs."""
    with world.appliance.client(timeout=PATIENCE_S) as client:
        return client.message("ann@sender.test", ["large@forward.test"], content)


@pytest.mark.long
def test_fifty_large_messages_at_once_do_not_fill_the_memory(world: World) -> None:
    engine, _ = world.appliance.children()
    content = letter("large@forward.test") + b"x" * 70 + b"\r\n"
    content += (b"y" * 70 + b"\r\n") * ((LARGE - len(content)) // 72)
    sizes: list[int] = []
    world.main.take = lambda message: sizes.append(len(message.content))
    with PeakMemory(engine) as peak, ThreadPoolExecutor(AT_ONCE) as senders:
        replies = list(senders.map(lambda _: send(world, content), range(AT_ONCE)))
        taken = sum(reply.code == 250 for reply in replies)
        eventually(lambda: len(sizes) == taken, within=300, what="all have arrived")
    assert {reply.code for reply in replies} <= {250, 452}, "there may be too many at once, and nothing else"
    assert taken > 0
    assert all(size > len(content) for size in sizes)
    assert peak.resident < ENGINE_OCTETS
