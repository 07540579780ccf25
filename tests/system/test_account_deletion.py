"""An account is deleted while the appliance runs, with mail of it under way."""

import json
from collections.abc import Iterator

import pytest
from appliance_process import eventually
from graphql_client import GraphqlClient
from world import World

from appliance.configuration import CONTROL_SOCKET
from appliance.privacy.signatures import is_signed

PASSWORD = "correct horse"
SIGN_IN = """
mutation ($email: String!, $password: String!) { signIn(email: $email, password: $password) { account { id } } }
"""
EXPORT = "mutation ($password: String!) { exportAccount(password: $password) { json } }"
DELETE = """
mutation ($password: String!) {
  deleteAccount(password: $password, queuedMail: DROP) { receipt { removed { collection count } } }
}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("account_deletion"), {"owner@stays.test": ["owner.box@dest.test"]}) as world:
        yield world
        assert world.objections() == []


def an_account_with_mail_under_way(world: World, email: str, domain: str, mailbox: str) -> None:
    """All its mail is kept back, as is that of the account that stays."""
    appliance = world.appliance
    done = appliance.cli("account", "add", email, "--password-stdin", stdin=PASSWORD)
    assert done.status == 0
    appliance.add_domain(domain, account=email)
    appliance.add_alias(f"info@{domain}", mailbox)
    appliance.done("queue", "hold", "--destination", "dest.test")
    eventually(lambda: world.ask(f"info@{domain}").code == 250, what="the alias in force")
    assert world.send(f"info@{domain}").code == 250
    eventually(lambda: appliance.log_events("--domain", domain), what="the log of it")


def test_mail_under_way_is_still_delivered_and_nothing_is_logged_of_it(world: World) -> None:
    an_account_with_mail_under_way(world, "ada@people.test", "ada.test", "ada.box@dest.test")
    appliance = world.appliance
    receipt = appliance.done("account", "delete", "ada@people.test", "--json").json
    removed = {each["collection"]: each["count"] for each in receipt["removed"]}
    assert (removed["domains"], removed["aliases"], removed["destinations"]) == (1, 1, 1)
    assert removed["events"] >= 1
    assert is_signed(receipt["signedText"], receipt["signature"], receipt["publicKey"])
    eventually(lambda: world.ask("info@ada.test").code == 550, within=2, what="the domain gone")
    appliance.done("queue", "release", "--destination", "dest.test")
    world.arrived("ada.box@dest.test")
    world.queue_is_empty()
    assert not any(each["message"]["recipient"] == "info@ada.test" for each in appliance.log_events())


def test_mail_under_way_is_dropped_where_the_owner_says_so(world: World) -> None:
    an_account_with_mail_under_way(world, "bob@people.test", "bob.test", "bob.box@dest.test")
    appliance = world.appliance
    assert world.send("owner@stays.test").code == 250
    with GraphqlClient(appliance.http_port) as bob:
        assert bob.data(SIGN_IN, email="bob@people.test", password=PASSWORD)["signIn"]["account"]
        document = json.loads(bob.data(EXPORT, password=PASSWORD)["exportAccount"]["json"])
        assert [row["name"] for row in document["collections"]["domains"]["rows"]] == ["bob.test"]
        assert document["collections"]["events"]["rows"][0]["recipient"] == "info@bob.test"
        receipt = bob.data(DELETE, password=PASSWORD)["deleteAccount"]["receipt"]
        removed = {each["collection"]: each["count"] for each in receipt["removed"]}
        assert (removed["deliveries"], removed["sessions"], removed["accounts"]) == (1, 1, 1)
        assert bob.data("{ viewer { id } }") == {"viewer": None}
    # That of others stays where it is.
    assert [each["recipient"] for each in appliance.queue()] == ["owner@stays.test"]
    appliance.done("queue", "release", "--destination", "dest.test")
    world.arrived("owner.box@dest.test")
    world.queue_is_empty()
    assert not world.main.for_recipient("bob.box@dest.test")


def test_the_operator_of_the_machine_sees_how_much_is_stored(world: World) -> None:
    world.queue_is_empty()
    with GraphqlClient(world.appliance.data_dir / CONTROL_SOCKET) as machine:
        told = machine.data("{ privacyPolicy { digest collections { name count } } }")["privacyPolicy"]
    counts = {each["name"]: each["count"] for each in told["collections"]}
    assert (counts["accounts"], counts["deliveries"], counts["content"]) == (1, 0, None)
    assert world.appliance.done("version", "--json").json["policyDigest"] == told["digest"]
