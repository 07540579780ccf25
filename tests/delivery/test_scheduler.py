"""The scheduler under a clock that jumps: five days of schedule in milliseconds.

The spool is real; a script stands where connections would be, because no real socket works under such a clock.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from inline_committer import InlineCommitter
from values import NOW, answer, delivery

from appliance.delivery import scheduler as scheduler_module
from appliance.delivery.courier import Content, Unreachable
from appliance.delivery.operator import QueueFilter, QueueOperator
from appliance.delivery.schedule import RetrySchedule
from appliance.delivery.scheduler import MAX_CLAIMED, MAX_CLAIMED_PER_DESTINATION, Scheduler
from appliance.delivery.settlement import Settler
from appliance.forwarding.srs import SenderRewriter
from appliance.logbook.events import Logbook
from appliance.logbook.live import LiveStream
from appliance.model.delivery import Deferred, Delivered, Delivery, DeliveryState, Failed, Outcome, Recipient
from appliance.model.domain import Alias, AliasAction, DeliveryMode, Destination, Domain, LogLevel
from appliance.model.ids import id_source
from appliance.privacy.sealing import Sealer
from appliance.reports.own_mail import OwnMail
from appliance.routing.snapshot import Settings, Snapshot
from appliance.spool.clocks import Clocks
from appliance.spool.spool import Spool
from appliance.storage.spool import Accept, AddPart
from appliance.storage.sqlite_spool import SqliteSpool
from smtp.address import Address

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
    return Delivered(answer())


def busy(_: Delivery) -> Outcome:
    return Deferred(answer(450, reason="destination-deferred", text="busy"))


def gone(_: Delivery) -> Outcome:
    return Failed(answer(550, enhanced_code="5.1.1", reason="mailbox-unknown", text="no such user"))


@dataclass
class World:
    """One scheduler and everything round it."""

    store: SqliteSpool
    spool: Spool
    scheduler: Scheduler
    script: Script = ok
    unreachable: set[str] = field(default_factory=set)
    carried: list[tuple[float, list[str]]] = field(default_factory=list)
    """When, in seconds of the test's clock, and which delivery ids went in one transaction."""
    at_once: dict[str, int] = field(default_factory=dict)
    most_at_once: dict[str, int] = field(default_factory=dict)
    slowness_s: dict[str, float] = field(default_factory=dict)
    connections: int = 0
    most_connections: int = 1000

    async def accept(self, *deliveries: Delivery) -> None:
        """Put messages in the queue, due at once, and let the scheduler know."""
        for each in deliveries:
            if self.store.part(each.message_id, 0) is None:
                await self.spool.committer.commit([AddPart(each.message_id, 0, CONTENT)])
                # In memory, because the clock would jump while a thread reads it from the disk.
                self.spool.keep_hot(each.message_id, CONTENT, 1000)
            await self.spool.committer.commit([Accept([each])])
        self.scheduler.wake()

    def room_is_free(self) -> bool:
        """Whether nothing is left in memory: all the room can be had, and is given back."""
        everything = [f"{number}.test" for number in range(MAX_CLAIMED)]
        if not self.scheduler.reserve(everything):
            return False
        self.scheduler.release(everything)
        return True

    def waiting(self) -> list[Delivery]:
        return self.store.deliveries()


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
        try:
            await trio.sleep(world.slowness_s.get(self._domain, 0.001))
        finally:
            world.at_once[self._domain] -= 1
        if not self._connected and world.connections >= world.most_connections:
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


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteSpool]:
    opened = SqliteSpool(tmp_path / "spool.sqlite", {"spool": Sealer(bytes(32)), "log": Sealer(bytes(32))})
    yield opened
    opened.close()


@asynccontextmanager
async def running(
    store: SqliteSpool, max_per_destination: int = 3, snapshot: Snapshot = SNAPSHOT
) -> AsyncIterator[World]:
    began = trio.current_time()

    def clock() -> int:
        return NOW + round((trio.current_time() - began) * 1000)

    clocks = Clocks.all_from(clock)
    new_id = id_source(clock)
    spool = Spool(store, InlineCommitter(store), new_id)
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
    scheduler = Scheduler(
        spool,
        settler,
        LiveStream(),
        lambda domain: ScriptedCourier(world, domain),  # type: ignore[arg-type,return-value]
        clock,
        max_per_destination,
    )
    world = World(store, spool, scheduler)
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.run, stop)
        yield world
        stop.set()


async def test_a_message_is_delivered_and_gone(store: SqliteSpool, autojump_clock: trio.testing.MockClock) -> None:
    async with running(store) as world:
        await world.accept(delivery())
        await trio.sleep(1)
        assert [ids for _, ids in world.carried] == [["d1"]]
        assert world.waiting() == []
        assert store.part("m1", 0) is None
        assert [row["type"] for row in store.outbox(10)] == ["DELIVERED"]
        assert world.room_is_free()


async def test_the_schedule_is_kept_for_five_days_and_then_the_sender_is_told(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        world.script = lambda each: busy(each) if each.sender else ok(each)
        await world.accept(delivery())
        await trio.sleep(4.9 * 86_400)
        assert len(world.waiting()) == 1
        assert world.waiting()[0].last_response == "450 4.0.0 busy"
        gaps = [round(b[0] - a[0]) for a, b in zip(world.carried, world.carried[1:], strict=False)]
        assert gaps[:8] == [60, 300, 900, 1800, 3600, 7200, 14_400, 14_400]
        assert set(gaps[7:]) == {14_400}
        await trio.sleep(0.5 * 86_400)
        assert world.waiting() == []
        last_at, last_ids = world.carried[-1]
        assert last_ids != ["d1"], "the bounce was the last thing to leave"
        assert last_at >= 5 * 86_400
        types = [row["type"] for row in store.outbox(1000)]
        assert types[-1] == "HARD_BOUNCED"
        assert types[:-1] == ["SOFT_BOUNCED"] * (len(types) - 1)


async def test_a_permanent_failure_bounces_at_once_and_a_bounce_never_does(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        world.script = gone
        await world.accept(delivery(), delivery("d2", "m2", sender="", return_path=""))
        await trio.sleep(10)
        assert world.waiting() == []
        assert len(world.carried) == 3, "two messages, one bounce for the one that has a sender"


async def test_a_slow_destination_delays_no_other(store: SqliteSpool, autojump_clock: trio.testing.MockClock) -> None:
    async with running(store) as world:
        world.slowness_s["slow.test"] = 3600
        slow = [delivery(f"s{n}", f"ms{n}", target=Address("a", "slow.test")) for n in range(10)]
        await world.accept(*slow)
        await world.accept(*(delivery(f"f{n}", f"mf{n}") for n in range(10)))
        await trio.sleep(60)
        assert {each.target.domain for each in world.waiting()} == {"slow.test"}
        assert world.most_at_once == {"slow.test": 3, "home.test": 3}
        await trio.sleep(4 * 3600)
        assert world.waiting() == []


async def test_one_destination_cannot_fill_the_memory_that_others_need(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        world.slowness_s["slow.test"] = 600
        count = 3 * MAX_CLAIMED_PER_DESTINATION
        for number in range(count):
            store.apply(
                [
                    AddPart(f"ms{number}", 0, CONTENT),
                    Accept([delivery(f"s{number:05}", f"ms{number}", target=Address("a", "slow.test"))]),
                ]
            )
        world.scheduler.wake()
        await trio.sleep(5)
        assert not world.scheduler.reserve(["slow.test"])
        assert world.scheduler.reserve(["home.test"])
        world.scheduler.release(["home.test"])
        await world.accept(delivery("zz", "mzz"))
        await trio.sleep(5)
        assert "zz" in {each for _, ids in world.carried for each in ids}, "the other destination is served"
        world.slowness_s.clear()
        await trio.sleep(1200)
        assert world.waiting() == []
        assert world.room_is_free()


async def test_couriers_of_busy_destinations_make_room(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_module, "MAX_COURIERS", 4)
    async with running(store) as world:
        for name in ("busy1.test", "busy2.test"):
            world.slowness_s[name] = 10
            await world.accept(
                *(delivery(f"{name}{n:03}", f"{name}m{n}", target=Address("a", name)) for n in range(90))
            )
        await trio.sleep(1)
        await world.accept(delivery("zz", "mzz"))
        await trio.sleep(30)
        assert "zz" in {each for _, ids in world.carried for each in ids}
        await trio.sleep(3600)
        assert world.waiting() == []


async def test_a_refused_connection_beside_working_ones_costs_no_attempt(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store, max_per_destination=10) as world:
        world.most_connections = 2
        world.slowness_s["home.test"] = 1
        await world.accept(*(delivery(f"d{n:03}", f"m{n}") for n in range(100)))
        await trio.sleep(120)
        assert world.waiting() == []
        assert [row["type"] for row in store.outbox(1000)] == ["DELIVERED"] * 100


async def test_an_alias_made_later_takes_what_waited_for_it(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    alias = Alias("al", "domain1", "sales", AliasAction.FORWARD, ("bob@home.test", "eve@home.test"), "aaaaaa", NOW)
    targets = [Destination(name, "a1", name, NOW, NOW) for name in alias.targets]
    hosting = Snapshot(SNAPSHOT.settings, 2, domains=[DOMAIN], aliases=[alias], destinations=targets)
    async with running(store, snapshot=hosting) as world:
        await world.accept(delivery(target=Address("sales", "example.org")))
        await trio.sleep(10)
        assert world.waiting() == []
        assert len([ids for _, ids in world.carried]) == 1, "both mailboxes in one transaction"
        assert store.part("m1", 0) is None


@pytest.mark.parametrize("count", [1, 2])
async def test_a_bounce_names_one_recipient_and_never_that_two_share_a_mailbox(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock, count: int
) -> None:
    async with running(store) as world:
        world.script = gone
        names = ("sales@example.org", "private@example.org")[:count]
        await world.accept(delivery(recipients=tuple(Recipient(name, "domain1") for name in names)))
        await trio.sleep(0.0005)
        world.slowness_s["sender.test"] = 10
        await trio.sleep(5)
        reports = [store.part(each.message_id, 0) or b"" for each in world.waiting()]
        assert len(reports) == count
        for name in names:
            assert sum(name.encode() in report for report in reports) == 1


async def test_a_bounce_to_a_rewritten_sender_of_ours_reaches_the_original_sender(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    alias = Alias("al", "domain1", "first", AliasAction.FORWARD, ("out@home.test",), "aaaaaa", NOW)
    hosting = Snapshot(SNAPSHOT.settings, 2, domains=[DOMAIN], aliases=[alias])
    rewritten = REWRITER.rewrite("friend@sender.test", "aaaaaa", NOW).return_path
    async with running(store, snapshot=hosting) as world:
        world.script = gone
        world.slowness_s["sender.test"] = 10
        await world.accept(delivery(sender=rewritten, recipients=(Recipient("second@example.org", "domain1"),)))
        await trio.sleep(5)
        (report,) = world.waiting()
        assert str(report.target) == "friend@sender.test"
        content = store.part(report.message_id, 0) or b""
        assert b"first@example.org" in content
        assert b"second@" not in content


async def test_what_waits_for_an_unreachable_destination_shares_one_attempt(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store, max_per_destination=1) as world:
        world.unreachable.add("home.test")
        world.slowness_s["home.test"] = 30
        await world.accept(*(delivery(f"d{n}", f"m{n}") for n in range(50)))
        await trio.sleep(59)
        assert len(world.carried) <= 2
        assert {each.attempts for each in world.waiting()} == {1}
        assert {each.state for each in world.waiting()} == {DeliveryState.WAITING}
        world.unreachable.clear()
        world.slowness_s.clear()
        await trio.sleep(120)
        assert world.waiting() == []


async def test_recipients_who_share_message_and_return_path_share_a_transaction(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store, max_per_destination=1) as world:
        world.slowness_s["home.test"] = 5
        await world.accept(delivery("d0", "m0"))
        await trio.sleep(1)
        await world.accept(
            delivery("d1", "m1"),
            delivery("d2", "m1", target=Address("bob", "home.test")),
            delivery("d3", "m1", target=Address("eve", "home.test"), return_path="srs0=y@srs.mx.example.net"),
        )
        await trio.sleep(60)
        assert [ids for _, ids in world.carried] == [["d0"], ["d1", "d2"], ["d3"]]


async def test_each_recipient_of_a_transaction_gets_its_own_outcome(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        world.script = lambda each: busy(each) if each.id == "d2" else ok(each)
        await world.accept(delivery("d1", "m1"), delivery("d2", "m1", target=Address("bob", "home.test")))
        await trio.sleep(10)
        assert [each.id for each in world.waiting()] == ["d2"]
        assert store.part("m1", 0) is not None, "the content stays for the one that is left"


async def test_what_a_dead_process_had_claimed_goes_on_after_a_start(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    store.apply([AddPart("m1", 0, b"x"), Accept([delivery(state=DeliveryState.UNDER_WAY)])])
    async with running(store) as world:
        await trio.sleep(100)
        assert world.carried == []
    store.recover()
    async with running(store) as world:
        await trio.sleep(1)
        assert [ids for _, ids in world.carried] == [["d1"]]


async def test_a_defect_met_on_one_message_delays_that_message_and_stops_nothing(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    def defective(each: Delivery) -> Outcome:
        if each.id == "d1":
            raise ZeroDivisionError("a defect")
        return ok(each)

    async with running(store) as world:
        world.script = defective
        await world.accept(delivery(), delivery("d2", "m2"))
        await trio.sleep(30)
        assert [(each.id, each.attempts) for each in world.waiting()] == [("d1", 1)]
        assert "an attempt failed on a defect" in caplog.text
        world.script = ok
        await trio.sleep(60)
        assert world.waiting() == []


async def test_room_in_memory_is_bounded_and_given_back(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        await trio.sleep(1)
        everything = [f"{number}.test" for number in range(MAX_CLAIMED)]
        assert world.scheduler.reserve(everything)
        assert not world.scheduler.reserve(["home.test"])
        await world.accept(delivery())
        await trio.sleep(5)
        assert len(world.waiting()) == 1, "it waits on the disk while there is no room"
        world.scheduler.release(everything)
        await trio.sleep(60)
        assert world.waiting() == []


async def test_mail_for_postmaster_waits_for_an_operator(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        await world.accept(delivery(target=Address("postmaster", "")))
        await trio.sleep(3600)
        assert world.carried == []
        assert world.waiting()[0].attempts > 3
        assert "nobody is the operator" in (world.waiting()[0].last_response or "")


async def test_what_is_due_later_is_claimed_when_it_is_due(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        await world.accept(delivery(next_attempt_at=NOW + 40_000))
        await trio.sleep(39)
        assert world.carried == []
        await trio.sleep(2)
        assert len(world.carried) == 1


async def test_the_operator_retries_and_drops(store: SqliteSpool, autojump_clock: trio.testing.MockClock) -> None:
    async with running(store, max_per_destination=1) as world:
        operator = QueueOperator(world.spool, world.scheduler, SCHEDULE, Clocks.all_from(lambda: NOW))
        world.script = busy
        await world.accept(delivery("d1", "m1"), delivery("d2", "m2", sender="other@sender.test"))
        await trio.sleep(5)
        assert await operator.retry(QueueFilter(sender="OTHER@sender.test")) == 1
        world.script = ok
        await trio.sleep(5)
        assert [each.id for each in world.waiting()] == ["d1"]
        assert await operator.retry(QueueFilter(domain="nothing.test")) == 0
        assert await operator.drop(QueueFilter(id="m1")) == 1
        assert world.waiting() == []
        assert store.part("m1", 0) is None


async def test_the_operator_drops_what_no_courier_has_begun_with(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store, max_per_destination=1) as world:
        operator = QueueOperator(world.spool, world.scheduler, SCHEDULE, Clocks.all_from(lambda: NOW))
        world.slowness_s["home.test"] = 10
        await world.accept(*(delivery(f"d{n}", f"m{n}") for n in range(5)))
        await trio.sleep(1)
        assert await operator.drop(QueueFilter(destination="HOME.test")) == 4
        await trio.sleep(60)
        assert [ids for _, ids in world.carried] == [["d0"]], "what is in a courier's hands can't be called back"
        assert world.waiting() == []
        assert world.room_is_free()
