"""`onward explain`: the decision that RCPT would get, and where the copies would go, as DNS says."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from command_line_desk import OWNER, Desk
from dns_server import DnsServer

from appliance.accounts.blocks import Blocks
from appliance.configuration import load
from appliance.model.block import BlockKind
from appliance.run.stores import open_records


@pytest.fixture
def settled(desk: Desk) -> Iterator[Desk]:
    """A desk with an alias, and a DNS that knows its destination."""
    records = {"home.test": ["MX 20 second.home.test.", "MX 10 first.home.test."]}
    records |= {f"{host}.home.test": ["A 127.0.0.1"] for host in ("first", "second")}
    records |= {"1.2.0.192.in-addr.arpa": ["PTR m1.news.test."], "m1.news.test": ["A 192.0.2.1"]}
    with DnsServer(records) as dns:
        desk.configure(
            f'[dns]\nnameservers = ["{dns.nameserver}"]\ntimeout = "2s"\n[delivery]\nloopback_destinations = true'
        )
        desk.settle()
        yield desk


def explain(desk: Desk, *arguments: str) -> Any:
    """The explanation as JSON."""
    return json.loads(desk.done("explain", *arguments, "--json").stdout)


def test_a_forwarded_address(settled: Desk) -> None:
    explained = explain(settled, "info+tag@Example.org", "--from", "bob@elsewhere.test")
    assert (explained["accepted"], explained["code"], explained["enhancedCode"]) == (True, 250, "2.1.5")
    (delivery,) = explained["deliveries"]
    assert delivery["target"] == "ada@home.test"
    assert delivery["hosts"] == ["first.home.test", "second.home.test"]
    assert delivery["mode"] == "SPOOL"
    assert delivery["envelopeSender"].startswith("srs0=")
    assert delivery["envelopeSender"].endswith("@srs.mx.onward.test")


def test_without_a_sender_it_is_a_bounce(settled: Desk) -> None:
    for arguments in ((), ("--from", ""), ("--from", "<>")):
        (delivery,) = explain(settled, "info@example.org", *arguments)["deliveries"]
        assert delivery["envelopeSender"] == ""


@pytest.mark.parametrize(
    ("address", "code", "reason"),
    [
        ("nobody@example.org", 550, "alias-unknown"),
        ("info@other.test", 550, "relay-denied"),
        ("x@srs.mx.onward.test", 550, "return-path-unknown"),
        ("postmaster", 250, "accepted"),
        ("Postmaster@example.org", 250, "accepted"),
    ],
)
def test_other_addresses(settled: Desk, address: str, code: int, reason: str) -> None:
    explained = explain(settled, address, "--client", "192.0.2.1")
    assert (explained["code"], explained["reason"], explained["accepted"]) == (code, reason, code == 250)
    assert explained["steps"]


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        (BlockKind.SENDER_DOMAIN, "elsewhere.test", "sender-blocked"),
        (BlockKind.CLIENT_ADDRESS, "192.0.2.0/24", "client-blocked"),
        (BlockKind.CLIENT_NAME, "news.test", "client-blocked"),
    ],
)
def test_what_the_operators_refuse_is_told_with_their_reason(
    settled: Desk, kind: BlockKind, value: str, reason: str
) -> None:
    records = open_records(load(settled.config))
    Blocks(records).create(kind, value, "It sends spam.")
    records.close()
    asked = ("info@example.org", "--from", "bob@elsewhere.test", "--client")
    for client in ("192.0.2.1", "::ffff:192.0.2.1"):
        explained = explain(settled, *asked, client)
        assert (explained["code"], explained["enhancedCode"], explained["reason"]) == (550, "5.7.1", reason)
        (step,) = explained["steps"]
        assert step["detail"] == f"MAIL is refused, by a block of {value}: It sends spam."
    other = explain(settled, *asked, "198.51.100.1")
    assert other["accepted"] is (reason == "client-blocked")


def test_a_destination_that_dns_does_not_know_is_told(settled: Desk) -> None:
    settled.done("alias", "add", "lost@example.org", "ada@nowhere.test", "--confirmed")
    people = settled.done("explain", "lost@example.org").stdout
    assert "nowhere.test does not exist" in people
    assert "→ ada@nowhere.test, from <>, mode spool" in people


def test_with_a_smarthost_all_mail_goes_there_and_the_dns_is_not_asked(desk: Desk) -> None:
    desk.configure('[dns]\nnameservers = ["127.0.0.1:9"]\n[delivery]\nsmarthost = "smtp://me@relay.example:587"')
    desk.settle()
    explained = explain(desk, "info@example.org")
    assert [delivery["hosts"] for delivery in explained["deliveries"]] == [["relay.example"]]
    assert explained["steps"][-1] == {
        "check": "hosts",
        "outcome": "ok",
        "detail": "all mail that leaves goes to the smarthost relay.example, port 587",
    }


def test_explaining_for_people(settled: Desk) -> None:
    lines = settled.done("explain", "info@example.org", "--from", "bob@elsewhere.test").stdout.splitlines()
    assert lines[0].startswith("accepted: 250 2.1.5")
    assert "→ ada@home.test by first.home.test, second.home.test, from srs0=" in lines[-1]


def test_postmaster_goes_to_the_operator(settled: Desk) -> None:
    (delivery,) = explain(settled, "postmaster")["deliveries"]
    assert delivery["target"] == OWNER


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["nonsense"], 1), (["a@b@c"], 1), (["info@example.org", "--from", "x"], 1), (["a@b.test", "--client", "x"], 2)],
)
def test_what_cannot_be_explained(desk: Desk, arguments: list[str], status: int) -> None:
    assert desk.type("explain", *arguments).exit_code == status
