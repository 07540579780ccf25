"""What has outlived its retention is erased, from both stores, and nothing else is."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from owned_rows import store_one_of_each
from stored_values import NOON, a_delivery, a_keyring, a_row, an_event, an_id

from appliance.model.event import EventType
from appliance.model.time import DAY_MS, MINUTE_MS, SECOND_MS
from appliance.privacy.declarations import ACCOUNTS, COLLECTIONS, DOMAINS, EVENTS, Store
from appliance.privacy.owners import owned
from appliance.privacy.sweeper import Sweeper
from appliance.storage.event_rows import event_to_row
from appliance.storage.records import Delete, Insert
from appliance.storage.spool import Accept, AddPart, ReturnPath
from appliance.storage.sqlite_records import SqliteRecords
from appliance.storage.sqlite_spool import SqliteSpool


@dataclass
class Box:
    """Both stores of an appliance, and the settings of its retentions."""

    records: SqliteRecords
    spool: SqliteSpool
    settings: dict[str, int]

    def sweeper(self) -> Sweeper:
        return Sweeper(self.records, self.spool, self.settings.__getitem__)

    def event_numbers(self) -> list[int]:
        return [int(str(row["id"]), 16) for row in self.records.find(EVENTS, {})]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """With nothing stored."""
    keyring = a_keyring()
    box = Box(
        SqliteRecords(tmp_path / "records.sqlite", keyring),
        SqliteSpool(tmp_path / "spool.sqlite", keyring),
        {
            "log.delivery_retention": 2 * DAY_MS,
            "log.error_retention": 5 * DAY_MS,
            "log.http_retention": 30 * DAY_MS,
        },
    )
    yield box
    box.records.close()
    box.spool.close()


def log_one_of_each(box: Box) -> None:
    domain = a_row(DOMAINS, 900) | {"account_id": an_id(900)}
    box.records.apply(
        [
            Insert(ACCOUNTS, a_row(ACCOUNTS, 900) | {"email_verified": True}),
            Insert(DOMAINS, domain),
            *(Insert(EVENTS, event_to_row(an_event(number, type=type_)))
            for number, type_ in enumerate(EventType, 1)),
        ]
    )  # fmt: skip


def test_every_event_is_erased_at_the_end_of_the_retention_of_its_type(box: Box) -> None:
    log_one_of_each(box)
    sweeper = box.sweeper()
    nothing = dict.fromkeys(sweeper.sweep(NOON), 0)
    # To the millisecond: what is as old as the retention says is still there.
    assert sweeper.sweep(NOON + 2 * DAY_MS) == nothing
    assert sweeper.sweep(NOON + 2 * DAY_MS + 1) == nothing | {"events": 2}
    assert box.event_numbers() == [3, 4, 5]
    assert sweeper.sweep(NOON + 5 * DAY_MS) == nothing
    assert sweeper.sweep(NOON + 5 * DAY_MS + 1) == nothing | {"events": 3}
    assert box.event_numbers() == []


def test_a_setting_that_is_changed_holds_from_the_next_sweep_on(box: Box) -> None:
    log_one_of_each(box)
    sweeper = box.sweeper()
    box.settings["log.error_retention"] = 1 * DAY_MS
    assert sweeper.sweep(NOON + DAY_MS + 1)["events"] == 3
    assert box.event_numbers() == [1, 2]


def test_a_return_path_is_erased_after_its_fixed_span(box: Box) -> None:
    box.spool.apply([Accept([a_delivery(1)], return_paths=[ReturnPath("token", "s@sender.example", "abcdef", NOON)])])
    sweeper = box.sweeper()
    assert sweeper.sweep(NOON + 21 * DAY_MS)["return_paths"] == 0
    assert box.spool.return_path("token") is not None
    assert sweeper.sweep(NOON + 21 * DAY_MS + 1)["return_paths"] == 1
    assert box.spool.return_path("token") is None


def test_what_has_no_retention_stays(box: Box) -> None:
    box.records.apply([Insert(ACCOUNTS, a_row(ACCOUNTS))])
    box.spool.apply([AddPart(an_id(1), 0, b"x"), Accept([a_delivery(1)], [an_event(1)])])
    box.sweeper().sweep(NOON + 10_000 * DAY_MS)
    assert box.records.count(ACCOUNTS, {}) == 1
    assert box.spool.depth()[0] == 1
    assert box.spool.part(an_id(1), 0) == b"x"
    # An event in the outbox is on its way to where its retention begins to count.
    assert len(box.spool.outbox(10)) == 1


def test_a_clock_that_is_set_back_prolongs_nothing(box: Box) -> None:
    sweeper = box.sweeper()
    sweeper.sweep(NOON + 2 * DAY_MS + 1)
    log_one_of_each(box)
    assert sweeper.sweep(NOON - 30 * DAY_MS)["events"] == 2
    assert box.event_numbers() == [3, 4, 5]


@pytest.mark.parametrize(
    ("shortest", "interval"),
    [
        (0, SECOND_MS),
        (SECOND_MS, SECOND_MS),
        (10 * SECOND_MS, 5 * SECOND_MS),
        (2 * MINUTE_MS, MINUTE_MS),
        (7 * DAY_MS, MINUTE_MS),
    ],
)
def test_it_sweeps_twice_in_the_shortest_retention(box: Box, shortest: int, interval: int) -> None:
    box.settings["log.delivery_retention"] = shortest
    assert box.sweeper().interval_ms() == interval


def test_a_setting_that_does_not_exist_is_found_at_the_start(box: Box) -> None:
    del box.settings["log.error_retention"]
    with pytest.raises(KeyError, match=r"log\.error_retention"):
        box.sweeper()


def test_what_nobody_owns_any_more_is_erased_from_the_owner_down(box: Box) -> None:
    """By what is declared: a row that was written for an account in the moment of its deletion does not stay."""
    for number in (1, 2):
        store_one_of_each(box.records, number)
    sweeper = box.sweeper()
    sweeper.sweep(0)
    owned_by = {collection.name: box.records.count(collection, {}) for collection in owned()}
    assert set(owned_by.values()) == {2}
    box.records.apply([Delete(ACCOUNTS, {"id": an_id(1)})])
    erased = {name: count for name, count in sweeper.sweep(0).items() if count}
    assert erased == {collection.name: 1 for collection in owned() if collection is not ACCOUNTS}
    assert all(box.records.count(collection, {}) == 1 for collection in owned())


def test_what_nobody_owns_is_sought_where_it_is_ones_turn(box: Box) -> None:
    store_one_of_each(box.records, 1)
    box.records.apply([Delete(ACCOUNTS, {"id": an_id(1)})])
    turns = [False, True]
    sweeper = Sweeper(box.records, box.spool, box.settings.__getitem__, lambda: turns.pop(0))
    assert not any(sweeper.sweep(0).values())
    assert any(sweeper.sweep(0).values())


def test_what_is_too_old_is_found_by_an_index() -> None:
    """By what is declared. Of the rest there is one row for each account, or for each machine."""
    without = {
        collection.name
        for collection in COLLECTIONS
        for retention in collection.retention
        if collection.store is not Store.EPHEMERAL
        and retention.since not in {fields[0] for fields in (*collection.indexes, collection.key)}
    }
    assert without == {"accounts", "two_factors", "log_horizons"}


def test_every_declared_retention_can_be_swept(box: Box) -> None:
    """By what is declared, not by what this file knows of: a new one is swept too, or fails here."""
    durable = [collection for collection in COLLECTIONS if collection.store is not Store.EPHEMERAL]
    declared = {collection.name for collection in durable if collection.retention}
    assert box.sweeper().sweep(NOON).keys() == declared
