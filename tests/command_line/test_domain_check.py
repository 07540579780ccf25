"""`onward domain check`: what DNS answers now, what is wrong with it, and the proof by which a domain is verified."""

import json
from collections.abc import Iterator

import pytest
from command_line_desk import HOSTNAME, OWNER, Desk
from dns_server import Behaviour, DnsServer


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    """A name server that knows a domain, and nothing about it."""
    with DnsServer({"example.org": []}) as server:
        yield server


@pytest.fixture
def claimed(desk: Desk, dns: DnsServer) -> Desk:
    """A desk with a domain that nobody has proven."""
    desk.configure(f'[dns]\nnameservers = ["{dns.nameserver}"]\ntimeout = "1s"')
    desk.done("account", "add", OWNER)
    desk.done("domain", "add", "example.org", "--account", OWNER)
    return desk


def test_what_is_to_be_published_verifies_the_domain_once_it_is(claimed: Desk, dns: DnsServer) -> None:
    before = claimed.type("domain", "check", "example.org", "--json")
    told = json.loads(before.stdout)
    assert (before.exit_code, told["name"], told["verified"]) == (1, "example.org", False)
    for record in told["dnsRecords"]:
        assert record["advice"]
        dns.set(record["name"], *dns_of(told["dnsRecords"], record["name"]))
    after = claimed.done("domain", "check", "example.org", "--json")
    told = json.loads(after.stdout)
    assert told["verified"]
    assert [record["advice"] for record in told["dnsRecords"]] == [None] * len(told["dnsRecords"])
    assert [row["verified"] for row in claimed.rows("domain", "list")] == [True]


def dns_of(records: list[dict[str, str]], name: str) -> list[str]:
    """What a zone has to say of a name that all of these are met."""
    return [
        f"MX {record['expected']}." if record["type"] == "MX" else f'TXT "{record["expected"]}"'
        for record in records
        if record["name"] == name
    ]


def test_people_are_told_what_is_missing_and_how_to_mend_it(claimed: Desk) -> None:
    told = claimed.type("domain", "check", "Example.org").stdout
    assert "example.org is not verified yet" in told
    assert "MISSING _onward-challenge.example.org  TXT  onward-verification=" in told
    assert f"MISSING example.org  MX  10 {HOSTNAME}" in told
    assert f"add an MX record that names {HOSTNAME}" in told
    assert "advised _dmarc.example.org  TXT  v=DMARC1" in told


def test_a_dns_that_is_away_is_said_to_be_away(claimed: Desk, dns: DnsServer) -> None:
    dns.behave("_onward-challenge.example.org", Behaviour.SERVFAIL)
    refused = claimed.type("domain", "check", "example.org")
    assert refused.exit_code == 1
    assert "could not be looked up just now" in refused.stderr


def test_what_could_not_be_looked_up_is_not_said_to_be_missing(claimed: Desk, dns: DnsServer) -> None:
    dns.behave("example.org", Behaviour.TIMEOUT)
    told = claimed.type("domain", "check", "example.org").stdout
    assert "unknown example.org  MX" in told
    assert "MISSING example.org" not in told


def test_a_verified_domain_without_its_mx_is_not_in_order(claimed: Desk) -> None:
    claimed.done("domain", "add", "example.org", "--account", OWNER, "--verified")
    checked = claimed.type("domain", "check", "example.org")
    assert checked.exit_code == 1
    assert "example.org is verified." in checked.stdout


def test_a_domain_that_is_not_here_is_not_looked_up(claimed: Desk, dns: DnsServer) -> None:
    refused = claimed.type("domain", "check", "other.test")
    assert refused.exit_code == 1
    assert "not hosted here" in refused.stderr
    assert not dns.queries
