"""Mail under way over the API: who sees and steers whose, and what an engine is asked for it."""

from collections.abc import Iterator
from typing import Any

import pytest
from control_api.nouns.queue import MOST_HOLDS
from engine_stand_in import DELIVERY, HELD, HOLD, NOON, EngineStandIn, standing_in
from served_api import ServedApi
from signed_in import signed_in

from appliance.configuration import Configuration
from appliance.model.account import Role
from appliance.model.domain import DeliveryMode, LogLevel
from appliance.model.time import format_instant

QUEUE = """
query ($first: Int, $after: String, $filter: QueueFilter) {
  queue(first: $first, after: $after, filter: $filter) {
    totalCount
    pageInfo { endCursor hasNextPage }
    edges { cursor node {
      id state sender recipient destinationDomain sizeBytes priority acceptedAt attempts nextAttemptAt expiresAt
      lastResponse
    } }
  }
}
"""
VERBS = {verb: f"queue.{verb}" for verb in ("retry", "hold", "release", "fail", "drop")}
HOLD_IT = """
mutation ($domain: String, $destination: String, $sender: String) {
  addHold(domain: $domain, destinationDomain: $destination, sender: $sender) {
    affected hold { id domain destinationDomain sender createdAt } errors { code message field }
  }
}
"""
LIFT = "mutation ($id: ID!) { liftHold(id: $id) { affected hold { id } errors { code } } }"


def change(verb: str) -> str:
    """The mutation of this verb."""
    return (
        f"mutation ($filter: QueueFilter!) {{ {verb}Deliveries(filter: $filter) "
        "{ affected errors { code message field } } }"
    )


@pytest.fixture
def engine(config: Configuration, api: ServedApi) -> Iterator[EngineStandIn]:
    """With two deliveries."""
    with standing_in(config, [DELIVERY, HELD]) as engine:
        yield engine


def host(api: ServedApi, account: Any, name: str, *, verified: bool = True) -> str:
    """A domain of this account; its id."""
    domain = api.rooms.domains.add(
        name, account, verified=verified, delivery_mode=DeliveryMode.SPOOL, log_level=LogLevel.EVENTS
    )
    return domain.id


def test_a_delivery_is_told_as_the_contract_has_it_and_never_names_its_mailbox(
    api: ServedApi, engine: EngineStandIn
) -> None:
    with api.operator() as machine:
        queue = machine.data(QUEUE)["queue"]
        assert (queue["totalCount"], queue["pageInfo"]["hasNextPage"]) == (2, False)
        node = queue["edges"][0]["node"]
        found = machine.data("query ($id: ID!) { node(id: $id) { ... on Delivery { recipient } } }", id=node["id"])
    assert found == {"node": {"recipient": "info@example.org"}}
    del node["id"]
    assert node == {
        "state": "WAITING",
        "sender": "",
        "recipient": "info@example.org",
        "destinationDomain": "home.test",
        "sizeBytes": 1234,
        "priority": 0,
        "acceptedAt": format_instant(NOON),
        "attempts": 2,
        "nextAttemptAt": format_instant(NOON + 1000),
        "expiresAt": format_instant(NOON + 3_600_000),
        "lastResponse": DELIVERY["lastResponse"],
    }
    assert queue["edges"][1]["node"]["nextAttemptAt"] is None


def test_the_queue_is_read_page_by_page(api: ServedApi, engine: EngineStandIn) -> None:
    with api.operator() as machine:
        first = machine.data(QUEUE, first=1)["queue"]
        assert (len(first["edges"]), first["pageInfo"]["hasNextPage"]) == (1, True)
        second = machine.data(QUEUE, first=1, after=first["pageInfo"]["endCursor"])["queue"]
        assert (len(second["edges"]), second["pageInfo"]["hasNextPage"]) == (1, False)
        assert second["edges"][0]["node"]["id"] != first["edges"][0]["node"]["id"]
        assert machine.ask(QUEUE, first=101).codes == ["BAD_USER_INPUT"]
        assert machine.ask(QUEUE, after="!").codes == ["BAD_USER_INPUT"]


def test_the_engine_is_told_whose_mail_a_member_may_see_and_steer(api: ServedApi, engine: EngineStandIn) -> None:
    with signed_in(api) as (ada, account), signed_in(api, "op@people.test", Role.OPERATOR) as (operator, _):
        id = host(api, account, "ada.example")
        host(api, account, "typed.example", verified=False)
        own = {"ada.example": id}
        ada.data(QUEUE)
        ada.data(QUEUE, filter={"domain": "bob.example"})
        for verb in VERBS:
            assert ada.data(change(verb), filter={"recipient": "a@b.test"})[f"{verb}Deliveries"]["errors"] == []
        assert all(asked["within"] == own for asked in engine.asked)
        engine.asked.clear()
        operator.data(QUEUE)
        for verb in VERBS:
            operator.data(change(verb), filter={"recipient": "a@b.test"})
        assert not any("within" in asked for asked in engine.asked)


@pytest.mark.parametrize("verb", VERBS)
def test_a_filter_of_nothing_is_all_of_ones_own_and_an_operator_has_to_say_so(
    api: ServedApi, engine: EngineStandIn, verb: str
) -> None:
    with signed_in(api) as (ada, account), api.operator() as machine:
        id = host(api, account, "ada.example")
        assert machine.ask(change(verb), filter={}).codes == ["BAD_USER_INPUT"]
        assert machine.ask(change(verb), filter={"all": False}).codes == ["BAD_USER_INPUT"]
        assert machine.ask(change(verb), filter={"all": True, "sender": ""}).codes == ["BAD_USER_INPUT"]
        assert machine.ask(change(verb), filter={"domain": None}).codes == ["BAD_USER_INPUT"]
        assert engine.asked == []
        assert machine.data(change(verb), filter={"all": True})[f"{verb}Deliveries"]["affected"] == 2
        assert ada.data(change(verb), filter={})[f"{verb}Deliveries"]["affected"] == 2
        assert engine.asked == [{"all": True}, {"within": {"ada.example": id}}]


def test_what_is_typed_wrong_changes_nothing(api: ServedApi, engine: EngineStandIn) -> None:
    with signed_in(api) as (ada, _):
        for given, field in (({"domain": ""}, "domain"), ({"destinationDomain": "a b"}, "destinationDomain")):
            answer = ada.data(change("drop"), filter=given)["dropDeliveries"]
            assert (answer["affected"], answer["errors"][0]["field"]) == (0, [field])
            assert ada.ask(QUEUE, filter=given).codes == ["BAD_USER_INPUT"]
        assert engine.asked == []


def test_a_member_holds_mail_of_an_own_domain(api: ServedApi, engine: EngineStandIn) -> None:
    with signed_in(api) as (ada, account), api.operator() as machine:
        id = host(api, account, "ada.example")
        engine.holds.append({**HOLD, "domain": "ada.example"})
        for refused in ({}, {"destination": "home.test"}, {"domain": "bob.example"}, {"domain": "no domain"}):
            answer = ada.data(HOLD_IT, **refused)["addHold"]
            assert (answer["hold"], answer["affected"], len(answer["errors"])) == (None, 0, 1)
        assert engine.asked == []
        held = ada.data(HOLD_IT, domain="ada.example", sender="")["addHold"]
        assert (held["affected"], held["errors"]) == (2, [])
        assert (held["hold"]["domain"], held["hold"]["sender"]) == ("ada.example", "")
        assert machine.data(HOLD_IT)["addHold"]["errors"] != []
        assert machine.data(HOLD_IT, destination="home.test")["addHold"]["errors"] == []
        assert engine.asked == [
            {"domain": "ada.example", "sender": "", "within": {"ada.example": id}},
            {"destination": "home.test"},
        ]


def test_a_member_has_so_many_holds_and_an_operator_as_many_as_it_takes(api: ServedApi, engine: EngineStandIn) -> None:
    engine.holds += [{**HOLD, "id": f"h{number}", "domain": "ada.example"} for number in range(MOST_HOLDS - 1)]
    with signed_in(api) as (ada, account), api.operator() as machine:
        host(api, account, "ada.example")
        assert ada.data(HOLD_IT, domain="ada.example")["addHold"]["errors"] == []
        engine.holds.append({**HOLD, "domain": "ada.example"})
        (error,) = ada.data(HOLD_IT, domain="ada.example")["addHold"]["errors"]
        assert error["message"] == f"An account has at most {MOST_HOLDS} holds: lift one first."
        assert machine.data(HOLD_IT, destination="home.test")["addHold"]["errors"] == []
        assert len(engine.asked) == 2


def test_a_hold_is_lifted_by_its_id(api: ServedApi, engine: EngineStandIn) -> None:
    engine.holds.append(HOLD)
    with api.operator() as machine:
        (hold,) = machine.data("{ holds { id domain destinationDomain sender createdAt } }")["holds"]
        assert (hold["domain"], hold["destinationDomain"], hold["sender"]) == (None, "home.test", "")
        found = machine.data("query ($id: ID!) { node(id: $id) { ... on Hold { createdAt } } }", id=hold["id"])
        assert found == {"node": {"createdAt": format_instant(NOON)}}
        lifted = machine.data(LIFT, id=hold["id"])["liftHold"]
        assert (lifted["hold"], lifted["affected"]) == ({"id": hold["id"]}, 2)
        engine.holds.clear()
        assert machine.ask(LIFT, id=hold["id"]).codes == ["NOT_FOUND"]
        assert machine.ask(LIFT, id="nonsense").codes == ["NOT_FOUND"]


def test_strangers_see_and_steer_nothing(api: ServedApi, engine: EngineStandIn) -> None:
    with api.client() as nobody:
        for asked in (QUEUE, "{ holds { id } }", HOLD_IT):
            assert nobody.ask(asked).codes == ["UNAUTHENTICATED"]
        assert nobody.ask(LIFT, id="x").codes == ["UNAUTHENTICATED"]
        for verb in VERBS:
            assert nobody.ask(change(verb), filter={"all": True}).codes == ["UNAUTHENTICATED"]
    assert engine.asked == []


def test_an_engine_that_is_away_or_refuses_is_unavailable(api: ServedApi, config: Configuration) -> None:
    with api.operator() as machine:
        assert machine.ask(QUEUE).codes == ["UNAVAILABLE"]
        assert machine.ask(change("drop"), filter={"all": True}).codes == ["UNAVAILABLE"]
        assert machine.data("{ status { healthy nodes { name } } }") == {"status": {"healthy": False, "nodes": None}}
        with standing_in(config, []):
            assert machine.ask(change("drop"), filter={"sender": "refuse@me.test"}).codes == ["UNAVAILABLE"]


def test_the_status_has_numbers_for_operators_alone(api: ServedApi, engine: EngineStandIn) -> None:
    asked = "{ status { version healthy startedAt queued oldestQueuedAt openConnections nodes { name queued } } }"
    with signed_in(api) as (ada, _), api.operator() as machine:
        told = machine.data(asked)["status"]
        assert (told["queued"], told["openConnections"], told["startedAt"]) == (7, 2, format_instant(NOON))
        assert told["nodes"] == [{"name": "mx.onward.test", "queued": 7}]
        shown = ada.data(asked)["status"]
        assert shown == {name: shown[name] if name in ("version", "healthy") else None for name in shown}
        assert shown["healthy"] is True
