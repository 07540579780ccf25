"""What is loaded change by change is held equal to what is loaded from nothing: after changes at random."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from accounts_office import NOON
from mongod import Mongod, running_mongod
from routing_office import LOCAL_PARTS, NAMES, SETTINGS, RandomOffice, told
from stored_values import a_keyring

from appliance.model.time import HOUR_MS
from appliance.privacy.declarations import ALIASES, DOMAINS
from appliance.routing.following import Follower
from appliance.routing.loading import for_one_question, load
from appliance.routing.route import route
from appliance.storage.mongo_records import MongoRecords
from appliance.storage.records import RecordStore
from appliance.storage.sqlite_records import SqliteRecords
from smtp.address import Address

RUNS = 12
RUNS_ON_MONGODB = 2
CHANGES = 120
"""Of one run; a third of them are refused by the rooms."""


@pytest.fixture(scope="module")
def mongod() -> Iterator[Mongod]:
    """One server for all tests of this file."""
    with running_mongod() as server:
        yield server


@pytest.mark.parametrize("seed", range(RUNS))
def test_a_table_that_follows_changes_says_what_one_from_nothing_says(tmp_path: Path, seed: int) -> None:
    records = SqliteRecords(tmp_path / "records.sqlite", a_keyring())
    follow(records, random.Random(seed))
    records.close()


@pytest.mark.parametrize("seed", range(RUNS_ON_MONGODB))
def test_the_same_on_a_store_whose_batches_become_visible_step_by_step(mongod: Mongod, seed: int) -> None:
    records = MongoRecords(mongod.url_of(f"routing{seed}"), a_keyring())
    follow(records, random.Random(seed))
    records.close()


def follow(records: RecordStore, chance: random.Random) -> None:
    """Change something again and again, and compare now and then."""
    instants = count(NOON, 8 * HOUR_MS)
    office = RandomOffice(records, chance, lambda: next(instants))
    follower = Follower(records, SETTINGS)
    references: set[str] = set()
    domain_ids: set[str] = set()
    earlier: list[tuple[Callable[[], dict[str, object]], dict[str, object]]] = []
    for number in range(CHANGES):
        office.change()
        references.update(str(row["reference"]) for row in records.find(ALIASES, {}))
        domain_ids.update(str(row["id"]) for row in records.find(DOMAINS, {}))
        if chance.random() < 0.6:
            continue
        table, now = follower.look(), next(instants)
        said = told(table, now, references, domain_ids)
        assert said == told(load(records, SETTINGS), now, references, domain_ids)
        if number % 10 == 0:
            earlier.append((partial(told, table, now, frozenset(references), frozenset(domain_ids)), said))
        # A table for one question answers it in the same way.
        asked = Address(chance.choice(LOCAL_PARTS), chance.choice(NAMES))
        assert route(for_one_question(records, SETTINGS), asked, now) == route(table, asked, now)
    assert follower.whole_loads == 1, "everything was loaded at the start, and then only changes"
    for again, said in earlier:
        assert again() == said, "a table that was there before says what it said then"
