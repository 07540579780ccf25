"""A session whose mail is in transit: what it has in common with one for the spool, and what it writes down."""

from pathlib import Path

import pytest
from reception_house import CONTENT, SENDER, open_reception, parsed, parts_on_the_disk
from scripted_next_hops import later, never
from smtp_house import call, open_house, quick_settings

from smtp.parameters import NO_MAIL_PARAMETERS, NO_RECIPIENT_PARAMETERS
from smtp.server.serving import PassesOn

THROUGH, LOUD, SPOOLED = "through@transit.test", "loud@loud.test", "ali@example.org"


async def test_nothing_of_it_is_in_the_spool(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        (reply,), final = await world.transact(THROUGH)
        assert reply.code == 250
        assert final is not None
        assert final.code == 250
        assert final.text.startswith("Passed on as ")
        assert world.store.deliveries() == []
        assert world.events() == []
        assert world.onward.taken == []
        ((mailbox, octets),) = world.hops.delivered
        assert mailbox == "alice@home.test"
        assert octets.endswith(CONTENT)
        front = octets.removesuffix(CONTENT)
        assert front.startswith(b"Received: from laptop.sender.test")
        assert final.text.rpartition(" ")[2].encode() in front
        assert b"for <through@transit.test>" in front


async def test_not_even_a_large_one_is_on_the_disk_while_it_arrives(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        session = world.session()
        await session.mail(SENDER, NO_MAIL_PARAMETERS)
        assert (await session.recipient(parsed(THROUGH), NO_RECIPIENT_PARAMETERS)).code == 250
        await session.data()
        await session.content(CONTENT + b"x" * 1_000_000 + b"\r\n")
        assert parts_on_the_disk(tmp_path) == 0
        assert (await session.end_of_data()).code == 250
        assert parts_on_the_disk(tmp_path) == 0


async def test_what_goes_well_is_received_and_delivered_in_the_log(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        _, final = await world.transact(LOUD)
        assert final is not None
        events = world.events()
        assert [event["type"] for event in events] == ["RECEIVED", "DELIVERED", "DELIVERED"]
        assert {event["recipient"] for event in events} == {LOUD}
        assert {event["message_id"] for event in events} == {final.text.rpartition(" ")[2]}
        assert events[0]["subject"] == "Apples"


async def test_a_refusal_at_rcpt_is_in_the_log_with_the_next_hops_words_about_the_alias(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        for mailbox in ("alice", "bob"):
            world.hops.at_rcpt[f"{mailbox}@home.test"] = never(text=f"no {mailbox}@home.test here")
        (reply,), final = await world.transact(LOUD)
        assert (reply.code, reply.text, final) == (550, "There is no such mailbox behind this address.", None)
        (event,) = world.events()
        assert (event["type"], event["code"], event["reason"]) == ("REFUSED", 550, "mailbox-unknown")
        assert event["response"] == f"no {LOUD} here"


async def test_a_message_that_is_put_off_is_refused_in_the_log_and_what_arrived_is_delivered(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        world.hops.at_the_end["bob@home.test"] = later(451, "4.3.1")
        _, final = await world.transact(LOUD)
        assert final is not None
        assert (final.code, final.enhanced) == (451, "4.3.1")
        assert [event["type"] for event in world.events()] == ["REFUSED", "DELIVERED"]


@pytest.mark.parametrize(("first", "second"), [(THROUGH, SPOOLED), (SPOOLED, THROUGH), ("postmaster", THROUGH)])
async def test_recipients_of_the_other_mode_belong_into_another_transaction(
    tmp_path: Path, first: str, second: str
) -> None:
    async with open_reception(tmp_path) as world:
        replies, final = await world.transact(first, second)
        assert [(reply.code, reply.enhanced) for reply in replies] == [(250, "2.1.5"), (452, "4.5.3")]
        assert final is not None
        assert final.code == 250
        assert bool(world.hops.delivered) is (first == THROUGH)
        assert bool(world.store.deliveries()) is (first != THROUGH)


async def test_a_recipient_that_was_refused_decides_nothing(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        world.hops.at_rcpt["alice@home.test"] = later()
        replies, final = await world.transact(THROUGH, SPOOLED)
        assert [reply.code for reply in replies] == [450, 250]
        assert final is not None
        assert final.code == 250
        assert len(world.store.deliveries()) == 1
        assert world.hops.delivered == []


async def test_postmaster_of_a_domain_in_transit_goes_by_the_spool(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        (reply,), _ = await world.transact("postmaster@transit.test")
        assert reply.code == 250
        assert [str(each.target) for each in world.store.deliveries()] == ["owner@home.test"]


async def test_a_disk_without_room_is_told_to_those_who_need_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_reception(tmp_path) as world:
        monkeypatch.setattr(world.reception.spool, "has_room", lambda octets: False)
        (spooled,), _ = await world.transact(SPOOLED)
        assert (spooled.code, spooled.enhanced) == (452, "4.3.1")
        (through,), final = await world.transact(THROUGH)
        assert through.code == 250
        assert final is not None
        assert final.code == 250


async def test_a_message_that_goes_round_in_circles_is_refused_before_it_goes_on(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        _, final = await world.transact(THROUGH, content=b"Received: from a by b\r\n" * 100 + CONTENT)
        assert final is not None
        assert (final.code, final.enhanced) == (554, "5.4.6")
        assert world.hops.delivered == []
        assert world.hops.all_have_left
        await world.transact(THROUGH)
        _, again = await world.transact(THROUGH, content=world.hops.delivered[0][1])
        assert again is not None
        assert (again.code, again.enhanced) == (554, "5.4.6"), "our own line says that it was here"


async def test_a_reset_lets_the_next_hops_go(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        session = world.session()
        await session.mail(SENDER, NO_MAIL_PARAMETERS)
        assert (await session.recipient(parsed(THROUGH), NO_RECIPIENT_PARAMETERS)).code == 250
        assert await session.data() is None
        await session.content(CONTENT)
        assert not world.hops.all_have_left
        await session.reset()
        assert world.hops.all_have_left
        assert world.hops.delivered == []


@pytest.mark.parametrize(("recipient", "whole"), [(THROUGH, True), (SPOOLED, False)])
async def test_the_server_knows_whose_content_is_held_whole(tmp_path: Path, recipient: str, whole: bool) -> None:
    async with open_reception(tmp_path) as world:
        session = world.session()
        assert isinstance(session, PassesOn)
        await session.mail(SENDER, NO_MAIL_PARAMETERS)
        assert session.holds_whole is False
        await session.recipient(parsed(recipient), NO_RECIPIENT_PARAMETERS)
        await session.data()
        assert session.holds_whole is whole
        await session.reset()
        assert session.holds_whole is False


async def test_the_server_knows_who_has_refused_a_recipient(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        world.hops.at_rcpt["alice@home.test"] = never()
        session = world.session()
        await session.mail(SENDER, NO_MAIL_PARAMETERS)
        assert (await session.recipient(parsed(THROUGH), NO_RECIPIENT_PARAMETERS)).enhanced == "5.1.1"
        assert session.asked_elsewhere
        assert (await session.recipient(parsed("nobody@transit.test"), NO_RECIPIENT_PARAMETERS)).enhanced == "5.1.1"
        assert not session.asked_elsewhere, "who guesses at aliases hears it from us"
        await session.reset()


ENVELOPE = f"MAIL FROM:<friend@sender.test>\r\nRCPT TO:<{THROUGH}>\r\n".encode()


@pytest.mark.parametrize(
    ("said", "codes"),
    [
        (b"RSET\r\n", ["250"]),
        (b"EHLO again.test\r\n", ["250"]),
        (b"QUIT\r\n", ["221"]),
        (b"", []),
        (b"DATA\r\nSubject: x\r\n", ["354"]),
        (b"DATA\r\nSubject: x\r\n\nbare\r\n.\r\n", ["354", "550"]),
        (b"DATA\r\n" + b"x" * 70_000 + b"\r\n.\r\n", ["354", "554"]),
        (b"DATA\r\n" + b"0123456789\r\n" * 9_000 + b".\r\n", ["354", "552"]),
        (b"BDAT 10\r\n0123456789", ["250"]),
        (b"BDAT 10\r\n01234567\r\nRSET\r\n", ["250", "250"]),
        (b"BDAT 20\r\n0123", []),
        (b"BDAT 200000\r\n" + b"0" * 200_000, ["552"]),
    ],
    ids=[
        "RSET",
        "EHLO",
        "QUIT",
        "leaves",
        "leaves in DATA",
        "bare LF",
        "long line",
        "too large",
        "leaves in BDAT",
        "RSET in BDAT",
        "leaves in a chunk",
        "chunk too large",
    ],
)
async def test_however_a_transaction_ends_without_a_message_nothing_goes_on(
    tmp_path: Path, said: bytes, codes: list[str]
) -> None:
    settings = quick_settings(max_message_octets=100_000, max_line_octets=1000)
    async with (
        open_reception(tmp_path) as world,
        open_house(settings, new_receiver=world.reception.session) as house,
        call(house) as caller,
    ):
        await caller.greeted()
        await caller.say(ENVELOPE + said)
        assert await caller.codes(2 + len(codes)) == ["250", "250", *codes]
        await caller.close_bare()
        house.shutdown.set()
        await house.ended.wait()
        assert [hop.destination for hop in world.hops.hops] == ["home.test"]
        assert world.hops.all_have_left
        assert world.hops.delivered == []
        assert house.errors == []


async def test_a_second_mail_is_out_of_order_and_changes_nothing(tmp_path: Path) -> None:
    async with (
        open_reception(tmp_path) as world,
        open_house(new_receiver=world.reception.session) as house,
        call(house) as caller,
    ):
        await caller.greeted()
        await caller.say(ENVELOPE + b"MAIL FROM:<other@sender.test>\r\nBDAT 7 LAST\r\nHello\r\n")
        assert await caller.codes(4) == ["250", "250", "503", "250"]
        assert len(world.hops.delivered) == 1
        assert world.hops.deliveries[0].sender == "friend@sender.test"
        assert world.hops.all_have_left
