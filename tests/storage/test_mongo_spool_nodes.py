"""Several nodes on one spool: who has what under way, what becomes of it when a node is gone, and what nobody touches.

In these tests it is the node `two` that is impatient: what it has not heard of for a moment is dead to it.
"""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import trio
import trio.testing
from appliance_process import eventually
from mongod import Mongod, running_mongod
from msgspec.structs import replace
from storage_backends import MONGODS, MongoBackend
from stored_values import NOON, a_delivery, a_keyring, an_event, an_id

from appliance.model.delivery import Delivery, DeliveryState
from appliance.model.event import EventType
from appliance.spool.committer import GroupCommitter
from appliance.spool.spool import TIDY_S
from appliance.storage.mongo_spool import MongoSpool
from appliance.storage.mongo_spool_nodes import LEASE_MS
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import (
    RENEW_S,
    Accept,
    AddPart,
    ClockMarks,
    Complete,
    CountUse,
    Keep,
    LeaseLost,
    MarkClocks,
    Record,
)

IMPATIENT_MS = 400
"""What is half a minute elsewhere."""


@pytest.fixture(params=MONGODS)
def house(request: pytest.FixtureRequest) -> Iterator[MongoBackend]:
    """A database on a server."""
    server: Mongod = request.getfixturevalue(request.param)
    place = MongoBackend(server)
    yield place
    place.close()


Open = Callable[[str], MongoSpool]


@pytest.fixture
def node(house: MongoBackend) -> Open:
    """Opens the spool as the node of this name."""
    return lambda name: house.spool(node=name, lease_ms=IMPATIENT_MS if name == "two" else LEASE_MS)


def accept(spool: MongoSpool, number: int) -> None:
    spool.apply([AddPart(an_id(number), 0, b"content"), Accept([a_delivery(number)])])


def claimed(spool: MongoSpool) -> Delivery:
    (delivery,) = spool.claim(NOON, 10)
    return delivery


def taken_over(spool: MongoSpool) -> Delivery:
    """What this node claims after another was not heard of for too long."""

    def look() -> Delivery | None:
        spool.tidy()
        return next(iter(spool.claim(NOON, 10)), None)

    return eventually(look, what="the work of the other node is taken over")


def events(spool: MongoSpool) -> list[object]:
    return [row["id"] for row in spool.outbox(100)]


# ------------------------------------------------------------------ leases


def test_what_one_node_accepts_another_delivers(node: Open) -> None:
    one, two = node("one"), node("two")
    accept(one, 1)
    assert claimed(two).id == an_id(1)
    assert one.claim(NOON, 10) == []
    assert two.part(an_id(1), 0) == b"content"
    two.apply([Complete(an_id(1), an_id(1), [an_event(1, type=EventType.DELIVERED)], delivered=True)])
    assert one.depth() == (0, None)
    assert one.part(an_id(1), 0) is None


def test_the_work_of_a_node_that_is_not_heard_of_is_taken_over(node: Open) -> None:
    one, two = node("one"), node("two")
    accept(one, 1)
    held = claimed(one)
    again = taken_over(two)
    assert again == held
    assert [each.name for each in two.nodes() if each.gone] == ["one"]


def test_a_node_that_is_heard_of_keeps_its_work_when_the_clock_of_the_server_jumps(house: MongoBackend) -> None:
    one, two = house.spool(node="one"), house.spool(node="two", lease_ms=3000)
    accept(one, 1)
    claimed(one)
    assert two.tidy()
    time.sleep(1.6)
    assert one.renew() == []
    with house.server.client() as client:
        # As after a failover to a server whose clock is ahead.
        database = client[house.database]
        jump = {"$subtract": ["$seen_at", 60_000]}
        database["nodes"].update_many({"name": "one"}, [{"$set": {"seen_at": jump}}])
        database["deliveries"].update_many({}, {"$set": {"lease.until": 0}})
    assert two.tidy()
    assert two.claim(NOON, 10) == []
    assert one.renew() == []


def test_after_the_server_was_away_the_others_are_heard_first() -> None:
    with running_mongod() as server:
        house = MongoBackend(server)
        one, two = house.spool(node="one"), house.spool(node="two", lease_ms=3000)
        accept(one, 1)
        claimed(one)
        eventually(two.tidy)
        server.freeze()
        with pytest.raises(StoreUnavailable):
            two.renew()
        server.thaw()
        assert two.tidy()
        assert two.claim(NOON, 10) == [], "it was away for longer than the lease of the other, who could not renew it"
        assert one.renew() == []
        house.close()


def test_within_a_minute_the_work_of_a_dead_node_is_with_another() -> None:
    """By the numbers: how long it may still seem alive, and how late the others look."""
    assert LEASE_MS / 1000 + 2 * TIDY_S < 60
    assert 1.5 * LEASE_MS / 1000 + 2 * TIDY_S < 60, "also where those who look have just been started"
    assert 2 * RENEW_S < LEASE_MS / 1000


def test_a_node_that_renews_keeps_what_it_has(node: Open) -> None:
    one, two = node("one"), node("two")
    accept(one, 1)
    held = claimed(one)
    over = time.monotonic() + 5 * IMPATIENT_MS / 1000
    while time.monotonic() < over:
        assert one.renew() == []
        two.renew()
        assert two.tidy()
        assert one.tidy()
        assert two.claim(NOON, 10) == []
    one.apply([Keep(replace(held, state=DeliveryState.WAITING, attempts=1))])
    assert claimed(two).attempts == 1


def test_a_node_that_ends_in_order_leaves_its_work_at_once(house: MongoBackend) -> None:
    one, two = house.spool(node="one"), house.spool(node="two")
    accept(one, 1)
    held = claimed(one)
    one.close()
    assert two.tidy()
    assert claimed(two) == held


def test_a_node_that_starts_again_has_at_once_what_it_had(house: MongoBackend) -> None:
    one = house.spool(node="one")
    accept(one, 1)
    held = claimed(one)
    again = house.spool(node="one")
    again.recover()
    assert claimed(again) == held


def test_a_start_leaves_alone_what_other_nodes_have(house: MongoBackend) -> None:
    one = house.spool(node="one")
    accept(one, 1)
    claimed(one)
    one.apply([AddPart(an_id(2), 0, b"on its way in")])
    two = house.spool(node="two")
    two.recover()
    assert two.tidy()
    assert two.claim(NOON, 10) == []
    assert one.part(an_id(2), 0) == b"on its way in"
    one.apply([AddPart(an_id(2), 1, b"and all of it"), Accept([a_delivery(2)])])
    assert claimed(two).id == an_id(2)


# ------------------------------------------------------------------ after a lease was lost


def test_a_node_that_was_taken_for_dead_keeps_what_nobody_has_taken_yet(house: MongoBackend) -> None:
    one, two = house.spool(node="one"), house.spool(node="two")
    accept(one, 1)
    held = claimed(one)
    with house.server.client() as client:
        # One that has died right after it took this one for dead.
        client[house.database]["nodes"].update_one({"name": "one"}, {"$set": {"gone": True}})
    assert one.tidy()
    assert one.renew() == []
    assert two.tidy()
    assert two.claim(NOON, 10) == []
    one.apply([Keep(replace(held, state=DeliveryState.WAITING, attempts=1))])
    assert claimed(two).attempts == 1


def test_what_a_node_has_lost_it_hears_once(node: Open) -> None:
    one, two = node("one"), node("two")
    accept(one, 1)
    claimed(one)
    taken_over(two)
    assert one.tidy()
    assert one.renew() == [an_id(1)]
    assert one.renew() == []


def test_what_takes_the_place_of_a_delivery_comes_once(node: Open) -> None:
    one, two = node("one"), node("two")
    accept(one, 1)
    one.apply([Accept([a_delivery(2)]), Complete(an_id(1), an_id(1))])
    with pytest.raises(LeaseLost) as lost:
        two.apply([Accept([a_delivery(3)]), Complete(an_id(1), an_id(1))])
    assert set(lost.value.delivery_ids) == {an_id(1)}
    assert [each.id for each in two.deliveries()] == [an_id(2)]
    two.apply([Complete(an_id(1), an_id(1))])


@pytest.mark.parametrize(
    "settled",
    [
        lambda held: [Keep(replace(held, state=DeliveryState.WAITING, attempts=1), [an_event(5)])],
        lambda held: [Accept([a_delivery(7)]), Complete(held.id, held.message_id, [an_event(5)])],
    ],
    ids=["deferred", "bounced"],
)
@pytest.mark.parametrize("then", ["under way", "waiting", "gone"])
def test_what_is_decided_about_a_lost_delivery_does_not_happen(
    node: Open, settled: Callable[[Delivery], list[Keep]], then: str
) -> None:
    one, two = node("one"), node("two")
    accept(one, 1)
    held = claimed(one)
    theirs = taken_over(two)
    if then == "waiting":
        two.apply([Keep(replace(theirs, state=DeliveryState.WAITING, next_attempt_at=NOON + 1))])
    elif then == "gone":
        two.apply([Complete(theirs.id, theirs.message_id, delivered=True)])
    before = two.deliveries()
    assert one.tidy()
    with pytest.raises(LeaseLost) as lost:
        one.apply(settled(held))
    assert lost.value.delivery_ids == {an_id(1)}
    assert two.deliveries() == before
    assert events(one) + events(two) == []
    assert two.part(an_id(1), 0) == (None if then == "gone" else b"content")


def test_a_group_with_a_lost_delivery_in_it_can_be_written_without_it(node: Open) -> None:
    one, two = node("one"), node("two")
    accept(one, 1)
    held = claimed(one)
    taken_over(two)
    assert one.tidy()
    units = [one.prepare([Keep(replace(held, state=DeliveryState.WAITING))]), one.prepare([Accept([a_delivery(2)])])]
    with pytest.raises(LeaseLost):
        one.write(units)
    with pytest.raises(LeaseLost):
        one.write(units[:1])
    one.write(units[1:])
    assert [each.id for each in one.deliveries()] == [an_id(1), an_id(2)]


def test_what_was_delivered_is_erased_although_its_lease_was_lost(node: Open) -> None:
    """A second copy is what it would lead to otherwise."""
    one, two = node("one"), node("two")
    accept(one, 1)
    held = claimed(one)
    theirs = taken_over(two)
    assert one.tidy()
    one.apply([Complete(held.id, held.message_id, [an_event(1, type=EventType.DELIVERED)], delivered=True)])
    assert two.depth() == (0, None)
    assert two.part(an_id(1), 0) is None
    assert events(one) == [an_id(1)]
    # The other one hears of it, and makes no bounce of it.
    with pytest.raises(LeaseLost):
        two.apply([Accept([a_delivery(7)]), Complete(theirs.id, theirs.message_id)])
    assert two.depth() == (0, None)


def test_an_operator_changes_nothing_that_another_node_has_under_way(node: Open) -> None:
    one, two = node("one"), node("two")
    accept(one, 1)
    waiting = one.deliveries()[0]
    claimed(two)
    for change in (Keep(replace(waiting, state=DeliveryState.HELD)), Complete(waiting.id, waiting.message_id)):
        with pytest.raises(LeaseLost):
            one.apply([change])
    assert [each.state for each in one.deliveries()] == [DeliveryState.UNDER_WAY]


async def test_what_another_node_is_changing_keeps_nobody_else_waiting(house: MongoBackend, node: Open) -> None:
    one, two = node("one"), node("two")
    accept(one, 1)
    (waiting,) = one.deliveries()
    with house.server.client() as client:
        marked = {"unit": f"{two.nodes()[1].id}.1", "gone": True}
        client[house.database]["deliveries"].update_one({"_id": waiting.id}, {"$set": marked})
    refused: list[str] = []

    async def hold(committer: GroupCommitter) -> None:
        try:
            await committer.commit([Keep(replace(waiting, state=DeliveryState.HELD))])
        except StoreUnavailable as error:
            refused.append(str(error))

    async with GroupCommitter(one) as committer, trio.open_nursery() as nursery:
        gate = threading.Event()
        nursery.start_soon(committer.call, gate.wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(hold, committer)
        nursery.start_soon(committer.commit, [Accept([a_delivery(2)])])
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert committer.groups == 2, "the two are in one group"
    assert len(refused) == 1
    assert "another node is changing" in refused[0]
    assert [(each.id, each.state) for each in two.deliveries()] == [
        (an_id(1), DeliveryState.WAITING),
        (an_id(2), DeliveryState.WAITING),
    ]


def test_what_a_node_is_at_still_it_does_not_begin_a_second_time(node: Open) -> None:
    one, two = node("one"), node("two")
    accept(one, 1)
    held = claimed(one)
    theirs = taken_over(two)
    two.apply([Keep(replace(theirs, state=DeliveryState.WAITING, next_attempt_at=NOON))])
    assert one.tidy()
    assert one.claim(NOON, 10) == []
    # It is this node's again, so what comes of the attempt counts.
    one.apply([Keep(replace(held, state=DeliveryState.WAITING, attempts=1, next_attempt_at=NOON + 9))])
    assert [each.attempts for each in two.deliveries()] == [1]


# ------------------------------------------------------------------ what is coming in, events, clocks, counts


def test_what_a_dead_node_was_receiving_is_erased(node: Open) -> None:
    one, two = node("one"), node("two")
    accept(one, 1)
    one.apply([AddPart(an_id(2), 0, b"never"), AddPart(an_id(2), 1, b"accepted")])
    eventually(lambda: two.tidy() and two.part(an_id(2), 0) is None, what="what nobody accepted is erased")
    assert [two.part(an_id(2), 1), two.part(an_id(1), 0)] == [None, b"content"]


def test_a_message_whose_beginning_is_gone_is_not_accepted(node: Open) -> None:
    one, two = node("one"), node("two")
    one.apply([AddPart(an_id(1), 0, b"the beginning")])
    eventually(lambda: two.tidy() and two.part(an_id(1), 0) is None, what="it is taken for dead")
    with pytest.raises(StoreUnavailable, match="the beginning of message"):
        one.apply([AddPart(an_id(1), 1, b"and the end"), Accept([a_delivery(1)])])
    assert one.tidy()
    assert one.depth() == (0, None)
    accept(one, 2)
    assert claimed(two).id == an_id(2)


def test_each_node_moves_its_own_events_and_those_of_the_dead(house: MongoBackend) -> None:
    one, two = house.spool(node="one"), house.spool(node="two")
    one.apply([Record([an_event(1)])])
    two.apply([Record([an_event(2)])])
    assert [events(one), events(two)] == [[an_id(1)], [an_id(2)]]
    one.close()
    assert two.tidy()
    assert events(two) == [an_id(1), an_id(2)]


def test_the_clocks_of_all_nodes_are_those_of_the_one_that_is_furthest(node: Open) -> None:
    one, two = node("one"), node("two")
    one.apply([MarkClocks(ClockMarks(NOON + 5, 1, NOON))])
    two.apply([MarkClocks(ClockMarks(NOON, 7, NOON + 9))])
    assert one.clock_marks() == two.clock_marks() == ClockMarks(NOON + 5, 7, NOON + 9)


def test_uses_are_counted_over_all_nodes(node: Open) -> None:
    one, two = node("one"), node("two")
    for number, spool in enumerate((one, two, two), start=1):
        spool.apply([Accept([a_delivery(number)]), CountUse("a", 4)])
    assert one.uses() == two.uses() == {"a": 7}


def test_the_nodes_are_known_by_name(house: MongoBackend) -> None:
    one, two = house.spool(node="one"), house.spool(node="two")
    assert [(each.name, each.gone) for each in one.nodes()] == [("one", False), ("two", False)]
    two.close()
    (first, second) = one.nodes()
    assert (first.gone, second.gone) == (False, True)
    assert 0 <= first.seen_at - first.started_at < 60_000
    one.renew()
    assert one.nodes()[0].seen_at >= first.seen_at


def test_a_lease_that_nobody_renews_is_over_even_if_nobody_knows_whose_it_was(house: MongoBackend, node: Open) -> None:
    one = node("one")
    accept(one, 1)
    held = claimed(one)
    with house.server.client() as client:
        lease = {"token": "whatever", "node": "forgotten", "until": 0}
        client[house.database]["deliveries"].update_one({"_id": held.id}, {"$set": {"lease": lease}})
    assert taken_over(node("two")) == held


def test_a_store_says_which_keys_it_needs_without_having_them(house: MongoBackend) -> None:
    spool = house.spool()
    assert spool.keys_in_use() == {}
    accept(spool, 1)
    spool.apply([Record([an_event(1)])])
    assert spool.keys_in_use() == {"spool": True, "log": True}
    assert house.spool({}, node="two").keys_in_use() == {"spool": False, "log": False}
    assert house.spool(a_keyring(seed=2), node="two").keys_in_use() == {"spool": False, "log": False}


def test_a_claim_looks_at_what_it_takes_and_at_nothing_else(house: MongoBackend) -> None:
    """However much waits for later, or for a destination that is left out."""
    spool = house.spool()
    later = [a_delivery(number, next_attempt_at=NOON + 1000 + number) for number in range(1, 1500)]
    spool.apply([Accept(later)])
    spool.apply([Accept([a_delivery(number, priority=number % 3) for number in range(2000, 2020)])])
    with house.server.client() as client:
        database = client[house.database]
        database.command("profile", 2)
        assert len(spool.claim(NOON, 10)) == 10
        spool.next_due(after=NOON)
        database.command("profile", 0)
        asked = list(database["system.profile"].find({"ns": f"{house.database}.deliveries"}))
        database.drop_collection("system.profile")
    assert len(asked) >= 5
    assert not [each["planSummary"] for each in asked if "IXSCAN" not in each["planSummary"]]
    assert max(each["docsExamined"] for each in asked) <= 20
    assert max(each["keysExamined"] for each in asked) <= 60
