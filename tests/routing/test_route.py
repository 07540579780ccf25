"""Where an address leads: one table of cases for each rule in the docstring of appliance.routing."""

from dataclasses import replace

import pytest
from routing_table import NOW, OPERATOR, OWNER, SETTINGS, alias, ask, domain, snapshot, targets

from appliance.model.account import Plan
from appliance.model.domain import Alias, AliasAction, Destination
from appliance.routing.route import MAX_COPIES, MAX_DEPTH, MAX_LOOKED_UP, route
from appliance.routing.snapshot import Settings, Snapshot
from smtp.address import Address

PRECEDENCE = snapshot(
    alias("sales@example.org", "exact@home.test"),
    alias("sales+vip@example.org", "vip@home.test"),
    alias("sa*@example.org", "short@home.test"),
    alias("sales*@example.org", "long@home.test"),
    alias("*@example.org", "rest@home.test"),
)


@pytest.mark.parametrize(
    ("recipient", "target"),
    [
        ("sales@example.org", "exact@home.test"),
        ("SALES@Example.ORG", "exact@home.test"),
        ('"sales"@example.org', "exact@home.test"),
        ("sales+vip@example.org", "vip@home.test"),
        ("sales+other@example.org", "exact@home.test"),
        ("sales+a+b@example.org", "exact@home.test"),
        ("salesman@example.org", "long@home.test"),
        ("sam@example.org", "short@home.test"),
        ("sa@example.org", "short@home.test"),
        ("sam+x@example.org", "short@home.test"),
        ("s@example.org", "rest@home.test"),
        ("+x@example.org", "rest@home.test"),
        ("postmaster@example.org", "rest@home.test"),
    ],
)
def test_the_most_particular_alias_wins(recipient: str, target: str) -> None:
    found = ask(PRECEDENCE, recipient)
    assert (found.reply.code, targets(found)) == (250, [target])


INTERNATIONAL = snapshot(
    alias("jörg@xn--bcher-kva.example", "exact@home.test"),
    alias("größe*@xn--bcher-kva.example", "prefix@home.test"),
    alias("οδυσσευσ@xn--bcher-kva.example", "greek@home.test"),
    alias("info@xn--bcher-kva.example", "jörg@example.org", "Jörg@xn--bcher-kva.example", "Zoë@xn--caf-dma.test"),
    alias("jörg@example.org", "far@home.test"),
)


@pytest.mark.parametrize(
    ("recipient", "found"),
    [
        ("jörg@bücher.example", ["exact@home.test"]),
        ("JÖRG@BÜCHER.example", ["exact@home.test"]),
        ("jo\u0308rg@bu\u0308cher.example", ["exact@home.test"]),
        ("jörg@XN--BCHER-KVA.example", ["exact@home.test"]),
        ('"Jörg"@bücher.example', ["exact@home.test"]),
        ("jörg+büro@bücher.example", ["exact@home.test"]),
        ("größe@bücher.example", ["prefix@home.test"]),
        ("Gro\u0308ßenordnung@bücher.example", ["prefix@home.test"]),
        ("ΟΔΥΣΣΕΥΣ@bücher.example", ["greek@home.test"]),
        ("οδυσσευς@bücher.example", ["greek@home.test"]),
        ("info@bücher.example", ["far@home.test", "exact@home.test", "Zoë@xn--caf-dma.test"]),
        ("jorg@bücher.example", []),
        ("joerg@bücher.example", []),
        ("grösse@bücher.example", []),
        ("info@bucher.example", []),
    ],
)
def test_every_spelling_of_an_international_address_finds_its_alias_and_no_other_does(
    recipient: str, found: list[str]
) -> None:
    assert targets(ask(INTERNATIONAL, recipient)) == found


def test_the_consent_of_an_owner_holds_however_the_mailbox_is_spelled() -> None:
    table = Snapshot(
        SETTINGS,
        1,
        domains=[domain("example.org")],
        aliases=[alias("a@example.org", "Jo\u0308rg@Bücher.test"), alias("b@example.org", "jorg@bücher.test")],
        destinations=[Destination("d", OWNER.id, "jörg@xn--bcher-kva.test", NOW, NOW)],
    )
    assert targets(ask(table, "a@example.org")) == ["Jo\u0308rg@Bücher.test"]
    assert ask(table, "b@example.org").reason == "destination-unconfirmed"


@pytest.mark.parametrize(
    ("recipient", "code", "enhanced", "reason"),
    [
        ("nobody@other.test", 550, "5.1.1", "alias-unknown"),
        ("a@elsewhere.test", 550, "5.7.1", "relay-denied"),
        ("a@unproven.test", 550, "5.7.1", "relay-denied"),
        ("a@sub.example.org", 550, "5.7.1", "relay-denied"),
        ("a@mx.example.net", 550, "5.1.1", "alias-unknown"),
        ("a@[127.0.0.1]", 550, "5.7.1", "relay-denied"),
        ("sales%example.org@elsewhere.test", 550, "5.7.1", "relay-denied"),
        ("elsewhere.test!a@other.test", 550, "5.1.1", "alias-unknown"),
    ],
)
def test_refusals(recipient: str, code: int, enhanced: str, reason: str) -> None:
    found = ask(PRECEDENCE, recipient)
    assert (found.reply.code, found.reply.enhanced, found.reason) == (code, enhanced, reason)
    assert not found.accepted
    assert found.targets == ()


@pytest.mark.parametrize(
    ("change", "code", "reason"),
    [
        ({"action": AliasAction.REJECT}, 550, "alias-rejects"),
        ({"action": AliasAction.DEFER}, 450, "alias-defers"),
        ({"enabled": False}, 550, "alias-disabled"),
        ({"expires_at": NOW}, 550, "alias-expired"),
        ({"expires_at": NOW + 1}, 250, "accepted"),
        ({"action": AliasAction.DISCARD}, 250, "accepted"),
    ],
)
def test_an_alias_that_takes_an_address_keeps_it_from_the_catch_all(
    change: dict[str, object], code: int, reason: str
) -> None:
    taker = replace(alias("shop@example.org", "shop@home.test"), **change)  # type: ignore[arg-type]
    found = ask(snapshot(taker, alias("*@example.org", "rest@home.test")), "shop@example.org")
    assert (found.reply.code, found.reason) == (code, reason)
    assert "rest@home.test" not in targets(found)


def test_a_discarding_alias_accepts_and_leads_nowhere() -> None:
    found = ask(snapshot(alias("bin@example.org", action=AliasAction.DISCARD)), "bin@example.org")
    assert found.accepted
    assert found.targets == ()


@pytest.mark.parametrize(
    "recipient",
    ["postmaster", "PostMaster", "postmaster@mx.example.net", "postmaster@other.test", "POSTMASTER@srs.mx.example.net"],
)
def test_postmaster_exists_everywhere_and_leads_to_the_operator(recipient: str) -> None:
    found = ask(PRECEDENCE, recipient)
    assert (found.reply.code, targets(found)) == (250, ["boss@home.test"])


def test_postmaster_does_not_exist_where_nothing_is_ours() -> None:
    assert not ask(PRECEDENCE, "postmaster@elsewhere.test").accepted
    assert not ask(PRECEDENCE, "postmaster@unproven.test").accepted


def test_an_alias_may_take_postmaster_but_not_refuse_it() -> None:
    taken = ask(snapshot(alias("postmaster@other.test", "own@home.test")), "postmaster@other.test")
    assert targets(taken) == ["own@home.test"]
    refused = ask(snapshot(alias("*@other.test", action=AliasAction.REJECT)), "postmaster@other.test")
    assert (refused.reply.code, targets(refused)) == (250, ["boss@home.test"])


@pytest.mark.parametrize("pattern", ["*", "post*", "postmaster"])
@pytest.mark.parametrize(
    "change",
    [
        {"action": AliasAction.REJECT},
        {"action": AliasAction.DEFER},
        {"action": AliasAction.DISCARD},
        {"enabled": False},
        {"expires_at": NOW},
    ],
)
@pytest.mark.parametrize("behind", [False, True])
def test_no_alias_refuses_mail_for_postmaster_or_throws_it_away(
    pattern: str, change: dict[str, object], behind: bool
) -> None:
    """Whether the alias itself does, or one that it leads to."""
    closed = replace(alias("closed@example.org" if behind else f"{pattern}@other.test", "x@home.test"), **change)  # type: ignore[arg-type]
    leading = [alias(f"{pattern}@other.test", "closed@example.org")] if behind else []
    found = ask(snapshot(closed, *leading), "postmaster@other.test")
    assert (found.reply.code, targets(found), found.reference) == (250, ["boss@home.test"], "")
    assert found.domain is not None


def test_postmaster_gets_its_mail_where_a_catch_all_leads_nowhere() -> None:
    for table in (
        snapshot(alias("*@other.test", "gone@example.org")),
        snapshot(alias("*@other.test", "a@example.org"), alias("a@example.org", "b@other.test")),
    ):
        assert not ask(table, "x@other.test").accepted
        assert targets(ask(table, "postmaster@other.test")) == ["boss@home.test"]
    unconfirmed = Snapshot(
        SETTINGS,
        1,
        accounts=[OPERATOR],
        domains=[domain("other.test")],
        aliases=[alias("*@other.test", "me@home.test")],
    )
    assert ask(unconfirmed, "x@other.test").reply.code == 451
    assert targets(ask(unconfirmed, "postmaster@other.test")) == ["boss@home.test"]


def test_postmaster_whose_operator_leads_back_to_postmaster_waits() -> None:
    table = Snapshot(
        Settings("mx.example.net", "srs.mx.example.net", postmaster="postmaster@other.test"),
        1,
        domains=[domain("other.test")],
        aliases=[alias("*@other.test", action=AliasAction.DISCARD)],
    )
    found = ask(table, "postmaster@other.test")
    assert (found.reply.code, found.targets) == (250, (Address("postmaster", ""),))


def test_an_alias_may_lead_to_postmaster_of_a_hosted_domain() -> None:
    found = ask(snapshot(alias("abuse@example.org", "postmaster@other.test")), "abuse@example.org")
    assert found.accepted
    assert found.targets == (Address("postmaster", ""),), "which leads to whoever is the operator then"


def test_postmaster_without_an_operator_is_accepted_and_waits() -> None:
    found = ask(snapshot(operator=False), "postmaster")
    assert found.accepted
    assert found.targets == (Address("postmaster", ""),)


def test_postmaster_who_lives_behind_an_alias_is_followed_inside() -> None:
    table = Snapshot(
        Settings("mx.example.net", "srs.mx.example.net", postmaster="ops@example.org"),
        1,
        accounts=[OWNER],
        domains=[domain("example.org")],
        aliases=[alias("ops@example.org", "ops@home.test")],
        destinations=[Destination("d", OWNER.id, "ops@home.test", NOW, NOW)],
    )
    assert targets(ask(table, "postmaster")) == ["ops@home.test"]


def test_hosted_aliases_are_followed_inside_and_a_mailbox_gets_one_copy() -> None:
    table = snapshot(
        alias("all@example.org", "team@other.test", "me@home.test"),
        alias("team@other.test", "Me@Home.test", "you@home.test"),
    )
    assert targets(ask(table, "all@example.org")) == ["Me@Home.test", "you@home.test"]


def test_a_loop_is_refused_even_where_another_branch_leads_somewhere() -> None:
    table = snapshot(
        alias("a@example.org", "b@other.test", "me@home.test"),
        alias("b@other.test", "a@example.org"),
    )
    found = ask(table, "a@example.org")
    assert (found.reply.code, found.reply.enhanced, found.reason) == (550, "5.4.6", "alias-loop")


def test_a_catch_all_that_leads_to_itself_is_a_loop() -> None:
    found = ask(snapshot(alias("*@example.org", "other@example.org")), "x@example.org")
    assert found.reason == "alias-loop"


@pytest.mark.parametrize(("length", "accepted"), [(MAX_DEPTH, True), (MAX_DEPTH + 1, False)])
def test_only_so_many_aliases_may_follow_each_other(length: int, accepted: bool) -> None:
    chain = [alias(f"n{i}@example.org", f"n{i + 1}@example.org") for i in range(length - 1)]
    chain.append(alias(f"n{length - 1}@example.org", "end@home.test"))
    assert ask(snapshot(*chain), "n0@example.org").accepted is accepted


def test_a_recipient_never_becomes_more_than_so_many_copies() -> None:
    hubs = [alias(f"h{i}@example.org", *(f"m{i}-{j}@home.test" for j in range(10))) for i in range(11)]
    table = snapshot(alias("all@example.org", *(f"h{i}@example.org" for i in range(10))), *hubs)
    assert len(ask(table, "all@example.org").targets) == MAX_COPIES
    table = snapshot(alias("all@example.org", *(f"h{i}@example.org" for i in range(11))), *hubs)
    assert ask(table, "all@example.org").reason == "too-many-copies"


def rows(depth: int, width: int) -> list[Alias]:
    """Rows of aliases, each leading to every one of the next row, the last to one mailbox."""
    return [
        alias(
            f"r{row}n{n}@example.org",
            *((f"r{row + 1}n{m}@example.org" for m in range(width)) if row + 1 < depth else ("end@home.test",)),
        )
        for row in range(depth)
        for n in range(width)
    ]


def test_an_alias_that_many_ways_lead_to_is_followed_once() -> None:
    """Ten rows of five: two million ways."""
    table = snapshot(*rows(MAX_DEPTH, 5))
    found = route(table, Address.parse("r0n0@example.org"), NOW, explained=True)
    assert targets(found) == ["end@home.test"]
    followed = [step for step in found.steps if (step.check, step.outcome) == ("alias", "match")]
    assert len(followed) == 1 + 5 * (MAX_DEPTH - 1)


@pytest.mark.parametrize(("extra", "reason"), [(0, "accepted"), (1, "too-many-copies")])
def test_only_so_many_destinations_are_looked_at(extra: int, reason: str) -> None:
    """Few copies, much to look at: ten aliases that lead to the same mailboxes."""
    mailboxes = [f"m{i}@home.test" for i in range(MAX_LOOKED_UP // 10 - 1)]
    hubs = [f"h{i}@example.org" for i in range(10)]
    table = snapshot(
        *(alias(hub, *mailboxes) for hub in hubs), alias("all@example.org", *hubs, *["m0@home.test"] * extra)
    )
    assert ask(table, "all@example.org").reason == reason


def test_a_loop_behind_an_alias_that_was_followed_before_is_still_found() -> None:
    table = snapshot(
        alias("a@example.org", "b@example.org", "c@example.org"),
        alias("b@example.org", "d@example.org"),
        alias("c@example.org", "d@example.org", "e@example.org"),
        alias("d@example.org", "me@home.test"),
        alias("e@example.org", "d@example.org", "c@example.org"),
    )
    found = route(table, Address.parse("a@example.org"), NOW, explained=True)
    assert found.reason == "alias-loop"
    assert "a@example.org → c@example.org → e@example.org → c@example.org" in found.steps[-1].detail


def test_a_chain_is_as_long_as_the_longest_way_through_it() -> None:
    """The same end, reached first by a short way and then by one that is too long."""
    chain = [alias(f"n{i}@example.org", f"n{i + 1}@example.org") for i in range(MAX_DEPTH - 1)]
    chain.append(alias(f"n{MAX_DEPTH - 1}@example.org", "end@home.test"))
    table = snapshot(*chain, alias("a@example.org", "n1@example.org", "n2@example.org"))
    assert ask(table, "a@example.org").accepted
    table = snapshot(*chain, alias("a@example.org", "n1@example.org", "n0@example.org"))
    assert ask(table, "a@example.org").reason == "alias-loop"


def test_an_alias_leads_to_the_same_mailboxes_however_often_mail_comes_for_it() -> None:
    table = snapshot(
        alias("all@example.org", "team@other.test", "me@home.test"),
        alias("team@other.test", "you@home.test"),
        alias("*@other.test", action=AliasAction.DISCARD),
    )
    for _ in range(2):
        for recipient in ("all@example.org", "All+list@Example.org"):
            found = ask(table, recipient)
            assert (found.reason, found.reference, targets(found)) == (
                "accepted",
                "all@example.org",
                ["you@home.test", "me@home.test"],
            )
        assert (ask(table, "gone@other.test").accepted, ask(table, "gone@other.test").targets) == (True, ())
    assert len(route(table, Address.parse("all@example.org"), NOW, explained=True).steps) == 5


def test_an_alias_expires_although_mail_has_come_for_it_before() -> None:
    table = snapshot(
        replace(alias("a@example.org", "me@home.test"), expires_at=NOW + 1),
        alias("all@example.org", "a@example.org", "you@home.test"),
    )
    assert targets(ask(table, "a@example.org")) == ["me@home.test"]
    assert targets(ask(table, "all@example.org")) == ["me@home.test", "you@home.test"]
    assert ask(table, "a@example.org", NOW + 1).reason == "alias-expired"
    assert targets(ask(table, "all@example.org", NOW + 1)) == ["you@home.test"]
    assert targets(ask(table, "all@example.org")) == ["me@home.test", "you@home.test"], "the clock was set back"


def test_a_chain_is_no_shorter_where_mail_has_come_for_the_middle_of_it() -> None:
    chain = [alias(f"n{i}@example.org", f"n{i + 1}@example.org") for i in range(MAX_DEPTH)]
    table = snapshot(*chain, alias(f"n{MAX_DEPTH}@example.org", "me@home.test"))
    assert targets(ask(table, "n1@example.org")) == ["me@home.test"]
    assert ask(table, "n0@example.org").reason == "alias-loop"


def test_a_branch_that_leads_nowhere_counts_where_no_other_leads_anywhere() -> None:
    broken = alias("a@example.org", "gone@other.test")
    assert ask(snapshot(broken), "a@example.org").reason == "alias-unknown"
    mended = replace(broken, targets=("gone@other.test", "me@home.test"))
    assert targets(ask(snapshot(mended), "a@example.org")) == ["me@home.test"]


def test_a_branch_that_defers_keeps_the_whole_message_with_the_sender() -> None:
    table = snapshot(
        alias("a@example.org", "me@home.test", "later@other.test"),
        alias("later@other.test", action=AliasAction.DEFER),
    )
    assert ask(table, "a@example.org").reply.code == 450


def test_nothing_is_forwarded_to_a_mailbox_whose_owner_has_not_agreed() -> None:
    table = Snapshot(
        SETTINGS,
        1,
        accounts=[OWNER],
        domains=[domain("example.org")],
        aliases=[alias("a@example.org", "me@home.test")],
        destinations=[
            Destination("d1", OWNER.id, "me@home.test", None, NOW),
            Destination("d2", "another account", "me@home.test", NOW, NOW),
        ],
    )
    found = ask(table, "a@example.org")
    assert (found.reply.code, found.reason, found.targets) == (451, "destination-unconfirmed", ())


def test_mail_is_as_urgent_as_the_plan_of_whoever_owns_the_domain() -> None:
    accounts = [OWNER, replace(OPERATOR, plan="paid"), replace(OPERATOR, id="a3", plan="gone")]
    domains = [
        domain("example.org"),
        *(replace(domain(f"{each.id}.test"), account_id=each.id) for each in accounts[1:]),
    ]
    free = Plan("free", 1 << 20, max_domains=9, max_aliases_per_domain=9, max_messages_per_day=9, priority=-1)
    settings = replace(SETTINGS, plans={"free": free, "paid": replace(free, name="paid", priority=10)})
    urgent = Snapshot(settings, 1, accounts=accounts, domains=domains)
    assert urgent.priority(["example.org"]) == -1
    assert urgent.priority(["example.org", "a2.test"]) == 10
    assert urgent.priority(["a3.test"]) == 0, "the configuration has lost its plan"
    assert urgent.priority(["nobody.test"]) == 0
    assert urgent.priority([]) == 0


def test_every_step_of_a_decision_can_be_told() -> None:
    assert ask(PRECEDENCE, "salesman@example.org").steps == ()
    steps = route(PRECEDENCE, Address.parse("salesman@example.org"), NOW, explained=True).steps
    assert [step.check for step in steps] == ["domain", "alias", "destination"]
    assert "sales*@example.org" in steps[1].detail
