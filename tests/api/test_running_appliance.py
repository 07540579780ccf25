"""The API of a whole appliance: over its port and its socket, beside the engine, and without it."""

import os
import signal
from collections.abc import Iterator
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
