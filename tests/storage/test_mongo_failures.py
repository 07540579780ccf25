"""A MongoDB that is away, silent, full or not in charge: said within a bound, and over when it is over."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from interrupted_batch import BATCH, BEFORE, continued, rows, stopped_before
from mongod import Mongod, running_mongod
from peer_programs import free_port
from pymongo.errors import AutoReconnect
from storage_backends import MongoBackend
from stored_values import a_row, an_id
from supervised import until

from appliance.privacy.declarations import ACCOUNTS
from appliance.storage.mongo_database import OPERATION_MS
from appliance.storage.mongo_records import MongoRecords
from appliance.storage.records import Damaged, Delete, Insert, Raise, StoreFull, StoreUnavailable, Update

BOUND_S = OPERATION_MS / 1000 + 2
"""An answer comes within this, whatever the server does. The two seconds are for a machine that is busy with tests."""

RECOVERED_S = 10.0
"""Within so long after the server is back, so is the store."""

FULL, CORRUPT, UNAUTHORIZED, NOT_PRIMARY, LOCK_TIMEOUT = 14031, 285, 13, 10107, 24


@pytest.fixture(params=[False, True], ids=["standalone", "replica set"])
def server(request: pytest.FixtureRequest) -> Iterator[Mongod]:
    """A server that may be broken. What is old stays: no TTL index acts."""
    with running_mongod(replica_set=request.param, parameters=["ttlMonitorEnabled=false"]) as server:
        yield server


@pytest.fixture
def place(server: Mongod) -> Iterator[MongoBackend]:
    place = MongoBackend(server)
    yield place
    place.close()


@pytest.fixture
def records(place: MongoBackend) -> MongoRecords:
    """With one account."""
    records = place.records()
    records.apply([Insert(ACCOUNTS, a_row(ACCOUNTS, 1))])
    return records


ALONE = pytest.mark.parametrize("server", [False], indirect=True, ids=["standalone"])


def asked_all_at_once(records: MongoRecords) -> list[Exception | None]:
    """What comes of each kind of question, asked at the same time; and that none is without an answer for long."""
    asked: list[Callable[[], object]] = [
        lambda: records.generation("routing"),
        lambda: records.find(ACCOUNTS, {"plan": "x"}),
        lambda: records.apply([Raise("routing")]),
        lambda: records.apply([Insert(ACCOUNTS, a_row(ACCOUNTS, 2)), Raise("routing")]),
        lambda: records.sweep(ACCOUNTS, ACCOUNTS.retention[0], 0),
    ]
    outcomes: list[Exception | None] = [None] * len(asked)

    def ask(number: int) -> None:
        try:
            asked[number]()
        except Exception as error:  # noqa: BLE001 - told to the main thread
            outcomes[number] = error

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(asked))]
    deadline = time.monotonic() + BOUND_S
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
        assert not thread.is_alive(), "a question is still without an answer"
    return outcomes


@contextmanager
def back_within_the_bound(records: MongoRecords) -> Iterator[None]:
    """When the block is left, the store is of use again."""
    yield
    began = time.monotonic()

    def works() -> bool:
        try:
            return records.apply([Update(ACCOUNTS, {"id": an_id(1)}, {"plan": "premium"})]) == [1]
        except StoreUnavailable:
            return False

    until(works, "the store is of use again")
    assert time.monotonic() - began < RECOVERED_S


def test_a_server_that_does_not_answer(server: Mongod, records: MongoRecords) -> None:
    with back_within_the_bound(records):
        server.freeze()
        outcomes = asked_all_at_once(records)
        server.thaw()
    assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)


def test_a_server_that_is_killed_and_started_again(server: Mongod, place: MongoBackend, records: MongoRecords) -> None:
    with back_within_the_bound(records):
        server.kill()
        outcomes = asked_all_at_once(records)
        server.start()
    assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
    # What was said to be written was on the disk.
    assert place.records().count(ACCOUNTS, {"id": an_id(1)}) == 1


@ALONE
def test_what_is_said_to_be_written_is_there_after_a_kill_in_the_same_moment(
    server: Mongod, place: MongoBackend
) -> None:
    # What is in the server's memory is there for as long as this, where nobody asks for more.
    server.options = ("--journalCommitInterval", "500")
    server.stop()
    server.start()
    for number in (1, 2, 3):
        records = place.records()
        records.apply([Insert(ACCOUNTS, a_row(ACCOUNTS, number))])
        server.kill()
        server.start()
        assert place.records().count(ACCOUNTS, {}) == number


def test_what_a_majority_does_not_have_is_not_said_to_be_written() -> None:
    with running_mongod(replica_set=True) as server:
        place = MongoBackend(server)
        records = place.records()
        with server.client() as client:
            config = client.admin.command("replSetGetConfig")["config"]
            # Another member that nobody has ever seen; and no election, however long it is away.
            config["members"].append({"_id": 1, "host": f"127.0.0.1:{free_port()}", "priority": 0})
            config["settings"]["electionTimeoutMillis"] = 600_000
            config["version"] += 1
            client.admin.command("replSetReconfig", config, force=True)
        with pytest.raises(StoreUnavailable, match="it does not answer in time"):
            records.apply([Insert(ACCOUNTS, a_row(ACCOUNTS, 1))])
        records.close()


@ALONE
def test_a_server_that_is_stopped_and_started_again(server: Mongod, records: MongoRecords) -> None:
    with back_within_the_bound(records):
        server.stop()
        server.start()


@ALONE
def test_a_store_is_not_opened_on_a_server_that_is_away(server: Mongod, place: MongoBackend) -> None:
    server.kill()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="no server that takes writes can be reached"):
        place.records()
    assert time.monotonic() - began < BOUND_S
    server.start()
    assert place.records().count(ACCOUNTS, {}) == 0


@ALONE
@pytest.mark.parametrize(("step", "decided"), [(6, False), (12, True)])
def test_a_server_that_dies_in_the_middle_of_a_batch(
    server: Mongod, place: MongoBackend, step: int, decided: bool
) -> None:
    records = place.records()
    records.apply(BEFORE)
    nothing = rows(records)
    with stopped_before(step, place.url) as process:
        server.kill()
        assert continued(process).startswith("unavailable")
    server.start()
    found = rows(place.records(abandoned_ms=0))
    if not decided:
        assert found == nothing
        return
    assert len(found["accounts"]) == len(nothing["accounts"]) + 1
    assert found["domains"][0]["log_level"] == "all"
    assert all(each["domain_id"] != "domain_id 1" for each in found["aliases"])


def test_a_primary_that_steps_down() -> None:
    with running_mongod(replica_set=True) as server:
        place = MongoBackend(server)
        records = place.records()
        records.apply([Insert(ACCOUNTS, a_row(ACCOUNTS, 1))])
        with back_within_the_bound(records), server.client() as client:
            try:
                client.admin.command("replSetStepDown", 1, force=True)
            except AutoReconnect:
                pass
        place.close()


# ------------------------------------------------------------------ a server that refuses


@pytest.fixture
def refused(mongod: Mongod) -> Iterator[MongoBackend]:
    place = MongoBackend(mongod)
    place.records().apply(BEFORE)
    yield place
    place.close()


@pytest.mark.parametrize(
    ("code", "meaning", "told"),
    [
        (FULL, StoreFull, "the disk is full"),
        (CORRUPT, Damaged, "what is stored there is damaged"),
        (UNAUTHORIZED, StoreUnavailable, "may not do this"),
        (NOT_PRIMARY, StoreUnavailable, "no server that takes writes"),
        (LOCK_TIMEOUT, StoreUnavailable, "the server says LockTimeout"),
    ],
)
def test_a_server_that_refuses_writes(refused: MongoBackend, code: int, meaning: type[Exception], told: str) -> None:
    records = refused.records()
    before = rows(records)
    with refused.server.failing(["insert", "update", "delete"], errorCode=code, appName="onward"):
        for change in (
            Insert(ACCOUNTS, a_row(ACCOUNTS, 7)),
            Update(ACCOUNTS, {"id": an_id(1)}, {"plan": "x"}),
            Delete(ACCOUNTS, {"id": an_id(1)}),
            Raise("routing"),
        ):
            with pytest.raises(meaning, match=told):
                records.apply([change])
        with pytest.raises(meaning, match=told):
            records.apply(BATCH)
        # What is there can be read.
        assert rows(records) == before
    assert records.apply(BATCH)[0] > 0


def test_a_server_that_does_not_get_its_writes_to_the_disk(refused: MongoBackend) -> None:
    records = refused.records()
    with refused.server.client() as client:
        client.admin.command("fsync", lock=True)
        began = time.monotonic()
        try:
            with pytest.raises(StoreUnavailable, match="it does not answer in time"):
                records.apply([Insert(ACCOUNTS, a_row(ACCOUNTS, 7))])
            assert time.monotonic() - began < BOUND_S
            assert records.count(ACCOUNTS, {}) == 3
        finally:
            client.admin.command("fsyncUnlock")
    assert records.apply([Raise("routing")]) == [1]


def test_a_write_that_is_not_acknowledged_by_a_majority_has_not_succeeded(refused: MongoBackend) -> None:
    records = refused.records()
    concern = {"code": 64, "errmsg": "waiting for replication timed out", "codeName": "WriteConcernFailed"}
    with (
        refused.server.failing(["insert"], writeConcernError=concern, appName="onward"),
        pytest.raises(StoreUnavailable, match="it does not answer in time"),
    ):
        records.apply([Insert(ACCOUNTS, a_row(ACCOUNTS, 7))])
