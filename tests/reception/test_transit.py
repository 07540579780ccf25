"""Mail in transit: what the sender hears, who gets what, and how long anybody is waited for."""

import threading
from functools import partial

import pytest
import trio
import trio.testing
from scripted_next_hops import ScriptedHops, later, never
from transit_house import CLIENT, CONTENT, HEAD, MANY, SENDER, TRACE, House
from values import NOW

from appliance.model.delivery import Deferred, Failed
from appliance.model.domain import Alias, AliasAction, DeliveryMode, Domain, LogLevel
from appliance.model.event import EventType
from appliance.reception.transit import MAX_NEXT_HOPS, WAIT_S
from appliance.routing.snapshot import Settings, Snapshot
from smtp.parameters import NO_MAIL_PARAMETERS, MailParameters
from smtp.reply import Reply

# ---------------------------------------------------------------------- what goes on


async def test_the_message_goes_on_as_it_came_behind_our_line() -> None:
    house = House()
    reply = await house.final("team")
    assert (reply.code, reply.enhanced) == (250, "2.0.0")
    assert sorted(house.hops.delivered) == [("alice@home.test", TRACE + CONTENT), ("carol@work.test", TRACE + CONTENT)]
    assert house.hops.all_have_left


async def test_the_next_hops_see_a_rewritten_sender_and_the_true_needs() -> None:
    house = House()
    content = HEAD + "Grüße\r\n".encode()
    assert (await house.final("ali", content=content)).code == 250
    (sent,) = house.hops.deliveries
    assert sent.return_path.endswith("@srs.mx.example.net")
    assert (sent.sender, sent.eight_bit, sent.utf8) == ("friend@sender.test", True, False)
    assert sent.size == len(TRACE) + len(content)


async def test_a_declared_size_is_told_with_room_for_our_line() -> None:
    house = House()
    await house.transact("ali", parameters=MailParameters(size=10_000))
    assert 10_000 < house.hops.hops[0].asked[0].size < 11_000
    await house.transact("ali")
    assert house.hops.hops[1].asked[0].size == 0


@pytest.mark.parametrize(
    ("alias", "declared", "content", "needed"),
    [
        ("ali", True, CONTENT, False),
        ("ali", True, CONTENT + "ü\r\n".encode(), True),
        ("ali", False, CONTENT + "ü\r\n".encode(), False),
        ("jorg", False, CONTENT, True),
    ],
)
async def test_smtputf8_is_needed_for_an_address_or_for_what_is_in_the_message(
    alias: str, declared: bool, content: bytes, needed: bool
) -> None:
    house = House()
    await house.final(alias, content=content, parameters=MailParameters(smtputf8=declared))
    assert house.hops.deliveries[0].utf8 is needed


async def test_mailboxes_of_one_destination_share_a_connection() -> None:
    house = House()
    assert (await house.final("both")).code == 250
    assert [hop.destination for hop in house.hops.hops] == ["home.test"]
    assert house.hops.mailboxes == ["alice@home.test", "bob@home.test"]


async def test_a_mailbox_behind_two_recipients_gets_one_copy() -> None:
    house = House()
    assert (await house.final("ali", "both", "team")).code == 250
    assert house.hops.mailboxes == ["alice@home.test", "bob@home.test", "carol@work.test"]
    recipients = {
        str(each.target): [recipient.address for recipient in each.recipients] for each in house.hops.deliveries
    }
    assert recipients["alice@home.test"] == ["ali@example.org", "both@example.org", "team@example.org"]
    assert recipients["bob@home.test"] == ["both@example.org"]


async def test_what_is_discarded_is_taken_and_asks_nobody() -> None:
    house = House()
    assert (await house.final("bin")).code == 250
    assert house.hops.hops == []


async def test_an_alias_that_leads_to_postmaster_leads_to_the_operator() -> None:
    house = House()
    assert (await house.final("boss")).code == 250
    assert house.hops.mailboxes == ["owner@home.test"]


async def test_an_alias_that_leads_to_nobody_yet_is_put_off() -> None:
    house = House()
    house.snapshot = Snapshot(
        Settings("mx.example.net", "srs.mx.example.net"),
        1,
        domains=[Domain("domain1", "a1", "example.org", True, DeliveryMode.TRANSIT, LogLevel.EVENTS, NOW)],
        aliases=[Alias("boss", "domain1", "boss", AliasAction.FORWARD, ("postmaster@example.org",), "refzzz", NOW)],
    )
    reply = await house.at_rcpt("boss")
    assert reply is not None
    assert (reply.code, reply.enhanced) == (451, "4.3.5")


# ---------------------------------------------------------------------- refused at RCPT


@pytest.mark.parametrize(
    ("outcome", "code", "enhanced"),
    [
        (never(550, "5.1.1"), 550, "5.1.1"),
        (never(554, "5.7.1"), 554, "5.7.1"),
        (never(552, "5.2.2"), 552, "5.2.2"),
        (never(556, "5.1.10"), 556, "5.1.10"),
        (never(535, "5.7.8"), 550, "5.7.8"),
        (never(599, "5.99.17"), 550, "5.0.0"),
        (never(0, "5.7.30"), 550, "5.7.30"),
        (later(450, "4.2.1"), 450, "4.2.1"),
        (later(452, "4.2.2"), 452, "4.2.2"),
        (later(421, "4.3.2"), 451, "4.3.2"),
        (later(0, "4.4.1"), 451, "4.4.1"),
        (later(0, "5.7.30"), 451, "4.0.0"),
    ],
    ids=lambda value: f"{value.answer.code}-{value.answer.enhanced_code}" if hasattr(value, "answer") else str(value),
)
async def test_a_next_hops_refusal_is_the_senders(outcome: Deferred | Failed, code: int, enhanced: str) -> None:
    house = House(ScriptedHops(at_rcpt={"alice@home.test": outcome}))
    reply = await house.at_rcpt("ali")
    assert reply is not None
    assert (reply.code, reply.enhanced) == (code, enhanced)
    assert house.hops.all_have_left


async def test_the_senders_reply_says_nothing_of_the_mailbox_and_the_log_names_the_alias() -> None:
    words = "alice@home.test unknown at mx.home.test, ask Alice"
    house = House(ScriptedHops(at_rcpt={"alice@home.test": never(text=words)}))
    ((refusal,), _) = await house.transact("ali")
    assert refusal is not None
    assert not any(name in refusal.reply.text.lower() for name in ("alice", "home.test"))
    assert refusal.reply.text == "There is no such mailbox behind this address."
    assert "alice@" not in refusal.told.text
    assert "ali@example.org" in refusal.told.text
    assert (refusal.told.code, refusal.told.reason) == (550, "mailbox-unknown")


async def test_one_mailbox_that_is_put_off_puts_the_alias_off() -> None:
    house = House(ScriptedHops(at_rcpt={"carol@work.test": later(), "dave@far.test": never()}))
    reply = await house.at_rcpt("trio")
    assert reply is not None
    assert reply.code == 450
    assert house.hops.all_have_left
    assert house.hops.delivered == []


async def test_only_where_all_mailboxes_refuse_is_the_alias_refused() -> None:
    house = House(ScriptedHops(at_rcpt={"alice@home.test": never(), "carol@work.test": never(554, "5.7.1")}))
    reply = await house.at_rcpt("team")
    assert reply is not None
    assert reply.permanent


async def test_a_mailbox_that_refuses_beside_one_that_takes_is_told_to_the_log_alone() -> None:
    house = House(ScriptedHops(at_rcpt={"carol@work.test": never()}))
    _, ended = await house.transact("team")
    assert ended is not None
    assert ended.reply.code == 250
    assert house.hops.mailboxes == ["alice@home.test"]
    assert [(type, str(delivery.target)) for type, delivery, _ in ended.attempts] == [
        (EventType.DELIVERED, "alice@home.test"),
        (EventType.HARD_BOUNCED, "carol@work.test"),
    ]


async def test_a_recipient_that_is_refused_leaves_the_others_their_mailboxes() -> None:
    house = House(ScriptedHops(at_rcpt={"carol@work.test": later()}))
    refusals, ended = await house.transact("team", "ali")
    assert [refusal is None for refusal in refusals] == [False, True]
    assert ended is not None
    assert ended.reply.code == 250
    assert house.hops.mailboxes == ["alice@home.test"]
    assert [recipient.address for recipient in house.hops.deliveries[0].recipients] == ["ali@example.org"]


async def test_a_next_hop_that_does_not_answer_rcpt_is_not_waited_for_without_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    house = House(ScriptedHops(thinks_s={"home.test": 10_000}))
    began = trio.current_time()
    reply = await house.at_rcpt("team")
    assert reply is not None
    assert (reply.code, reply.enhanced) == (451, "4.4.7")
    assert trio.current_time() - began < 300, "the client waits five minutes"
    assert house.hops.all_have_left


async def test_beyond_so_many_next_hops_recipients_belong_into_another_transaction() -> None:
    house = House()
    names = [f"one{number}" for number in range(MAX_NEXT_HOPS + 1)]
    refusals, ended = await house.transact(*names)
    assert refusals[:-1] == [None] * MAX_NEXT_HOPS
    assert refusals[-1] is not None
    assert (refusals[-1].reply.code, refusals[-1].reply.enhanced) == (452, "4.5.3")
    assert ended is not None
    assert len(house.hops.delivered) == MAX_NEXT_HOPS


async def test_one_alias_may_have_more_next_hops_than_that() -> None:
    house = House()
    assert (await house.final("crowd")).code == 250
    assert house.hops.mailboxes == sorted(MANY)


# ---------------------------------------------------------------------- the final dot


async def test_the_250_waits_for_every_next_hop(autojump_clock: trio.testing.MockClock) -> None:
    house = House(ScriptedHops(stalls_s={"home.test": 100, "work.test": WAIT_S - 1}))
    began = trio.current_time()
    assert (await house.final("team")).code == 250
    assert trio.current_time() - began == pytest.approx(WAIT_S - 1, abs=1), "both were asked at once"


async def test_a_next_hop_that_takes_longer_is_a_451(autojump_clock: trio.testing.MockClock) -> None:
    house = House(ScriptedHops(stalls_s={"home.test": WAIT_S + 1}))
    began = trio.current_time()
    reply = await house.final("ali")
    assert (reply.code, reply.enhanced) == (451, "4.4.7")
    assert trio.current_time() - began == pytest.approx(WAIT_S, abs=1)
    assert house.hops.all_have_left


async def test_a_shutdown_ends_the_waits_and_those_that_begin_after_it(autojump_clock: trio.testing.MockClock) -> None:
    house = House(ScriptedHops(stalls_s={"home.test": 100}, thinks_s={"work.test": 100}))
    replies: list[Reply] = []

    async def send() -> None:
        replies.append(await house.final("ali"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked(0.5)
        began = trio.current_time()
        house.transit.waits.end_within(5)
    assert [reply.code for reply in replies] == [451]
    assert trio.current_time() - began == pytest.approx(5, abs=1)
    refused = await house.at_rcpt("carol")
    assert refused is not None
    assert refused.code == 451
    assert trio.current_time() - began == pytest.approx(5, abs=1)


@pytest.mark.parametrize("outcome", [never(554, "5.7.1"), later(451, "4.7.1")], ids=["5xx", "4xx"])
async def test_what_the_only_next_hop_says_to_the_final_dot_is_the_reply(outcome: Deferred | Failed) -> None:
    house = House(ScriptedHops(at_the_end={"alice@home.test": outcome}))
    _, ended = await house.transact("ali")
    assert ended is not None
    assert (ended.reply.code, ended.reply.enhanced) == (outcome.answer.code, outcome.answer.enhanced_code)
    assert [(recipient.address, told.code) for recipient, told in ended.refused] == [
        ("ali@example.org", outcome.answer.code)
    ]
    assert list(ended.attempts) == []


async def test_a_disk_that_stalls_holds_nothing_up() -> None:
    house = House()
    stalled = threading.Event()
    waiting = partial(trio.to_thread.run_sync, stalled.wait)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for _ in range(int(trio.to_thread.current_default_thread_limiter().total_tokens)):
                nursery.start_soon(waiting)
            try:
                with trio.fail_after(5):
                    assert (await house.final("ali")).code == 250
            finally:
                stalled.set()


async def test_who_breaks_off_sends_nothing() -> None:
    house = House()
    transaction = house.transit.begin(SENDER, NO_MAIL_PARAMETERS, CLIENT)
    await transaction.recipient(*house.decided("team"))
    transaction.start(TRACE)
    transaction.content(CONTENT)
    transaction.leave()
    assert house.hops.delivered == []
    assert house.hops.all_have_left
