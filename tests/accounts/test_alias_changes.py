"""Aliases that are changed: what is set, what stays, and that no change gets round a rule for new ones."""

from dataclasses import replace

import pytest
from accounts_office import NOON, Office

from appliance.accounts.aliases import AliasChanges, ListedAlias
from appliance.model.domain import AliasAction, AliasKind, Domain
from appliance.model.refused import Refused
from appliance.privacy.declarations import ALIASES
from appliance.routing.patterns import MAX_PATTERNS_PER_DOMAIN
from appliance.storage.records import Update


@pytest.fixture
def hosted(office: Office) -> Office:
    """An office with one account and two of its domains, one of them not proven."""
    ada = office.account()
    office.domain("example.org", ada)
    office.domain("unproven.test", ada, verified=False)
    return office


def domain(office: Office, name: str = "example.org") -> Domain:
    return office.domains.named(name)


def made(office: Office, address: str = "info@example.org", *targets: str) -> ListedAlias:
    return office.aliases.add(address, targets or ["ada@home.test"], confirmed=True)


def change(office: Office, listed: ListedAlias, changes: AliasChanges) -> ListedAlias:
    return office.aliases.update(listed.alias, listed.domain, changes)


def test_what_is_given_is_set_and_the_rest_stays(hosted: Office) -> None:
    before = made(hosted)
    generation = hosted.generation()
    after = change(
        hosted, before, AliasChanges(pattern="Sales*", enabled=False, expires_at=NOON + 5, description=" x ")
    )
    assert after.alias == replace(before.alias, pattern="sales*", enabled=False, expires_at=NOON + 5, description="x")
    assert list(hosted.aliases.every()) == [after]
    assert hosted.aliases.with_id(before.alias.id) == (after.alias, before.domain)
    assert hosted.generation() == generation + 1
    cleared = change(hosted, after, AliasChanges(expires_at=None, description=None))
    assert cleared.alias == replace(before.alias, pattern="sales*", enabled=False)
    assert change(hosted, cleared, AliasChanges()).alias == cleared.alias


@pytest.mark.parametrize(
    ("changes", "why", "field"),
    [
        (AliasChanges(pattern="taken"), "already", "pattern"),
        (AliasChanges(pattern="TAKEN"), "already", "pattern"),
        (AliasChanges(pattern="a*b"), "only at its end", "pattern"),
        (AliasChanges(pattern="/(/"), "missing", "pattern"),
        (AliasChanges(destinations=[]), "at least one", "destinations"),
        (AliasChanges(destinations=["nonsense"]), "not an email address", "destinations"),
        (AliasChanges(destinations=["info@example.org"]), "in a circle", "destinations"),
        (AliasChanges(destinations=["bob@home.test"]), "not confirmed", "destinations"),
        (AliasChanges(action=AliasAction.REJECT, destinations=["ada@home.test"]), "takes no", "destinations"),
        (AliasChanges(expires_at=NOON), "expired already", "expiresAt"),
        (AliasChanges(remaining_uses=0), "1 to", "remainingUses"),
        (AliasChanges(description="x" * 201), "at most 200", "description"),
        (AliasChanges(description="a\nb"), "printed", "description"),
    ],
)
def test_a_change_that_breaks_a_rule_changes_nothing(
    hosted: Office, changes: AliasChanges, why: str, field: str
) -> None:
    before = made(hosted)
    made(hosted, "taken@example.org")
    generation = hosted.generation()
    with pytest.raises(Refused, match=why) as refused:
        change(hosted, before, changes)
    assert refused.value.field == field
    assert next(iter(hosted.aliases.every())) == before
    assert hosted.generation() == generation


def test_what_is_gone_cannot_be_changed(hosted: Office) -> None:
    before = made(hosted)
    hosted.aliases.delete(before.alias, before.domain)
    with pytest.raises(Refused, match="just been removed"):
        change(hosted, before, AliasChanges(enabled=False))
    assert hosted.records.count(ALIASES, {}) == 0


def test_an_alias_that_refuses_keeps_where_it_led_and_one_that_led_nowhere_needs_a_destination(hosted: Office) -> None:
    before = made(hosted)
    shut = change(hosted, before, AliasChanges(action=AliasAction.REJECT))
    assert shut.alias.targets == before.alias.targets
    assert change(hosted, shut, AliasChanges(action=AliasAction.FORWARD)).alias == before.alias
    nowhere = hosted.aliases.add("nowhere@example.org", action=AliasAction.DISCARD)
    with pytest.raises(Refused, match="at least one destination"):
        change(hosted, nowhere, AliasChanges(action=AliasAction.FORWARD))


def test_a_limit_of_uses_is_set_anew_with_a_counter_of_its_own(hosted: Office) -> None:
    before = hosted.aliases.add("info@example.org", ["ada@home.test"], confirmed=True, remaining_uses=5)
    assert before.alias.remaining_uses == 5
    hosted.records.apply([Update(ALIASES, {"use_counter": before.alias.use_counter}, {"uses": 3})])
    (counted,) = hosted.aliases.every()
    assert counted.alias.remaining_uses == 2
    # As it was read before the three were counted: the change must not take them back.
    assert change(hosted, before, AliasChanges(description="x")).alias.use_counter == before.alias.use_counter
    (kept,) = hosted.aliases.every()
    assert kept.alias.remaining_uses == 2
    change(hosted, before, AliasChanges(remaining_uses=5))
    (renewed,) = hosted.aliases.every()
    assert renewed.alias.remaining_uses == 5
    assert renewed.alias.use_counter != before.alias.use_counter
    hosted.records.apply([Update(ALIASES, {"use_counter": before.alias.use_counter}, {"uses": 4})])
    (still,) = hosted.aliases.every()
    assert still.alias.remaining_uses == 5, "what is counted under the old limit does not count"
    freed = change(hosted, renewed, AliasChanges(remaining_uses=None))
    assert (freed.alias.remaining_uses, freed.alias.use_counter) == (None, None)


@pytest.mark.parametrize(
    ("pattern", "target", "why"),
    [
        ("/^a-(.+)$/", "$1@home.test", "choose the mailbox"),
        ("/^a-(.+)$/", "ada$1+x@home.test", "choose the mailbox"),
        ("/^a-(.+)$/", "$1@unproven.test", "choose the mailbox"),
        ("/^a-(.+)$/", "+$1@home.test", "choose the mailbox"),
        ("/^a-(.+)$/", "ada+$2@home.test", r"stands for \$2"),
        ("/^a-.+$/", "ada+$1@home.test", r"stands for \$1"),
    ],
)
def test_what_a_stranger_wrote_chooses_no_mailbox(hosted: Office, pattern: str, target: str, why: str) -> None:
    with pytest.raises(Refused, match=why) as refused:
        made(hosted, f"{pattern}@example.org", target)
    assert refused.value.field == "destinations"
    # Nor by way of an alias that was something else when it was made.
    plain = made(hosted, "plain@example.org", target)
    with pytest.raises(Refused, match=why):
        change(hosted, plain, AliasChanges(pattern=pattern))


@pytest.mark.parametrize(
    "target", ["ada+$1@home.test", "ada+x-$1.$2@home.test", "$1@example.org", "a$1b+$2@example.org"]
)
def test_where_what_a_stranger_wrote_may_stand(hosted: Office, target: str) -> None:
    added = made(hosted, "/^a-(.+?)-(.+)$/@example.org", target)
    assert added.alias.kind is AliasKind.REGEX
    assert added.destinations == ((target, True),)


@pytest.mark.parametrize(
    ("pattern", "target"),
    [("/^support-(.+)$/", "support-ada@example.org"), ("/^x/", "xy@example.org"), ("/^a-(.+)$/", "a-$1@example.org")],
)
def test_an_expression_that_leads_to_itself_is_refused(hosted: Office, pattern: str, target: str) -> None:
    with pytest.raises(Refused, match="in a circle"):
        made(hosted, f"{pattern}@example.org", target)


def test_a_domain_has_so_many_expressions_and_no_more(hosted: Office) -> None:
    large = hosted.domain("large.test", hosted.account("bob@people.test", plan="huge"))
    for number in range(MAX_PATTERNS_PER_DOMAIN):
        hosted.aliases.create(large, f"/^{number}$/", action=AliasAction.REJECT)
    plain = hosted.aliases.create(large, "plain", action=AliasAction.REJECT)
    with pytest.raises(Refused, match="looked at with each"):
        hosted.aliases.create(large, "/^more$/", action=AliasAction.REJECT)
    with pytest.raises(Refused, match="looked at with each"):
        change(hosted, plain, AliasChanges(pattern="/^more$/"))


def test_the_expressions_of_a_domain_take_so_long_together_and_no_longer(hosted: Office) -> None:
    slow = "/(a?){200}a{200}%d/"
    for number in range(9):
        hosted.aliases.create(domain(hosted), slow % number, action=AliasAction.REJECT)
    cheap = hosted.aliases.create(domain(hosted), "/^cheap$/", action=AliasAction.REJECT)
    with pytest.raises(Refused, match="too long"):
        hosted.aliases.create(domain(hosted), slow % 10, action=AliasAction.REJECT)
    with pytest.raises(Refused, match="too long"):
        change(hosted, cheap, AliasChanges(pattern=slow % 10))
    change(hosted, cheap, AliasChanges(pattern="/^cheaper$/"))


def test_aliases_are_found_page_by_page_and_by_what_is_in_them(hosted: Office) -> None:
    for number in range(5):
        made(hosted, f"shop{number}@example.org", f"box{number}@home.test")
    last = hosted.aliases.add("x@example.org", ["box0@home.test"], confirmed=True, description="The SHOP of 3")
    id = domain(hosted).id
    first = hosted.aliases.page(id, None, 2)
    assert [alias.pattern for alias in first] == ["shop0", "shop1"]
    assert [alias.pattern for alias in hosted.aliases.page(id, first[-1].id, 9)] == ["shop2", "shop3", "shop4", "x"]
    assert [alias.pattern for alias in hosted.aliases.page(id, None, 9, "Shop")][-1] == last.alias.pattern
    assert [alias.pattern for alias in hosted.aliases.page(id, None, 9, "BOX0@")] == ["shop0", "x"]
    assert hosted.aliases.page(id, None, 1, "box0") == hosted.aliases.page(id, None, 1)
    assert (hosted.aliases.count(id), hosted.aliases.count(id, "shop"), hosted.aliases.count(id, "no")) == (6, 6, 0)
