"""Accounts and domains: what may be added, what goes with what, and that routing is told each time."""

import pytest
from accounts_office import NOON, PLANS, Office

from appliance.accounts.accounts import Accounts
from appliance.accounts.domains import Domains
from appliance.model.account import Role
from appliance.model.domain import DeliveryMode, LogLevel, QuarantineAction
from appliance.model.event import DeliveryEvent, EventType
from appliance.model.refused import Refused
from appliance.privacy.declarations import ALIASES, DESTINATIONS, DOMAINS, EVENTS
from appliance.storage.event_rows import event_to_row
from appliance.storage.records import Insert


def test_an_account_comes_back_as_it_was_added(office: Office) -> None:
    added = office.accounts.add("Ada@People.test", role=Role.OPERATOR, plan="large", password_hash="$argon2id$...")
    assert office.accounts.of("ada@people.test") == added
    assert list(office.accounts.every()) == [added]
    assert (added.email, added.role, added.plan) == ("ada@people.test", Role.OPERATOR, "large")
    assert (added.email_verified, added.created_at) == (True, NOON)
    assert added.password_hash == "$argon2id$..."


def test_a_new_account_has_the_plan_free_or_else_the_first(office: Office) -> None:
    assert office.accounts.add("ada@people.test").plan == "free"
    other = Accounts(office.records, {"huge": PLANS["large"]})
    assert other.add("bob@people.test").plan == "huge"


@pytest.mark.parametrize(
    ("email", "plan", "field"),
    [
        ("ada@people.test", None, "email"),
        ("ADA@people.test", None, "email"),
        ("nonsense", None, "email"),
        ("bob@people.test", "gold", "plan"),
    ],
)
def test_an_account_that_breaks_a_rule_is_refused(office: Office, email: str, plan: str | None, field: str) -> None:
    office.account("ada@people.test")
    before = office.generation()
    with pytest.raises(Refused) as refused:
        office.accounts.add(email, plan=plan)
    assert refused.value.field == field
    assert len(list(office.accounts.every())) == 1
    assert office.generation() == before


def test_a_plan_is_changed_to_one_of_the_configuration_and_routing_hears_of_it(office: Office) -> None:
    ada = office.account()
    before = office.generation()
    changed = office.accounts.set_plan(ada.id, "free")
    assert changed is not None
    assert changed.plan == "free"
    assert office.accounts.with_id(ada.id) == changed
    assert office.generation() == before + 1
    with pytest.raises(Refused, match="no plan 'gold'"):
        office.accounts.set_plan(ada.id, "gold")
    assert office.accounts.set_plan("nobody", "free") is None


def test_a_domain_comes_back_as_it_was_added_and_changed(office: Office) -> None:
    ada = office.account()
    added = office.domain("Example.ORG", ada)
    assert office.domains.named("example.org.") == added
    changed = office.domains.change("example.org", log_level=LogLevel.NONE)
    assert changed.log_level is LogLevel.NONE
    assert changed.delivery_mode is DeliveryMode.SPOOL
    assert list(office.domains.every()) == [changed]


def test_every_change_tells_routing(office: Office) -> None:
    told = [office.generation()]
    ada = office.account()
    told.append(office.generation())
    office.domain("example.org", ada)
    told.append(office.generation())
    office.aliases.add("*@example.org", ["ada@home.test"], confirmed=True)
    told.append(office.generation())
    office.domains.change("example.org", log_level=LogLevel.ERRORS)
    told.append(office.generation())
    office.aliases.remove("*@example.org")
    told.append(office.generation())
    office.domains.remove("example.org")
    told.append(office.generation())
    office.delete("ada@people.test")
    told.append(office.generation())
    assert told == list(range(8))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("taken.test", "hosted here already"),
        ("TAKEN.test.", "hosted here already"),
        ("mx.onward.test", "this appliance itself"),
        ("SRS.mx.onward.test", "this appliance itself"),
        ("localhost", "one label"),
        ("[192.0.2.1]", "IP address"),
    ],
)
def test_a_domain_that_breaks_a_rule_is_refused(office: Office, name: str, why: str) -> None:
    office.domain("taken.test", office.account())
    other = office.account("bob@people.test")
    with pytest.raises(Refused, match=why):
        office.domain(name, other)
    assert len(list(office.domains.every())) == 1


def test_an_own_unverified_domain_is_verified_by_adding_it_again(office: Office) -> None:
    ada, bob = office.account(), office.account("bob@people.test")
    added = office.domain("example.org", ada, verified=False)
    assert not added.verified
    with pytest.raises(Refused, match="already"):
        office.domain("example.org", ada, verified=False)
    verified = office.domain("example.org", ada)
    assert verified.verified
    assert verified.id == added.id
    assert office.domains.named("example.org") == verified
    for account in (ada, bob):
        with pytest.raises(Refused, match="already"):
            office.domain("example.org", account)


def test_what_several_accounts_have_added_and_none_has_proven_is_each_ones_own(office: Office) -> None:
    ada, bob = office.account(), office.account("bob@people.test")
    first, second = office.domain("example.org", ada, verified=False), office.domain("example.org", bob, verified=False)
    assert office.domains.named("example.org") == office.domains.of(ada.id, "example.org") == first
    assert office.domains.of(bob.id, "EXAMPLE.org.") == second
    assert office.domains.page(bob.id, None, 10) == [second]
    proven = office.domain("example.org", bob)
    assert office.domains.named("example.org") == proven, "whoever has it speaks for it"
    with pytest.raises(Refused, match="hosted here already"):
        office.domain("example.org", ada)
    office.domains.erase(proven)
    assert list(office.domains.every()) == [first]
    assert office.domain("example.org", ada).verified


def test_what_is_set_of_a_domain_stays_set_and_the_rest_stays(office: Office) -> None:
    added = office.domain("example.org", office.account())
    assert (added.quarantine_action, added.allow_from_rewrite) == (QuarantineAction.FORWARD, False)
    changed = office.domains.update(added, quarantine_action=QuarantineAction.REJECT, allow_from_rewrite=True)
    assert office.domains.with_id(added.id) == changed
    assert (changed.quarantine_action, changed.allow_from_rewrite) == (QuarantineAction.REJECT, True)
    before = office.generation()
    assert office.domains.update(changed) == changed
    assert office.generation() == before, "nothing was changed, and routing has nothing to look at"
    stale = office.domains.update(added, allow_from_rewrite=False)
    assert stale.quarantine_action is QuarantineAction.REJECT
    office.domains.erase(added)
    with pytest.raises(Refused, match="not hosted"):
        office.domains.update(added, allow_from_rewrite=True)


def test_a_plan_says_how_many_domains(office: Office) -> None:
    ada = office.account(plan="free")
    office.domain("one.test", ada)
    office.domain("two.test", ada)
    with pytest.raises(Refused, match="plan 'free' allows: 2"):
        office.domain("three.test", ada)
    office.domains.remove("one.test")
    office.domain("three.test", ada)


def test_a_plan_that_the_configuration_has_lost_is_named(office: Office) -> None:
    ada = office.account(plan="large")
    domains = Domains(office.records, {"free": PLANS["free"]}, frozenset())
    with pytest.raises(Refused, match=r"plan 'large' of ada@people\.test is not in the configuration"):
        domains.add("a.test", ada, verified=True, delivery_mode=DeliveryMode.SPOOL, log_level=LogLevel.NONE)


def test_a_domain_is_taken_into_transit_and_out_of_it(office: Office) -> None:
    ada = office.account()
    office.domains.add("a.test", ada, verified=True, delivery_mode=DeliveryMode.TRANSIT, log_level=LogLevel.NONE)
    assert office.domains.named("a.test").delivery_mode is DeliveryMode.TRANSIT
    for mode in (DeliveryMode.SPOOL, DeliveryMode.TRANSIT):
        office.domains.change("a.test", delivery_mode=mode)
        assert office.domains.named("a.test").delivery_mode is mode


def test_what_is_not_there_is_refused(office: Office) -> None:
    office.domain("example.org", office.account())
    before = office.generation()
    for attempt in (
        lambda: office.accounts.of("nobody@people.test"),
        lambda: office.delete("nobody@people.test"),
        lambda: office.domains.named("other.test"),
        lambda: office.domains.remove("other.test"),
        lambda: office.domains.change("other.test", log_level=LogLevel.NONE),
        lambda: office.aliases.remove("a@example.org"),
        lambda: office.aliases.remove("a@other.test"),
        lambda: list(office.aliases.every("other.test")),
    ):
        with pytest.raises(Refused):
            attempt()
    assert office.generation() == before


def test_deleting_an_account_leaves_nothing_of_it_and_all_of_the_others(office: Office) -> None:
    for email, domain in (("ada@people.test", "ada.test"), ("bob@people.test", "bob.test")):
        hosted = office.domain(domain, office.account(email))
        office.aliases.add(f"a@{domain}", ["x@home.test", "y@home.test"], confirmed=True)
        office.aliases.add(f"*@{domain}", ["y@home.test"], confirmed=True)
        office.records.apply([Insert(EVENTS, event_to_row(_event(hosted.id)))])
    removed = office.delete("Ada@people.test")
    assert {collection: count for collection, count in removed.items() if count} == {
        "accounts": 1,
        "domains": 1,
        "aliases": 2,
        "destinations": 2,
        "events": 1,
    }
    assert [account.email for account in office.accounts.every()] == ["bob@people.test"]
    assert [office.records.count(c, {}) for c in (DOMAINS, ALIASES, DESTINATIONS, EVENTS)] == [1, 2, 2, 1]


def test_removing_a_domain_takes_its_aliases_its_log_and_the_destinations_that_only_it_used(office: Office) -> None:
    ada = office.account()
    hosted = office.domain("one.test", ada)
    office.domain("two.test", ada)
    office.aliases.add("a@one.test", ["only@home.test", "Both@home.test"], confirmed=True)
    office.aliases.add("b@two.test", ["both@home.test"], confirmed=True)
    office.records.apply([Insert(EVENTS, event_to_row(_event(hosted.id)))])
    office.domains.remove("one.test")
    assert [domain.name for domain in office.domains.every()] == ["two.test"]
    assert office.records.count(EVENTS, {}) == 0
    assert office.records.count(ALIASES, {}) == 1
    assert [row["target"] for row in office.records.find(DESTINATIONS, {})] == ["both@home.test"]


def _event(domain_id: str) -> DeliveryEvent:
    return DeliveryEvent(
        id=f"e-{domain_id}",
        message_id="m",
        domain_id=domain_id,
        at=NOON,
        type=EventType.RECEIVED,
        sender="s@sender.test",
        recipient="a@ada.test",
        size=1,
        code=250,
        enhanced_code="2.0.0",
        reason="accepted",
        response="OK",
        attempt=0,
        duration_ms=0,
    )
