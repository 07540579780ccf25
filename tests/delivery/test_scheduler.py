"""The scheduler under a clock that jumps: five days of schedule in milliseconds."""

import pytest
import trio
from scheduled import CONTENT, DOMAIN, REWRITER, SNAPSHOT, busy, gone, ok, running
from values import NOW, delivery

from appliance.delivery import scheduler as scheduler_module
from appliance.delivery.memory import MAX_CLAIMED, MAX_CLAIMED_PER_DESTINATION
from appliance.model.delivery import Delivery, DeliveryState, Outcome, Recipient
from appliance.model.domain import Alias, AliasAction, Destination
from appliance.routing.snapshot import Snapshot
from appliance.storage.spool import Accept, AddPart
from appliance.storage.sqlite_spool import SqliteSpool
from smtp.address import Address


async def test_a_message_is_delivered_and_gone(store: SqliteSpool, autojump_clock: trio.testing.MockClock) -> None:
    async with running(store) as world:
        await world.accept(delivery())
        await trio.sleep(1)
        assert [ids for _, ids in world.carried] == [["d1"]]
        assert world.waiting() == []
        assert store.part("m1", 0) is None
        assert [row["type"] for row in store.outbox(10)] == ["DELIVERED"]
        assert world.room_is_free()


async def test_each_attempt_is_written_down_beside_what_became_of_it(
    store: SqliteSpool, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(store) as world:
        world.script = busy
        await world.accept(delivery())
        await trio.sleep(1)
        assert [row["type"] for row in store.outbox(10)] == ["SOFT_BOUNCED"]
        world.script = ok
        await trio.sleep(120)
        assert [row["type"] for row in store.outbox(10)] == ["SOFT_BOUNCED", "DELIVERED"]


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
        assert store.states()[DeliveryState.UNDER_WAY] <= MAX_CLAIMED_PER_DESTINATION + scheduler_module.CLAIM_BATCH
        assert not world.scheduler.reserve(["slow.test"])
        for _ in range(MAX_CLAIMED_PER_DESTINATION + 1):
            assert not world.scheduler.reserve(["home.test", "slow.test"]), "and then none of them has a place"
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
