"""Hundreds who follow the log of three nodes, while one is killed and another stands still: each is told all of it.

Who follows at a node that dies goes on at another, behind the event that it had last. What the dead node had still to
bring to the log comes late, and each is told it once.
"""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trio
from appliance_process import Appliance, Settings, eventually
from cluster import HASTY, Cluster
from trio_websocket import ConnectionClosed, HandshakeError
from websocket_client import websocket

from appliance.command_line.api_ids import api_id, own_id
from appliance.configuration import CONTROL_SOCKET
from appliance.logbook.horizon import GONE_S

FOLLOWERS = 200
CONNECTIONS = 24
"""Those on one connection share its fate."""

SENDERS = 3
REFUSALS = 80
"""Of each sender: one every tenth of a second or so."""
PAUSE_S = 0.1

TOLD_WITHIN_S = 60.0
AGAIN_S = 0.3

PASSING = ("UNAVAILABLE", "RATE_LIMITED")

FOLLOW = "subscription ($after: ID) { deliveryEvents(after: $after) { id } }"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    settings: Settings = {"smtp": {"max_unknown_recipients": 100_000}}
    with Cluster(tmp_path, {"info@forward.test": ["info.box@dest.test"]}, settings, program=HASTY) as cluster:
        yield cluster


class Crowd:
    """All who follow. Each begins behind one event, and goes on behind the one that it was told last."""

    def __init__(self, nodes: Sequence[Appliance], first: str) -> None:
        self._nodes = nodes
        self.told = [[first] for _ in range(FOLLOWERS)]
        self.resumed = 0

    async def follow(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            for number in range(CONNECTIONS):
                nursery.start_soon(self._follow_on, number)

    async def _follow_on(self, number: int) -> None:
        node = number
        while True:
            try:
                await self._follow_at(self._nodes[node % len(self._nodes)], self.told[number::CONNECTIONS])
            except* (OSError, ConnectionClosed, HandshakeError, trio.BrokenResourceError):
                node += 1
                self.resumed += 1
                await trio.sleep(AGAIN_S)

    async def _follow_at(self, node: Appliance, group: Sequence[list[str]]) -> None:
        async with websocket(node.data_dir / CONTROL_SOCKET) as client:
            await client.introduce()
            for number, told in enumerate(group):
                await client.subscribe(str(number), FOLLOW, after=api_id("DeliveryEvent", told[-1]))
            while True:
                message = json.loads(await client.connection.get_message())
                if message["type"] == "next":
                    event = message["payload"]["data"]["deliveryEvents"]
                    group[int(message["id"])].append(own_id(event["id"]))
                    continue
                assert message["type"] == "complete" or message["payload"][0]["extensions"]["code"] in PASSING, message
                # The store is away for this node, or the node ends: all of them come again.
                raise ConnectionResetError


def refuse(cluster: Cluster, sender: int, done: threading.Event) -> None:
    """What happens: each refusal is an event, at whichever node is there."""
    for number in range(REFUSALS):
        try:
            cluster.ask((sender + number) % 3, "nobody@forward.test", f"{sender}.{number}@sender.test")
        except (OSError, ValueError, AssertionError, IndexError):
            pass  # It is down, or goes down in the midst of it.
        time.sleep(PAUSE_S)
    done.set()


def troubles(cluster: Cluster) -> None:
    """One node is killed and starts again, and another stands still for so long that nobody waits for it."""
    cluster.nodes[1].kill()
    with cluster.stopped_engine(2):
        time.sleep(GONE_S + 2)
    cluster.start(1)
    cluster.all_are_ready()


async def test_who_follows_is_told_each_event_once_whatever_happens_to_nodes(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.ask(0, "nobody@forward.test")
    (first,) = await trio.to_thread.run_sync(
        lambda: eventually(lambda: cluster.nodes[0].log_events(), what="the first event")
    )
    crowd = Crowd(cluster.nodes, first["id"])
    done = [threading.Event() for _ in range(SENDERS)]
    senders = [threading.Thread(target=refuse, args=(cluster, number, done[number])) for number in range(SENDERS)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crowd.follow)
        for sender in senders:
            sender.start()
        await trio.sleep(2)
        await trio.to_thread.run_sync(troubles, cluster)
        for each in done:
            await trio.to_thread.run_sync(each.wait)
        logged: list[str] = []
        with trio.move_on_after(TOLD_WITHIN_S):
            while not logged or any(len(told) < len(logged) for told in crowd.told):
                await trio.sleep(1)
                logged = [event["id"] for event in await trio.to_thread.run_sync(cluster.nodes[0].log_events)]
        # A moment longer, for what would come twice.
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    with capsys.disabled():
        print(f"\n{len(logged)} events for {FOLLOWERS} who follow; connections broke {crowd.resumed} times")
    assert len(logged) > REFUSALS
    missed = sum(len(set(logged) - set(told)) for told in crowd.told)
    doubled = sum(len(told) - len(set(told)) for told in crowd.told)
    assert (missed, doubled) == (0, 0)
    assert all(told == crowd.told[0] for told in crowd.told), "they are told in one order"
    assert crowd.told[0] != logged, "nothing came late, so nothing was tried"
