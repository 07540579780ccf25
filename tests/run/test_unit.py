"""The systemd unit: what it starts, and how little it may do, by systemd's own count."""

import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parents[2] / "systemd/onward.service"

EXPOSURE_TENTHS = 20
"""2.0 of systemd-analyze's 10: what is left is the network, which a mail server is for."""


def test_it_runs_the_binary_and_waits_for_its_word() -> None:
    lines = UNIT.read_text().splitlines()
    assert "ExecStart=/usr/local/bin/onward run --config /etc/onward/onward.toml" in lines
    # The word comes from a child of what systemd started: the one-file binary unpacks itself first.
    assert {"Type=notify", "NotifyAccess=all", "KillMode=mixed", "ExecReload=/bin/kill -HUP $MAINPID"} <= set(lines)
    assert {"StateDirectory=onward", "LimitCORE=0", "AmbientCapabilities=CAP_NET_BIND_SERVICE"} <= set(lines)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_it_may_do_little() -> None:
    command = ["systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE_TENTHS}", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
