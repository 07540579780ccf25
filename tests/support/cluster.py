"""Several nodes of the appliance on one MongoDB and one Redis, and the small world round them.

    dest.test      the mailboxes
    sender.test    where the people who write have their mail: bounces go there
    forward.test   hosted, with its log at `events`; aliases are the test's own

The nodes have one domain for rewritten senders, and the cluster key of the first; else they know nothing of each other.
"""

import contextlib
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import process_tree
import pytest
from appliance_process import PROGRAM, Appliance, Settings, eventually
from destination import Destination, on_one_port
from dns_server import DnsServer
from mongod import Mongod, require_mongod
from networks import LOOPBACK, Network, lines, network
from redis_server import PrivateRedis, missing
from smtp_client import Reply
from world import Town

OWNER = "owner@people.test"

HASTY = (sys.executable, str(Path(__file__).with_name("hasty_node.py")))
"""The program of nodes that give each other up soon."""

SRS_DOMAIN = "srs.onward.test"

READY_WITHIN_S = 60.0
"""Seconds until all nodes are ready that have been through anything."""


class Cluster:
    """Runs inside a `with`; every server and process is its own."""

    def __init__(
        self,
        directory: Path,
        town: Town,
        settings: Settings | None = None,
        *,
        domains: Mapping[str, Sequence[str]] = {},
        nodes: int = 3,
        on_lines: bool = False,
        program: Sequence[str] = PROGRAM,
        store: str | None = None,
    ) -> None:
        """`domains`: hosted domains beside those that the aliases name, with options for `domain set`.

        `on_lines`: the nodes are on loopback and have lines to the servers, whatever else could be had. `store`: the
        URL of a MongoDB on loopback that is there already, in place of one of the cluster's own; needs `on_lines`, and
        there is no line to it.
        """
        self._directory = directory
        self._town = town
        self._settings = settings or {}
        self._domains = {alias.rpartition("@")[2]: () for alias in town} | dict(domains)
        self._number = nodes
        self._on_lines = on_lines
        self._program = program
        self._store = store
        self._exits = contextlib.ExitStack()
        self.network: Network
        self.mongod: Mongod
        self._starter: ThreadPoolExecutor
        self.redis: PrivateRedis
        self.dns: DnsServer
        self.main: Destination
        self.senders: Destination
        self.nodes: list[Appliance] = []
        self.start_s: list[float] = []
        """How long each node took to be ready for the first time. They start together."""

    def __enter__(self) -> Self:
        require_mongod()
        if missing():
            pytest.skip(missing())
        try:
            self._build()
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._exits.close()

    # ------------------------------------------------------------------ what people do

    def ask(self, node: int, recipient: str, sender: str = "ann@sender.test") -> Reply:
        """What a node answers to RCPT, or to MAIL where that is refused; nothing is sent."""
        with self.nodes[node].client() as client:
            return client.envelope(sender, [recipient])[-1]

    def send(self, node: int, recipient: str, content: bytes, sender: str = "ann@sender.test") -> Reply:
        """Somebody writes by way of a node. The reply to the final dot, or the first one that is not positive."""
        with self.nodes[node].client() as client:
            return client.message(sender, [recipient], content)

    def is_ready(self, node: int) -> bool:
        """Whether a node says so of itself."""
        try:
            return self.nodes[node].http("/health/ready")[0] == 200
        except (OSError, ValueError):
            return False

    def all_are_ready(self, within: float = READY_WITHIN_S) -> None:
        """Wait until every node says that it is ready."""
        for node in range(self._number):
            eventually(lambda node=node: self.is_ready(node), within, f"node {node} is ready", every=0.1)  # type: ignore[misc]

    def queue_is_empty(self, within: float = 10) -> None:
        """Wait until no node has anything under way, as the first of them tells it."""
        eventually(lambda: not self.nodes[0].queue(), within, "an empty queue", every=0.2)

    def objections(self) -> list[str]:
        """What could be held against the nodes: by the servers, and by those whose addresses they may not log."""
        said = [line for node in self.nodes for line in node.said().splitlines()]
        leaked = [line for line in said if re.search(r"@\w+\.test", line)]
        return leaked + [words for server in (self.main, self.senders) for words in server.violations]

    # ------------------------------------------------------------------ what happens to nodes

    def start(self, node: int) -> None:
        """Start a node that does not run: again and again, as the system's supervisor does, while it can't be."""

        def is_started() -> bool:
            try:
                self.nodes[node].start()
            except AssertionError:
                self.nodes[node].kill()
                return False
            return True

        eventually(is_started, READY_WITHIN_S, f"node {node} has started", every=0.2)

    def start_mongod(self) -> None:
        """Start it again after a kill. To be called by any thread."""
        # It dies with the thread that has started it: with this one, it lives as long as the cluster.
        self._starter.submit(self.mongod.start).result()

    def engine(self, node: int) -> int:
        """The pid of a node's engine, once it has one."""

        def look() -> int | None:
            children = process_tree.children(self.nodes[node].pid)
            # Control steps back behind mail, and is started behind it.
            return min(children, key=lambda pid: (_nice(pid), pid)) if len(children) == 2 else None

        return eventually(look, READY_WITHIN_S, f"node {node} has an engine")

    def kill_engine(self, node: int) -> None:
        """SIGKILL to one engine; its supervisor starts another."""
        os.kill(self.engine(node), signal.SIGKILL)

    @contextlib.contextmanager
    def stopped_engine(self, node: int) -> Iterator[None]:
        """SIGSTOP to one engine for as long as the block lasts: a machine that is suspended."""
        pid = self.engine(node)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def cut_off(self, node: int, *, world: bool = False) -> Iterator[None]:
        """Nothing passes between a node and the servers while the block lasts; nor, with `world`, anything else."""
        self.network.cut_off(node, world=world)
        try:
            yield
        finally:
            self.network.let_back(node)

    # ------------------------------------------------------------------ how it is built

    def _build(self) -> None:
        made = self.network = self._exits.enter_context(lines() if self._on_lines else network(self._number))
        elsewhere = "" if made.servers == LOOPBACK else made.servers
        if self._store is None:
            directory = self._directory / "mongod"
            directory.mkdir(parents=True)
            self.mongod = Mongod(
                directory, replica_set=True, addresses=f"{LOOPBACK},{elsewhere}" if elsewhere else LOOPBACK
            )
            self._starter = self._exits.enter_context(ThreadPoolExecutor(1))
            self._exits.callback(self.mongod.kill)
            self.start_mongod()
        # What it reads last counts. Who is not on this machine is in a network of the test's own.
        lets_nodes_in = (f"bind {LOOPBACK} {elsewhere}", "protected-mode no") if elsewhere else ()
        self.redis = self._exits.enter_context(PrivateRedis(self._directory / "redis", *lets_nodes_in))
        port = self._build_the_world()
        for number in range(self._number):
            self.nodes.append(self._node(number, port))
            self._exits.callback(self.nodes[-1].close)
        self._settle()
        key = self.nodes[0].data_dir / "secrets" / "cluster.key"
        for node in self.nodes[1:]:
            for each in (node.data_dir, node.data_dir / "secrets"):
                each.mkdir(mode=0o700)
            shutil.copy(key, node.data_dir / "secrets")
        with ThreadPoolExecutor(self._number) as starting:
            self.start_s = list(starting.map(_started, self.nodes))

    def _build_the_world(self) -> int:
        """Returns the port on which mail is taken."""
        mailboxes, people = self.network.world
        self.main = Destination(mailboxes, name="mx.dest.test")
        self.senders = Destination(people, name="mx.sender.test")
        port = on_one_port(self.main, self.senders)
        for server in (self.main, self.senders):
            self._exits.callback(server.stop)
        records = {
            "dest.test": ["MX 10 mx.dest.test."],
            "mx.dest.test": [f"A {mailboxes}"],
            "sender.test": ["MX 10 mx.sender.test."],
            "mx.sender.test": [f"A {people}"],
        }
        self.dns = self._exits.enter_context(DnsServer(records, mailboxes))
        return port

    def _node(self, number: int, port: int) -> Appliance:
        made = self.network
        redis = made.port_of(number, self.redis.port)
        node = Appliance(
            self._directory / f"node{number}",
            nameserver=self.dns.nameserver,
            delivery_port=port,
            settings={
                "": {"hostname": f"mx{number}.onward.test"},
                "forwarding": {"srs_domain": SRS_DOMAIN},
                "store": {
                    "url": self._store or self._store_of(number),
                    "ephemeral": f"redis://{made.servers}:{redis}/0",
                },
            },
            address=made.address_of(number),
            program=(*made.start_with(number), *self._program),
        )
        node.configure(self._settings)
        return node

    def _store_of(self, number: int) -> str:
        port = self.network.port_of(number, self.mongod.port)
        # A member of a replica set would be asked where the others are, and told of one on loopback.
        return f"mongodb://{self.network.servers}:{port}/onward?directConnection=true"

    def _settle(self) -> None:
        first = self.nodes[0]
        first.settle("account", "add", OWNER)
        for name, options in self._domains.items():
            first.settle("domain", "add", name, "--account", OWNER, "--verified")
            if options:
                first.settle("domain", "set", name, *options)
        for alias, targets in self._town.items():
            first.settle("alias", "add", alias, *targets, "--confirmed")


def _started(node: Appliance) -> float:
    began = time.monotonic()
    node.start()
    return time.monotonic() - began


def _nice(pid: int) -> int:
    try:
        return os.getpriority(os.PRIO_PROCESS, pid)
    except ProcessLookupError:
        return 0
