"""The command as a process: statuses, streams, signals, and what happens when the other end goes away."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line_desk import OWNER, Desk


def test_a_first_hour_with_the_command(desk: Desk) -> None:
    """Everything a newcomer types, in order, with the configuration found in the working directory."""
    assert desk.shell("account", "add", OWNER, "--operator").returncode == 0
    assert desk.shell("domain", "add", "example.org", "--account", OWNER, "--verified").returncode == 0
    added = desk.shell("alias", "add", "info@example.org", "ada@home.test", "--confirmed", "--json")
    assert json.loads(added.stdout)["destinations"] == [{"target": "ada@home.test", "confirmed": True}]
    listed = desk.shell("alias", "list")
    assert listed.returncode == 0
    assert listed.stdout.splitlines()[1].split()[:3] == ["info@example.org", "forward", "ada@home.test"]
    assert listed.stderr == ""
    assert desk.shell("alias", "remove", "info@example.org").returncode == 0
    empty = desk.shell("alias", "list")
    assert (empty.returncode, empty.stdout) == (0, "")
    assert "There are no aliases yet" in empty.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["account", "add", "nonsense"], 1, "is not an email address"),
        (["account", "add", "ada@people.test", "--plan", "gold"], 1, "There is no plan 'gold'"),
        (["account", "delete", "nobody@people.test"], 1, "There is no account"),
        (["account", "add"], 2, "Missing argument 'EMAIL'"),
        (["account", "add", "a@b.test", "--nonsense"], 2, "No such option"),
        (["account", "list", "--config", "nowhere.toml"], 2, "nowhere.toml"),
        (["--config", "nowhere.toml", "account", "list"], 2, "nowhere.toml"),
        (["account", "--config", "nowhere.toml", "list"], 2, "nowhere.toml"),
        (["domain", "add", "localhost", "--account", OWNER], 1, "There is no account"),
        (["alias", "list", "example.org"], 1, "not hosted here"),
        (["alias", "add", "a@b.test", "c@d.test", "--uses", "0"], 2, "--uses"),
        (["alias", "add", "a@b.test", "c@d.test", "--expires", "soon"], 2, "neither a time"),
        (["queue", "list"], 1, "onward run"),
        (["queue", "drop", "--all"], 1, "onward run"),
        (["queue", "drop"], 2, "at least one filter, or --all"),
        (["queue", "hold"], 2, "at least one filter, or --all"),
        (["queue", "lose", "--all"], 2, "No such command 'lose'"),
        (["log", "--follow"], 1, "onward run"),
        (["log", "--domain", "other.test"], 1, "not hosted here"),
        (["log", "--since", "yesterday"], 2, "neither a time"),
        (["explain", "nonsense"], 1, "is not an email address"),
        (["nonsense"], 2, "No such command 'nonsense'"),
    ],
)
def test_bad_input_is_one_clear_line_and_a_status(desk: Desk, arguments: list[str], status: int, says: str) -> None:
    finished = desk.shell(*arguments)
    assert finished.returncode == status
    assert says in finished.stderr
    assert finished.stdout == ""
    assert "Traceback" not in finished.stderr
    if status == 1:
        assert finished.stderr.startswith("onward: ")
        assert finished.stderr.count("\n") == 1


def test_a_wrong_configuration_is_status_2_with_key_and_line(desk: Desk) -> None:
    desk.configure("[smtp]\nlistne = []")
    finished = desk.shell("account", "list")
    assert finished.returncode == 2
    assert f"{desk.config.name}:4: smtp.listne: there is no such key" in finished.stderr
    assert finished.stdout == ""


def test_the_configuration_is_named_by_option_or_environment(desk: Desk, tmp_path: Path) -> None:
    desk.settle()
    elsewhere = Desk(tmp_path / "elsewhere")
    assert [row["email"] for row in desk.rows("account", "list")] == [OWNER]
    for arguments, environment in (
        (("account", "list", "--config", str(elsewhere.config)), {}),
        (("--config", str(elsewhere.config), "account", "list"), {}),
        (("--config", "nowhere.toml", "account", "list", "--config", str(elsewhere.config)), {}),
        (("account", "list"), {"ONWARD_CONFIG": str(elsewhere.config)}),
    ):
        finished = desk.shell(*arguments, environment=environment)
        assert (finished.returncode, finished.stdout) == (0, ""), arguments


def test_a_password_comes_from_standard_input_and_is_kept_as_a_hash(desk: Desk) -> None:
    finished = desk.shell("account", "add", OWNER, "--password-stdin", stdin="correct horse\n")
    assert finished.returncode == 0
    assert "correct horse" not in finished.stdout + finished.stderr
    assert b"correct horse" not in (desk.data_dir / "records.sqlite").read_bytes()
    assert desk.shell("account", "add", "b@people.test", "--password-stdin", stdin="short\n").returncode == 1
    assert desk.shell("account", "add", "b@people.test", "--password-stdin", stdin="").returncode == 2


def test_a_data_directory_that_cannot_be_made_is_one_line(desk: Desk) -> None:
    desk.data_dir.write_text("in the way")
    finished = desk.shell("account", "list")
    assert finished.returncode == 1
    assert finished.stderr.startswith("onward: ")
    assert str(desk.data_dir) in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_store_that_is_none_is_one_line(desk: Desk) -> None:
    desk.settle()
    (desk.data_dir / "records.sqlite").write_bytes(b"this is no database, and it is longer than a header " * 40)
    for leftover in desk.data_dir.glob("records.sqlite-*"):
        leftover.unlink()
    finished = desk.shell("account", "list")
    assert finished.returncode == 1
    assert finished.stderr.startswith("onward: ")
    assert "Traceback" not in finished.stderr


def test_secrets_that_others_can_read_stop_the_command(desk: Desk) -> None:
    desk.settle()
    (desk.data_dir / "secrets" / "log.key").chmod(0o644)
    finished = desk.shell("account", "list")
    assert finished.returncode == 1
    assert "chmod 600" in finished.stderr


def test_everything_it_makes_is_its_owners_alone(desk: Desk) -> None:
    desk.shell("account", "add", OWNER)
    made = [desk.data_dir, *desk.data_dir.rglob("*")]
    assert len(made) >= 4
    assert [path for path in made if path.stat().st_mode & 0o077] == []


def test_a_reader_that_goes_away_is_no_error(desk: Desk) -> None:
    desk.settle()
    for number in range(40):
        desk.done("alias", "add", f"a{number}@example.org", "--action", "reject")
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as nobody:
        finished = subprocess.run(
            [sys.executable, "-m", "appliance", "alias", "list", "--json", "--config", str(desk.config)],
            stdout=nobody,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert finished.stderr == b""


def test_the_start_is_quick(desk: Desk) -> None:
    """A budget that a heavy import breaks: the best of five, because the machine does other things too."""
    best = min(_seconds(desk) for _ in range(5))
    assert best < 0.5


def test_version_loads_nothing_heavy() -> None:
    """What the budget above stands on: no store, no cryptography, no Trio for a command that needs none."""
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "appliance", "version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stderr
    names = {line.rpartition("|")[2].strip() for line in loaded.splitlines()}
    assert "click" in names
    assert names.isdisjoint({"trio", "apsw", "cryptography", "dns", "argon2", "idna", "hypercorn", "msgspec"})


def _seconds(desk: Desk) -> float:
    began = time.monotonic()
    assert desk.shell("version").returncode == 0
    return time.monotonic() - began
