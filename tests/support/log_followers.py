"""Many who follow the log over websockets, in one process, at hardly more cost than reading what comes."""

import json
import os
import selectors
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from beside import STAND_BACK, Start
from websocket_client import UPGRADE, masked

ADDRESSES = 20
"""That they come from: one client has so many connections and no more."""
GREETED_S = 20.0
"""How long one may wait for each step of being let in."""
BEGUN_S = 3.0
"""After that every subscription has begun; the protocol acknowledges none."""
DOUBLES_S = 1.0
"""How long is looked on, once everybody has had everything, for what comes once more."""

_TEXT, _PING = 0x1, 0x9
_PONG = b"\x8a\x80" + bytes(4)


@dataclass(frozen=True, slots=True)
class Followed:
    """What all of them have had."""

    events: int
    """Different ones."""
    lost: int
    """Of all who follow together: what did not reach one of them and should have."""
    doubles: int
    latencies_s: list[float]
    """Of each event for each who follows: from the instant that the event tells itself, which is in whole milliseconds
    of the same clock, to when it was read. In order."""


@dataclass(slots=True)
class _Follower:
    connection: socket.socket
    unread: bytearray = field(default_factory=bytearray)
    heard: list[tuple[float, bytes]] = field(default_factory=list)
    """When each message came."""

    def read(self) -> None:
        """What is there. AssertionError where the server has closed."""
        octets = self.connection.recv(1 << 18)
        assert octets, "a websocket was closed"
        self.take(octets)

    def take(self, octets: bytes) -> None:
        """RFC 6455 §5.2: frames of a server are not masked, and the API sends no fragments."""
        now = time.time()
        self.unread += octets
        while len(self.unread) >= 2:
            length, begin = self.unread[1], 2
            if length == 126:
                length, begin = int.from_bytes(self.unread[2:4], "big"), 4
            if length == 127 or len(self.unread) < begin + length:
                assert length != 127, "no answer is so long"
                return
            kind = self.unread[0] & 0xF
            if kind == _PING:
                self.connection.sendall(_PONG)
            else:
                content = bytes(self.unread[begin : begin + length])
                assert kind == _TEXT, content
                self.heard.append((now, content))
            del self.unread[: begin + length]

    def wait_for_message(self) -> bytes:
        """The next message, while nothing else is going on."""
        while not self.heard:
            self.read()
        return self.heard.pop(0)[1]


def follow(
    start: Start,
    port: int,
    token: str,
    number: int,
    query: str,
    variables: Mapping[str, object],
    events: int,
    within: float,
) -> Followed:
    """So many follow until each has had so many events, for so many seconds at most. A part of a load (`beside.py`)."""
    os.nice(STAND_BACK)
    followers = [_let_in(port, token, f"127.0.1.{1 + each % ADDRESSES}") for each in range(number)]
    asked = masked({"id": "1", "type": "subscribe", "payload": {"query": query, "variables": variables}})
    for each in followers:
        each.connection.sendall(asked)
    selector = selectors.DefaultSelector()
    for each in followers:
        selector.register(each.connection, selectors.EVENT_READ, each)
    time.sleep(BEGUN_S)
    start()
    deadline = time.monotonic() + within
    while time.monotonic() < deadline and any(len(each.heard) < events for each in followers):
        _look(selector, 0.5)
    until = time.monotonic() + DOUBLES_S
    while time.monotonic() < until:
        _look(selector, 0.1)
    for each in followers:
        each.connection.close()
    return _summed_up(followers, events)


def _look(selector: selectors.BaseSelector, wait: float) -> None:
    for key, _ in selector.select(wait):
        key.data.read()


def _let_in(port: int, token: str, address: str) -> _Follower:
    follower = _Follower(socket.create_connection(("127.0.0.1", port), GREETED_S, (address, 0)))
    follower.connection.sendall(UPGRADE)
    head = b""
    while b"\r\n\r\n" not in head:
        head += follower.connection.recv(4096)
    head, _, rest = head.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    follower.take(rest)
    introduction = {"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}}
    follower.connection.sendall(masked(introduction))
    assert json.loads(follower.wait_for_message()) == {"type": "connection_ack"}
    return follower


def _summed_up(followers: list[_Follower], events: int) -> Followed:
    had: list[list[str]] = []
    latencies: list[float] = []
    for each in followers:
        ids = []
        for came_at, content in each.heard:
            told = json.loads(content)
            assert told["type"] == "next", told
            assert "errors" not in told["payload"], told
            event = told["payload"]["data"]["deliveryEvents"]
            ids.append(event["id"])
            latencies.append(came_at - datetime.fromisoformat(event["at"]).timestamp())
        had.append(ids)
    everything = {id for ids in had for id in ids}
    lost = sum(max(events, len(everything)) - len(set(ids)) for ids in had)
    return Followed(len(everything), lost, sum(len(ids) - len(set(ids)) for ids in had), sorted(latencies))
