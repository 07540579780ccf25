"""Whose a domain is: what a DNS server on loopback says of it, asked by the resolver that the appliance has."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from accounts_office import Office
from dns_server import Behaviour, DnsServer

from appliance.accounts.ownership import CHALLENGE_LABEL, DnsPurpose, DnsRecord, Ownership
from appliance.configuration import load
from appliance.model.domain import Domain
from appliance.model.refused import Refused
from appliance.privacy.declarations import DOMAINS
from appliance.privacy.sealing import Sealer
from appliance.run.dns_questions import DnsQuestions
from appliance.storage.records import Update

HOSTNAME = "mx.onward.test"
SEALER = Sealer(bytes(range(32)))
CHALLENGE = f"{CHALLENGE_LABEL}.example.org"


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    """A name server that knows nothing yet."""
    with DnsServer({"org": ['TXT "the zone above"']}) as server:
        yield server


@pytest.fixture
def ownership(office: Office, dns: DnsServer, tmp_path: Path) -> Ownership:
    """What asks that name server."""
    path = tmp_path / "onward.toml"
    path.write_text(f'hostname = "{HOSTNAME}"\n[dns]\nnameservers = ["{dns.nameserver}"]\ntimeout = "1s"\n')
    return Ownership(office.records, HOSTNAME, SEALER, DnsQuestions(load(path), trio.run))


@pytest.fixture
def claimed(office: Office) -> Domain:
    """A domain that nobody has proven."""
    return office.domain("example.org", office.account(), verified=False)


def publish(dns: DnsServer, name: str, *texts: str) -> None:
    dns.set(name, *(f'TXT "{text}"' for text in texts))


def record(ownership: Ownership, domain: Domain, purpose: DnsPurpose) -> DnsRecord:
    (found,) = [each for each in ownership.records_of(domain) if each.purpose is purpose]
    return found


def test_a_domain_is_verified_by_its_record_and_stays_so_without_it(
    office: Office, ownership: Ownership, claimed: Domain, dns: DnsServer
) -> None:
    before, records = ownership.check(claimed)
    assert not before.verified
    asked = records[0]
    assert (asked.name, asked.type, asked.ok, asked.required) == (CHALLENGE, "TXT", False, True)
    generation = office.generation()
    publish(dns, CHALLENGE, "something else", asked.expected)
    after, records = ownership.check(claimed)
    assert after.verified
    assert (records[0].ok, records[0].advice) == (True, None)
    assert office.domains.of(claimed.account_id, "example.org") == after
    assert office.generation() == generation + 1, "routing is told"
    dns.remove(CHALLENGE)
    again, records = ownership.check(after)
    assert again.verified
    assert records[0].ok


def test_a_record_proves_a_domain_for_one_account_alone(
    office: Office, ownership: Ownership, claimed: Domain, dns: DnsServer
) -> None:
    other = office.domain("example.org", office.account("bob@people.test"), verified=False)
    assert ownership.challenge(claimed) != ownership.challenge(other)
    publish(dns, CHALLENGE, ownership.challenge(claimed))
    unproven, records = ownership.check(other)
    assert not unproven.verified
    assert "for another account" in (records[0].advice or "")
    assert ownership.check(claimed)[0].verified


def test_the_same_is_asked_for_after_a_domain_was_removed_and_added_again(
    office: Office, ownership: Ownership, claimed: Domain
) -> None:
    office.domains.erase(claimed)
    again = office.domain("example.org", office.accounts.of("ada@people.test"), verified=False)
    assert again.id != claimed.id
    assert ownership.challenge(again) == ownership.challenge(claimed)


def test_of_two_who_can_prove_it_the_first_has_the_domain(
    office: Office, ownership: Ownership, claimed: Domain, dns: DnsServer
) -> None:
    other = office.domain("example.org", office.account("bob@people.test"), verified=False)
    publish(dns, CHALLENGE, ownership.challenge(claimed), ownership.challenge(other))
    ownership.check(other)
    with pytest.raises(Refused, match="Another account") as refused:
        ownership.check(claimed)
    assert refused.value.code == "PROVEN_ELSEWHERE"
    # As two do who check at the same instant: neither has seen the other, and the store lets one through.
    office.records.apply([Update(DOMAINS, {"id": other.id}, {"verified": False})])
    with pytest.raises(Refused) as refused:
        ownership.check(claimed)
    assert refused.value.code == "PROVEN_ELSEWHERE"


@pytest.mark.parametrize("behaviour", [Behaviour.SERVFAIL, Behaviour.TIMEOUT, Behaviour.REFUSED])
def test_a_lookup_that_fails_is_not_taken_for_a_missing_record(
    ownership: Ownership, claimed: Domain, dns: DnsServer, behaviour: Behaviour
) -> None:
    dns.behave(CHALLENGE, behaviour)
    with pytest.raises(Refused, match="could not be looked up") as refused:
        ownership.check(claimed)
    assert refused.value.code == "DNS_UNAVAILABLE"
    found = record(ownership, claimed, DnsPurpose.OWNERSHIP)
    assert (found.found, found.ok) == ((), False)
    assert "no answer" in (found.advice or "")


def test_a_domain_that_is_verified_keeps_that_while_the_dns_is_away(
    ownership: Ownership, office: Office, dns: DnsServer
) -> None:
    hosted = office.domain("example.org", office.account())
    for name in (CHALLENGE, "example.org", "_dmarc.example.org"):
        dns.behave(name, Behaviour.SERVFAIL)
    domain, records = ownership.check(hosted)
    assert domain.verified
    assert [each.ok for each in records] == [False] * 4
    assert all("nothing is known" in (each.advice or "") for each in records)


@pytest.mark.parametrize(
    ("published", "ok", "advice"),
    [
        ([], False, "No server takes mail"),
        (["MX 10 mx.onward.test."], True, None),
        (["MX 5 MX.Onward.Test."], True, None),
        (["MX 10 mx.onward.test.", "MX 20 backup.test."], True, None),
        (["MX 10 mx.onward.test.", "MX 10 other.test."], False, "no worse than ours"),
        (["MX 10 mx.onward.test.", "MX 5 other.test."], False, "other.test"),
        (["MX 10 other.test."], False, "goes elsewhere, to other.test"),
        (["MX 0 ."], False, "null MX"),
    ],
)
def test_what_an_mx_has_to_say(
    ownership: Ownership, claimed: Domain, dns: DnsServer, published: list[str], ok: bool, advice: str | None
) -> None:
    dns.set("example.org", *published)
    found = record(ownership, claimed, DnsPurpose.MX)
    assert (found.name, found.type, found.expected) == ("example.org", "MX", f"10 {HOSTNAME}")
    assert (found.ok, found.required) == (ok, True)
    assert found.advice is None if advice is None else advice in (found.advice or "")
    assert len(found.found) == len(published)


@pytest.mark.parametrize(
    ("purpose", "name", "published", "ok", "advice"),
    [
        (DnsPurpose.SPF, "example.org", [], False, "anybody may try"),
        (DnsPurpose.SPF, "example.org", ["v=spf1 mx ~all"], True, ""),
        (DnsPurpose.SPF, "example.org", ["site-verification=x", "V=SPF1 include:a.test -all"], True, ""),
        (DnsPurpose.SPF, "example.org", ["v=spf10 -all"], False, "anybody may try"),
        (DnsPurpose.SPF, "example.org", ["v=spf1 -all", "v=spf1 mx ~all"], False, "more than one"),
        (DnsPurpose.SPF, "example.org", ["v=spf1 mx +all"], False, "+all"),
        (DnsPurpose.DMARC, "_dmarc.example.org", [], False, "forgeries"),
        (DnsPurpose.DMARC, "_dmarc.example.org", ["v=DMARC1; p=reject; rua=mailto:a@b.test"], True, ""),
        (DnsPurpose.DMARC, "_dmarc.example.org", ["v=DMARC1;p=none"], False, "only watches"),
        (DnsPurpose.DMARC, "_dmarc.example.org", ["v=DMARC1; p=none", "v=DMARC1; p=reject"], False, "more than one"),
        (DnsPurpose.DMARC, "_dmarc.example.org", ["p=reject; v=DMARC1"], False, "forgeries"),
    ],
)
def test_what_is_wrong_with_a_policy_is_told_and_mail_flows_all_the_same(
    ownership: Ownership,
    claimed: Domain,
    dns: DnsServer,
    purpose: DnsPurpose,
    name: str,
    published: list[str],
    ok: bool,
    advice: str,
) -> None:
    publish(dns, name, *published)
    found = record(ownership, claimed, purpose)
    assert (found.name, found.type, found.ok, found.required) == (name, "TXT", ok, False)
    assert (found.advice is None) is ok
    assert advice in (found.advice or "")


def test_only_what_the_appliance_can_do_is_asked_for(ownership: Ownership, claimed: Domain) -> None:
    asked_for = [each.purpose for each in ownership.records_of(claimed)]
    assert asked_for == [DnsPurpose.OWNERSHIP, DnsPurpose.MX, DnsPurpose.SPF, DnsPurpose.DMARC]


def test_a_record_in_several_strings_is_one(ownership: Ownership, claimed: Domain, dns: DnsServer) -> None:
    value = ownership.challenge(claimed)
    dns.set(CHALLENGE, f'TXT "{value[:9]}" "{value[9:]}"')
    assert ownership.check(claimed)[0].verified
