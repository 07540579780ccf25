"""A MongoDB or a Redis that is down, silent, slow or flapping: mail waits with its senders, and all is well soon after.

Three nodes, each with lines of its own to both servers, so that three things can be wrong at once. Nobody hears a 5xx
for it, nothing bounces, and what a sender is told in the middle of it is the truth.
"""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from appliance_process import eventually
from bad_line import BadLine
from cluster import Cluster
from graphql_client import GraphqlClient
from networks import Lines
from smtp_client import Reply

from appliance.run.present_routing import AGED_AFTER_S

RECOVERED_S = 10.0
"""Within so long after a server is back, all is well again."""

RED_S = 10.0
"""Within so long after a server is away, a node says that it is not ready."""

ANSWERED_S = 60.0
"""Nobody waits longer for an answer, whatever the servers do."""

AT_ONCE_S = 1.0
"""An answer that needs no server, on a machine that is busy."""

SLOW_S = 3.0
"""Each way: no operation gets through."""

FLAPS_S = 0.4

STOPPED_S = 6.0
"""Longer than one operation may take: whoever waits for it has given it up by then."""

LONG_SENDER = f"{'x' * 60}@sender.test"
"""Too long to be carried in a rewritten address: it is looked up by its token."""

TOWN = {
    "info@forward.test": ["info.box@dest.test"],
    "info@transit.test": ["transit.box@dest.test"],
}
DOMAINS = {"transit.test": ("--mode", "transit")}

NODES = range(3)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    # What strangers guess at is slowed down; here it is how their answer is looked at.
    settings = {"smtp": {"max_unknown_recipients": 100_000}}
    with Cluster(tmp_path_factory.mktemp("cluster"), TOWN, settings, domains=DOMAINS, on_lines=True) as cluster:
        yield cluster
        assert not cluster.senders.messages, "something has bounced"
        assert cluster.objections() == []


@pytest.fixture
def told(cluster: Cluster) -> Iterator["Told"]:
    """What senders were told in a test, which at its end has to be true."""
    cluster.all_are_ready(RECOVERED_S)
    told = Told(cluster)
    yield told
    told.is_true()


class Told:
    """Who sends, and remembers what it was told."""

    numbers = itertools.count()

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._replies: dict[bytes, Reply] = {}

    def send(self, node: int, recipient: str) -> Reply:
        """Send one message."""
        mark = f"letter {next(self.numbers)}.".encode()
        began = time.monotonic()
        with self._cluster.nodes[node].client(timeout=ANSWERED_S) as client:
            reply = client.message("ann@sender.test", [recipient], b"From: ann@sender.test\r\n\r\n" + mark + b"\r\n")
        assert time.monotonic() - began < ANSWERED_S
        assert reply.code == 250 or reply.code // 100 == 4, reply
        self._replies[mark] = reply
        return reply

    def is_true(self) -> None:
        """What was taken has arrived, once; what was not has not."""
        self._cluster.queue_is_empty()
        arrived = {mark: len(self._cluster.main.containing(mark)) for mark in self._replies}
        assert arrived == {mark: int(reply.code == 250) for mark, reply in self._replies.items()}


# ---------------------------------------------------------------------- what can be wrong


def to_mongod(cluster: Cluster, node: int) -> BadLine:
    """The line between a node and the MongoDB."""
    assert isinstance(cluster.network, Lines)
    return cluster.network.line(node, cluster.mongod.port)


def to_redis(cluster: Cluster, node: int) -> BadLine:
    """The line between a node and the Redis."""
    assert isinstance(cluster.network, Lines)
    return cluster.network.line(node, cluster.redis.port)


@contextlib.contextmanager
def silent(line: BadLine) -> Iterator[None]:
    """Connections stand, and nothing comes."""
    line.hold()
    try:
        yield
    finally:
        line.let_go()


@contextlib.contextmanager
def slow(line: BadLine) -> Iterator[None]:
    """Everything comes, too late."""
    line.delay_s = SLOW_S
    try:
        yield
    finally:
        line.delay_s = 0


@contextlib.contextmanager
def flapping(line: BadLine) -> Iterator[None]:
    """Away, and back, and away."""
    over = threading.Event()

    def flap() -> None:
        while not over.is_set():
            line.cut()
            over.wait(FLAPS_S)
            line.mend()
            over.wait(FLAPS_S)

    flaps = threading.Thread(target=flap)
    flaps.start()
    try:
        yield
    finally:
        over.set()
        flaps.join()


@contextlib.contextmanager
def cut(line: BadLine) -> Iterator[None]:
    """Connections are reset, and no other is made."""
    line.cut()
    try:
        yield
    finally:
        line.mend()


@contextlib.contextmanager
def killed(cluster: Cluster) -> Iterator[None]:
    """SIGKILL to the MongoDB, and a start."""
    cluster.mongod.kill()
    try:
        yield
    finally:
        cluster.start_mongod()


@contextlib.contextmanager
def stopped(cluster: Cluster) -> Iterator[None]:
    """SIGSTOP to the MongoDB, and to the Redis, too."""
    with cluster.redis.held():
        cluster.mongod.freeze()
        try:
            yield
        finally:
            cluster.mongod.thaw()


# ---------------------------------------------------------------------- the MongoDB


def codes(cluster: Cluster, node: int) -> list[str]:
    """With what errors the API answers who asks for something that is stored."""
    with GraphqlClient(cluster.nodes[node].data_dir / "control.sock") as client:
        return client.ask('{ domain(name: "forward.test") { name } }').codes


def all_is_well(cluster: Cluster, node: int, told: Told) -> float:
    """Wait until it is; how long that took."""
    began = time.monotonic()
    eventually(lambda: told.send(node, "info@forward.test").code == 250, RECOVERED_S, "mail is taken")
    eventually(lambda: told.send(node, "info@transit.test").code == 250, RECOVERED_S, "mail is taken in transit")
    eventually(lambda: cluster.is_ready(node), RECOVERED_S, "it is ready")
    eventually(lambda: codes(cluster, node) == [], RECOVERED_S, "the API answers")
    eventually(lambda: cluster.ask(node, "nobody@forward.test").code == 550, RECOVERED_S, "routing is fresh")
    took = time.monotonic() - began
    assert took < RECOVERED_S
    return took


def without_the_mongodb(
    cluster: Cluster, node: int, told: Told, away: contextlib.AbstractContextManager[None]
) -> float:
    """What one node does while it is away. Returns how long it took to recover."""
    with away:
        began = time.monotonic()
        assert cluster.ask(node, "info@forward.test").code == 250, "routing knows this without a server"
        assert time.monotonic() - began < AT_ONCE_S
        with ThreadPoolExecutor(3) as at_once:
            red = at_once.submit(eventually, lambda: not cluster.is_ready(node), RED_S, "it says that it is not ready")
            # In transit no store is needed, and the answer may be either.
            in_transit = at_once.submit(told.send, node, "info@transit.test")
            assert told.send(node, "info@forward.test").code == 451
            in_transit.result()
            red.result()
        # What it knows gets old: by now somebody elsewhere may have added what it does not know.
        eventually(lambda: cluster.ask(node, "nobody@forward.test").code == 451, AGED_AFTER_S + ANSWERED_S)
        assert cluster.ask(node, "info@forward.test").code == 250
        # One has waited for all, and nobody else has to.
        answers: Sequence[Callable[[], bool]] = (
            lambda: told.send(node, "info@forward.test").code == 451,
            lambda: cluster.nodes[node].http("/health/ready")[0] == 503,
            lambda: cluster.nodes[node].http("/health/live")[0] == 200,
        )
        for is_right in answers:
            began = time.monotonic()
            assert is_right()
            assert time.monotonic() - began < AT_ONCE_S
        assert codes(cluster, node) == ["UNAVAILABLE"]
    return all_is_well(cluster, node, told)


@pytest.mark.parametrize("how", [killed, stopped])
def test_a_mongodb_that_is_away_for_all(
    cluster: Cluster,
    told: Told,
    how: Callable[[Cluster], contextlib.AbstractContextManager[None]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    took = without_the_mongodb(cluster, 0, told, how(cluster))
    with capsys.disabled():
        print(f"\n{how.__name__}: all was well {took:.1f} s after it was back")


def test_a_mongodb_that_is_silent_slow_or_cut_off_for_one_node(
    cluster: Cluster, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    def go_through(node: int, how: Callable[[BadLine], contextlib.AbstractContextManager[None]]) -> float:
        return without_the_mongodb(cluster, node, told, how(to_mongod(cluster, node)))

    with ThreadPoolExecutor(len(NODES)) as at_once:
        took = list(at_once.map(go_through, NODES, (silent, slow, cut)))
    with capsys.disabled():
        print(f"\nsilent, slow, cut: all was well {', '.join(f'{each:.1f}' for each in took)} s after it was back")


def test_a_mongodb_that_flaps(cluster: Cluster, told: Told) -> None:
    with flapping(to_mongod(cluster, 0)):
        began = time.monotonic()
        while time.monotonic() - began < 10 * FLAPS_S:
            told.send(0, "info@forward.test")
            told.send(0, "info@transit.test")
            assert cluster.ask(0, "info@forward.test").code == 250
    all_is_well(cluster, 0, told)


def command(verb: str, collection: str) -> bytes:
    """What a command of this kind has in it, as it goes over the line (BSON)."""
    name = collection.encode()
    return verb.encode() + b"\0" + (len(name) + 1).to_bytes(4, "little") + name + b"\0"


STEPS = (command("insert", "deliveries"), b"decided\0", command("update", "deliveries"))
"""A message is written without counting, then it is decided that it counts, then it is finished."""


@pytest.mark.parametrize("passed", [False, True], ids=["before", "behind"])
def test_a_mongodb_that_stops_in_the_middle_of_an_accept(cluster: Cluster, told: Told, passed: bool) -> None:
    """Before or behind a step: what comes of it is known when it goes on, and nobody has been told anything else."""

    def stop_at(node: int, step: bytes) -> bool:
        line = to_mongod(cluster, node)
        line.hold_at(step, passed=passed)
        going_on = threading.Timer(STOPPED_S, line.let_go)
        going_on.start()
        told.send(node, "info@forward.test")
        going_on.join()
        return line.is_tripped.is_set()

    with ThreadPoolExecutor(len(NODES)) as at_once:
        assert all(at_once.map(stop_at, NODES, STEPS))
    for node in NODES:
        all_is_well(cluster, node, told)


def test_a_mongodb_that_is_killed_in_the_middle_of_accepts(cluster: Cluster, told: Told) -> None:
    over = threading.Event()

    def send(node: int) -> None:
        while not over.is_set():
            told.send(node, "info@forward.test")

    with ThreadPoolExecutor(len(NODES)) as at_once:
        sending = [at_once.submit(send, node) for node in NODES]
        for _ in range(3):
            over.wait(0.7)
            cluster.mongod.kill()
            cluster.start_mongod()
        over.wait(0.7)
        over.set()
        for each in sending:
            each.result()
    for node in NODES:
        all_is_well(cluster, node, told)


def test_a_mongodb_that_stops_in_the_middle_of_rcpt(cluster: Cluster, told: Told) -> None:
    """Who a rewritten sender was, only the store knows: while it is away nobody may say that there is none."""
    with cluster.nodes[0].client() as client:
        assert client.message(LONG_SENDER, ["info@forward.test"], b"Subject: long\r\n\r\n").code == 250
    (message,) = eventually(lambda: cluster.main.containing(b"Subject: long"))
    assert cluster.ask(1, message.sender, sender="").code == 250
    with silent(to_mongod(cluster, 1)), cluster.nodes[1].client(timeout=ANSWERED_S) as client:
        for reply in client.envelope("", [message.sender])[1:]:
            assert reply.code == 451
        client.command("RSET")
        replies = client.envelope("ann@sender.test", ["info@forward.test", "info@forward.test"])
        assert [reply.code for reply in replies] == [250] * 3
        assert client.data(b"Subject: silent\r\n\r\n").code == 451
    eventually(lambda: cluster.ask(1, message.sender, sender="").code == 250, RECOVERED_S)
    all_is_well(cluster, 1, told)
    assert not cluster.main.containing(b"Subject: silent")


def test_an_engine_that_dies_while_the_mongodb_is_away_works_soon_after_it_is_back(
    cluster: Cluster, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    with cut(to_mongod(cluster, 2)):
        cluster.kill_engine(2)
        eventually(lambda: cluster.nodes[2].said().count("starts_again_in_s") > 2, 60)
    began = time.monotonic()
    eventually(lambda: cluster.is_ready(2), RECOVERED_S, "the engine", every=0.1)
    with capsys.disabled():
        print(f"\nan engine that had died meanwhile was ready {time.monotonic() - began:.1f} s later")
    all_is_well(cluster, 2, told)


# ---------------------------------------------------------------------- the Redis


@contextlib.contextmanager
def out_of_memory(cluster: Cluster) -> Iterator[None]:
    """It takes nothing more, and forgets nothing for it."""
    cluster.redis.ask("CONFIG", "SET", "maxmemory", 1)
    try:
        yield
    finally:
        cluster.redis.ask("CONFIG", "SET", "maxmemory", 0)


def signing_in(cluster: Cluster, node: int) -> list[str]:
    """With what errors the API answers who tries."""
    # Each time somebody else: tries are counted.
    email = f"{next(Told.numbers)}@people.test"
    asked = f'mutation {{ signIn(email: "{email}", password: "guessed") {{ errors {{ message }} }} }}'
    with GraphqlClient(cluster.nodes[node].http_port) as browser:
        return browser.ask(asked).codes


def mail_goes_on(cluster: Cluster, node: int, told: Told) -> None:
    """Whatever the Redis does."""
    assert told.send(node, "info@forward.test").code == 250
    assert told.send(node, "info@transit.test").code == 250
    assert cluster.ask(node, "nobody@forward.test").code == 550


def test_a_redis_that_is_silent_slow_or_flapping(cluster: Cluster, told: Told) -> None:
    def go_through(node: int, how: Callable[[BadLine], contextlib.AbstractContextManager[None]]) -> None:
        with how(to_redis(cluster, node)):
            if how is not flapping:
                assert signing_in(cluster, node) == ["UNAVAILABLE"]
                assert not cluster.is_ready(node)
            for _ in range(3):
                mail_goes_on(cluster, node, told)
        eventually(lambda: cluster.is_ready(node) and signing_in(cluster, node) == [], RECOVERED_S, every=1)

    with ThreadPoolExecutor(len(NODES)) as at_once:
        list(at_once.map(go_through, NODES, (silent, slow, flapping)))


def test_a_redis_that_is_out_of_memory(cluster: Cluster, told: Told) -> None:
    with out_of_memory(cluster):
        for node in NODES:
            mail_goes_on(cluster, node, told)
            assert signing_in(cluster, node) == ["UNAVAILABLE"]
            assert not cluster.is_ready(node)
    for node in NODES:
        eventually(lambda node=node: cluster.is_ready(node), RECOVERED_S)  # type: ignore[misc]
        assert signing_in(cluster, node) == []
