"""The table that RCPT is answered from: it follows the records, outlives their absence, and says how old it is."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio
from accounts_office import OWN_NAMES, PLANS
from mongod import running_mongod
from routing_office import SETTINGS
from stored_values import a_keyring
from trio.testing import MockClock, wait_all_tasks_blocked

from appliance.accounts.accounts import Accounts
from appliance.accounts.domains import Domains
from appliance.model.domain import DeliveryMode, LogLevel
from appliance.routing.snapshot import Freshness
from appliance.run.present_routing import AGED_AFTER_S, STALE_AFTER_S, PresentRouting
from appliance.storage.mongo_records import MongoRecords
from appliance.storage.records import StoreUnavailable
from appliance.storage.sqlite_records import SqliteRecords


class AbsentRecords(SqliteRecords):
    """Can be away."""

    away = False

    def generation(self, name: str) -> int:
        if self.away:
            raise StoreUnavailable("away")
        return super().generation(name)


@dataclass
class Store:
    """Records with a domain, and the room that makes more."""

    records: AbsentRecords
    domains: Domains
    accounts: Accounts

    def add(self, name: str) -> None:
        self.domains.add(
            name,
            self.accounts.of("ada@people.test"),
            verified=True,
            delivery_mode=DeliveryMode.SPOOL,
            log_level=LogLevel.EVENTS,
        )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An account, and one domain."""
    records = AbsentRecords(tmp_path / "records.sqlite", a_keyring())
    made = Store(records, Domains(records, PLANS, OWN_NAMES), Accounts(records, PLANS))
    made.accounts.add("ada@people.test", plan="large")
    made.add("a.test")
    yield made
    records.close()


def age(routing: PresentRouting) -> Freshness:
    """What the present table says of itself."""
    return routing.snapshot.freshness


async def pass_time(clock: MockClock, seconds: float) -> None:
    """So long, in steps, each of which is noticed."""
    while seconds > 0:
        step = min(seconds, 50.0)
        seconds -= step
        clock.jump(step)
        await wait_all_tasks_blocked()


async def test_a_change_is_there_after_the_next_look(store: Store) -> None:
    routing = PresentRouting(store.records, SETTINGS)
    store.add("b.test")
    assert routing.snapshot.hosted("b.test") is None
    await routing.look()
    assert routing.snapshot.hosted("b.test") is not None


async def test_a_short_absence_of_the_store_is_nobodys_concern(store: Store, mock_clock: MockClock) -> None:
    routing = PresentRouting(store.records, SETTINGS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(routing.keep_age)
        await routing.look()
        store.records.away = True
        await pass_time(mock_clock, AGED_AFTER_S - 1)
        await routing.look()
        assert age(routing) is Freshness.FRESH
        assert routing.snapshot.hosted("a.test") is not None
        nursery.cancel_scope.cancel()


async def test_what_is_known_gets_old_and_is_young_again_with_the_first_look_that_succeeds(
    store: Store, mock_clock: MockClock
) -> None:
    routing = PresentRouting(store.records, SETTINGS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(routing.keep_age)
        await routing.look()
        store.records.away = True
        await pass_time(mock_clock, AGED_AFTER_S + 1)
        assert age(routing) is Freshness.AGED
        await pass_time(mock_clock, STALE_AFTER_S - AGED_AFTER_S - 2)
        assert age(routing) is Freshness.AGED
        await pass_time(mock_clock, 2)
        assert age(routing) is Freshness.STALE
        await routing.look()
        assert age(routing) is Freshness.STALE, "it has not been read"
        store.records.away = False
        store.add("b.test")
        await routing.look()
        assert age(routing) is Freshness.FRESH
        assert routing.snapshot.hosted("b.test") is not None
        await pass_time(mock_clock, 1)
        assert age(routing) is Freshness.FRESH
        nursery.cancel_scope.cancel()


async def test_an_absence_is_logged_once_however_often_it_is_noticed(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    routing = PresentRouting(store.records, SETTINGS)
    caplog.set_level(logging.INFO)
    store.records.away = True
    for _ in range(5):
        await routing.look()
    store.records.away = False
    for _ in range(5):
        await routing.look()
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        "records can't be read",
        "records can be read again",
    ]


async def test_a_mongod_that_is_killed_and_comes_back_is_followed_again(mock_clock: MockClock) -> None:
    with running_mongod() as server:
        records = MongoRecords(server.url_of("routing"), a_keyring())
        accounts, domains = Accounts(records, PLANS), Domains(records, PLANS, OWN_NAMES)
        owner = accounts.add("ada@people.test", plan="large")
        host = partial(domains.add, verified=True, delivery_mode=DeliveryMode.SPOOL, log_level=LogLevel.EVENTS)
        host("a.test", owner)
        routing = PresentRouting(records, SETTINGS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(routing.keep_age)
            await routing.look()
            server.kill()
            await routing.look()
            assert age(routing) is Freshness.FRESH
            await pass_time(mock_clock, AGED_AFTER_S + 1)
            assert age(routing) is Freshness.AGED
            assert routing.snapshot.hosted("a.test") is not None
            server.start()
            host("b.test", owner)
            with trio.fail_after(60):
                while routing.snapshot.hosted("b.test") is None:
                    await routing.look()
            assert age(routing) is Freshness.FRESH
            assert routing.whole_loads == 1, "what was there before is there still"
            nursery.cancel_scope.cancel()
        records.close()
