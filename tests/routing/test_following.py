"""How a table is kept in line with the records: what a change costs, and what is done where something is missing."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import pytest
from accounts_office import NOON, OWN_NAMES, PLANS
from routing_office import SETTINGS
from routing_table import alias, domain, snapshot
from stored_values import a_keyring

from appliance.accounts.accounts import Accounts
from appliance.accounts.aliases import AliasChanges, Aliases
from appliance.accounts.domains import Domains
from appliance.model.account import Account, Plan
from appliance.model.domain import Alias, DeliveryMode, Domain, LogLevel
from appliance.model.ids import IdSource, id_source
from appliance.model.time import HOUR_MS, MINUTE_MS, SECOND_MS, Clock
from appliance.privacy.declarations import (
    ACCOUNTS,
    ALIASES,
    DESTINATIONS,
    DOMAINS,
    GENERATIONS,
    ROUTING_CHANGES,
    Collection,
)
from appliance.routing.changes import GENERATION, announcement
from appliance.routing.following import AHEAD_PATIENCE_S, OVERLAPS_MS, PATIENCE_S, Follower
from appliance.routing.hosted import HostedDomain
from appliance.routing.loading import MOST_ALIASES
from appliance.routing.snapshot import Portion
from appliance.storage.records import Delete, Insert, Page, Raise, RecordStore, StoreUnavailable, Update, Where
from appliance.storage.sqlite_records import SqliteRecords

HOSTED = 20
"""Domains, each with three aliases."""

BEGUN = NOON - HOUR_MS
"""When they began to be made."""


class CountedRecords(SqliteRecords):
    """Counts what is read, and can be away from a certain reading on."""

    rows_read = 0
    readings = 0
    readings_left: int | None = None

    def generation(self, name: str) -> int:
        self._read()
        return super().generation(name)

    def find(self, collection: Collection, where: Where, page: Page = Page()) -> list[dict[str, object]]:  # noqa: B008
        self._read()
        rows = super().find(collection, where, page)
        self.rows_read += len(rows)
        return rows

    def _read(self) -> None:
        self.readings += 1
        if self.readings_left is not None:
            if not self.readings_left:
                raise StoreUnavailable("away")
            self.readings_left -= 1


@dataclass
class Watch:
    """Seconds that pass when they are told to."""

    now: float = 0.0

    def read(self) -> float:
        return self.now


@dataclass
class Node:
    """The rooms that change the records, with a clock of their own."""

    domains: Domains
    aliases: Aliases

    @classmethod
    def at(cls, records: RecordStore, clock: Clock, plans: Mapping[str, Plan] = PLANS) -> "Node":
        ids = id_source(clock)
        return cls(Domains(records, plans, OWN_NAMES, clock, ids), Aliases(records, plans, OWN_NAMES, clock, ids))

    def add(self, name: str, account: Account, *patterns: str) -> Domain:
        """A domain whose aliases lead to one mailbox."""
        made = self.domains.add(
            name, account, verified=True, delivery_mode=DeliveryMode.SPOOL, log_level=LogLevel.EVENTS
        )
        for pattern in patterns:
            self.aliases.create(made, pattern, ["m@home.test"], confirmed=True)
        return made


@dataclass
class House:
    """A store with much in it, and one that follows it."""

    records: CountedRecords
    node: Node
    account: Account
    follower: Follower
    watch: Watch
    ids: IdSource = field(default_factory=lambda: id_source(lambda: NOON))

    def takes(self, pattern: str, name: str) -> bool:
        """Whether the table, as it is without a look, has an alias for this."""
        hosted = self.follower.snapshot.hosted(name)
        return hosted is not None and hosted.match(pattern) is not None


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Twenty domains."""
    records = CountedRecords(tmp_path / "records.sqlite", a_keyring())
    plans = {"huge": replace(PLANS["huge"], max_domains=1000)}
    account = Accounts(records, plans, lambda: BEGUN).add("ada@people.test", plan="huge")
    instants = count(BEGUN, 2 * SECOND_MS)
    node = Node.at(records, lambda: min(next(instants), NOON), plans)
    for number in range(HOSTED):
        node.add(f"d{number}.test", account, *(f"a{each}" for each in range(3)))
    watch = Watch()
    yield House(records, node, account, Follower(records, SETTINGS, watch.read), watch)
    records.close()


def test_a_change_loads_what_has_changed_and_nothing_else(house: House) -> None:
    before = house.follower.snapshot
    changed = house.node.domains.named("d7.test")
    house.node.aliases.create(changed, "new", ["m@home.test"], confirmed=True)
    house.records.rows_read = 0
    after = house.follower.look()
    assert house.takes("new", "d7.test")
    assert house.records.rows_read < 20, "of its domain and its account, and the announcements of the last seconds"
    names = [f"d{number}.test" for number in range(HOSTED)]
    assert [name for name in names if after.hosted(name) is not before.hosted(name)] == ["d7.test"]
    earlier = before.hosted("d7.test")
    assert earlier is not None
    assert earlier.match("new") is None, "who asks the earlier one is not surprised"


def test_a_change_of_one_alias_loads_that_alias_however_many_there_are_beside_it(house: House) -> None:
    many = house.node.add("many.test", house.account, *(f"a{each}" for each in range(300)))
    house.follower.look()
    changes: list[Callable[[], object]] = [
        lambda: house.node.aliases.update(*the_alias(house, "a7@many.test"), AliasChanges(pattern="a7*")),
        lambda: house.node.aliases.create(many, "*", ["m@home.test"], confirmed=True),
        lambda: house.node.aliases.remove("a8@many.test"),
    ]
    for change in changes:
        change()
        house.records.rows_read = 0
        house.follower.look()
        assert house.records.rows_read < 40, "it, its account, and the announcements of the last seconds"
    hosted = house.follower.snapshot.hosted("many.test")
    assert hosted is not None
    taken = {local_part: found.pattern for local_part in ("a7", "a8", "a9") if (found := hosted.match(local_part))}
    assert taken == {"a7": "a7*", "a8": "*", "a9": "a9"}
    assert house.follower.whole_loads == 1


def test_where_nobody_says_which_alias_has_changed_the_domain_is_read_whole(house: House) -> None:
    d1 = house.node.domains.named("d1.test")
    told = announcement(house.ids, lambda: NOON, domains=[d1.id])
    house.records.apply([Update(ALIASES, {"domain_id": d1.id, "pattern": "a1"}, {"pattern": "b1"}), *told])
    house.follower.look()
    assert (house.takes("b1", "d1.test"), house.takes("a1", "d1.test")) == (True, False)


def test_of_many_aliases_that_change_at_once_none_is_missed(house: House) -> None:
    d1 = house.node.domains.named("d1.test")
    for number in range(MOST_ALIASES + 1):
        house.node.aliases.create(d1, f"new{number}", ["m@home.test"], confirmed=True)
    house.follower.look()
    assert all(house.takes(f"new{number}", "d1.test") for number in range(MOST_ALIASES + 1))
    assert house.follower.whole_loads == 1


def test_an_alias_that_is_read_before_it_is_told_who_had_its_pattern_ends_as_it_is(house: House) -> None:
    """Two have exchanged their patterns, and a look comes when only the first step of it has been told."""
    aliases = [the_alias(house, f"a{number}@d1.test") for number in range(2)]
    rows = house.records.count(ROUTING_CHANGES, {})
    for number, pattern in ((0, "c"), (1, "a0"), (0, "a1")):
        found = house.node.aliases.with_id(aliases[number][0].id)
        assert found is not None
        house.node.aliases.update(*found, AliasChanges(pattern=pattern))
    told = house.records.find(ROUTING_CHANGES, {}, Page(limit=rows + 3))[rows:]
    house.records.apply([Delete(ROUTING_CHANGES, {"id": row["id"]}) for row in told[1:]])
    house.follower.look()
    house.records.apply([Insert(ROUTING_CHANGES, row) for row in told[1:]])
    table = house.follower.look()
    assert {table.alias_address(alias.reference) for alias, _ in aliases} == {"a0@d1.test", "a1@d1.test"}
    hosted = table.hosted("d1.test")
    assert hosted is not None
    taken = [hosted.match(local_part) for local_part in ("a1", "a0")]
    assert [found and found.id for found in taken] == [alias.id for alias, _ in aliases]
    assert sorted(hosted.references) == sorted(alias.reference for alias in hosted.aliases())


def the_alias(house: House, address: str) -> tuple[Alias, Domain]:
    """As it is stored."""
    pattern, _, name = address.partition("@")
    (found,) = (each for each in house.node.aliases.every(name) if each.alias.pattern == pattern)
    return found.alias, found.domain


def test_a_look_without_a_change_reads_one_number(house: House) -> None:
    table = house.follower.look()
    house.records.readings = 0
    assert house.follower.look() is table
    assert house.records.readings == 1


def test_many_changes_are_loaded_in_one_go(house: House) -> None:
    for number in range(HOSTED):
        house.node.domains.update(house.node.domains.named(f"d{number}.test"), log_level=LogLevel.NONE)
    house.records.readings = 0
    table = house.follower.look()
    assert {table.log_level(each.id) for each in house.node.domains.every()} == {LogLevel.NONE}
    assert house.follower.whole_loads == 1


@pytest.mark.parametrize("slow_ms", [0, *OVERLAPS_MS, 2 * OVERLAPS_MS[-1]])
def test_what_a_node_with_a_slow_clock_changes_is_not_missed(house: House, slow_ms: int) -> None:
    """Its rows are sorted in among those that have been read already."""
    house.node.domains.update(house.node.domains.named("d1.test"), log_level=LogLevel.NONE)
    house.follower.look()
    slow = Node.at(house.records, lambda: BEGUN - slow_ms)
    for number in range(3):
        slow.aliases.create(slow.domains.named("d2.test"), f"new{number}", ["m@home.test"], confirmed=True)
        house.follower.look()
        assert house.takes(f"new{number}", "d2.test")
    assert house.follower.whole_loads == 1


def test_two_nodes_that_change_at_once_lose_nothing(house: House) -> None:
    nodes = [Node.at(house.records, clock) for clock in (lambda: NOON, lambda: NOON + 90_000, lambda: NOON - 90_000)]
    for number in range(12):
        node = nodes[number % 3]
        node.aliases.create(node.domains.named(f"d{number}.test"), "new", ["m@home.test"], confirmed=True)
        if number % 4 == 3:
            house.follower.look()
    assert all(house.takes("new", f"d{number}.test") for number in range(12))
    assert house.follower.whole_loads == 1


def test_a_row_that_is_visible_before_its_generation_counts_once(house: House) -> None:
    """As where a batch becomes visible step by step, and another node's whole batch in between."""
    ids, d1 = id_source(lambda: NOON + 1), house.node.domains.named("d1.test")
    early, its_raise = announcement(ids, lambda: NOON + 1, domains=[d1.id])
    house.records.apply([Update(DOMAINS, {"id": d1.id}, {"log_level": "none"}), early])
    house.node.domains.update(house.node.domains.named("d2.test"), log_level=LogLevel.NONE)
    assert house.follower.look().log_level(d1.id) is LogLevel.NONE
    house.watch.now += AHEAD_PATIENCE_S / 2
    house.follower.look()
    house.records.apply([its_raise])
    house.follower.look()
    house.watch.now += 2 * AHEAD_PATIENCE_S
    table = house.follower.look()
    house.records.readings = 0
    assert house.follower.look() is table
    assert (house.records.readings, house.follower.whole_loads) == (1, 1)


def test_a_change_that_nobody_has_announced_is_loaded_with_everything_after_a_while(house: House) -> None:
    house.records.apply([Update(ALIASES, {"pattern": "a1"}, {"pattern": "b1"}), Raise(GENERATION)])
    house.follower.look()
    house.watch.now += PATIENCE_S - 0.1
    house.follower.look()
    assert (house.takes("b1", "d1.test"), house.follower.whole_loads) == (False, 1)
    house.watch.now += 0.2
    house.follower.look()
    assert (house.takes("b1", "d1.test"), house.follower.whole_loads) == (True, 2)
    house.node.aliases.create(house.node.domains.named("d2.test"), "new", ["m@home.test"], confirmed=True)
    house.follower.look()
    assert (house.takes("new", "d2.test"), house.follower.whole_loads) == (True, 2), "and then changes again"


def test_what_is_announced_acts_although_another_row_is_missing(house: House) -> None:
    house.records.apply([Raise(GENERATION)])
    house.node.aliases.create(house.node.domains.named("d2.test"), "new", ["m@home.test"], confirmed=True)
    house.follower.look()
    assert (house.takes("new", "d2.test"), house.follower.whole_loads) == (True, 1)


def test_who_comes_back_after_the_rows_were_swept_loads_everything(house: House) -> None:
    house.node.aliases.create(house.node.domains.named("d3.test"), "new", ["m@home.test"], confirmed=True)
    assert house.records.sweep(ROUTING_CHANGES, ROUTING_CHANGES.retention[0], NOON + HOUR_MS)
    house.follower.look()
    house.watch.now += 2 * PATIENCE_S
    house.follower.look()
    assert (house.takes("new", "d3.test"), house.follower.whole_loads) == (True, 2)


def test_a_generation_that_goes_back_means_other_records(house: House) -> None:
    """As where a copy of earlier records takes their place."""
    house.records.apply([Delete(ALIASES, {"pattern": "a1"}), Delete(ROUTING_CHANGES, {})])
    house.records.apply([Update(GENERATIONS, {"id": GENERATION}, {"value": 3})])
    house.follower.look()
    house.watch.now += 2 * AHEAD_PATIENCE_S
    house.follower.look()
    assert (house.takes("a1", "d1.test"), house.takes("a2", "d1.test")) == (False, True)


def test_a_store_that_fails_in_mid_look_leaves_the_table_and_the_next_look_does_it_all(house: House) -> None:
    house.records.readings = 0
    for failing_at in range(40):
        table = house.follower.look()
        changed = house.node.domains.named(f"d{failing_at % HOSTED}.test")
        house.node.aliases.create(changed, f"n{failing_at}", ["m@home.test"], confirmed=True)
        house.records.readings_left = failing_at
        try:
            house.follower.look()
        except StoreUnavailable:
            assert house.follower.snapshot is table
        else:
            break
        finally:
            house.records.readings_left = None
        house.follower.look()
        assert house.takes(f"n{failing_at}", changed.name)
    assert failing_at > 4, "each reading of a look has failed once"
    assert house.follower.whole_loads == 1


def test_a_store_that_fails_while_everything_is_loaded_is_asked_for_everything_again(house: House) -> None:
    house.records.apply([Update(ALIASES, {"pattern": "a1"}, {"pattern": "b1"}), Raise(GENERATION)])
    house.follower.look()
    house.watch.now += 2 * PATIENCE_S
    for failing_at in range(4, 40):
        house.records.readings_left = failing_at
        try:
            house.follower.look()
        except StoreUnavailable:
            assert not house.takes("b1", "d1.test")
        else:
            break
        finally:
            house.records.readings_left = None
    house.follower.look()
    assert (house.takes("b1", "d1.test"), house.follower.whole_loads) == (True, 2)
    assert failing_at > 8, "in the middle of it"


def test_a_node_whose_clock_is_days_ahead_confuses_nobody(house: House) -> None:
    ahead = Node.at(house.records, lambda: NOON + 48 * HOUR_MS)
    ahead.domains.update(ahead.domains.named("d1.test"), log_level=LogLevel.NONE)
    house.follower.look()
    for number in range(30):
        house.records.apply([each for _ in range(60) for each in announcement(house.ids, lambda: NOON)])
        house.node.aliases.create(house.node.domains.named("d2.test"), f"n{number}", ["m@home.test"], confirmed=True)
        house.follower.look()
        house.watch.now += AHEAD_PATIENCE_S
        assert house.takes(f"n{number}", "d2.test")
    assert house.follower.whole_loads == 1


def test_a_domain_whose_account_is_gone_is_not_hosted(house: House) -> None:
    """One that was added at the instant at which its account was deleted: until it is swept."""
    row = house.records.get(DOMAINS, {"name": "d1.test"})
    assert row is not None
    orphan = {**row, "id": "f" * 20, "name": "orphan.test", "verified_name": "orphan.test", "account_id": "gone"}
    told = announcement(id_source(lambda: NOON), lambda: NOON, domains=["f" * 20])
    house.records.apply([Insert(DOMAINS, orphan), *told])
    assert house.follower.look().hosted("orphan.test") is None
    assert Follower(house.records, SETTINGS).snapshot.hosted("orphan.test") is None


def test_a_domain_that_was_added_while_its_account_was_deleted_goes_with_it(house: House) -> None:
    """Whoever deletes the account did not know of it, and the table did already."""
    house.node.add("late.test", house.account, "a")
    assert house.follower.look().hosted("late.test") is not None
    told = announcement(house.ids, lambda: NOON, accounts=[house.account.id])
    gone = [Delete(each, {"account_id": house.account.id}) for each in (DOMAINS, DESTINATIONS)]
    house.records.apply([*gone, Delete(ACCOUNTS, {"id": house.account.id}), *told])
    table = house.follower.look()
    assert [name for name in ("late.test", "d1.test") if table.hosted(name) is not None] == []


def test_a_reference_that_was_drawn_again_stays_with_who_has_it_now() -> None:
    """Even where the news of its going comes last."""
    first = alias("a@example.org", "m@home.test")
    table = snapshot(first)
    again = replace(alias("b@other.test", "m@home.test"), reference=first.reference)
    table = table.replaced(2, Portion({"other.test": HostedDomain(domain("other.test"), [again])}, {}))
    table = table.replaced(3, Portion({"example.org": HostedDomain(domain("example.org"), [])}, {}))
    assert table.alias_address(first.reference) == "b@other.test"


def test_rows_read_long_ago_are_forgotten_and_not_read_again(house: House) -> None:
    """An hour's rows are kept in the store; what is known of them here does not grow for ever."""
    instant = NOON
    for hour in range(8):
        ids = id_source(lambda: instant)  # noqa: B023
        for _ in range(10):
            rows = [announcement(ids, lambda: instant, domains=[]) for _ in range(60)]  # noqa: B023
            house.records.apply([change for each in rows for change in each])
            instant += 6 * MINUTE_MS
        house.records.sweep(ROUTING_CHANGES, ROUTING_CHANGES.retention[0], instant - HOUR_MS)
        house.follower.look()
        assert len(house.follower._read) < 4000, hour
    assert house.follower.whole_loads == 1
