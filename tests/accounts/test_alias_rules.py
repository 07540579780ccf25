"""Aliases: where they may lead, what they need, and what is left when they go."""

import itertools
import re

import pytest
from accounts_office import NOON, OWN_NAMES, PLANS, Office

from appliance.accounts.alias_rules import MAX_DESTINATIONS
from appliance.accounts.aliases import REFERENCE_ALPHABET, Aliases
from appliance.model.domain import AliasAction, AliasKind
from appliance.model.refused import Refused
from appliance.privacy.declarations import ALIASES, DESTINATIONS
from appliance.storage.records import Update


@pytest.fixture
def hosted(office: Office) -> Office:
    """An office with one account and one domain."""
    office.domain("example.org", office.account())
    return office


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("Sales@Example.org", AliasKind.EXACT),
        ("sales*@example.org", AliasKind.WILDCARD),
        ("*@example.org", AliasKind.CATCH_ALL),
    ],
)
def test_an_alias_comes_back_as_it_was_added(hosted: Office, address: str, kind: AliasKind) -> None:
    added = hosted.aliases.add(
        address, ["Ada@Home.test", "bob@home.test"], confirmed=True, expires_at=NOON + 1, description="for the shop"
    )
    assert list(hosted.aliases.every()) == list(hosted.aliases.every("EXAMPLE.org")) == [added]
    assert added.alias.kind is kind
    assert added.alias.targets == ("Ada@home.test", "bob@home.test")
    assert added.destinations == (("Ada@home.test", True), ("bob@home.test", True))
    assert (added.alias.created_at, added.alias.expires_at) == (NOON, NOON + 1)
    assert re.fullmatch("[a-z2-7]{6}", added.alias.reference)
    assert hosted.aliases.remove(address) == added
    assert list(hosted.aliases.every()) == []


def test_an_international_alias_is_found_however_it_is_spelled(office: Office) -> None:
    office.domain("Bücher.example", office.account())
    added = office.aliases.add(
        "Jo\u0308rg@bücher.example", ["Zoë@Café.test", "ZOE\u0308@xn--caf-dma.test"], confirmed=True
    )
    assert (added.alias.pattern, added.domain.name) == ("jörg", "xn--bcher-kva.example")
    assert added.alias.targets == ("ZOË@xn--caf-dma.test",), "one mailbox, in the spelling that was typed last"
    assert [row["target"] for row in office.records.find(DESTINATIONS, {})] == ["zoë@xn--caf-dma.test"]
    assert list(office.aliases.every("BÜCHER.example")) == [added]
    with pytest.raises(Refused, match="already"):
        office.aliases.add("JÖRG@xn--bcher-kva.example", ["zoë@café.test"])
    assert office.aliases.add("büro*@bücher.example", ["zoë@café.test"]).alias.kind is AliasKind.WILDCARD
    office.aliases.remove("BÜRO*@bücher.example")
    assert office.records.count(DESTINATIONS, {}) == 1
    assert office.aliases.remove("JO\u0308RG@BU\u0308CHER.example") == added
    assert office.records.count(DESTINATIONS, {}) == 0


@pytest.mark.parametrize("action", [AliasAction.REJECT, AliasAction.DEFER, AliasAction.DISCARD])
def test_an_alias_that_forwards_nothing_has_no_destination_and_needs_no_consent(
    hosted: Office, action: AliasAction
) -> None:
    assert hosted.aliases.add("a@example.org", action=action).alias.targets == ()
    with pytest.raises(Refused, match="takes no destination"):
        hosted.aliases.add("b@example.org", ["ada@home.test"], action=action, confirmed=True)


@pytest.mark.parametrize(
    ("address", "destinations", "why", "field"),
    [
        ("taken@example.org", ["ada@home.test"], "already", "pattern"),
        ("TAKEN@example.org", ["ada@home.test"], "already", "pattern"),
        ('"taken"@example.org', ["ada@home.test"], "already", "pattern"),
        ("a@other.test", ["ada@home.test"], "not hosted here", "domain"),
        ("a*b@example.org", ["ada@home.test"], "only at its end", "pattern"),
        ("/(/@example.org", ["ada@home.test"], r"expression: missing \)", "pattern"),
        ("a@example.org", [], "at least one destination", "destinations"),
        ("a@example.org", ["nonsense"], "not an email address", "destinations"),
        ("a@example.org", ["ada@home.test", "ada@localhost"], "one label", "destinations"),
        ("a@example.org", ["ada@[127.0.0.1]"], "IP address", "destinations"),
        ("a@example.org", ["https://hooks.home.test/x"], "not an email address", "destinations"),
        ("a@example.org", ["ada@MX.onward.test"], "this appliance itself", "destinations"),
        ("a@example.org", ["x@srs.mx.onward.test"], "this appliance itself", "destinations"),
        ("a@example.org", [f"a{n}@home.test" for n in range(MAX_DESTINATIONS + 1)], "at most 10", "destinations"),
    ],
)
def test_an_alias_that_breaks_a_rule_is_refused_and_leaves_nothing(
    hosted: Office, address: str, destinations: list[str], why: str, field: str
) -> None:
    hosted.aliases.add("taken@example.org", ["first@home.test"], confirmed=True)
    before = hosted.generation()
    with pytest.raises(Refused, match=why) as refused:
        hosted.aliases.add(address, destinations, confirmed=True)
    assert refused.value.field == field
    assert hosted.records.count(ALIASES, {}) == hosted.records.count(DESTINATIONS, {}) == 1
    assert hosted.generation() == before


def test_the_largest_number_of_destinations_is_taken_and_each_counts_once(hosted: Office) -> None:
    targets = [f"a{n}@home.test" for n in range(MAX_DESTINATIONS)]
    added = hosted.aliases.add("a@example.org", [*targets, "A0@HOME.test"], confirmed=True)
    assert len(added.alias.targets) == MAX_DESTINATIONS


def test_nothing_is_forwarded_to_a_mailbox_whose_owner_has_not_agreed(hosted: Office) -> None:
    with pytest.raises(Refused, match=r"ada@home\.test is not confirmed.*--confirmed"):
        hosted.aliases.add("a@example.org", ["ada@home.test"])
    hosted.aliases.add("a@example.org", ["ada@home.test"], confirmed=True)
    # Who has agreed once is not asked again by the same account; others are.
    hosted.aliases.add("b@example.org", ["Ada@home.test"])
    with pytest.raises(Refused, match=r"^bob@home\.test is not confirmed"):
        hosted.aliases.add("c@example.org", ["ada@home.test", "bob@home.test"])
    hosted.domain("bob.test", hosted.account("bob@people.test"))
    with pytest.raises(Refused, match="not confirmed"):
        hosted.aliases.add("d@bob.test", ["ada@home.test"])


def test_vouching_confirms_a_destination_that_was_not(hosted: Office) -> None:
    hosted.aliases.add("a@example.org", ["ada@home.test"], confirmed=True)
    hosted.records.apply([Update(DESTINATIONS, {}, {"confirmed_at": None})])
    (listed,) = hosted.aliases.every()
    assert listed.destinations == (("ada@home.test", False),)
    hosted.aliases.add("b@example.org", ["ada@home.test"], confirmed=True)
    assert [listed.destinations for listed in hosted.aliases.every()] == [(("ada@home.test", True),)] * 2


def test_a_destination_goes_with_the_last_alias_that_leads_to_it(hosted: Office) -> None:
    hosted.aliases.add("a@example.org", ["ada@home.test", "bob@home.test"], confirmed=True)
    hosted.aliases.add("b@example.org", ["ADA@home.test"], confirmed=True)
    hosted.aliases.remove("a@example.org")
    assert [row["target"] for row in hosted.records.find(DESTINATIONS, {})] == ["ada@home.test"]
    hosted.aliases.remove("b@example.org")
    assert hosted.records.find(DESTINATIONS, {}) == []


def test_an_alias_that_would_have_expired_already_is_refused(hosted: Office) -> None:
    with pytest.raises(Refused, match="expired") as refused:
        hosted.aliases.add("a@example.org", ["ada@home.test"], confirmed=True, expires_at=NOON)
    assert refused.value.field == "expiresAt"


def test_a_plan_says_how_many_aliases(office: Office) -> None:
    office.domain("example.org", office.account(plan="free"))
    for number in range(PLANS["free"].max_aliases_per_domain):
        office.aliases.add(f"a{number}@example.org", action=AliasAction.REJECT)
    with pytest.raises(Refused, match="plan 'free' allows: 30"):
        office.aliases.add("one-more@example.org", action=AliasAction.REJECT)


def test_a_reference_that_is_taken_is_drawn_again(hosted: Office) -> None:
    drawn = itertools.cycle("aaaaaa" + "aaaaaa" + "bbbbbb")
    aliases = Aliases(hosted.records, PLANS, OWN_NAMES, lambda: NOON, choose=lambda _: next(drawn))
    first = aliases.add("a@example.org", action=AliasAction.REJECT)
    second = aliases.add("b@example.org", action=AliasAction.REJECT)
    assert [first.alias.reference, second.alias.reference] == ["aaaaaa", "bbbbbb"]
    assert set("ab") < set(REFERENCE_ALPHABET)


def test_drawing_ends_when_no_reference_is_free(hosted: Office) -> None:
    aliases = Aliases(hosted.records, PLANS, OWN_NAMES, lambda: NOON, choose=lambda _: "a")
    aliases.add("a@example.org", action=AliasAction.REJECT)
    with pytest.raises(Refused, match="try again"):
        aliases.add("b@example.org", action=AliasAction.REJECT)
