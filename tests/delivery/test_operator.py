"""The operator's verbs under a clock that jumps: what they do to what waits, in memory and on the disk.

The spool is real; a script stands where connections would be, because no real socket works under such a clock.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from inline_committer import InlineCommitter
from msgspec.structs import replace
from values import NOW, answer, delivery

from appliance.delivery import operator as operator_module
from appliance.delivery.courier import Content, Unreachable
from appliance.delivery.holds import Holds
from appliance.delivery.operator import GIVING_UP, QueueFilter, QueueOperator
from appliance.delivery.relay_connections import RelayConnections
from appliance.delivery.schedule import RetrySchedule
from appliance.delivery.scheduler import Scheduler
from appliance.delivery.settlement import Settler
from appliance.forwarding.srs import SenderRewriter
from appliance.logbook.events import Logbook
from appliance.logbook.live import LiveStream
from appliance.model.delivery import Deferred, Delivered, Delivery, DeliveryState, Outcome, Recipient
from appliance.model.domain import DeliveryMode, Domain, LogLevel
from appliance.model.hold import Hold
from appliance.model.ids import id_source
from appliance.privacy.sealing import Sealer
from appliance.reports.own_mail import OwnMail
from appliance.routing.snapshot import Settings, Snapshot
from appliance.spool.clocks import Clocks
from appliance.spool.spool import Spool
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import Accept, AddPart, Keep, Operation
from appliance.storage.sqlite_spool import SqliteSpool
from smtp.address import Address

HOUR_MS = 3_600_000
CONTENT = b"From: friend@sender.test\r\nSubject: x\r\n\r\nbody\r\n"
SCHEDULE = RetrySchedule((HOUR_MS,), 5 * 24 * HOUR_MS, draw=lambda: 0.0)
DOMAIN = Domain("domain1", "a1", "example.org", True, DeliveryMode.SPOOL, LogLevel.EVENTS, NOW)
SNAPSHOT = Snapshot(Settings("mx.example.net", "srs.mx.example.net"), 1, domains=[DOMAIN])

WAITING, UNDER_WAY, HELD = DeliveryState.WAITING, DeliveryState.UNDER_WAY, DeliveryState.HELD


@dataclass
class World:
    """One operator, and what there is to operate."""

    store: SqliteSpool
    spool: Spool
    scheduler: Scheduler
    holds: Holds
    operator: QueueOperator
    committer: "RefusingCommitter"
    busy: bool = True
    is_unreachable: bool = False
    slowness_s: float = 0.001
    carried: list[str] = field(default_factory=list)
    """Ids of the deliveries that a courier has begun with."""

    async def accept(self, *deliveries: Delivery) -> None:
        """Put messages in the queue, and let the scheduler know."""
        for each in deliveries:
            if self.store.part(each.message_id, 0) is None:
                await self.spool.committer.commit([AddPart(each.message_id, 0, CONTENT)])
                # In memory, because the clock would jump while a thread reads it from the disk.
                self.spool.keep_hot(each.message_id, CONTENT, 1000)
            await self.spool.committer.commit([Accept([each])])
        self.scheduler.wake()
        await trio.sleep(1)

    @property
    def states(self) -> dict[str, tuple[DeliveryState, str]]:
        """Every delivery's state, and what it is held for."""
        return {each.id: (each.state, each.held_for) for each in self.store.deliveries()}


class RefusingCommitter(InlineCommitter):
    """Takes nothing while its disk is told to refuse."""

    refuses = False

    async def commit(self, operations: Sequence[Operation]) -> None:
        await trio.lowlevel.checkpoint()
        if self.refuses:
            raise StoreUnavailable("refused")
        await super().commit(operations)


class ScriptedCourier:
    """Stands where a connection would be."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def carry(self, batch: Sequence[Delivery], content: Content) -> list[Outcome]:
        self._world.carried += [each.id for each in batch]
        await trio.sleep(self._world.slowness_s)
        if self._world.is_unreachable:
            refused = answer(0, enhanced_code="4.4.1", reason="connection-failed", text="refused")
            raise Unreachable(Deferred(refused))
        if self._world.busy:
            return [Deferred(answer(450, reason="destination-deferred", text="busy"))] * len(batch)
        return [Delivered(answer())] * len(batch)

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteSpool]:
    opened = SqliteSpool(tmp_path / "spool.sqlite", {"spool": Sealer(bytes(32)), "log": Sealer(bytes(32))})
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def pages_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a handful of deliveries is a long queue."""
    monkeypatch.setattr(operator_module, "PAGE", 2)


@asynccontextmanager
async def running(store: SqliteSpool, relay: RelayConnections | None = None) -> AsyncIterator[World]:
    began = trio.current_time()

    def clock() -> int:
        return NOW + round((trio.current_time() - began) * 1000)

    clocks = Clocks.all_from(clock)
    new_id = id_source(clock)
    committer = RefusingCommitter(store)
    spool = Spool(store, committer, new_id)
    own_mail = OwnMail(
        hostname="mx.example.net",
        reporter="postmaster@mx.example.net",
        snapshot=lambda: SNAPSHOT,
        rewriter=SenderRewriter("srs.mx.example.net", [bytes(32)]),
        look_up=store.return_path,
        new_id=new_id,
        clocks=clocks,
    )
    settler = Settler(spool, Logbook(SNAPSHOT.log_level, clock, new_id), SCHEDULE, own_mail, lambda: SNAPSHOT, clocks)
    holds, live = Holds(store.holds()), LiveStream()
    scheduler = Scheduler(
        spool,
        settler,
        live,
        lambda _: ScriptedCourier(world),  # type: ignore[arg-type,return-value]
        holds,
        SCHEDULE,
        clocks,
        1,
    )
    operator = QueueOperator(spool, scheduler, settler, holds, live, SCHEDULE, clocks, relay)
    world = World(store, spool, scheduler, holds, operator, committer)
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.run, stop)
        yield world
        stop.set()


def five(**changes: Any) -> list[Delivery]:
    """Five deliveries of five messages."""
    return [delivery(f"d{number}", f"m{number}", **changes) for number in range(5)]


# ---------------------------------------------------------------------- retry and drop


async def test_the_operator_retries_and_drops(store: SqliteSpool, autojump_clock: trio.testing.MockClock) -> None:
    async with running(store) as world:
        await world.accept(delivery("d1", "m1"), delivery("d2", "m2", sender="other@sender.test"))
        await trio.sleep(5)
        world.busy = False
        assert await world.operator.retry(QueueFilter(sender="OTHER@sender.test")) == 1
        await trio.sleep(5)
        assert [*world.states] == ["d1"]
        assert await world.operator.retry(QueueFilter(domain="nothing.test")) == 0
        assert await world.operator.drop(QueueFilter(id="m1")) == 1
        assert world.states == {}
        assert store.part("m1", 0) is None


async def test_a_retry_ends_the_pause_of_a_destination(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        world.busy, world.is_unreachable = False, True
        await world.accept(*five())
        world.carried.clear()
        world.is_unreachable = False
        assert await world.operator.retry(QueueFilter(id="d1")) == 1
        await trio.sleep(1)
        assert world.carried == ["d1"]


async def test_a_retry_asks_a_smarthost_again_that_could_not_be_reached(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    relay = RelayConnections(1)
    async with running(store, relay) as world:
        await relay.borrow()
        assert not relay.failed(Deferred(answer(0, enhanced_code="4.4.1", reason="connection-failed", text="refused")))
        relay.give_back(None)
        with pytest.raises(Unreachable):
            await relay.borrow()
        await world.operator.retry(QueueFilter())
        assert await relay.borrow() is None, "who has repaired it need not wait"


async def test_the_operator_drops_what_no_courier_has_begun_with(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        world.busy, world.slowness_s = False, 10
        await world.accept(*five())
        assert await world.operator.drop(QueueFilter(destination="HOME.test")) == 4
        await trio.sleep(60)
        assert world.carried == ["d0"], "what is in a courier's hands can't be called back"
        assert world.states == {}
        assert world.scheduler.reserve([f"{number}.test" for number in range(20_000)]), "all the room is free again"


async def test_what_is_claimed_while_the_disk_is_looked_through_is_dropped_as_well(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        world.busy, world.slowness_s = False, 10
        await trio.sleep(1)
        for each in five():
            store.apply([AddPart(each.message_id, 0, CONTENT), Accept([each])])
            world.spool.keep_hot(each.message_id, CONTENT, 1)
        look = world.committer.call

        async def claimed_before(function: Callable[[], Any]) -> Any:
            world.committer.call = look  # type: ignore[method-assign]
            world.scheduler.wake()
            await trio.testing.wait_all_tasks_blocked()
            return await look(function)

        world.committer.call = claimed_before  # type: ignore[method-assign]
        assert await world.operator.drop(QueueFilter()) == 4
        assert [state for state, _ in world.states.values()] == [UNDER_WAY]
        await trio.sleep(100)
        assert world.carried == ["d0"]


async def test_what_is_held_is_dropped_and_not_retried(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        await world.accept(*five())
        await world.operator.hold(QueueFilter(id="d3"))
        assert await world.operator.retry(QueueFilter()) == 4
        assert world.states["d3"][0] is HELD
        assert await world.operator.drop(QueueFilter(id="d3")) == 1
        assert "d3" not in world.states


# ---------------------------------------------------------------------- hold


async def ruled(world: World, wanted: QueueFilter) -> tuple[int, Hold]:
    """How many deliveries a rule that must be possible has held, and the rule."""
    added = await world.operator.add_hold(wanted)
    assert added is not None
    return added


async def test_a_hold_keeps_what_waits_on_the_disk_and_in_memory_and_leaves_a_rule(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        world.slowness_s = 10
        later = delivery("d9", "m9", next_attempt_at=NOW + HOUR_MS)
        elsewhere = delivery("e1", "n1", target=Address("ann", "else.test"), next_attempt_at=NOW + HOUR_MS)
        await world.accept(*five(), later, elsewhere)
        affected, rule = await ruled(world, QueueFilter(destination="Home.TEST"))
        words = "held by the operator: all mail to home.test"
        assert affected == 5
        assert {id for id, state in world.states.items() if state == (HELD, words)} == {"d1", "d2", "d3", "d4", "d9"}
        assert world.states["e1"] == (WAITING, "")
        assert (rule.domain, rule.destination, rule.sender) == ("", "home.test", None)
        assert list(world.operator.holds()) == store.holds() == [rule]
        assert Holds(store.holds()).rule_for(delivery("d10", "m10")) == rule
        await trio.sleep(30)
        assert world.carried == ["d0"], "what is held is not tried"


async def test_the_same_hold_twice_is_one_rule(store: SqliteSpool, autojump_clock: trio.testing.MockClock) -> None:
    async with running(store) as world:
        _, first = await ruled(world, QueueFilter(domain="Bücher.example", sender="Ann@sender.test"))
        _, second = await ruled(world, QueueFilter(domain="xn--bcher-kva.example", sender="ann@SENDER.test"))
        assert first == second
        assert len(store.holds()) == 1


@pytest.mark.parametrize(
    "wanted", [QueueFilter(), QueueFilter(id="d1"), QueueFilter(recipient="sales@example.org", domain="example.org")]
)
async def test_what_a_rule_cannot_say_can_be_held_without_one(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock, wanted: QueueFilter
) -> None:
    async with running(store) as world:
        await world.accept(delivery())
        assert await world.operator.add_hold(wanted) is None
        assert world.states == {"d1": (WAITING, "")}
        assert await world.operator.hold(wanted) == 1
        assert world.states == {"d1": (HELD, "held by the operator")}
        assert store.holds() == []


async def test_a_hold_of_a_sender_is_about_both_forms_of_its_domain(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        _, rule = await ruled(world, QueueFilter(sender="ann@xn--bcher-kva.example"))
        assert world.holds.rule_for(delivery(sender="Ann@Bücher.example")) == rule
        assert await world.operator.release(QueueFilter(sender="ann@bücher.example")) == (0, 1)


# ---------------------------------------------------------------------- release


async def test_what_could_not_be_held_before_its_rule_was_lifted_goes_on(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        world.busy = False
        await ruled(world, QueueFilter(destination="home.test"))
        store.apply([AddPart("m1", 0, CONTENT), Accept([delivery()])])
        world.spool.keep_hot("m1", CONTENT, 1000)
        world.committer.refuses = True
        world.scheduler.wake()
        await trio.sleep(0.5)
        world.committer.refuses = False
        assert await world.operator.release(QueueFilter(destination="home.test")) == (0, 1)
        await trio.sleep(5)
        assert world.states == {}


async def test_what_is_released_is_tried_at_once_and_its_rule_is_lifted(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        await world.accept(*five(next_attempt_at=NOW + HOUR_MS))
        await ruled(world, QueueFilter(domain="example.org", destination="home.test"))
        world.busy = False
        assert await world.operator.release(QueueFilter(domain="EXAMPLE.org")) == (5, 1)
        assert store.holds() == [*world.operator.holds()] == []
        await trio.sleep(5)
        assert world.states == {}
        assert sorted(world.carried) == ["d0", "d1", "d2", "d3", "d4"]


async def test_a_release_lifts_no_rule_that_is_about_more(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        await ruled(world, QueueFilter(sender=""))
        await ruled(world, QueueFilter(destination="home.test"))
        for narrower in (QueueFilter(destination="home.test", sender="ann@sender.test"), QueueFilter(id="d1")):
            assert await world.operator.release(narrower) == (0, 0)
        assert await world.operator.release(QueueFilter(sender="")) == (0, 1)
        assert [rule.destination for rule in world.operator.holds()] == ["home.test"]
        assert await world.operator.release(QueueFilter()) == (0, 1)


async def test_one_that_is_released_in_spite_of_a_rule_is_not_held_by_it_again(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        await world.accept(*five(next_attempt_at=NOW + HOUR_MS))
        await ruled(world, QueueFilter(destination="home.test"))
        assert await world.operator.release(QueueFilter(id="d2")) == (1, 0)
        await trio.sleep(5)
        deferred = store.delivery("d2")
        assert deferred is not None
        assert (deferred.state, deferred.attempts) == (WAITING, 1)
        assert world.holds.rule_for(deferred) is None
        assert world.holds.rule_for(delivery("d9")) is not None
        assert (await ruled(world, QueueFilter(destination="home.test")))[0] >= 1
        assert world.states["d2"][0] is HELD, "but an operator who says so again is heard"


# ---------------------------------------------------------------------- lift


async def test_a_hold_that_is_lifted_lets_go_what_it_has_held_and_nothing_else(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        await world.accept(*five(next_attempt_at=NOW + HOUR_MS))
        await world.operator.hold(QueueFilter(id="d3"))
        _, rule = await ruled(world, QueueFilter(destination="home.test"))
        world.busy = False
        assert await world.operator.lift_hold(rule.id, QueueFilter()) == (4, rule)
        assert store.holds() == [*world.operator.holds()] == []
        await trio.sleep(5)
        assert world.states == {"d3": (HELD, "held by the operator")}
        assert await world.operator.lift_hold(rule.id, QueueFilter()) is None


async def test_what_two_holds_are_about_waits_for_both(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        await world.accept(delivery(next_attempt_at=NOW + HOUR_MS))
        _, first = await ruled(world, QueueFilter(destination="home.test"))
        await ruled(world, QueueFilter(domain="example.org"))
        world.busy = False
        await world.operator.lift_hold(first.id, QueueFilter())
        await trio.sleep(5)
        assert world.states == {"d1": (HELD, "held by the operator: all mail for example.org")}


# ---------------------------------------------------------------------- one account


OWN = {"example.org": "domain1"}


async def test_an_account_sees_its_own_mail_and_of_what_others_get_with_it_its_own_part(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        theirs, ours = Recipient("info@other.example", "domain2"), Recipient("sales@example.org", "domain1")
        later = NOW + HOUR_MS
        await world.accept(
            delivery("d1", "m1", next_attempt_at=later),
            delivery("d2", "m2", next_attempt_at=later, recipients=(theirs,)),
            delivery("d3", "m3", next_attempt_at=later, recipients=(theirs, ours)),
        )
        page = await world.operator.page(QueueFilter(within=OWN), None, 10)
        assert [(each["id"], each["recipient"]) for each in page] == [
            ("d1", "sales@example.org"),
            ("d3", "sales@example.org"),
        ]
        assert await world.operator.count(QueueFilter(within=OWN)) == 2
        assert await world.operator.count(QueueFilter(within=OWN, recipient="info@other.example")) == 1
        assert await world.operator.page(QueueFilter(within={}), None, 10) == []
        everybody = await world.operator.page(QueueFilter(), "d1", 1)
        assert [(each["id"], each["recipient"]) for each in everybody] == [("d2", "info@other.example")]


async def test_one_delivery_or_those_of_a_message_are_found_without_looking_through_the_queue(
    store: SqliteSpool, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        later = NOW + HOUR_MS
        await world.accept(*(delivery(f"d{number}", "m1", next_attempt_at=later) for number in range(3)))
        await world.accept(delivery("d3", "m3", next_attempt_at=later))

        async def found(id: str, after: str | None = None, limit: int = 10) -> list[str]:
            return [each["id"] for each in await world.operator.page(QueueFilter(id=id), after, limit)]

        with monkeypatch.context() as patched:
            patched.setattr(store, "deliveries", None)
            assert await found("d3") == ["d3"]
            assert await found("m3") == ["d3"]
            assert await found("nothing") == []
            assert await found("m1", limit=2) == ["d0", "d1"]
            assert await found("m1", after="d1") == ["d2"]
            assert await world.operator.count(QueueFilter(id="m1")) == 3


@pytest.mark.parametrize("verb", ["retry", "hold", "release", "fail", "drop"])
async def test_an_account_changes_nothing_that_is_for_others_too(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock, verb: str
) -> None:
    async with running(store) as world:
        theirs, ours = Recipient("info@other.example", "domain2"), Recipient("sales@example.org", "domain1")
        # The same name, and another domain: whoever had it before has gone, and this mail is still theirs.
        formers = Recipient("sales@example.org", "domain0")
        later = NOW + HOUR_MS
        await world.accept(
            delivery("d1", "m1", next_attempt_at=later, recipients=(ours,)),
            delivery("d2", "m2", next_attempt_at=later, recipients=(theirs,)),
            delivery("d3", "m3", next_attempt_at=later, recipients=(theirs, ours)),
            delivery("d4", "m4", next_attempt_at=later, recipients=(formers,)),
        )
        if verb == "release":
            await world.operator.hold(QueueFilter(within=OWN))
            await world.operator.hold(QueueFilter())
        before = {each.id: each for each in store.deliveries()}
        answered = await getattr(world.operator, verb)(QueueFilter(within=OWN))
        assert answered == ((1, 0) if verb == "release" else 1)
        after = {each.id: each for each in store.deliveries()}
        assert after.get("d1") != before["d1"]
        assert [after[id] for id in ("d2", "d3", "d4")] == [before[id] for id in ("d2", "d3", "d4")]


async def test_an_account_knows_of_holds_of_its_own_domains_alone(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        _, operators = await ruled(world, QueueFilter(destination="home.test"))
        _, own = await ruled(world, QueueFilter(domain="example.org", within=OWN))
        assert world.operator.holds(QueueFilter(within=OWN)) == [own]
        assert await world.operator.add_hold(QueueFilter(destination="else.test", within=OWN)) is None
        assert await world.operator.add_hold(QueueFilter(domain="other.example", within=OWN)) is None
        assert await world.operator.lift_hold(operators.id, QueueFilter(within=OWN)) is None
        assert await world.operator.release(QueueFilter(within=OWN)) == (0, 1)
        assert world.operator.holds() == [operators]


async def test_an_account_lets_go_of_nothing_that_an_operator_holds(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        later, own = NOW + HOUR_MS, QueueFilter(within=OWN)
        _, operators = await ruled(world, QueueFilter(domain="example.org"))
        _, accounts = await ruled(world, QueueFilter(domain="example.org", within=OWN))
        assert operators.by_account is not accounts.by_account
        await world.accept(*(delivery(f"d{n}", f"m{n}", next_attempt_at=later) for n in (1, 2)))
        await world.operator.hold(QueueFilter(id="d1"))
        await world.operator.hold(QueueFilter(id="d2", within=OWN))
        assert (await world.operator.lift_hold(operators.id, own)) is None
        assert await world.operator.release(own) == (1, 1), (
            "its own rule is gone, and what it held is the operator's now"
        )
        assert world.operator.holds() == [operators]
        assert world.states == {
            "d1": (HELD, "held by the operator"),
            "d2": (HELD, "held by the operator: all mail for example.org"),
        }
        await world.operator.release(QueueFilter())
        assert {state for state, _ in world.states.values()} == {WAITING}


# ---------------------------------------------------------------------- fail


async def test_what_is_given_up_is_bounced_whether_it_waits_or_is_held(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        world.slowness_s = 10
        await world.accept(*five())
        await world.operator.hold(QueueFilter(id="d3"))
        assert await world.operator.fail(QueueFilter(destination="home.test")) == 4
        reports = [each for each in store.deliveries() if each.id != "d0"]
        assert {(str(each.target), each.sender) for each in reports} == {("friend@sender.test", "")}
        assert len(reports) == 4
        report = store.part(reports[0].message_id, 0) or b""
        assert b"Status: 5.3.0\r\n" in report
        assert b"The operator of this mail server has given the message up" in report
        assert b"home.test" not in report
        rows = store.outbox(100)
        assert [row["type"] for row in rows] == ["HARD_BOUNCED"] * 4
        assert {row["reason"] for row in rows} == {"failed-by-operator"}
        assert store.part("m1", 0) is None


async def test_what_is_given_up_by_its_state_is_gone(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        await world.accept(*five(sender="", return_path=""))
        await world.operator.hold(QueueFilter(id="d3"))
        assert await world.operator.fail(QueueFilter(state=WAITING)) == 4
        assert world.states == {"d3": (HELD, "held by the operator")}
        assert await world.operator.fail(QueueFilter(state=HELD)) == 1
        assert world.states == {}


async def test_giving_everything_up_leaves_the_reports_alone(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        await world.accept(*five(), delivery("e1", "n1", sender="", return_path=""))
        assert await world.operator.fail(QueueFilter()) == 6
        assert len(world.states) == 5, "one for each that has a sender"


async def test_what_a_refusing_store_interrupts_is_held_and_given_up_the_next_time(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        await world.accept(*five())
        world.committer.refuses = True
        with pytest.raises(StoreUnavailable):
            await world.operator.fail(QueueFilter(destination="home.test"))
        assert {state for state, _ in world.states.values()} == {HELD}
        world.committer.refuses = False
        assert await world.operator.fail(QueueFilter(destination="home.test")) == 5


async def test_what_a_dead_process_was_about_to_give_up_is_finished_by_the_next(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        await ruled(world, QueueFilter(destination="home.test"))
        await world.accept(*five())
        begun = {"d1", "d3"}
        store.apply([Keep(replace(each, held_for=GIVING_UP)) for each in store.deliveries() if each.id in begun])
        world.committer.refuses = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.operator.finish)
            await trio.sleep(10)
            world.committer.refuses = False
        assert {id for id, (state, _) in world.states.items() if state is HELD} == {"d0", "d2", "d4"}
        assert [row["type"] for row in store.outbox(10)] == ["HARD_BOUNCED"] * 2


async def test_what_a_refusing_store_does_not_let_us_call_back_goes_on(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        world.busy, world.slowness_s = False, 10
        await world.accept(*five())
        world.committer.refuses = True
        with pytest.raises(StoreUnavailable):
            await world.operator.hold(QueueFilter(id="d3"))
        world.committer.refuses = False
        await trio.sleep(60)
        assert world.states == {}
        assert sorted(world.carried) == ["d0", "d1", "d2", "d3", "d4"]
