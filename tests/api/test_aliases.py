"""Aliases over the API, and the word of those whose mailboxes they lead to."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from control_api.operation_files import operation
from graphql_client import GraphqlClient
from served_api import ServedApi
from signed_in import signed_in

from appliance.model.account import Account
from appliance.model.domain import DeliveryMode, LogLevel

CREATE = operation("create_alias")
UPDATE = operation("update_alias")
DELETE = operation("delete_alias")
LIST = operation("list_aliases")
CONFIRM = operation("confirm_destination")
NEVER = operation("never_ask_again")
NODE = """
query ($id: ID!) { node(id: $id) { ... on Alias {
  id domain { id name } pattern kind action destinations { target confirmed }
  enabled expiresAt remainingUses description createdAt
} } }
"""


class House:
    """Somebody with a verified domain, and what she does with its aliases."""

    def __init__(self, api: ServedApi, client: GraphqlClient, account: Account, domain_id: str) -> None:
        self.api = api
        self.client = client
        self.account = account
        self.domain_id = domain_id

    def create(self, pattern: str, *destinations: str, **more: Any) -> Any:
        wish = {"domainId": self.domain_id, "pattern": pattern, "destinations": list(destinations), **more}
        return self.client.data(CREATE, input=wish)["createAlias"]

    def made(self, pattern: str, *destinations: str, **more: Any) -> Any:
        told = self.create(pattern, *destinations, **more)
        assert told["errors"] == []
        return told["alias"]

    def token(self) -> str:
        """That was mailed last."""
        found = re.search(r"/#/confirm-destination\?token=(\S+)", self.api.letters.sent[-1].text)
        assert found
        return found[1]


@contextmanager
def a_house(api: ServedApi, email: str, domain: str) -> Iterator[House]:
    with signed_in(api, email) as (client, account):
        api.rooms.domains.add(
            domain, account, verified=True, delivery_mode=DeliveryMode.SPOOL, log_level=LogLevel.EVENTS
        )
        yield House(api, client, account, client.data(LIST, domain=domain)["domain"]["id"])


@pytest.fixture
def house(api: ServedApi) -> Iterator[House]:
    """Ada, who has example.org."""
    with a_house(api, "ada@people.test", "example.org") as house:
        yield house


def test_an_alias_is_what_was_asked_for(house: House) -> None:
    made = house.made(
        "Sales*",
        "box@example.org",
        expiresAt="2999-01-01T00:00:00.000Z",
        remainingUses=7,
        description="for the shop",
        enabled=False,
    )
    assert (made["pattern"], made["kind"], made["action"]) == ("sales*", "WILDCARD", "FORWARD")
    assert (made["enabled"], made["expiresAt"]) == (False, "2999-01-01T00:00:00.000Z")
    assert (made["remainingUses"], made["description"]) == (7, "for the shop")
    assert made["domain"] == {"id": house.domain_id, "name": "example.org"}
    assert made["destinations"] == [{"target": "box@example.org", "confirmed": True}]
    assert house.client.data(NODE, id=made["id"]) == {"node": made}


def test_the_pattern_says_of_which_kind_an_alias_is(house: House) -> None:
    kinds = {"info": "EXACT", "in*": "WILDCARD", "*": "CATCH_ALL", "/^support-(.+)$/": "REGEX"}
    for pattern, kind in kinds.items():
        made = house.made(pattern, action="REJECT")
        assert (made["pattern"], made["kind"], made["destinations"]) == (pattern, kind, [])


def test_an_owner_is_asked_by_mail_and_says_yes_without_an_account(house: House, api: ServedApi) -> None:
    made = house.made("info", "Box@Home.test")
    assert made["destinations"] == [{"target": "Box@home.test", "confirmed": False}]
    assert [letter.recipient for letter in api.letters.sent] == ["box@home.test"]
    with api.client() as owner:
        told = owner.data(CONFIRM, token=house.token())["confirmDestination"]
        assert told == {"destination": {"target": "box@home.test", "confirmed": True}, "errors": []}
        again = owner.data(CONFIRM, token=house.token())["confirmDestination"]
        assert (again["destination"], again["errors"][0]["code"]) == (None, "LINK_INVALID")
    assert house.client.data(NODE, id=made["id"])["node"]["destinations"][0]["confirmed"]


def test_an_owner_who_wants_peace_has_it(house: House, api: ServedApi) -> None:
    house.made("info", "box@home.test")
    with api.client() as owner:
        assert owner.data(NEVER, token=house.token())["neverAskAgain"]["errors"] == []
    told = house.create("sales", "box@home.test")
    assert (told["alias"], told["errors"][0]["code"]) == (None, "NOT_TO_BE_ASKED")
    assert told["errors"][0]["field"] == ["destinations"]


def test_who_asks_too_often_hears_that_it_is_too_often(house: House) -> None:
    for number in range(3):
        made = house.made(f"a{number}", "box@home.test")
        house.client.data(DELETE, id=made["id"])
    wish = {"domainId": house.domain_id, "pattern": "more", "destinations": ["box@home.test"]}
    assert house.client.ask(CREATE, input=wish).codes == ["RATE_LIMITED"]


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"pattern": "a*b", "destinations": ["a@example.org"]}, "pattern"),
    ({"pattern": "/(/", "destinations": ["a@example.org"]}, "pattern"),
    ({"pattern": "info@example.org", "destinations": ["a@example.org"]}, "pattern"),
    ({"pattern": "x"}, "destinations"),
    ({"pattern": "x", "destinations": ["nonsense"]}, "destinations"),
    ({"pattern": "/^(.+)$/", "destinations": ["$1@home.test"]}, "destinations"),
    ({"pattern": "x", "action": "REJECT", "expiresAt": "2001-01-01T00:00:00Z"}, "expiresAt"),
    ({"pattern": "x", "action": "REJECT", "remainingUses": 0}, "remainingUses"),
]


def test_a_broken_rule_is_told_with_its_field_and_nothing_is_made(house: House) -> None:
    for wish, field in BROKEN:
        told = house.client.data(CREATE, input={"domainId": house.domain_id, **wish})["createAlias"]
        assert (told["alias"], told["errors"][0]["field"]) == (None, [field])
    assert house.client.data(LIST, domain="example.org")["domain"]["aliases"]["totalCount"] == 0


def test_what_is_given_is_changed_null_takes_away_and_the_rest_stays(house: House) -> None:
    made = house.made("info", "box@example.org", remainingUses=3, description="x", expiresAt="2999-01-01T00:00:00Z")

    def changed(**wish: Any) -> Any:
        told = house.client.data(UPDATE, id=made["id"], input=wish)["updateAlias"]
        assert told["errors"] == []
        return told["alias"]

    assert changed(enabled=False) == {**made, "enabled": False}
    assert changed(enabled=None, pattern=None, action=None, destinations=None) == {**made, "enabled": False}
    bare = {**made, "enabled": False, "remainingUses": None, "description": None, "expiresAt": None}
    assert changed(remainingUses=None, description=None, expiresAt=None) == bare
    assert changed(action="DEFER", pattern="in*") == {**bare, "action": "DEFER", "pattern": "in*", "kind": "WILDCARD"}
    refused = house.client.data(UPDATE, id=made["id"], input={"pattern": "**"})["updateAlias"]
    assert (refused["alias"], refused["errors"][0]["field"]) == (None, ["pattern"])


def test_the_aliases_of_others_are_not_there(house: House, api: ServedApi) -> None:
    made = house.made("info", "box@example.org")
    with a_house(api, "bob@people.test", "bob.test") as other, api.client() as nobody:
        assert other.client.data(NODE, id=made["id"]) == {"node": None}
        wish = {"domainId": house.domain_id, "pattern": "x", "action": "REJECT"}
        for client, code in ((other.client, "NOT_FOUND"), (nobody, "UNAUTHENTICATED")):
            assert client.ask(CREATE, input=wish).codes == [code]
            assert client.ask(UPDATE, id=made["id"], input={"enabled": False}).codes == [code]
            assert client.ask(DELETE, id=made["id"]).codes == [code]
    assert house.client.data(NODE, id=made["id"])["node"]["enabled"]


def test_aliases_are_listed_page_by_page_and_found_by_what_is_in_them(house: House) -> None:
    for number in range(5):
        house.made(f"shop{number}", f"box{number}@example.org")
    page = house.client.data(LIST, domain="example.org", first=2)["domain"]["aliases"]
    assert (page["totalCount"], page["pageInfo"]["hasNextPage"]) == (5, True)
    after = page["pageInfo"]["endCursor"]
    # What is made or goes in between moves no page.
    house.made("later", action="REJECT")
    rest = house.client.data(LIST, domain="example.org", first=10, after=after)["domain"]["aliases"]
    assert [edge["node"]["pattern"] for edge in rest["edges"]] == ["shop2", "shop3", "shop4", "later"]
    found = house.client.data(LIST, domain="example.org", search="BOX3")["domain"]["aliases"]
    assert [edge["node"]["pattern"] for edge in found["edges"]] == ["shop3"]
    assert found["totalCount"] == 1
