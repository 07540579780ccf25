"""A database of MongoDB holds the declared collections and nothing else, and the server itself sees to that."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mongod import Mongod, running_mongod
from pymongo.database import Database
from pymongo.errors import OperationFailure
from storage_backends import MongoBackend
from stored_values import NOON, a_row, an_event, an_id
from supervised import until

from appliance.privacy.declarations import (
    ACCOUNTS,
    ALIASES,
    CONTENT,
    DOMAINS,
    EVENTS,
    MAILED_TOKENS,
    Collection,
    Field,
    Kind,
    Protection,
    Retention,
    Store,
    collections_of,
)
from appliance.storage import mongo_database
from appliance.storage.codec import stored_columns
from appliance.storage.event_rows import event_to_row
from appliance.storage.mongo_database import MongoDatabase
from appliance.storage.mongo_documents import BROOM_WAITS_MS, Document, Index, shape_of
from appliance.storage.mongo_errors import NotDeclared
from appliance.storage.records import Insert, SchemaMismatch, StoreUnavailable, Update

NOTES = Collection(
    "notes",
    Store.RECORDS,
    "for these tests",
    (Field("id"), Field("size", Kind.INTEGER), Field("name", optional=True), Field("open", Kind.BOOLEAN)),
    unique=(("name",),),
    indexes=(("size", "name"),),
)

LONG_AGO, RECENTLY = 1_000, 1 << 45
"""An instant that every retention is behind, and one that none reaches in the lifetime of this test."""


def changed(**changes: object) -> Collection:
    parts = {"name": NOTES.name, "store": NOTES.store, "purpose": NOTES.purpose, "fields": NOTES.fields}
    return Collection(**(parts | changes))  # type: ignore[arg-type]


@pytest.fixture
def url(mongod: Mongod, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database with a collection of notes, and one note in it."""
    name = f"notes-{abs(hash(request.node.name)) % 10**12}"
    open_(mongod.url_of(name), NOTES)
    with mongod.client() as client:
        client[name]["notes"].insert_one({"_id": "a", "size": 1, "name": "one", "open": True})
        yield mongod.url_of(name)
        client.drop_database(name)


@pytest.fixture
def raw(mongod: Mongod, url: str) -> Iterator[Database[Document]]:
    """The same with nothing of ours in between."""
    with mongod.client() as client:
        yield client[url.rpartition("/")[2]]


def open_(url: str, *collections: Collection, **options: Any) -> None:
    MongoDatabase(url, [shape_of(each) for each in collections], **options).close()


def test_the_server_keeps_what_is_declared_and_nothing_else(mongod: Mongod) -> None:
    place = MongoBackend(mongod)
    place.records()
    with mongod.client() as client:
        database = client[place.database]
        entries = {entry["name"]: entry["options"] for entry in database.list_collections()}
        for collection in collections_of(Store.RECORDS, shared=True):
            options = entries[collection.name]
            assert (options["validationLevel"], options["validationAction"]) == ("strict", "error")
            schema = options["validator"]["$jsonSchema"]
            assert schema["additionalProperties"] is False
            dates = {f"{each.since}_date" for each in collection.retention if "." not in each.setting}
            own = {name for name in stored_columns(collection) if name not in collection.key}
            assert set(schema["properties"]) == own | dates | {"_id", "batch"}
        with pytest.raises(OperationFailure, match="failed validation"):
            database["accounts"].insert_one({"_id": an_id(1), "body": "of a message"})
    place.close()


def test_what_the_server_refuses_is_told_without_what_it_was(url: str) -> None:
    database = MongoDatabase(url, [shape_of(NOTES)])
    with (
        pytest.raises(NotDeclared, match="a document of notes is not as declared") as caught,
        database.translated(NOTES),
    ):
        database["notes"].insert_one({"_id": "b", "size": 1, "open": True, "body": "private"})
    assert "private" not in repr(caught.value)
    assert caught.value.__cause__ is None
    database.close()


def test_a_key_of_several_fields_is_one_identity() -> None:
    assert shape_of(CONTENT).fields["_id"]["required"] == ["message_id", "part"]
    assert "part" not in shape_of(CONTENT).fields


def test_what_is_there_stays_when_the_declarations_are_the_same(url: str, raw: Database[Document]) -> None:
    before = list(raw.list_collections()), raw["notes"].index_information()
    open_(url, NOTES)
    assert (list(raw.list_collections()), raw["notes"].index_information()) == before
    assert raw["notes"].count_documents({}) == 1
    assert raw["schema"].find_one() == {"_id": "onward", "version": len(mongo_database.MIGRATIONS) + 1}


def test_an_optional_field_that_is_new_is_allowed_from_then_on(url: str, raw: Database[Document]) -> None:
    open_(url, changed(fields=(*NOTES.fields, Field("colour", optional=True)), indexes=(("colour",),)))
    raw["notes"].insert_one({"_id": "b", "size": 2, "open": False, "colour": "red"})
    # An index is a second copy of what it is made of: one that is not declared any more goes.
    assert set(raw["notes"].index_information()) == {"_id_", "by_colour"}


def test_an_index_that_somebody_has_changed_is_made_anew(url: str, raw: Database[Document]) -> None:
    raw["notes"].drop_index("one_per_name")
    raw["notes"].create_index([("name", 1)], name="one_per_name")
    open_(url, NOTES)
    assert raw["notes"].index_information()["one_per_name"]["unique"]


def test_a_validator_that_somebody_has_loosened_is_put_back(url: str, raw: Database[Document]) -> None:
    raw.command("collMod", "notes", validationAction="warn")
    open_(url, NOTES)
    with pytest.raises(OperationFailure):
        raw["notes"].insert_one({"_id": "b"})


@pytest.mark.parametrize(
    ("collection", "message"),
    [
        (changed(fields=(*NOTES.fields, Field("colour"))), "notes.colour is missing, and is not optional"),
        (changed(fields=NOTES.fields[:3]), "it has the field notes.open, which is not declared"),
        (
            changed(fields=(*NOTES.fields, Field("text", protection=Protection.SEALED)), sealed_under="log"),
            "notes.sealed is missing",
        ),
        (changed(fields=(*NOTES.fields[:3], Field("open"))), "notes.open stands there otherwise"),
        (changed(fields=(*NOTES.fields[:2], Field("name"), NOTES.fields[3])), "notes.name stands there otherwise"),
        (changed(key=("id", "size")), "notes._id stands there otherwise"),
        (EVENTS, "it has the collection 'notes', which is not declared"),
    ],
)
def test_a_database_that_differs_is_refused_and_left_as_it_was(
    url: str, raw: Database[Document], collection: Collection, message: str
) -> None:
    before = list(raw.list_collections())
    with pytest.raises(SchemaMismatch, match=f"^MongoDB at 127.0.0.1:[0-9]+, database notes-[0-9]+: {message}"):
        open_(url, collection)
    assert list(raw.list_collections()) == before


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda raw: raw.create_collection("bodies"), "it has the collection 'bodies'"),
        (lambda raw: raw.create_collection("senders", viewOn="notes", pipeline=[]), "it has the view 'senders'"),
        (lambda raw: raw["accounts"].insert_one({}) and None, "the collection 'accounts' is there already, and is not"),
    ],
)
def test_nothing_can_be_stored_beside_what_is_declared(
    url: str, raw: Database[Document], spoil: Callable[[Database[Document]], object], message: str
) -> None:
    spoil(raw)
    with pytest.raises(SchemaMismatch, match=message):
        open_(url, NOTES, ACCOUNTS)


def test_several_who_begin_at_once_begin_with_one_database(mongod: Mongod) -> None:
    url, failures = mongod.url_of("at-once"), []

    def begin() -> None:
        try:
            open_(url, *collections_of(Store.RECORDS))
        except BaseException as error:  # noqa: BLE001 - told to the main thread
            failures.append(error)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with mongod.client() as client:
        assert client["at-once"]["schema"].count_documents({}) == 1
        client.drop_database("at-once")
    assert not failures


# ------------------------------------------------------------------ layouts


def test_a_database_of_a_later_layout_is_refused(url: str, raw: Database[Document]) -> None:
    raw["schema"].update_one({}, {"$set": {"version": 2}})
    raw.create_collection("of the future")
    with pytest.raises(
        SchemaMismatch, match=r"written by a later version of Onward \(its layout is 2, this one knows 1\)"
    ):
        open_(url, NOTES)
    assert raw["schema"].find_one() == {"_id": "onward", "version": 2}


def test_a_layout_of_before_is_brought_forward_step_by_step_and_goes_on_where_it_broke_off(
    url: str, raw: Database[Document]
) -> None:
    done: list[int] = []

    def first(database: Database[Document]) -> None:
        done.append(1)
        database["notes"].update_many({"size": 1}, {"$set": {"size": 10}})

    def second(database: Database[Document]) -> None:
        done.append(2)
        database["notes"].insert_one({"_id": f"{len(done)}", "size": 2, "open": False})
        if len(done) == 2:
            raise KeyboardInterrupt
        database["notes"].delete_many({"_id": {"$in": ["2", "3"]}})

    with pytest.raises(KeyboardInterrupt):
        open_(url, NOTES, migrations=[first, second])
    assert raw["schema"].find_one() == {"_id": "onward", "version": 2}
    open_(url, NOTES, migrations=[first, second])
    assert done == [1, 2, 2]
    assert raw["schema"].find_one() == {"_id": "onward", "version": 3}
    assert [each["size"] for each in raw["notes"].find()] == [10]
    # Once is enough, and a new database has nothing to bring forward.
    open_(url, NOTES, migrations=[first, second])
    assert done == [1, 2, 2]


def test_a_server_that_is_too_old_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongo_database, "OLDEST_SERVER", (99, 1))
    with pytest.raises(SchemaMismatch, match=r"the server is MongoDB [0-9.]+, and 99\.1 or later is needed"):
        open_(url, NOTES)


def test_the_clock_is_that_of_the_server(url: str) -> None:
    database = MongoDatabase(url, [shape_of(NOTES)])
    first = database.now()
    assert first > NOON - 1_000_000_000_000
    assert database.now() >= first
    assert database.server_version().startswith("6.")
    database.close()


def test_who_is_not_let_in_is_told_so_without_the_password(url: str) -> None:
    before, _, after = url.partition("//")
    with pytest.raises(StoreUnavailable, match=r"the user in store\.url is not known there") as caught:
        open_(f"{before}//user:hunter2@{after}", NOTES)
    assert "hunter2" not in str(caught.value)


# ------------------------------------------------------------------ indexes


def test_what_is_absent_is_no_duplicate(url: str, raw: Database[Document]) -> None:
    raw["notes"].insert_many([{"_id": name, "size": 1, "open": True} for name in "bc"])
    with pytest.raises(OperationFailure):
        raw["notes"].insert_one({"_id": "d", "name": "one", "size": 1, "open": True})


@pytest.fixture(scope="module")
def full(mongod: Mongod) -> Iterator[Database[Document]]:
    """A database with 3,000 events of 1,000 messages to 30 domains, and 900 aliases of them."""
    place = MongoBackend(mongod)
    records = place.records()
    records.apply(
        [
            Insert(EVENTS, event_to_row(an_event(n, message_id=an_id(n // 3), domain_id=an_id(n // 3 % 30))))
            for n in range(3000)
        ]
    )
    records.apply([Insert(ALIASES, a_row(ALIASES, n) | {"domain_id": an_id(n % 30)}) for n in range(900)])
    records.apply([Insert(DOMAINS, a_row(DOMAINS, n)) for n in range(300)])
    with mongod.client() as client:
        yield client[place.database]
    place.close()


@pytest.mark.parametrize(
    ("collection", "asked", "order", "found", "most"),
    [
        (EVENTS, {"$and": [{"domain_id": {"$in": [an_id(7)]}}, {"_id": {"$gt": an_id(1500)}}]}, "_id", 20, 40),
        (EVENTS, {"domain_id": {"$eq": an_id(7)}, "message_id": {"$lt": an_id(900)}}, "message_id", 20, 40),
        (EVENTS, {"message_id": {"$in": [an_id(7), an_id(900)]}}, "_id", 6, 12),
        (ALIASES, {"domain_id": {"$eq": an_id(7)}, "pattern": {"$eq": "pattern 37"}}, "_id", 1, 2),
        (ALIASES, {"$and": [{}, {"_id": {"$gt": an_id(500)}}]}, "_id", 20, 20),
        (DOMAINS, {"verified_name": {"$eq": "verified_name 7"}}, "_id", 1, 2),
    ],
)
def test_what_is_asked_often_goes_by_index(
    full: Database[Document], collection: Collection, asked: dict[str, Any], order: str, found: int, most: int
) -> None:
    told = full[collection.name].find(asked, sort=[(order, 1)], limit=20).explain()["executionStats"]
    assert told["nReturned"] == found
    assert told["totalKeysExamined"] <= most
    assert told["totalDocsExamined"] <= most


# ------------------------------------------------------------------ the second broom


@pytest.fixture(scope="module")
def sweeping() -> Iterator[Mongod]:
    """A mongod whose TTL indexes act."""
    with running_mongod() as server:
        yield server


def test_the_server_erases_what_nobody_sweeps(sweeping: Mongod) -> None:
    place = MongoBackend(sweeping)
    records = place.records()
    old = a_row(MAILED_TOKENS, 1) | {"purpose": "verify-email", "created_at": LONG_AGO}
    kept = [
        a_row(MAILED_TOKENS, 2) | {"purpose": "verify-email", "created_at": RECENTLY},
        a_row(MAILED_TOKENS, 3) | {"purpose": "of another kind", "created_at": LONG_AGO},
    ]
    verified = a_row(ACCOUNTS, 1) | {"email_verified": True, "created_at": LONG_AGO}
    event = event_to_row(an_event(1, at=LONG_AGO))
    records.apply([Insert(MAILED_TOKENS, row) for row in (old, *kept)])
    # Of what the configuration says how long it is kept, the server knows nothing.
    records.apply([Insert(ACCOUNTS, verified), Insert(EVENTS, event)])
    until(lambda: records.count(MAILED_TOKENS, {}) < 3, "the server has swept")
    assert records.find(MAILED_TOKENS, {}) == kept
    assert records.find(ACCOUNTS, {}) == [verified]
    assert records.count(EVENTS, {}) == 1
    # And what becomes old later goes then.
    records.apply([Update(MAILED_TOKENS, {"id": an_id(2)}, {"created_at": LONG_AGO})])
    until(lambda: records.count(MAILED_TOKENS, {}) == 1, "the server has swept again")
    place.close()


def test_the_broom_waits_for_the_sweeper() -> None:
    (index,) = [
        index
        for index in shape_of(changed(retention=(Retention("30d", since="size"),))).indexes
        if index.erased_after_s is not None
    ]
    assert index == Index("broom_size", ("size_date",), erased_after_s=30 * 86_400 + BROOM_WAITS_MS // 1000)
