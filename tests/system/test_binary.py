"""The frozen binary, as somebody gets it who has no Python: one file, an empty directory, an empty environment."""

import os
import re
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mongod import running_mongod
from redis_server import PrivateRedis, missing

ROOT = Path(__file__).resolve().parents[2]
FREEZE_S = 600
STEP_S = 40


@pytest.fixture(scope="module")
def binary() -> Path:
    """`make binary`, without the make."""
    subprocess.run([sys.executable, ROOT / "build" / "freeze.py"], check=True, timeout=FREEZE_S)
    return ROOT / "dist" / "onward"


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    (tmp_path / "tmp").mkdir()
    return tmp_path


@contextmanager
def _started(binary: Path, directory: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [binary, *words],
        cwd=directory,
        # TMPDIR is where it unpacks itself; nothing else of this environment reaches it.
        env={"TMPDIR": str(directory / "tmp"), "PATH": "/nonexistent"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    assert process.stdout is not None
    ends, rest = time.monotonic() + STEP_S, b""
    while (left := ends - time.monotonic()) > 0:
        if not select.select([process.stdout], [], [], left)[0]:
            break
        octets = os.read(process.stdout.fileno(), 65536)
        if not octets:
            return
        *whole, rest = (rest + octets).split(b"\n")
        yield from (line.decode() for line in whole)
    raise TimeoutError(f"it said nothing more within {STEP_S} s")


def _typed(binary: Path, directory: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [binary, *words],
        cwd=directory,
        env={"TMPDIR": str(directory / "tmp")},
        capture_output=True,
        text=True,
        timeout=STEP_S,
        check=False,
    )


def test_the_demo_plays(binary: Path, empty: Path) -> None:
    with _started(binary, empty, "demo") as process:
        assert any(line.startswith("All three came through") for line in _lines(process))
        process.send_signal(signal.SIGINT)
        assert process.wait(STEP_S) == 0
    assert [path.name for path in empty.rglob("*")] == ["tmp"], "nothing is left"


def test_the_appliance_runs(binary: Path, empty: Path) -> None:
    (empty / "onward.toml").write_text('[smtp]\nlisten = ["127.0.0.1:0"]\n[http]\nlisten = ["127.0.0.1:0"]\n')
    with _started(binary, empty, "run") as process:
        said = []
        for line in _lines(process):
            said.append(line)
            if line == "ready":
                break
        assert "ready" in said, said
        assert any(re.fullmatch(r"smtp listens on 127\.0\.0\.1:[0-9]+", line) for line in said)
        checked = _typed(binary, empty, "check")
        assert "running" in checked.stdout, checked
        # The pages are inside.
        (port,) = (line.rpartition(":")[2] for line in said if line.startswith("http listens on "))
        for path in ("/", "/graphql", "/privacy", "/canary"):
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"accept": "text/html"})
            with urllib.request.urlopen(request, timeout=STEP_S) as page:
                assert page.headers["content-type"] == "text/html; charset=utf-8"
        # By an operation that it carries along, and the socket of the operator.
        listed = _typed(binary, empty, "queue", "list")
        assert "The queue is empty." in listed.stderr, listed
        process.send_signal(signal.SIGTERM)
        assert process.wait(STEP_S) == 0
    assert (empty / "var" / "spool.sqlite").exists()
    assert not list((empty / "tmp").iterdir())


def test_a_node_runs_that_shares_its_stores(binary: Path, empty: Path) -> None:
    if missing():
        pytest.skip(missing())
    with running_mongod(replica_set=True) as mongod, PrivateRedis(empty / "redis") as redis:
        (empty / "onward.toml").write_text(
            '[smtp]\nlisten = ["127.0.0.1:0"]\n[http]\nlisten = ["127.0.0.1:0"]\n'
            f'[store]\nurl = "{mongod.url_of("onward")}"\nephemeral = "{redis.url}"\n'
        )
        with _started(binary, empty, "run") as process:
            said = []
            for line in _lines(process):
                said.append(line)
                if line == "ready":
                    break
            assert "ready" in said, said
            checked = _typed(binary, empty, "check").stdout.splitlines()
            for name, words in (("MongoDB", "a replica set of 1"), ("Redis", "in memory"), ("appliance", "running")):
                assert [line for line in checked if line.split()[1] == name and words in line], checked
            listed = _typed(binary, empty, "queue", "list")
            assert "The queue is empty." in listed.stderr, listed
            process.send_signal(signal.SIGTERM)
            assert process.wait(STEP_S) == 0
    assert not list((empty / "var").glob("*.sqlite")), "nothing is in files of its own"
