"""The API of a whole appliance: over its port and its socket, beside the engine, and without it."""

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio
from appliance_process import Appliance, eventually
from graphql_client import GraphqlClient
from websocket_client import websocket

from appliance.version import version

STATUS = "{ status { version healthy startedAt queued openConnections } }"


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """An appliance that hosts forward.test."""
    one = Appliance(tmp_path_factory.mktemp("appliance"), nameserver="127.0.0.1:9", delivery_port=9)
    one.settle("account", "add", "owner@people.test")
    one.settle("domain", "add", "forward.test", "--account", "owner@people.test", "--verified")
    with one:
        yield one


def local(appliance: Appliance) -> GraphqlClient:
    return GraphqlClient(Path(appliance.data_dir) / "control.sock")


def test_a_stranger_sees_version_and_health_and_the_operator_of_the_machine_the_numbers(appliance: Appliance) -> None:
    with GraphqlClient(appliance.http_port) as stranger, local(appliance) as operator:
        seen = stranger.data(STATUS)["status"]
        assert seen == {
            "version": version(),
            "healthy": True,
            "startedAt": None,
            "queued": None,
            "openConnections": None,
        }
        told = operator.data(STATUS)["status"]
        assert (told["healthy"], told["queued"], told["openConnections"]) == (True, 0, 0)
        assert told["startedAt"].endswith("Z")


FLAT = "subscription { deliveryEvents { __typename type code: code reason } }"
DEEP = "subscription { deliveryEvents { type message { recipient } } }"
CONDITIONAL = "subscription ($no: Boolean!) { deliveryEvents { type code @skip(if: $no) } }"


async def test_the_log_is_followed_over_a_websocket(appliance: Appliance) -> None:
    socket = Path(appliance.data_dir) / "control.sock"
    async with websocket(socket) as one, websocket(socket) as other:
        for follower in (one, other):
            await follower.introduce()
            await follower.subscribe("flat", FLAT)
            await follower.subscribe("deep", DEEP)
            await follower.subscribe("conditional", CONDITIONAL, no=follower is one)
            # What is asked behind them is answered behind their beginning.
            await follower.answer_to("{ status { version } }")

        def refuse() -> None:
            with appliance.client() as client:
                assert client.envelope("ann@sender.test", ["nobody@forward.test"])[-1].code == 550

        await trio.to_thread.run_sync(refuse)
        for follower in (one, other):
            heard = [await follower.hear() for _ in range(3)]
            events = {message["id"]: message["payload"]["data"]["deliveryEvents"] for message in heard}
            assert events == {
                "flat": {"__typename": "DeliveryEvent", "type": "REFUSED", "code": 550, "reason": "alias-unknown"},
                "deep": {"type": "REFUSED", "message": {"recipient": "nobody@forward.test"}},
                "conditional": {"type": "REFUSED", **({} if follower is one else {"code": 550})},
            }


SIGN_IN = 'mutation { signIn(email: "leaver@people.test", password: "correct horse") { errors { message } } }'
HOLD = "mutation ($domain: String!) { addHold(domain: $domain) { hold { id } errors { message } } }"
QUEUED = "{ holds { domain } queue { edges { node { recipient state } } } }"
DROP = "mutation { dropDeliveries(filter: { all: true }) { affected } }"
GIVE_UP = {
    "removed.test": "mutation ($id: ID!) { removeDomain(id: $id) { errors { message } } }",
    "left.test": 'mutation { deleteAccount(password: "correct horse") { errors { message } } }',
}


def test_who_gives_up_a_domain_leaves_no_hold_behind_and_no_mail_in_it(appliance: Appliance) -> None:
    added = appliance.cli("account", "add", "leaver@people.test", "--password-stdin", stdin="correct horse\n")
    assert added.status == 0, added
    ids = {}
    with GraphqlClient(appliance.http_port) as leaver, local(appliance) as operator:
        leaver.data(SIGN_IN)
        for name in GIVE_UP:
            appliance.settle("domain", "add", name, "--account", "leaver@people.test", "--verified")
            appliance.settle("alias", "add", f"info@{name}", "box@home.test", "--confirmed")
            assert leaver.data(HOLD, domain=name)["addHold"]["errors"] == []
            ids[name] = leaver.data(f'{{ domain(name: "{name}") {{ id }} }}')["domain"]["id"]
            eventually(partial(_is_taken, appliance, f"info@{name}"), what="the alias is known")
        held = operator.data(QUEUED)
        assert [hold["domain"] for hold in held["holds"]] == list(GIVE_UP)
        assert {edge["node"]["state"] for edge in held["queue"]["edges"]} == {"HELD"}
        for name, operation in GIVE_UP.items():
            wanted = {"id": ids[name]} if "$id" in operation else {}
            (payload,) = leaver.data(operation, **wanted).values()
            assert payload["errors"] == []
            left = operator.data(QUEUED)
            assert name not in [hold["domain"] for hold in left["holds"]]
            states = {edge["node"]["recipient"]: edge["node"]["state"] for edge in left["queue"]["edges"]}
            assert states[f"info@{name}"] != "HELD"
        # For the tests behind this one; what a courier has in hand can't be dropped yet.
        eventually(lambda: operator.data(DROP) and not operator.data(QUEUED)["queue"]["edges"], what="an empty queue")


def _is_taken(appliance: Appliance, recipient: str) -> bool:
    with appliance.client() as client:
        return client.message("ann@sender.test", [recipient], b"Subject: hello\r\n\r\nhello\r\n").code == 250


def test_while_the_engine_does_not_answer_the_api_says_so_and_goes_on(appliance: Appliance) -> None:
    engine, control = appliance.children()
    os.kill(engine, signal.SIGSTOP)
    with local(appliance) as operator:
        assert operator.data(STATUS)["status"] == {
            "version": version(),
            "healthy": False,
            "startedAt": None,
            "queued": None,
            "openConnections": None,
        }
        # What has nothing to do with the engine is as it was.
        assert operator.data('{ domain(name: "forward.test") { verified } }') == {"domain": {"verified": True}}
        os.kill(engine, signal.SIGKILL)
        eventually(lambda: operator.data(STATUS)["status"]["healthy"], 30, "the engine is back")
        assert operator.data("{ queue { totalCount } }") == {"queue": {"totalCount": 0}}
    assert control in appliance.children()
