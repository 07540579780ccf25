"""What a spool on MongoDB costs that several nodes share: claims, and groups of accepted messages beside SQLite.

A mongod of its own is started for it. First the cost of a claim, for each delivery, from queues of growing length, with
what the server had to look at; then several workers, each a process with a node of its own, empty one queue together,
and it is counted how often any delivery was claimed. Then groups of accepts of different sizes, in turns with SQLite,
so that a machine that is busy for a while is busy for both.

    python tests/bench/claims.py --lengths 1000 10000 100000 --workers 8 --queue 100000
    python tests/bench/claims.py --replica-set

The aims: none is claimed twice, and a claim costs the same whatever the length of the queue.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from mongod import Mongod, running_mongod
from spool_claimers import claim_all
from stored_values import NOON, a_delivery, a_keyring, an_event, an_id

from appliance.model.delivery import DeliveryState
from appliance.storage.mongo_spool import MongoSpool
from appliance.storage.spool import Accept, AddPart, Operation, Prepared, SpoolStore
from appliance.storage.sqlite_spool import SqliteSpool

BATCH = 100
"""Deliveries that are claimed in one go."""
CLAIMS = 10
"""Claims of which the median is told."""
FILLED_AT_ONCE = 1000
"""Deliveries that are written into the queue in one group."""
CONTENT = b"Subject: hello\r\n\r\n" + b"A line of a small message.\r\n" * 150
"""About 4 kB."""
GROUPS = (1, 10, 100)
"""Messages that are accepted in one group."""
ROUNDS = 30
"""Groups of each size."""


def fill(spool: SpoolStore, first: int, deliveries: int) -> None:
    """Queue so many deliveries that are due one after another."""
    for start in range(first, first + deliveries, FILLED_AT_ONCE):
        some = range(start, min(start + FILLED_AT_ONCE, first + deliveries))
        spool.apply([Accept([a_delivery(number, next_attempt_at=NOON + number) for number in some])])


def claims(server: Mongod, lengths: list[int]) -> None:
    """Print what a claim costs from queues of these lengths, and what the server looked at for it."""
    url = server.url_of("lengths")
    spool = MongoSpool(url, a_keyring(), "bench")
    filled = 0
    print(f"{'queue':>10}{'us a claim':>14}{'keys':>8}{'documents':>12}   of the server, for each delivery")
    for length in lengths:
        fill(spool, filled + 1, length - filled)
        filled = length
        with server.client() as client:
            client["lengths"].command("profile", 2)
            spent: list[float] = []
            for _ in range(CLAIMS):
                began = time.perf_counter()
                found = spool.claim(NOON + length, BATCH)
                spent.append((time.perf_counter() - began) / len(found))
            client["lengths"].command("profile", 0)
            asked = list(client["lengths"]["system.profile"].find({"ns": "lengths.deliveries"}))
            client["lengths"].drop_collection("system.profile")
        assert not [each for each in asked if "COLLSCAN" in each.get("planSummary", "")]
        keys, documents = (sum(each.get(name, 0) for each in asked) for name in ("keysExamined", "docsExamined"))
        claimed = CLAIMS * BATCH
        print(f"{length:>10}{statistics.median(spent) * 1e6:>14.1f}{keys / claimed:>8.1f}{documents / claimed:>12.1f}")
        # They go back, so that the next queue is as long as it says.
        spool.recover()
    spool.close()


def together(server: Mongod, workers: int, queue: int) -> None:
    """Print how workers empty one queue together."""
    url = server.url_of("together")
    spool = MongoSpool(url, a_keyring(), "bench")
    fill(spool, 1, queue)
    shares = claim_all(url, workers, NOON + queue, BATCH)
    took = max(share.ended for share in shares) - min(share.began for share in shares)
    times = Counter(id for share in shares for id in share.ids)
    by_worker = sorted(len(share.ids) for share in shares)
    print(
        f"{workers} workers claimed {len(times)} of {queue} in {took:.1f} s, {len(times) / took:.0f}/s; "
        f"{sum(1 for number in times.values() if number > 1)} of them twice; each {by_worker[0]} to {by_worker[-1]}"
    )
    spool.close()


def groups(server: Mongod, directory: Path) -> None:
    """Print what a group of accepts costs for each message, in turns with SQLite."""
    spools: dict[str, SpoolStore] = {
        "mongodb": MongoSpool(server.url_of("groups"), a_keyring(), "bench"),
        "sqlite": SqliteSpool(directory / "spool.sqlite", a_keyring()),
    }
    numbers = count(1)
    print(f"{'messages':>10}" + "".join(f"{name:>14}" for name in spools) + "   us a message, from write to durable")
    for size in GROUPS:
        spent: dict[str, list[float]] = {name: [] for name in spools}
        for _ in range(ROUNDS):
            for name, spool in spools.items():
                units = list(_messages(spool.prepare, size, numbers))
                began = time.perf_counter()
                spool.write(units)
                spent[name].append((time.perf_counter() - began) / size)
        print(f"{size:>10}" + "".join(f"{statistics.median(each) * 1e6:>14.0f}" for each in spent.values()))
    for spool in spools.values():
        spool.close()


def _messages(prepare: Callable[[list[Operation]], Prepared], size: int, numbers: Iterator[int]) -> Iterator[Prepared]:
    for _ in range(size):
        number = next(numbers)
        delivery = a_delivery(number, state=DeliveryState.UNDER_WAY)
        yield prepare([AddPart(an_id(number), 0, CONTENT), Accept([delivery], [an_event(number)])])


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1000, 10_000, 100_000], help="of queues")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--queue", type=int, default=100_000, help="deliveries that they claim")
    parser.add_argument("--replica-set", action="store_true", help="a replica set of one, instead of a lone server")
    parser.add_argument("--directory", default="/var/tmp", help="on a disk: where SQLite's file is")
    arguments = parser.parse_args()
    with (
        running_mongod(replica_set=arguments.replica_set) as server,
        tempfile.TemporaryDirectory(dir=arguments.directory) as directory,
    ):
        claims(server, arguments.lengths)
        together(server, arguments.workers, arguments.queue)
        groups(server, Path(directory))


if __name__ == "__main__":
    main()
