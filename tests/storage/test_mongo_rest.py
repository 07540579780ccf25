"""A MongoDB that is silent: one waits for all, the others are told at once, and nobody misses it once it is back."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from appliance_process import eventually
from mongod import Mongod, running_mongod
from storage_backends import MongoBackend
from stored_values import NOON, a_delivery

from appliance.privacy.declarations import ACCOUNTS
from appliance.storage import mongo_database
from appliance.storage.mongo_errors import NoAnswer, NotAsked
from appliance.storage.mongo_records import MongoRecords
from appliance.storage.mongo_rest import HESITATION_S
from appliance.storage.mongo_spool import MongoSpool
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import Accept

PATIENCE_MS = 800
"""What is several seconds elsewhere."""

AT_ONCE_S = 0.3
"""An answer that needs no server, on a machine that is busy."""

LIMIT_S = 10.0


@pytest.fixture(scope="module")
def server() -> Iterator[Mongod]:
    """One that is stopped."""
    with running_mongod() as running:
        yield running


@pytest.fixture
def place(server: Mongod, monkeypatch: pytest.MonkeyPatch) -> Iterator[MongoBackend]:
    """Stores in it do not wait for long."""
    place = MongoBackend(server)
    place.records()
    place.spool().close()
    for limit in ("CONNECT_MS", "SELECTION_MS", "OPERATION_MS"):
        monkeypatch.setattr(mongo_database, limit, PATIENCE_MS)
    yield place
    server.thaw()
    place.close()


@pytest.fixture
def records(place: MongoBackend) -> MongoRecords:
    return place.records()


@pytest.fixture
def spool(place: MongoBackend) -> MongoSpool:
    return place.spool()


def refused_after_s(records: MongoRecords) -> float:
    """How long it takes until somebody who asks is told that there is no answer."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        records.count(ACCOUNTS, {})
    return time.monotonic() - began


def freeze(server: Mongod, ask: Callable[[], object]) -> None:
    """Stop the server; returns when somebody has asked in vain."""

    def is_silent() -> bool:
        try:
            ask()
        except NoAnswer:
            return True
        return False

    server.freeze()
    # On a busy machine it may be some milliseconds until all its threads stand still.
    eventually(is_silent, LIMIT_S)


def answers(records: MongoRecords) -> bool:
    try:
        return records.count(ACCOUNTS, {}) == 0
    except StoreUnavailable:
        return False


def test_who_comes_behind_one_that_waited_in_vain_is_told_at_once(server: Mongod, records: MongoRecords) -> None:
    freeze(server, lambda: records.count(ACCOUNTS, {}))
    assert refused_after_s(records) <= HESITATION_S + AT_ONCE_S
    for _ in range(20):
        with pytest.raises(NotAsked):
            records.count(ACCOUNTS, {})
    assert refused_after_s(records) < AT_ONCE_S


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_server_that_is_back_is_back_for_all_in_the_same_moment(
    server: Mongod, records: MongoRecords, how: str
) -> None:
    if how == "stopped":
        freeze(server, lambda: records.count(ACCOUNTS, {}))
        server.thaw()
    else:
        server.kill()
        refused_after_s(records)
        server.start()
    began = time.monotonic()
    eventually(lambda: answers(records), LIMIT_S)
    assert time.monotonic() - began < 2 * PATIENCE_MS / 1000
    with ThreadPoolExecutor(8) as at_once:
        assert all(at_once.map(lambda _: answers(records), range(32)))


def test_one_question_that_is_too_much_keeps_nobody_else_out(server: Mongod, place: MongoBackend) -> None:
    records = place.records()
    held = {"blockConnection": True, "blockTimeMS": 4 * PATIENCE_MS, "appName": "onward"}
    with server.failing(["aggregate"], times=1, **held):
        with pytest.raises(NoAnswer):
            records.count(ACCOUNTS, {})
        assert records.find(ACCOUNTS, {"plan": "free"}) == []


def test_a_lease_is_not_lost_for_a_renewal_that_nobody_tried(server: Mongod, spool: MongoSpool) -> None:
    spool.apply([Accept([a_delivery(1)])])
    assert len(spool.claim(NOON, 1)) == 1
    freeze(server, spool.depth)
    time.sleep(HESITATION_S)
    with pytest.raises(NotAsked):
        spool.depth()
    going_on = threading.Timer(PATIENCE_MS / 4000, server.thaw)
    going_on.start()
    assert spool.renew() == []
    going_on.join()


def test_a_spool_says_that_its_server_is_away_and_that_it_is_back(server: Mongod, spool: MongoSpool) -> None:
    assert spool.degraded is None
    freeze(server, spool.depth)
    assert "does not answer" in eventually(lambda: spool.degraded, LIMIT_S)
    server.thaw()
    eventually(lambda: spool.degraded is None, LIMIT_S)
