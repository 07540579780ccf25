"""What happens to the nodes of a cluster and to the servers that they share: one thing after another, and at once.

Each trouble is over by itself, and what it was about is at work again by then, or soon. Two never befall the same node
or server at the same time.
"""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import process_tree
from cluster import Cluster
from hasty_node import LEASE_S
from mail_ledger import Interruption

Lots = random.Random

MONGOD, REDIS = "mongod", "redis"

FOLLOWED = 2
"""The node whose control process lives through it all: somebody follows the log there."""

AT_ONCE = 4
"""Troubles at the same time, at most."""


def _moment(lots: Lots) -> float:
    """Seconds that nobody need notice."""
    return lots.uniform(0.1, 1.0)


def _long(lots: Lots) -> float:
    """Seconds after which the others take a node for dead."""
    return LEASE_S * lots.uniform(1.1, 1.4)


def _some_time(lots: Lots) -> float:
    return lots.choice((_moment, _long))(lots)


# ---------------------------------------------------------------------- nodes


def kill_engine(cluster: Cluster, node: int, lots: Lots) -> None:
    """SIGKILL: its supervisor starts another."""
    cluster.kill_engine(node)


def kill_control(cluster: Cluster, node: int, lots: Lots) -> None:
    """SIGKILL to what people see of a node."""
    engine = cluster.engine(node)
    for pid in process_tree.children(cluster.nodes[node].pid):
        if pid != engine:
            os.kill(pid, signal.SIGKILL)


def kill_node(cluster: Cluster, node: int, lots: Lots) -> None:
    """SIGKILL to all of it, and a start."""
    cluster.nodes[node].kill()
    time.sleep(_some_time(lots))
    cluster.start(node)


def kill_supervisor(cluster: Cluster, node: int, lots: Lots) -> None:
    """SIGKILL to the parent alone, and a start."""
    cluster.nodes[node].kill_supervisor()
    cluster.start(node)


def restart(cluster: Cluster, node: int, lots: Lots) -> None:
    """SIGTERM, as for a new version, and a start."""
    assert cluster.nodes[node].stop() == 0
    cluster.start(node)


def suspend(cluster: Cluster, node: int, lots: Lots) -> None:
    """SIGSTOP for a moment."""
    with cluster.stopped_engine(node):
        time.sleep(_moment(lots))


def suspend_for_long(cluster: Cluster, node: int, lots: Lots) -> None:
    """SIGSTOP until the others have its work."""
    with cluster.stopped_engine(node):
        time.sleep(_long(lots))


def cut_off(cluster: Cluster, node: int, lots: Lots) -> None:
    """From the servers, for a moment."""
    with cluster.cut_off(node):
        time.sleep(_moment(lots))


def cut_off_for_long(cluster: Cluster, node: int, lots: Lots) -> None:
    """From the servers, or from everybody, until the others have its work."""
    with cluster.cut_off(node, world=cluster.network.cuts_off_the_world and lots.random() < 0.5):
        time.sleep(_long(lots))


# ---------------------------------------------------------------------- servers


def kill_mongod(cluster: Cluster, node: int, lots: Lots) -> None:
    """SIGKILL, and a start."""
    cluster.mongod.kill()
    time.sleep(_moment(lots))
    cluster.start_mongod()


def suspend_mongod(cluster: Cluster, node: int, lots: Lots) -> None:
    """SIGSTOP, for a moment or for longer than a lease."""
    cluster.mongod.freeze()
    time.sleep(_some_time(lots))
    cluster.mongod.thaw()


def empty_redis(cluster: Cluster, node: int, lots: Lots) -> None:
    """FLUSHALL."""
    cluster.redis.ask("FLUSHALL")


def kill_redis(cluster: Cluster, node: int, lots: Lots) -> None:
    """SIGKILL, and a start with nothing in it."""
    cluster.redis.kill()
    time.sleep(_some_time(lots))
    cluster.redis.start()


def suspend_redis(cluster: Cluster, node: int, lots: Lots) -> None:
    """SIGSTOP."""
    with cluster.redis.held():
        time.sleep(_some_time(lots))


@dataclass(frozen=True, slots=True)
class Trouble:
    """One kind of it."""

    happen: Callable[[Cluster, int, Lots], None]
    weight: int
    ends_a_node: bool
    """A node dies of it, or is taken for dead: what it has delivered and not recorded may be delivered again."""
    befalls: str = "node"
    ends_control: bool = False

    @property
    def name(self) -> str:
        """For people."""
        return self.happen.__name__.replace("_", " ")


TROUBLES = (
    Trouble(kill_engine, 4, ends_a_node=True),
    Trouble(kill_node, 3, ends_a_node=True, ends_control=True),
    Trouble(kill_supervisor, 1, ends_a_node=True, ends_control=True),
    Trouble(kill_control, 1, ends_a_node=False, ends_control=True),
    Trouble(restart, 1, ends_a_node=False, ends_control=True),
    Trouble(suspend, 2, ends_a_node=False),
    Trouble(suspend_for_long, 3, ends_a_node=True),
    Trouble(cut_off, 2, ends_a_node=False),
    Trouble(cut_off_for_long, 3, ends_a_node=True),
    Trouble(kill_mongod, 2, ends_a_node=False, befalls=MONGOD),
    Trouble(suspend_mongod, 2, ends_a_node=False, befalls=MONGOD),
    Trouble(empty_redis, 1, ends_a_node=False, befalls=REDIS),
    Trouble(kill_redis, 1, ends_a_node=False, befalls=REDIS),
    Trouble(suspend_redis, 1, ends_a_node=False, befalls=REDIS),
)


class TroubledTimes:
    """So many troubles, drawn by lot."""

    def __init__(self, cluster: Cluster, lots: Lots) -> None:
        self._cluster = cluster
        self._lots = lots
        self._troubled: dict[str, threading.Thread] = {}
        self.interruptions: list[Interruption] = []
        """What may have brought a second copy of something."""
        self.happened: Counter[str] = Counter()
        self.failures: list[str] = []
        """What has gone wrong with the troubles themselves."""

    def __str__(self) -> str:
        return ", ".join(f"{count} × {name}" for name, count in sorted(self.happened.items()))

    def pass_through(self, number: int, stopped: threading.Event) -> None:
        """Returns when they are over."""
        for _ in range(number):
            trouble, place = self._drawn()
            stopped.wait(self._lots.uniform(0.2, 1.5))
            while place in (befallen := self._befallen()) or len(befallen) >= AT_ONCE:
                time.sleep(0.01)
            thread = threading.Thread(target=self._befall, args=(trouble, place, Lots(self._lots.random())))
            self._troubled[place] = thread
            thread.start()
        for thread in self._troubled.values():
            thread.join()

    def _drawn(self) -> tuple[Trouble, str]:
        while True:
            (trouble,) = self._lots.choices(TROUBLES, [each.weight for each in TROUBLES])
            node = self._lots.randrange(len(self._cluster.nodes))
            if not (trouble.ends_control and node == FOLLOWED):
                return trouble, f"node {node}" if trouble.befalls == "node" else trouble.befalls

    def _befallen(self) -> set[str]:
        return {place for place, thread in self._troubled.items() if thread.is_alive()}

    def _befall(self, trouble: Trouble, place: str, lots: Lots) -> None:
        node = int(place.removeprefix("node ")) if trouble.befalls == "node" else -1
        began = time.time()
        try:
            trouble.happen(self._cluster, node, lots)
        except Exception as error:  # noqa: BLE001 - for whoever asked for troubles
            self.failures.append(f"{trouble.name}, {place}: {error!r}")
        finally:
            self.happened[trouble.name] += 1
            if trouble.ends_a_node:
                self.interruptions.append(Interruption(trouble.name, began, time.time()))
