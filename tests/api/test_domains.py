"""Domains over the API: added, proven by DNS, set, shown to their owners alone, and removed."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from control_api.nouns.domains import MOST_LOOKED_UP
from control_api.operation_files import operation
from dns_server import Behaviour, DnsServer
from graphql_client import GraphqlClient
from served_api import ServedApi
from signed_in import signed_in

from appliance.configuration import Configuration, load
from appliance.model.account import Role
from appliance.model.domain import DeliveryMode, LogLevel

ADD = operation("add_domain")
CHECK = operation("check_domain")
UPDATE = operation("update_domain")
REMOVE = operation("remove_domain")
READ = operation("show_domain")
LIST = operation("list_domains")
NODE = "query ($id: ID!) { node(id: $id) { id ... on Domain { name } } }"


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    """A name server that knows of a domain, and nothing about it."""
    with DnsServer({"example.org": []}) as server:
        yield server


@pytest.fixture
def config(tmp_path: Path, dns: DnsServer) -> Configuration:
    """An appliance that asks that name server."""
    path = tmp_path / "onward.toml"
    path.write_text(
        f'hostname = "mx.onward.test"\ndata_dir = "{tmp_path / "var"}"\n'
        f'[dns]\nnameservers = ["{dns.nameserver}"]\ntimeout = "1s"\n[log]\nlevel = "errors"\n'
    )
    return load(path)


def added(client: GraphqlClient, name: str = "example.org") -> Any:
    told = client.data(ADD, name=name)["addDomain"]
    assert told["errors"] == []
    return told["domain"]


def test_a_new_domain_is_as_the_configuration_says_and_is_not_verified(api: ServedApi) -> None:
    with signed_in(api) as (ada, account):
        domain = added(ada, "Bücher.example")
        assert (domain["name"], domain["verified"]) == ("xn--bcher-kva.example", False)
        assert (domain["deliveryMode"], domain["logLevel"]) == ("SPOOL", "ERRORS")
        assert (domain["quarantineAction"], domain["allowFromRewrite"]) == ("FORWARD", False)
        assert ada.data(READ, name="bücher.EXAMPLE.") == {"domain": domain}
        assert ada.data(NODE, id=domain["id"]) == {"node": {"id": domain["id"], "name": domain["name"]}}
        assert api.rooms.domains.count(account.id) == 1


def test_what_is_no_domain_is_a_mistake_that_can_be_put_right(api: ServedApi) -> None:
    with signed_in(api) as (ada, _):
        for name in ("", "localhost", "a b.test", "mx.onward.test", "ada@example.org", "192.0.2.1"):
            told = ada.data(ADD, name=name)["addDomain"]
            assert told["domain"] is None
            assert told["errors"][0]["field"] == ["name"]
        for name in ("", "localhost", "a@b.test"):
            assert ada.ask(READ, name=name).codes == ["BAD_USER_INPUT"]


def test_a_domain_is_proven_by_its_record(api: ServedApi, dns: DnsServer) -> None:
    with signed_in(api) as (ada, _):
        domain = added(ada)
        told = ada.data(CHECK, id=domain["id"])["checkDomain"]
        assert (told["domain"]["verified"], told["errors"]) == (False, [])
        records = {record["purpose"]: record for record in told["domain"]["dnsRecords"]}
        assert set(records) == {"OWNERSHIP", "MX", "SPF", "DMARC"}
        proof = records["OWNERSHIP"]
        assert (proof["name"], proof["type"], proof["required"]) == ("_onward-challenge.example.org", "TXT", True)
        assert (proof["found"], proof["ok"]) == ([], False)
        assert "Add this record" in proof["advice"]
        assert records["MX"]["expected"] == "10 mx.onward.test"
        dns.set(proof["name"], f'TXT "{proof["expected"]}"')
        dns.queries.clear()
        told = ada.data(CHECK, id=domain["id"])["checkDomain"]
        assert told["domain"]["verified"]
        assert sum(dns.queries.values()) == 4, "what was looked up is shown, and not looked up once more"
        assert ada.data(READ, name="example.org")["domain"]["verified"]


def test_a_dns_that_fails_proves_nothing_and_refutes_nothing(api: ServedApi, dns: DnsServer) -> None:
    with signed_in(api) as (ada, _):
        domain = added(ada)
        dns.behave("_onward-challenge.example.org", Behaviour.SERVFAIL)
        told = ada.data(CHECK, id=domain["id"])["checkDomain"]
        assert (told["domain"], told["errors"][0]["code"]) == (None, "DNS_UNAVAILABLE")


def test_what_is_given_is_set_and_the_rest_stays(api: ServedApi) -> None:
    with signed_in(api) as (ada, _):
        domain = added(ada)
        del domain["dnsRecords"]

        def updated(**wish: Any) -> Any:
            told = ada.data(UPDATE, id=domain["id"], **wish)["updateDomain"]
            assert told["errors"] == []
            return told["domain"]

        expected = {**domain, "deliveryMode": "TRANSIT", "allowFromRewrite": True}
        assert updated(deliveryMode="TRANSIT", allowFromRewrite=True) == expected
        expected |= {"logLevel": "NONE", "quarantineAction": "REJECT", "allowFromRewrite": False}
        assert updated(logLevel="NONE", quarantineAction="REJECT", allowFromRewrite=False) == expected
        assert updated(deliveryMode=None) == expected


def test_the_domains_of_others_are_not_there(api: ServedApi) -> None:
    with signed_in(api) as (ada, _), signed_in(api, "bob@people.test") as (bob, _), api.client() as nobody:
        id = added(ada)["id"]
        assert bob.data(READ, name="example.org") == {"domain": None}
        assert bob.data(NODE, id=id) == {"node": None}
        for operation in (CHECK, UPDATE, REMOVE):
            assert bob.ask(operation, id=id).codes == ["NOT_FOUND"]
            assert nobody.ask(operation, id=id).codes == ["UNAUTHENTICATED"]
        with signed_in(api, "op@people.test", Role.OPERATOR) as (operator, _), api.operator() as machine:
            for one in (operator, machine):
                assert one.data(READ, name="example.org")["domain"]["id"] == id
        own = added(bob)
        assert own["id"] != id, "what nobody has proven may be claimed by several"
        assert bob.data(READ, name="example.org")["domain"]["id"] == own["id"]


def test_a_removed_domain_is_gone_with_its_aliases(api: ServedApi) -> None:
    with signed_in(api) as (ada, account):
        domain = added(ada)
        stored = api.rooms.domains.of(account.id, "example.org")
        assert stored is not None
        api.rooms.aliases.create(stored, "info", ["ada@home.test"], confirmed=True)
        assert ada.data(REMOVE, id=domain["id"]) == {"removeDomain": {"errors": []}}
        assert ada.data(READ, name="example.org") == {"domain": None}
        assert list(api.rooms.aliases.every()) == []
        assert ada.ask(REMOVE, id=domain["id"]).codes == ["NOT_FOUND"]


def test_one_operation_looks_up_only_so_many_domains(api: ServedApi, dns: DnsServer) -> None:
    with signed_in(api) as (ada, account):
        for number in range(MOST_LOOKED_UP + 1):
            api.rooms.domains.add(
                f"d{number}.test",
                replace(account, plan="premium"),
                verified=False,
                delivery_mode=DeliveryMode.SPOOL,
                log_level=LogLevel.NONE,
            )
        asked = "query ($first: Int) { viewer { domains(first: $first) { edges { node { dnsRecords { ok } } } } } }"
        assert "errors" not in ada.ask(asked, first=MOST_LOOKED_UP).json
        assert ada.ask(asked, first=MOST_LOOKED_UP + 1).codes == ["TOO_COMPLEX"]


def test_a_plan_bounds_the_domains_and_they_are_listed_page_by_page(api: ServedApi) -> None:
    with signed_in(api) as (ada, account):
        limit = api.rooms.plans[account.plan].max_domains
        for number in range(limit):
            added(ada, f"d{number}.test")
        refused = ada.data(ADD, name="more.test")["addDomain"]
        assert "as many domains as the plan" in refused["errors"][0]["message"]
        page = ada.data(LIST, first=2)["viewer"]["domains"]
        assert page["totalCount"] == limit
        assert page["pageInfo"]["hasNextPage"]
        names = [edge["node"]["name"] for edge in page["edges"]]
        rest = ada.data(LIST, first=50, after=page["pageInfo"]["endCursor"])["viewer"]["domains"]
        names += [edge["node"]["name"] for edge in rest["edges"]]
        assert names == [f"d{number}.test" for number in range(limit)]
        assert not rest["pageInfo"]["hasNextPage"]
