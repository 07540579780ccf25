"""A supervised appliance as a child process of a test: what it says, where it listens, and that it ends."""

import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

LIMIT_S = 20.0
"""How long a test waits for anything that is to happen. Generous: the machine may be busy."""

STAND_IN = Path(__file__).with_name("stand_in_appliance.py")


def until(holds: Callable[[], bool], what: str) -> None:
    """Look again and again until this holds: for what the kernel does and tells nobody about."""
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline, f"never came true: {what}"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it is more than an entry for wait(2)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Supervised:
    """One `onward run`, or something that behaves like it. Use with `with`: it is killed at the end."""

    def __init__(
        self,
        command: Sequence[str | Path],
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        cwd: Path | None = None,
    ) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **(environment or {})},
            pass_fds=pass_fds,
            cwd=cwd,
            # Its own group, so that a test can do what Ctrl-C does.
            start_new_session=True,
        )
        self.said: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @classmethod
    def stand_in(
        cls, config: Path, environment: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
    ) -> "Supervised":
        """With the stand-in for the engine."""
        return cls([sys.executable, STAND_IN, config], environment, pass_fds)

    def __enter__(self) -> "Supervised":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(LIMIT_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
        if error is not None:
            error.add_note("it said:\n" + "\n".join(self.said))

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def line(self, pattern: str) -> re.Match[str]:
        """Wait for a line that matches this from its begin to its end."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            try:
                line = self._lines.get(timeout=max(deadline - time.monotonic(), 0))
            except queue.Empty:
                raise AssertionError(f"never said {pattern!r}") from None
            if line is None:
                raise AssertionError(f"ended without having said {pattern!r}")
            self.said.append(line)
            if found := re.fullmatch(pattern, line):
                return found

    def ready(self) -> dict[str, list[int]]:
        """Wait until it is ready. Returns the ports by protocol, in the order of the configuration."""
        begin = len(self.said)
        self.line("ready")
        ports: dict[str, list[int]] = {}
        for line in self.said[begin:]:
            if found := re.fullmatch(r"(smtp|http) listens on .*:([0-9]+)", line):
                ports.setdefault(found[1], []).append(int(found[2]))
        return ports

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor alone."""
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for the end. Returns the exit status; `said` is complete then."""
        status = self.process.wait(LIMIT_S)
        while (line := self._lines.get(timeout=LIMIT_S)) is not None:
            self.said.append(line)
        return status

    def children(self) -> list[int]:
        """The processes that it has forked."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def greeting(port: int, command: bytes = b"") -> tuple[int, str]:
    """What the stand-in greets with: its process id and hostname. Then send it the command and wait for its end."""
    with socket.create_connection(("127.0.0.1", port), LIMIT_S) as client:
        code, pid, hostname = client.recv(1000).decode().split()
        assert code == "220"
        if command:
            client.sendall(command)
            client.recv(1000)
        return int(pid), hostname
