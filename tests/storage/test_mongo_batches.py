"""Several changes on MongoDB are made as one, whoever dies in the middle and whoever is taken for dead."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import count

import pytest
from interrupted_batch import (
    BATCH,
    BEFORE,
    RIVAL,
    continued,
    killed_after_a_stop_before,
    killed_before,
    rows,
    stopped_before,
)
from mongod import Mongod
from pymongo.errors import OperationFailure
from storage_backends import MongoBackend, SqliteBackend
from stored_values import a_row, an_event, an_id

from appliance.privacy.declarations import ACCOUNTS, ALIASES, DOMAINS, EVENTS, ROUTING_CHANGES
from appliance.routing.changes import announcement
from appliance.storage.codec import RowRefused
from appliance.storage.event_rows import event_to_row
from appliance.storage.mongo_batches import FORGOTTEN_AFTER, LARGEST_INTENT, TAKEN_BACK
from appliance.storage.records import Change, Delete, Duplicate, Insert, Raise, RecordStore, StoreUnavailable, Update

ADDING = 7
"""The step of the batch that adds the first rows: behind the intent, changes of accounts, an event and a domain, a note
of how far it has come, and a domain erased."""

ERASING = 6
"""The step that erases a domain."""

DECIDING = 11
"""The step that decides that the batch is made. What comes behind it is made by its condition."""

SETTING_ALL, REMOVING_ALL, CLOSING = DECIDING + 1, DECIDING + 2, DECIDING + 4
"""Both conditions, and behind the generation the step that erases the intent."""

BAD_VALUE = 2
"""What a server says that will never do what it is asked for."""


@pytest.fixture
def house(mongod: Mongod) -> Iterator[MongoBackend]:
    """A database with the rows that the batch is about."""
    place = MongoBackend(mongod)
    place.records().apply(BEFORE)
    yield place
    place.close()


@pytest.fixture
def whole(sqlite: SqliteBackend) -> dict[str, list[dict[str, object]]]:
    """What a batch leaves in a store that makes it in one transaction."""
    records = sqlite.records()
    records.apply(BEFORE)
    records.apply(BATCH)
    return rows(records)


def unsettled(house: MongoBackend) -> int:
    with house.server.client() as client:
        return client[house.database]["intents"].count_documents({"outcome": {"$ne": TAKEN_BACK}})


def age_intents(house: MongoBackend) -> None:
    """Make every intent one that nobody has been at for long."""
    with house.server.client() as client:
        client[house.database]["intents"].update_many({}, {"$set": {"at": datetime.fromtimestamp(0, UTC)}})


def outcome(records: RecordStore, changes: Sequence[Change]) -> object:
    """What comes of these changes."""
    try:
        return records.apply(changes)
    except Duplicate:
        return Duplicate


def test_a_batch_leaves_what_a_transaction_leaves(house: MongoBackend, sqlite: SqliteBackend) -> None:
    records, file = house.records(), sqlite.records()
    file.apply(BEFORE)
    assert records.apply(BATCH) == file.apply(BATCH)
    assert rows(records) == rows(file)
    assert records.generation("routing") == 1
    assert unsettled(house) == 0


def test_a_process_that_dies_before_any_step_leaves_all_or_nothing(
    mongod: Mongod, whole: dict[str, list[dict[str, object]]]
) -> None:
    left = []
    for step in count(1):
        house = MongoBackend(mongod)
        house.records().apply(BEFORE)
        nothing = rows(house.records())
        printed = killed_before(step, house.url)
        # Whoever opens the store next brings to its end what was left, and finds nothing more.
        records = house.records(abandoned_ms=0)
        found = rows(records)
        assert found in (nothing, whole), f"killed before step {step}"
        # Whoever has looked in between has to look again.
        assert records.generation("routing") > 0 or step == 1
        assert records.settle() == unsettled(house) == 0
        house.close()
        if printed:
            break
        left.append(found == whole)
    assert left == [False] * DECIDING + [True] * (CLOSING - DECIDING)


def test_a_duplicate_in_the_middle_takes_everything_back(house: MongoBackend) -> None:
    records = house.records()
    nothing = rows(records)
    with stopped_before(ADDING, house.url) as process:
        assert rows(records) != nothing
        records.apply(RIVAL)
        assert continued(process) == "duplicate reference"
    found = rows(records)
    assert found.pop("aliases")[:-1] == nothing.pop("aliases")
    assert found == nothing
    assert records.generation("routing") > 0
    assert unsettled(house) == 0


def test_a_name_that_only_a_dead_process_has_given_away_is_free(house: MongoBackend) -> None:
    records = house.records(abandoned_ms=0)
    nothing = rows(records)
    assert killed_before(DECIDING, house.url) == ""
    records.apply(RIVAL)
    found = rows(records)
    assert found.pop("aliases")[:-1] == nothing.pop("aliases")
    assert found == nothing


@pytest.mark.parametrize("step", range(2, CLOSING + 1))
def test_who_is_taken_for_dead_and_goes_on_does_no_harm(
    house: MongoBackend, whole: dict[str, list[dict[str, object]]], step: int
) -> None:
    nothing = rows(house.records())
    with stopped_before(step, house.url) as process:
        records = house.records(abandoned_ms=0)
        assert rows(records) == (whole if step > DECIDING else nothing)
        # What has been taken back is begun anew.
        assert continued(process).startswith("done")
    assert rows(records) == whole
    assert unsettled(house) == 0


@pytest.mark.parametrize("step", [2, 3, ERASING, DECIDING - 1])
def test_who_is_taken_for_dead_and_killed_when_it_goes_on_has_changed_nothing(house: MongoBackend, step: int) -> None:
    records = house.records(abandoned_ms=0)
    nothing = rows(records)
    with killed_after_a_stop_before(step, house.url):
        assert records.settle() == 1
        assert rows(records) == nothing
    assert rows(records) == nothing


def test_a_row_that_is_added_so_late_does_not_stay(house: MongoBackend) -> None:
    records = house.records(abandoned_ms=0)
    nothing = rows(records)
    with killed_after_a_stop_before(ADDING, house.url):
        assert records.settle() == 1
        assert rows(records) == nothing
    # It had time for one more row.
    assert rows(records)["accounts"] == [*nothing["accounts"], a_row(ACCOUNTS, 4)]
    assert records.settle() == 0
    assert rows(records) == nothing


def test_who_is_taken_for_dead_hears_of_a_duplicate_that_there_is_by_now(house: MongoBackend) -> None:
    nothing = rows(house.records())
    with stopped_before(2, house.url) as process:
        house.records(abandoned_ms=0).apply(RIVAL)
        assert continued(process) == "duplicate reference"
    found = rows(house.records())
    assert found.pop("aliases")[:-1] == nothing.pop("aliases")
    assert found == nothing
    assert unsettled(house) == 0


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param([Update(ACCOUNTS, {"id": an_id(1)}, {"role": "another"})], id="a clear field"),
        pytest.param([Update(EVENTS, {"id": an_id(1)}, {"reason": "another"})], id="a sealed field"),
        pytest.param([Delete(ACCOUNTS, {"id": an_id(3)})], id="a row erased"),
        pytest.param([Insert(ALIASES, a_row(ALIASES, 3))], id="a row added"),
        pytest.param(
            [Update(ALIASES, {"id": an_id(number)}, {"enabled": False}) for number in (2, 1)], id="one row and one gone"
        ),
        pytest.param([Update(ACCOUNTS, {}, {"role": "another"})], id="all rows"),
    ],
)
@pytest.mark.parametrize("step", [ADDING, DECIDING, SETTING_ALL, CLOSING])
def test_what_others_write_is_behind_all_of_a_batch_or_it_is_behind_none_of_it(
    house: MongoBackend, sqlite: SqliteBackend, changes: list[Change], step: int
) -> None:
    records, file = house.records(abandoned_ms=100_000), sqlite.records()
    file.apply(BEFORE)
    if step > DECIDING:
        file.apply(BATCH)
    assert killed_before(step, house.url) == ""
    age_intents(house)
    assert outcome(records, changes) == outcome(file, changes)
    house.records(abandoned_ms=0).settle()
    assert rows(records) == rows(file)
    assert unsettled(house) == 0


def test_what_others_write_is_not_undone_with_a_batch_that_is_still_under_way(house: MongoBackend) -> None:
    records = house.records()
    with stopped_before(ADDING, house.url) as process:
        assert records.count(ACCOUNTS, {"id": an_id(1), "plan": "premium"}) == 1
        records.apply([Update(ACCOUNTS, {"id": an_id(1)}, {"plan": "another"})])
        records.apply(RIVAL)
        assert continued(process) == "duplicate reference"
    assert [each["plan"] for each in records.find(ACCOUNTS, {})] == ["another", "plan 2", "plan 3"]


@pytest.mark.parametrize("step", [SETTING_ALL, REMOVING_ALL])
def test_who_is_taken_for_dead_touches_nothing_that_is_newer_than_its_batch(house: MongoBackend, step: int) -> None:
    newer = a_row(ACCOUNTS, 7) | {"plan": "premium"}
    alias = a_row(ALIASES, 7) | {"domain_id": "domain_id 1"}
    with stopped_before(step, house.url) as process:
        records = house.records(abandoned_ms=0)
        records.apply([Insert(ACCOUNTS, newer)])
        records.apply([Insert(ALIASES, alias)])
        assert continued(process).startswith("done")
    assert records.get(ACCOUNTS, {"id": an_id(7)}) == newer
    assert records.get(ALIASES, {"id": an_id(7)}) == alias


def test_a_row_that_somebody_has_erased_does_not_come_back(house: MongoBackend) -> None:
    records = house.records(abandoned_ms=0)
    with stopped_before(ADDING + 1, house.url):
        assert records.count(ACCOUNTS, {"id": an_id(4)}) == 1
        records.apply([Delete(ACCOUNTS, {"id": an_id(4)})])
        records.settle()
        assert records.count(ACCOUNTS, {"id": an_id(4)}) == 0


@pytest.mark.parametrize("step", [2, ERASING - 1])
def test_a_row_that_a_dead_process_had_not_begun_to_erase_and_others_have_does_not_come_back(
    house: MongoBackend, step: int
) -> None:
    records = house.records(abandoned_ms=0)
    assert killed_before(step, house.url) == ""
    assert records.apply([Delete(DOMAINS, {"id": an_id(1)})]) == [1]
    records.settle()
    assert records.count(DOMAINS, {"id": an_id(1)}) == 0


def test_a_name_that_a_batch_had_freed_stays_with_who_has_it_when_the_batch_is_taken_back(house: MongoBackend) -> None:
    records = house.records(abandoned_ms=0)
    assert killed_before(DECIDING, house.url) == ""
    freed = a_row(ALIASES, 2) | {"id": an_id(9), "reference": "reference 9"}
    records.apply([Insert(ALIASES, freed)])
    assert records.settle() == 1
    assert unsettled(house) == 0
    assert records.get(ALIASES, {"id": an_id(9)}) == freed
    assert records.count(ALIASES, {"pattern": "another"}) == 1
    assert records.apply([Update(ALIASES, {"id": an_id(2)}, {"pattern": "a third"})]) == [1]


def test_of_a_batch_that_is_taken_back_only_ids_are_kept_and_not_for_ever(house: MongoBackend) -> None:
    assert killed_before(ADDING, house.url) == ""
    records = house.records(abandoned_ms=0)
    with house.server.client() as client:
        (kept,) = client[house.database]["intents"].find()
        assert b"premium" not in kept["writes"]
        assert len(kept["writes"]) < 500
        for _ in range(FORGOTTEN_AFTER):
            records.settle()
        assert client[house.database]["intents"].count_documents({}) == 0


def test_a_batch_that_can_never_be_made_is_taken_back(house: MongoBackend) -> None:
    records = house.records()
    nothing = rows(records)
    with (
        house.server.failing(["insert"], times=1, errorCode=BAD_VALUE, appName="onward"),
        pytest.raises(OperationFailure),
    ):
        records.apply(BATCH)
    assert rows(records) == nothing
    assert unsettled(house) == 0


def test_a_batch_that_nobody_can_bring_to_its_end_stops_nobody(
    house: MongoBackend,
    whole: dict[str, list[dict[str, object]]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("appliance.storage.mongo_records.SETTLE_EVERY_S", 0.0)
    records = house.records()
    assert killed_before(SETTING_ALL, house.url) == ""
    with house.server.client() as client:
        database = client[house.database]
        for name in ("before", "broken"):
            database["intents"].insert_one({"_id": name, "at": datetime.now(UTC), "writes": b"not ours"})
        database["accounts"].update_one({"_id": an_id(2)}, {"$set": {"batch": "broken"}})
    age_intents(house)
    for _ in range(5):
        assert records.generation("routing") == 1
    # Each has been tried once, and is tried again when that may be of use.
    assert len(caplog.records) == 2
    assert "not ours" not in caplog.text
    assert rows(records) == whole
    assert records.apply([Update(ACCOUNTS, {"id": an_id(2)}, {"plan": "another"})]) == [1]


def test_who_has_other_things_to_do_is_not_kept_by_a_batch_that_erases_many_rows(
    house: MongoBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = house.records(abandoned_ms=0)
    records.apply(
        [Insert(ALIASES, a_row(ALIASES, number) | {"domain_id": "domain_id 1"}) for number in range(10, 4600)]
    )
    assert killed_before(REMOVING_ALL, house.url) == ""
    monkeypatch.setattr("appliance.storage.mongo_batches.SETTLING_S", 0.0)
    assert records.settle() == 0
    assert records.count(ALIASES, {"domain_id": "domain_id 1"}) > 0
    monkeypatch.undo()
    assert records.settle() == 1
    assert records.count(ALIASES, {"domain_id": "domain_id 1"}) == 0


def test_a_batch_that_can_not_be_brought_to_its_end_now_is_later(
    house: MongoBackend, whole: dict[str, list[dict[str, object]]], caplog: pytest.LogCaptureFixture
) -> None:
    records = house.records(abandoned_ms=0)
    assert killed_before(SETTING_ALL, house.url) == ""
    with house.server.failing(["update"], errorCode=BAD_VALUE, appName="onward"):
        assert records.settle() == 0
    assert len(caplog.records) == 1
    assert records.settle() == 1
    assert rows(records) == whole


def test_what_is_under_way_is_left_alone(house: MongoBackend) -> None:
    with stopped_before(2, house.url) as process:
        assert house.records().settle() == 0
        assert unsettled(house) == 1
        assert continued(process).startswith("done")


@pytest.mark.parametrize("command", ["insert", "update", "delete"])
def test_a_server_that_goes_away_in_the_middle_leaves_all_or_nothing(
    house: MongoBackend, whole: dict[str, list[dict[str, object]]], command: str
) -> None:
    records = house.records()
    nothing = rows(records)
    with (
        house.server.failing([command], closeConnection=True, appName="onward"),
        pytest.raises(StoreUnavailable),
    ):
        records.apply(BATCH)
    assert rows(house.records(abandoned_ms=0)) in (nothing, whole)


def test_a_process_that_asks_for_generations_finishes_what_others_have_left(
    house: MongoBackend, whole: dict[str, list[dict[str, object]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.storage.mongo_records.SETTLE_EVERY_S", 0.0)
    records = house.records(abandoned_ms=0)
    assert killed_before(SETTING_ALL, house.url) == ""
    assert records.generation("routing") == 1
    assert rows(records) == whole


def test_duplicates_within_a_batch_are_found(house: MongoBackend) -> None:
    records = house.records()
    nothing = rows(records)
    alias = a_row(ALIASES, 5)
    with pytest.raises(Duplicate) as caught:
        records.apply([Raise("routing"), Insert(ALIASES, alias), Insert(ALIASES, a_row(ALIASES, 6) | {"id": an_id(5)})])
    assert caught.value.fields == ("id",)
    with pytest.raises(Duplicate) as caught:
        records.apply([Insert(ALIASES, alias), Update(ALIASES, {"id": an_id(5)}, {"reference": "reference 1"})])
    assert caught.value.fields == ("reference",)
    assert rows(records) == nothing
    # Of many inserts only the keys are looked up first: what is unique beside them says no when it is written.
    many = [Insert(ACCOUNTS, a_row(ACCOUNTS, number)) for number in range(10, 200)]
    with pytest.raises(Duplicate) as caught:
        records.apply([*many, Insert(ACCOUNTS, a_row(ACCOUNTS, 200) | {"email": "email 100"})])
    assert caught.value.fields == ("email",)
    assert rows(records) == nothing
    assert unsettled(house) == 0


def test_a_name_that_a_batch_frees_it_may_give_away(house: MongoBackend) -> None:
    records = house.records()
    changes: list[Change] = [
        Update(ACCOUNTS, {"id": an_id(1)}, {"email": "elsewhere"}),
        Insert(ACCOUNTS, a_row(ACCOUNTS, 7) | {"email": "email 1"}),
    ]
    assert records.apply(changes) == [1, 1]
    assert records.count(ACCOUNTS, {"email": "email 1"}) == 1


def test_any_number_of_rows_is_erased_in_a_batch(house: MongoBackend) -> None:
    records = house.records()
    records.apply([Insert(ACCOUNTS, a_row(ACCOUNTS, number)) for number in range(10, 4510)])
    assert records.apply([Delete(ACCOUNTS, {}), Raise("routing")]) == [4503, 1]
    assert records.count(ACCOUNTS, {}) == 0


def test_what_is_erased_is_not_written_down_once_more_where_it_is_announced(house: MongoBackend) -> None:
    records = house.records()
    long = "x" * (64 << 10)
    for start in range(10, 310, 100):
        rows_ = [{**event_to_row(an_event(number)), "subject": long} for number in range(start, start + 100)]
        records.apply([Insert(EVENTS, row) for row in rows_])
    assert 300 * len(long) > LARGEST_INTENT
    announced = announcement(lambda: an_id(9), lambda: 0, accounts=[an_id(1)])
    assert records.apply([Delete(EVENTS, {}), *announced]) == [302, 1, 1]
    assert (records.count(EVENTS, {}), records.count(ROUTING_CHANGES, {})) == (0, 1)


def test_more_than_one_intent_can_hold_is_refused_before_anything_is_changed(house: MongoBackend) -> None:
    records = house.records()
    rows_ = [a_row(ACCOUNTS, number) | {"plan": "x" * (1 << 20)} for number in range(10, 26)]
    with pytest.raises(RowRefused, match="too much at once"):
        records.apply([Insert(ACCOUNTS, row) for row in rows_])
    assert records.count(ACCOUNTS, {}) == 3
