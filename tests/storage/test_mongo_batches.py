"""Several changes on MongoDB are made as one, whoever dies in the middle and whoever is taken for dead."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count

import pytest
from interrupted_batch import BATCH, BEFORE, RIVAL, continued, killed_before, rows, stopped_before
from mongod import Mongod
from pymongo.errors import OperationFailure
from storage_backends import MongoBackend, SqliteBackend
from stored_values import a_row, an_event, an_id

from appliance.privacy.declarations import ACCOUNTS, ALIASES, EVENTS, ROUTING_CHANGES
from appliance.routing.changes import announcement
from appliance.storage.codec import RowRefused
from appliance.storage.event_rows import event_to_row
from appliance.storage.mongo_batches import LARGEST_INTENT
from appliance.storage.records import Change, Delete, Duplicate, Insert, Raise, StoreUnavailable, Update

FIRST_INSERTS = 6
"""The step of the batch that inserts the first rows: before it come the intent, two accounts, an event and a domain."""

CLOSING = 13
"""The step of the batch that erases its intent, when all is done."""

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
        return client[house.database]["intents"].count_documents({"writes": {"$exists": True}})


def age_intents(house: MongoBackend) -> None:
    """Make every intent one that nobody has been at for long."""
    with house.server.client() as client:
        client[house.database]["intents"].update_many({}, {"$set": {"at": datetime.fromtimestamp(0, UTC)}})


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
        # Whoever opens the store next finishes what was left, and finds nothing more to finish.
        records = house.records(abandoned_ms=0)
        found = rows(records)
        assert found in (nothing, whole), f"killed before step {step}"
        assert (records.generation("routing") > 0) == (found == whole)
        assert records.settle() == unsettled(house) == 0
        house.close()
        if printed:
            break
        left.append(found == whole)
    # Nothing is left of one that died before its intent was there.
    assert left[0] is False
    assert all(left[1:])
    assert len(left) > 10


def test_a_duplicate_in_the_middle_takes_everything_back(house: MongoBackend) -> None:
    records = house.records()
    nothing = rows(records)
    with stopped_before(FIRST_INSERTS, house.url) as process:
        assert rows(records) != nothing
        records.apply(RIVAL)
        assert continued(process) == "duplicate reference"
    found = rows(records)
    assert found.pop("aliases")[:-1] == nothing.pop("aliases")
    assert found == nothing
    # Whoever has looked in between has to look again.
    assert records.generation("routing") == 1
    assert unsettled(house) == 0


def test_what_a_dead_process_has_left_is_undone_where_it_is_a_duplicate_by_now(house: MongoBackend) -> None:
    nothing = rows(house.records())
    assert killed_before(FIRST_INSERTS, house.url) == ""
    house.records().apply(RIVAL)
    records = house.records(abandoned_ms=0)
    found = rows(records)
    assert found.pop("aliases")[:-1] == nothing.pop("aliases")
    assert found == nothing


@pytest.mark.parametrize("step", [2, FIRST_INSERTS, FIRST_INSERTS + 2, 12])
def test_who_is_taken_for_dead_and_goes_on_does_no_harm(
    house: MongoBackend, whole: dict[str, list[dict[str, object]]], step: int
) -> None:
    with stopped_before(step, house.url) as process:
        records = house.records(abandoned_ms=0)
        assert rows(records) == whole
        assert continued(process).startswith("done")
    assert rows(records) == whole
    assert unsettled(house) == 0


def test_who_is_taken_for_dead_and_undone_hears_of_it(house: MongoBackend) -> None:
    nothing = rows(house.records())
    with stopped_before(2, house.url) as process:
        house.records().apply(RIVAL)
        records = house.records(abandoned_ms=0)
        printed = continued(process)
    assert printed.startswith(("duplicate", "unavailable"))
    found = rows(records)
    assert found.pop("aliases")[:-1] == nothing.pop("aliases")
    assert found == nothing
    assert unsettled(house) == 0


def test_who_is_undone_when_all_was_done_hears_of_it(
    house: MongoBackend, whole: dict[str, list[dict[str, object]]]
) -> None:
    nothing = rows(house.records())
    with stopped_before(CLOSING, house.url) as process:
        records = house.records()
        assert rows(records) == whole
        age_intents(house)
        with house.server.failing(["update"], times=1, errorCode=BAD_VALUE, appName="onward"):
            assert records.settle() == 1
        assert continued(process).startswith("unavailable")
    assert rows(records)["accounts"] == nothing["accounts"]
    assert unsettled(house) == 0


def test_what_another_batch_has_written_since_is_not_undone(house: MongoBackend) -> None:
    records = house.records()
    with stopped_before(FIRST_INSERTS, house.url) as process:
        assert records.count(ACCOUNTS, {"id": an_id(1), "plan": "premium"}) == 1
        records.apply([Update(ACCOUNTS, {"id": an_id(1)}, {"plan": "another"}), Raise("routing")])
        records.apply(RIVAL)
        assert continued(process) == "duplicate reference"
    assert [each["plan"] for each in records.find(ACCOUNTS, {})] == ["another", "plan 2", "plan 3"]


@pytest.mark.parametrize("step", [FIRST_INSERTS, CLOSING])
def test_what_others_have_written_since_stays_when_a_batch_is_finished(house: MongoBackend, step: int) -> None:
    records = house.records()
    assert killed_before(step, house.url) == ""
    records.apply([Update(ACCOUNTS, {"id": an_id(1)}, {"plan": "another"}), Raise("routing")])
    records.apply([Delete(ACCOUNTS, {"id": an_id(4)}), Raise("routing")])
    age_intents(house)
    assert records.settle() == 1
    never_had = ["plan 4"] if step == FIRST_INSERTS else []
    assert [each["plan"] for each in records.find(ACCOUNTS, {})] == ["another", "plan 2", "premium", *never_had]
    assert unsettled(house) == 0


def test_a_row_of_a_batch_that_others_have_changed_since_is_no_duplicate(
    house: MongoBackend, whole: dict[str, list[dict[str, object]]]
) -> None:
    records = house.records()
    assert killed_before(FIRST_INSERTS + 1, house.url) == ""
    records.apply([Update(ACCOUNTS, {"id": an_id(4)}, {"plan": "another"}), Raise("routing")])
    age_intents(house)
    assert records.settle() == 1
    found = rows(records)
    assert found.pop("accounts")[-1]["plan"] == "another"
    assert found == {name: of_one for name, of_one in whole.items() if name != "accounts"}


def test_a_batch_that_can_never_be_made_is_undone_and_stops_nobody(house: MongoBackend) -> None:
    records = house.records()
    nothing = rows(records)
    assert killed_before(FIRST_INSERTS, house.url) == ""
    assert rows(records) != nothing
    age_intents(house)
    with house.server.failing(["insert"], times=1, errorCode=BAD_VALUE, appName="onward"):
        assert records.settle() == 1
    assert rows(records) == nothing
    with (
        house.server.failing(["insert"], times=1, errorCode=BAD_VALUE, appName="onward"),
        pytest.raises(OperationFailure),
    ):
        records.apply(BATCH)
    assert rows(records) == nothing
    assert unsettled(house) == 0


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
    assert killed_before(FIRST_INSERTS, house.url) == ""
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
