"""Next hops for mail in transit, with real sockets: what is asked and sent, what answers come to, what becomes of
connections."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from destination_scripts import CLOSE, Answer, Moment, Stage, always
from dns_server import Behaviour
from town import CONTENT, FIRST, LIMIT_S, PIECES, SECOND, Town, resolver, ticking, to
from values import NOW

from appliance.delivery.holds import Holds
from appliance.delivery.next_hop import NextHop, NextHops
from appliance.model.delivery import Deferred, Delivered, Failed, Recipient
from appliance.model.hold import Hold

PLAIN = ("PIPELINING", "SIZE 1000", "ENHANCEDSTATUSCODES")
CLIENT, OTHER_CLIENT = "192.0.2.7", "192.0.2.8"
MOST = 3
"""Connections to one destination."""


class TransitTown(Town):
    """Next hops are asked there while the client waits."""

    def __init__(self) -> None:
        super().__init__(FIRST, SECOND)
        self.dns.set("null.test", "MX 0 .")
        self.holds = Holds()

    @asynccontextmanager
    async def hops(self) -> AsyncIterator[NextHops]:
        """Everything that is said to next hops ends with the block, goodbyes included."""
        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as background:
                yield NextHops(resolver(self.dns, 0.3), self.settings(), ticking(), background, self.holds, MOST)


@pytest.fixture
def town() -> Iterator[TransitTown]:
    with TransitTown().open() as made:
        yield made


async def test_it_is_asked_first_and_sent_later(town: TransitTown) -> None:
    both = to("alice", "bob")
    async with town.hops() as hops:
        hop = hops.next_hop("home.test", CLIENT)
        assert await hop.ask(both) == [None, None]
        assert town.first.messages == []
        assert all(isinstance(outcome, Delivered) for outcome in await hop.send(both, PIECES))
        hop.leave()
    (message,) = town.first.messages
    assert message.recipients == ("alice@home.test", "bob@home.test")
    assert message.content == CONTENT
    assert message.sender == both[0].return_path
    assert {f"SIZE={len(CONTENT)}", "BODY=8BITMIME"} <= set(message.parameters)


async def test_without_a_final_dot_nothing_comes_of_it(town: TransitTown) -> None:
    async with town.hops() as hops:
        hop = hops.next_hop("home.test", CLIENT)
        assert await hop.ask(to("alice")) == [None]
        hop.leave()
        hop.leave()
    assert town.first.messages == []


async def test_each_mailbox_has_its_own_answer(town: TransitTown) -> None:
    town.first.script = always(Stage.RCPT, Answer(550, "5.1.1 No such user"), recipient="bob@home.test")
    three = to("alice", "bob", "carol")
    async with town.hops() as hops:
        hop = hops.next_hop("home.test", CLIENT)
        answers = await hop.ask(three)
        assert [type(answer) for answer in answers] == [type(None), Failed, type(None)]
        assert isinstance(answers[1], Failed)
        assert (answers[1].answer.code, answers[1].answer.reason) == (550, "mailbox-unknown")
        assert answers[1].answer.server_name == "mx1.home.test"
        await hop.send([three[0], three[2]], PIECES)
        hop.leave()
    assert town.first.messages[0].recipients == ("alice@home.test", "carol@home.test")


async def test_only_some_of_those_that_were_asked_for_can_be_sent_to(town: TransitTown) -> None:
    both = to("alice", "bob")
    async with town.hops() as hops:
        hop = hops.next_hop("home.test", CLIENT)
        assert await hop.ask(both) == [None, None]
        (outcome,) = await hop.send(both[1:], PIECES)
        assert isinstance(outcome, Delivered)
        hop.leave()
    (message,) = town.first.messages
    assert message.recipients == ("bob@home.test",)
    assert town.first.connections == 1


async def test_a_refusal_when_it_is_asked_once_more_counts(town: TransitTown) -> None:
    both = to("alice", "bob")
    async with town.hops() as hops:
        hop = hops.next_hop("home.test", CLIENT)
        await hop.ask(both)
        town.first.script = always(Stage.RCPT, Answer(450, "4.2.1 Busy now"))
        (outcome,) = await hop.send(both[1:], PIECES)
        assert isinstance(outcome, Deferred)
        hop.leave()
    assert town.first.messages == []


async def test_a_server_that_hangs_up_while_it_is_asked_puts_off(town: TransitTown) -> None:
    town.first.script = always(Stage.RCPT, CLOSE)
    async with town.hops() as hops:
        hop = hops.next_hop("home.test", CLIENT)
        answers = await hop.ask(to("alice", "bob"))
        assert [answer.answer.reason for answer in answers if isinstance(answer, Deferred)] == ["connection-lost"] * 2
        hop.leave()


@pytest.mark.parametrize("stage", [Stage.DATA, Stage.END_OF_DATA])
async def test_a_server_that_hangs_up_before_its_250_puts_off(town: TransitTown, stage: Stage) -> None:
    town.first.script = always(stage, CLOSE)
    async with town.hops() as hops:
        hop = hops.next_hop("home.test", CLIENT)
        await hop.ask(to("alice"))
        (outcome,) = await hop.send(to("alice"), PIECES)
        assert isinstance(outcome, Deferred)
        assert (outcome.answer.code, outcome.answer.enhanced_code) == (0, "4.4.2")
        hop.leave()


async def test_a_421_is_no_word_for_good(town: TransitTown) -> None:
    town.first.script = always(Stage.RCPT, Answer(421, "4.3.2 Going down", close=True))
    async with town.hops() as hops:
        hop = hops.next_hop("home.test", CLIENT)
        (answer,) = await hop.ask(to("alice"))
        assert isinstance(answer, Deferred)
        assert answer.answer.code == 421
        hop.leave()


@pytest.mark.parametrize(
    "said",
    [Answer(554, "5.7.1 We do not like you"), Answer(451, "4.3.0 Out of order"), CLOSE],
    ids=["5xx", "4xx", "hangs up"],
)
async def test_a_host_that_refuses_the_sender_does_not_speak_for_the_others(town: TransitTown, said: Answer) -> None:
    town.first.script = always(Stage.MAIL, said)
    async with town.hops() as hops:
        hop = hops.next_hop("home.test", CLIENT)
        assert await hop.ask(to("alice")) == [None]
        await hop.send(to("alice"), PIECES)
        hop.leave()
    assert len(town.second.messages) == 1


async def test_what_all_hosts_say_of_the_sender_counts(town: TransitTown) -> None:
    for server in (town.first, town.second):
        server.script = always(Stage.MAIL, Answer(554, "5.7.1 We do not like you"))
    async with town.hops() as hops:
        hop = hops.next_hop("home.test", CLIENT)
        (answer,) = await hop.ask(to("alice"))
        assert isinstance(answer, Failed)
        assert answer.answer.code == 554
        hop.leave()


async def test_who_may_take_it_later_is_waited_for(town: TransitTown) -> None:
    town.first.script = always(Stage.MAIL, Answer(451, "4.3.0 Out of order"))
    town.second.script = always(Stage.MAIL, Answer(554, "5.7.1 We do not like you"))
    async with town.hops() as hops:
        hop = hops.next_hop("home.test", CLIENT)
        (answer,) = await hop.ask(to("alice"))
        assert isinstance(answer, Deferred)
        assert answer.answer.code == 451
        hop.leave()


async def test_a_connection_that_has_ended_while_the_sender_took_its_time_is_made_anew(town: TransitTown) -> None:
    both = to("alice", "bob")
    async with town.hops() as hops:
        hop = hops.next_hop("home.test", CLIENT)
        assert await hop.ask(both) == [None, None]
        town.first.stop()
        town.first.start()
        assert all(isinstance(outcome, Delivered) for outcome in await hop.send(both, PIECES))
        hop.leave()
    (message,) = town.first.messages
    assert message.recipients == ("alice@home.test", "bob@home.test")
    assert message.content == CONTENT


@pytest.mark.parametrize("said", [Answer(421, "4.4.2 You were idle", close=True), CLOSE], ids=["421", "hangs up"])
async def test_before_the_final_dot_a_server_may_turn_away_once(town: TransitTown, said: Answer) -> None:
    town.first.script = always(Stage.DATA, said, times=1)
    async with town.hops() as hops:
        hop = hops.next_hop("home.test", CLIENT)
        await hop.ask(to("alice"))
        (outcome,) = await hop.send(to("alice"), PIECES)
        assert isinstance(outcome, Delivered)
        hop.leave()
    assert len(town.first.messages) == 1


async def test_what_may_have_been_taken_is_not_sent_once_more(town: TransitTown) -> None:
    town.first.script = always(Stage.END_OF_DATA, CLOSE, times=1)
    async with town.hops() as hops:
        hop = hops.next_hop("home.test", CLIENT)
        await hop.ask(to("alice"))
        (outcome,) = await hop.send(to("alice"), PIECES)
        assert isinstance(outcome, Deferred)
        assert outcome.answer.enhanced_code == "4.4.2"
        hop.leave()
    assert town.first.connections == 1
    assert town.second.connections == 0


def takes_two(moment: Moment) -> Answer | None:
    """Of a server that takes so many recipients in a transaction."""
    return Answer(452, "4.5.3 Too many") if moment.stage is Stage.RCPT and len(moment.recipients) == 2 else None


@pytest.mark.parametrize("says_so", [True, False])
async def test_a_server_that_takes_few_recipients_at_a_time_gets_more_transactions(
    town: TransitTown, says_so: bool
) -> None:
    if says_so:
        town.first.extensions = (*town.first.extensions, "LIMITS RCPTMAX=2")
    town.first.script = takes_two
    three = to("alice", "bob", "carol")
    async with town.hops() as hops:
        hop = hops.next_hop("home.test", CLIENT)
        assert await hop.ask(three) == [None, None, None]
        assert [type(outcome) for outcome in await hop.send(three, PIECES)] == [Delivered] * 3
        hop.leave()
        again = hops.next_hop("home.test", CLIENT)
        assert await again.ask(three) == [None, None, None]
        assert [type(outcome) for outcome in await again.send(three[2:], PIECES)] == [Delivered]
        again.leave()
        # All places are free again.
        others = [hops.next_hop("home.test", CLIENT) for _ in range(MOST)]
        assert [await other.ask(to("alice")) for other in others] == [[None]] * MOST
        for other in others:
            other.leave()
    taken = [message.recipients for message in town.first.messages]
    assert sorted(taken) == [("alice@home.test", "bob@home.test"), ("carol@home.test",), ("carol@home.test",)]


async def test_nobody_listens(town: TransitTown) -> None:
    town.first.stop()
    town.second.stop()
    async with town.hops() as hops:
        hop = hops.next_hop("home.test", CLIENT)
        (answer,) = await hop.ask(to("alice"))
        assert isinstance(answer, Deferred)
        assert answer.answer.enhanced_code == "4.4.1"
        hop.leave()


async def test_only_what_the_dns_says_is_final(town: TransitTown) -> None:
    town.dns.behave("home.test", Behaviour.SERVFAIL)
    async with town.hops() as hops:
        (failing,) = await hops.next_hop("home.test", CLIENT).ask(to("alice"))
        (null,) = await hops.next_hop("null.test", CLIENT).ask(to("alice"))
        assert isinstance(failing, Deferred)
        assert isinstance(null, Failed)


async def test_a_message_larger_than_the_server_takes_is_refused_without_asking(town: TransitTown) -> None:
    town.first.extensions = town.second.extensions = PLAIN
    async with town.hops() as hops:
        hop = hops.next_hop("home.test", CLIENT)
        (answer,) = await hop.ask(to("alice", size=1001))
        assert isinstance(answer, Failed)
        assert (answer.answer.code, answer.answer.enhanced_code) == (552, "5.3.4")
        hop.leave()


async def test_8_bit_content_is_not_given_to_a_server_without_8bitmime(town: TransitTown) -> None:
    town.first.extensions = PLAIN
    async with town.hops() as hops:
        hop = hops.next_hop("home.test", CLIENT)
        assert await hop.ask(to("alice", eight_bit=True)) == [None], "it may turn out to be none"
        (outcome,) = await hop.send(to("alice", eight_bit=True), [*PIECES, "ü\r\n".encode()])
        assert isinstance(outcome, Failed)
        assert outcome.answer.enhanced_code == "5.6.3"
        hop.leave()
    assert town.first.messages == []


@pytest.mark.parametrize(("turns_out", "expected"), [(True, Failed), (False, Delivered)])
async def test_utf8_in_the_header_needs_smtputf8_where_it_is_really_there(
    town: TransitTown, turns_out: bool, expected: type
) -> None:
    async with town.hops() as hops:
        hop = hops.next_hop("home.test", CLIENT)
        assert await hop.ask(to("alice", utf8=True)) == [None]
        (outcome,) = await hop.send(to("alice", utf8=turns_out), PIECES)
        assert isinstance(outcome, expected)
        hop.leave()


async def test_an_address_in_utf8_needs_smtputf8_at_once(town: TransitTown) -> None:
    async with town.hops() as hops:
        hop = hops.next_hop("home.test", CLIENT)
        (answer,) = await hop.ask(to("jörg", utf8=True))
        assert isinstance(answer, Failed)
        assert answer.answer.enhanced_code == "5.6.7"
        hop.leave()
        town.first.extensions = (*town.first.extensions, "SMTPUTF8")
        hop = hops.next_hop("home.test", CLIENT)
        assert await hop.ask(to("jörg", utf8=True)) == [None]
        await hop.send(to("jörg", utf8=True), PIECES)
        hop.leave()
    assert "SMTPUTF8" in town.first.messages[0].parameters


async def test_what_requires_tls_is_not_given_to_a_server_without(town: TransitTown) -> None:
    async with town.hops() as hops:
        hop = hops.next_hop("home.test", CLIENT)
        (answer,) = await hop.ask(to("alice", require_tls=True))
        assert isinstance(answer, Failed)
        assert answer.answer.enhanced_code.startswith("5.7.")
        hop.leave()


async def test_what_the_sender_wants_to_hear_is_asked_for_but_for_the_success(town: TransitTown) -> None:
    town.first.extensions = (*town.first.extensions, "DSN")
    wanting = Recipient("sales@example.org", "domain1", "SUCCESS,FAILURE", "rfc822;sales@example.org")
    async with town.hops() as hops:
        hop = hops.next_hop("home.test", CLIENT)
        deliveries = to("alice", recipients=(wanting,))
        await hop.ask(deliveries)
        await hop.send(deliveries, PIECES)
        hop.leave()
    assert town.first.messages[0].wishes == ("NOTIFY=FAILURE",)
    assert "RET=HDRS" in town.first.messages[0].parameters


@pytest.fixture
def nobody_waits_for_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.delivery.next_hop.PLACE_S", 0.0)


async def test_a_place_that_is_given_back_is_for_who_waits(town: TransitTown) -> None:
    async with town.hops() as hops, trio.open_nursery() as nursery:
        held = [hops.next_hop("home.test", CLIENT) for _ in range(MOST)]
        for hop in held:
            await hop.ask(to("alice"))
        waiting = [hops.next_hop("home.test", CLIENT) for _ in range(MOST)]
        answers: list[Deferred | Failed | None] = []

        async def ask(hop: NextHop) -> None:
            answers.extend(await hop.ask(to("alice")))

        for hop in waiting:
            nursery.start_soon(ask, hop)
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert answers == []
        for hop in held:
            hop.leave()
        while len(answers) < MOST:
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert answers == [None] * MOST
        for hop in waiting:
            hop.leave()


@pytest.mark.usefixtures("nobody_waits_for_a_place")
async def test_there_are_only_so_many_connections_to_a_destination(town: TransitTown) -> None:
    async with town.hops() as hops:
        held = [hops.next_hop("home.test", CLIENT) for _ in range(MOST)]
        for hop in held:
            assert await hop.ask(to("alice")) == [None]
        surplus = hops.next_hop("home.test", CLIENT)
        (answer,) = await surplus.ask(to("alice"))
        assert isinstance(answer, Deferred)
        assert (answer.answer.enhanced_code, answer.answer.reason) == ("4.4.5", "too-many-connections")
        surplus.leave()
        held[0].leave()
        held[0].leave()
        next_one = hops.next_hop("home.test", CLIENT)
        assert await next_one.ask(to("alice")) == [None]
        assert isinstance((await hops.next_hop("home.test", CLIENT).ask(to("alice")))[0], Deferred)
        for hop in (*held, next_one):
            hop.leave()


@pytest.mark.usefixtures("nobody_waits_for_a_place")
async def test_who_has_its_answer_has_no_place_any_more(town: TransitTown) -> None:
    async with town.hops() as hops:
        held = [hops.next_hop("home.test", CLIENT) for _ in range(MOST)]
        for hop in held:
            await hop.ask(to("alice"))
        await held[0].send(to("alice"), PIECES)
        # Its transaction may still wait for another one.
        another = hops.next_hop("home.test", CLIENT)
        assert await another.ask(to("alice")) == [None]
        for hop in (another, *held):
            hop.leave()


@pytest.mark.usefixtures("nobody_waits_for_a_place")
async def test_no_client_has_all_places_of_a_destination(town: TransitTown) -> None:
    async with town.hops() as hops:
        held = [hops.next_hop("home.test", CLIENT) for _ in range(MOST)]
        for hop in held:
            await hop.ask(to("alice"))
        other, one_more = (hops.next_hop("home.test", OTHER_CLIENT) for _ in range(2))
        assert await other.ask(to("bob")) == [None]
        (answer,) = await one_more.ask(to("bob"))
        assert isinstance(answer, Deferred), "it would have more than those who came before"
        for hop in (other, one_more, *held[1:]):
            hop.leave()
        # Who made room has a place again when its content is there.
        (outcome,) = await held[0].send(to("alice"), PIECES)
        assert isinstance(outcome, Delivered)
        held[0].leave()
    assert [message.recipients for message in town.first.messages] == [("alice@home.test",)]


@pytest.mark.usefixtures("nobody_waits_for_a_place")
async def test_who_has_waited_for_long_makes_room_for_anybody_and_who_is_being_answered_for_nobody(
    town: TransitTown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.delivery.next_hop.SETTLED_S", 0.0)
    town.first.script = always(Stage.END_OF_DATA, Answer(stall=60))
    async with town.hops() as hops, trio.open_nursery() as nursery:
        held = [hops.next_hop("home.test", CLIENT) for _ in range(MOST)]
        for hop in held:
            await hop.ask(to("alice"))
        for hop in held[1:]:
            nursery.start_soon(hop.send, to("alice"), PIECES)
        await trio.testing.wait_all_tasks_blocked(0.1)
        newcomer = hops.next_hop("home.test", CLIENT)
        assert await newcomer.ask(to("bob")) == [None]
        nursery.start_soon(newcomer.send, to("bob"), PIECES)
        await trio.testing.wait_all_tasks_blocked(0.1)
        (outcome,) = await held[0].send(to("alice"), PIECES)
        assert isinstance(outcome, Deferred), "its place was given away, and all others are at their final dot"
        assert outcome.answer.enhanced_code == "4.4.5"
        nursery.cancel_scope.cancel()
        for hop in (newcomer, *held):
            hop.leave()


async def test_what_an_operator_holds_is_put_off(town: TransitTown) -> None:
    town.holds.add(Hold("h1", NOW, destination="home.test"))
    async with town.hops() as hops:
        (answer,) = await hops.next_hop("home.test", CLIENT).ask(to("alice"))
        assert isinstance(answer, Deferred)
        assert answer.answer.reason == "held"
        town.holds.remove("h1")
        hop = hops.next_hop("home.test", CLIENT)
        assert await hop.ask(to("alice")) == [None]
        hop.leave()


async def test_cancelled_at_the_final_dot_the_connection_ends(town: TransitTown) -> None:
    town.first.script = always(Stage.END_OF_DATA, Answer(stall=60))
    async with town.hops() as hops:
        hop = hops.next_hop("home.test", CLIENT)
        await hop.ask(to("alice"))
        with trio.move_on_after(0.3) as waiting:
            await hop.send(to("alice"), PIECES)
        assert waiting.cancelled_caught
        hop.leave()
