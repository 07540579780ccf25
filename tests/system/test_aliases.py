"""Aliases of a whole appliance, changed while it runs: consent by mail, so many messages, expressions, `explain`."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from appliance_process import Settings, eventually
from control_api.operation_files import operation
from destination import ReceivedMessage
from graphql_client import GraphqlClient
from smtp_client import Closed
from world import World

WITHIN_S = 1.0
"""A change acts within a second on the next RCPT, whatever session it comes in."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """With one alias, and the rest made by the tests."""
    # Who asks for an alias until it is there would be taken for somebody who guesses addresses.
    settings: Settings = {"smtp": {"max_unknown_recipients": 10_000}}
    town = {"first@forward.test": ["first@dest.test"]}
    with World(tmp_path_factory.mktemp("aliases"), town, settings) as world:
        yield world


@pytest.fixture
def operator(world: World) -> Iterator[GraphqlClient]:
    """The operator of the machine."""
    with GraphqlClient(Path(world.appliance.data_dir) / "control.sock") as client:
        yield client


def create(operator: GraphqlClient, pattern: str, *destinations: str, **more: Any) -> Any:
    id = operator.data(operation("list_aliases"), domain="forward.test")["domain"]["id"]
    wish = {"domainId": id, "pattern": pattern, "destinations": list(destinations), **more}
    told = operator.data(operation("create_alias"), input=wish)["createAlias"]
    assert told["errors"] == []
    return told["alias"]


def becomes(world: World, recipient: str, code: int) -> None:
    """Wait for RCPT to answer so, in one session that was open before."""
    with world.appliance.client() as client:

        def look() -> bool:
            reply = client.envelope("ann@sender.test", [recipient])[-1]
            client.command("RSET")
            return reply.code == code

        eventually(look, WITHIN_S, f"{code} for {recipient}")


def the_link(letter: ReceivedMessage, page: str) -> str:
    found = re.search(rf"/#/{page}\?token=(\S+)".encode(), letter.content)
    assert found, letter.content
    return found[1].decode()


def test_nothing_is_forwarded_before_the_owner_says_yes_by_the_link_in_the_letter(
    world: World, operator: GraphqlClient
) -> None:
    create(operator, "ask", "asked@dest.test")
    becomes(world, "ask@forward.test", 451)
    (letter,) = world.arrived("asked@dest.test")
    assert letter.sender == "" or letter.sender.endswith("@mx.onward.test")
    with GraphqlClient(world.appliance.http_port) as owner:
        token = the_link(letter, "confirm-destination")
        told = owner.data(operation("confirm_destination"), token=token)["confirmDestination"]
    assert told["destination"] == {"target": "asked@dest.test", "confirmed": True}
    becomes(world, "ask@forward.test", 250)
    assert world.send("ask@forward.test").code == 250
    assert len(world.arrived("asked@dest.test", 2)) == 2


def test_the_command_line_has_the_running_appliance_ask(world: World, operator: GraphqlClient) -> None:
    added = world.appliance.cli("alias", "add", "cli@forward.test", "typed@dest.test")
    assert (added.status, "typed@dest.test has been asked by mail" in added.err) == (0, True)
    (letter,) = world.arrived("typed@dest.test")
    told = operator.data(operation("never_ask_again"), token=the_link(letter, "never-ask-again"))
    assert told["neverAskAgain"]["errors"] == []
    refused = world.appliance.cli("alias", "add", "cli2@forward.test", "typed@dest.test")
    assert (refused.status, "does not want to be asked" in refused.err) == (1, True)


def test_an_alias_for_two_messages_takes_two_also_over_a_kill(world: World, operator: GraphqlClient) -> None:
    made = create(operator, "twice", action="DISCARD", remainingUses=2)
    becomes(world, "twice@forward.test", 250)
    assert world.send("twice@forward.test").code == 250
    os.kill(world.appliance.children()[0], signal.SIGKILL)
    left = "query ($id: ID!) { node(id: $id) { ... on Alias { remainingUses } } }"

    def sent() -> bool:
        try:
            return world.send("twice@forward.test").code == 250
        except (OSError, Closed):
            return False  # the next engine is not there yet

    eventually(sent, 20, "an engine that takes it")
    assert world.ask("twice@forward.test").code == 550
    eventually(lambda: operator.data(left, id=made["id"])["node"]["remainingUses"] == 0, 5, "the count for people")


def test_an_expression_forwards_with_what_it_has_found(world: World, operator: GraphqlClient) -> None:
    world.appliance.settle("alias", "add", "plain@forward.test", "box@dest.test", "--confirmed")
    create(operator, "/^shop-(.+)$/", "box+$1@dest.test")
    becomes(world, "shop-one@forward.test", 250)
    assert world.send("Shop-Two@forward.test").code == 250
    assert world.arrived("box+two@dest.test")


def test_what_is_explained_is_what_rcpt_answers(world: World, operator: GraphqlClient) -> None:
    create(operator, "later", action="DEFER")
    becomes(world, "later@forward.test", 450)
    for recipient in ("first@forward.test", "later@forward.test", "nobody@forward.test", "a@elsewhere.test"):
        told = operator.data(operation("explain"), recipient=recipient, sender="ann@sender.test")["explain"]
        reply = world.ask(recipient)
        assert (told["code"], told["enhancedCode"]) == (reply.code, reply.text.split()[0])
    told = operator.data(operation("explain"), recipient="first@forward.test")["explain"]
    (delivery,) = told["deliveries"]
    assert (delivery["target"], delivery["hosts"]) == ("first@dest.test", ["mx1.dest.test", "mx2.dest.test"])


def test_nothing_is_held_against_the_appliance(world: World) -> None:
    world.queue_is_empty()
    assert world.objections() == []
