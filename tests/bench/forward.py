"""How fast mail goes through: the bare pair smtp-source and smtp-sink, Onward, and a private Postfix, in one run.

All get the same flood from smtp-source, and for all a message counts once smtp-sink has it: the clock runs until the
last one is out. Rounds alternate, so that a machine that is busy for a while is busy for all; the figures are medians.
Onward and Postfix forward one alias to one mailbox and keep their queues on the same file system. Onward is there
twice: on SQLite, and as one node on a MongoDB (a replica set of one) and a Redis of its own.

    python tests/bench/forward.py --messages 5000 --sessions 20 --per-connection many
    python tests/bench/forward.py --systems onward onward-mongodb --sessions 200
    python tests/bench/forward.py --suite

Beside the flood one sender with a connection of its own sends a message now and then: what it waits, from its final dot
to the 250, is what any sender waits under this load. Its messages count with the others.

With --suite five loads are sent one after the other through the same processes, without that sender, and what Onward is
to reach in each beside Postfix stands next to what it has reached.

CPU is that of every process of the system under test (of smtp-sink for the bare pair), without the load generator; what
mongod takes is told apart. The Redis has no part in what is measured: no message that is forwarded asks it.
"""

import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import private_postfix
import process_tree
from appliance_process import Appliance, Settings
from dns_server import DnsServer
from flood import SENDER, Load, free_port, source_command, start_sink
from mongod import PROGRAM as MONGOD
from mongod import Mongod
from private_postfix import PrivatePostfix
from redis_server import PrivateRedis
from redis_server import missing as redis_is_missing
from smtp_client import SmtpClient

ALIAS = "info@forward.test"
TARGET = "owner@destination.test"
SINK_ADDRESS = "127.0.0.2"
BARE = "smtp-source to smtp-sink"
SYSTEMS = ("onward", "onward-mongodb", "postfix")

WARM_UP = 200
"""Messages before the first round, so that processes and connections are there."""
ROUND_WITHIN = 300.0
"""Seconds after which a round has failed."""
COUNTED_EVERY = 0.002
"""Seconds between two looks at the sink's counter: what a round's time may be off by."""
SENT_EVERY = 0.02
"""Seconds from one message to the next of the sender beside the flood: enough to have a hundred of them in a round of
two seconds, and few beside a flood of a thousand a second."""


@dataclass(frozen=True, slots=True)
class Case:
    """One load of the suite, and what Onward is to reach in it."""

    name: str
    load: Load
    times_postfix: float
    """Of Postfix's messages/s, at least."""
    cpu_ms: float | None = None
    """A message, at most; None where the size of the message decides."""


CPU_AIM_MS = 0.25
"""For a message of 4 kB."""

SUITE = (
    Case("200 sessions, 4 kB", Load(6000, 200, 4096, connections_kept=True), 8, CPU_AIM_MS),
    Case("20 sessions, 4 kB", Load(6000, 20, 4096, connections_kept=True), 6, CPU_AIM_MS),
    Case("20, a connection a message", Load(2000, 20, 4096, connections_kept=False), 3, CPU_AIM_MS),
    Case("1 session, 4 kB", Load(1000, 1, 4096, connections_kept=True), 2, CPU_AIM_MS),
    Case("20 sessions, 100 kB", Load(1000, 20, 100_000, connections_kept=True), 3.5),
)


@dataclass(frozen=True, slots=True)
class System:
    """What is measured: where the flood goes, and the process whose tree is charged."""

    name: str
    port: int
    address: str
    pid: int
    mongod: int | None = None
    """The pid of the server that it has its mail in."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one round, or the median of several, came to."""

    messages_per_second: float
    cpu_ms_per_message: float
    mongod_cpu_ms_per_message: float
    wait_p50_ms: float
    """From a final dot to its 250; 0 where nobody has sent beside the flood."""
    wait_p99_ms: float
    peak_rss_mib: float
    """Of all processes together, without mongod; a page that several share counts in each."""
    peak_pss_mib: float
    """The same, but a shared page counts once."""


class Sink:
    """smtp-sink, and how many messages it has had so far."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.count = 0
        self.process = start_sink(SINK_ADDRESS, port, "-c", "-m", "500")
        assert self.process.stdout is not None
        self._counter: IO[bytes] = self.process.stdout
        os.set_blocking(self._counter.fileno(), False)
        with contextlib.suppress(OSError):
            # The counter is printed with each event, and must never have to wait for us.
            fcntl.fcntl(self._counter.fileno(), fcntl.F_SETPIPE_SZ, 1 << 20)

    def look(self) -> int:
        """Read the counter."""
        with contextlib.suppress(BlockingIOError):
            counted = re.findall(rb"mesg=([0-9]+)", os.read(self._counter.fileno(), 1 << 20))
            if counted:
                self.count = int(counted[-1])
        return self.count

    def wait_for(self, count: int) -> None:
        """Wait until so many messages are there. SystemExit where they do not come."""
        deadline = time.monotonic() + ROUND_WITHIN
        while self.look() < count:
            if time.monotonic() > deadline:
                sys.exit(f"only {self.count} of {count} messages have reached the sink")
            time.sleep(COUNTED_EVERY)


class Beside:
    """One sender beside the flood, inside a `with`: what it waits from each final dot to the 250.

    Where a reply is not what it should be, leaving raises the error.
    """

    def __init__(self, system: System, size: int) -> None:
        self.waited_s: list[float] = []
        """Of each message that was taken."""
        self._size = size
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._client = SmtpClient(system.address, system.port)
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> "Beside":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._client.close()
        if self._error is not None:
            raise self._error

    def _send(self) -> None:
        content = b"Subject: beside\r\n\r\n" + (b"x" * 70 + b"\r\n") * (self._size // 72) + b".\r\n"
        try:
            while not self._ended.wait(SENT_EVERY):
                self._client.send(f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{ALIAS}>\r\nDATA\r\n".encode())
                replies = [self._client.reply().code for _ in range(3)]
                dot = time.perf_counter()
                self._client.send(content)
                replies.append(self._client.reply().code)
                self.waited_s.append(time.perf_counter() - dot)
                assert replies == [250, 250, 354, 250], replies
        except BaseException as error:  # noqa: BLE001  it is raised in the thread that waits
            self._error = error


def one_round(system: System, sink: Sink, load: Load, *, alone: bool = False) -> Figures:
    """Send the load through a system and measure until the last message is out; `alone`: nobody sends beside it."""
    before = sink.look()
    command = source_command(load, ALIAS, system.address, system.port)
    waited_s: list[float] = []
    with contextlib.ExitStack() as stack:
        beside = None if alone else Beside(system, load.size)
        memory = stack.enter_context(process_tree.PeakMemory(system.pid))
        cpu_before, mongod_before = process_tree.cpu_ms(system.pid), _mongod_cpu_ms(system)
        began = time.perf_counter()
        source = subprocess.Popen(command)
        if beside is not None:
            with beside:
                source.wait(timeout=ROUND_WITHIN)
            waited_s = sorted(beside.waited_s)
        messages = load.messages + len(waited_s)
        sink.wait_for(before + messages)
        seconds = time.perf_counter() - began
        cpu = process_tree.cpu_ms(system.pid) - cpu_before
        mongod_cpu = _mongod_cpu_ms(system) - mongod_before
    if source.wait(timeout=60) != 0:
        sys.exit(f"smtp-source has failed with {system.name}")
    if sink.look() != before + messages:
        sys.exit(f"{system.name} has delivered {sink.count - before} messages of {messages}")
    return Figures(
        messages / seconds,
        cpu / messages,
        mongod_cpu / messages,
        1000 * percentile(waited_s, 0.5),
        1000 * percentile(waited_s, 0.99),
        memory.resident / 2**20,
        memory.proportional / 2**20,
    )


def _mongod_cpu_ms(system: System) -> float:
    return 0.0 if system.mongod is None else process_tree.cpu_ms(system.mongod)


def percentile(ordered: Sequence[float], part: float) -> float:
    """Of values in order; 0 where there are none."""
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def median(rounds: Sequence[Figures]) -> Figures:
    """Each figure's median."""
    columns = zip(*(asdict(figures).values() for figures in rounds), strict=True)
    return Figures(*(statistics.median(column) for column in columns))


@contextlib.contextmanager
def onward(directory: Path, dns: DnsServer, sink: Sink, store: Mapping[str, object] = {}) -> Iterator[Appliance]:
    """A running appliance that forwards the alias, with its store where `store` says."""
    settings: Settings = {
        "smtp": {"max_connections_per_client": 1000},
        "delivery": {"max_per_destination": 20},
        "store": store,
    }
    appliance = Appliance(directory, nameserver=dns.nameserver, delivery_port=sink.port, settings=settings)
    appliance.add_domain(ALIAS.partition("@")[2])
    appliance.add_alias(ALIAS, TARGET)
    with appliance:
        yield appliance


@contextlib.contextmanager
def onward_on_sqlite(directory: Path, dns: DnsServer, sink: Sink) -> Iterator[System]:
    """An appliance that has its store to itself."""
    with onward(directory, dns, sink) as appliance:
        yield System("Onward", appliance.smtp_port, "127.0.0.1", appliance.pid)


@contextlib.contextmanager
def onward_on_mongodb(directory: Path, dns: DnsServer, sink: Sink) -> Iterator[System]:
    """One node on servers of its own."""
    directory.mkdir()
    mongod = Mongod(directory, replica_set=True)
    with contextlib.ExitStack() as stack:
        stack.callback(mongod.kill)
        mongod.start()
        redis = stack.enter_context(PrivateRedis(directory / "redis"))
        store = {"url": mongod.url_of("onward"), "ephemeral": redis.url}
        appliance = stack.enter_context(onward(directory / "node", dns, sink, store))
        yield System("Onward on MongoDB", appliance.smtp_port, "127.0.0.1", appliance.pid, mongod.pid)


@contextlib.contextmanager
def postfix(directory: Path, sink: Sink) -> Iterator[System]:
    """A private Postfix that forwards the same alias."""
    with PrivatePostfix(directory, free_port("127.0.0.1"), ALIAS, TARGET, SINK_ADDRESS, sink.port) as instance:
        yield System(f"Postfix {private_postfix.version()}", instance.port, "127.0.0.1", instance.pid)


def on_memory(directory: Path) -> bool:
    """Whether a directory is on a file system that has no disk under it: fsync would be free there."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    path = str(directory.resolve())
    above = [(where, kind) for where, kind in mounts if path == where or path.startswith(where.rstrip("/") + "/")]
    return max(above, key=lambda mount: len(mount[0]))[1] in ("tmpfs", "ramfs", "devtmpfs")


@contextlib.contextmanager
def running(arguments: argparse.Namespace) -> Iterator[tuple[list[System], Sink]]:
    """All systems, and the sink that their mail ends in."""
    directory = Path(tempfile.mkdtemp(prefix="onward-bench-", dir=arguments.directory))
    if on_memory(directory):
        directory.rmdir()
        sys.exit(f"{arguments.directory} is in memory, where fsync costs nothing; choose another --directory")
    directory.chmod(0o755)  # Postfix's own users must reach its queue.
    sink = Sink(free_port(SINK_ADDRESS))
    records = {TARGET.partition("@")[2]: ["MX 10 mx.destination.test."], "mx.destination.test": [f"A {SINK_ADDRESS}"]}
    try:
        with contextlib.ExitStack() as stack:
            dns = stack.enter_context(DnsServer(records, ttl=600))
            systems = [System(BARE, sink.port, SINK_ADDRESS, sink.process.pid)]
            if "onward" in arguments.systems:
                systems.append(stack.enter_context(onward_on_sqlite(directory / "onward", dns, sink)))
            if "onward-mongodb" in arguments.systems and MONGOD.exists() and not redis_is_missing():
                systems.append(stack.enter_context(onward_on_mongodb(directory / "mongodb", dns, sink)))
            if "postfix" in arguments.systems and private_postfix.is_installed():
                systems.append(stack.enter_context(postfix(directory / "postfix", sink)))
            yield systems, sink
    finally:
        sink.process.kill()
        sink.process.wait()
        shutil.rmtree(directory)


def measure(
    systems: Sequence[System], sink: Sink, load: Load, count: int, *, alone: bool = False
) -> dict[str, list[Figures]]:
    """So many rounds of every system, by name, after one to warm up."""
    for system in systems:
        one_round(system, sink, replace(load, messages=WARM_UP), alone=True)
    rounds: dict[str, list[Figures]] = {system.name: [] for system in systems}
    for _ in range(count):
        for system in systems:
            rounds[system.name].append(one_round(system, sink, load, alone=alone))
    return rounds


def report(arguments: argparse.Namespace, rounds: dict[str, list[Figures]]) -> None:
    """For people, or with --json for programs."""
    figures = {name: median(of_one) for name, of_one in rounds.items()}
    ours = figures.get("Onward")
    others = {name: of_one for name, of_one in figures.items() if name != "Onward"} if ours else {}
    ratios = {
        name: {
            "messages_per_second": ours.messages_per_second / other.messages_per_second,
            "cpu_ms_per_message": ours.cpu_ms_per_message / max(other.cpu_ms_per_message, 0.001),
        }
        for name, other in others.items()
        if ours
    }
    if arguments.json:
        document = {
            "load": {key: getattr(arguments, key) for key in ("messages", "sessions", "size", "per_connection")},
            "median": {name: asdict(of_one) for name, of_one in figures.items()},
            "rounds": {name: [asdict(each) for each in of_one] for name, of_one in rounds.items()},
            "onward_to": ratios,
        }
        print(json.dumps(document, indent=2))
        return
    print(
        f"{arguments.messages} messages of {arguments.size} octets, {arguments.sessions} sessions, "
        f"{arguments.per_connection} per connection; median of {arguments.rounds} rounds\n"
    )
    print(f"{'':26}{'messages/s':>12}{'CPU ms/message':>16}{'of mongod':>11}{'wait p50 ms':>13}{'p99 ms':>8}", end="")
    print(f"{'peak RSS MiB':>14}{'peak PSS MiB':>14}")
    for name, of_one in figures.items():
        print(
            f"{name:26}{of_one.messages_per_second:12.0f}{of_one.cpu_ms_per_message:16.2f}"
            f"{of_one.mongod_cpu_ms_per_message:11.2f}{of_one.wait_p50_ms:13.1f}{of_one.wait_p99_ms:8.1f}"
            f"{of_one.peak_rss_mib:14.0f}{of_one.peak_pss_mib:14.0f}"
        )
    for name, ratio in ratios.items():
        print(
            f"\nOnward to {name}: {ratio['messages_per_second']:.2f} times the messages/s, "
            f"{ratio['cpu_ms_per_message']:.2f} times the CPU a message",
            end="",
        )
    print()


def suite(arguments: argparse.Namespace) -> None:
    """Measure all cases and report them."""
    document: list[dict[str, object]] = []
    with running(arguments) as (systems, sink):
        if not arguments.json:
            print(f"{'':28}{'messages/s':>20}{'times':>8}{'aim':>6}{'CPU ms/message':>20}{'aim':>7}")
            print(f"{'':28}{'Onward':>10}{'Postfix':>10}{'':14}{'Onward':>10}{'Postfix':>10}")
        for case in SUITE:
            figures = {
                name.partition(" ")[0]: median(of_one)
                for name, of_one in measure(systems, sink, case.load, arguments.rounds, alone=True).items()
            }
            ours, theirs = figures["Onward"], figures["Postfix"]
            times = ours.messages_per_second / theirs.messages_per_second
            document.append(
                {**asdict(case), "times": times, **{name: asdict(of_one) for name, of_one in figures.items()}}
            )
            if not arguments.json:
                aim = f"{case.cpu_ms:7.2f}" if case.cpu_ms is not None else ""
                print(
                    f"{case.name:28}{ours.messages_per_second:10.0f}{theirs.messages_per_second:10.0f}"
                    f"{times:8.2f}{case.times_postfix:6.1f}"
                    f"{ours.cpu_ms_per_message:10.3f}{theirs.cpu_ms_per_message:10.3f}{aim}",
                    flush=True,
                )
    if arguments.json:
        print(json.dumps(document, indent=2))


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=2000, help="in each round")
    parser.add_argument("--sessions", type=int, default=20, help="connections of smtp-source at once")
    parser.add_argument("--size", type=int, default=4096, help="octets of a message")
    parser.add_argument("--per-connection", choices=("many", "one"), default="many", help="messages")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--suite", action="store_true", help="five loads, each with its aim; the load above is not used"
    )
    parser.add_argument("--directory", default="/var/tmp", help="on a disk: where the queues are")
    parser.add_argument(
        "--systems", nargs="*", choices=SYSTEMS, default=SYSTEMS, help="beside the bare pair; all that can be had"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if shutil.which("smtp-source") is None:
        sys.exit("smtp-source is missing: run tests/install-peers as root")
    if arguments.suite:
        if not {"onward", "postfix"} <= {*arguments.systems} or not private_postfix.is_installed():
            sys.exit("the suite needs both systems; a missing Postfix is installed by tests/install-peers")
        arguments.systems = ("onward", "postfix")
        suite(arguments)
        return
    load = Load(arguments.messages, arguments.sessions, arguments.size, arguments.per_connection == "many")
    with running(arguments) as (systems, sink):
        rounds = measure(systems, sink, load, arguments.rounds)
    report(arguments, rounds)


if __name__ == "__main__":
    main()
