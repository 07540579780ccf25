"""The resolver against a real name server on loopback: each answer, each failure, and what is remembered of them."""

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterator

import dns.asyncresolver
import dns.message
import dns.resolver
import dns.rrset
import pytest
import trio
from dns_server import Behaviour, DnsServer

from appliance import resolver as resolver_module
from appliance.resolver import (
    MAX_ANSWER_OCTETS,
    MAX_CACHED_CHARACTERS,
    MAX_CACHED_S,
    MAX_RECORDS,
    NEGATIVE_CACHED_S,
    DnsResolver,
    LookupFailed,
    NoSuchName,
    is_loopback,
)

RECORDS = {
    "home.test": ["MX 20 B.home.test.", "MX 10 a.home.test.", "TXT hello"],
    "a.home.test": ["A 192.0.2.1", "A 192.0.2.2", "AAAA 2001:db8::1"],
    "none.test": ["MX 0 ."],
    "alias.test": ["CNAME home.test."],
    "lost.test": ["CNAME nowhere.test."],
    "_spf.under_score.test": ["A 192.0.2.9"],
    "1.2.0.192.in-addr.arpa": ["PTR Mail.Home.test.", "PTR other.home.test."],
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa": ["PTR six.home.test."],
}


async def _mail_hosts(resolver: DnsResolver) -> list[tuple[int, str]]:
    return list((await resolver.mx("asked.test")).records)


Question = Callable[[DnsResolver], Awaitable[object]]
QUESTIONS: dict[str, Question] = {
    "MX": lambda resolver: _mail_hosts(resolver),
    "A": lambda resolver: resolver.addresses("asked.test", ipv6=False),
    "AAAA": lambda resolver: resolver.addresses("asked.test", ipv6=True),
    "PTR": lambda resolver: resolver.name_of("192.0.2.77"),
}
ASKED = {name: "77.2.0.192.in-addr.arpa" if name == "PTR" else "asked.test" for name in QUESTIONS}
"""The name that each of them asks for."""


class Clock:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer(RECORDS) as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def resolver(server: DnsServer, clock: Clock) -> DnsResolver:
    return DnsResolver([(server.address, server.port)], 1.0, clock)


# ---------------------------------------------------------------------- answers


async def test_mail_hosts_come_with_their_preferences_in_lower_case(resolver: DnsResolver) -> None:
    assert sorted((await resolver.mx("home.test")).records) == [(10, "a.home.test"), (20, "b.home.test")]
    assert sorted((await resolver.mx("HOME.test.")).records) == [(10, "a.home.test"), (20, "b.home.test")]


async def test_a_null_mx_is_a_host_without_a_name(resolver: DnsResolver) -> None:
    assert (await resolver.mx("none.test")).records == ((0, ""),)


async def test_addresses_of_both_kinds(resolver: DnsResolver) -> None:
    assert sorted(await resolver.addresses("a.home.test", ipv6=False)) == ["192.0.2.1", "192.0.2.2"]
    assert await resolver.addresses("a.home.test", ipv6=True) == ["2001:db8::1"]


async def test_the_first_name_of_an_address_without_its_last_dot(resolver: DnsResolver) -> None:
    assert await resolver.name_of("192.0.2.1") in ("mail.home.test", "other.home.test")
    assert await resolver.name_of("2001:db8::1") == "six.home.test"


async def test_an_alias_leads_to_what_it_names(resolver: DnsResolver) -> None:
    assert sorted((await resolver.mx("alias.test")).records) == [(10, "a.home.test"), (20, "b.home.test")]
    with pytest.raises(NoSuchName):
        await resolver.mx("lost.test")


async def test_a_name_that_exists_without_what_is_asked_for_has_none_of_it(resolver: DnsResolver) -> None:
    assert (await resolver.mx("a.home.test")).records == ()
    assert await resolver.addresses("home.test", ipv6=False) == []
    assert await resolver.addresses("home.test", ipv6=True) == []


# ---------------------------------------------------------------------- failures, told apart


@pytest.mark.parametrize("kind", QUESTIONS)
async def test_nxdomain_is_no_such_name(server: DnsServer, resolver: DnsResolver, kind: str) -> None:
    server.behave(ASKED[kind], Behaviour.NXDOMAIN)
    with pytest.raises(NoSuchName):
        await QUESTIONS[kind](resolver)


@pytest.mark.parametrize("kind", QUESTIONS)
async def test_an_empty_answer_is_an_answer(server: DnsServer, resolver: DnsResolver, kind: str) -> None:
    server.behave(ASKED[kind], Behaviour.EMPTY)
    assert await QUESTIONS[kind](resolver) == (None if kind == "PTR" else [])


@pytest.mark.parametrize("behaviour", [Behaviour.SERVFAIL, Behaviour.REFUSED])
@pytest.mark.parametrize("kind", QUESTIONS)
async def test_a_server_that_fails_has_not_answered(
    server: DnsServer, resolver: DnsResolver, kind: str, behaviour: Behaviour
) -> None:
    server.behave(ASKED[kind], behaviour)
    with pytest.raises(LookupFailed, match=kind):
        await QUESTIONS[kind](resolver)
    server.behave(ASKED[kind], None)
    server.set(ASKED[kind], "TXT here")
    assert not await QUESTIONS[kind](resolver), "a failure is not remembered"


async def test_silence_is_a_failure_after_the_timeout_and_not_before_the_whole_of_it(server: DnsServer) -> None:
    server.behave("home.test", Behaviour.TIMEOUT)
    impatient = DnsResolver([(server.address, server.port)], 0.2)
    with pytest.raises(LookupFailed, match="in time"):
        await impatient.mx("home.test")
    server.behave("home.test", None)
    assert len((await impatient.mx("home.test")).records) == 2


async def test_a_server_that_is_not_there_is_a_failure(server: DnsServer) -> None:
    gone = DnsServer().start()
    gone.stop()
    with pytest.raises(LookupFailed):
        await DnsResolver([(gone.address, gone.port)], 0.3).mx("home.test")


async def test_the_next_server_is_asked_where_the_first_fails(server: DnsServer) -> None:
    with DnsServer() as broken:
        broken.behave("home.test", Behaviour.SERVFAIL)
        both = DnsResolver([(broken.address, broken.port), (server.address, server.port)], 2.0)
        assert len((await both.mx("home.test")).records) == 2
        assert broken.queries["home.test", "MX"] >= 1


async def test_a_truncated_answer_is_fetched_whole(server: DnsServer, resolver: DnsResolver) -> None:
    server.behave("home.test", Behaviour.TRUNCATED)
    assert len((await resolver.mx("home.test")).records) == 2
    assert server.queries["home.test", "MX"] == 2


async def test_an_answer_too_large_for_a_datagram_comes_over_tcp(server: DnsServer, resolver: DnsResolver) -> None:
    many = [str(ipaddress.ip_address("192.0.2.0") + number) for number in range(256)]
    server.set("many.test", *(f"A {address}" for address in many))
    found = await resolver.addresses("many.test", ipv6=False)
    assert (len(found), len(set(found))) == (MAX_RECORDS, MAX_RECORDS)
    assert set(found) <= set(many)


async def test_of_many_mail_hosts_the_most_preferred_are_kept(server: DnsServer, resolver: DnsResolver) -> None:
    server.set("many.test", *(f"MX {preference} h{preference}.test." for preference in reversed(range(100))))
    assert (await resolver.mx("many.test")).records == tuple(
        (number, f"h{number}.test") for number in range(MAX_RECORDS)
    )


@pytest.mark.parametrize("kind", QUESTIONS)
async def test_an_answer_that_is_too_long_is_refused_before_it_is_read(
    server: DnsServer, resolver: DnsResolver, kind: str
) -> None:
    count = MAX_ANSWER_OCTETS // 16 + 1
    texts = {
        "MX": [f"MX 10 {number}.test." for number in range(count)],
        "A": [f"A {ipaddress.IPv4Address(number)}" for number in range(count)],
        "AAAA": [f"AAAA {ipaddress.IPv6Address(number)}" for number in range(count)],
        "PTR": [f"PTR {number}.test." for number in range(count)],
    }
    server.set(ASKED[kind], *texts[kind])
    with pytest.raises(LookupFailed, match=kind):
        await QUESTIONS[kind](resolver)
    assert server.queries[ASKED[kind], kind] == 2, "over UDP, and over TCP"
    server.set(ASKED[kind], texts[kind][0])
    assert await QUESTIONS[kind](resolver)


async def test_a_datagram_that_is_too_long_is_no_answer(nursery: trio.Nursery) -> None:
    """From a server that does not care how much it was allowed to send."""
    addresses = [str(ipaddress.IPv4Address(number)) for number in range(MAX_ANSWER_OCTETS // 16 + 1)]
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        await server.bind(("127.0.0.1", 0))

        async def answer_all() -> None:
            while True:
                question, client = await server.recvfrom(4096)
                answer = dns.message.make_response(dns.message.from_wire(question))
                answer.answer.append(dns.rrset.from_text_list(answer.question[0].name, 0, "IN", "A", addresses))
                await server.sendto(answer.to_wire(), client)

        nursery.start_soon(answer_all)
        with pytest.raises(LookupFailed, match="in time"):
            await DnsResolver([server.getsockname()], 0.2).addresses("asked.test", ipv6=False)
        del addresses[9:]
        found = await DnsResolver([server.getsockname()], 2.0).addresses("asked.test", ipv6=False)
        assert sorted(found) == addresses
        nursery.cancel_scope.cancel()


# ---------------------------------------------------------------------- odd names


@pytest.mark.parametrize(
    "name",
    ["a..b.test", ".home.test", "..", "x" * 64 + ".test", ".".join(["x" * 62] * 4) + ".test", "\\300.test", "a\\"],
    ids=lambda name: name[:12],
)
async def test_a_name_that_no_question_can_hold_is_a_failed_lookup(resolver: DnsResolver, name: str) -> None:
    for question in (resolver.mx(name), resolver.addresses(name, ipv6=True), resolver.addresses(name, ipv6=False)):
        with pytest.raises(LookupFailed):
            await question


@pytest.mark.parametrize("name", ["_spf.under_score.test", "_SPF.UNDER_SCORE.test"])
async def test_an_underscore_is_no_obstacle(resolver: DnsResolver, name: str) -> None:
    assert await resolver.addresses(name, ipv6=False) == ["192.0.2.9"]


async def test_the_longest_name_there_can_be(server: DnsServer, resolver: DnsResolver) -> None:
    longest = ".".join(["x" * 63] * 3 + ["y" * 61])
    assert len(longest) == 253  # RFC 1035 §3.1: 255 octets with the lengths of the labels and the root
    server.set(longest, "A 192.0.2.8")
    assert await resolver.addresses(longest, ipv6=False) == ["192.0.2.8"]
    with pytest.raises(LookupFailed):
        await resolver.addresses(f"{longest}y", ipv6=False)


async def test_a_strange_name_is_asked_for_as_it_is_and_never_completed(
    server: DnsServer, resolver: DnsResolver
) -> None:
    for name in ("localhost", "127.0.0.1", "a b.test", "-.test", "*.home.test"):
        with pytest.raises(NoSuchName):
            await resolver.addresses(name, ipv6=False)
    assert {name for name, _ in server.queries} == {"localhost", "127.0.0.1", "a\\032b.test", "-.test", "*.home.test"}


@pytest.mark.parametrize("address", ["", "nonsense", "192.0.2", "192.0.2.1.1", "fe80::1%lo", "1.2.3.4.in-addr.arpa"])
async def test_the_name_of_what_is_no_address_is_a_failed_lookup(
    server: DnsServer, resolver: DnsResolver, address: str
) -> None:
    with pytest.raises(LookupFailed):
        await resolver.name_of(address)


# ---------------------------------------------------------------------- what is remembered


async def test_an_answer_is_remembered_for_as_long_as_its_records_live(
    server: DnsServer, resolver: DnsResolver, clock: Clock
) -> None:
    server.ttl = 300
    first = (await resolver.mx("home.test")).records
    server.set("home.test", "MX 5 new.home.test.")
    clock.now += 299
    assert (await resolver.mx("home.test")).records == first
    clock.now += 1
    assert (await resolver.mx("home.test")).records == ((5, "new.home.test"),)
    assert server.queries["home.test", "MX"] == 2


async def test_types_are_remembered_apart(server: DnsServer, resolver: DnsResolver) -> None:
    server.ttl = 300
    for _ in range(3):
        await resolver.addresses("a.home.test", ipv6=False)
        await resolver.addresses("a.home.test", ipv6=True)
    assert server.queries["a.home.test", "A"] == server.queries["a.home.test", "AAAA"] == 1


async def test_a_record_that_wants_to_live_for_days_is_asked_for_again_within_the_hour(
    server: DnsServer, resolver: DnsResolver, clock: Clock
) -> None:
    server.ttl = 7 * 86_400
    await resolver.mx("home.test")
    clock.now += MAX_CACHED_S - 1
    await resolver.mx("home.test")
    assert server.queries["home.test", "MX"] == 1
    clock.now += 1
    await resolver.mx("home.test")
    assert server.queries["home.test", "MX"] == 2


async def test_a_record_that_does_not_want_to_live_is_asked_for_each_time(
    server: DnsServer, resolver: DnsResolver
) -> None:
    for _ in range(3):
        await resolver.mx("home.test")
    assert server.queries["home.test", "MX"] == 3


@pytest.mark.parametrize("behaviour", [Behaviour.NXDOMAIN, Behaviour.EMPTY])
async def test_that_there_is_none_is_believed_for_a_moment(
    server: DnsServer, resolver: DnsResolver, clock: Clock, behaviour: Behaviour
) -> None:
    async def ask() -> object:
        try:
            return (await resolver.mx("asked.test")).records
        except NoSuchName:
            return NoSuchName

    server.set("asked.test", "MX 10 a.home.test.")
    server.behave("asked.test", behaviour)
    none = await ask()
    assert none == (NoSuchName if behaviour is Behaviour.NXDOMAIN else ())
    server.behave("asked.test", None)
    clock.now += NEGATIVE_CACHED_S - 1
    assert await ask() == none
    clock.now += 1
    assert await ask() == ((10, "a.home.test"),)


@pytest.mark.parametrize("behaviour", [Behaviour.SERVFAIL, Behaviour.TIMEOUT])
async def test_a_failure_does_not_stand_in_for_an_answer_that_has_lived_out_its_time(
    server: DnsServer, clock: Clock, behaviour: Behaviour
) -> None:
    resolver = DnsResolver([(server.address, server.port)], 0.2, clock)
    server.ttl = 60
    await resolver.mx("home.test")
    server.behave("home.test", behaviour)
    assert len((await resolver.mx("home.test")).records) == 2
    clock.now += 60
    with pytest.raises(LookupFailed):
        await resolver.mx("home.test")


async def test_what_is_remembered_cannot_be_changed_by_who_asked(server: DnsServer, resolver: DnsResolver) -> None:
    server.ttl = 300
    (await resolver.addresses("a.home.test", ipv6=True)).clear()
    assert await resolver.addresses("a.home.test", ipv6=True) == ["2001:db8::1"]


async def test_the_memory_is_bounded_and_keeps_what_is_used(
    server: DnsServer, resolver: DnsResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver_module, "MAX_CACHED_ANSWERS", 10)
    server.ttl = 300
    for number in range(30):
        server.set(f"{number}.test", "A 192.0.2.1")
        await resolver.addresses(f"{number}.test", ipv6=False)
        await resolver.addresses("0.test", ipv6=False)
    assert server.queries["0.test", "A"] == 1, "it was used all the time"
    for number in range(21, 30):
        await resolver.addresses(f"{number}.test", ipv6=False)
        assert server.queries[f"{number}.test", "A"] == 1, "one of the last ten"
    await resolver.addresses("20.test", ipv6=False)
    assert server.queries["20.test", "A"] == 2, "the one unused for longest has gone"


@pytest.mark.parametrize(("length", "kept"), [(30, True), (60, False)])
async def test_a_long_answer_is_given_and_not_remembered(
    server: DnsServer, resolver: DnsResolver, length: int, kept: bool
) -> None:
    server.ttl = 300
    hosts = [f"{number:0{length}}.test" for number in range(MAX_RECORDS)]
    assert (MAX_RECORDS * len(f"10 {hosts[0]}.") <= MAX_CACHED_CHARACTERS) is kept
    server.set("asked.test", *(f"MX 10 {host}." for host in hosts))
    assert sorted(host for _, host in (await resolver.mx("asked.test")).records) == hosts
    server.set("asked.test", "MX 10 a.home.test.")
    assert len((await resolver.mx("asked.test")).records) == (MAX_RECORDS if kept else 1)


async def test_without_a_name_server_every_lookup_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_file(self: object, path: str) -> None:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns.asyncresolver.Resolver, "read_resolv_conf", no_file)
    with pytest.raises(LookupFailed):
        await DnsResolver([], 0.3).mx("home.test")


# ---------------------------------------------------------------------- whom to believe


@pytest.mark.parametrize("proven", [False, True])
async def test_that_an_answer_is_proven_is_believed_of_a_name_server_on_this_machine(
    server: DnsServer, resolver: DnsResolver, proven: bool
) -> None:
    server.authenticated = proven
    server.ttl = 60
    for _ in range(2):
        assert (await resolver.mx("home.test")).authenticated is proven
    assert server.queries["home.test", "MX"] == 1, "it is remembered with the answer"


@pytest.mark.parametrize(
    ("nameserver", "believed"),
    [("127.0.0.53", True), ("::1", True), ("192.0.2.53", False), ("10.0.0.1", False), ("", False), (None, False)],
)
def test_nobody_elses_word_for_a_proof_is_believed(nameserver: str | None, believed: bool) -> None:
    """RFC 4035 §4.9.3: between here and there anybody could have set the bit."""
    assert is_loopback(nameserver) is believed
