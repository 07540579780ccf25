"""Nodes whose clocks differ: the log has one order all the same, nobody waits for it, and nothing is erased early."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from appliance_process import PROGRAM, Appliance, eventually
from followed_log import FollowedLog
from graphql_client import GraphqlClient
from mongod import running_mongod

from appliance.configuration import CONTROL_SOCKET
from appliance.run.cluster_keys import CLUSTER_KEY

SKEWED = (sys.executable, str(Path(__file__).parents[1] / "support" / "skewed_node.py"))

AHEAD_S = 60
YEAR_S = 365 * 24 * 3600

TOLD_WITHIN_S = 10.0
"""Much less than the clocks differ by."""


@pytest.fixture
def ahead_s(request: pytest.FixtureRequest) -> int:
    """How many seconds the wrong clock is ahead."""
    return int(getattr(request, "param", AHEAD_S))


@pytest.fixture
def nodes(tmp_path: Path, ahead_s: int) -> Iterator[tuple[Appliance, Appliance]]:
    """One whose clock is right, and one whose clock is not."""
    with ExitStack() as exits:
        server = exits.enter_context(running_mongod(replica_set=True))
        made = []
        for name, program in (("right", PROGRAM), ("wrong", (*SKEWED, str(ahead_s)))):
            node = Appliance(
                tmp_path / name,
                nameserver="127.0.0.1:9",
                delivery_port=9,
                settings={
                    "": {"hostname": f"{name}.onward.test"},
                    "store": {"url": server.url_of("clocks")},
                    "smtp": {"max_unknown_recipients": 100_000},
                },
                program=program,
            )
            exits.enter_context(closing(node))
            made.append(node)
        right, wrong = made
        right.settle("account", "add", "owner@people.test")
        right.settle("domain", "add", "forward.test", "--account", "owner@people.test", "--verified")
        secrets = wrong.data_dir / "secrets"
        secrets.mkdir(mode=0o700, parents=True)
        wrong.data_dir.chmod(0o700)
        key = secrets / f"{CLUSTER_KEY}.key"
        key.write_bytes((right.data_dir / "secrets" / key.name).read_bytes())
        key.chmod(0o600)
        right.start()
        wrong.start()
        yield right, wrong


def refuse(node: Appliance, sender: str) -> None:
    with node.client() as client:
        assert client.envelope(sender, ["nobody@forward.test"])[-1].code == 550


def test_events_of_nodes_with_wrong_clocks_are_told_at_once_and_in_order(nodes: Sequence[Appliance]) -> None:
    made: list[str] = []
    for number in range(4):
        made.append(f"{number}@sender.test")
        refuse(nodes[number % 2], made[-1])
    with FollowedLog(nodes[0]) as at_right, FollowedLog(nodes[1]) as at_wrong:
        for number in range(4, 20):
            made.append(f"{number}@sender.test")
            refuse(nodes[number % 2], made[-1])
        began = time.monotonic()
        for following in (at_right, at_wrong):
            eventually(lambda following=following: following.senders == made, TOLD_WITHIN_S, f"told {made}")  # type: ignore[misc]
        assert time.monotonic() - began < AHEAD_S / 2
        refuse(nodes[0], "last@sender.test")
        refuse(nodes[1], "end@sender.test")
        for following in (at_right, at_wrong):
            eventually(lambda following=following: len(following.senders) == 22, TOLD_WITHIN_S)  # type: ignore[misc]
            assert following.senders == [*made, "last@sender.test", "end@sender.test"]


def test_the_status_says_whose_clock_is_wrong(nodes: Sequence[Appliance]) -> None:
    with GraphqlClient(nodes[0].data_dir / CONTROL_SOCKET) as operator:
        told = operator.ask("{ status { nodes { name clockAheadSeconds } } }").json["data"]["status"]["nodes"]
    found = {each["name"].partition(".")[0]: each["clockAheadSeconds"] for each in told}
    assert found == {"right": 0, "wrong": AHEAD_S}


@pytest.mark.parametrize("ahead_s", [YEAR_S], indirect=True)
def test_a_node_whose_clock_is_a_year_ahead_erases_nothing_early(nodes: Sequence[Appliance]) -> None:
    right, wrong = nodes
    refuse(right, "early@sender.test")
    with FollowedLog(right) as following:
        eventually(lambda: following.senders == ["early@sender.test"], TOLD_WITHIN_S)
    # It sweeps as soon as it has started.
    wrong.kill()
    wrong.start()
    refuse(wrong, "late@sender.test")
    with FollowedLog(right) as following:
        eventually(lambda: following.senders == ["early@sender.test", "late@sender.test"], TOLD_WITHIN_S, "told both")
        first, last = (datetime.fromisoformat(event["at"]) for event in following.events)
        assert abs(first - last) < timedelta(minutes=10)
