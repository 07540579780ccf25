"""A Redis that is away, hangs, comes and goes, is full or is emptied: how long anybody waits, and what holds then."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from appliance_process import eventually
from redis_server import PrivateRedis, Replicated, missing

from appliance.privacy.declarations import FAILED_SIGN_INS, SESSIONS, TRANSIT_DELIVERED
from appliance.storage.records import StoreFull, StoreUnavailable
from appliance.storage.redis_ephemeral import RedisEphemeral
from appliance.storage.redis_server import ANSWER_S, CONNECT_S, MAX_CONNECTIONS, REST_S, RedisServer

AT_ONCE_S = 0.5
"""What needs no waiting takes less, on a machine that does other things as well."""

ONE_WAIT_S = CONNECT_S + ANSWER_S + AT_ONCE_S
"""Nobody waits for longer than this."""

BACK_S = 10
"""Within so many seconds all is well again, without a restart."""

FAILOVER_S = 10
"""What a Sentinel takes at most to find another master, on a machine that does other things as well."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PrivateRedis]:
    """A Redis to be broken."""
    if missing():
        pytest.skip(missing())
    with PrivateRedis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def store(server: PrivateRedis) -> Iterator[RedisEphemeral]:
    store = RedisEphemeral(RedisServer(server.address))
    yield store
    store.close()


@dataclass
class StillClock:
    """Shows what it is told, in seconds."""

    now: float = field(default=100.0)

    def __call__(self) -> float:
        return self.now


def waited(call: Callable[[], object]) -> float:
    """How long somebody waits to hear that the store is away, in seconds."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        call()
    return time.monotonic() - began


def is_back(store: RedisEphemeral, within: float = BACK_S) -> None:
    """Wait until it is."""

    def counts() -> bool:
        try:
            return store.count(FAILED_SIGN_INS, b"anybody") > 0
        except StoreUnavailable:
            return False

    eventually(counts, within, "the store")


def test_a_server_that_is_not_there_yet_is_found_once_it_is(server: PrivateRedis) -> None:
    server.kill()
    store = RedisEphemeral(RedisServer(server.address))
    assert waited(lambda: store.recall(SESSIONS, b"cookie")) < AT_ONCE_S
    assert waited(store.check) < AT_ONCE_S
    server.start()
    is_back(store)
    store.check()
    store.close()


def test_a_server_that_was_started_anew_is_asked_at_once(server: PrivateRedis, store: RedisEphemeral) -> None:
    store.remember(TRANSIT_DELIVERED, b"key")
    server.kill()
    server.start()
    assert store.recall(TRANSIT_DELIVERED, b"key") is None
    store.remember(TRANSIT_DELIVERED, b"key")
    assert store.recall(TRANSIT_DELIVERED, b"key") == b""


def test_a_server_that_hangs_is_waited_for_once_and_then_by_one_for_all(server: PrivateRedis) -> None:
    clock = StillClock()
    store = RedisEphemeral(RedisServer(server.address, monotonic=clock))
    store.count(FAILED_SIGN_INS, b"anybody")
    with server.held():
        assert ANSWER_S <= waited(lambda: store.count(FAILED_SIGN_INS, b"anybody")) < ONE_WAIT_S
        for _ in range(20):
            assert waited(lambda: store.count(FAILED_SIGN_INS, b"anybody")) < AT_ONCE_S
        clock.now += REST_S
        waits: list[float] = []
        start = threading.Barrier(8)

        def ask() -> None:
            start.wait()
            waits.append(waited(lambda: store.recall(SESSIONS, b"cookie")))

        together(ask, 8)
        assert sum(wait >= ANSWER_S for wait in waits) == 1
        assert sum(wait < AT_ONCE_S for wait in waits) == 7
        assert max(waits) < ONE_WAIT_S
    clock.now += REST_S
    assert store.recall(SESSIONS, b"cookie") is None
    store.close()


def test_a_server_that_hangs_and_goes_on_is_back_without_a_restart(server: PrivateRedis, store: RedisEphemeral) -> None:
    with server.held():
        waited(lambda: store.count(FAILED_SIGN_INS, b"anybody"))
    is_back(store)


def test_a_slow_server_is_waited_for(server: PrivateRedis, store: RedisEphemeral) -> None:
    store.remember(TRANSIT_DELIVERED, b"key")
    server.ask("CLIENT", "PAUSE", 300)
    assert store.recall(TRANSIT_DELIVERED, b"key") == b""


def test_a_server_that_comes_and_goes_is_used_whenever_it_is_there(server: PrivateRedis, store: RedisEphemeral) -> None:
    unforeseen: list[Exception] = []
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            try:
                store.count(FAILED_SIGN_INS, b"anybody")
                store.forget(FAILED_SIGN_INS, b"somebody")
            except StoreUnavailable:
                over.wait(0.01)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is none of what a store may raise
                unforeseen.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        server.kill()
        waited_for(store, StoreUnavailable)
        server.start()
        is_back(store)
        server.hold()
        waited_for(store, StoreUnavailable)
        server.let_go()
        is_back(store)
    over.set()
    for thread in threads:
        thread.join()
    assert unforeseen == []


def test_a_server_without_memory_takes_nothing_more_and_gives_what_it_has(
    server: PrivateRedis, store: RedisEphemeral
) -> None:
    store.remember(SESSIONS, b"one", b"sealed", b"account")
    store.remember(SESSIONS, b"two", b"sealed", b"account")
    server.ask("CONFIG", "SET", "maxmemory", 1)
    for attempt in (
        lambda: store.remember(SESSIONS, b"three", b"sealed", b"account"),
        lambda: store.renew(SESSIONS, b"one", b"anew"),
        lambda: store.count(FAILED_SIGN_INS, b"anybody"),
        lambda: store.remember(TRANSIT_DELIVERED, b"key"),
        store.check,
    ):
        began = time.monotonic()
        with pytest.raises(StoreFull):
            attempt()
        assert time.monotonic() - began < AT_ONCE_S
    assert store.recall_group(SESSIONS, b"account") == {b"one": b"sealed", b"two": b"sealed"}
    assert store.counted(FAILED_SIGN_INS, b"anybody") == 0
    assert store.forget(SESSIONS, b"one") == b"sealed"
    server.ask("CONFIG", "SET", "maxmemory", 0)
    store.remember(SESSIONS, b"three", b"sealed", b"account")
    assert list(store.recall_group(SESSIONS, b"account")) == [b"two", b"three"]


def test_emptying_the_server_in_the_middle_of_everything_is_harmless(
    server: PrivateRedis, store: RedisEphemeral
) -> None:
    over = threading.Event()
    done: list[int] = []

    def work() -> None:
        number = 0
        while not over.is_set():
            key = b"%d" % (number % 50)
            store.remember(SESSIONS, key, b"sealed", b"account")
            store.renew(SESSIONS, key, b"anew")
            assert store.recall(SESSIONS, key) in (None, b"sealed", b"anew")
            store.recall_group(SESSIONS, b"account")
            store.forget(SESSIONS, key)
            assert store.count(FAILED_SIGN_INS, b"anybody") >= 1
            number += 1
        done.append(number)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        server.ask("FLUSHALL")
        server.ask("SCRIPT", "FLUSH")
    over.set()
    for thread in threads:
        thread.join()
    assert len(done) == 4
    server.ask("FLUSHALL")
    store.remember(SESSIONS, b"key", b"sealed", b"account")
    assert store.recall_group(SESSIONS, b"account") == {b"key": b"sealed"}


def test_a_server_that_became_a_replica_can_still_be_read(server: PrivateRedis, store: RedisEphemeral) -> None:
    store.remember(SESSIONS, b"cookie", b"sealed", b"account")
    server.ask("REPLICAOF", "127.0.0.1", server.port)
    assert waited(lambda: store.count(FAILED_SIGN_INS, b"anybody")) < AT_ONCE_S
    assert store.recall(SESSIONS, b"cookie") == b"sealed"
    server.ask("REPLICAOF", "NO", "ONE")
    assert store.count(FAILED_SIGN_INS, b"anybody") == 1


def test_many_who_ask_at_once_share_a_few_connections(server: PrivateRedis, store: RedisEphemeral) -> None:
    together(lambda: [store.count(FAILED_SIGN_INS, b"anybody") for _ in range(50)], 3 * MAX_CONNECTIONS)
    assert store.counted(FAILED_SIGN_INS, b"anybody") == 3 * MAX_CONNECTIONS * 50
    # The one that asks is another.
    assert server.ask("INFO", "clients")["connected_clients"] <= MAX_CONNECTIONS + 1


@pytest.mark.parametrize("lost", ["killed", "hung"])
def test_when_the_master_is_lost_the_sentinel_names_another(tmp_path: Path, lost: str) -> None:
    if missing():
        pytest.skip(missing())
    with Replicated(tmp_path) as servers:
        store = RedisEphemeral(RedisServer(servers.address))
        store.remember(SESSIONS, b"cookie", b"sealed", b"account")
        eventually(lambda: servers.second.ask("EXISTS", "onward:sessions:is:cookie"))
        if lost == "killed":
            servers.first.kill()
        else:
            servers.first.hold()
        waited_for(store, StoreUnavailable)
        is_back(store, FAILOVER_S + BACK_S)
        assert store.recall(SESSIONS, b"cookie") == b"sealed"
        assert servers.second.ask("ROLE")[0] == b"master"
        # The old one comes back, believes for a while that it is the master still, and nobody else does.
        if lost == "killed":
            servers.first.start()
        else:
            servers.first.let_go()
        store.remember(SESSIONS, b"another cookie", b"sealed", b"account")
        assert servers.second.ask("EXISTS", "onward:sessions:is:another cookie") == 1
        store.close()


def test_without_any_sentinel_nobody_waits_for_long(tmp_path: Path) -> None:
    if missing():
        pytest.skip(missing())
    with Replicated(tmp_path) as servers:
        store = RedisEphemeral(RedisServer(servers.address))
        with servers.sentinel.held():
            assert waited(lambda: store.recall(SESSIONS, b"cookie")) < ONE_WAIT_S
            assert waited(lambda: store.recall(SESSIONS, b"cookie")) < AT_ONCE_S
        is_back(store)
        # Who is connected needs none.
        with servers.sentinel.held():
            assert store.recall(SESSIONS, b"cookie") is None
        store.close()


def together(work: Callable[[], object], threads: int) -> None:
    """Do it in so many threads at once; fails where one of them does."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - a test must not lose it with the thread
            failures.append(error)

    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert failures == []


def waited_for(store: RedisEphemeral, what: type[Exception]) -> None:
    """Ask until it is said that the store is away."""

    def is_away() -> bool:
        try:
            store.recall(SESSIONS, b"cookie")
        except what:
            return True
        return False

    eventually(is_away, BACK_S)
