"""The real appliance as a process of its own, in a directory of its own, steered as its operator would steer it.

Its names come from a test's DNS server, its mail goes to a test's destinations; it listens on free ports, which it says
itself. Whoever starts one ends it: use it inside a `with`.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

import process_tree
from smtp_client import SmtpClient

Settings = Mapping[str, Mapping[str, object]]
"""Keys by section; the section "" is the top of the file."""

HOSTNAME = "mx.onward.test"
SRS_DOMAIN = f"srs.{HOSTNAME}"

START_WITHIN = 30
"""Seconds until the appliance is ready, on a machine that does other things as well."""
STOP_WITHIN = 30
"""Seconds from SIGTERM to the end."""

PROGRAM = (sys.executable, "-m", "appliance")
"""What `onward` is in a checkout."""

_ROOT = Path(__file__).resolve().parents[2]

Found = TypeVar("Found")


def eventually(look: Callable[[], Found | None], within: float = 10, what: str = "", every: float = 0.02) -> Found:
    """Look again and again until there is something to see, and return it. Fails after so many seconds."""
    deadline = time.monotonic() + within
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what or look}; seen last: {found!r}")
        time.sleep(every)


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command went."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document it printed."""
        return json.loads(self.out)

    @property
    def rows(self) -> list[Any]:
        """The objects it printed, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Appliance:
    """One appliance, over as many starts as a test wants; the data stay."""

    def __init__(
        self,
        directory: Path,
        *,
        nameserver: str,
        delivery_port: int,
        settings: Settings | None = None,
        environment: Mapping[str, str] = {},
        address: str = "127.0.0.1",
        program: Sequence[str] = PROGRAM,
    ) -> None:
        """`environment`: variables that the appliance itself runs with, beside the usual ones. `address`: where it
        listens. `program`: what runs the appliance, in place of the usual one; commands are run by that one."""
        self.directory = directory
        self.data_dir = directory / "var"
        self.config = directory / "onward.toml"
        self.errors = directory / "errors"
        """What it wrote to standard error, over all its starts."""
        self.smtp_port = 0
        self.http_port = 0
        self.address = address
        self._environment = environment
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._was_below: set[int] = set()
        directory.mkdir(parents=True, exist_ok=True)
        self.settings: dict[str, dict[str, object]] = {
            "": {"hostname": HOSTNAME, "data_dir": str(self.data_dir)},
            "smtp": {"listen": [f"{address}:0"], "max_connections_per_client": 200},
            "http": {"listen": [f"{address}:0"]},
            "dns": {"nameservers": [nameserver], "timeout": "2s"},
            "delivery": {"port": delivery_port, "retry": ["1s"], "loopback_destinations": True},
            "plans.free": {
                "max_message_size": "50 MiB",
                "max_domains": 100,
                "max_aliases_per_domain": 1000,
                "max_messages_per_day": 100_000_000,
            },
        }
        self.configure(settings or {})

    # ------------------------------------------------------------------ processes

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self._process is not None, "the appliance was not started"
        return self._process.pid

    def configure(self, settings: Settings) -> None:
        """Change the configuration for the next start."""
        for section, keys in settings.items():
            self.settings.setdefault(section, {}).update(keys)
        lines = []
        for section, keys in self.settings.items():
            lines += [f"[{section}]"] if section else []
            # For texts, numbers, booleans and lists of them, JSON is TOML.
            lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        self.config.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def start(self) -> Self:
        """Start it, and wait until it is ready."""
        since = self.errors.stat().st_size if self.errors.exists() else 0
        self._process = self.spawn("run")

        def is_ready() -> bool:
            assert self._process is not None
            said = self._said(since)
            if self._process.poll() is not None:
                raise AssertionError(f"the appliance ended with status {self._process.returncode}:\n{said}")
            return re.search(r"^ready$", said, re.MULTILINE) is not None

        eventually(is_ready, START_WITHIN, "ready")
        said = self._said(since)
        self.smtp_port, self.http_port = (
            int(re.findall(rf"{protocol} listens on \S*:([0-9]+)", said)[-1]) for protocol in ("smtp", "http")
        )
        self._remember()
        return self

    def spawn(self, *arguments: str, stdout: int | IO[bytes] = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Start a command of `onward` with this configuration and wait for nothing. The caller ends it."""
        with self.errors.open("ab") as errors:
            return subprocess.Popen(
                self._command(*arguments, program=self._program if arguments == ("run",) else PROGRAM),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=errors,
                env={**_environment(), **self._environment},
            )

    def stop(self) -> int:
        """SIGTERM, as a service's supervisor would. The exit status."""
        assert self._process is not None
        self._remember()
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=STOP_WITHIN)

    def kill(self) -> None:
        """SIGKILL to every process of it: no one has the time for anything."""
        assert self._process is not None
        self._remember()
        process_tree.kill_tree(self._process.pid)
        self._process.wait(timeout=STOP_WITHIN)

    def kill_supervisor(self) -> None:
        """SIGKILL to the supervisor alone. Returns once its children are gone too, which they must be by themselves."""
        assert self._process is not None
        self._remember()
        below = process_tree.descendants(self._process.pid)[1:]
        self._process.kill()
        self._process.wait()
        eventually(lambda: not any(process_tree.is_alive(pid) for pid in below), what="the children are gone too")

    def restart(self) -> None:
        """Stop it in order and start it again."""
        assert self.stop() == 0
        self.start()

    def children(self) -> tuple[int, int]:
        """The pids of engine and control, while neither has been replaced: in the order in which they are started."""
        engine, control = sorted(process_tree.children(self.pid))
        return engine, control

    def close(self) -> None:
        """End whatever is left of it."""
        if self._process is not None and self._process.poll() is None:
            self._remember()
            self._process.terminate()
            try:
                self._process.wait(timeout=STOP_WITHIN)
            except subprocess.TimeoutExpired:
                self.kill()
        for pid in self._was_below:
            # A pid may have been given to somebody else by now.
            if str(self.config) in process_tree.command_line(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def said(self) -> str:
        """Everything it wrote to standard error so far."""
        return self._said(0)

    # ------------------------------------------------------------------ the operator

    def cli(self, *arguments: str, stdin: str | None = None) -> Finished:
        """Run a command of `onward` on this appliance's configuration."""
        done = subprocess.run(
            self._command(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env=_environment(),
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def done(self, *arguments: str) -> Finished:
        """Run a command that must succeed."""
        finished = self.cli(*arguments)
        assert finished.status == 0, f"onward {' '.join(arguments)}: {finished}"
        return finished

    def settle(self, *arguments: str) -> None:
        """Run a command that must succeed within this process: for the many that prepare a test."""
        from appliance.command_line.root import root

        root.main(args=[*arguments, "--config", str(self.config)], prog_name="onward", standalone_mode=False)

    def add_domain(self, name: str, *settings: str, account: str = "owner@people.test") -> None:
        """A verified domain, with its account where that is not there yet."""
        if not any(row["email"] == account for row in self.done("account", "list", "--json").rows):
            self.done("account", "add", account)
        self.done("domain", "add", name, "--account", account, "--verified")
        if settings:
            self.done("domain", "set", name, *settings)

    def add_alias(self, address: str, *targets: str, options: tuple[str, ...] = ()) -> None:
        """An alias that forwards to confirmed destinations."""
        self.done("alias", "add", address, *targets, "--confirmed", *options)

    def log_events(self, *filters: str) -> list[dict[str, Any]]:
        """What the log holds, as `onward log` shows it."""
        return self.done("log", "--json", *filters).rows

    def queue(self, *filters: str) -> list[dict[str, Any]]:
        """What is in the queue, as `onward queue list` shows it."""
        return self.done("queue", "list", "--json", *filters).rows

    # ------------------------------------------------------------------ strangers

    def client(self, **options: Any) -> SmtpClient:
        """A connection to it, greeted."""
        return SmtpClient(self.address, self.smtp_port, **options)

    def http(self, path: str) -> tuple[int, Any]:
        """The status and the JSON document of a GET."""
        try:
            with urllib.request.urlopen(f"http://{self.address}:{self.http_port}{path}", timeout=10) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    # ------------------------------------------------------------------

    def _command(self, *arguments: str, program: Sequence[str] = PROGRAM) -> list[str]:
        return [*program, *arguments, "--config", str(self.config)]

    def _said(self, since: int) -> str:
        if not self.errors.exists():
            return ""
        with self.errors.open("rb") as errors:
            errors.seek(since)
            return errors.read().decode("utf-8", "replace")

    def _remember(self) -> None:
        if self._process is not None:
            self._was_below.update(process_tree.descendants(self._process.pid)[1:])


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ONWARD_")}
    return {**kept, "PYTHONPATH": f"{_ROOT}:{_ROOT / 'graphql'}", "PYTHONWARNINGS": "error"}
