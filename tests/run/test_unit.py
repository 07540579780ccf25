"""The systemd unit: what it starts, and how little it may do, by systemd's own count."""

import shutil
import subprocess
from pathlib import Path

import pytest

from appliance.command_line.root import STATUS_WRONG
from appliance.configuration import ListenAddress, load
from appliance.configuration.reading import SEARCHED

UNIT = Path(__file__).resolve().parents[2] / "systemd/onward.service"

EXPOSURE_TENTHS = 20
"""2.0 of systemd-analyze's 10: what is left is the network, which a mail server is for."""


def test_it_runs_the_binary_and_waits_for_its_word() -> None:
    lines = UNIT.read_text().splitlines()
    # Without --config: a file that is named must be there, and /etc/onward/onward.toml is looked for anyway.
    assert "ExecStart=/usr/local/bin/onward run" in lines
    assert {"Restart=always", f"RestartPreventExitStatus={STATUS_WRONG}"} <= set(lines)
    # The word comes from a child of what systemd started: the one-file binary unpacks itself first.
    assert {"Type=notify", "NotifyAccess=all", "KillMode=mixed", "ExecReload=/bin/kill -HUP $MAINPID"} <= set(lines)
    assert {"StateDirectory=onward", "LimitCORE=0", "AmbientCapabilities=CAP_NET_BIND_SERVICE"} <= set(lines)


def test_the_configuration_in_its_comment_is_what_the_service_and_the_command_line_need(tmp_path: Path) -> None:
    written = UNIT.read_text().partition('#   hostname = "')[1:]
    example = "".join(written).partition("\n\n")[0]
    file = tmp_path / "onward.toml"
    file.write_text("\n".join(line.removeprefix("#").strip() for line in example.splitlines()))
    config = load(file)
    assert config.smtp.listen == (ListenAddress("0.0.0.0", 25), ListenAddress("::", 25))
    # systemd.exec(5): StateDirectory=onward is this directory.
    assert config.data_dir == Path("/var/lib/onward")
    assert Path("/etc/onward/onward.toml") in SEARCHED


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_it_may_do_little() -> None:
    command = ["systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE_TENTHS}", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
