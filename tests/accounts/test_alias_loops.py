"""Aliases that lead to aliases: circles and endless chains are refused when they are made, all else is allowed."""

import pytest
from accounts_office import Office

from appliance.model.domain import AliasAction
from appliance.model.refused import Refused
from appliance.privacy.declarations import ALIASES, DESTINATIONS
from appliance.routing.route import MAX_COPIES, MAX_DEPTH
from appliance.storage.records import Update


@pytest.fixture
def town(office: Office) -> Office:
    """Two accounts with a domain each."""
    office.domain("a.test", office.account("ada@people.test"))
    office.domain("b.test", office.account("bob@people.test"))
    return office


def lead(office: Office, *aliases: str) -> None:
    """Make aliases, written `name@domain>target,target`."""
    for alias in aliases:
        address, _, targets = alias.partition(">")
        office.aliases.add(address, targets.split(","), confirmed=True)


@pytest.mark.parametrize(
    ("made", "refused"),
    [
        ([], "x@a.test>x@a.test"),
        ([], "x@a.test>X@A.test"),
        ([], "x@a.test>home@home.test,x@a.test"),
        ([], "*@a.test>x@a.test"),
        ([], "sales*@a.test>sales-team@a.test"),
        ([], "x@a.test>x+tag@a.test"),
        ([], '"x y"@a.test>"X y"@a.test'),
        ([], "jörg@a.test>JO\u0308RG@a.test"),
        ([], "bü*@a.test>büro@a.test"),
        (["x@a.test>y@a.test"], "y@a.test>x@a.test"),
        (["x@a.test>y@b.test"], "y@b.test>x@a.test"),
        (["x@a.test>y@b.test", "y@b.test>z@a.test"], "*@a.test>q@b.test,x@a.test"),
        (["x@a.test>y@b.test"], "*@b.test>x@a.test"),
        (["x@a.test>yes@b.test"], "y*@b.test>x@a.test"),
        (["*@b.test>x@a.test"], "x@a.test>whoever@b.test"),
        # Of names that others take, one is found that the new alias takes.
        (["sales@a.test>y@b.test", "sales0*@a.test>y@b.test"], "sales*@a.test>sales-team@a.test"),
        # Mail for postmaster is never refused, so another name has to show the circle.
        ([], "postmaster@a.test>postmaster+x@a.test"),
        ([], "postmaster*@a.test>postmasters@a.test"),
        (["postmaster+a@a.test>y@b.test"], "postmaster@a.test>postmaster@a.test"),
        # The new alias takes an address from the catch-all, and so closes a circle for those that lead to it.
        (["*@a.test>home@home.test", "y@b.test>x@a.test", "z@b.test>y@b.test"], "x@a.test>z@b.test"),
    ],
)
def test_a_circle_is_refused_with_its_path(town: Office, made: list[str], refused: str) -> None:
    lead(town, *made)
    with pytest.raises(Refused, match=r"in a circle: .+ → .+") as why:
        lead(town, refused)
    assert why.value.field == "destinations"
    assert len(list(town.aliases.every())) == len(made)


@pytest.mark.parametrize(
    "made",
    [
        # To a hosted address of the same account, and of another.
        ["x@a.test>home@home.test", "y@a.test>x@a.test"],
        ["x@a.test>home@home.test", "y@b.test>x@a.test"],
        # A catch-all that leads to a more particular alias of its own domain.
        ["x@a.test>home@home.test", "*@a.test>x@a.test"],
        ["x@a.test>home@home.test", "*@a.test>x+tag@a.test"],
        ["sales-team@a.test>home@home.test", "sales*@a.test>sales-team@a.test"],
        # The longer prefix takes it before the shorter one does.
        ["sales-t*@a.test>home@home.test", "sales*@a.test>sales-team@a.test"],
        # A diamond is no circle.
        ["d@a.test>home@home.test", "b@a.test>d@a.test", "c@a.test>d@a.test", "a@a.test>b@a.test,c@a.test"],
        # The plus-detail has an alias of its own.
        ["x+tag@a.test>home@home.test", "x@a.test>x+tag@a.test"],
        # To a hosted domain where no alias takes it (yet).
        ["x@a.test>y@b.test"],
    ],
)
def test_what_only_looks_like_a_circle_is_allowed(town: Office, made: list[str]) -> None:
    lead(town, *made)
    assert len(list(town.aliases.every())) == len(made)


def test_what_is_switched_off_or_not_confirmed_today_hides_no_circle(town: Office) -> None:
    lead(town, "x@a.test>home@home.test,y@b.test")
    everything: dict[str, object] = {"pattern": "x"}
    town.records.apply([Update(ALIASES, everything, {"enabled": False, "expires_at": 1})])
    town.records.apply([Update(DESTINATIONS, {"target": "home@home.test"}, {"confirmed_at": None})])
    with pytest.raises(Refused, match="in a circle"):
        lead(town, "y@b.test>x@a.test")


def test_a_domain_that_is_not_verified_is_foreign_to_others_and_not_to_its_owner(office: Office) -> None:
    ada, bob = office.account("ada@people.test"), office.account("bob@people.test")
    office.domain("a.test", ada)
    office.domain("claimed.test", bob, verified=False)
    lead(office, "*@claimed.test>x@a.test")
    lead(office, "x@a.test>somebody@claimed.test")
    with pytest.raises(Refused, match="in a circle"):
        lead(office, "y@claimed.test>y@claimed.test")


def test_an_alias_that_would_lead_to_too_many_mailboxes_is_refused(town: Office) -> None:
    hubs = [f"h{n}@a.test" for n in range(MAX_COPIES // 10)]
    lead(town, *(f"{hub}>" + ",".join(f"m{n}.{m}@home.test" for m in range(10)) for n, hub in enumerate(hubs)))
    lead(town, "all@a.test>" + ",".join(hubs), "more@b.test>all@a.test")
    with pytest.raises(Refused, match=f"more than {MAX_COPIES} mailboxes"):
        lead(town, "most@b.test>all@a.test,one-more@home.test")


def test_a_chain_of_somebody_else_forbids_nobody_an_alias(town: Office) -> None:
    lead(town, "n1@b.test>x@a.test", *(f"n{n}@b.test>n{n - 1}@b.test" for n in range(2, MAX_DEPTH + 1)))
    lead(town, "x@a.test>home@home.test")


def test_an_alias_that_forwards_nothing_ends_the_way(town: Office) -> None:
    town.aliases.add("x@a.test", action=AliasAction.REJECT)
    lead(town, "y@a.test>x@a.test")


def test_a_chain_has_an_end(town: Office) -> None:
    lead(town, "n1@a.test>home@home.test")
    for number in range(2, MAX_DEPTH + 1):
        lead(town, f"n{number}@a.test>n{number - 1}@a.test")
    with pytest.raises(Refused, match=f"more than {MAX_DEPTH}"):
        lead(town, f"far@a.test>n{MAX_DEPTH}@a.test")
    # The same end reached first by a short way and then by a long one.
    with pytest.raises(Refused, match=f"more than {MAX_DEPTH}"):
        lead(town, f"far@a.test>n1@a.test,n{MAX_DEPTH}@a.test")
    lead(town, f"far@a.test>n{MAX_DEPTH - 1}@a.test,n1@a.test")


def test_many_ways_to_the_same_place_are_walked_once(town: Office) -> None:
    """Five aliases in each of nine rows, each leading to all five of the row before: two million ways."""
    lead(town, *(f"row0n{n}@a.test>home{n}@home.test" for n in range(5)))
    for row in range(1, MAX_DEPTH - 1):
        behind = ",".join(f"row{row - 1}n{n}@a.test" for n in range(5))
        lead(town, *(f"row{row}n{n}@a.test>{behind}" for n in range(5)))
    assert len(list(town.aliases.every())) == 5 * (MAX_DEPTH - 1)
