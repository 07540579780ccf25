"""The operations that are written down: each is valid, and executed by a test. Those about mail and the log, here."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from control_api.ids import global_id
from control_api.operation_files import folder, operation
from control_api.schema import SCHEMA
from engine_stand_in import DELIVERY, HOLD, EngineStandIn, standing_in
from graphql import OperationDefinitionNode, parse, validate
from served_api import ServedApi
from stored_values import an_event
from websocket_client import websocket

from appliance.configuration import Configuration
from appliance.model.access import Scope
from appliance.model.domain import DeliveryMode, Domain, LogLevel
from appliance.model.ids import id_source
from appliance.privacy.declarations import EVENTS
from appliance.storage.event_rows import event_to_row
from appliance.storage.records import Insert

FILTER = {"filter": {"all": True}}
OPERATIONS: dict[str, dict[str, Any]] = {
    "add_hold": {"destinationDomain": "home.test"},
    "drop_deliveries": FILTER,
    "fail_deliveries": FILTER,
    "hold_deliveries": FILTER,
    "lift_hold": {"id": global_id("Hold", "h1")},
    "list_holds": {},
    "list_messages": {"domain": "example.org"},
    "list_queue": {"first": 10, "filter": {"state": "WAITING"}},
    "release_deliveries": FILTER,
    "retry_deliveries": FILTER,
    "show_statistics": {"domain": "example.org", "days": 2},
    "show_status": {},
}
"""Variables of each, with which it has something to show."""
SUBSCRIPTIONS: dict[str, dict[str, Any]] = {
    "follow_log": {"domain": "example.org", "after": global_id("DeliveryEvent", "0" * 20)},
}


@pytest.fixture
def engine(config: Configuration, api: ServedApi) -> Iterator[EngineStandIn]:
    """With a delivery and a hold; and a domain is there, with an event."""
    account = api.rooms.accounts.add("ada@people.test")
    domain: Domain = api.rooms.domains.add(
        "example.org", account, verified=True, delivery_mode=DeliveryMode.SPOOL, log_level=LogLevel.EVENTS
    )
    event = an_event(id=id_source()(), domain_id=domain.id)
    api.rooms.records.apply([Insert(EVENTS, event_to_row(event))])
    with standing_in(config, [DELIVERY]) as engine:
        engine.holds.append(HOLD)
        yield engine


NAMES = sorted(file.stem for file in folder().iterdir())


def test_none_is_without_a_test() -> None:
    tests = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    executed = set(re.findall(r'operation\("(\w+)"\)', tests)) | OPERATIONS.keys() | SUBSCRIPTIONS.keys()
    assert executed == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_one_valid_operation_that_is_named_as_its_file(name: str) -> None:
    document = parse(operation(name))
    assert validate(SCHEMA._schema, document) == []
    (one,) = document.definitions
    assert isinstance(one, OperationDefinitionNode)
    assert one.name is not None
    assert one.name.value == "".join(word.capitalize() for word in name.split("_"))


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_is_answered(api: ServedApi, engine: EngineStandIn, name: str) -> None:
    with api.operator() as machine:
        ((_, answer),) = machine.data(operation(name), **OPERATIONS[name]).items()
    assert answer
    assert not isinstance(answer, dict) or not answer.get("errors")


@pytest.mark.parametrize("name", SUBSCRIPTIONS)
async def test_each_is_told_what_happens(api: ServedApi, engine: EngineStandIn, name: str) -> None:
    secret, _ = api.rooms.entrance.api_tokens.create(
        api.rooms.accounts.of("ada@people.test"), "a program", frozenset({Scope.LOGS}), None
    )
    async with websocket(api.port) as client:
        await client.introduce({"authorization": f"Bearer {secret}"})
        await client.subscribe("1", operation(name), **SUBSCRIPTIONS[name])
        answer = await client.hear()
    assert answer["type"] == "next", answer
    assert "errors" not in answer["payload"]
