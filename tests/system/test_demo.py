"""`onward demo` as a newcomer sees it: three messages come through, it stays up, and nothing of it is left."""

import os
import re
import signal
import smtplib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import process_tree
import pytest
from appliance_process import eventually

from appliance.demo.samples import ALIAS, FRIEND, MAILBOX, SAMPLES

_ROOT = Path(__file__).resolve().parents[2]
_WITHIN = 15


class Demo:
    """One run of the demo, with a temporary directory of its own to leave things in."""

    def __init__(self, directory: Path) -> None:
        self.temporary = directory / "temporary"
        self.temporary.mkdir()
        self._out = directory / "out"
        with self._out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "appliance", "demo"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join([str(_ROOT), str(_ROOT / "graphql")]),
                    "TMPDIR": str(self.temporary),
                },
                start_new_session=True,
            )
        self.below: set[int] = set()

    def shows(self) -> str:
        """What it has printed so far."""
        return self._out.read_text(encoding="utf-8")

    def until(self, words: str) -> None:
        """Wait until it has printed this."""
        eventually(lambda: words in self.shows() or self.process.poll() is not None, _WITHIN, words)
        assert words in self.shows(), self.shows()
        self.below.update(process_tree.descendants(self.process.pid)[1:])

    def ends_on(self, number: int) -> int:
        """The exit status after this signal; fails where anything of it is left."""
        self.below.update(process_tree.descendants(self.process.pid)[1:])
        self.process.send_signal(number)
        status = self.process.wait(timeout=_WITHIN)
        left = [process_tree.command_line(pid) for pid in self.below if process_tree.is_alive(pid)]
        assert left == []
        assert os.listdir(self.temporary) == []
        assert sorted(os.listdir(self.temporary.parent)) == ["out", "temporary"]
        return status


@pytest.fixture
def demo() -> Iterator[Demo]:
    # Not pytest's own folder: its path is too long for a socket to have its name in there.
    with tempfile.TemporaryDirectory(prefix="onward-test-") as folder:
        started = Demo(Path(folder))
        try:
            yield started
        finally:
            if started.process.poll() is None:
                process_tree.kill_tree(started.process.pid)
                started.process.wait()


def test_the_three_messages_come_through_it_stays_up_and_ctrl_c_ends_it(demo: Demo) -> None:
    demo.until("Ctrl-C ends it.")
    shown = demo.shows()
    for number, (title, content) in enumerate(SAMPLES, start=1):
        assert f"{number}. {title}, {len(content)} octets" in shown
        assert f"the {len(content)} octets that were sent, unchanged." in shown
    assert "CHANGED" not in shown
    for each_time in (
        "EHLO laptop.sender.test",
        f"RCPT TO:<{ALIAS}>",
        f"log: RECEIVED for {ALIAS}",
        f"RCPT TO:<{MAILBOX}>",
        f"log: DELIVERED for {ALIAS}",
        "for <sales@demo.test>",
    ):
        assert shown.count(each_time) == len(SAMPLES), each_time
    assert re.search(r"onward +→ mailbox +MAIL FROM:<srs0=", shown)
    assert [path.name.startswith("onward-demo-") for path in demo.temporary.iterdir()] == [True]
    assert len(demo.below) == 3, "supervisor, engine, control"

    port = re.findall(r"--server 127\.0\.0\.1:([0-9]+)", shown)[0]
    with smtplib.SMTP("127.0.0.1", int(port), timeout=10) as client:
        client.sendmail(FRIEND, [ALIAS], "Subject: one of our own\r\n\r\nHello.\r\n")
        demo.until(f"octets for {MAILBOX}")
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail(FRIEND, ["nobody@elsewhere.test"], "Subject: x\r\n\r\n")
    demo.until("log: DELIVERED")
    assert demo.process.poll() is None

    assert demo.ends_on(signal.SIGINT) == 0
    assert "Traceback" not in demo.shows()
    assert "nothing of it is left" in demo.shows()


def test_sigterm_in_the_middle_of_the_play_ends_it_too(demo: Demo) -> None:
    demo.until(f"2. {SAMPLES[1][0]}")
    assert demo.ends_on(signal.SIGTERM) == 0
    assert "Traceback" not in demo.shows()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_the_play_has_begun_it_can_be_ended_as_well(demo: Demo, number: int) -> None:
    demo.until("The operator sets it up")
    assert demo.ends_on(number) in (0, 130)
    assert "Traceback" not in demo.shows()
