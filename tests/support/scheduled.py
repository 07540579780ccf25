"""One scheduler with a real spool, under a clock that jumps.

A script stands where connections would be, because no real socket works under such a clock.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from inline_committer import InlineCommitter
from values import NOW, answer

from appliance.delivery.courier import Content, Unreachable
from appliance.delivery.holds import Holds
from appliance.delivery.memory import MAX_CLAIMED
from appliance.delivery.operator import QueueOperator
from appliance.delivery.schedule import RetrySchedule
from appliance.delivery.scheduler import Scheduler
from appliance.delivery.settlement import Settler
from appliance.forwarding.srs import SenderRewriter
from appliance.logbook.counts import Counts
from appliance.logbook.events import Logbook
from appliance.logbook.live import LiveStream
from appliance.model.delivery import Deferred, Delivered, Delivery, Failed, Outcome
from appliance.model.domain import DeliveryMode, Domain, LogLevel
from appliance.model.ids import id_source
from appliance.reports.own_mail import OwnMail
from appliance.routing.snapshot import Settings, Snapshot
from appliance.spool.clocks import Clocks
from appliance.spool.committer import Committer
from appliance.spool.spool import Spool
from appliance.storage.spool import Accept, AddPart, Operation, SpoolStore

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
CONTENT = b"Subject: x\r\n\r\nbody\r\n"
SCHEDULE = RetrySchedule(
    (MINUTE_MS, 5 * MINUTE_MS, 15 * MINUTE_MS, 30 * MINUTE_MS, HOUR_MS, 2 * HOUR_MS, 4 * HOUR_MS),
    5 * DAY_MS,
    draw=lambda: 0.0,
)

DOMAIN = Domain("domain1", "a1", "example.org", True, DeliveryMode.SPOOL, LogLevel.EVENTS, NOW)
SNAPSHOT = Snapshot(Settings("mx.example.net", "srs.mx.example.net"), 1, domains=[DOMAIN])

REWRITER = SenderRewriter("srs.mx.example.net", [bytes(32)])

Script = Callable[[Delivery], Outcome]


def ok(_: Delivery) -> Outcome:
    """Delivered."""
    return Delivered(answer())


def busy(_: Delivery) -> Outcome:
    """Not now, for this mailbox."""
    return Deferred(answer(450, reason="destination-deferred", text="busy"))


def gone(_: Delivery) -> Outcome:
    """Never, for this mailbox."""
    return Failed(answer(550, enhanced_code="5.1.1", reason="mailbox-unknown", text="no such user"))


def closing(_: Delivery) -> Outcome:
    """421 to a command of the transaction."""
    return Deferred(answer(421, enhanced_code="4.3.2", reason="destination-deferred", text="shutting down, alice"))


def lost(_: Delivery) -> Outcome:
    """The connection is gone in the middle of it."""
    return Deferred(answer(0, enhanced_code="4.4.2", reason="connection-lost", text="the connection was lost at DATA"))


@dataclass
class World:
    """One scheduler and everything round it."""

    store: SpoolStore
    spool: Spool
    scheduler: Scheduler
    operator: QueueOperator
    script: Script = ok
    unreachable: set[str] = field(default_factory=set)
    carried: list[tuple[float, list[str]]] = field(default_factory=list)
    """When, in seconds of the test's clock, and which delivery ids went in one transaction."""
    at_once: dict[str, int] = field(default_factory=dict)
    most_at_once: dict[str, int] = field(default_factory=dict)
    most_in_all: int = 0
    slowness_s: dict[str, float] = field(default_factory=dict)
    holds: Holds = field(default_factory=Holds)
    counts: Counts = field(default_factory=Counts)
    connections: int = 0
    most_connections: int = 1000
    refused: int = 0
    """Connections that were one too many."""

    async def accept(self, *deliveries: Delivery) -> None:
        """Put messages in the queue, due at once, and let the scheduler know."""
        # As one group: a test may bring thousands.
        operations: dict[str, Operation] = {}
        for each in deliveries:
            if self.store.part(each.message_id, 0) is None:
                operations[each.message_id] = AddPart(each.message_id, 0, CONTENT)
                # In memory, because the clock would jump while a thread reads it from the disk.
                self.spool.keep_hot(each.message_id, CONTENT, 1000)
        await self.spool.committer.commit([*operations.values(), Accept(deliveries)])
        self.scheduler.wake()

    def room_is_free(self) -> bool:
        """Whether nothing is left in memory: all the room can be had, and is given back."""
        everything = [f"{number}.test" for number in range(MAX_CLAIMED)]
        if not self.scheduler.reserve(everything):
            return False
        self.scheduler.release(everything)
        return True

    def waiting(self) -> list[Delivery]:
        """What is in the queue."""
        return self.store.deliveries(limit=100_000)

    def times(self) -> list[float]:
        """When something was attempted, in seconds since the first time."""
        return [round(at - self.carried[0][0], 1) for at, _ in self.carried]


class ScriptedCourier:
    """Stands where a connection would be: answers from a script, after as long as the destination is slow."""

    def __init__(self, world: World, domain: str) -> None:
        self._world = world
        self._domain = domain
        self._connected = False

    async def carry(self, batch: Sequence[Delivery], content: Content) -> list[Outcome]:
        world = self._world
        world.carried.append((trio.current_time(), [each.id for each in batch]))
        now = world.at_once[self._domain] = world.at_once.get(self._domain, 0) + 1
        world.most_at_once[self._domain] = max(now, world.most_at_once.get(self._domain, 0))
        world.most_in_all = max(world.most_in_all, sum(world.at_once.values()))
        try:
            await trio.sleep(world.slowness_s.get(self._domain, 0.001))
        finally:
            world.at_once[self._domain] -= 1
        if not self._connected and world.connections >= world.most_connections:
            world.refused += 1
            raise Unreachable(Deferred(answer(421, reason="host-refused", text="too many connections")))
        if not self._connected:
            self._connected = True
            world.connections += 1
        if self._domain in world.unreachable:
            raise Unreachable(Deferred(answer(0, enhanced_code="4.4.1", reason="connection-failed", text="refused")))
        return [world.script(each) for each in batch]

    async def close(self) -> None:
        self._world.connections -= self._connected
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def running(
    store: SpoolStore,
    max_per_destination: int = 3,
    snapshot: Snapshot = SNAPSHOT,
    committer: Committer | None = None,
) -> AsyncIterator[World]:
    """A scheduler that runs, until the end of the block. Without a `committer`, one that takes no time."""
    began = trio.current_time()

    def clock() -> int:
        return NOW + round((trio.current_time() - began) * 1000)

    clocks = Clocks.all_from(clock)
    new_id = id_source(clock)
    spool = Spool(store, committer or InlineCommitter(store), new_id)
    logbook = Logbook(SNAPSHOT.log_level, clock, new_id)
    own_mail = OwnMail(
        hostname="mx.example.net",
        reporter="postmaster@mx.example.net",
        snapshot=lambda: snapshot,
        rewriter=REWRITER,
        look_up=store.return_path,
        new_id=new_id,
        clocks=clocks,
    )
    settler = Settler(spool, logbook, SCHEDULE, own_mail, lambda: snapshot, clocks)
    holds, live = Holds(), LiveStream()
    scheduler = Scheduler(
        spool,
        settler,
        live,
        lambda domain: ScriptedCourier(world, domain),  # type: ignore[arg-type,return-value]
        holds,
        SCHEDULE,
        clocks,
        max_per_destination,
    )
    operator = QueueOperator(spool, scheduler, settler, holds, live, SCHEDULE, clocks)
    world = World(store, spool, scheduler, operator, holds=holds, counts=logbook.counts)
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.run, stop)
        yield world
        stop.set()
