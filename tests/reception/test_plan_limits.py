"""What plans allow where mail comes in: each recipient hears of its own plan, and of too much content all alike."""

from dataclasses import replace
from pathlib import Path

import pytest
from reception_house import CONTENT, PLANS, World, open_reception, parsed, parts_on_the_disk, snapshot
from scripted_next_hops import later
from values import NOW

from appliance.model.account import Role
from appliance.model.time import DAY_MS
from appliance.reception.decision import decide
from appliance.spool.clocks import Clocks
from appliance.storage.records import StoreUnavailable
from smtp.parameters import NO_RECIPIENT_PARAMETERS
from smtp.reply import Reply
from smtp.server.trio_server import MailParameters

FREE = PLANS["free"]
LARGE = CONTENT + b"x" * FREE.max_message_octets + b"\r\n"
"""More than the one plan allows, and less than the other."""


def said(reply: Reply | None) -> tuple[int, str | None]:
    assert reply is not None
    return reply.code, reply.enhanced


def refusals(world: World) -> list[tuple[object, object, object]]:
    """What the log says was refused: for whom, why, and of what size."""
    return [(each["recipient"], each["reason"], each["size"]) for each in world.events() if each["type"] == "REFUSED"]


def at(instant: int) -> Clocks:
    return Clocks.all_from(lambda: instant)


async def use_up(world: World, recipient: str = "ali@example.org", count: int = FREE.max_messages_per_day) -> None:
    for _ in range(count):
        _, final = await world.transact(recipient)
        assert said(final) == (250, "2.0.0")


# ---------------------------------------------------------------------- size


async def test_a_declared_size_is_weighed_by_the_plan_of_each_recipient(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        declared = MailParameters(size=len(LARGE))
        replies, final = await world.transact("ali@example.org", "paid@paid.test", content=LARGE, parameters=declared)
        assert [said(reply) for reply in replies] == [(552, "5.3.4"), (250, "2.1.5")]
        assert said(final) == (250, "2.0.0")
        assert refusals(world) == [("ali@example.org", "message-too-large", len(LARGE))]
        (queued,) = world.store.deliveries()
        assert [each.address for each in queued.recipients] == ["paid@paid.test"]


@pytest.mark.parametrize("declared", [None, FREE.max_message_octets, 1])
async def test_a_message_of_just_the_size_of_a_plan_is_taken_and_one_octet_more_is_not(
    tmp_path: Path, declared: int | None
) -> None:
    async with open_reception(tmp_path) as world:
        parameters = MailParameters(size=declared)
        most = CONTENT.ljust(FREE.max_message_octets - 2, b"x") + b"\r\n"
        _, final = await world.transact("ali@example.org", content=most, parameters=parameters)
        assert said(final) == (250, "2.0.0")
        _, final = await world.transact("ali@example.org", content=b"x" + most, parameters=parameters)
        assert said(final) == (552, "5.3.4")
        assert len(world.store.deliveries()) == 1


@pytest.mark.parametrize("recipients", [("paid@paid.test", "ali@example.org"), ("ali@example.org", "paid@paid.test")])
async def test_what_turns_out_too_large_for_one_recipient_is_refused_for_all_and_not_kept(
    tmp_path: Path, recipients: tuple[str, ...]
) -> None:
    """One reply stands for all: nobody has the message then, but its sender, who knows them all."""
    async with open_reception(tmp_path) as world:
        replies, final = await world.transact(*recipients, content=LARGE)
        assert [reply.code for reply in replies] == [250, 250]
        assert said(final) == (552, "5.3.4")
        assert refusals(world) == [(recipient, "message-too-large", len(LARGE)) for recipient in recipients]
        assert world.store.deliveries() == []
        assert parts_on_the_disk(tmp_path) == 0
        _, final = await world.transact("paid@paid.test", content=LARGE)
        assert said(final) == (250, "2.0.0")


async def test_what_is_beyond_the_plan_is_not_written_down_while_it_comes(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        session = world.session()
        await session.mail(None, MailParameters())
        await session.recipient(parsed("ali@example.org"), NO_RECIPIENT_PARAMETERS)
        await session.data()
        await session.content(LARGE)
        before = parts_on_the_disk(tmp_path)
        for _ in range(10):
            await session.content(LARGE)
        assert parts_on_the_disk(tmp_path) == before
        assert said(await session.end_of_data()) == (552, "5.3.4")


async def test_in_transit_a_message_beyond_the_plan_goes_to_nobody(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        _, final = await world.transact("loud@loud.test", content=LARGE)
        assert said(final) == (552, "5.3.4")
        assert world.hops.delivered == []
        assert refusals(world) == [("loud@loud.test", "message-too-large", len(LARGE))]


# ---------------------------------------------------------------------- messages of a day


async def test_an_account_that_has_had_its_messages_today_is_later_and_others_are_not(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        await use_up(world)
        replies, final = await world.transact("ali@example.org", "quiet@quiet.test", "paid@paid.test")
        assert [said(reply) for reply in replies] == [(452, "4.2.2"), (452, "4.2.2"), (250, "2.1.5")]
        assert said(final) == (250, "2.0.0")
        # The other is at a domain whose log is switched off.
        assert refusals(world) == [("ali@example.org", "plan-exhausted", 0)]


async def test_the_day_ends_at_midnight_utc(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        await use_up(world)
        midnight = NOW - NOW % DAY_MS + DAY_MS
        for instant, code in ((midnight - 1, 452), (midnight, 250), (NOW - DAY_MS, 250)):
            world.reception = replace(world.reception, clocks=at(instant))
            ((reply,), _) = await world.transact("ali@example.org")
            assert reply.code == code


async def test_a_message_counts_once_however_many_addresses_of_the_account_it_is_for(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        counts = world.reception.day_counts
        await world.transact("ali@example.org", "sales@example.org", "quiet@quiet.test", "paid@paid.test")
        assert (counts.received("a1", NOW), counts.received("a4", NOW)) == (1, 1)
        await world.transact("bin@example.org")
        assert counts.received("a1", NOW) == 2, "what is thrown away was received"


async def test_what_was_not_accepted_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_reception(tmp_path) as world:

        def refuse(operations: object) -> None:
            raise StoreUnavailable("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(world.store, "write", refuse)
            _, final = await world.transact("ali@example.org")
            assert said(final) == (451, "4.3.0")
        await world.transact("ali@example.org", content=LARGE)
        await world.transact("nobody@example.org")
        assert world.reception.day_counts.received("a1", NOW) == 0


async def test_in_transit_a_message_counts_when_its_next_hops_have_it(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        counts = world.reception.day_counts
        world.hops.at_the_end["alice@home.test"] = later()
        _, final = await world.transact("through@transit.test")
        assert final is not None
        assert (final.transient, counts.received("a1", NOW)) == (True, 0)
        world.hops.at_the_end.clear()
        _, final = await world.transact("through@transit.test")
        assert said(final) == (250, "2.0.0")
        assert counts.received("a1", NOW) == 1
        await use_up(world, count=FREE.max_messages_per_day - 1)
        ((reply,), _) = await world.transact("through@transit.test")
        assert said(reply) == (452, "4.2.2")


# ---------------------------------------------------------------------- what is outside of plans


async def test_postmaster_can_be_written_to_whatever_has_come_before(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        await use_up(world)
        for postmaster in ("postmaster", "Postmaster@example.org"):
            replies, final = await world.transact(postmaster, content=LARGE, parameters=MailParameters(size=len(LARGE)))
            assert said(replies[0]) == (250, "2.1.5")
            assert said(final) == (250, "2.0.0")
        assert world.reception.day_counts.received("a1", NOW) == FREE.max_messages_per_day


async def test_what_comes_back_to_a_rewritten_sender_neither_counts_nor_is_put_off(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        await use_up(world)
        back = world.store.deliveries()[0].return_path
        replies, final = await world.transact(back, sender=None)
        assert said(replies[0]) == (250, "2.1.5")
        assert said(final) == (250, "2.0.0")
        assert world.reception.day_counts.received("a1", NOW) == FREE.max_messages_per_day


async def test_a_plan_that_the_configuration_has_lost_turns_no_mail_away(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        world.routing.snapshot = snapshot(plans={})
        await use_up(world, count=FREE.max_messages_per_day + 1)


async def test_an_operator_is_bound_by_no_plan(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        world.routing.snapshot = snapshot(role=Role.OPERATOR)
        await use_up(world, count=FREE.max_messages_per_day + 1)
        replies, final = await world.transact("ali@example.org", content=LARGE)
        assert [said(reply) for reply in (*replies, final)] == [(250, "2.1.5"), (250, "2.0.0")]


# ---------------------------------------------------------------------- told


@pytest.mark.parametrize(
    ("received", "size", "outcome"),
    [(0, 0, "ok"), (FREE.max_messages_per_day, 0, "refused"), (0, FREE.max_message_octets + 1, "refused")],
)
async def test_explain_decides_as_rcpt_does_and_says_what_the_plan_allows(
    tmp_path: Path, received: int, size: int, outcome: str
) -> None:
    async with open_reception(tmp_path) as world:
        await use_up(world, count=received)
        reception = world.reception
        explained = decide(
            reception.routing.snapshot,
            reception.rewriter,
            None,
            parsed("ali@example.org"),
            NOW,
            reception.look_up,
            reception.day_counts.received,
            size=size,
            explained=True,
        )
        ((reply,), _) = await world.transact("ali@example.org", parameters=MailParameters(size=size))
        assert explained.reply == reply
        step = explained.steps[-1]
        assert (step.check, step.outcome) == ("plan", outcome)
        assert f"2000000 octets, and 9 a day, of which {received} have come" in step.detail
