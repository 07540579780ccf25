"""Programs that nobody here wrote, on both sides: swaks hands a message in, smtp-sink gets it."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from appliance_process import eventually
from world import HOSTNAME, SRS_DOMAIN, World

SINK_ADDRESS = "127.0.0.7"

_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
SWAKS = shutil.which("swaks", path=_PATH)
SINK = shutil.which("smtp-sink", path=_PATH)

pytestmark = pytest.mark.skipif(
    SWAKS is None or SINK is None, reason="swaks or smtp-sink is missing: run tests/install-peers as root"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("peers"), {"peer@forward.test": ["box@sink.test"]}) as world:
        world.dns.set("sink.test", "MX 10 mx.sink.test.")
        world.dns.set("mx.sink.test", f"A {SINK_ADDRESS}")
        yield world
        assert world.objections() == []


@pytest.fixture(scope="module")
def dumped(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in which smtp-sink puts each message with its envelope."""
    assert SINK is not None
    directory = tmp_path_factory.mktemp("dumped")
    command = [SINK, "-d", f"{directory}/message."]
    if os.geteuid() == 0:
        # It insists on being told whom to become.
        command += ["-u", pwd.getpwuid(os.geteuid()).pw_name]
    sink = subprocess.Popen([*command, f"{SINK_ADDRESS}:{world.main.port}", "100"])
    try:
        yield directory
    finally:
        sink.kill()
        sink.wait()


@pytest.mark.parametrize("options", [(), ("--pipeline",), ("--protocol", "SMTP")], ids=" ".join)
def test_swaks_to_smtp_sink(world: World, dumped: Path, options: tuple[str, ...]) -> None:
    assert SWAKS is not None
    mark = f"mark {len(list(dumped.iterdir()))}"
    body = f"{mark}\n.begins with a period\n\nEnd.\n"
    command = [
        SWAKS,
        "--server",
        f"127.0.0.1:{world.appliance.smtp_port}",
        "--helo",
        "client.example.net",
        "--silent",
        "2",
    ]
    command += ["--from", "ann@sender.test", "--to", "peer@forward.test", "--body", body, *options]
    subprocess.run(command, check=True, timeout=30)

    def look() -> str | None:
        texts = [path.read_text() for path in dumped.iterdir()]
        return next((text for text in texts if mark in text and text.rstrip().endswith("End.")), None)

    text = eventually(look, what="the message at smtp-sink")
    assert f"X-Helo-Args: {HOSTNAME}\n" in text
    assert "X-Rcpt-Args: <box@sink.test>\n" in text
    assert f"@{SRS_DOMAIN}>" in text.partition("X-Mail-Args: <srs0=")[2].partition("\n")[0]
    assert "Received: from client.example.net ([127.0.0.1])\n" in text
    assert body in text
