"""Two nodes on a replica set of three real members that changes its primary, in each way in which it can, under load.

Senders send, each message once, and write down what they were told; in the end the ledger is compared with the promise
(`mail_ledger.py`). Where no node dies, nothing may arrive twice either.

How long mail stood still is printed: from the last 250 before to the first one behind, and the same of what arrived.
"""

import contextlib
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from appliance_process import Settings, eventually
from cluster import Cluster
from destination import ReceivedMessage
from destination_scripts import Answer, Stage, always
from graphql_client import GraphqlClient
from mail_ledger import Interruption, Ledger, Sender
from replica_set import USUAL_ELECTION_S, ReplicaSet, replica_set, rollbacks
from smtp_client import Reply, SmtpClient

from appliance.storage.mongo_database import OPERATION_MS

RECOVERED_S = 10.0
"""Within so long after there is a new primary, and a majority that follows it, all is well again."""

ANSWERED_S = 60.0
"""Nobody waits longer for an answer, whatever the servers do."""

GIVEN_UP_S = 3 * OPERATION_MS / 1000 + 1
"""What a majority does not have in this time a node has given up: a group is several operations."""

NODES = range(2)
SENDERS = 6
MESSAGES_PER_SECOND = 30
"""What the senders try to send together, while there is somebody to take it."""

LONG_ROUNDS = 12
SEED = 20

LOAD, PROBE = "load@forward.test", "probe@forward.test"
TOWN = {LOAD: ["load.box@dest.test"], PROBE: ["probe.box@dest.test"]}
LETTER = b"From: ann@sender.test\r\n\r\nGood morning.\r\n"


@pytest.fixture(scope="module")
def replicas() -> Iterator[ReplicaSet]:
    with replica_set() as replicas:
        yield replicas


@contextlib.contextmanager
def two_nodes(directory: Path, replicas: ReplicaSet) -> Iterator[Cluster]:
    """Inside the block they are at work."""
    settings: Settings = {"delivery": {"retry": ["300ms", "500ms"]}}
    url = replicas.url_of("onward")
    with Cluster(directory, TOWN, settings, nodes=len(NODES), on_lines=True, store=url) as cluster:
        yield cluster
        assert not cluster.senders.messages, "something has bounced"
        assert cluster.objections() == []


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, replicas: ReplicaSet) -> Iterator[Cluster]:
    with two_nodes(tmp_path_factory.mktemp("cluster"), replicas) as cluster:
        yield cluster


class UnderLoad:
    """Senders at work while the block lasts; at its end, what they were told has to be true."""

    def __init__(self, cluster: Cluster, seed: int = SEED) -> None:
        self._cluster = cluster
        self.ledger = Ledger()
        self.interruptions: list[Interruption] = []
        """What may have brought a second copy of something: nothing, while no node dies."""
        self._stopped = threading.Event()
        lots = random.Random(seed)
        self._senders = [
            Sender(self.ledger, LOAD, self._connect, MESSAGES_PER_SECOND / SENDERS, lots.getrandbits(32), self._stopped)
            for _ in range(SENDERS)
        ]

    def __enter__(self) -> "UnderLoad":
        self._cluster.all_are_ready(RECOVERED_S)
        self._cluster.main.take = self._take
        for sender in self._senders:
            sender.start()
        eventually(lambda: self.ledger.arrivals, RECOVERED_S, "mail flows")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopped.set()
        for sender in self._senders:
            sender.join(timeout=ANSWERED_S)
            assert not sender.is_alive()
        if kind is None:
            self._cluster.queue_is_empty(within=RECOVERED_S)
            self.is_true()

    def is_true(self) -> None:
        """Nothing under way any more, compare."""
        verdict = self.ledger.verdict(self.interruptions)
        assert not verdict.lost, verdict
        assert not verdict.ghosts, verdict
        assert not verdict.changed, verdict
        assert not verdict.unexplained, verdict
        assert {reply[:1] for reply in self.ledger.refusals} <= {"4"}, self.ledger.refusals

    def stood_still(self, since: float) -> str:
        """For how long at most nothing was taken, and nothing arrived; in words."""
        arrived = itertools.chain.from_iterable(list(self.ledger.arrivals.values()))
        taken, delivered = (_longest_gap(each, since) for each in (list(self.ledger.accepted_at), arrived))
        return f"nothing was taken for {taken:.1f} s, nothing arrived for {delivered:.1f} s"

    def _take(self, message: ReceivedMessage) -> None:
        if LETTER not in message.content:
            self.ledger.take(message)

    def _connect(self, lots: random.Random) -> SmtpClient:
        return lots.choice(self._cluster.nodes).client(timeout=ANSWERED_S)


def _longest_gap(instants: Iterator[float] | list[float], since: float) -> float:
    times = sorted(each for each in instants if each >= since)
    return max((after - before for before, after in itertools.pairwise([since, *times])), default=0.0)


def codes(cluster: Cluster, node: int) -> list[str]:
    """With what errors the API answers who asks for something that is stored."""
    with GraphqlClient(cluster.nodes[node].data_dir / "control.sock") as client:
        return client.ask('{ domain(name: "forward.test") { name } }').codes


def probe(cluster: Cluster, node: int) -> Reply:
    """Somebody beside the senders of the load writes by way of a node."""
    with cluster.nodes[node].client(timeout=ANSWERED_S) as client:
        return client.message("ann@sender.test", [PROBE], LETTER)


def all_is_well(cluster: Cluster) -> float:
    """Wait until it is, at every node; how long that took."""
    began = time.monotonic()

    def at(node: int) -> None:
        eventually(lambda: probe(cluster, node).code == 250, RECOVERED_S, f"node {node} takes mail")
        eventually(lambda: cluster.is_ready(node), RECOVERED_S, f"node {node} is ready", every=0.1)
        eventually(lambda: codes(cluster, node) == [], RECOVERED_S, f"the API of node {node} answers", every=0.1)

    with ThreadPoolExecutor(len(NODES)) as at_once:
        list(at_once.map(at, NODES))
    took = time.monotonic() - began
    assert took < RECOVERED_S
    return took


# ---------------------------------------------------------------------- how the primary changes


def killed(replicas: ReplicaSet) -> Callable[[], None]:
    """SIGKILL."""
    primary = replicas.await_primary()
    primary.kill()
    replicas.await_primary(primary)
    return lambda: replicas.start(primary)


def stopped(replicas: ReplicaSet) -> Callable[[], None]:
    """SIGSTOP: its connections stand, and it goes on believing that it is the primary."""
    primary = replicas.await_primary()
    primary.freeze()
    replicas.await_primary(primary)
    return primary.thaw


def stepped_down(replicas: ReplicaSet) -> Callable[[], None]:
    """In good order."""
    primary = replicas.await_primary()
    replicas.step_down()
    replicas.await_primary(primary)
    return lambda: None


def ended(replicas: ReplicaSet) -> Callable[[], None]:
    """SIGTERM, as for a new version."""
    primary = replicas.await_primary()
    primary.stop()
    replicas.await_primary(primary)
    return lambda: replicas.start(primary)


WAYS = (killed, stopped, stepped_down, ended)


def change_primary(
    cluster: Cluster, replicas: ReplicaSet, load: UnderLoad, way: Callable[[ReplicaSet], Callable[[], None]]
) -> str:
    """Change it in one way, wait until all is well, and bring back who was away. What it cost, in words."""
    began, since = time.monotonic(), time.time()
    bring_back = way(replicas)
    elected = time.monotonic() - began
    replicas.await_majority()
    acknowledged = time.monotonic() - began
    took = all_is_well(cluster)
    bring_back()
    replicas.await_secondaries()
    all_is_well(cluster)
    return (
        f"{way.__name__}: another primary after {elected:.1f} s, which had a majority after {acknowledged:.1f} s; "
        f"all was well {took:.1f} s later; "
        f"{load.stood_still(since)}"
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_primary_that_goes_takes_no_mail_with_it(
    cluster: Cluster,
    replicas: ReplicaSet,
    way: Callable[[ReplicaSet], Callable[[], None]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with UnderLoad(cluster) as load:
        told = change_primary(cluster, replicas, load, way)
    with capsys.disabled():
        print(f"\n{told}")


def lose_writes(cluster: Cluster, replicas: ReplicaSet, load: UnderLoad, collection: str = "") -> str:
    """Have a primary write what nobody copies, replace it, and bring it back. What it cost, in words."""
    since = time.time()
    before = {member.port: rollbacks(member) for member in replicas.members}
    primary, lost = replicas.lose_what_no_majority_has("onward", collection)
    replicas.await_majority()
    took = all_is_well(cluster)
    replicas.start(primary)
    replicas.await_secondaries()
    eventually(lambda: rollbacks(primary) > before[primary.port], RECOVERED_S, "it has taken back what it wrote alone")
    all_is_well(cluster)
    return (
        f"taken back: writes to {', '.join(sorted(lost))}; all was well {took:.1f} s after there was a majority; "
        f"{load.stood_still(since)}"
    )


WORD = "nodes"
"""Here a node gives its word that a group counts."""


@pytest.mark.parametrize("collection", ["", WORD], ids=["of any kind", "the word that a group counts"])
def test_writes_that_a_former_primary_takes_back_were_promised_to_nobody(
    cluster: Cluster, replicas: ReplicaSet, collection: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It wrote them while nobody copied them; when it comes back it finds that the others have gone another way."""
    with UnderLoad(cluster) as load:
        told = lose_writes(cluster, replicas, load, collection)
    with capsys.disabled():
        print(f"\n{told}")


def test_nodes_that_die_with_a_primary_have_promised_nothing_that_it_takes_back(
    cluster: Cluster, replicas: ReplicaSet, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody is left who knows what was said: what counts is what a majority has."""
    with UnderLoad(cluster) as load:

        def die() -> None:
            # By then they have given up waiting for a majority, and said what they had to say.
            threading.Event().wait(GIVEN_UP_S)
            began = time.time()
            for node in NODES:
                cluster.kill_engine(node)
            load.interruptions.append(Interruption("kill engines", began, time.time()))

        since = time.time()
        # What is accepted must not be gone to its mailbox before it is known whether it was kept.
        cluster.main.script = always(Stage.RCPT, Answer(450, "4.2.1 Later"))
        primary, lost = replicas.lose_what_no_majority_has("onward", WORD, die)
        cluster.main.script = None
        replicas.await_majority()
        cluster.all_are_ready()
        all_is_well(cluster)
        replicas.start(primary)
        replicas.await_secondaries()
        all_is_well(cluster)
        told = f"writes to {', '.join(sorted(lost))} were lost, and the engines with them: {load.stood_still(since)}"
    with capsys.disabled():
        print(f"\n{told}; {load.ledger.verdict(load.interruptions)}")


def test_without_a_majority_mail_waits_with_its_senders(
    cluster: Cluster, replicas: ReplicaSet, capsys: pytest.CaptureFixture[str]
) -> None:
    def says_so(node: int) -> None:
        eventually(lambda: not cluster.is_ready(node), ANSWERED_S, "it says that it is not ready", every=0.1)
        assert codes(cluster, node) == ["UNAVAILABLE"]
        assert probe(cluster, node).code == 451

    with UnderLoad(cluster) as load:
        since = time.time()
        primary = replicas.await_primary()
        other = replicas.others(primary)[0]
        primary.kill()
        other.kill()
        with ThreadPoolExecutor(len(NODES)) as at_once:
            list(at_once.map(says_so, NODES))
        replicas.start(other)
        replicas.await_majority()
        took = all_is_well(cluster)
        replicas.start(primary)
        replicas.await_secondaries()
        told = f"all was well {took:.1f} s after there was a primary again; {load.stood_still(since)}"
    with capsys.disabled():
        print(f"\nno majority: {told}")


@pytest.mark.long
def test_primaries_that_go_one_after_another(
    cluster: Cluster, replicas: ReplicaSet, capsys: pytest.CaptureFixture[str]
) -> None:
    lots = random.Random(SEED)
    with UnderLoad(cluster) as load:
        for number in range(LONG_ROUNDS):
            # Which of its writes is lost is a matter of chance.
            if number % 2:
                told = lose_writes(cluster, replicas, load, lots.choice(("", WORD)))
            else:
                told = change_primary(cluster, replicas, load, lots.choice(WAYS))
            with capsys.disabled():
                print(f"\n{told}", end="")
            threading.Event().wait(lots.uniform(0, 2))
    with capsys.disabled():
        print(f"\n{load.ledger.verdict(())}")


@pytest.mark.long
def test_a_replica_set_as_it_is_set_up_by_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With MongoDB's own settings it takes ten seconds until somebody sees that the primary is away."""
    with replica_set(USUAL_ELECTION_S) as replicas, two_nodes(tmp_path, replicas) as cluster:
        for way in WAYS:
            with UnderLoad(cluster) as load:
                told = change_primary(cluster, replicas, load, way)
            with capsys.disabled():
                print(f"\n{told}", end="")
