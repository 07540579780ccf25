"""A group counts, and is being finished still: what this node and the others see then, and what comes next.

The server holds one command up for a while, so that everything else happens before it.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from appliance_process import eventually
from mongod import Mongod, running_mongod
from msgspec.structs import replace
from storage_backends import MongoBackend
from stored_values import NOON, a_delivery, an_event, an_id

from appliance.model.delivery import DeliveryState
from appliance.storage.mongo_spool import MongoSpool
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import Accept, AddPart, Complete, Keep, LeaseLost, Operation

HELD_UP_MS = 1000
"""For how long the server holds a command up: enough for all the others, on a machine that is busy."""

IMPATIENT_MS = 400
"""What is half a minute elsewhere."""

UNDER_WAY = DeliveryState.UNDER_WAY


@pytest.fixture(scope="module", params=[False, True], ids=["mongod", "mongod_replica_set"])
def server(request: pytest.FixtureRequest) -> Iterator[Mongod]:
    """One that is told to hold commands up, or to refuse them."""
    with running_mongod(replica_set=request.param) as running:
        yield running


@pytest.fixture
def house(server: Mongod) -> Iterator[MongoBackend]:
    """A database on it."""
    place = MongoBackend(server)
    yield place
    place.close()


@contextlib.contextmanager
def held_up(house: MongoBackend, command: str, collection: str) -> Iterator[Callable[[], object]]:
    """The next such command waits in the server; what is given returns when it has come there."""
    point = "failCommand"
    where = {"failCommands": [command], "namespace": f"{house.database}.{collection}"}
    how = {"blockConnection": True, "blockTimeMS": HELD_UP_MS}
    with house.server.client() as client:
        admin = client.admin
        before = admin.command("configureFailPoint", point, mode={"times": 1}, data={**where, **how})["count"]
        try:
            yield lambda: admin.command("waitForFailPoint", point, timesEntered=before + 1, maxTimeMS=10_000)
        finally:
            admin.command("configureFailPoint", point, mode="off")


def write(spool: MongoSpool, *operations: Operation) -> None:
    """As the spool does it for a message: whoever waits is told when it counts."""
    spool.write([spool.prepare(operations)])


def a_message(number: int, state: DeliveryState = DeliveryState.WAITING) -> list[Operation]:
    return [AddPart(an_id(number), 0, b"content"), Accept([a_delivery(number, state=state)], [an_event(number)])]


def a_delivered(number: int) -> Complete:
    return Complete(an_id(number), an_id(number), [an_event(number + 50)], delivered=True)


def stored(house: MongoBackend, name: str) -> list[object]:
    with house.server.client() as client:
        return [each["_id"] for each in client[house.database][name].find().sort("_id", 1)]


def marked(house: MongoBackend) -> list[object]:
    with house.server.client() as client:
        return [each["_id"] for each in client[house.database]["deliveries"].find({"unit": {"$exists": True}})]


LOOKS: dict[str, Callable[[MongoSpool], object]] = {
    "deliveries": lambda spool: [each.id for each in spool.deliveries()] == [an_id(1)],
    "delivery": lambda spool: spool.delivery(an_id(1)) is not None,
    "outbox": lambda spool: [row["id"] for row in spool.outbox(10)] == [an_id(1)],
    "claim": lambda spool: [each.id for each in spool.claim(NOON, 10)] == [an_id(1)],
    "due": lambda spool: spool.next_due() == NOON,
    "depth": lambda spool: spool.depth()[0] == 1,
    "states": lambda spool: spool.states() == {DeliveryState.WAITING: 1},
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_who_has_accepted_a_message_sees_it_at_once(house: MongoBackend, look: Callable[[MongoSpool], object]) -> None:
    spool = house.spool()
    with held_up(house, "update", "deliveries"):
        began = time.monotonic()
        write(spool, *a_message(1))
        assert time.monotonic() - began < HELD_UP_MS / 1000, "nobody is kept waiting for it"
        assert marked(house) == [an_id(1)]
        assert look(spool)
    assert marked(house) == []


def test_others_see_what_was_accepted_when_it_is_finished_and_not_before(house: MongoBackend) -> None:
    one, two = house.spool(node="one"), house.spool(node="two")
    with held_up(house, "update", "deliveries"):
        write(one, *a_message(1))
        assert two.deliveries() == []
        assert two.depth() == (0, None)
        assert two.claim(NOON, 10) == []
        assert two.tidy()
        assert marked(house) == [an_id(1)], "it is the business of the other one, who lives"
        assert eventually(lambda: two.claim(NOON, 10))[0].id == an_id(1)
    assert one.claim(NOON, 10) == []


def test_a_message_that_was_just_accepted_can_be_done_at_once(house: MongoBackend) -> None:
    spool = house.spool()
    with held_up(house, "update", "outbox") as until_held_up:
        write(spool, *a_message(1, UNDER_WAY), *a_message(2, UNDER_WAY), *a_message(3))
        until_held_up()
        later = a_delivery(2, attempts=1, next_attempt_at=NOON + 9)
        write(spool, a_delivered(1), Keep(later), Keep(a_delivery(3, state=DeliveryState.HELD)))
    assert [(each.id, each.state, each.attempts) for each in spool.deliveries()] == [
        (an_id(2), DeliveryState.WAITING, 1),
        (an_id(3), DeliveryState.HELD, 0),
    ]
    assert spool.tidy()
    assert marked(house) == []
    assert spool.part(an_id(1), 0) is None
    assert [row["id"] for row in spool.outbox(10)] == [an_id(number) for number in (1, 2, 3, 51)]


def test_what_was_just_accepted_stays_where_the_next_group_does_not_happen(house: MongoBackend) -> None:
    """The next has marked it anew already, and takes its mark away."""
    one, two = house.spool(node="one"), house.spool(node="two")
    one.apply(a_message(9))
    (theirs,) = two.claim(NOON, 10)
    with held_up(house, "update", "deliveries") as until_held_up:
        write(one, *a_message(1, UNDER_WAY))
        until_held_up()
        with pytest.raises(LeaseLost):
            write(one, a_delivered(1), Keep(theirs))
        assert [each.id for each in two.deliveries()] == [an_id(1), an_id(9)], "it counted, and counts"
    assert [(each.id, each.state) for each in one.deliveries()] == [(an_id(1), UNDER_WAY), (an_id(9), UNDER_WAY)]
    assert one.renew() == []
    one.apply([a_delivered(1)])
    assert [each.id for each in two.deliveries()] == [an_id(9)]


def test_what_a_group_changes_the_next_waits_for(house: MongoBackend) -> None:
    spool = house.spool()
    spool.apply([*a_message(1, UNDER_WAY), *a_message(2, UNDER_WAY)])
    with held_up(house, "update", "outbox"):
        write(spool, Keep(a_delivery(1, attempts=1), [an_event(5)]))
        write(spool, Keep(a_delivery(1, attempts=2)))
        write(spool, Complete(an_id(1), an_id(1)), Keep(a_delivery(2, attempts=7)))
    assert [(each.id, each.attempts) for each in spool.deliveries()] == [(an_id(2), 7)]
    assert marked(house) == []


def test_no_group_counts_before_the_last_is_finished(house: MongoBackend) -> None:
    """A node's word is one number: of what is marked with an earlier one, others would take the marks away."""
    spool = house.spool()
    with held_up(house, "update", "outbox") as until_held_up:
        write(spool, *a_message(1))
        until_held_up()
        write(spool, *a_message(2))
        with house.server.client() as client:
            earlier = client[house.database]["outbox"].find_one({"_id": an_id(1)})
        assert earlier is not None
        assert "unit" not in earlier


@pytest.mark.parametrize(("command", "collection"), [("update", "deliveries"), ("update", "outbox")])
def test_a_node_that_is_taken_for_dead_before_it_has_finished_has_accepted(
    house: MongoBackend, command: str, collection: str
) -> None:
    one, two = house.spool(node="one"), house.spool(node="two", lease_ms=IMPATIENT_MS)

    def is_over() -> bool:
        return two.tidy() and [each.gone for each in two.nodes()] == [True, False]

    with held_up(house, command, collection) as until_held_up:
        write(one, *a_message(1, UNDER_WAY), *a_message(2))
        until_held_up()
        eventually(is_over, what="the other node is taken for dead")
        assert [(each.id, each.state) for each in two.deliveries()] == [
            (an_id(1), DeliveryState.WAITING),
            (an_id(2), DeliveryState.WAITING),
        ]
        assert [each.id for each in two.claim(NOON, 10)] == [an_id(1), an_id(2)]
    # It goes on: what it finishes late is finished, and what was its own is the other's.
    one.deliveries()
    assert one.tidy()
    assert one.renew() == [an_id(1)]
    with pytest.raises(LeaseLost):
        write(one, Keep(a_delivery(1, attempts=5)))
    assert {each.state for each in two.deliveries()} == {UNDER_WAY}
    assert [row["id"] for row in two.outbox(10)] == [an_id(1), an_id(2)]
    assert one.outbox(10) == []


def test_content_goes_although_the_server_has_refused_to_erase_it(house: MongoBackend) -> None:
    spool = house.spool()
    spool.apply([*a_message(1, UNDER_WAY), *a_message(2, UNDER_WAY)])
    with house.server.failing(["delete"], times=1, namespace=f"{house.database}.content", errorCode=8):
        spool.apply([a_delivered(1)])
    assert spool.depth()[0] == 1
    assert spool.part(an_id(1), 0) == b"content"
    assert spool.tidy()
    assert [spool.part(an_id(1), 0), spool.part(an_id(2), 0)] == [None, b"content"]


def test_content_that_is_being_erased_keeps_no_message_waiting(house: MongoBackend) -> None:
    spool = house.spool()
    spool.apply(a_message(1, UNDER_WAY))
    with held_up(house, "delete", "content") as until_held_up:
        began = time.monotonic()
        write(spool, a_delivered(1))
        until_held_up()
        write(spool, *a_message(2, UNDER_WAY))
        write(spool, a_delivered(2))
        write(spool, *a_message(3))
        assert time.monotonic() - began < HELD_UP_MS / 1000
        assert spool.part(an_id(1), 0) == b"content"
    eventually(lambda: len(stored(house, "content")) == 1, what="it has gone")
    assert spool.part(an_id(3), 0) == b"content"


def test_a_node_that_ends_in_order_has_finished_and_erased(house: MongoBackend) -> None:
    spool, other = house.spool(), house.spool(node="other")
    spool.apply(a_message(1, UNDER_WAY))
    with held_up(house, "update", "outbox") as until_held_up:
        write(spool, a_delivered(1), *a_message(2))
        until_held_up()
        spool.close()
    assert marked(house) == []
    assert [row["id"] for row in other.outbox(10)] == []
    assert [each.id for each in other.deliveries()] == [an_id(2)]
    assert other.part(an_id(1), 0) is None


def test_nobody_is_told_that_there_are_no_events_while_some_cannot_be_seen(house: MongoBackend) -> None:
    """The log says how far it is whole, once the outbox is empty: nothing may come behind that."""
    spool = house.spool()
    with house.server.failing(["update"], namespace=f"{house.database}.outbox", errorCode=8):
        write(spool, *a_message(1))
        with pytest.raises(StoreUnavailable):
            spool.outbox(10)
        assert not spool.tidy()
        with pytest.raises(StoreUnavailable):
            write(spool, *a_message(2))
    assert spool.tidy()
    assert [row["id"] for row in spool.outbox(10)] == [an_id(1)]
    assert [each.id for each in spool.deliveries()] == [an_id(1)]


def test_leases_are_not_lost_while_a_group_is_being_finished(house: MongoBackend) -> None:
    spool = house.spool()
    spool.apply(a_message(1, UNDER_WAY))
    lost: list[str] = []
    over = threading.Event()

    def keep_renewing() -> None:
        while not over.is_set():
            lost.extend(spool.renew())

    renewing = threading.Thread(target=keep_renewing)
    with held_up(house, "update", "outbox") as until_held_up:
        write(spool, a_delivered(1), *a_message(2, UNDER_WAY))
        until_held_up()
        renewing.start()
        write(spool, Keep(replace(a_delivery(2), state=UNDER_WAY, attempts=1)))
        write(spool, *a_message(3, UNDER_WAY))
    spool.deliveries()
    over.set()
    renewing.join()
    assert lost == []
    write(spool, a_delivered(2), a_delivered(3))
    assert spool.deliveries() == []
