"""Three nodes on one MongoDB and one Redis: what one knows all know, and whatever happens to one, the others go on.

The last test is the long one: under load, nodes and servers are killed, stopped and cut off at random, and in the end
the ledger is compared with the promise (`mail_ledger.py`), and the log with both. What can happen is in
`cluster_troubles.py`; nodes give each other up sooner than they do elsewhere (`hasty_node.py`).

`ONWARD_TROUBLES=1000 make test-long` is for the night.
"""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from appliance_process import Settings, eventually
from cluster import HASTY, Cluster
from cluster_troubles import FOLLOWED, TroubledTimes
from destination_scripts import Answer, Moment, Stage, first_of, sometimes
from followed_log import FollowedLog
from graphql_client import GraphqlClient
from hasty_node import LEASE_S, TAKEN_OVER_WITHIN_S
from mail_ledger import Ledger, Sender
from smtp_client import SmtpClient

QUICK_TROUBLES = 20
LONG_TROUBLES = int(os.environ.get("ONWARD_TROUBLES", "200"))
SEED = int(os.environ.get("ONWARD_SEED", "20"))

SENDERS = 8
MESSAGES_PER_SECOND = 40
"""What the senders try to send together, while there is somebody to take it."""
AT_LEAST_PER_SECOND = 4
"""What must have been accepted on average, on a machine that does other things as well."""
TEMPORARY_FAILURES = 0.2

HEARD_WITHIN_S = 2.0
"""A change acts at every node."""

FACTOR = 3
"""By how much several nodes may exceed a limit before they have heard of each other."""
A_DAY = 4
USES = 3

LETTER = b"From: ann@sender.test\r\nSubject: A letter\r\n\r\nGood morning.\r\n"
EMAIL, PASSWORD = "ada@people.test", "correct horse"
TRIES = 5
"""Of one account from one network (`access.attempts.Limits`)."""


TOLD_LATE_S = 30.0
"""Within so long who follows has heard of what a dead node had to tell."""

TOWN = {
    "kill@forward.test": ["kill.box@dest.test"],
    "slow0@forward.test": ["slow0.box@dest.test"],
    "slow1@forward.test": ["slow1.box@dest.test"],
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings: Settings = {
        "delivery": {"retry": ["300ms", "500ms"]},
        # What strangers guess at is slowed down; here it is how a change is looked for.
        "smtp": {"max_unknown_recipients": 100_000},
        "plans.premium": {"max_messages_per_day": A_DAY},
    }
    with Cluster(tmp_path_factory.mktemp("cluster"), TOWN, settings, program=HASTY) as cluster:
        yield cluster


def taken_of(cluster: Cluster, recipient: str, of_each: int) -> tuple[int, set[int]]:
    """How many of so many messages by way of each node, all at once, were taken; and how the others were refused."""
    codes: list[int] = []

    def send(node: int) -> None:
        for _ in range(of_each):
            codes.append(cluster.send(node, recipient, LETTER).code)

    senders = [threading.Thread(target=send, args=(node,)) for node in range(len(cluster.nodes))]
    for each in senders:
        each.start()
    for each in senders:
        each.join()
    return codes.count(250), {code for code in codes if code != 250}


def test_a_change_of_an_alias_acts_at_every_node(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    first = cluster.nodes[0]
    slowest = 0.0

    def acts(code: int) -> float:
        began = time.monotonic()
        for node in range(len(cluster.nodes)):
            eventually(lambda node=node: cluster.ask(node, "new@forward.test").code == code)  # type: ignore[misc]
        return time.monotonic() - began

    for change, code in (
        (("alias", "add", "new@forward.test", "new.box@dest.test", "--confirmed"), 250),
        (("alias", "remove", "new@forward.test"), 550),
        (("alias", "add", "new@forward.test", "new.box@dest.test", "--confirmed"), 250),
        (("alias", "remove", "new@forward.test"), 550),
    ):
        first.settle(*change)
        slowest = max(slowest, acts(code))
    with capsys.disabled():
        print(f"\na change acts at every node within {slowest:.2f} s")
    assert slowest < HEARD_WITHIN_S


def test_the_messages_of_a_day_are_counted_over_all_nodes(cluster: Cluster) -> None:
    first = cluster.nodes[0]
    first.settle("account", "add", "other@people.test", "--plan", "premium")
    first.settle("domain", "add", "counted.test", "--account", "other@people.test", "--verified")
    first.settle("alias", "add", "info@counted.test", "counted.box@dest.test", "--confirmed")
    for node in range(len(cluster.nodes)):
        eventually(lambda node=node: cluster.ask(node, "info@counted.test").code == 250)  # type: ignore[misc]
    taken, refused = taken_of(cluster, "info@counted.test", A_DAY + 2)
    assert A_DAY <= taken <= FACTOR * A_DAY
    assert {code // 100 for code in refused} == {4}


def test_the_uses_of_an_alias_are_counted_over_all_nodes(cluster: Cluster) -> None:
    cluster.nodes[0].settle("alias", "add", "few@forward.test", "few.box@dest.test", "--confirmed", "--uses", str(USES))
    for node in range(len(cluster.nodes)):
        eventually(lambda node=node: cluster.ask(node, "few@forward.test").code == 250)  # type: ignore[misc]
    taken, _ = taken_of(cluster, "few@forward.test", USES + 2)
    assert USES <= taken <= FACTOR * USES
    # Each hears of the others, and then nobody takes one more.
    for node in range(len(cluster.nodes)):
        eventually(lambda node=node: cluster.ask(node, "few@forward.test").code == 550)  # type: ignore[misc]


def test_attempts_to_sign_in_are_counted_over_all_nodes(cluster: Cluster) -> None:
    added = cluster.nodes[0].cli("account", "add", EMAIL, "--password-stdin", stdin=f"{PASSWORD}\n")
    assert added.status == 0, added.err
    asked = "mutation ($e: String!, $p: String!) { signIn(email: $e, password: $p) { errors { message } } }"

    def tried(rounds: int) -> Counter[str]:
        answers: Counter[str] = Counter()
        for node in cluster.nodes * rounds:
            with GraphqlClient(node.http_port, address=node.address) as browser:
                answers.update(browser.ask(asked, e=EMAIL, p="guessed").codes or ["wrong"])
        return answers

    # They have one Redis: it is not even a factor.
    assert tried(TRIES) == {"wrong": TRIES, "RATE_LIMITED": (FACTOR - 1) * TRIES}
    cluster.redis.ask("FLUSHALL")
    assert tried(1) == {"wrong": len(cluster.nodes)}


# ---------------------------------------------------------------------- nodes that die


def taken_over_s(cluster: Cluster, within: float) -> tuple[float, float]:
    """How long after one node was killed, and one cut off, in the midst of a delivery, the third has delivered it."""

    def begins(node: int) -> str:
        recipient = f"slow{node}@forward.test"
        began = len(begun)
        assert cluster.send(node, recipient, LETTER).code == 250
        eventually(lambda: len(begun) > began, what="the delivery has begun")
        return f"slow{node}.box@dest.test"

    begun: list[str] = []

    def stall_the_first(moment: Moment) -> Answer | None:
        if moment.stage is Stage.RCPT and moment.recipient.startswith("slow") and moment.recipient not in begun:
            begun.append(moment.recipient)
            return Answer(stall=600)
        return None

    cluster.main.script = stall_the_first
    killed, cut = begins(0), begins(1)
    took: list[float] = []
    with cluster.cut_off(1):
        cluster.nodes[0].kill()
        began = time.monotonic()
        try:
            for mailbox in (killed, cut):
                eventually(lambda mailbox=mailbox: cluster.main.for_recipient(mailbox), within, mailbox)  # type: ignore[misc]
                took.append(time.monotonic() - began)
        finally:
            cluster.start(0)
    cluster.all_are_ready()
    cluster.queue_is_empty()
    assert [len(cluster.main.for_recipient(mailbox)) for mailbox in (killed, cut)] == [1, 1]
    return took[0], took[1]


def test_what_a_dead_node_had_under_way_another_delivers(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    killed, cut = taken_over_s(cluster, TAKEN_OVER_WITHIN_S)
    with capsys.disabled():
        print(f"\ntaken over {killed:.1f} s after a kill, {cut:.1f} s after a cut, of nodes with leases of {LEASE_S} s")


@pytest.mark.long
def test_what_a_dead_node_had_under_way_another_delivers_within_a_minute(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Cluster(tmp_path, TOWN) as cluster:
        killed, cut = taken_over_s(cluster, 60)
    with capsys.disabled():
        print(f"\ntaken over {killed:.1f} s after a kill, {cut:.1f} s after a cut")


def faults_of(log: Sequence[Mapping[str, Any]], ledger: Ledger) -> list[str]:
    """What the log lacks of the messages of a ledger, or has twice; in words."""
    counted = Counter((event["message"]["sender"], event["type"]) for event in log)
    faults = []
    for number, fate in ledger.fates.items():
        arrived = number in ledger.arrivals
        for type_ in ("RECEIVED", "DELIVERED"):
            found = counted[f"m{number}@sender.test", type_]
            if found != arrived:
                faults.append(f"message {number}: {fate.name}, arrived: {arrived}, and {found} events {type_}")
    return faults


@pytest.mark.parametrize("number", [QUICK_TROUBLES, pytest.param(LONG_TROUBLES, marks=pytest.mark.long)])
def test_troubled_times(cluster: Cluster, number: int, capsys: pytest.CaptureFixture[str]) -> None:
    lots = random.Random(SEED)
    ledger, stopped = Ledger(), threading.Event()
    cluster.main.take = ledger.take
    cluster.main.script = first_of(
        sometimes(Stage.RCPT, Answer(450, "4.2.1 Later"), TEMPORARY_FAILURES / 2, SEED),
        sometimes(Stage.END_OF_DATA, Answer(451, "4.3.0 Later"), TEMPORARY_FAILURES / 2, SEED + 1),
    )

    def connect(lots: random.Random) -> SmtpClient:
        return lots.choice(cluster.nodes).client(timeout=60)

    of_each = MESSAGES_PER_SECOND / SENDERS
    senders = [
        Sender(ledger, "kill@forward.test", connect, of_each, lots.getrandbits(32), stopped) for _ in range(SENDERS)
    ]
    times = TroubledTimes(cluster, lots)
    began = time.monotonic()
    with FollowedLog(cluster.nodes[FOLLOWED]) as following:
        for sender in senders:
            sender.start()
        times.pass_through(number, stopped)
        cluster.all_are_ready()
        stopped.set()
        for sender in senders:
            sender.join(timeout=90)
            assert not sender.is_alive()
        seconds, ended = time.monotonic() - began, time.monotonic()
        cluster.queue_is_empty(within=TAKEN_OVER_WITHIN_S + 30)
        emptied = time.monotonic() - ended
        verdict = ledger.verdict(times.interruptions)
        with capsys.disabled():
            print(f"\n{number} troubles ({times}) in {seconds:.0f} s; {verdict}; ", end="")
            print(f"the queue was empty {emptied:.1f} s later; seed {SEED}")
        assert not times.failures
        assert not verdict.lost
        assert not verdict.ghosts
        assert not verdict.changed
        assert not verdict.unexplained
        assert {reply[:1] for reply in ledger.refusals} <= {"4"}, ledger.refusals
        assert verdict.accepted >= AT_LEAST_PER_SECOND * seconds
        assert not cluster.senders.messages, "a temporary failure has bounced"

        log = cluster.nodes[0].log_events()
        assert faults_of(log, ledger) == []
        ids = {event["id"] for event in log}
        eventually(lambda: ids <= set(following.ids), within=TOLD_LATE_S, what="who follows has been told of all")
        assert len(following.ids) == len(set(following.ids)) == len(ids)
    assert [words for words in cluster.objections() if "connection ended within" not in words] == []
