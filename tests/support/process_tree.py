"""A process that a test has started, with everything below it: who they are, and what they have cost (Linux only)."""

import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

_TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class _Process:
    parent: int
    cpu_ms: float
    """Its own, and that of children it has waited for."""
    alive: bool


def descendants(root: int) -> list[int]:
    """The process and everything below it, parents first; without those that are dead."""
    processes = _all_processes()
    found = [root] if root in processes else []
    for pid in found:
        found.extend(child for child, process in processes.items() if process.parent == pid)
    return [pid for pid in found if processes[pid].alive]


def children(root: int) -> list[int]:
    """The processes directly below one, without those that are dead."""
    return [pid for pid, process in _all_processes().items() if process.parent == root and process.alive]


def command_line(pid: int) -> str:
    """How a process was called; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    """A process that has ended counts as dead, even where its parent has not looked yet."""
    process = _process(pid)
    return process is not None and process.alive


def kill_tree(root: int, number: int = signal.SIGKILL) -> list[int]:
    """Send a signal to the process and everything below it, top first, so that none is started again meanwhile."""
    pids = descendants(root)
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
    return pids


def cpu_ms(root: int) -> float:
    """Milliseconds of processor time of the tree so far, with that of children already waited for."""
    processes = _all_processes()
    return sum(processes[pid].cpu_ms for pid in descendants(root) if pid in processes)


def proportional_octets(root: int) -> int:
    """Memory of the tree now, where a page shared by several processes counts once (Pss)."""
    total = 0
    for pid in descendants(root):
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Pss:"))
    return total


def resident_octets(root: int) -> int:
    """Memory of the tree now, where a page counts for every process that has it (Rss)."""
    total = 0
    for pid in descendants(root):
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
        except (OSError, IndexError):
            continue
    return total


class PeakMemory:
    """Looks at a tree's memory now and then, inside a `with`, and keeps the most that it saw."""

    def __init__(self, root: int, interval: float = 0.25) -> None:
        self.resident = 0
        self.proportional = 0
        self._root = root
        self._interval = interval
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while True:
            self.resident = max(self.resident, resident_octets(self._root))
            self.proportional = max(self.proportional, proportional_octets(self._root))
            if self._ended.wait(self._interval):
                return

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def _all_processes() -> dict[int, _Process]:
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            process = _process(int(entry.name))
            if process is not None:
                found[int(entry.name)] = process
    return found


def _process(pid: int) -> _Process | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command stands in parentheses and may contain anything; proc(5) counts the fields behind it from 3.
    fields = stat.rpartition(")")[2].split()
    state, parent = fields[0], int(fields[1])
    ticks = sum(int(field) for field in fields[11:15])
    return _Process(parent, ticks * _TICK_MS, state not in "ZX")
