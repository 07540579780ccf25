"""What a long queue costs: two appliances side by side, one with nothing to do, one with many deferred deliveries.

Both get the same flood in turns, so that a machine that is busy for a while is busy for both; figures are medians of
the rounds. Then the one with the queue is killed in the middle of a flood, and started again.

    python tests/bench/backlog.py --deferred 1000000 --rounds 5
    python tests/bench/backlog.py --mongodb

With --mongodb both have their mail in one MongoDB, a replica set of one with the smallest cache there is, each in a
database of its own.

The aims: at most a tenth of the throughput, 150 MB of memory, and a greeting within seconds. Beside that it is told how
long it takes to look at either queue, as people and programs do.
"""

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from appliance_process import Appliance, Settings
from dns_server import DnsServer
from flood import Load, free_port, source_command
from graphql_client import GraphqlClient
from mongod import Mongod

from appliance.configuration import load
from appliance.configuration.mongo_urls import SQLITE
from appliance.model.delivery import Delivery, Recipient
from appliance.model.ids import id_source
from appliance.model.time import DAY_MS, HOUR_MS, wall_clock
from appliance.run.stores import open_spool
from appliance.storage.spool import Accept, AddPart, Operation
from smtp.address import Address
from tests.bench.forward import (
    ALIAS,
    SINK_ADDRESS,
    TARGET,
    WARM_UP,
    Figures,
    Sink,
    System,
    median,
    on_memory,
    one_round,
)

LOOKS = 5
"""Of each kind."""
NOT_THERE = "0" * 26
"""No delivery has this id."""
DESTINATIONS = 10_000
"""To which the queue is meant, as many to each."""
GROUP = 2000
"""Messages that are written into the queue at once."""
CONTENT = b"Subject: still here\r\n\r\n" + b"A line of a small message.\r\n" * 20


@dataclass(frozen=True, slots=True)
class Costs:
    """What the queue has come to."""

    deferred: int
    filled_s: float
    spool_mib: float
    empty_messages_per_second: float
    full_messages_per_second: float
    throughput_lost: float
    """As a share: 0.1 is a tenth. Each round against the one beside it, and the median of these."""
    empty_cpu_ms_per_message: float
    full_cpu_ms_per_message: float
    empty_rss_mib: float
    full_rss_mib: float
    rss_more_mib: float
    empty_start_s: float
    start_s: float
    """From the start to the first 220, after SIGKILL."""
    looks: dict[str, tuple[float, float]]
    """How many seconds each look at the queue takes: at the one with nothing in it, and at the long one."""


def deferred(count: int) -> Iterator[list[Operation]]:
    """So many messages with one delivery each, none of which is due within hours; in groups."""
    new_id = id_source()
    now = wall_clock()
    group: list[Operation] = []
    for number in range(count):
        message_id = new_id()
        delivery = Delivery(
            id=new_id(),
            message_id=message_id,
            accepted_at=now - DAY_MS,
            size=len(CONTENT),
            priority=10 * (number % 2),
            sender=f"sender{number}@sender.test",
            return_path=f"srs0=abcdefgh=ijklmn=sender.test=sender{number}@srs.mx.onward.test",
            target=Address(f"mailbox{number}", f"dead{number % DESTINATIONS}.test"),
            recipients=(Recipient(ALIAS, "domain"),),
            eight_bit=False,
            attempts=7,
            next_attempt_at=now + 6 * HOUR_MS + number % (4 * HOUR_MS),
            last_response="no connection to mx.dead.test [192.0.2.1]: connection refused",
        )
        group += [AddPart(message_id, 0, CONTENT), Accept([delivery])]
        if len(group) >= 2 * GROUP:
            yield group
            group = []
    if group:
        yield group


def prepared(directory: Path, dns: DnsServer, sink: Sink, store: str) -> Appliance:
    """An appliance that forwards the alias, not yet started; `store` is the URL of where its mail is."""
    settings: Settings = {
        "smtp": {"max_connections_per_client": 1000},
        "delivery": {"max_per_destination": 20},
        "store": {"url": store},
    }
    appliance = Appliance(directory, nameserver=dns.nameserver, delivery_port=sink.port, settings=settings)
    appliance.add_domain(ALIAS.partition("@")[2])
    appliance.add_alias(ALIAS, TARGET)
    return appliance


def fill(appliance: Appliance, count: int) -> float:
    """Put deferred deliveries in its queue; returns how many seconds that took."""
    began = time.monotonic()
    spool = open_spool(load(appliance.config), "filling")
    try:
        for group in deferred(count):
            spool.apply(group)
    finally:
        spool.close()
    return time.monotonic() - began


def seconds_to_220(appliance: Appliance) -> float:
    """Start it, and wait for its greeting."""
    began = time.monotonic()
    appliance.start()
    appliance.client().close()
    return time.monotonic() - began


def killed_at_work(appliance: Appliance, sink: Sink, flood: Load) -> None:
    """SIGKILL while mail goes through."""
    before = sink.look()
    source = subprocess.Popen(source_command(flood, ALIAS, "127.0.0.1", appliance.smtp_port), stderr=subprocess.DEVNULL)
    try:
        sink.wait_for(before + flood.messages // 4)
        appliance.kill()
    finally:
        source.kill()
        source.wait()


def look_at(appliance: Appliance) -> dict[str, float]:
    """How many seconds each way of looking at a queue takes: the median of a few."""

    def ask(asked: str, **variables: object) -> Callable[[], object]:
        def answered() -> object:
            with GraphqlClient(appliance.data_dir / "control.sock") as client:
                return client.data(asked, **variables)

        return answered

    def metrics() -> object:
        with GraphqlClient(appliance.data_dir / "control.sock") as client:
            return client.send("GET", "/metrics").body

    page = "query ($f: QueueFilter) { queue(first: 100, filter: $f) { edges { node { id why } } } }"
    ways: dict[str, Callable[[], object]] = {
        "onward queue holds": lambda: appliance.done("queue", "holds"),
        "onward queue list --id": lambda: appliance.done("queue", "list", "--id", NOT_THERE),
        "API, status": ask("{ status { healthy queued oldestQueuedAt nodes { name queued } } }"),
        "API, first page": ask(page),
        "API, page of what is held": ask(page, f={"state": "HELD"}),
        "API, page of a destination": ask(page, f={"destinationDomain": f"dead{DESTINATIONS - 1}.test"}),
        "metrics": metrics,
    }
    return {name: statistics.median(_seconds(way) for _ in range(LOOKS)) for name, way in ways.items()}


def _seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


@contextlib.contextmanager
def stores(directory: Path, *, mongodb: bool) -> Iterator[tuple[tuple[str, str], Mongod | None]]:
    """The URLs of two stores, and the server that both are in, where there is one."""
    if not mongodb:
        yield (SQLITE, SQLITE), None
        return
    place = directory / "mongod"
    place.mkdir()
    server = Mongod(place, replica_set=True, parameters=["ttlMonitorEnabled=false"])
    server.start()
    try:
        yield (server.url_of("empty"), server.url_of("full")), server
    finally:
        server.kill()


def measure(arguments: argparse.Namespace) -> Costs:
    """Fill, measure both, kill, start again."""
    flood = Load(arguments.messages, arguments.sessions, 4096, connections_kept=True)
    directory = Path(tempfile.mkdtemp(prefix="onward-bench-", dir=arguments.directory))
    if on_memory(directory):
        directory.rmdir()
        sys.exit(f"{arguments.directory} is in memory, where fsync costs nothing; choose another --directory")
    sink = Sink(free_port(SINK_ADDRESS))
    records = {TARGET.partition("@")[2]: ["MX 10 mx.destination.test."], "mx.destination.test": [f"A {SINK_ADDRESS}"]}
    try:
        with ExitStack() as stack:
            dns = stack.enter_context(DnsServer(records, ttl=600))
            urls, mongod = stack.enter_context(stores(directory, mongodb=arguments.mongodb))
            empty, full = (
                prepared(directory / name, dns, sink, url) for name, url in zip(("empty", "full"), urls, strict=True)
            )
            filled_s = fill(full, arguments.deferred)
            files = (directory / "mongod" / "data").glob("**/*") if mongod else full.data_dir.glob("spool*")
            spool_mib = sum(file.stat().st_size for file in files if file.is_file()) / 2**20
            systems = [
                System(name, appliance.smtp_port, "127.0.0.1", appliance.pid, mongod.pid if mongod else None)
                for name, appliance in (("empty", stack.enter_context(empty)), ("full", stack.enter_context(full)))
            ]
            for system in systems:
                one_round(system, sink, Load(WARM_UP, flood.sessions, flood.size, flood.connections_kept))
            rounds: dict[str, list[Figures]] = {system.name: [] for system in systems}
            for number in range(arguments.rounds):
                # Who goes first goes second the next time: a disk that slows down is nobody's fault.
                for system in systems if number % 2 else reversed(systems):
                    rounds[system.name].append(one_round(system, sink, flood))
            looks = [look_at(appliance) for appliance in (empty, full)]
            started = []
            for appliance in (empty, full):
                killed_at_work(appliance, sink, flood)
                started.append(seconds_to_220(appliance))
        at_rest, at_work = median(rounds["empty"]), median(rounds["full"])
        return Costs(
            deferred=arguments.deferred,
            filled_s=filled_s,
            spool_mib=spool_mib,
            empty_messages_per_second=at_rest.messages_per_second,
            full_messages_per_second=at_work.messages_per_second,
            throughput_lost=statistics.median(
                1 - beside.messages_per_second / alone.messages_per_second
                for alone, beside in zip(rounds["empty"], rounds["full"], strict=True)
            ),
            empty_cpu_ms_per_message=at_rest.cpu_ms_per_message,
            full_cpu_ms_per_message=at_work.cpu_ms_per_message,
            empty_rss_mib=at_rest.peak_rss_mib,
            full_rss_mib=at_work.peak_rss_mib,
            rss_more_mib=at_work.peak_rss_mib - at_rest.peak_rss_mib,
            empty_start_s=started[0],
            start_s=started[1],
            looks={name: (alone, looks[1][name]) for name, alone in looks[0].items()},
        )
    finally:
        sink.process.kill()
        sink.process.wait()
        shutil.rmtree(directory)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deferred", type=int, default=100_000, help="deliveries in the long queue")
    parser.add_argument("--messages", type=int, default=3000, help="in each round")
    parser.add_argument("--sessions", type=int, default=20, help="connections of smtp-source at once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", default="/var/tmp", help="on a disk: where the queues are")
    parser.add_argument("--mongodb", action="store_true", help="both have their mail in one MongoDB")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if shutil.which("smtp-source") is None:
        sys.exit("smtp-source is missing: run tests/install-peers as root")
    costs = measure(arguments)
    if arguments.json:
        print(json.dumps(asdict(costs), indent=2))
        return
    figures = asdict(costs)
    looks = figures.pop("looks")
    for name, figure in figures.items():
        print(f"{name.replace('_', ' '):28}{figure:12.3f}" if isinstance(figure, float) else f"{name:28}{figure:12}")
    print(f"{'seconds to look at':34}{'empty':>10}{'full':>10}")
    for name, (alone, full) in looks.items():
        print(f"{name:34}{alone:10.3f}{full:10.3f}")


if __name__ == "__main__":
    main()
