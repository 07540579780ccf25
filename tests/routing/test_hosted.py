"""Aliases as they stand packed in a domain: what goes in comes out."""

import random
from dataclasses import replace

from routing_table import NOW, alias, domain

from appliance.model.domain import Alias, AliasAction
from appliance.routing.hosted import HostedDomain

DOMAIN = domain("example.org")


def of_all_kinds() -> list[Alias]:
    """A hundred for one local part each, and some of every other kind."""
    made = [alias(f"name{number}@example.org", f"m{number}@home.test") for number in range(100)]
    made += [alias(f"{pattern}@example.org", "a@home.test", "b@home.test") for pattern in ("s*", "sales*", "*")]
    made += [alias(f"/^x{number}-(.+)$/@example.org", "m+$1@home.test") for number in range(3)]
    made.append(alias("bücher@example.org", "bücher@home.test"))
    made.append(alias("gone@example.org", action=AliasAction.REJECT))
    made[5] = replace(made[5], enabled=False, expires_at=NOW + 5)
    made[6] = replace(made[6], max_uses=7, use_counter="c6", uses=3)
    made[7] = replace(made[7], targets=tuple(f"m{number}@home.test" for number in range(10)))
    return made


def test_every_alias_comes_out_as_it_went_in() -> None:
    aliases = of_all_kinds()
    hosted = HostedDomain(DOMAIN, aliases)
    assert sorted(hosted.aliases(), key=lambda each: each.id) == sorted(aliases, key=lambda each: each.id)
    for each in aliases[:100]:
        assert hosted.match(each.pattern) == each
    assert (hosted.match("s1"), hosted.match("sales1"), hosted.match("else")) == tuple(aliases[100:103])


def test_what_people_have_written_about_an_alias_stays_out_of_memory() -> None:
    (kept,) = HostedDomain(DOMAIN, [replace(alias("a@example.org"), description="For the bank")]).aliases()
    assert kept.description is None


def test_an_alias_is_found_by_its_reference() -> None:
    aliases = of_all_kinds()
    hosted = HostedDomain(DOMAIN, aliases)
    assert [hosted.pattern_of(each.reference) for each in aliases] == [each.pattern for each in aliases]
    assert hosted.pattern_of("nobody's") is None


def test_a_domain_without_aliases_takes_nothing() -> None:
    hosted = HostedDomain(DOMAIN, [])
    assert (hosted.match("a"), hosted.match("a+b"), list(hosted.aliases())) == (None, None, [])


def test_a_changed_copy_says_what_one_from_nothing_says() -> None:
    aliases = of_all_kinds()
    hosted = HostedDomain(DOMAIN, aliases)
    chance = random.Random(5)
    for turn in range(300):
        changed: dict[str, Alias | None] = {each.id: None for each in chance.sample(aliases, 3)}
        aliases = [each for each in aliases if each.id not in changed]
        # More come than go, so that the parts are packed anew in between.
        for number in range(4):
            pattern = chance.choice(("s{}*", "{}", "{}", "/^{}-(.+)$/")).format(f"{turn}x{number}")
            aliases.append(alias(f"{pattern}@example.org", f"m{turn}@home.test"))
            changed[aliases[-1].id] = aliases[-1]
        aliases[0] = replace(aliases[0], enabled=not aliases[0].enabled)
        changed[aliases[0].id] = aliases[0]
        earlier, told = hosted, list(hosted.aliases())
        hosted, _ = hosted.changed(changed)
        assert list(earlier.aliases()) == told, "the one before says what it said"
        if turn % 20 == 0:
            again = HostedDomain(DOMAIN, aliases)
            for local_part in [each.pattern for each in aliases] + [f"s{turn}x1y", f"{turn}x2-y", "else"]:
                assert hosted.match(local_part) == again.match(local_part)
            assert sorted(hosted.references) == sorted(again.references)
            assert sorted(hosted.use_counters) == sorted(again.use_counters)
            assert (hosted.patterns, hosted.patterns_cost) == (again.patterns, again.patterns_cost)


def test_a_changed_copy_tells_whose_place_was_taken() -> None:
    first, second = alias("a@example.org"), alias("b@example.org")
    hosted = HostedDomain(DOMAIN, [first, second])
    renamed = replace(first, pattern="b")
    other, replaced = hosted.changed({first.id: renamed})
    assert sorted(replaced, key=lambda each: each.pattern) == [first, second]
    assert list(other.aliases()) == [renamed]
    assert other.references == (renamed.reference,)
