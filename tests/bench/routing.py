"""What the routing table of a large appliance costs: memory, the time to build it, and from a change to its effect.

A store is filled by a process of its own: five domains and five confirmed destinations for each account, and the
aliases spread evenly. Then this process does what an engine does: it loads everything in a thread, while a task that
wants to run each millisecond says how long it was held up (whoever sends mail would have been, too), and looks for
changes every third of a second. Another connection to the store makes the changes, as another node would.

    python tests/bench/routing.py --domains 100000 --aliases 1000000
    python tests/bench/routing.py --backend mongodb --domains 10000 --aliases 100000

The aims: a change acts within a second, and loading holds nobody up for more than 20 ms. A busy machine holds everybody
up by itself: how much, is said beside it. To fill the store takes a minute for a million aliases.
"""

import argparse
import gc
import json
import math
import multiprocessing
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import process_tree
import trio
from mongod import running_mongod
from stored_values import a_keyring

from appliance.accounts.aliases import REFERENCE_ALPHABET, REFERENCE_LENGTH, AliasChanges, Aliases
from appliance.model.account import Account, Plan, Role
from appliance.model.domain import Alias, AliasAction, DeliveryMode, Destination, Domain, LogLevel
from appliance.model.ids import id_source
from appliance.model.time import wall_clock
from appliance.privacy.declarations import ACCOUNTS, ALIASES, DESTINATIONS, DOMAINS, Collection
from appliance.routing.loading import load
from appliance.routing.snapshot import Settings
from appliance.run.engine import GC_THRESHOLDS, WATCH_S
from appliance.run.present_routing import PresentRouting
from appliance.storage.mongo_records import MongoRecords
from appliance.storage.record_rows import Value, to_row
from appliance.storage.records import Insert, RecordStore
from appliance.storage.sqlite_records import SqliteRecords

DOMAINS_OF_ACCOUNT = 5
DESTINATIONS_OF_ACCOUNT = 5
PLANS = {"free": Plan("free", 25 << 20, 5, 1000, 500, 0)}
SETTINGS = Settings("mx.onward.test", "srs.onward.test", plans=PLANS)
BATCH = 5000
"""Rows that are stored at once."""
BEAT_S = 0.001
"""How often the task that is held up would like to run."""
CONTROL_S = 3.0
"""How long it runs beside nothing at all."""

Open = Callable[[], RecordStore]


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one store."""

    backend: str
    domains: int
    aliases: int
    fill_s: float
    build_s: float
    build_cpu_s: float
    octets: int
    """What the table has added to the process."""
    peak_octets: int
    """The most that the process has had."""
    held_up_ms: float
    held_up_beside_nothing_ms: float
    whole_s: float
    """To load everything once more, which is what each change would cost without the announcements."""
    look_ms: float
    """To load one change: the median."""
    look_cpu_ms: float
    effect_ms: float
    """From the change's being stored to its being in the table: the median."""
    effect_most_ms: float
    whole_loads: int
    match_us: float
    """To find a domain, and the alias of it that takes a local part."""


@contextmanager
def opened(backend: str) -> Iterator[Open]:
    """A store in a temporary place; each call is another process's connection to it."""
    if backend == "mongodb":
        with running_mongod() as server:
            yield lambda: MongoRecords(server.url_of("bench"), a_keyring())
        return
    with tempfile.TemporaryDirectory(prefix="onward-bench-") as directory:
        yield lambda: SqliteRecords(Path(directory) / "records.sqlite", a_keyring())


def filled(open_store: Open, domains: int, aliases: int) -> float:
    """Fill the store, and say in how many seconds. What that takes of memory is no part of what is measured."""
    begun = time.perf_counter()
    process = multiprocessing.get_context("fork").Process(target=fill, args=(open_store, domains, aliases))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit("the store could not be filled")
    return time.perf_counter() - begun


def fill(open_store: Open, domains: int, aliases: int) -> None:
    """Accounts with all that is theirs."""
    records = open_store()
    ids, now = id_source(), wall_clock()
    accounts = [
        Account(ids(), f"owner{number}@people{number % 97}.example", True, Role.MEMBER, "free", now)
        for number in range(math.ceil(domains / DOMAINS_OF_ACCOUNT))
    ]
    store(records, ACCOUNTS, accounts)
    hosted = [
        Domain(
            ids(),
            accounts[number // DOMAINS_OF_ACCOUNT].id,
            f"hosted-domain-{number}.example",
            True,
            DeliveryMode.SPOOL,
            LogLevel.EVENTS,
            now,
        )
        for number in range(domains)
    ]
    store(records, DOMAINS, hosted)
    mailboxes = {
        account.id: [f"some.person{each}@mailbox{number}.example" for each in range(DESTINATIONS_OF_ACCOUNT)]
        for number, account in enumerate(accounts)
    }
    store(
        records,
        DESTINATIONS,
        (Destination(ids(), id, mailbox, now, now) for id, own in mailboxes.items() for mailbox in own),
    )
    store(records, ALIASES, (an_alias(number, ids(), hosted, mailboxes, now) for number in range(aliases)))
    records.close()


def an_alias(number: int, id: str, hosted: list[Domain], mailboxes: dict[str, list[str]], now: int) -> Alias:
    """One after another for each domain by turns, as they would be made over the years."""
    domain = hosted[number % len(hosted)]
    turn = number // len(hosted)
    reference = "".join(
        REFERENCE_ALPHABET[number // len(REFERENCE_ALPHABET) ** place % len(REFERENCE_ALPHABET)]
        for place in range(REFERENCE_LENGTH)
    )
    target = mailboxes[domain.account_id][turn % DESTINATIONS_OF_ACCOUNT]
    return Alias(id, domain.id, f"alias-{turn}", AliasAction.FORWARD, (target,), reference, now)


def store(records: RecordStore, collection: Collection, values: Iterable[Value]) -> None:
    """All of them, some thousands at a time."""
    left = iter(values)
    while batch := [Insert(collection, to_row(value)) for value in islice(left, BATCH)]:
        records.apply(batch)


class Beat:
    """A task that wants to run each millisecond, and knows by how much it was late at the worst."""

    def __init__(self) -> None:
        self.worst_s = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        last = time.perf_counter()
        while True:
            await trio.sleep(BEAT_S)
            now = time.perf_counter()
            self.worst_s = max(self.worst_s, now - last - BEAT_S)
            last = now


async def measure(backend: str, open_store: Open, domains: int, changes: int, fill_s: float, aliases: int) -> Figures:
    """What an engine would go through with this store."""
    records, elsewhere = open_store(), open_store()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    beat = Beat()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(beat.run)
        await trio.sleep(CONTROL_S)
        beside_nothing_s, beat.worst_s = beat.worst_s, 0.0
        before, begun, cpu = process_tree.resident_octets(os.getpid()), time.perf_counter(), time.process_time()
        routing = await trio.to_thread.run_sync(PresentRouting, records, SETTINGS)
        build_s, build_cpu_s, held_up_s = time.perf_counter() - begun, time.process_time() - cpu, beat.worst_s
        octets = process_tree.resident_octets(os.getpid()) - before
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        gc.freeze()
        match_us = time_to_match(routing)
        looks = await time_looks(routing, elsewhere, domains, changes)
        effects = await time_effects(routing, elsewhere, domains, max(1, changes // 5))
        begun = time.perf_counter()
        await trio.to_thread.run_sync(load, records, SETTINGS)
        whole_s = time.perf_counter() - begun
        nursery.cancel_scope.cancel()
    records.close()
    elsewhere.close()
    return Figures(
        backend=backend,
        domains=domains,
        aliases=aliases,
        fill_s=fill_s,
        build_s=build_s,
        build_cpu_s=build_cpu_s,
        octets=octets,
        peak_octets=peak,
        held_up_ms=held_up_s * 1000,
        held_up_beside_nothing_ms=beside_nothing_s * 1000,
        whole_s=whole_s,
        look_ms=statistics.median(wall for wall, _ in looks) * 1000,
        look_cpu_ms=statistics.median(cpu for _, cpu in looks) * 1000,
        effect_ms=statistics.median(effects) * 1000,
        effect_most_ms=max(effects) * 1000,
        whole_loads=routing.whole_loads,
        match_us=match_us,
    )


def time_to_match(routing: PresentRouting, tries: int = 20_000) -> float:
    """In microseconds, for domains all over the table."""
    names = [f"hosted-domain-{number}.example" for number in range(0, 1000, 7)]
    known = [name for name in names if routing.snapshot.hosted(name)]
    begun = time.perf_counter()
    for number in range(tries):
        hosted = routing.snapshot.hosted(known[number % len(known)])
        assert hosted is not None
        hosted.match("alias-0")
    return (time.perf_counter() - begun) / tries * 1e6


def change(records: RecordStore, name: str) -> bool:
    """Switch the first alias of a domain on or off; returns which."""
    aliases = Aliases(records, PLANS, frozenset())
    listed = next(aliases.every(name))
    enabled = not listed.alias.enabled
    aliases.update(listed.alias, listed.domain, AliasChanges(enabled=enabled))
    return enabled


def is_so(routing: PresentRouting, name: str, enabled: bool) -> bool:
    """Whether the table has the change."""
    hosted = routing.snapshot.hosted(name)
    found = None if hosted is None else hosted.match("alias-0")
    return found is not None and found.enabled is enabled


async def time_looks(
    routing: PresentRouting, elsewhere: RecordStore, domains: int, times: int
) -> list[tuple[float, float]]:
    """For each change the seconds that a look takes which finds it, and those of the processor."""
    chance, took = random.Random(1), []
    for _ in range(times):
        name = f"hosted-domain-{chance.randrange(domains)}.example"
        enabled = await trio.to_thread.run_sync(change, elsewhere, name)
        begun, cpu = time.perf_counter(), time.process_time()
        await routing.look()
        took.append((time.perf_counter() - begun, time.process_time() - cpu))
        assert is_so(routing, name, enabled)
    return took


async def time_effects(routing: PresentRouting, elsewhere: RecordStore, domains: int, times: int) -> list[float]:
    """For each change the seconds until the table has it, where it is looked for as the engine looks."""
    chance, took = random.Random(2), []

    async def keep_looking() -> None:
        while True:
            await trio.sleep(WATCH_S)
            await routing.look()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_looking)
        for _ in range(times):
            await trio.sleep(chance.random() * WATCH_S)
            name = f"hosted-domain-{chance.randrange(domains)}.example"
            enabled = await trio.to_thread.run_sync(change, elsewhere, name)
            begun = time.perf_counter()
            while not is_so(routing, name, enabled):
                await trio.sleep(BEAT_S)
            took.append(time.perf_counter() - begun)
        nursery.cancel_scope.cancel()
    return took


def report(figures: Figures) -> None:
    """For people."""
    print(f"{figures.domains} domains with {figures.aliases} aliases, in {figures.backend}\n")
    print(f"filled in             {figures.fill_s:10.1f} s")
    print(f"built in              {figures.build_s:10.1f} s, {figures.build_cpu_s:.1f} s of the processor")
    print(
        f"memory                {figures.octets / 1e6:10.1f} MB, {figures.octets / figures.aliases:.0f} octets an alias"
    )
    print(f"at the most           {figures.peak_octets / 1e6:10.1f} MB in the process")
    print(
        f"held up               {figures.held_up_ms:10.1f} ms at the worst while it was built; "
        f"{figures.held_up_beside_nothing_ms:.1f} ms beside nothing"
    )
    print(f"to find an alias      {figures.match_us:10.1f} µs")
    print(f"a change is loaded in {figures.look_ms:10.1f} ms, {figures.look_cpu_ms:.1f} ms of the processor")
    print(f"and acts after        {figures.effect_ms:10.0f} ms, {figures.effect_most_ms:.0f} ms at the most")
    print(f"everything would take {figures.whole_s * 1000:10.0f} ms; it was loaded {figures.whole_loads} time(s)")


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("sqlite", "mongodb"), default="sqlite")
    parser.add_argument("--domains", type=int, default=10_000)
    parser.add_argument("--aliases", type=int, default=100_000)
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with opened(arguments.backend) as open_store:
        fill_s = filled(open_store, arguments.domains, arguments.aliases)
        figures = trio.run(
            partial(
                measure,
                arguments.backend,
                open_store,
                arguments.domains,
                arguments.changes,
                fill_s,
                arguments.aliases,
            )
        )
    if arguments.json:
        print(json.dumps(asdict(figures), indent=2))
    else:
        report(figures)


if __name__ == "__main__":
    main()
