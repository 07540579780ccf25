"""The ledger of a load: what senders were told of each message, what has arrived, and whether that keeps the promise.

Senders send messages, each once, and write down what they were told. The destination writes down what it has taken.
Meanwhile the appliance is interrupted in whatever way a test likes. In the end the two are compared:

    lost        answered 250, and never arrived                                       none (P1)
    ghosts      answered 4xx or 5xx, or broken off before the final dot, and arrived  none (P2)
    duplicates  arrived once more: at most one for each message and interruption, and an interruption lies between the
                two                                                                   (P3)
    changed     arrived with other octets                                             none

A message whose final dot got no answer may arrive or not: its sender keeps it and tries again, as ours here do not.
"""

import hashlib
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise

from destination import ReceivedMessage
from smtp_client import Closed, Reply, SmtpClient

STILL_ON_ITS_WAY = 0.5
"""Seconds for which the destination may still read what the dead had sent."""

_ID = re.compile(rb"^X-Id: ([0-9]+)\r\n", re.MULTILINE)


class Fate(Enum):
    """What a sender knows about a message that it has sent."""

    ACCEPTED = "250"
    REFUSED = "4xx or 5xx"
    BROKEN_OFF = "the connection ended before the content was sent"
    UNKNOWN = "the final dot may have arrived, and was not answered"


@dataclass(frozen=True, slots=True)
class Interruption:
    """What was killed, stopped or cut off, and between which instants (seconds since the epoch)."""

    what: str
    began: float
    ended: float

    def explains(self, one: float, next_one: float) -> bool:
        """Whether a message that arrived at these instants may have arrived twice because of it."""
        return one <= self.ended + STILL_ON_ITS_WAY and self.began <= next_one


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison has found."""

    accepted: int
    refused: int
    broken_off: int
    unanswered: int
    unanswered_arrived: int
    lost: Collection[int]
    ghosts: Collection[int]
    changed: int
    duplicates: int
    unexplained: int
    """Duplicates without an interruption that explains them, or one more than it explains."""

    def __str__(self) -> str:
        return (
            f"accepted {self.accepted}, refused {self.refused}, broken off {self.broken_off}, "
            f"unanswered {self.unanswered}, of which {self.unanswered_arrived} arrived; lost {len(self.lost)}, "
            f"ghosts {len(self.ghosts)}, changed {self.changed}, duplicates {self.duplicates}, "
            f"unexplained {self.unexplained}"
        )


@dataclass(slots=True)
class Ledger:
    """What the senders have sent and were told, and what the destination has taken."""

    fates: dict[int, Fate] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)
    """The replies that refused something, and how often."""
    digests: dict[int, bytes] = field(default_factory=dict)
    arrivals: dict[int, list[float]] = field(default_factory=dict)
    accepted_at: list[float] = field(default_factory=list)
    """Instants at which a sender was told 250, in seconds since the epoch."""
    changed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def new_message(self, lots: random.Random) -> tuple[int, bytes]:
        """A message that is like no other. Most are small, a few have several parts in the spool."""
        with self.lock:
            number = len(self.fates)
            self.fates[number] = Fate.BROKEN_OFF
        size = 2_500_000 if lots.random() < 0.002 else int(lots.paretovariate(0.8) * 300) % 60_000
        line = lots.randbytes(30).hex().encode() + b"\r\n"
        header = f"From: a@sender.test\r\nTo: you@forward.test\r\nX-Id: {number}\r\n\r\n".encode()
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

    def refuse(self, reply: Reply) -> Fate:
        """Somebody was told no."""
        with self.lock:
            self.refusals[str(reply)] += 1
        return Fate.REFUSED

    def accept(self) -> Fate:
        """Somebody was told 250."""
        with self.lock:
            self.accepted_at.append(time.time())
        return Fate.ACCEPTED

    def of(self, fate: Fate) -> set[int]:
        """The messages with this fate."""
        return {number for number, found in self.fates.items() if found is fate}

    def verdict(self, interruptions: Collection[Interruption]) -> Verdict:
        """Compare, once nothing is under way any more."""
        duplicates, unexplained = 0, 0
        for times in self.arrivals.values():
            times.sort()
            duplicates += len(times) - 1
            unexplained += sum(
                not any(each.explains(one, next_one) for each in interruptions) for one, next_one in pairwise(times)
            )
        accepted, unanswered = self.of(Fate.ACCEPTED), self.of(Fate.UNKNOWN)
        refused, broken_off = self.of(Fate.REFUSED), self.of(Fate.BROKEN_OFF)
        return Verdict(
            accepted=len(accepted),
            refused=len(refused),
            broken_off=len(broken_off),
            unanswered=len(unanswered),
            unanswered_arrived=len(unanswered & self.arrivals.keys()),
            lost=accepted - self.arrivals.keys(),
            ghosts=(refused | broken_off) & self.arrivals.keys(),
            changed=self.changed,
            duplicates=duplicates,
            unexplained=unexplained,
        )


class Sender(threading.Thread):
    """Sends one message after the other, over connections that it keeps as long as they hold."""

    def __init__(
        self,
        ledger: Ledger,
        recipient: str,
        connect: Callable[[random.Random], SmtpClient],
        per_second: float,
        seed: int,
        stopped: threading.Event,
    ) -> None:
        """`connect` makes a new connection, to whatever it draws; `per_second` is what this one tries to send."""
        super().__init__(daemon=True)
        self.ledger = ledger
        self.recipient = recipient
        self.connect = connect
        self.per_second = per_second
        self.lots = random.Random(seed)
        self.stopped = stopped
        self.connection: SmtpClient | None = None

    def run(self) -> None:
        """Until told to stop."""
        while not self.stopped.wait(self.lots.expovariate(self.per_second)):
            if self.connection is None:
                try:
                    self.connection = self.connect(self.lots)
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
        for reply in connection.envelope(f"m{number}@sender.test", [self.recipient]):
            if reply.code >= 300:
                connection.command("RSET")
                return self.ledger.refuse(reply)
        reply = connection.command("DATA")
        if reply.code != 354:
            return self.ledger.refuse(reply)
        # From here on we cannot know how much of it was heard.
        self.ledger.fates[number] = Fate.UNKNOWN
        connection.send(content)
        connection.send(b".\r\n")
        reply = connection.reply()
        return self.ledger.accept() if reply.code == 250 else self.ledger.refuse(reply)

    def hang_up(self) -> None:
        """Close without a word, as clients do."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None
