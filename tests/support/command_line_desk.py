"""Where an operator types: a configuration and a data directory of its own, and two ways to give a command.

`type` runs it within this process, which is quick; `shell` as a process of its own, which is what people do.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from appliance.command_line.root import root

HOSTNAME = "mx.onward.test"
OWNER = "ada@people.test"

_ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 60
_USUAL_UMASK = 0o022
"""What a shell gives: files that the group and others can read, unless a program says otherwise."""


class Desk:
    """One operator's desk. Nothing has happened on it yet."""

    def __init__(self, directory: Path) -> None:
        self.data_dir = directory / "var"
        self.config = directory / "onward.toml"
        directory.mkdir(exist_ok=True)
        self.configure()

    def configure(self, more: str = "") -> None:
        """Write the configuration; `more` is TOML that stands behind the two keys that every desk needs."""
        lines = [f'hostname = "{HOSTNAME}"', f'data_dir = "{self.data_dir}"', more]
        self.config.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def type(self, *arguments: str, stdin: str | None = None) -> Result:
        """Give a command within this process."""
        result = CliRunner().invoke(root, [*arguments, "--config", str(self.config)], input=stdin, prog_name="onward")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def done(self, *arguments: str, stdin: str | None = None) -> Result:
        """Give a command that must succeed."""
        result = self.type(*arguments, stdin=stdin)
        assert result.exit_code == 0, f"onward {' '.join(arguments)}: {result.output}"
        return result

    def rows(self, *arguments: str) -> list[Any]:
        """What a list prints as JSON."""
        return [json.loads(line) for line in self.done(*arguments, "--json").stdout.splitlines()]

    def shell(
        self, *arguments: str, stdin: str | None = None, environment: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Give a command as a process of its own."""
        return subprocess.run(
            [sys.executable, "-m", "appliance", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            umask=_USUAL_UMASK,
            cwd=self.config.parent,
            env={**_environment(), **(environment or {})},
            check=False,
        )

    def settle(self) -> None:
        """Have an account, a verified domain and an alias."""
        self.done("account", "add", OWNER, "--operator")
        self.done("domain", "add", "example.org", "--account", OWNER, "--verified")
        self.done("alias", "add", "info@example.org", "ada@home.test", "--confirmed")


def _environment() -> dict[str, str]:
    """This process's environment, without what would point a command at somebody else's appliance."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("ONWARD_", "STATE_DIRECTORY"))}
    return {**ours, "PYTHONPATH": os.pathsep.join([str(_ROOT), str(_ROOT / "graphql")]), "PYTHONWARNINGS": "error"}
