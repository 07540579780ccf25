"""Every answer that a name server can give to each question on the way to a destination, and what mail comes to.

The table is generated: each answer for MX, A and AAAA, from a real server over UDP and TCP. Two rules hold for all of
it. A lookup that fails defers and never fails for good; and an MX record that could not be had is never taken for one
that is not there, so that the address of the domain itself (`TRAP`) is not used in its place (RFC 5321 §5.1).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from dns_server import Behaviour, DnsServer

from appliance.delivery.hosts import MAX_ADDRESSES, HostAddress, HostSettings, NoHosts, find_addresses
from appliance.model.delivery import Deferred, Failed
from appliance.resolver import DnsResolver

KINDS = ("MX", "A", "AAAA")
ASKED = {"MX": "home.test", "A": "mx.home.test", "AAAA": "mx.home.test"}
"""The name that is asked for each."""
GOOD = {"MX": "MX 10 mx.home.test.", "A": "A 192.0.2.1", "AAAA": "AAAA 2001:db8::1"}
MORE = {"MX": "MX 20 mx.more.test.", "A": "A 192.0.2.2", "AAAA": "AAAA 2001:db8::2"}
REACHED = {"MX": "192.0.2.1", "A": "192.0.2.1", "AAAA": "2001:db8::1"}
"""Where a good answer leads."""
MORE_REACHED = {"MX": "192.0.2.3", "A": "192.0.2.2", "AAAA": "2001:db8::2"}
TRAP = "192.0.2.99"
"""The address of home.test, where no mail is taken as long as it has an MX record."""

SILENCE_S = 0.25
"""How long is waited where no answer will do; where one is to come, a busy machine may take longer."""
ANSWER_S = 5.0

Outcome = tuple[type[Deferred] | type[Failed], str] | list[str]
"""What it comes to: addresses, or an outcome and its word."""

LATER = (Deferred, "dns-failed")
LATER_AS_HOSTS_GET_MENDED = (Deferred, "no-mail-host")


@dataclass(frozen=True)
class Row:
    """One answer: how the server is made to give it, and what it comes to for each question."""

    prepare: Callable[[DnsServer, str], None]
    comes_to: Callable[[str], Outcome]


def records(*texts: Callable[[str], str] | str) -> Callable[[DnsServer, str], None]:
    """These records for what is asked; texts of their own for each kind, or the same."""

    def prepare(server: DnsServer, kind: str) -> None:
        put(server, kind, *(text if isinstance(text, str) else text(kind) for text in texts))

    return prepare


def put(server: DnsServer, kind: str, *texts: str) -> None:
    server.set(ASKED[kind], *texts, *([f"A {TRAP}"] if kind == "MX" else []))


def behaves(behaviour: Behaviour) -> Callable[[DnsServer, str], None]:
    return lambda server, kind: server.behave(ASKED[kind], behaviour, kind)


def chain(server: DnsServer, kind: str) -> None:
    server.set(ASKED[kind], "CNAME one.test.")
    server.set("one.test", "CNAME two.test.")
    server.set("two.test", GOOD[kind])


def loop(server: DnsServer, kind: str) -> None:
    server.set(ASKED[kind], "CNAME one.test.")
    server.set("one.test", f"CNAME {ASKED[kind]}.")


def nowhere(server: DnsServer, kind: str) -> None:
    server.set(ASKED[kind], "CNAME nowhere.test.")


def many(server: DnsServer, kind: str) -> None:
    texts = {
        "MX": [f"MX {number} mx{number}.many.test." for number in range(60)],
        "A": [f"A 198.51.100.{number}" for number in range(60)],
        "AAAA": [f"AAAA 2001:db8::{number:x}" for number in range(60)],
    }
    put(server, kind, *texts[kind])
    for number in range(60):
        server.set(f"mx{number}.many.test", f"A 203.0.113.{number}")


def to_alias(server: DnsServer, kind: str) -> None:
    put(server, kind, "MX 10 alias.test.")
    server.set("alias.test", "CNAME mx.home.test.")


def odd_host(host: str) -> Callable[[DnsServer, str], None]:
    def prepare(server: DnsServer, kind: str) -> None:
        put(server, kind, f"MX 10 {host}.")
        server.set(host, "A 192.0.2.1")

    return prepare


def failing_server_first(server: DnsServer, kind: str) -> None:
    server.set("home.test", "MX 10 gone.test.", "MX 20 mx.home.test.", f"A {TRAP}")
    server.behave("gone.test", Behaviour.SERVFAIL)


def reached(kind: str) -> Outcome:
    return [REACHED[kind]]


def both(kind: str) -> Outcome:
    return [REACHED[kind], MORE_REACHED[kind]]


def always(outcome: Outcome) -> Callable[[str], Outcome]:
    return lambda _: outcome


def for_mx(outcome: Outcome, otherwise: Outcome) -> Callable[[str], Outcome]:
    """What is final for a domain's owner is a mistake that gets mended for a host that the owner has named."""
    return lambda kind: outcome if kind == "MX" else otherwise


ALL_KINDS = {
    "one record": Row(records(GOOD.__getitem__), reached),
    "several records": Row(records(GOOD.__getitem__, MORE.__getitem__), both),
    "the same record twice": Row(records(GOOD.__getitem__, GOOD.__getitem__), reached),
    "a chain of aliases": Row(chain, reached),
    "a loop of aliases": Row(loop, always(LATER)),
    "an alias of what does not exist": Row(nowhere, for_mx((Failed, "no-such-domain"), LATER_AS_HOSTS_GET_MENDED)),
    "no record of the kind": Row(behaves(Behaviour.EMPTY), for_mx([TRAP], LATER_AS_HOSTS_GET_MENDED)),
    "no such name": Row(behaves(Behaviour.NXDOMAIN), for_mx((Failed, "no-such-domain"), LATER_AS_HOSTS_GET_MENDED)),
    "a server failure": Row(behaves(Behaviour.SERVFAIL), always(LATER)),
    "a refusal": Row(behaves(Behaviour.REFUSED), always(LATER)),
    "a format error": Row(behaves(Behaviour.FORMERR), always(LATER)),
    "not implemented": Row(behaves(Behaviour.NOTIMP), always(LATER)),
    "not authoritative": Row(behaves(Behaviour.NOTAUTH), always(LATER)),
    "silence": Row(behaves(Behaviour.TIMEOUT), always(LATER)),
    "a truncated answer": Row(behaves(Behaviour.TRUNCATED), reached),
    "a truncated answer, and silence over TCP": Row(behaves(Behaviour.TRUNCATED_FOR_GOOD), always(LATER)),
    "a referral": Row(behaves(Behaviour.LAME), always(LATER)),
    "another id": Row(behaves(Behaviour.WRONG_ID), always(LATER)),
    "another question": Row(behaves(Behaviour.WRONG_QUESTION), always(LATER)),
    "garbage": Row(behaves(Behaviour.GARBAGE), always(LATER)),
    "half a message": Row(behaves(Behaviour.HALF), always(LATER)),
    "not one octet": Row(behaves(Behaviour.NOTHING), always(LATER)),
}
"""Answers that any question can get."""

ONLY_MX = {
    "a null MX": Row(records("MX 0 ."), always((Failed, "null-mx"))),
    "a null MX of another preference": Row(records("MX 10 ."), always((Failed, "null-mx"))),
    "a null MX beside a host": Row(records("MX 0 .", "MX 10 mx.home.test."), always(["192.0.2.1"])),
    "an IP address for a host": Row(records("MX 10 192.0.2.1."), always(LATER_AS_HOSTS_GET_MENDED)),
    "a host that is an alias": Row(to_alias, always(["192.0.2.1"])),
    "a host with an underscore": Row(odd_host("mx_1.home.test"), always(["192.0.2.1"])),
    "a host with a label of 63 octets": Row(odd_host("x" * 63 + ".test"), always(["192.0.2.1"])),
    "a host in upper case": Row(records("MX 10 MX.HOME.TEST."), always(["192.0.2.1"])),
    "the highest preference there is": Row(records("MX 65535 mx.home.test."), always(["192.0.2.1"])),
    "a first host whose address cannot be had": Row(failing_server_first, always(["192.0.2.1"])),
}

CASES = [
    *((answer, kind, row) for answer, row in ALL_KINDS.items() for kind in KINDS),
    *((answer, "MX", row) for answer, row in ONLY_MX.items()),
]


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as running:
        yield running


async def mail_for_home(server: DnsServer, timeout_s: float = SILENCE_S) -> list[HostAddress] | Deferred | Failed:
    """The addresses, or what becomes of the mail."""
    resolver = DnsResolver([(server.address, server.port)], timeout_s)
    try:
        return await find_addresses(resolver, "home.test", HostSettings("mx.onward.test", loopback_destinations=True))
    except NoHosts as none:
        return none.outcome


@pytest.mark.parametrize(("answer", "kind", "row"), CASES, ids=[f"{kind}: {answer}" for answer, kind, _ in CASES])
async def test_what_an_answer_comes_to(server: DnsServer, answer: str, kind: str, row: Row) -> None:
    server.set("home.test", GOOD["MX"], f"A {TRAP}")
    server.set("mx.home.test", GOOD["AAAA" if kind == "AAAA" else "A"])
    server.set("mx.more.test", "A 192.0.2.3")
    row.prepare(server, kind)
    expected = row.comes_to(kind)
    outcome = await mail_for_home(server, SILENCE_S if expected == (Deferred, "dns-failed") else ANSWER_S)
    if isinstance(expected, list):
        assert isinstance(outcome, list), outcome
        found = [each.address for each in outcome]
        # Addresses of one host come in any order.
        assert found == expected if kind == "MX" else sorted(found) == sorted(expected)
    else:
        assert isinstance(outcome, expected[0]), outcome
        assert outcome.answer.reason == expected[1]
        assert outcome.answer.enhanced_code.startswith("4." if expected[0] is Deferred else "5.")
        assert (outcome.answer.code == 0) == (expected[0] is Deferred)


@pytest.mark.parametrize("kind", KINDS)
async def test_of_many_records_only_so_many_are_tried(server: DnsServer, kind: str) -> None:
    server.set("home.test", GOOD["MX"])
    many(server, kind)
    outcome = await mail_for_home(server)
    assert isinstance(outcome, list)
    if kind == "MX":
        assert [each.host for each in outcome] == [f"mx{number}.many.test" for number in range(10)], "the best of them"
    else:
        assert len({each.address for each in outcome}) == MAX_ADDRESSES


ANSWERS = (Behaviour.EMPTY, Behaviour.NXDOMAIN, Behaviour.TRUNCATED)
"""What is no failure: the records, or the authority's word that there are none."""


@pytest.mark.parametrize("failing", [each for each in Behaviour if each not in ANSWERS])
async def test_no_failure_of_the_dns_is_ever_permanent(server: DnsServer, failing: Behaviour) -> None:
    """Whatever is asked fails in one way: there is not one of them that bounces mail."""
    for name in ("home.test", "mx.home.test"):
        server.behave(name, failing)
    assert isinstance(await mail_for_home(server), Deferred)


@pytest.mark.parametrize("family", ["A", "AAAA"])
@pytest.mark.parametrize("failing", [Behaviour.SERVFAIL, Behaviour.TIMEOUT, Behaviour.LAME, Behaviour.NXDOMAIN])
async def test_one_family_that_fails_does_not_hide_the_other(
    server: DnsServer, family: str, failing: Behaviour
) -> None:
    server.set("home.test", GOOD["MX"])
    server.set("mx.home.test", GOOD["A"], GOOD["AAAA"])
    server.behave("mx.home.test", failing, family)
    outcome = await mail_for_home(server)
    assert isinstance(outcome, list)
    assert [each.address for each in outcome] == [REACHED["AAAA" if family == "A" else "A"]]


@pytest.mark.parametrize("authenticated", [True, False])
async def test_whose_host_it_is_is_known_where_the_dns_has_proven_it(server: DnsServer, authenticated: bool) -> None:
    server.set("home.test", GOOD["MX"])
    server.set("mx.home.test", GOOD["A"])
    server.authenticated = authenticated
    outcome = await mail_for_home(server)
    assert isinstance(outcome, list)
    assert [each.known for each in outcome] == [authenticated]
