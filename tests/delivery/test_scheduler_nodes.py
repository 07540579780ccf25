"""A scheduler whose deliveries another node takes over, because it was taken for dead."""

import secrets
from collections.abc import Iterator

import pytest
import trio
from appliance_process import eventually
from mongod import Mongod, running_mongod
from scheduled import busy, gone, running
from values import NOW, delivery

from appliance.model.delivery import Delivery, DeliveryState
from appliance.privacy.sealing import Sealer
from appliance.storage.mongo_spool import MongoSpool
from appliance.storage.spool import Keep, LeaseLost

KEYRING = {"spool": Sealer(bytes(32)), "log": Sealer(bytes(32))}

AT_IT_S = 30.0
"""How long a courier is at a transaction here: time enough for anything."""

IMPATIENT_MS = 100

Nodes = tuple[MongoSpool, MongoSpool]


@pytest.fixture(scope="module")
def mongod() -> Iterator[Mongod]:
    """A server for all of these tests."""
    with running_mongod() as server:
        yield server


@pytest.fixture
def url(mongod: Mongod) -> str:
    """A new database."""
    return mongod.url_of(f"test-{secrets.token_hex(6)}")


@pytest.fixture
def nodes(url: str) -> Iterator[Nodes]:
    """This node, and another to which it is soon dead."""
    one, two = MongoSpool(url, KEYRING, "one"), MongoSpool(url, KEYRING, "two", lease_ms=IMPATIENT_MS)
    yield one, two
    one.close()
    two.close()


def taken_over(two: MongoSpool, count: int) -> list[Delivery]:
    """What the other node has after it took this one for dead."""
    found: list[Delivery] = []

    def look() -> bool:
        two.tidy()
        found.extend(two.claim(NOW + 1000, 100))
        return len(found) == count

    eventually(look, what="the work of the first node is taken over")
    return found


@pytest.mark.parametrize("script", [busy, gone], ids=["deferred", "failed"])
async def test_an_outcome_of_a_delivery_that_was_lost_is_dropped(
    nodes: Nodes, autojump_clock: trio.testing.MockClock, script: object
) -> None:
    one, two = nodes
    async with running(one) as world:
        world.script = script  # type: ignore[assignment]
        world.slowness_s["home.test"] = AT_IT_S
        await world.accept(delivery())
        await trio.sleep(1)
        (theirs,) = taken_over(two, 1)
        await trio.sleep(2 * AT_IT_S)
        assert [ids for _, ids in world.carried] == [["d1"]]
        assert two.deliveries() == [theirs]
        assert one.outbox(10) == two.outbox(10) == []
        assert world.room_is_free()
        assert (world.counts.deferred, world.counts.bounced) == (0, 0)


async def test_what_was_delivered_although_it_was_lost_is_done_for_all_nodes(
    nodes: Nodes, autojump_clock: trio.testing.MockClock
) -> None:
    one, two = nodes
    async with running(one) as world:
        world.slowness_s["home.test"] = AT_IT_S
        await world.accept(delivery())
        await trio.sleep(1)
        (theirs,) = taken_over(two, 1)
        await trio.sleep(2 * AT_IT_S)
        assert world.waiting() == []
        assert [row["type"] for row in one.outbox(10)] == ["DELIVERED"]
        assert world.room_is_free()
    with pytest.raises(LeaseLost):
        two.apply([Keep(theirs)])


async def test_what_waits_in_memory_and_was_lost_is_not_sent(
    nodes: Nodes, autojump_clock: trio.testing.MockClock
) -> None:
    one, two = nodes
    async with running(one, max_per_destination=1) as world:
        world.slowness_s["home.test"] = AT_IT_S
        await world.accept(delivery(), delivery(id="d2", message_id="m2"))
        await trio.sleep(1)
        assert [ids for _, ids in world.carried] == [["d1"]]
        taken_over(two, 2)
        assert one.tidy()
        lost = one.renew()
        assert sorted(lost) == ["d1", "d2"]
        await world.scheduler.lose(lost)
        await trio.sleep(3 * AT_IT_S)
        assert [ids for _, ids in world.carried] == [["d1"]]
        assert [(each.id, each.state) for each in two.deliveries()] == [("d2", DeliveryState.UNDER_WAY)]
        assert world.room_is_free()


async def test_two_nodes_deliver_what_both_have_accepted_and_nothing_twice(
    url: str, autojump_clock: trio.testing.MockClock
) -> None:
    one, two = MongoSpool(url, KEYRING, "one"), MongoSpool(url, KEYRING, "two")
    async with running(one) as first, running(two) as second:
        for number in range(20):
            world = (first, second)[number % 2]
            await world.accept(delivery(id=f"d{number}", message_id=f"m{number}"))
            (second, first)[number % 2].scheduler.wake()
        await trio.sleep(60)
        carried = [id for world in (first, second) for _, ids in world.carried for id in ids]
        assert sorted(carried) == sorted(f"d{number}" for number in range(20))
        assert first.waiting() == []
    one.close()
    two.close()
