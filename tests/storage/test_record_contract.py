"""What every record store keeps to, whatever it is made of."""

import threading
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from storage_backends import BACKENDS, MONGODS, Backend, MongoBackend
from stored_values import NOON, a_keyring, a_row, an_event, an_id

from appliance.model.event import EventType
from appliance.privacy.declarations import (
    ACCOUNTS,
    ALIASES,
    DELIVERIES,
    DOMAINS,
    EVENTS,
    GENERATIONS,
    HTTP_REQUESTS,
    Collection,
    Retention,
    Store,
    collections_of,
)
from appliance.storage.codec import KeyMissing, RowRefused
from appliance.storage.event_rows import event_to_row, row_to_event
from appliance.storage.records import (
    AnyOf,
    Delete,
    Duplicate,
    Insert,
    Page,
    Raise,
    Range,
    RecordStore,
    StoreUnavailable,
    Update,
)
from appliance.storage.spool import Record


@pytest.fixture(params=[*BACKENDS, *MONGODS])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """A fresh place for stores."""
    place: Backend
    if request.param in BACKENDS:
        place = BACKENDS[request.param](tmp_path)
    else:
        place = MongoBackend(request.getfixturevalue(request.param))
    yield place
    place.close()


def insert_accounts(records: RecordStore, numbers: Iterable[int]) -> None:
    records.apply([Insert(ACCOUNTS, a_row(ACCOUNTS, number)) for number in numbers])


def insert_events(records: RecordStore, *events: object) -> None:
    records.apply([Insert(EVENTS, event_to_row(event)) for event in events])  # type: ignore[arg-type]


def ids(rows: Iterable[dict[str, object]]) -> list[object]:
    return [row["id"] for row in rows]


@pytest.mark.parametrize("collection", collections_of(Store.RECORDS), ids=lambda collection: collection.name)
def test_a_row_of_any_collection_comes_back_as_it_went_in(records: RecordStore, collection: Collection) -> None:
    rows = [a_row(collection, number) for number in (1, 2)]
    assert records.apply([Insert(collection, row) for row in rows]) == [1, 1]
    assert records.find(collection, {}) == rows
    assert records.get(collection, {name: rows[1][name] for name in collection.key}) == rows[1]


@pytest.mark.parametrize("collection", collections_of(Store.RECORDS), ids=lambda collection: collection.name)
def test_optional_fields_may_be_absent(records: RecordStore, collection: Collection) -> None:
    row = a_row(collection)
    optional = [field.name for field in collection.fields if field.optional]
    for name in optional:
        del row[name]
    records.apply([Insert(collection, row)])
    assert records.get(collection, {}) == row | dict.fromkeys(optional)


def test_an_event_comes_back_as_it_went_in(records: RecordStore) -> None:
    event = an_event(subject="Über 5 € für \U0001f4e7", sender="")
    insert_events(records, event)
    row = records.get(EVENTS, {"id": event.id})
    assert row is not None
    assert row_to_event(row) == event


def test_what_is_applied_is_there_when_the_store_is_opened_again(backend: Backend) -> None:
    first = backend.records()
    insert_accounts(first, [1])
    first.close()
    assert backend.records().count(ACCOUNTS, {}) == 1


def test_all_changes_of_a_call_or_none(records: RecordStore) -> None:
    insert_accounts(records, [1])
    with pytest.raises(Duplicate):
        records.apply(
            [
                Update(ACCOUNTS, {"id": an_id(1)}, {"plan": "premium"}),
                Insert(ACCOUNTS, a_row(ACCOUNTS, 2)),
                Raise("routing"),
                Insert(ACCOUNTS, a_row(ACCOUNTS, 1)),
            ]
        )
    assert records.find(ACCOUNTS, {}) == [a_row(ACCOUNTS, 1)]
    assert records.generation("routing") == 0
    # And the store is as useful as before.
    insert_accounts(records, [2])


def test_a_refused_row_stops_the_whole_call(records: RecordStore) -> None:
    with pytest.raises(RowRefused):
        records.apply([Insert(ACCOUNTS, a_row(ACCOUNTS, 1)), Insert(ACCOUNTS, {"id": an_id(2)})])
    assert records.count(ACCOUNTS, {}) == 0


def test_the_same_key_twice_is_a_duplicate(records: RecordStore) -> None:
    insert_accounts(records, [1])
    with pytest.raises(Duplicate) as caught:
        records.apply([Insert(ACCOUNTS, a_row(ACCOUNTS, 2) | {"id": an_id(1)})])
    assert (caught.value.collection, caught.value.fields) == (ACCOUNTS, ("id",))


def test_unique_fields_are_named_when_they_are_there_already(records: RecordStore) -> None:
    alias = a_row(ALIASES, 1)
    records.apply([Insert(ALIASES, alias)])
    with pytest.raises(Duplicate) as caught:
        records.apply([Insert(ALIASES, alias | {"id": an_id(2), "reference": "other1"})])
    assert caught.value.fields == ("domain_id", "pattern")
    with pytest.raises(Duplicate) as caught:
        records.apply([Insert(ALIASES, alias | {"id": an_id(2), "pattern": "other"})])
    assert caught.value.fields == ("reference",)


def test_a_duplicate_is_told_without_what_it_was(records: RecordStore) -> None:
    alias = a_row(ALIASES, 1) | {"pattern": "private-name"}
    records.apply([Insert(ALIASES, alias)])
    with pytest.raises(Duplicate) as caught:
        records.apply([Insert(ALIASES, alias | {"id": an_id(2), "reference": "other1"})])
    # As a log of the process has it, with all causes that are shown there.
    assert "private-name" not in "".join(traceback.format_exception(caught.value))


def test_an_update_can_be_a_duplicate_too(records: RecordStore) -> None:
    insert_accounts(records, [1, 2])
    with pytest.raises(Duplicate) as caught:
        records.apply([Update(ACCOUNTS, {"id": an_id(2)}, {"email": "email 1"})])
    assert caught.value.fields == ("email",)


def test_changes_count_the_rows_that_they_touch(records: RecordStore) -> None:
    insert_accounts(records, range(5))
    assert records.apply(
        [
            Update(ACCOUNTS, {"id": an_id(77)}, {"plan": "premium"}),
            Update(ACCOUNTS, {"email_verified": True}, {"plan": "premium", "password_hash": None}),
            Raise("routing"),
            Delete(ACCOUNTS, {"plan": "premium"}),
            Delete(ACCOUNTS, {}),
        ]
    ) == [0, 2, 1, 2, 3]


def test_an_update_changes_what_it_names_and_nothing_else(records: RecordStore) -> None:
    records.apply([Insert(ALIASES, a_row(ALIASES, 1)), Insert(ALIASES, a_row(ALIASES, 2))])
    changes = {"targets": ["a@b.example"], "enabled": False, "expires_at": None}
    records.apply([Update(ALIASES, {"id": an_id(1)}, changes)])
    assert records.find(ALIASES, {}) == [a_row(ALIASES, 1) | changes, a_row(ALIASES, 2)]


def test_sealed_fields_can_be_changed_and_are_found_by_the_new_value(records: RecordStore) -> None:
    insert_events(records, an_event(1), an_event(2))
    changes = {"sender": "new@sender.example", "subject": None, "code": 251}
    assert records.apply([Update(EVENTS, {"id": an_id(1)}, changes)]) == [1]
    found = records.find(EVENTS, {"sender": "new@sender.example"})
    assert found == [dict(event_to_row(an_event(1))) | changes]
    assert ids(records.find(EVENTS, {"sender": "stranger@sender.example"})) == [an_id(2)]


def test_the_key_of_a_row_never_changes(records: RecordStore) -> None:
    insert_accounts(records, [1])
    with pytest.raises(RowRefused, match=r"accounts\.id: is part of the key"):
        records.apply([Update(ACCOUNTS, {}, {"id": an_id(2)})])


def test_an_update_of_nothing_is_refused(records: RecordStore) -> None:
    with pytest.raises(RowRefused):
        records.apply([Update(ACCOUNTS, {}, {})])


def test_no_changes_are_no_changes(records: RecordStore) -> None:
    assert records.apply([]) == []


# ------------------------------------------------------------------ finding


def test_rows_are_found_in_the_order_of_their_key_and_page_by_page(records: RecordStore) -> None:
    insert_accounts(records, [4, 2, 5, 1, 3])
    pages, after = [], None
    while rows := records.find(ACCOUNTS, {}, Page(after=after, limit=2)):
        pages.append(ids(rows))
        after = str(rows[-1]["id"])
    assert pages == [[an_id(1), an_id(2)], [an_id(3), an_id(4)], [an_id(5)]]


def test_the_newest_first(records: RecordStore) -> None:
    insert_accounts(records, range(1, 6))
    newest = records.find(ACCOUNTS, {}, Page(limit=2, newest_first=True))
    assert ids(newest) == [an_id(5), an_id(4)]
    older = records.find(ACCOUNTS, {}, Page(after=an_id(4), limit=2, newest_first=True))
    assert ids(older) == [an_id(3), an_id(2)]


def test_every_condition_has_to_hold(records: RecordStore) -> None:
    records.apply(
        [
            Insert(DOMAINS, a_row(DOMAINS, number) | {"account_id": f"account {number % 2}", "verified": number > 2})
            for number in range(1, 5)
        ]
    )
    assert ids(records.find(DOMAINS, {"account_id": "account 1"})) == [an_id(1), an_id(3)]
    assert ids(records.find(DOMAINS, {"account_id": "account 1", "verified": True})) == [an_id(3)]
    assert records.get(DOMAINS, {"account_id": "account 1", "verified": True, "name": "name 1"}) is None
    assert records.count(DOMAINS, {"verified": False}) == 2
    assert records.count(DOMAINS, {}) == 4


def test_none_asks_for_what_is_absent(records: RecordStore) -> None:
    records.apply(
        [Insert(ALIASES, a_row(ALIASES, 1)), Insert(ALIASES, a_row(ALIASES, 2) | {"expires_at": None})],
    )
    assert ids(records.find(ALIASES, {"expires_at": None})) == [an_id(2)]


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        (Range(since=2), [2, 3, 4]),
        (Range(until=3), [1, 2]),
        (Range(after=2), [3, 4]),
        (Range(since=2, until=4), [2, 3]),
        (Range(after=2, until=4), [3]),
        (Range(), [1, 2, 3, 4]),
        (Range(since=5), []),
    ],
)
def test_ranges(records: RecordStore, condition: Range, found: list[int]) -> None:
    insert_accounts(records, range(1, 5))
    assert ids(records.find(ACCOUNTS, {"created_at": condition})) == [an_id(number) for number in found]


def test_ranges_of_ids(records: RecordStore) -> None:
    insert_accounts(records, range(1, 5))
    assert ids(records.find(ACCOUNTS, {"id": Range(after=an_id(2))})) == [an_id(3), an_id(4)]


def test_any_of_several_values(records: RecordStore) -> None:
    records.apply(
        [Insert(ALIASES, a_row(ALIASES, number) | {"description": None if number == 3 else f"{number}"})
         for number in range(1, 5)]
    )  # fmt: skip
    assert ids(records.find(ALIASES, {"id": AnyOf((an_id(1), an_id(3), an_id(9)))})) == [an_id(1), an_id(3)]
    assert ids(records.find(ALIASES, {"description": AnyOf(("4", None))})) == [an_id(3), an_id(4)]
    assert records.find(ALIASES, {"id": AnyOf(())}) == []


def test_a_sealed_field_is_found_by_its_keyed_twin_whatever_the_case(records: RecordStore) -> None:
    insert_events(records, an_event(1, sender="Ann@Sender.example"), an_event(2), an_event(3, sender=""))
    assert ids(records.find(EVENTS, {"sender": "ann@sender.EXAMPLE"})) == [an_id(1)]
    assert ids(records.find(EVENTS, {"sender": ""})) == [an_id(3)]
    assert records.count(EVENTS, {"recipient": "alias@hosted.example"}) == 3
    assert records.count(EVENTS, {"recipient": "stranger@sender.example"}) == 0
    assert records.find(EVENTS, {"sender": None}) == []


def test_the_different_values_of_a_field_are_found_in_order_and_page_by_page(records: RecordStore) -> None:
    numbers = [3, 1, 2, 3, 1, 3]
    insert_events(records, *(an_event(each, message_id=an_id(number)) for each, number in enumerate(numbers, start=1)))
    insert_events(records, an_event(9, message_id=an_id(4), domain_id="elsewhere"))
    here = {"domain_id": an_id(900)}
    assert records.distinct(EVENTS, "message_id", here) == [an_id(1), an_id(2), an_id(3)]
    newest = records.distinct(EVENTS, "message_id", here, Page(limit=2, newest_first=True))
    assert newest == [an_id(3), an_id(2)]
    older = records.distinct(EVENTS, "message_id", here, Page(after=an_id(2), limit=2, newest_first=True))
    assert older == [an_id(1)]
    assert records.distinct(EVENTS, "message_id", here, Page(after=an_id(1))) == [an_id(2), an_id(3)]
    assert records.distinct(EVENTS, "message_id", {"domain_id": "nowhere"}) == []
    for refused in ("sender", "body"):
        with pytest.raises(RowRefused):
            records.distinct(EVENTS, refused, here)


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ({"subject": "Quarterly figures"}, "events.subject: is sealed and has no keyed field"),
        ({"sender": AnyOf(("a", "b"))}, "events.sender: is sealed"),
        ({"sender": Range(since="a")}, "events.sender: is sealed"),
        ({"sender_key": b"0123456789abcdef"}, "events.sender_key: is made here"),
        ({"body": "x"}, "events.body: is not declared"),
        ({"at": "today"}, "events.at: "),
        ({"at": Range(since="today")}, "events.at: "),
        ({"code": AnyOf((True,))}, "events.code: "),
    ],
)
def test_conditions_that_cannot_be_asked_are_refused(
    records: RecordStore, where: dict[str, object], reason: str
) -> None:
    for ask in (records.find, records.get, records.count):
        with pytest.raises(RowRefused, match=f"^{reason}"):
            ask(EVENTS, where)
    with pytest.raises(RowRefused, match=f"^{reason}"):
        records.apply([Delete(EVENTS, where)])


def test_a_list_cannot_be_asked_for(records: RecordStore) -> None:
    with pytest.raises(RowRefused, match=r"aliases\.targets: is a list"):
        records.find(ALIASES, {"targets": ["a@b.example"]})


def test_only_declared_collections_of_this_store_exist(records: RecordStore) -> None:
    with pytest.raises(RowRefused):
        records.find(DELIVERIES, {})
    other = Collection("accounts", Store.RECORDS, "the name of another", ACCOUNTS.fields[:1])
    with pytest.raises(RowRefused):
        records.find(other, {})


# ------------------------------------------------------------------ keys


def test_without_a_key_what_is_clear_works_and_what_is_sealed_says_which_key(backend: Backend) -> None:
    insert_events(backend.records(), an_event(1))
    records = backend.records(keyring={})
    insert_accounts(records, [1])
    assert records.count(ACCOUNTS, {}) == 1
    assert records.count(EVENTS, {"at": NOON}) == 1
    for ask in (
        lambda: records.find(EVENTS, {}),
        lambda: records.count(EVENTS, {"sender": "x"}),
        lambda: records.apply([Insert(EVENTS, event_to_row(an_event(2)))]),
        lambda: records.apply([Update(EVENTS, {}, {"subject": None})]),
    ):
        with pytest.raises(KeyMissing, match="events is sealed under the key 'log'"):
            ask()
    # Erasing needs no key.
    assert records.apply([Delete(EVENTS, {"at": NOON})]) == [1]


def test_under_another_key_a_sealed_row_is_not_opened(backend: Backend) -> None:
    insert_events(backend.records(), an_event(1))
    records = backend.records(keyring=a_keyring(seed=2))
    with pytest.raises(StoreUnavailable, match="a row of events can't be opened"):
        records.find(EVENTS, {})
    assert records.count(EVENTS, {"sender": "stranger@sender.example"}) == 0


# ------------------------------------------------------------------ generations, moving, sweeping


def test_a_generation_begins_at_zero_and_is_raised_by_one(records: RecordStore) -> None:
    assert records.generation("routing") == 0
    records.apply([Raise("routing")])
    records.apply([Raise("routing"), Raise("other"), Raise("routing")])
    assert (records.generation("routing"), records.generation("other")) == (3, 1)
    assert records.get(GENERATIONS, {"id": "routing"}) == {"id": "routing", "value": 3}


def test_everyone_sees_a_generation_raised(backend: Backend) -> None:
    ours, theirs = backend.records(), backend.records()
    assert theirs.generation("routing") == 0
    ours.apply([Raise("routing"), Insert(ACCOUNTS, a_row(ACCOUNTS, 1))])
    assert theirs.generation("routing") == 1
    assert theirs.count(ACCOUNTS, {}) == 1


def test_threads_take_turns(records: RecordStore) -> None:
    failures: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for number in range(first, first + 20):
                records.apply([Insert(ACCOUNTS, a_row(ACCOUNTS, number)), Raise("routing")])
                assert records.get(ACCOUNTS, {"id": an_id(number)}) == a_row(ACCOUNTS, number)
        except BaseException as error:  # noqa: BLE001 - told to the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in (100, 200, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert (records.count(ACCOUNTS, {}), records.generation("routing")) == (60, 60)


def test_threads_that_change_different_sealed_fields_of_a_row_lose_nothing(records: RecordStore) -> None:
    insert_events(records, an_event(1))
    failures: list[object] = []

    def change(field: str) -> None:
        for number in range(40):
            written = f"{number}@{field}.example"
            records.apply([Update(EVENTS, {"id": an_id(1)}, {field: written})])
            row = records.get(EVENTS, {"id": an_id(1)})
            if row is None or row[field] != written:
                failures.append((row, written))

    threads = [threading.Thread(target=change, args=(field,)) for field in ("sender", "recipient")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_events_move_from_the_outbox_as_they_stand_and_only_once(backend: Backend) -> None:
    spool = backend.spool()
    events = [an_event(1), an_event(2, type=EventType.REFUSED, client_name=None)]
    spool.apply([Record(events)])
    # Moving needs no key.
    mover = backend.records(keyring={})
    mover.import_stored(EVENTS, spool.outbox(10))
    mover.import_stored(EVENTS, spool.outbox(1))
    mover.import_stored(EVENTS, [])
    records = backend.records()
    assert [row_to_event(row) for row in records.find(EVENTS, {})] == events
    assert records.count(EVENTS, {"sender": "stranger@sender.example"}) == 2


def test_only_whole_stored_rows_are_taken_over(backend: Backend) -> None:
    spool, records = backend.spool(), backend.records()
    spool.apply([Record([an_event(1)])])
    (row,) = spool.outbox(1)
    with pytest.raises(RowRefused, match="sealed"):
        records.import_stored(EVENTS, [{name: value for name, value in row.items() if name != "sealed"}])
    with pytest.raises(RowRefused, match="body"):
        records.import_stored(EVENTS, [{**row, "body": b"x"}])
    assert records.count(EVENTS, {}) == 0


def test_a_stored_row_that_cannot_be_taken_over_is_not_passed_over(records: RecordStore) -> None:
    records.apply([Insert(ALIASES, a_row(ALIASES, 1))])
    (row,) = records.stored(ALIASES)
    # The same key is the same row; the same reference under another key is two rows for one.
    records.import_stored(ALIASES, [row])
    with pytest.raises(Duplicate) as caught:
        records.import_stored(ALIASES, [{**row, "id": an_id(2), "pattern": "other"}])
    assert caught.value.fields == ("reference",)
    assert records.count(ALIASES, {}) == 1


def test_a_sweep_erases_what_is_older_and_of_the_right_kind(records: RecordStore) -> None:
    insert_events(
        records,
        an_event(1, at=NOON - 1),
        an_event(2, at=NOON),
        an_event(3, at=NOON - 1, type=EventType.DELIVERED),
        an_event(4, at=NOON - 1, type=EventType.REFUSED),
    )
    deliveries, errors = EVENTS.retention
    assert records.sweep(EVENTS, deliveries, NOON) == 2
    assert ids(records.find(EVENTS, {})) == [an_id(2), an_id(4)]
    assert records.sweep(EVENTS, errors, NOON) == 1
    assert records.sweep(EVENTS, errors, NOON) == 0
    assert records.sweep(EVENTS, Retention("1d", since="at"), NOON + 1) == 1


def test_a_sweep_erases_any_number_of_rows(records: RecordStore) -> None:
    records.apply([Insert(ACCOUNTS, a_row(ACCOUNTS, number)) for number in range(4001)])
    assert records.sweep(ACCOUNTS, Retention("1d", since="created_at"), 4000) == 4000
    assert records.count(ACCOUNTS, {}) == 1


def test_rows_whose_owner_is_not_there_are_erased(records: RecordStore) -> None:
    for number in (1, 3):
        records.apply([Insert(DOMAINS, a_row(DOMAINS, number))])
    for number in range(1, 5):
        insert_events(
            records, an_event(number, domain_id=an_id(number)), an_event(10 + number, domain_id=an_id(number))
        )
    assert records.erase_ownerless(EVENTS) == 4
    assert ids(records.find(EVENTS, {})) == [an_id(number) for number in (1, 3, 11, 13)]
    assert records.erase_ownerless(EVENTS) == 0


def test_a_row_that_names_no_owner_stays(records: RecordStore) -> None:
    named, unnamed = a_row(HTTP_REQUESTS, 1), a_row(HTTP_REQUESTS, 2) | {"account_id": None}
    records.apply([Insert(HTTP_REQUESTS, named), Insert(HTTP_REQUESTS, unnamed)])
    assert records.erase_ownerless(HTTP_REQUESTS) == 1
    assert ids(records.find(HTTP_REQUESTS, {})) == [an_id(2)]


def test_any_number_of_rows_without_an_owner_is_erased(records: RecordStore) -> None:
    insert_events(records, *(an_event(number, domain_id=an_id(number % 3)) for number in range(5000)))
    assert records.erase_ownerless(EVENTS) == 5000


def test_what_owns_itself_or_belongs_to_nobody_has_no_owner_to_miss(records: RecordStore) -> None:
    records.apply([Insert(ACCOUNTS, a_row(ACCOUNTS, 1)), Raise("routing")])
    assert [records.erase_ownerless(each) for each in (ACCOUNTS, GENERATIONS, EVENTS)] == [0, 0, 0]
    assert records.count(ACCOUNTS, {}) == 1


def test_a_closed_store_says_so(records: RecordStore) -> None:
    records.close()
    records.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        records.generation("routing")
    with pytest.raises(StoreUnavailable, match="closed"):
        records.apply([Raise("routing")])
