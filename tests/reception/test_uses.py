"""Aliases for so many messages: each 250 is one use, and nothing else is."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from reception_house import OWNER, SENDER, Table, World, open_reception, parsed
from scripted_next_hops import later, never
from values import NOW

from appliance.model.domain import Alias, AliasAction, DeliveryMode, Destination, Domain, LogLevel
from appliance.reception.session import Session
from appliance.routing.snapshot import Settings, Snapshot
from appliance.spool.uses import Uses
from smtp.parameters import NO_MAIL_PARAMETERS, NO_RECIPIENT_PARAMETERS
from smtp.reply import Reply

ONCE, OFTEN, BIN, THROUGH = "once@example.org", "often@example.org", "bin@example.org", "once@transit.test"


def an_alias(name: str, domain: str, counter: str | None, *, action: AliasAction = AliasAction.FORWARD) -> Alias:
    targets = ("alice@home.test",) if action is AliasAction.FORWARD else ()
    alias = Alias(name + domain, domain, name, action, targets, f"{name[:3]}{domain}", NOW)
    return alias if counter is None else replace(alias, max_uses=1, use_counter=counter)


@asynccontextmanager
async def a_world(tmp_path: Path) -> AsyncIterator[World]:
    """With an alias for one message, in each manner of taking it."""
    async with open_reception(tmp_path) as world:
        table = world.reception.routing
        assert isinstance(table, Table)
        table.snapshot = Snapshot(
            Settings("mx.example.net", "srs.mx.example.net"),
            2,
            accounts=[OWNER],
            domains=[
                Domain("dxa", OWNER.id, "example.org", True, DeliveryMode.SPOOL, LogLevel.EVENTS, NOW),
                Domain("dxb", OWNER.id, "transit.test", True, DeliveryMode.TRANSIT, LogLevel.NONE, NOW),
            ],
            aliases=[
                an_alias("once", "dxa", "c1"),
                an_alias("often", "dxa", None),
                an_alias("bin", "dxa", "c2", action=AliasAction.DISCARD),
                an_alias("once", "dxb", "c3"),
            ],
            destinations=[Destination("x", OWNER.id, "alice@home.test", NOW, NOW)],
        )
        yield world


async def begun(world: World, *recipients: str) -> tuple[Session, list[Reply]]:
    session = world.session()
    await session.mail(SENDER, NO_MAIL_PARAMETERS)
    replies = [await session.recipient(parsed(each), NO_RECIPIENT_PARAMETERS) for each in recipients]
    return session, replies


async def ended(session: Session) -> Reply:
    assert await session.data() is None
    await session.content(b"Subject: x\r\n\r\nx\r\n")
    return await session.end_of_data()


async def test_the_last_message_is_taken_and_the_next_is_refused_at_rcpt(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        for address, counter in ((ONCE, "c1"), (BIN, "c2"), (THROUGH, "c3")):
            (first,), final = await world.transact(address)
            assert final is not None
            assert (first.code, final.code) == (250, 250)
            assert world.store.uses()[counter] == 1, "written when the 250 is given"
            (second,), _ = await world.transact(address)
            assert (second.code, second.enhanced) == (550, "5.2.1")


async def test_several_recipients_of_one_message_are_one_use(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        replies, final = await world.transact(ONCE, "once+x@example.org", OFTEN)
        assert final is not None
        assert [reply.code for reply in (*replies, final)] == [250] * 4
        assert world.store.uses() == {"c1": 1}


async def test_of_two_for_the_last_use_one_is_put_off_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        slow, (first, other) = await begun(world, ONCE, OFTEN)
        quick, _ = await begun(world, ONCE)
        assert (await ended(quick)).code == 250
        assert (first.code, other.code) == (250, 250)
        put_off = await ended(slow)
        assert (put_off.code, put_off.enhanced) == (450, "4.2.1")
        assert len(world.store.deliveries()) == 1
        assert world.store.uses() == {"c1": 1}
        assert {event["reason"] for event in world.events() if event["type"] == "REFUSED"} == {"alias-used-up"}
        # When it comes again, everybody gets what is theirs.
        (first, other), final = await world.transact(ONCE, OFTEN)
        assert final is not None
        assert (first.code, other.code, final.code) == (550, 250, 250)


async def test_a_transaction_that_never_ends_holds_nothing(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        waiting, _ = await begun(world, ONCE)
        assert await waiting.data() is None
        _, final = await world.transact(ONCE)
        assert final is not None
        assert final.code == 250
        await waiting.reset()


async def test_what_the_store_refuses_is_no_use(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        session, _ = await begun(world, ONCE)
        world.store.close()
        assert (await ended(session)).code == 451
        _, (again,) = await begun(world, ONCE)
        assert again.code in (250, 452), "not refused for good: nothing was taken"
        assert world.reception.uses.uncopied() == {}


async def test_in_transit_what_no_next_hop_has_taken_is_no_use(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        for answer in (later(), never()):
            world.hops.at_the_end["alice@home.test"] = answer
            _, final = await world.transact(THROUGH)
            assert final is not None
            assert not final.positive
            assert world.store.uses() == {}
        world.hops.at_the_end.clear()
        _, final = await world.transact(THROUGH)
        assert final is not None
        assert final.code == 250
        assert world.store.uses() == {"c3": 1}


async def test_a_start_goes_on_with_what_was_counted(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.transact(ONCE)
        assert Uses(world.store.uses()).left(an_alias("once", "dxa", "c1")) == 0
