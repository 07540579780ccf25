"""A node that shares its spool: it stays one of them, hears what it has lost, and begins nothing of another's."""

import secrets
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from pathlib import Path

import pytest
import trio
from inline_committer import InlineCommitter
from mongod import Mongod, running_mongod
from stored_values import NOON, a_delivery, a_keyring, an_id

from appliance.model.ids import id_source
from appliance.spool import sharing
from appliance.spool import spool as spool_module
from appliance.spool.clocks import Clocks
from appliance.spool.committer import GroupCommitter
from appliance.spool.sharing import keep_sharing
from appliance.spool.spool import Spool
from appliance.storage.mongo_spool import MongoSpool
from appliance.storage.spool import Accept, ClockMarks, MarkClocks, Operation
from appliance.storage.sqlite_spool import SqliteSpool

RENEW_S = 0.05

IMPATIENT_MS = 800

LIMIT_S = 10

Nodes = tuple[MongoSpool, MongoSpool]


@pytest.fixture(scope="module")
def mongod() -> Iterator[Mongod]:
    """A server for all of these tests."""
    with running_mongod() as server:
        yield server


@pytest.fixture
def nodes(mongod: Mongod, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """This node, which is in a hurry, and another to which it is soon dead."""
    monkeypatch.setattr(sharing, "RENEW_S", RENEW_S)
    monkeypatch.setattr(sharing, "RETRY_S", RENEW_S)
    url = mongod.url_of(f"test-{secrets.token_hex(6)}")
    one, two = MongoSpool(url, a_keyring(), "one"), MongoSpool(url, a_keyring(), "two", lease_ms=IMPATIENT_MS)
    yield one, two
    one.close()
    two.close()


class BusyCommitter(InlineCommitter):
    """Of a store that is slow and has much to do: what is to be written waits."""

    async def commit(self, operations: Sequence[Operation]) -> None:
        """See `Committer`."""
        await trio.sleep_forever()


def spool_on(store: MongoSpool | SqliteSpool) -> Spool:
    return Spool(store, InlineCommitter(store), id_source())


def the_clocks() -> Clocks:
    return Clocks(lambda: NOON, ClockMarks(), lambda: 0)


async def until(look: Callable[[], object]) -> None:
    with trio.fail_after(LIMIT_S):
        while not look():
            await trio.sleep(0.01)


async def nobody(lost: Collection[str]) -> None:
    raise AssertionError(f"{lost} were lost")


async def test_what_a_node_has_stays_its_own_as_long_as_it_runs(nodes: Nodes) -> None:
    one, two = nodes
    one.apply([Accept([a_delivery(1)])])
    assert len(one.claim(NOON, 10)) == 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_sharing, spool_on(one), the_clocks(), nobody)
        over = trio.current_time() + 3 * IMPATIENT_MS / 1000
        while trio.current_time() < over:
            await trio.sleep(RENEW_S)
            assert two.tidy()
            assert two.claim(NOON, 10) == []
        nursery.cancel_scope.cancel()


async def test_a_writing_thread_that_is_busy_for_long_costs_no_lease(nodes: Nodes) -> None:
    one, two = nodes
    one.apply([Accept([a_delivery(1)])])
    assert len(one.claim(NOON, 10)) == 1
    spool = Spool(one, BusyCommitter(one), id_source())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_sharing, spool, the_clocks(), nobody)
        over = trio.current_time() + 3 * IMPATIENT_MS / 1000
        while trio.current_time() < over:
            await trio.sleep(RENEW_S)
            assert two.tidy()
            assert two.claim(NOON, 10) == []
        nursery.cancel_scope.cancel()


async def test_a_node_hears_what_it_has_lost_and_is_one_of_them_again(nodes: Nodes) -> None:
    one, two = nodes
    one.apply([Accept([a_delivery(1)])])
    one.claim(NOON, 10)
    await until(lambda: two.tidy() and two.claim(NOON, 10))
    told: list[Collection[str]] = []

    async def lose(lost: Collection[str]) -> None:
        told.append(lost)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_sharing, spool_on(one), the_clocks(), lose)
        await until(lambda: told)
        nursery.cancel_scope.cancel()
    assert told == [[an_id(1)]]
    assert [each.name for each in two.nodes() if not each.gone] == ["one", "two"]


async def test_the_clocks_of_the_nodes_follow_the_one_that_is_furthest(nodes: Nodes) -> None:
    one, two = nodes
    two.apply([MarkClocks(ClockMarks(NOON + 5000, 7000, NOON + 9000))])
    clocks = the_clocks()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_sharing, spool_on(one), clocks, nobody)
        await until(lambda: clocks.steady() == NOON + 5000)
        nursery.cancel_scope.cancel()
    assert clocks.marks() == ClockMarks(NOON + 5000, 7000, NOON + 9000)


async def test_nothing_is_begun_before_it_is_certain_whose_it_is(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = nodes
    spool = spool_on(one)
    with trio.fail_after(LIMIT_S):
        await spool.until_leases_stand()
    monkeypatch.setattr(spool_module, "STANDS_MS", 0)
    begun = trio.Event()

    async def begin() -> None:
        await spool.until_leases_stand()
        begun.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(begin)
        await trio.testing.wait_all_tasks_blocked()
        assert not begun.is_set()
        monkeypatch.setattr(spool_module, "STANDS_MS", 20_000)
        await spool.renew()
        with trio.fail_after(LIMIT_S):
            await begun.wait()


async def claim(spool: Spool) -> None:
    assert len(await spool.claim(NOON, 1)) == 1


async def tidy(spool: Spool) -> None:
    await spool.tidy()


@pytest.mark.parametrize(("look", "command"), [(claim, "find"), (tidy, "distinct")])
async def test_what_comes_in_does_not_wait_while_somebody_looks(
    mongod: Mongod, nodes: Nodes, look: Callable[[Spool], Awaitable[None]], command: str
) -> None:
    """For what is due, or for what the dead have left."""
    one, _ = nodes
    has_looked = trio.Event()

    async def look_now(spool: Spool) -> None:
        await look(spool)
        has_looked.set()

    one.apply([Accept([a_delivery(1)])])
    held = {"blockConnection": True, "blockTimeMS": 1500, "appName": "onward"}
    async with GroupCommitter(one) as committer, trio.open_nursery() as nursery:
        with mongod.failing([command], times=1, **held):
            nursery.start_soon(look_now, Spool(one, committer, id_source()))
            for number in range(2, 20):
                await committer.commit([Accept([a_delivery(number)])])
            assert not has_looked.is_set()
            with trio.fail_after(LIMIT_S):
                await has_looked.wait()


async def test_a_node_alone_has_nothing_to_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "STANDS_MS", 0)
    store = SqliteSpool(tmp_path / "spool.sqlite", a_keyring())
    spool = spool_on(store)
    with trio.fail_after(LIMIT_S):
        await keep_sharing(spool, the_clocks(), nobody)
        await spool.until_leases_stand()
    assert store.clock_marks() == ClockMarks()
    store.close()
