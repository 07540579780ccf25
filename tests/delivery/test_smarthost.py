"""Delivery through a smarthost: a relay with real sockets, TLS and logins, and what becomes of mail where it is not as
it should be.
"""

import itertools
import logging
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
import trio.testing
from certificates import any_tls, server_tls, verifying_tls
from destination import Destination
from destination_scripts import Answer, Moment, Stage, always
from dns_server import Behaviour, DnsServer
from relay import Relay
from town import CONTENT, OURS, carry, connections, on_errands, resolver, ticking, to, told
from values import answer

from appliance.delivery import relay_connections as relay_connections_module
from appliance.delivery.courier import Courier, Unreachable
from appliance.delivery.hosts import HostSettings
from appliance.delivery.relay_connections import RelayConnections
from appliance.delivery.smarthost import Smarthost
from appliance.model.delivery import Deferred, Delivered, Failed, Outcome
from smtp.client.authentication import Login

HERE = "127.0.0.1"
LOGIN = Login("onward", "a pass phrase")

pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning")


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer({"relay.test": [f"A {HERE}"], "home.test": ["MX 10 mx.home.test."]}) as running:
        yield running


class Way:
    """The way out: couriers that all go to one relay."""

    def __init__(
        self,
        dns: DnsServer,
        smarthost: Smarthost,
        most: int = 20,
        *,
        loopback_destinations: bool = False,
        **settings: Any,
    ) -> None:
        self._resolver = resolver(dns, 1.0)
        self._settings = connections(
            25,
            smarthost=smarthost,
            hosts=HostSettings(OURS, loopback_destinations=loopback_destinations),
            **{"opportunistic": any_tls(), "verifying": verifying_tls(), **settings},
        )
        self.shared = RelayConnections(most)

    def courier(self, domain: str = "home.test") -> AbstractAsyncContextManager[Courier]:
        """A courier to a destination, which says goodbye at the end."""
        return on_errands(Courier(domain, self._resolver, self._settings, ticking(), self.shared))


async def once(way: Way, **changes: Any) -> Outcome:
    """What becomes of one message for one recipient, whether or not somebody could be spoken to."""
    async with way.courier() as courier:
        try:
            [outcome] = await carry(courier, **changes)
        except Unreachable as unreachable:
            return unreachable.outcome
    assert isinstance(outcome, Delivered | Deferred | Failed)
    return outcome


# ---------------------------------------------------------------------- what goes well


@pytest.mark.parametrize("implicit_tls", [False, True])
async def test_mail_goes_to_the_relay_with_a_login_under_tls_and_to_no_mail_host(
    dns: DnsServer, implicit_tls: bool
) -> None:
    tls = server_tls(HERE)
    with Relay(tls, user=LOGIN.user, password=LOGIN.password, implicit_tls=implicit_tls) as relay:
        way = Way(dns, Smarthost(HERE, relay.port, LOGIN, implicit_tls))
        async with way.courier() as courier:
            outcomes = await carry(courier, "alice", "bob")
            assert [type(outcome) for outcome in outcomes] == [Delivered, Delivered]
            answer = outcomes[0].answer
            assert (answer.server_name, answer.server_address) == (HERE, HERE)
            assert answer.tls is not None
            assert answer.tls.startswith("TLSv1.3 TLS_")
            assert answer.tls.endswith(" verified")
            assert [type(outcome) for outcome in await carry(courier)] == [Delivered]
    [both, one] = relay.messages
    assert both.recipients == ("alice@home.test", "bob@home.test")
    assert (both.content, both.user, both.encrypted) == (CONTENT, LOGIN.user, True)
    assert one.user == LOGIN.user
    assert (relay.connections, relay.logins) == (1, 1)
    assert not dns.queries


async def test_a_relay_that_asks_for_no_login_is_found_by_its_address(dns: DnsServer) -> None:
    with Relay() as relay:
        outcome = await once(Way(dns, Smarthost("relay.test", relay.port), loopback_destinations=True))
    assert isinstance(outcome, Delivered)
    assert outcome.answer.server_name == "relay.test"
    assert outcome.answer.tls is None
    assert [message.user for message in relay.messages] == [""]
    assert {kind for _, kind in dns.queries} == {"A", "AAAA"}, "its name is asked for an address, and for no MX"


async def test_mail_that_requires_tls_goes_to_a_relay_that_promises_it(dns: DnsServer) -> None:
    promising = Destination(HERE, name="relay.test", extensions=("PIPELINING", "REQUIRETLS"), tls=server_tls(HERE))
    with promising as relay:
        way = Way(dns, Smarthost(HERE, relay.port))
        outcome = await once(way, require_tls=True)
        assert isinstance(outcome, Delivered)
        assert "REQUIRETLS" in relay.messages[0].parameters
        relay.extensions = ("PIPELINING",)
        assert told([await once(way, require_tls=True)]) == [(Failed, "5.7.30", "tls-required")]
        assert isinstance(await once(way), Delivered), "other mail goes all the same"
    assert relay.violations == []


# ---------------------------------------------------------------------- the password


async def test_a_wrong_password_keeps_mail_waiting_and_says_so(
    dns: DnsServer, caplog: pytest.LogCaptureFixture
) -> None:
    with Relay(server_tls(HERE), user=LOGIN.user, password="another") as relay, caplog.at_level(logging.ERROR):
        outcome = await once(Way(dns, Smarthost(HERE, relay.port, LOGIN)))
        assert told([outcome]) == [(Deferred, "4.7.8", "login-refused")]
        relay.password = LOGIN.password
        assert isinstance(await once(Way(dns, Smarthost(HERE, relay.port, LOGIN))), Delivered), "once it is put right"
    [line] = {record.getMessage() for record in caplog.records if record.levelno == logging.ERROR}
    assert "all mail that leaves waits" in line
    assert "smarthost-password" in line
    assert LOGIN.password not in caplog.text + outcome.answer.text


async def test_a_relay_that_wants_a_login_and_gets_none_keeps_mail_waiting(dns: DnsServer) -> None:
    with Relay(server_tls(HERE), user=LOGIN.user, password=LOGIN.password) as relay:
        outcome = await once(Way(dns, Smarthost(HERE, relay.port)))
    assert told([outcome]) == [(Deferred, "4.7.0", "login-refused")]


async def test_a_relay_that_knows_no_login_keeps_mail_waiting(dns: DnsServer) -> None:
    with Relay(server_tls(HERE)) as relay:
        outcome = await once(Way(dns, Smarthost(HERE, relay.port, LOGIN)))
    assert told([outcome]) == [(Deferred, "4.7.8", "login-refused")]
    assert relay.messages == []


@pytest.mark.parametrize(
    ("tls", "why"),
    [
        (None, "not offered"),
        (server_tls("another.test"), "certificate"),
        (server_tls(HERE, expired=True), "certificate"),
    ],
    ids=["no STARTTLS", "a certificate for somebody else", "one that has expired"],
)
async def test_the_password_goes_to_nobody_but_the_relay_itself_under_tls(
    dns: DnsServer, tls: ssl.SSLContext | None, why: str
) -> None:
    with Destination(HERE, name="relay.test", extensions=("AUTH PLAIN LOGIN",), tls=tls) as listening:
        way = Way(dns, Smarthost(HERE, listening.port, LOGIN))
        outcome = await once(way)
    assert told([outcome]) == [(Deferred, "4.4.1", "connection-failed")]
    assert why in outcome.answer.text
    assert listening.messages == []
    assert listening.violations == [], "AUTH would be an unknown command"


async def test_without_authorities_no_password_is_given_away(dns: DnsServer) -> None:
    with Relay(server_tls(HERE), user=LOGIN.user, password=LOGIN.password) as relay:
        outcome = await once(Way(dns, Smarthost(HERE, relay.port, LOGIN), verifying=None))
    assert told([outcome]) == [(Deferred, "4.4.1", "connection-failed")]
    assert relay.connections == 0


async def test_in_a_test_on_this_machine_a_password_may_go_in_clear(dns: DnsServer) -> None:
    with Relay(user=LOGIN.user, password=LOGIN.password) as relay:
        assert isinstance(
            await once(Way(dns, Smarthost(HERE, relay.port, LOGIN), loopback_destinations=True)), Delivered
        )
        assert isinstance(await once(Way(dns, Smarthost(HERE, relay.port, LOGIN))), Deferred)
    assert relay.logins == 1


def test_a_smarthost_does_not_show_its_password() -> None:
    assert LOGIN.password not in repr(Smarthost("relay.test", 587, LOGIN))


# ---------------------------------------------------------------------- a relay that is not there


@pytest.mark.parametrize("behaviour", [Behaviour.NXDOMAIN, Behaviour.EMPTY, Behaviour.SERVFAIL])
async def test_a_relay_that_cannot_be_found_keeps_mail_waiting(dns: DnsServer, behaviour: Behaviour) -> None:
    dns.behave("relay.test", behaviour)
    outcome = await once(Way(dns, Smarthost("relay.test", 587)))
    assert isinstance(outcome, Deferred)
    assert outcome.answer.reason in ("no-mail-host", "dns-failed")


async def test_a_name_that_leads_to_this_very_machine_is_not_believed(dns: DnsServer) -> None:
    assert told([await once(Way(dns, Smarthost("relay.test", 587)))]) == [(Deferred, "4.4.4", "private-address")]


async def test_a_relay_that_is_down_is_not_tried_by_each_destination(dns: DnsServer) -> None:
    with Relay() as relay:
        port = relay.port
    way = Way(dns, Smarthost(HERE, port))
    assert told([await once(way)]) == [(Deferred, "4.4.1", "connection-failed")]
    with Destination(HERE, port, name="relay.test") as back:
        assert told([await once(way)]) == [(Deferred, "4.4.1", "connection-failed")], (
            "the outcome is shared for a while"
        )
        assert back.connections == 0


async def test_a_relay_that_is_back_is_used_again(dns: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_connections_module, "PAUSE_S", 0.0)
    with Relay() as relay:
        port = relay.port
    way = Way(dns, Smarthost(HERE, port))
    assert isinstance(await once(way), Deferred)
    with Destination(HERE, port, name="relay.test"):
        assert isinstance(await once(way), Delivered)


async def test_what_the_relay_says_of_a_message_is_its_outcome(dns: DnsServer) -> None:
    script = always(Stage.RCPT, Answer(550, "5.1.1 No such user"), recipient="bob@home.test")
    with Destination(HERE, name="relay.test", script=script) as relay:
        async with Way(dns, Smarthost(HERE, relay.port)).courier() as courier:
            outcomes = await carry(courier, "alice", "bob")
    assert [type(outcome) for outcome in outcomes] == [Delivered, Failed]


async def test_a_message_that_the_relay_refuses_as_a_whole_says_nothing_about_others(dns: DnsServer) -> None:
    with Destination(HERE, name="relay.test") as relay:
        way = Way(dns, Smarthost(HERE, relay.port))
        async with way.courier() as courier, way.courier("other.test") as other:
            relay.script = always(Stage.MAIL, Answer(550, "5.7.1 Not from you"))
            assert told(await carry(courier)) == [(Failed, "5.7.1", "policy-refused")]
            relay.script = None
            assert [type(outcome) for outcome in await carry(other, domain="other.test")] == [Delivered]
        assert relay.connections == 1


# ---------------------------------------------------------------------- one relay for all


async def test_all_destinations_share_the_relay_s_connections(dns: DnsServer) -> None:
    with Relay(server_tls(HERE), user=LOGIN.user, password=LOGIN.password) as relay:
        way = Way(dns, Smarthost(HERE, relay.port, LOGIN), most=3)

        async def send(number: int) -> None:
            domain = f"home{number}.test"
            async with way.courier(domain) as courier:
                for _ in range(3):
                    [outcome] = await carry(courier, domain=domain)
                    assert isinstance(outcome, Delivered)

        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(send, number)
        assert len(relay.messages) == 36
        assert relay.most_at_once <= 3
        assert relay.connections <= 6, "one is used for mail to many destinations"


async def test_a_relay_that_wants_nobody_is_asked_only_so_often_for_all_destinations(dns: DnsServer) -> None:
    closed = always(Stage.GREETING, Answer(421, "4.3.2 Closed", close=True))
    with Destination(HERE, name="relay.test", script=closed) as relay:
        way = Way(dns, Smarthost(HERE, relay.port), most=3)

        async def send(number: int) -> None:
            async with way.courier(f"home{number}.test") as courier:
                with pytest.raises(Unreachable):
                    await carry(courier, domain=f"home{number}.test")

        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(send, number)
        assert relay.connections <= 3


async def test_who_is_one_too_many_for_the_relay_waits_for_one_of_the_connections_that_there_are(
    dns: DnsServer,
) -> None:
    """It is no trouble of the destination's that the relay bears fewer connections than we would make."""
    seen = itertools.count(1)

    def one_only(moment: Moment) -> Answer | None:
        enough = moment.stage is Stage.GREETING and next(seen) > 1
        return Answer(421, "4.7.0 Too many connections", close=True) if enough else None

    with Destination(HERE, name="relay.test", script=one_only) as relay:
        way = Way(dns, Smarthost(HERE, relay.port))
        held = trio.Event()
        outcomes: list[Outcome] = []

        async def content() -> AsyncIterator[bytes]:
            await held.wait()
            yield CONTENT

        async def send(domain: str) -> None:
            async with way.courier(domain) as courier:
                outcomes.extend(await courier.carry(to(domain=domain), content))

        async with trio.open_nursery() as nursery:
            for domain in ("a.test", "b.test", "c.test", "d.test"):
                nursery.start_soon(send, domain)
                await trio.testing.wait_all_tasks_blocked(0.05)
            assert relay.connections == 2, "who has seen that one is enough asks for no other"
            held.set()
        assert [type(outcome) for outcome in outcomes] == [Delivered] * 4
        assert len(relay.messages) == 4


async def test_a_relay_that_bears_few_connections_is_asked_for_one_more_after_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    shared = RelayConnections(3)
    refused = Deferred(answer(421, reason="host-refused", text="too many connections"))
    at_once = most = 0

    async def speak() -> None:
        nonlocal at_once, most
        await shared.borrow()
        at_once += 1
        most = max(most, at_once)
        await trio.sleep(1)
        at_once -= 1
        shared.give_back(None)

    async def be_refused() -> None:
        await shared.borrow()
        assert shared.failed(refused)
        shared.give_back(None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(speak)
        await trio.sleep(0)
        nursery.start_soon(be_refused)
    for seconds, bears in ((0, 1), (60, 2), (60, 3), (60, 3)):
        await trio.sleep(seconds)
        most = 0
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(speak)
        assert most == bears


async def test_who_waits_for_the_relay_gets_a_turn_before_who_has_had_one(dns: DnsServer) -> None:
    with Relay() as relay:
        way = Way(dns, Smarthost(HERE, relay.port), most=1)
        held = trio.Event()
        order: list[str] = []

        async def content() -> AsyncIterator[bytes]:
            await held.wait()
            yield CONTENT

        async def send(domain: str, messages: int) -> None:
            async with way.courier(domain) as courier:
                for _ in range(messages):
                    await courier.carry(to(domain=domain), content)
                    order.append(domain)

        async with trio.open_nursery() as nursery:
            for domain, messages in (("busy.test", 5), ("small.test", 1)):
                nursery.start_soon(send, domain, messages)
                await trio.testing.wait_all_tasks_blocked(0.05)
            held.set()
    assert order.index("small.test") <= 1


async def test_no_connection_is_left_when_the_last_courier_goes(dns: DnsServer) -> None:
    with Destination(HERE, name="relay.test") as relay:
        way = Way(dns, Smarthost(HERE, relay.port))
        async with way.courier("a.test") as first, way.courier("b.test") as second:
            await carry(first, domain="a.test")
            await carry(second, domain="b.test")
            assert relay.connections == 1, "the one that was free"
        assert isinstance(await once(way), Delivered)
        assert relay.connections == 2, "all were closed between"
