"""A courier with real sockets: what each answer of a destination's server comes to, and what becomes of connections.

The destination is two servers on loopback, at the addresses that the DNS names for home.test. They are strict, and take
note of everything that could be held against the courier.
"""

import itertools
import socket
from collections.abc import Iterator

import pytest
from destination_scripts import CLOSE, Answer, Moment, Script, Stage, always, first_of
from town import CONTENT, ENOUGH, FIRST, LATER, NEVER, PIECES, QUICK, SECOND, Town, answers, carry, kinds, to

from appliance.delivery import courier as courier_module
from appliance.model.delivery import Deferred, Delivered, Failed, Outcome
from appliance.storage.records import StoreUnavailable


@pytest.fixture
def town() -> Iterator[Town]:
    with Town(FIRST, SECOND).open() as made:
        yield made


def at_nth(stage: Stage, number: int, answer: Answer) -> Script:
    """Give this answer the so-many-th time that a stage is reached; the first is 1."""
    seen = itertools.count(1)
    return lambda moment: answer if moment.stage is stage and next(seen) == number else None


# ---------------------------------------------------------------------- what one message comes to


async def test_a_message_is_delivered_as_it_is(town: Town) -> None:
    async with town.courier() as courier:
        [outcome] = await carry(courier)
    assert isinstance(outcome, Delivered)
    assert (outcome.answer.code, outcome.answer.enhanced_code, outcome.answer.text) == (250, "2.0.0", "Taken")
    assert outcome.answer.reason == "delivered"
    assert (outcome.answer.server_name, outcome.answer.server_address) == ("mx1.home.test", FIRST)
    assert outcome.answer.duration_ms > 0
    [message] = town.first.messages
    assert message.content == CONTENT
    assert message.sender == "srs0=x@srs.mx.example.net"
    assert message.recipients == ("alice@home.test",)
    assert message.helo == "mx.onward.test"
    assert message.parameters == (f"SIZE={len(CONTENT)}",)


async def test_recipients_share_one_transaction_and_each_gets_its_own_outcome(town: Town) -> None:
    town.first.script = first_of(
        always(Stage.RCPT, NEVER, recipient="bob@home.test"), always(Stage.RCPT, LATER, recipient="carol@home.test")
    )
    async with town.courier() as courier:
        outcomes = await carry(courier, "alice", "bob", "carol", "dave")
    assert kinds(outcomes) == [Delivered, Failed, Deferred, Delivered]
    assert answers(outcomes)[1:3] == [(550, "5.1.1", "mailbox-unknown"), (451, "4.7.1", "policy-deferred")]
    [message] = town.first.messages
    assert message.recipients == ("alice@home.test", "dave@home.test")


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.END_OF_DATA])
@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (LATER, Deferred, "4.7.1"),
        (NEVER, Failed, "5.1.1"),
        (Answer(452, "Full"), Deferred, "4.0.0"),
        (Answer(554, "No"), Failed, "5.0.0"),
        (Answer(550, "4.2.2 The class of the code decides"), Failed, "5.0.0"),
        (Answer(450, "4.2.0 Two\n4.2.0 lines"), Deferred, "4.2.0"),
    ],
)
async def test_a_no_at_any_stage_is_a_word_about_the_message(
    town: Town, stage: Stage, answer: Answer, kind: type[Outcome], code: str
) -> None:
    town.dns.set("home.test", "MX 10 mx1.home.test.")
    town.first.script = always(stage, answer)
    async with town.courier() as courier:
        outcomes = await carry(courier, "alice", "bob")
        assert kinds(outcomes) == [kind, kind]
        assert {outcome.answer.enhanced_code for outcome in outcomes} == {code}
        assert {outcome.answer.code for outcome in outcomes} == {answer.code}
        assert "\n" not in outcomes[0].answer.text
        town.first.script = None
        assert kinds(await carry(courier)) == [Delivered], "the connection is good for the next message"
    assert (town.first.connections, town.second.connections) == (1, 0)
    assert len(town.first.messages) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("5.1.1 x", "mailbox-unknown"),
        ("5.2.1 x", "mailbox-disabled"),
        ("5.2.2 x", "mailbox-full"),
        ("5.3.4 x", "message-too-large"),
        ("5.7.26 x", "policy-refused"),
        ("5.9.9 x", "destination-refused"),
        ("x", "destination-refused"),
    ],
)
async def test_the_reason_is_a_stable_word(town: Town, text: str, reason: str) -> None:
    town.first.script = always(Stage.RCPT, Answer(550, text))
    async with town.courier() as courier:
        assert answers(await carry(courier))[0][2] == reason


async def test_eight_bit_content_goes_only_where_it_is_taken(town: Town) -> None:
    async with town.courier() as courier:
        [outcome] = await carry(courier, eight_bit=True)
        assert isinstance(outcome, Delivered)
        assert "BODY=8BITMIME" in town.first.messages[0].parameters
    town.first.extensions = ("PIPELINING", "ENHANCEDSTATUSCODES")
    town.second.extensions = town.first.extensions
    async with town.courier() as courier:
        outcomes = await carry(courier, "alice", "bob", eight_bit=True)
        assert kinds(outcomes) == [Failed, Failed]
        assert answers(outcomes)[0] == (554, "5.6.3", "conversion-needed")
        assert outcomes[0].answer.server_name is None, "nobody else has said so"
        assert kinds(await carry(courier)) == [Delivered], "what is plain still goes"
    assert town.messages == 2
    town.second.extensions = ("8BITMIME",)
    async with town.courier() as courier:
        [outcome] = await carry(courier, eight_bit=True)
        assert isinstance(outcome, Delivered), "a host that can take it takes it"


async def test_the_null_sender_stays_null(town: Town) -> None:
    async with town.courier() as courier:
        await carry(courier, sender="", return_path="")
    assert town.first.messages[0].sender == ""


@pytest.mark.parametrize("extensions", [(), ("PIPELINING",)])
async def test_a_server_with_few_extensions_is_served_too(town: Town, extensions: tuple[str, ...]) -> None:
    town.first.extensions = extensions
    async with town.courier() as courier:
        assert kinds(await carry(courier, "alice", "bob")) == [Delivered, Delivered]
    assert town.first.messages[0].parameters == ()


@pytest.mark.parametrize("error", [StoreUnavailable("the disk is broken"), KeyError("m1")])
async def test_content_that_cannot_be_read_is_deferred_and_no_half_of_it_is_taken(town: Town, error: Exception) -> None:
    def broken() -> Iterator[bytes]:
        yield PIECES[0]
        raise error

    async with town.courier() as courier:
        outcomes = await courier.carry(to("alice", "bob"), broken)
        assert kinds(outcomes) == [Deferred, Deferred]
        assert answers(outcomes)[0] == (0, "4.3.0", "spool-failed")
        assert town.messages == 0
        assert kinds(await carry(courier)) == [Delivered]
    assert town.first.connections == 2


# ---------------------------------------------------------------------- one connection for many


async def test_one_connection_carries_many_messages_and_ends_with_quit(town: Town) -> None:
    said: list[Stage] = []

    def listen(moment: Moment) -> None:
        said.append(moment.stage)

    town.first.script = listen
    async with town.courier() as courier:
        for number in range(5):
            assert kinds(await carry(courier, message_id=f"m{number}")) == [Delivered]
    assert (town.first.connections, len(town.first.messages)) == (1, 5)
    assert said[-1] is Stage.OTHER, "QUIT"
    assert said.count(Stage.EHLO) == 1
    await courier.close()


async def test_after_so_many_messages_a_fresh_connection_is_made(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier_module, "MAX_MESSAGES_PER_CONNECTION", 3)
    async with town.courier() as courier:
        for number in range(7):
            assert kinds(await carry(courier, message_id=f"m{number}")) == [Delivered]
    assert (town.first.connections, len(town.first.messages)) == (3, 7)


async def test_what_was_left_open_by_a_refused_message_is_reset(town: Town) -> None:
    town.first.extensions = ("ENHANCEDSTATUSCODES",)
    town.first.script = always(Stage.RCPT, NEVER, times=1)
    async with town.courier() as courier:
        assert kinds(await carry(courier)) == [Failed]
        assert kinds(await carry(courier)) == [Delivered]
    assert town.first.connections == 1


@pytest.mark.parametrize("farewell", [b"", b"421 4.4.2 idle for too long\r\n"])
async def test_a_connection_that_was_closed_while_idle_is_replaced_in_silence(town: Town, farewell: bytes) -> None:
    async with town.courier() as courier:
        assert kinds(await carry(courier)) == [Delivered]
        with town.first.lock:
            [idle] = town.first._open
        if farewell:
            idle.sendall(farewell)
        idle.shutdown(socket.SHUT_RDWR)
        assert kinds(await carry(courier)) == [Delivered]
    assert (town.first.connections, len(town.first.messages)) == (2, 2)


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA])
async def test_a_kept_connection_lost_before_the_final_dot_gets_one_new_attempt(town: Town, stage: Stage) -> None:
    town.first.script = at_nth(stage, 2, CLOSE)
    async with town.courier() as courier:
        assert kinds(await carry(courier)) == [Delivered]
        assert kinds(await carry(courier)) == [Delivered]
    assert (town.first.connections, len(town.first.messages)) == (2, 2)


async def test_a_server_that_hangs_up_on_the_new_attempt_too_is_deferred(town: Town) -> None:
    async with town.courier() as courier:
        assert kinds(await carry(courier)) == [Delivered]
        town.first.script = town.second.script = always(Stage.MAIL, CLOSE)
        outcomes = await carry(courier)
        assert kinds(outcomes) == [Deferred]
        assert answers(outcomes) == [(0, "4.4.2", "connection-lost")]
    assert (town.first.connections, town.second.connections) == (2, 1)


async def test_a_first_connection_that_is_lost_is_deferred_and_names_the_stage(town: Town) -> None:
    town.first.script = always(Stage.RCPT, CLOSE, times=1)
    town.second.script = always(Stage.RCPT, CLOSE)
    async with town.courier() as courier:
        outcomes = await carry(courier, "alice", "bob")
        assert kinds(outcomes) == [Deferred, Deferred]
        assert answers(outcomes) == [(0, "4.4.2", "connection-lost")] * 2
        assert "rcpt" in outcomes[0].answer.text
        assert outcomes[0].answer.server_address == FIRST
        assert town.first.connections == 1
        assert kinds(await carry(courier)) == [Delivered]


@pytest.mark.parametrize("reused", [False, True])
async def test_lost_behind_the_final_dot_is_deferred_and_not_tried_again_at_once(town: Town, reused: bool) -> None:
    async with town.courier() as courier:
        if reused:
            await carry(courier)
        before = town.first.connections + (not reused)
        # Taken, and then the link breaks before the 250: a second copy is what the schedule risks, once (P3).
        town.first.script = always(Stage.END_OF_DATA, CLOSE)
        outcomes = await carry(courier, "alice", "bob")
        assert kinds(outcomes) == [Deferred, Deferred]
        assert answers(outcomes) == [(0, "4.4.2", "connection-lost")] * 2
        assert "end of data" in outcomes[0].answer.text
        assert (town.first.connections, town.second.connections) == (before, 0)


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.END_OF_DATA])
async def test_silence_is_not_waited_for_for_ever(town: Town, stage: Stage) -> None:
    town.first.script = town.second.script = always(stage, Answer(stall=30))
    async with town.courier(timeouts=QUICK) as courier:
        outcomes = await carry(courier)
        assert kinds(outcomes) == [Deferred]
        assert answers(outcomes) == [(0, "4.4.2", "connection-lost")]
        assert "timed out" in outcomes[0].answer.text
    assert town.first.connections == 1
    assert town.messages == 0


# ---------------------------------------------------------------------- 421


async def test_421_on_a_kept_connection_is_about_the_connection_and_a_new_one_is_tried_at_once(town: Town) -> None:
    town.first.script = at_nth(Stage.MAIL, 2, ENOUGH)
    async with town.courier() as courier:
        await carry(courier)
        assert kinds(await carry(courier, "alice", "bob")) == [Delivered, Delivered]
    assert (town.first.connections, len(town.first.messages)) == (2, 2)


async def test_421_to_the_reset_of_a_kept_connection_is_no_different(town: Town) -> None:
    town.first.script = first_of(always(Stage.RCPT, NEVER, times=1), always(Stage.OTHER, ENOUGH, times=1))
    town.first.extensions = ()
    async with town.courier() as courier:
        assert kinds(await carry(courier)) == [Failed]
        assert kinds(await carry(courier)) == [Delivered]
    assert town.first.connections == 2


async def test_421_on_the_new_connection_too_is_deferred(town: Town) -> None:
    async with town.courier() as courier:
        await carry(courier)
        town.first.script = town.second.script = always(Stage.MAIL, ENOUGH)
        assert answers(await carry(courier)) == [(421, "4.3.2", "destination-deferred")]
    assert town.first.connections == 2


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.END_OF_DATA])
async def test_421_on_a_first_connection_is_deferred(town: Town, stage: Stage) -> None:
    town.first.script = always(stage, ENOUGH, times=1)
    town.second.script = always(Stage.MAIL, ENOUGH)
    async with town.courier() as courier:
        outcomes = await carry(courier, "alice", "bob")
        assert answers(outcomes) == [(421, "4.3.2", "destination-deferred")] * 2
        assert (town.first.connections, town.messages) == (1, 0)
        assert kinds(await carry(courier)) == [Delivered]


async def test_421_behind_the_envelope_of_a_kept_connection_is_about_the_message(town: Town) -> None:
    town.first.script = at_nth(Stage.END_OF_DATA, 2, ENOUGH)
    async with town.courier() as courier:
        await carry(courier)
        assert kinds(await carry(courier)) == [Deferred]
    assert (town.first.connections, len(town.first.messages)) == (1, 1)


# ---------------------------------------------------------------------- chunks


@pytest.mark.parametrize("code", [500, 502])
async def test_a_host_that_does_not_know_the_bdat_it_offers_gets_data_at_once(town: Town, code: int) -> None:
    """As behind a middlebox that lets EHLO through and not BDAT: the destination itself has no such command."""
    said: list[Stage] = []
    town.first.extensions += ("CHUNKING",)

    def listen(moment: Moment) -> Answer | None:
        said.append(moment.stage)
        return Answer(code, "5.5.1 What?") if moment.stage is Stage.OTHER and len(said) == 5 else None

    town.first.script = listen
    async with town.courier() as courier:
        assert kinds(await carry(courier, "alice", "bob")) == [Delivered, Delivered]
        assert kinds(await carry(courier)) == [Delivered]
        assert town.first.connections == 2
        # What has been learnt holds for later connections, too.
        courier._drop()
        assert kinds(await carry(courier)) == [Delivered]
    assert (town.first.connections, len(town.first.messages)) == (3, 3)
    assert "unknown command 'BDAT'" in town.first.violations
    town.first.violations.clear()
