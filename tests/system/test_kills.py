"""Killed at random moments under load, the appliance loses nothing, invents nothing, and doubles little.

Clients send messages, each once, and write down what they were told. The destination refuses one in five for now and
writes down what it has taken. Meanwhile the whole appliance or one of its processes is killed, over and over. In the
end the two ledgers are compared with the promise:

    lost        answered 250, and never arrived                                       none (P1)
    ghosts      answered 4xx or 5xx, or broken off before the final dot, and arrived  none (P2)
    duplicates  arrived once more: at most one for each message and kill, and a kill
                lies between the two                                                  (P3)
    changed     arrived with other octets                                             none

A message whose final dot got no answer may arrive or not: its sender keeps it and tries again, as ours here do not.

`ONWARD_KILLS=10000 make test-long` is for the night.
"""

import hashlib
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from pathlib import Path

import process_tree
import pytest
from appliance_process import Settings, eventually
from destination import ReceivedMessage
from destination_scripts import Answer, Stage, first_of, sometimes
from smtp_client import Closed, SmtpClient
from world import World

QUICK_KILLS = 5
LONG_KILLS = int(os.environ.get("ONWARD_KILLS", "50"))
SEED = int(os.environ.get("ONWARD_SEED", "20"))

CLIENTS = 10
MESSAGES_PER_SECOND = 200
"""What the clients try to send together, while there is somebody to take it."""
AT_LEAST_PER_SECOND = 50
"""What must have been accepted on average, the time of being dead included."""
TEMPORARY_FAILURES = 0.2

STILL_ON_ITS_WAY = 0.5
"""Seconds for which the destination may still read what the dead had sent."""

_ID = re.compile(rb"^X-Id: ([0-9]+)\r\n", re.MULTILINE)


class Fate(Enum):
    """What a client knows about a message that it has sent."""

    ACCEPTED = "250"
    REFUSED = "4xx or 5xx"
    BROKEN_OFF = "the connection ended before the content was sent"
    UNKNOWN = "the final dot may have arrived, and was not answered"


@dataclass(slots=True)
class Ledger:
    """What the clients have sent and were told, and what the destination has taken."""

    fates: dict[int, Fate] = field(default_factory=dict)
    digests: dict[int, bytes] = field(default_factory=dict)
    arrivals: dict[int, list[float]] = field(default_factory=dict)
    changed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def new_message(self, lots: random.Random) -> tuple[int, bytes]:
        """A message that is like no other. Most are small, a few have several parts in the spool."""
        with self.lock:
            number = len(self.fates)
            self.fates[number] = Fate.BROKEN_OFF
        size = 2_500_000 if lots.random() < 0.002 else int(lots.paretovariate(0.8) * 300) % 60_000
        line = lots.randbytes(30).hex().encode() + b"\r\n"
        header = f"From: a@sender.test\r\nTo: kill@forward.test\r\nX-Id: {number}\r\n\r\n".encode()
        content = header + line * (size // len(line) + 1)
        self.digests[number] = hashlib.sha256(content).digest()
        return number, content

    def take(self, message: ReceivedMessage) -> None:
        """Called for one message after the other."""
        found = _ID.search(message.content)
        assert found is not None
        number = int(found[1])
        original = message.content[message.content.index(b"From: a@sender.test") :]
        self.changed += hashlib.sha256(original).digest() != self.digests[number]
        self.arrivals.setdefault(number, []).append(message.at)


class Client(threading.Thread):
    """Sends one message after the other, over connections that it keeps as long as they hold."""

    def __init__(self, world: World, ledger: Ledger, seed: int, stopped: threading.Event) -> None:
        super().__init__(daemon=True)
        self.world = world
        self.ledger = ledger
        self.lots = random.Random(seed)
        self.stopped = stopped
        self.connection: SmtpClient | None = None

    def run(self) -> None:
        """Until told to stop."""
        while not self.stopped.wait(self.lots.expovariate(MESSAGES_PER_SECOND / CLIENTS)):
            if self.connection is None:
                try:
                    self.connection = self.world.appliance.client(timeout=60)
                except (OSError, Closed, ValueError):
                    continue
            number, content = self.ledger.new_message(self.lots)
            try:
                self.ledger.fates[number] = self.send(self.connection, number, content)
            except (OSError, Closed, ValueError):
                # The fate that stands in the ledger is the one of the point where it ended.
                self.hang_up()
            else:
                if self.lots.random() < 0.1:
                    self.hang_up()
        self.hang_up()

    def send(self, connection: SmtpClient, number: int, content: bytes) -> Fate:
        """One transaction."""
        for reply in connection.envelope(f"m{number}@sender.test", ["kill@forward.test"]):
            if reply.code >= 300:
                connection.command("RSET")
                return Fate.REFUSED
        if connection.command("DATA").code != 354:
            return Fate.REFUSED
        # From here on we cannot know how much of it was heard.
        self.ledger.fates[number] = Fate.UNKNOWN
        connection.send(content)
        connection.send(b".\r\n")
        return Fate.ACCEPTED if connection.reply().code == 250 else Fate.REFUSED

    def hang_up(self) -> None:
        """Close without a word, as clients do."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    settings: Settings = {"delivery": {"retry": ["300ms", "500ms"]}}
    with World(tmp_path, {"kill@forward.test": ["kill.box@dest.test"]}, settings) as world:
        world.main.script = first_of(
            sometimes(Stage.RCPT, Answer(450, "4.2.1 Later"), TEMPORARY_FAILURES / 2, SEED),
            sometimes(Stage.END_OF_DATA, Answer(451, "4.3.0 Later"), TEMPORARY_FAILURES / 2, SEED + 1),
        )
        yield world


@dataclass(frozen=True, slots=True)
class Kill:
    """What was killed, and between which instants."""

    what: str
    began: float
    ended: float

    def explains(self, one: float, next_one: float) -> bool:
        """Whether a message that arrived at these instants may have arrived twice because of it."""
        return one <= self.ended + STILL_ON_ITS_WAY and self.began <= next_one


def kill_something(world: World, lots: random.Random) -> Kill:
    """Kill the whole or a part, and have it running again."""
    appliance = world.appliance
    what = lots.choices(["appliance", "supervisor", "engine or control"], [5, 2, 3])[0]
    began = time.time()
    if what == "appliance":
        appliance.kill()
        ended = time.time()
        appliance.start()
    elif what == "supervisor":
        appliance.kill_supervisor()
        ended = time.time()
        appliance.start()
    else:
        child = lots.choice(eventually(lambda: process_tree.children(appliance.pid)))
        os.kill(child, signal.SIGKILL)
        ended = time.time()
    return Kill(what, began, ended)


@pytest.mark.parametrize("kills", [QUICK_KILLS, pytest.param(LONG_KILLS, marks=pytest.mark.long)])
def test_kills(world: World, kills: int, capsys: pytest.CaptureFixture[str]) -> None:
    lots = random.Random(SEED)
    ledger, stopped = Ledger(), threading.Event()
    world.main.take = ledger.take
    clients = [Client(world, ledger, lots.getrandbits(32), stopped) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    began = time.monotonic()
    done: list[Kill] = []
    for _ in range(kills):
        stopped.wait(lots.uniform(0.3, 2.5))
        done.append(kill_something(world, lots))
    stopped.wait(1)
    stopped.set()
    for client in clients:
        client.join(timeout=90)
        assert not client.is_alive()
    seconds = time.monotonic() - began
    eventually(lambda: world.appliance.http("/health/ready")[0] == 200, within=60)
    world.queue_is_empty(within=120)

    arrivals = ledger.arrivals
    of = {fate: {number for number, found in ledger.fates.items() if found is fate} for fate in Fate}
    lost = of[Fate.ACCEPTED] - arrivals.keys()
    ghosts = (of[Fate.REFUSED] | of[Fate.BROKEN_OFF]) & arrivals.keys()
    duplicates, unexplained = 0, 0
    for times in arrivals.values():
        times.sort()
        for one, next_one in pairwise(times):
            duplicates += 1
            unexplained += not any(kill.explains(one, next_one) for kill in done)
    rate = len(of[Fate.ACCEPTED]) / seconds

    killed = Counter(kill.what for kill in done)
    with capsys.disabled():
        print(
            f"\n{kills} kills ({', '.join(f'{count} of {what}' for what, count in sorted(killed.items()))}) "
            f"in {seconds:.0f} s; accepted {len(of[Fate.ACCEPTED])} ({rate:.0f}/s), refused {len(of[Fate.REFUSED])}, "
            f"broken off {len(of[Fate.BROKEN_OFF])}, unanswered {len(of[Fate.UNKNOWN])}, "
            f"of which {len(of[Fate.UNKNOWN] & arrivals.keys())} arrived; "
            f"lost {len(lost)}, ghosts {len(ghosts)}, changed {ledger.changed}, "
            f"duplicates {duplicates}, unexplained {unexplained}; seed {SEED}"
        )
    assert not lost
    assert not ghosts
    assert not ledger.changed
    assert not unexplained
    assert rate >= AT_LEAST_PER_SECOND
    assert not world.senders.messages, "a temporary failure has bounced"
    objections = [words for words in world.objections() if "connection ended within" not in words]
    assert not objections
