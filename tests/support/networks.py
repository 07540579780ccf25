"""Networks between the nodes of a cluster, their servers and the world, so that one node can be cut off from them.

Where root allows, each node is in a network namespace of its own, with two cables: to a switch where MongoDB and Redis
are, and to one where the world is. A cable is pulled at the switch: nobody hears of it, packets just don't arrive.
Elsewhere the nodes are on loopback, and lines of the test lie between them and the servers (`bad_line.py`), which can
be held; the world stays in reach then.
"""

import contextlib
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from bad_line import BadLine

LOOPBACK = "127.0.0.1"


class Network(Protocol):
    """For nodes with numbers from 0. It exists inside a `with`."""

    servers: str
    """The address at which MongoDB and Redis listen for the nodes."""
    world: tuple[str, str]
    """The addresses of everybody else: of the DNS and the mailboxes, and of those who write."""
    cuts_off_the_world: bool
    """Whether `cut_off` can be about more than the servers."""

    def address_of(self, node: int) -> str:
        """Where a node listens for the world."""

    def start_with(self, node: int) -> Sequence[str]:
        """What stands before the command of a node."""

    def port_of(self, node: int, port: int) -> int:
        """The port at which a node finds the server with this port."""

    def cut_off(self, node: int, *, world: bool) -> None:
        """From now on nothing passes between a node and the servers; nor, with `world`, between it and anybody."""

    def let_back(self, node: int) -> None:
        """All is well again."""


class Lines:
    """Nodes on loopback, and lines to the servers."""

    servers = LOOPBACK
    world = "127.0.0.2", "127.0.0.4"
    cuts_off_the_world = False

    def __init__(self, exits: contextlib.ExitStack) -> None:
        self._exits = exits
        self._lines: dict[tuple[int, int], BadLine] = {}

    def address_of(self, node: int) -> str:
        """See Network."""
        return LOOPBACK

    def start_with(self, node: int) -> Sequence[str]:
        """See Network."""
        return ()

    def port_of(self, node: int, port: int) -> int:
        """See Network."""
        return self.line(node, port).port

    def line(self, node: int, port: int) -> BadLine:
        """The line between a node and the server with this port."""
        if (node, port) not in self._lines:
            self._lines[node, port] = self._exits.enter_context(BadLine(port))
        return self._lines[node, port]

    def cut_off(self, node: int, *, world: bool) -> None:
        """See Network."""
        assert not world
        for line in self._of(node):
            line.hold()

    def let_back(self, node: int) -> None:
        """See Network."""
        for line in self._of(node):
            line.let_go()

    def _of(self, node: int) -> list[BadLine]:
        return [line for (each, _), line in self._lines.items() if each == node]


class Namespaces:
    """Nodes in network namespaces. What is made is called after this process, and `remove` takes it away."""

    cuts_off_the_world = True

    def __init__(self, nodes: int) -> None:
        """Raises OSError or subprocess.CalledProcessError where this can't be made here."""
        self._name = f"ow{os.getpid()}"
        self._nodes = range(nodes)
        # Several tests at once must not choose the same.
        self._net = f"10.{random.SystemRandom().randrange(64, 250)}.{random.SystemRandom().randrange(1, 250)}"
        self._clear_away()
        self.servers = f"{self._net}.1"
        self.world = f"{self._net}.129", f"{self._net}.254"
        try:
            self._make()
        except BaseException:
            self.remove()
            raise

    def address_of(self, node: int) -> str:
        """See Network."""
        return f"{self._net}.{130 + node}"

    def start_with(self, node: int) -> Sequence[str]:
        """See Network."""
        return "nsenter", f"--net=/run/netns/{self._namespace(node)}"

    def port_of(self, node: int, port: int) -> int:
        """See Network."""
        return port

    def cut_off(self, node: int, *, world: bool) -> None:
        """See Network."""
        for switch in "sw" if world else "s":
            _ip("link", "set", self._plug(node, switch), "nomaster")

    def let_back(self, node: int) -> None:
        """See Network."""
        for switch in "sw":
            _ip("link", "set", self._plug(node, switch), "master", self._switch(switch))

    def remove(self) -> None:
        """Take away what was made."""
        for node in self._nodes:
            # The cables first: a namespace lives on while a process is in it.
            for switch in "sw":
                _ip("link", "delete", self._plug(node, switch), check=False)
            _ip("netns", "delete", self._namespace(node), check=False)
        for switch in "sw":
            _ip("link", "delete", self._switch(switch), check=False)

    @staticmethod
    def _clear_away() -> None:
        """Take away what a test has left that was killed."""
        for left in Path("/run/netns").glob("ow*n*"):
            found = re.fullmatch(r"(ow([0-9]+))n[0-9]+", left.name)
            if found and not Path(f"/proc/{found[2]}").exists():
                _ip("netns", "delete", left.name, check=False)
                for switch in "sw":
                    _ip("link", "delete", f"{found[1]}{switch}", check=False)

    def _make(self) -> None:
        for switch, addresses in (("s", (self.servers,)), ("w", self.world)):
            _ip("link", "add", self._switch(switch), "type", "bridge")
            for address in addresses:
                _ip("address", "add", f"{address}/25", "dev", self._switch(switch))
            _ip("link", "set", self._switch(switch), "up")
        for node in self._nodes:
            namespace = self._namespace(node)
            _ip("netns", "add", namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
            for switch, address in (("s", f"{self._net}.{2 + node}"), ("w", self.address_of(node))):
                plug = self._plug(node, switch)
                _ip("link", "add", plug, "type", "veth", "peer", "name", switch, "netns", namespace)
                _ip("link", "set", plug, "master", self._switch(switch), "up")
                _ip("-n", namespace, "address", "add", f"{address}/25", "dev", switch)
                _ip("-n", namespace, "link", "set", switch, "up")

    def _switch(self, switch: str) -> str:
        return f"{self._name}{switch}"

    def _plug(self, node: int, switch: str) -> str:
        return f"{self._name}{switch}{node}"

    def _namespace(self, node: int) -> str:
        return f"{self._name}n{node}"


def _ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=True, timeout=20)


@contextlib.contextmanager
def network(nodes: int) -> Iterator[Network]:
    """Namespaces for so many nodes where they can be had, else lines."""
    made = _namespaces(nodes)
    if made is None:
        with lines() as found:
            yield found
        return
    try:
        yield made
    finally:
        made.remove()


@contextlib.contextmanager
def lines() -> Iterator[Lines]:
    """Lines, whoever we are: for what only they can do."""
    with contextlib.ExitStack() as exits:
        yield Lines(exits)


def _namespaces(nodes: int) -> Namespaces | None:
    if os.geteuid() != 0 or not shutil.which("ip"):
        return None
    try:
        return Namespaces(nodes)
    except (OSError, subprocess.CalledProcessError):
        # The root of a container may be root of nothing else.
        return None
