"""On the way to a destination: every address in its turn, never round in a loop, and from an address of ours."""

import itertools
import random
import socket
import ssl
from collections import Counter
from collections.abc import Iterator

import pytest
import trio
from certificates import any_tls, certificate_for, server_tls, verifying_tls
from destination_scripts import CLOSE, Answer, Moment, Script, Stage, always, first_of
from town import FIRST, LIMIT_S, OURS, SECOND, THIRD, Town, resolver, ticking

from appliance.delivery.attempt import Attempt
from appliance.delivery.connecting import Reached
from appliance.delivery.hosts import HostSettings
from appliance.delivery.reaching import Unreachable, Unsuitable, reach
from appliance.model.delivery import Deferred, Failed
from appliance.network import is_of_this_machine, why_not_a_source
from smtp.client.trio_client import Timeouts
from smtp.tls import server_context


class ReachableTown(Town):
    """It has three hosts, and a way there from addresses that can be chosen."""

    def __init__(self) -> None:
        super().__init__(FIRST, SECOND, THIRD)
        self.hosts = HostSettings(OURS, loopback_destinations=True)
        self.sources: tuple[str, ...] = ()

    async def reach(self, domain: str = "home.test", *, required: bool = False) -> Reached:
        """Connect, and look who is there; the connection is closed again."""
        settings = self.settings(
            hosts=self.hosts,
            timeouts=Timeouts(connect=2, greeting=0.5, ehlo=0.5, mail=0.5, quit=0.5),
            opportunistic=any_tls(),
            verifying=verifying_tls(),
            source_addresses=self.sources,
        )
        with trio.fail_after(LIMIT_S):
            reached = await reach(
                domain, resolver(self.dns), settings, Attempt(ticking()), required=required, chunking=True
            )
            await reached.connection.quit()
        return reached

    async def unreachable(self, domain: str = "home.test") -> Deferred | Failed:
        """What becomes of mail for it."""
        with pytest.raises(Unreachable) as raised:
            await self.reach(domain)
        return raised.value.outcome


@pytest.fixture
def town() -> Iterator[ReachableTown]:
    with ReachableTown().open() as made:
        yield made


# ---------------------------------------------------------------------- which one


async def test_the_best_host_is_reached_and_no_other_is_asked(town: ReachableTown) -> None:
    reached = await town.reach()
    assert (reached.at.host, reached.at.address) == ("mx1.home.test", FIRST)
    assert [server.connections for server in town.servers] == [1, 0, 0]


@pytest.mark.parametrize(
    "script",
    [
        always(Stage.GREETING, Answer(554, "5.3.2 No")),
        always(Stage.GREETING, Answer(421, "4.3.2 Not now", close=True)),
        always(Stage.GREETING, CLOSE),
        always(Stage.GREETING, Answer(stall=5)),
        first_of(always(Stage.EHLO, Answer(550, "No")), always(Stage.HELO, Answer(550, "No"))),
        always(Stage.EHLO, Answer(421, "4.3.2 Not now", close=True)),
    ],
    ids=["554", "421", "closed", "silent", "EHLO refused", "421 to EHLO"],
)
async def test_hosts_that_do_not_talk_are_passed_over_whatever_they_say(town: ReachableTown, script: Script) -> None:
    town.servers[0].script = town.servers[1].script = script
    assert (await town.reach()).at.address == THIRD
    town.servers[2].script = script
    outcome = await town.unreachable()
    assert isinstance(outcome, Deferred), "a greeting is never a word about a recipient"


async def test_equal_hosts_share_the_load(town: ReachableTown) -> None:
    town.dns.set("home.test", "MX 10 mx1.home.test.", "MX 10 mx2.home.test.", "MX 10 mx3.home.test.")
    random.seed(5321)
    tries = 150
    counts = Counter([(await town.reach()).at.address for _ in range(tries)])
    # Each is binomial with a third: mean 50, standard deviation 5.8. Three of these are left on either side and more.
    assert set(counts) == {FIRST, SECOND, THIRD}
    assert all(30 <= count <= 70 for count in counts.values()), counts


async def test_a_preferred_host_comes_before_equal_ones_however_these_fall(town: ReachableTown) -> None:
    town.dns.set("home.test", "MX 10 mx1.home.test.", "MX 20 mx2.home.test.", "MX 20 mx3.home.test.")
    town.servers[0].stop()
    seen = {(await town.reach()).at.address for _ in range(30)}
    assert seen == {SECOND, THIRD}


def _ipv6_is_there() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def test_a_dead_ipv6_address_gives_way_to_ipv4(town: ReachableTown) -> None:
    """::1 refuses where there is IPv6, and cannot be reached where there is none: the outcome is the same."""
    town.dns.set("mx1.home.test", "AAAA ::1", f"A {FIRST}")
    reached = await town.reach()
    assert (reached.at.host, reached.at.address) == ("mx1.home.test", FIRST)
    assert town.dns.queries["mx1.home.test", "AAAA"] == 1


@pytest.mark.skipif(not _ipv6_is_there(), reason="this machine has no IPv6")
async def test_an_ipv6_address_comes_before_ipv4(town: ReachableTown) -> None:
    town.dns.set("mx1.home.test", f"A {FIRST}", "AAAA ::1")
    listener = socket.socket(socket.AF_INET6)
    with listener:
        listener.bind(("::1", town.port))
        listener.listen()
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.3):
            await town.reach()
        listener.setblocking(False)
        connection, _ = listener.accept()
        connection.close()
    assert town.servers[0].connections == 0


# ---------------------------------------------------------------------- ourselves


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_an_mx_that_names_us_ends_the_list(town: ReachableTown, place: int) -> None:
    records = [f"MX {10 * number} mx{number}.home.test." for number in (1, 2, 3)]
    records[place] = f"MX {10 * (place + 1)} {OURS}."
    town.dns.set("home.test", *records)
    town.dns.set(OURS, f"A {FIRST}")
    for server in town.servers[:place]:
        server.stop()
    outcome = await town.unreachable()
    if place == 0:
        assert isinstance(outcome, Failed)
        assert (outcome.answer.code, outcome.answer.enhanced_code) == (550, "5.4.6")
    else:
        assert isinstance(outcome, Deferred), "a host before us may be there again"
        assert outcome.answer.reason == "connection-failed"
    assert [server.connections for server in town.servers[place:]] == [0] * (3 - place)


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_host_at_an_address_of_ours_ends_the_list_whatever_its_name(town: ReachableTown, place: int) -> None:
    ours = (FIRST, SECOND, THIRD)[place]
    town.hosts = HostSettings(OURS, loopback_destinations=True, is_ours=lambda address: address == ours)
    for server in town.servers[:place]:
        server.stop()
    outcome = await town.unreachable()
    assert outcome.answer.reason == ("connection-failed" if place else "mx-loop")
    assert isinstance(outcome, Deferred if place else Failed)
    assert [server.connections for server in town.servers[place:]] == [0] * (3 - place)


async def test_hosts_beside_an_address_of_ours_are_not_asked_either(town: ReachableTown) -> None:
    """RFC 5321 §5.1: those of our own preference go, too, wherever chance has put them."""
    town.dns.set("home.test", "MX 10 mx1.home.test.", "MX 20 mx2.home.test.", "MX 20 mx3.home.test.")
    town.hosts = HostSettings(OURS, loopback_destinations=True, is_ours=lambda address: address == SECOND)
    town.servers[0].stop()
    for _ in range(8):
        assert isinstance(await town.unreachable(), Deferred)
    assert [server.connections for server in town.servers[1:]] == [0, 0]


async def test_who_greets_us_with_our_own_name_gets_no_mail_and_the_next_is_asked(town: ReachableTown) -> None:
    town.servers[0].name = OURS.upper()
    assert (await town.reach()).at.address == SECOND
    town.servers[1].name = town.servers[2].name = OURS
    outcome = await town.unreachable()
    assert isinstance(outcome, Deferred)
    assert (outcome.answer.enhanced_code, outcome.answer.reason) == ("4.4.6", "mx-loop")


# ---------------------------------------------------------------------- addresses inside


async def test_hosts_at_addresses_inside_are_not_connected_to(town: ReachableTown) -> None:
    town.hosts = HostSettings(OURS)
    outcome = await town.unreachable()
    assert isinstance(outcome, Deferred)
    assert outcome.answer.reason == "private-address"
    assert [server.connections for server in town.servers] == [0, 0, 0]


def test_what_is_of_this_machine_is_found_out_without_a_word() -> None:
    assert is_of_this_machine("127.0.0.1")
    assert not is_of_this_machine("192.0.2.1")
    assert not is_of_this_machine("2001:db8::1")


# ---------------------------------------------------------------------- from where


async def test_mail_leaves_from_the_configured_addresses_by_chance(town: ReachableTown) -> None:
    town.sources = ("127.0.0.5", "127.0.0.6", "2001:db8::1")
    for _ in range(40):
        await town.reach()
    assert set(town.servers[0].clients) == {"127.0.0.5", "127.0.0.6"}


async def test_a_source_that_is_not_ours_is_told_in_words_and_keeps_mail_waiting(town: ReachableTown) -> None:
    town.sources = ("192.0.2.1",)
    outcome = await town.unreachable()
    assert isinstance(outcome, Deferred)
    assert "nothing can be sent from 192.0.2.1 (delivery.source_addresses): " in outcome.answer.text
    assert why_not_a_source("192.0.2.1")
    assert not why_not_a_source("127.0.0.1")


async def test_a_host_without_a_name_is_told_by_its_address_once(town: ReachableTown) -> None:
    town.servers[0].stop()
    outcome = await town.unreachable(f"[{FIRST}]")
    assert outcome.answer.text == f"no connection to [{FIRST}]: connect: connection refused"


async def test_a_host_that_refuses_is_told_as_such_whatever_the_source(town: ReachableTown) -> None:
    town.sources = ("127.0.0.5",)
    for server in town.servers:
        server.stop()
    outcome = await town.unreachable()
    assert "connection refused" in outcome.answer.text
    assert "source_addresses" not in outcome.answer.text


# ---------------------------------------------------------------------- how it was encrypted


async def test_how_a_connection_is_encrypted_is_told(town: ReachableTown) -> None:
    town.dns.authenticated = True
    town.servers[0].tls = server_tls("mx1.home.test")
    town.servers[0].extensions = ("PIPELINING", "REQUIRETLS")
    encrypted = (await town.reach()).tls
    assert encrypted is not None
    version, cipher = encrypted.split(" ")
    assert (version, cipher[:4]) == ("TLSv1.3", "TLS_")
    assert (await town.reach(required=True)).tls == f"{encrypted} verified"


async def test_that_a_connection_fell_back_to_clear_is_told_with_the_reason(town: ReachableTown) -> None:
    server = town.servers[0]
    assert (await town.reach()).tls is None, "nothing was offered"
    files = certificate_for("mx1.home.test")
    server.tls = server_context(files.certificate, files.key)
    server.script = always(Stage.STARTTLS, Answer(454, "4.7.0 Not now"))
    assert (await town.reach()).tls == "none: STARTTLS was offered and refused"
    server.script = always(Stage.STARTTLS, CLOSE)
    assert (await town.reach()).tls == "none: TLS failed at starttls: closed by the server"
    server.script = None
    server.tls.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    server.tls.maximum_version = ssl.TLSVersion.TLSv1_2
    assert str((await town.reach()).tls).startswith("none: TLS failed at tls: ")


async def test_what_a_server_says_under_tls_is_not_part_of_the_reason(town: ReachableTown) -> None:
    server = town.servers[0]
    server.tls = server_tls("mx1.home.test")
    said = itertools.count(1)

    def refuse_under_tls(moment: Moment) -> Answer | None:
        if moment.stage is Stage.EHLO and next(said) == 2:
            return Answer(421, "4.7.1 alice@home.test is ours", close=True)
        return None

    server.script = refuse_under_tls
    reached = await town.reach()
    assert reached.at.address == FIRST
    assert reached.tls == "none: TLS failed at ehlo: refused"


async def test_mail_that_requires_tls_and_can_not_have_it_says_nothing_about_other_mail(town: ReachableTown) -> None:
    with pytest.raises(Unsuitable):
        await town.reach(required=True)
    assert (await town.reach()).at.address == FIRST
