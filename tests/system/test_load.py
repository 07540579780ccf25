"""Two thousand messages of four kilobytes over twenty sessions: none lost, none changed, none twice.

smtp-source, a load generator that nobody here wrote, sends; the scriptable destination takes and keeps everything.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from appliance_process import eventually
from destination import Destination
from world import World, is_one_received_line

MESSAGES = 2000
SESSIONS = 20
OCTETS = 4096

SOURCE = shutil.which("smtp-source") or shutil.which("smtp-source", path="/usr/sbin")

# What differs between two messages of smtp-source: these two fields, the second of which is a message's own.
_DATE = re.compile(rb"^Date: [^\r\n]*", re.MULTILINE)
_MESSAGE_ID = re.compile(rb"^Message-Id: (<[^\r\n]*>)", re.MULTILINE)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("load"), {"load@forward.test": ["load.box@dest.test"]}) as world:
        yield world
        assert world.objections() == []


def flood(address: str, port: int, messages: int, *options: str) -> None:
    """Let smtp-source send to somebody. It fails where any reply is not what it should be."""
    assert SOURCE is not None
    command = [SOURCE, "-s", str(SESSIONS), "-m", str(messages), "-l", str(OCTETS), *options]
    command += ["-f", "load@sender.test", "-t", "load@forward.test", f"inet:{address}:{port}"]
    subprocess.run(command, check=True, timeout=120)


def without_its_own(content: bytes) -> bytes:
    """A message of smtp-source without what is different in each."""
    return _MESSAGE_ID.sub(b"Message-Id:", _DATE.sub(b"Date:", content, count=1), count=1)


@pytest.mark.skipif(SOURCE is None, reason="smtp-source is missing: run tests/install-peers as root")
@pytest.mark.parametrize("options", [(), ("-d",)], ids=["a connection each", "connections kept"])
def test_flood(world: World, options: tuple[str, ...]) -> None:
    with Destination("127.0.0.9") as directly:
        flood(directly.address, directly.port, 1, *options)
        expected = without_its_own(directly.messages[0].content)
    before = len(world.main.messages)
    flood("127.0.0.1", world.appliance.smtp_port, MESSAGES, *options)
    eventually(lambda: len(world.main.messages) - before >= MESSAGES, within=60, what="every message has arrived")
    world.queue_is_empty()
    arrived = world.main.messages[before:]
    assert len(arrived) == MESSAGES
    names = set()
    for message in arrived:
        assert message.recipients == ("load.box@dest.test",)
        start = message.content.index(b"From: <load@sender.test>")
        assert is_one_received_line(message.content[:start])
        assert without_its_own(message.content[start:]) == expected
        found = _MESSAGE_ID.search(message.content)
        assert found is not None
        names.add(found[1])
    assert len(names) == MESSAGES
    assert not world.senders.messages
