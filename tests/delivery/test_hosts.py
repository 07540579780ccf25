"""Which hosts take mail for a destination: every answer of the DNS that matters, and what follows from it."""

from collections.abc import Mapping

import pytest

from appliance.delivery.hosts import HostSettings, NoHosts, find_addresses
from appliance.delivery.schedule import RetrySchedule
from appliance.model.delivery import Deferred, Failed
from appliance.network import is_public
from appliance.resolver import LookupFailed, MailHosts, NoSuchName

SETTINGS = HostSettings("mx.example.net")

Answer = list[str] | list[tuple[int, str]] | Exception
GONE = NoSuchName("gone")
BROKEN = LookupFailed("SERVFAIL")


class Names:
    """A zone as a table: what is not in it does not exist."""

    def __init__(self, zone: Mapping[tuple[str, str], object], authenticated: bool = False) -> None:
        self._zone = zone
        self.authenticated = authenticated

    async def mx(self, domain: str) -> MailHosts:
        records: list[tuple[int, str]] = self._answer(domain, "MX")  # type: ignore[assignment]
        return MailHosts(tuple(records), self.authenticated)

    async def addresses(self, host: str, *, ipv6: bool) -> list[str]:
        return self._answer(host, "AAAA" if ipv6 else "A")  # type: ignore[return-value]

    async def name_of(self, address: str) -> str | None:
        raise NoSuchName(address)

    def _answer(self, name: str, record_type: str) -> object:
        answer = self._zone.get((name, record_type))
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            if any(known == name for known, _ in self._zone):
                return []
            raise NoSuchName(name)
        return answer


async def found(zone: Mapping[tuple[str, str], object], settings: HostSettings = SETTINGS) -> list[str]:
    addresses = await find_addresses(Names(zone), "home.test", settings, shuffle=lambda hosts: hosts.sort(reverse=True))
    return [f"{each.host} {each.address}" for each in addresses]


async def test_preference_then_chance_then_every_address_with_ipv6_first() -> None:
    zone = {
        ("home.test", "MX"): [(20, "c.home.test"), (10, "a.home.test"), (10, "b.home.test")],
        ("a.home.test", "A"): ["8.8.8.1", "8.8.8.2"],
        ("b.home.test", "A"): ["8.8.8.3"],
        ("b.home.test", "AAAA"): ["2600::1"],
        ("c.home.test", "A"): ["8.8.8.4"],
    }
    assert await found(zone) == [
        "b.home.test 2600::1",
        "b.home.test 8.8.8.3",
        "a.home.test 8.8.8.1",
        "a.home.test 8.8.8.2",
        "c.home.test 8.8.8.4",
    ]
    four = await found(zone, HostSettings("mx.example.net", ipv6=False))
    assert "b.home.test 2600::1" not in four
    assert await found(zone, HostSettings("mx.example.net", ipv4=False)) == ["b.home.test 2600::1"]


async def test_without_mx_the_domain_itself_is_the_host() -> None:
    assert await found({("home.test", "A"): ["8.8.8.1"]}) == ["home.test 8.8.8.1"]


async def test_hosts_at_or_behind_our_own_preference_are_not_asked() -> None:
    zone = {
        ("home.test", "MX"): [(10, "first.test"), (20, "mx.example.net"), (20, "beside.test"), (30, "behind.test")],
        **{(name, "A"): ["8.8.8.1"] for name in ("first.test", "mx.example.net", "beside.test", "behind.test")},
    }
    assert await found(zone) == ["first.test 8.8.8.1"]


@pytest.mark.parametrize(
    ("zone", "kind", "code", "enhanced", "reason"),
    [
        ({}, Failed, 550, "5.1.2", "no-such-domain"),
        ({("home.test", "MX"): BROKEN}, Deferred, 0, "4.4.3", "dns-failed"),
        ({("home.test", "MX"): BROKEN, ("home.test", "A"): ["8.8.8.1"]}, Deferred, 0, "4.4.3", "dns-failed"),
        ({("home.test", "MX"): [(0, "")]}, Failed, 556, "5.1.10", "null-mx"),
        ({("home.test", "TXT"): ["x"]}, Failed, 550, "5.1.2", "no-mail-host"),
        ({("home.test", "A"): BROKEN}, Deferred, 0, "4.4.3", "dns-failed"),
        ({("home.test", "AAAA"): BROKEN, ("home.test", "A"): GONE}, Deferred, 0, "4.4.3", "dns-failed"),
        ({("home.test", "MX"): [(10, "gone.test")]}, Deferred, 0, "4.4.4", "no-mail-host"),
        ({("home.test", "MX"): [(10, "b.test")], ("b.test", "A"): BROKEN}, Deferred, 0, "4.4.3", "dns-failed"),
        ({("home.test", "MX"): [(10, "mx.example.net")]}, Failed, 550, "5.4.6", "mx-loop"),
        # What a resolver says that blocks names.
        ({("home.test", "A"): ["127.0.0.1"]}, Deferred, 0, "4.4.4", "private-address"),
        ({("home.test", "A"): ["0.0.0.0"]}, Deferred, 0, "4.4.4", "private-address"),
        ({("home.test", "AAAA"): ["64:ff9b::a00:1"]}, Deferred, 0, "4.4.4", "private-address"),
    ],
)
async def test_nobody_to_hand_it_to(
    zone: Mapping[tuple[str, str], object], kind: type, code: int, enhanced: str, reason: str
) -> None:
    with pytest.raises(NoHosts) as raised:
        await found(zone)
    outcome = raised.value.outcome
    assert (type(outcome), outcome.answer.code, outcome.answer.enhanced_code) == (kind, code, enhanced)
    assert outcome.answer.reason == reason


async def test_a_failing_lookup_of_one_host_or_family_does_not_hide_the_others() -> None:
    zone = {
        ("home.test", "MX"): [(10, "a.test"), (20, "b.test")],
        ("a.test", "A"): BROKEN,
        ("a.test", "AAAA"): BROKEN,
        ("b.test", "AAAA"): BROKEN,
        ("b.test", "A"): ["8.8.8.1"],
    }
    assert await found(zone) == ["b.test 8.8.8.1"]


async def test_addresses_inside_are_left_out_and_public_ones_stay() -> None:
    zone = {
        ("home.test", "MX"): [(10, "a.test"), (20, "b.test")],
        ("a.test", "A"): ["10.0.0.1", "8.8.8.1", "127.0.0.1"],
        ("a.test", "AAAA"): ["::1", "2600::1", "fe80::1"],
        ("b.test", "A"): ["192.168.0.1"],
    }
    assert await found(zone) == ["a.test 2600::1", "a.test 8.8.8.1"]


async def test_an_address_literal_that_is_ours_is_a_loop() -> None:
    settings = HostSettings("mx.example.net", is_ours=lambda address: address == "8.8.8.8")
    with pytest.raises(NoHosts) as raised:
        await find_addresses(Names({}), "[8.8.8.8]", settings)
    assert raised.value.outcome.answer.reason == "mx-loop"


async def test_a_domain_without_mx_at_an_address_of_ours_is_a_loop() -> None:
    settings = HostSettings("mx.example.net", is_ours=lambda address: address == "8.8.8.8")
    with pytest.raises(NoHosts) as raised:
        await found({("home.test", "A"): ["8.8.8.1", "8.8.8.8"]}, settings)
    assert isinstance(raised.value.outcome, Failed)
    assert raised.value.outcome.answer.enhanced_code == "5.4.6"


async def test_an_address_literal_needs_no_dns() -> None:
    for literal, address in (("[8.8.8.8]", "8.8.8.8"), ("[IPv6:2600::1]", "2600::1")):
        only = await find_addresses(Names({}), literal, SETTINGS)
        assert [each.address for each in only] == [address]


@pytest.mark.parametrize("literal", ["[127.0.0.1]", "[IPv6:::1]", "[10.0.0.1]"])
async def test_an_address_literal_that_is_not_public_never_will_be(literal: str) -> None:
    with pytest.raises(NoHosts) as raised:
        await find_addresses(Names({}), literal, SETTINGS)
    assert isinstance(raised.value.outcome, Failed)
    assert raised.value.outcome.answer.reason == "private-address"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2600::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("192.0.2.1", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fc00::1", False),
        ("fec0::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::808:808", True),
        ("64:ff9b:1::808:808", False),
        ("2002:7f00:1::", False),
        ("2002:808:808::1", True),
        ("2001:0:808:808:0:0:f5ff:fffe", False),
        ("2001:db8::1", False),
        ("not an address", False),
        ("127.1", False),
    ],
)
def test_addresses_that_a_server_out_in_the_world_can_have(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_the_last_step_of_the_schedule_is_repeated() -> None:
    schedule = RetrySchedule((60_000, 300_000), 432_000_000, draw=lambda: 0.0)
    assert [schedule.next_attempt(attempts, 0) for attempts in (1, 2, 3, 99)] == [60_000, 300_000, 300_000, 300_000]
    assert not schedule.has_expired(431_999_999, 431_999_999)
    assert schedule.has_expired(432_000_000, 432_000_000)


def test_a_wait_is_a_little_longer_than_configured_by_chance() -> None:
    schedule = RetrySchedule((60_000, 300_000), 432_000_000)
    waits = {schedule.next_attempt(1, 0) for _ in range(200)}
    assert len(waits) > 50
    assert all(60_000 <= wait < 66_000 for wait in waits)


def test_a_clock_that_jumps_makes_nothing_expire() -> None:
    month = 30 * 86_400_000
    schedule = RetrySchedule((60_000,), 432_000_000)
    assert not schedule.has_expired(month, 60_000), "the wall clock was set forward, or we were away"
    assert not schedule.has_expired(60_000 - month, 60_000), "the wall clock was set back"


async def test_whose_host_it_is_is_known_by_dnssec_or_by_its_name() -> None:
    """What RFC 8689 §4.2.1 asks, before a certificate says anything."""
    zone = {("home.test", "MX"): [(10, "a.home.test")], ("a.home.test", "A"): ["8.8.8.1"]}
    alone = {("home.test", "A"): ["8.8.8.2"]}

    async def known(zone: Mapping[tuple[str, str], object], *, authenticated: bool, domain: str = "home.test") -> bool:
        names = Names(zone, authenticated)
        return all(each.known for each in await find_addresses(names, domain, SETTINGS))

    assert await known(zone, authenticated=True)
    assert not await known(zone, authenticated=False)
    assert await known(alone, authenticated=False)
    assert await known({}, authenticated=False, domain="[8.8.8.3]")
