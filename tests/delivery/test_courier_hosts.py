"""A courier with real sockets: which of a destination's hosts is asked, in which order, and what it comes to where
nobody can be.
"""

from collections.abc import Callable, Iterator

import pytest
from destination_scripts import CLOSE, Answer, Stage, always
from dns_server import Behaviour
from town import ENOUGH, FIRST, LATER, NEVER, OURS, QUICK, SECOND, Town, answers, carry, kinds

from appliance.delivery.courier import Unreachable
from appliance.delivery.hosts import HostSettings
from appliance.model.delivery import Deferred, Delivered, Failed, Outcome


@pytest.fixture
def town() -> Iterator[Town]:
    with Town(FIRST, SECOND).open() as made:
        yield made


def refuses_to_connect(town: Town) -> None:
    town.first.stop()


def says(*stages: Stage, answer: Answer) -> Callable[[Town], None]:
    def arrange(town: Town) -> None:
        town.first.script = lambda moment: answer if moment.stage in stages else None

    return arrange


NO_WORD_WITH_IT = {
    "connection refused": refuses_to_connect,
    "554 greeting": says(Stage.GREETING, answer=Answer(554, "5.7.1 Go away")),
    "421 greeting": says(Stage.GREETING, answer=ENOUGH),
    "closed before the greeting": says(Stage.GREETING, answer=CLOSE),
    "silent": says(Stage.GREETING, answer=Answer(stall=30)),
    "no SMTP": says(Stage.GREETING, answer=Answer(999, "what?")),
    "5xx to EHLO and HELO": says(Stage.EHLO, Stage.HELO, answer=Answer(550, "5.7.1 Not you")),
    "4xx to EHLO": says(Stage.EHLO, answer=LATER),
    "closed at EHLO": says(Stage.EHLO, answer=CLOSE),
}


@pytest.mark.parametrize("how", NO_WORD_WITH_IT)
async def test_where_the_first_host_does_not_talk_the_second_is_asked(town: Town, how: str) -> None:
    NO_WORD_WITH_IT[how](town)
    async with town.courier(timeouts=QUICK) as courier:
        [outcome] = await carry(courier)
        assert isinstance(outcome, Delivered)
        assert (outcome.answer.server_name, outcome.answer.server_address) == ("mx2.home.test", SECOND)
        assert kinds(await carry(courier)) == [Delivered]
    assert (town.second.connections, len(town.second.messages)) == (1, 2)


@pytest.mark.parametrize("how", NO_WORD_WITH_IT)
async def test_where_no_host_talks_the_destination_is_unreachable_and_never_failed(town: Town, how: str) -> None:
    NO_WORD_WITH_IT[how](town)
    town.second.script = town.first.script
    if how == "connection refused":
        town.second.stop()
    async with town.courier(timeouts=QUICK) as courier:
        with pytest.raises(Unreachable) as unreachable:
            await carry(courier)
        outcome = unreachable.value.outcome
        assert isinstance(outcome, Deferred), "P5: a greeting is no word about the recipient"
        assert outcome.answer.server_address == SECOND, "the last that was asked"
        assert outcome.answer.reason == ("host-refused" if outcome.answer.code else "connection-failed")
    assert town.messages == 0


async def test_a_server_that_knows_no_ehlo_gets_helo(town: Town) -> None:
    town.first.script = always(Stage.EHLO, Answer(502, "5.5.1 What?"))
    async with town.courier() as courier:
        assert kinds(await carry(courier)) == [Delivered]
    assert (town.first.connections, town.second.connections) == (1, 0)


async def test_a_no_to_recipient_or_content_is_not_asked_for_again_elsewhere(town: Town) -> None:
    for stage in (Stage.RCPT, Stage.END_OF_DATA):
        town.first.script = always(stage, NEVER)
        async with town.courier() as courier:
            assert kinds(await carry(courier)) == [Failed]
    assert town.second.connections == 0


async def test_a_no_to_mail_is_one_host_s_word_and_the_next_is_asked(town: Town) -> None:
    town.first.script = always(Stage.MAIL, NEVER)
    async with town.courier() as courier:
        outcomes = await carry(courier, "alice", "bob")
        assert kinds(outcomes) == [Delivered, Delivered]
        assert outcomes[0].answer.server_address == SECOND
        assert kinds(await carry(courier, message_id="m2")) == [Delivered]
    assert (town.first.connections, town.second.connections) == (1, 1), "who has taken mail is kept"


async def test_a_no_to_mail_stands_where_no_other_host_takes_the_message(town: Town) -> None:
    town.first.script = always(Stage.MAIL, NEVER)
    town.second.script = always(Stage.MAIL, Answer(554, "5.7.1 Not you either"))
    async with town.courier() as courier:
        assert answers(await carry(courier)) == [(550, "5.1.1", "mailbox-unknown")]
    town.second.script = always(Stage.MAIL, LATER)
    async with town.courier() as courier:
        assert answers(await carry(courier)) == [(451, "4.7.1", "policy-deferred")], (
            "who may take it later is waited for"
        )
    town.second.stop()
    async with town.courier() as courier:
        assert kinds(await carry(courier)) == [Failed], "nobody else can be asked"


async def test_the_second_address_of_a_host_is_asked_where_the_first_is_dead(town: Town) -> None:
    town.dns.set("one.test", "MX 10 mx.one.test.")
    town.dns.set("mx.one.test", f"A {FIRST}", f"A {SECOND}", "AAAA ::1")
    town.first.stop()
    async with town.courier("one.test") as courier:
        [outcome] = await carry(courier)
        assert isinstance(outcome, Delivered)
        assert outcome.answer.server_address == SECOND


# ---------------------------------------------------------------------- nobody to ask


@pytest.mark.parametrize(
    ("domain", "kind", "reason"),
    [
        ("nowhere.test", Failed, "no-such-domain"),
        ("null.test", Failed, "null-mx"),
        ("bare.test", Failed, "no-mail-host"),
        ("broken.test", Deferred, "dns-failed"),
        ("astray.test", Deferred, "no-mail-host"),
        ("ourselves.test", Failed, "mx-loop"),
    ],
)
async def test_what_the_dns_says_passes_through(town: Town, domain: str, kind: type[Outcome], reason: str) -> None:
    town.dns.set("null.test", "MX 0 .")
    town.dns.set("bare.test", "TXT nothing")
    town.dns.behave("broken.test", Behaviour.SERVFAIL)
    town.dns.set("astray.test", "MX 10 gone.astray.test.")
    town.dns.set("ourselves.test", "MX 10 mx.onward.test.")
    async with town.courier(domain) as courier:
        with pytest.raises(Unreachable) as unreachable:
            await carry(courier)
        assert type(unreachable.value.outcome) is kind
        assert unreachable.value.outcome.answer.reason == reason
    assert town.first.connections == town.second.connections == 0


async def test_an_address_inside_is_not_connected_to(town: Town) -> None:
    async with town.courier(hosts=HostSettings(OURS)) as courier:
        with pytest.raises(Unreachable) as unreachable:
            await carry(courier)
    assert unreachable.value.outcome.answer.reason == "private-address"
    assert town.first.connections == 0


async def test_a_destination_that_is_an_address_needs_no_dns(town: Town) -> None:
    async with town.courier(f"[{SECOND}]") as courier:
        assert kinds(await carry(courier)) == [Delivered]
    assert len(town.second.messages) == 1
    assert not town.dns.queries


async def test_what_was_unreachable_is_reached_once_it_is_back(town: Town) -> None:
    town.first.stop()
    town.second.stop()
    async with town.courier() as courier:
        with pytest.raises(Unreachable):
            await carry(courier)
        town.second.start()
        assert kinds(await carry(courier)) == [Delivered]
