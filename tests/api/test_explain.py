"""What would become of a message, over the API: for own domains, with nothing sent."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import pytest
from control_api import limits
from control_api.operation_files import operation
from dns_server import DnsServer
from served_api import ServedApi, served_api
from signed_in import signed_in

from appliance.configuration import Configuration, load
from appliance.model.account import Account, Role
from appliance.model.domain import AliasAction, DeliveryMode, Domain, LogLevel

EXPLAIN = operation("explain")


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Configuration]:
    """An appliance that asks a name server which knows one destination."""
    path = tmp_path / "onward.toml"
    with DnsServer({"home.test": ["MX 10 mx.home.test."], "mx.home.test": ["A 127.0.0.1"]}) as dns:
        path.write_text(
            f'hostname = "mx.onward.test"\ndata_dir = "{tmp_path / "var"}"\n'
            f'[dns]\nnameservers = ["{dns.nameserver}"]\n[delivery]\nloopback_destinations = true\n'
        )
        yield load(path)


def hosted(api: ServedApi, account: Account, name: str = "example.org") -> Domain:
    return api.rooms.domains.add(
        name, account, verified=True, delivery_mode=DeliveryMode.TRANSIT, log_level=LogLevel.EVENTS
    )


def test_a_way_is_told_with_its_hosts(api: ServedApi) -> None:
    with signed_in(api) as (ada, account):
        api.rooms.aliases.create(hosted(api, account), "info", ["box@home.test"], confirmed=True)
        told = ada.data(EXPLAIN, recipient="Info+x@example.org", sender="bob@far.test", clientAddress="192.0.2.1")[
            "explain"
        ]
        assert (told["accepted"], told["code"], told["enhancedCode"]) == (True, 250, "2.1.5")
        assert told["reason"] == "accepted"
        assert "info@example.org (exact)" in " ".join(step["detail"] for step in told["steps"])
        (delivery,) = told["deliveries"]
        assert (delivery["target"], delivery["hosts"]) == ("box@home.test", ["mx.home.test"])
        assert delivery["mode"] == "TRANSIT"
        assert delivery["envelopeSender"].endswith("@srs.mx.onward.test")
        told = ada.data(EXPLAIN, recipient="info@example.org")["explain"]
        assert told["deliveries"][0]["envelopeSender"] == "", "a bounce, where nobody writes"


def test_a_refusal_is_told_as_its_sender_hears_it(api: ServedApi) -> None:
    with signed_in(api) as (ada, account):
        api.rooms.aliases.create(hosted(api, account), "later", action=AliasAction.DEFER)
        for recipient, code, reason in (
            ("later@example.org", 450, "alias-defers"),
            ("nobody@example.org", 550, "alias-unknown"),
        ):
            told = ada.data(EXPLAIN, recipient=recipient)["explain"]
            assert (told["accepted"], told["code"], told["reason"]) == (False, code, reason)
            assert told["deliveries"] == []
            assert told["steps"]


def test_members_ask_about_their_own_domains_and_operators_about_any(api: ServedApi) -> None:
    with signed_in(api) as (_, account), signed_in(api, "bob@people.test") as (bob, _), api.client() as nobody:
        hosted(api, account)
        for recipient in ("info@example.org", "a@elsewhere.test", "postmaster", "x@srs.mx.onward.test"):
            assert bob.ask(EXPLAIN, recipient=recipient).codes == ["NOT_FOUND"]
            assert nobody.ask(EXPLAIN, recipient=recipient).codes == ["UNAUTHENTICATED"]
        with signed_in(api, "op@people.test", Role.OPERATOR) as (operator, _), api.operator() as machine:
            for one in (operator, machine):
                assert one.data(EXPLAIN, recipient="info@example.org")["explain"]["code"] == 550
                assert one.data(EXPLAIN, recipient="a@elsewhere.test")["explain"]["reason"] == "relay-denied"
                (delivery,) = one.data(EXPLAIN, recipient="Postmaster")["explain"]["deliveries"]
                assert delivery["target"] == "op@people.test"


def test_what_is_no_address_is_bad_input(api: ServedApi) -> None:
    with signed_in(api) as (ada, account):
        hosted(api, account)
        assert ada.ask(EXPLAIN, recipient="nonsense").codes == ["BAD_USER_INPUT"]
        assert ada.ask(EXPLAIN, recipient="a@example.org", sender="nonsense").codes == ["BAD_USER_INPUT"]
        assert ada.ask(EXPLAIN, recipient="a@example.org", clientAddress="nonsense").codes == ["BAD_USER_INPUT"]


def test_what_is_behind_the_address_of_another_account_is_for_that_account_to_see(api: ServedApi) -> None:
    with signed_in(api) as (ada, account), signed_in(api, "bob@people.test") as (_, other):
        api.rooms.aliases.create(hosted(api, other, "bob.test"), "x", ["secret@home.test"], confirmed=True)
        api.rooms.aliases.create(hosted(api, account), "info", ["x@bob.test", "own@home.test"], confirmed=True)
        reply = ada.ask(EXPLAIN, recipient="info@example.org")
        told = reply.json["data"]["explain"]
        assert [delivery["target"] for delivery in told["deliveries"]] == ["x@bob.test", "own@home.test"]
        assert [delivery["hosts"] for delivery in told["deliveries"]] == [[], ["mx.home.test"]]
        assert b"secret" not in reply.body
        with api.operator() as machine:
            assert b"secret@home.test" in machine.ask(EXPLAIN, recipient="info@example.org").body


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[ServedApi]:
    """An API whose name server never answers, behind a proxy."""
    path = tmp_path / "onward.toml"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        path.write_text(
            f'hostname = "mx.onward.test"\ndata_dir = "{tmp_path / "var"}"\n[http]\ntrusted_proxies = ["127.0.0.0/8"]\n'
            f'[dns]\nnameservers = ["127.0.0.1:{silent.getsockname()[1]}"]\ntimeout = "{WAIT_S}s"\n'
        )
        with served_api(load(path)) as api:
            yield api


WAIT_S = 1


def asked_about(number: int) -> str:
    """Of so many aliases, whose mailboxes are at as many domains."""
    return "{" + " ".join(f'a{n}: explain(recipient: "a{n}@example.org") {{ code }}' for n in range(number)) + "}"


def aliases(api: ServedApi, account: Account, number: int) -> None:
    domain = hosted(api, account)
    for n in range(number):
        api.rooms.aliases.create(domain, f"a{n}", [f"box@home{n}.test"], confirmed=True)


def test_what_is_left_when_the_time_is_over_is_not_begun(waiting: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    with signed_in(waiting) as (ada, account):
        aliases(waiting, account, 10)
        monkeypatch.setattr(limits, "SECONDS", 1.5 * WAIT_S)
        began = time.monotonic()
        assert ada.ask(asked_about(10)).codes == ["TOO_COMPLEX"]
        assert time.monotonic() - began < 5 * WAIT_S, "they are ten"


def test_whoever_asks_for_what_takes_long_keeps_nobody_else_waiting(waiting: ServedApi) -> None:
    with signed_in(waiting) as (ada, account), waiting.client() as other, ThreadPoolExecutor(20) as many:
        aliases(waiting, account, 1)

        def ask() -> int:
            with waiting.client(cookies=dict(ada.cookies)) as one:
                return one.ask(asked_about(1), {"x-forwarded-for": "192.0.2.1"}).status

        asked = [many.submit(ask) for _ in range(16)]
        # As soon as one is answered, those behind it are under way.
        next(as_completed(asked)).result()
        began = time.monotonic()
        assert other.ask("{ status { version } }", {"x-forwarded-for": "192.0.2.2"}).status == 200
        assert time.monotonic() - began < WAIT_S / 2
        assert {one.result() for one in asked} == {200}
