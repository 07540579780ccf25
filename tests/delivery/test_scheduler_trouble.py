"""Destinations that are dead, slow, stalling, or full: what the scheduler makes of them, and what the others feel."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest
import trio
from inline_committer import InlineCommitter
from msgspec.structs import replace
from scheduled import CONTENT, DAY_MS, World, busy, closing, lost, ok, running
from values import NOW, delivery

from appliance.delivery import memory as memory_module
from appliance.delivery import scheduler as scheduler_module
from appliance.delivery.destination import FIRST_PAUSE_MS, LONGEST_PAUSE_MS
from appliance.delivery.memory import MAX_CLAIMED_PER_DESTINATION
from appliance.model.delivery import Delivery, DeliveryState
from appliance.model.hold import Hold
from appliance.storage.spool import Accept, AddPart, Operation
from appliance.storage.sqlite_spool import SqliteSpool
from smtp.address import Address

T = TypeVar("T")

FIRST_PAUSE_S = FIRST_PAUSE_MS / 1000


def to(domain: str, id: str, **changes: object) -> Delivery:
    """A delivery of a message of its own."""
    return delivery(id, f"m-{id}", target=Address("someone", domain), **changes)


def sent(world: World) -> set[str]:
    return {each for _, ids in world.carried for each in ids}


# ------------------------------------------------------------------ how many connections


async def test_a_healthy_destination_begins_with_few_connections_and_soon_has_all_of_them(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store, max_per_destination=20) as world:
        world.slowness_s["home.test"] = 1
        await world.accept(*(delivery(f"d{n:03}", f"m{n}") for n in range(400)))
        await trio.sleep(0.5)
        assert world.most_at_once["home.test"] == 5
        await trio.sleep(2)
        assert world.most_at_once["home.test"] == 20
        assert len(world.carried) == 5 + 10 + 20
        await trio.sleep(30)
        assert world.waiting() == []
        assert world.room_is_free()


async def test_a_destination_that_has_shown_its_most_is_not_pestered(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store, max_per_destination=20) as world:
        world.most_connections = 3
        world.slowness_s["home.test"] = 0.5
        await world.accept(*(delivery(f"d{n:03}", f"m{n}") for n in range(400)))
        await trio.sleep(2)
        at_first = world.refused
        assert at_first <= 5
        await trio.sleep(57)
        assert world.refused == at_first
        await trio.sleep(60)
        assert world.waiting() == []
        assert [row["type"] for row in store.outbox(1000)] == ["DELIVERED"] * 400


async def test_421_in_one_of_many_connections_shrinks_their_number_and_stops_nothing(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store, max_per_destination=5) as world:
        world.slowness_s["home.test"] = 1
        world.script = lambda each: closing(each) if each.id == "d02" else ok(each)
        await world.accept(*(delivery(f"d{n:02}", f"m{n}") for n in range(30)))
        await trio.sleep(12)
        assert [each.id for each in world.waiting()] == ["d02"]
        assert world.at_once["home.test"] == 0
        assert len(sent(world)) == 30


# ------------------------------------------------------------------ pauses


async def test_a_dead_destination_is_left_alone_for_longer_and_longer(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store, max_per_destination=1) as world:
        world.unreachable.add("home.test")
        # Something is due at any time.
        await world.accept(*(delivery(f"d{n:03}", f"m{n}", next_attempt_at=NOW + n * 20_000) for n in range(300)))
        await trio.sleep(5400)
        gaps = [round(b - a) for a, b in zip(world.times(), world.times()[1:], strict=False)]
        assert gaps[:6] == [60, 120, 240, 480, 900, 900]
        assert max(gaps) == LONGEST_PAUSE_MS / 1000
        world.unreachable.clear()
        await trio.sleep(8 * 3600)
        assert world.waiting() == []
        assert world.room_is_free()


@pytest.mark.parametrize("script", [closing, lost])
async def test_what_has_not_been_tried_when_a_pause_begins_is_not_counted_as_an_attempt_and_keeps_its_place(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock, script: object
) -> None:
    async with running(store, max_per_destination=1) as world:
        world.script = script  # type: ignore[assignment]
        first = [delivery(f"d{n}", f"m{n}", next_attempt_at=NOW - 100 + n) for n in range(10)]
        await world.accept(*first)
        await trio.sleep(FIRST_PAUSE_S - 1)
        assert len(world.carried) == 1
        waiting = {each.id: each for each in world.waiting()}
        assert waiting["d0"].attempts == 1
        assert [waiting[f"d{n}"] for n in range(1, 10)] == first[1:], "as if nothing had happened"
        assert world.room_is_free(), "they wait on the disk"
        world.script = ok
        await trio.sleep(2)
        assert [ids for _, ids in world.carried[1:]][:9] == [[f"d{n}"] for n in range(1, 10)]
        await trio.sleep(60)
        assert world.waiting() == []


async def test_what_is_accepted_in_a_pause_waits_for_its_end_on_the_disk(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        world.unreachable.add("home.test")
        await world.accept(delivery())
        await trio.sleep(5)
        tried = len(world.carried)
        assert not world.scheduler.reserve(["home.test"])
        late = [delivery(f"late{n}", f"late{n}", next_attempt_at=NOW + 5000) for n in range(1000)]
        await world.accept(*late)
        await trio.sleep(FIRST_PAUSE_S - 10)
        assert len(world.carried) == tried
        assert {each.attempts for each in world.waiting() if each.id != "d1"} == {0}
        assert world.room_is_free()
        world.unreachable.clear()
        await trio.sleep(120)
        assert world.waiting() == []
        assert len(world.carried) == tried + 1001, "each one goes, and once"


async def test_a_long_queue_for_a_dead_destination_shares_one_attempt_also_as_far_as_it_is_on_the_disk(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    count = 5 * MAX_CLAIMED_PER_DESTINATION
    for number in range(count):
        each = delivery(f"d{number:05}", f"m{number}", accepted_at=NOW - 6 * DAY_MS, running_since=NOW - 6 * DAY_MS)
        store.apply([AddPart(each.message_id, 0, CONTENT), Accept([replace(each, sender="", return_path="")])])
    async with running(store, max_per_destination=1) as world:
        world.unreachable.add("home.test")
        world.scheduler.wake()
        await trio.sleep(30)
        assert len(world.carried) == 1
        assert world.waiting() == [], "each had had its time: one more attempt, and that was it"
        assert world.room_is_free()


async def test_what_becomes_due_while_a_pause_is_told_keeps_no_other_mail_waiting(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be claimed and put back again and again, and nothing else would find room in a claim."""
    monkeypatch.setattr(scheduler_module, "CLAIM_BATCH", 5)
    monkeypatch.setattr(memory_module, "MAX_CLAIMED_PER_DESTINATION", 5)
    async with running(store) as world:
        settle = world.spool.settle

        async def slowly(operations: Sequence[Operation]) -> None:
            await trio.sleep(0.1)
            await settle(operations)

        monkeypatch.setattr(world.spool, "settle", slowly)
        world.unreachable.add("home.test")
        old = [delivery(f"a{n}", f"m{n}") for n in range(10)]
        new = [delivery(f"b{n}", f"n{n}", next_attempt_at=NOW + 50) for n in range(10)]
        await world.accept(*old, *new, to("else.test", "other", next_attempt_at=NOW + 1000))
        await trio.sleep(FIRST_PAUSE_S / 2)
        assert "other" in sent(world)
        assert {each.id: each.attempts for each in world.waiting()} == {
            each.id: int(each in old) for each in (*old, *new)
        }


async def test_what_has_had_its_time_ends_with_the_next_pause_and_the_sender_is_told(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store, max_per_destination=1) as world:
        world.script = lambda each: closing(each) if each.target.domain == "home.test" else ok(each)
        old = [
            delivery(f"o{n}", f"o{n}", accepted_at=NOW - 6 * DAY_MS, running_since=NOW - 6 * DAY_MS) for n in range(3)
        ]
        # Old only by the wall clock, which somebody has set.
        jumped = delivery("jumped", "jumped", accepted_at=NOW - 40 * DAY_MS, running_since=NOW)
        await world.accept(delivery("young", "young", next_attempt_at=NOW - 1), *old, jumped)
        await trio.sleep(10)
        assert [ids for _, ids in world.carried if ids[0].startswith("o")] == []
        assert [(each.id, each.attempts) for each in world.waiting()] == [("jumped", 0), ("young", 1)]
        types = [row["type"] for row in store.outbox(100)]
        assert types.count("HARD_BOUNCED") == 3
        reports = [ids for _, ids in world.carried if ids != ["young"]]
        assert len(reports) == 3, "to each sender"


async def test_an_operator_ends_a_pause(store: SqliteSpool, autojump_clock: trio.testing.MockClock) -> None:
    async with running(store, max_per_destination=1) as world:
        world.script = closing
        await world.accept(delivery(), delivery("d2", "m2"))
        await trio.sleep(5)
        world.script = ok
        world.scheduler.resume(["home.test", "unknown.test"])
        await trio.sleep(1)
        assert [each.id for each in world.waiting()] == ["d1"], "the other had been tried, and follows its schedule"


async def test_a_pause_ends_with_success_and_is_short_again_the_next_time(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store, max_per_destination=1) as world:
        for round in range(3):
            world.unreachable.add("home.test")
            await world.accept(delivery(f"d{round}", f"m{round}"))
            await trio.sleep(1)
            tried = len(world.carried)
            world.unreachable.clear()
            await trio.sleep(FIRST_PAUSE_S - 2)
            assert len(world.carried) == tried
            await trio.sleep(4)
            assert world.waiting() == []


async def test_no_more_destinations_are_paused_than_a_claim_can_leave_out(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_module, "MAX_IN_TROUBLE", 3)
    async with running(store, max_per_destination=1) as world:
        world.unreachable |= {f"dead{n}.test" for n in range(6)}
        await world.accept(*(to(f"dead{n}.test", f"d{n}") for n in range(6)))
        await trio.sleep(30)
        assert {each.attempts for each in world.waiting()} == {1}
        assert sum(not world.scheduler.reserve([f"dead{n}.test"]) for n in range(6)) == 3
        world.unreachable.clear()
        await trio.sleep(600)
        assert world.waiting() == []


# ------------------------------------------------------------------ fairness


async def test_a_dead_a_slow_and_a_stalling_destination_delay_the_healthy_one_by_nothing(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store, max_per_destination=20) as world:
        world.unreachable.add("dead.test")
        world.slowness_s |= {"dead.test": 30, "slow.test": 20, "stalling.test": 600}
        for domain in ("dead.test", "slow.test", "stalling.test"):
            await world.accept(*(to(domain, f"{domain}{n:03}") for n in range(600)))
        latencies = []
        for number in range(100):
            await trio.sleep(3)
            began = trio.current_time()
            await world.accept(to("healthy.test", f"h{number}", next_attempt_at=NOW + 3000 * number))
            while f"h{number}" not in sent(world):
                await trio.sleep(0.01)
            latencies.append(trio.current_time() - began)
        assert max(latencies) < 0.1


async def test_destinations_that_stall_leave_connections_for_those_that_have_none(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_module, "MAX_COURIERS", 20)
    async with running(store, max_per_destination=20) as world:
        for number in range(4):
            world.slowness_s[f"stalling{number}.test"] = 600
            await world.accept(*(to(f"stalling{number}.test", f"s{number}-{n}") for n in range(20)))
        await trio.sleep(1)
        assert sum(world.at_once.values()) == 5 + 5 + 5 + 1
        await world.accept(to("healthy.test", "healthy", next_attempt_at=NOW + 1000))
        await trio.sleep(1)
        assert "healthy" in sent(world)


async def test_a_thousand_destinations_some_of_them_dead_are_all_served(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store, max_per_destination=20) as world:
        world.unreachable |= {f"d{n}.test" for n in range(0, 1000, 4)}
        await world.accept(*(to(f"d{n}.test", f"{n}-{copy}") for n in range(1000) for copy in range(2)))
        await trio.sleep(30)
        left = world.waiting()
        assert {each.target.domain for each in left} == world.unreachable
        assert {each.attempts for each in left} == {1}
        assert sum(world.at_once.values()) == 0
        world.unreachable.clear()
        await trio.sleep(300)
        assert world.waiting() == []
        assert world.room_is_free()


class SlowCommitter(InlineCommitter):
    """Takes a second for whatever is done in the writing thread."""

    calls = 0

    async def call(self, function: Callable[[], T]) -> T:
        """See `Committer`."""
        self.calls += 1
        await trio.sleep(1)
        return await super().call(function)


async def test_claims_that_take_long_leave_time_to_others_however_often_they_are_asked_for(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        await trio.sleep(1)
        committer = world.spool.committer = SlowCommitter(store)
        for _ in range(600):
            world.scheduler.wake()
            await trio.sleep(0.1)
        assert 5 <= committer.calls <= 30
        await world.accept(delivery())
        await trio.sleep(10)
        assert world.waiting() == []


# ------------------------------------------------------------------ holds


async def test_what_a_rule_is_about_is_held_instead_of_carried(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        world.holds.add(Hold("r1", NOW, sender="spammer@sender.test"))
        await world.accept(delivery("d1", "m1", sender="Spammer@sender.test"), delivery("d2", "m2"))
        await trio.sleep(10)
        assert sent(world) == {"d2"}
        (held,) = world.waiting()
        assert (held.state, held.attempts) == (DeliveryState.HELD, 0)
        assert "spammer@sender.test" in held.held_for
        assert world.room_is_free()


async def test_a_rule_also_holds_what_waits_in_memory_and_leaves_the_other_recipients(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store, max_per_destination=1) as world:
        world.slowness_s["home.test"] = 10
        held = delivery("d3", "m2", target=Address("bob", "home.test"), sender="x@sender.test")
        await world.accept(delivery(), delivery("d2", "m2"), held)
        await trio.sleep(1)
        world.holds.add(Hold("r1", NOW, sender="x@sender.test"))
        await trio.sleep(60)
        assert sent(world) == {"d1", "d2"}
        assert [(each.id, each.state) for each in world.waiting()] == [("d3", DeliveryState.HELD)]
        assert world.room_is_free()


# ------------------------------------------------------------------ the end


async def test_an_end_in_the_middle_of_work_finishes_what_is_under_way_and_the_next_start_goes_on(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store, max_per_destination=2) as world:
        world.slowness_s |= {"home.test": 5, "stalling.test": 1000}
        await world.accept(to("stalling.test", "stalls"), *(delivery(f"d{n}", f"m{n}") for n in range(10)))
        await trio.sleep(1)
    assert sent(world) == {"d0", "d1", "stalls"}
    left = {each.id: each.attempts for each in store.deliveries()}
    assert left == {"stalls": 0} | {f"d{n}": 0 for n in range(2, 10)}
    store.recover()
    async with running(store) as world:
        for each in store.deliveries():
            world.spool.keep_hot(each.message_id, CONTENT, 1000)
        await trio.sleep(30)
        assert store.deliveries() == []
        assert len(world.carried) == 9


# ------------------------------------------------------------------ in words


async def test_an_end_waits_for_no_courier_that_has_held_its_last_message(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(store) as world:
        await trio.sleep(0.1)
        world.holds.add(Hold("h1", NOW, destination="home.test"))
        commit = world.spool.committer.commit

        async def slowly(operations: Sequence[Operation]) -> None:
            await trio.sleep(1)
            await commit(operations)

        monkeypatch.setattr(world.spool.committer, "commit", slowly)
        assert world.scheduler.reserve(["home.test"])
        held = delivery(state=DeliveryState.UNDER_WAY)
        store.apply([AddPart("m1", 0, CONTENT), Accept([held])])
        world.scheduler.take([held])
        await trio.sleep(0.5)
        began = trio.current_time()
    assert trio.current_time() - began < 1
    assert [each.state for each in store.deliveries()] == [DeliveryState.HELD]


async def test_why_a_delivery_is_still_here_is_said_in_words(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store, max_per_destination=2) as world:
        world.slowness_s["home.test"] = 10

        def why() -> list[str]:
            return [world.scheduler.why(each) for each in world.waiting()]

        await world.accept(delivery("d1", "m1"), delivery("d2", "m2"), delivery("d3", "m3"))
        await trio.sleep(1)
        assert why() == [*["is being delivered"] * 2, "waits for a connection: all 2 to home.test are busy"]
        world.script = busy
        await trio.sleep(29)
        # NOW is 08:00:00Z.
        assert why()[0] == "was deferred: 450 4.0.0 busy; next attempt at 08:01:10Z"


async def test_what_was_said_to_one_message_is_not_told_of_another(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store, max_per_destination=1) as world:
        world.script = closing
        await world.accept(delivery("d1", "m1"), delivery("d2", "m2"))
        await trio.sleep(5)
        first, second = (world.scheduler.why(each) for each in world.waiting())
        said = "421 4.3.2 shutting down, sales@example.org"
        assert first == f"was deferred: {said}; home.test is paused until 08:01:00Z after 421 4.3.2"
        assert second == "home.test is paused until 08:01:00Z after 421 4.3.2"


async def test_of_a_dead_destination_it_is_said_until_when_it_is_paused_and_why(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store, max_per_destination=1) as world:
        world.unreachable.add("home.test")
        await world.accept(delivery(), delivery("d2", "m2", next_attempt_at=NOW + 2000))
        await trio.sleep(3)
        first, second = (world.scheduler.why(each) for each in world.waiting())
        assert first == "was deferred: refused; home.test is paused until 08:01:00Z after refused"
        assert second == "home.test is paused until 08:01:00Z after refused"


async def test_a_time_on_another_day_is_said_with_its_date(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        waiting = delivery(next_attempt_at=NOW + DAY_MS)
        assert world.scheduler.why(waiting) == "next attempt at 2027-01-16 08:00:00Z"
