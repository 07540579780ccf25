"""Aliases that are expressions, that take so many messages, and that lead to the addresses of others."""

import time
from dataclasses import replace

import pytest
from routing_table import NOW, OPERATOR, OWNER, SETTINGS, alias, ask, domain, snapshot, targets

from appliance.model.account import Account, Role
from appliance.model.domain import AliasAction, DeliveryMode, Destination, Domain, LogLevel
from appliance.routing.route import route
from appliance.routing.snapshot import Snapshot
from smtp.address import Address

# ------------------------------------------------------------------ expressions


EXPRESSIONS = snapshot(
    alias("support-ada@example.org", "exact@home.test"),
    alias("support-x*@example.org", "prefix@home.test"),
    replace(alias("/^support-(.+)$/@example.org", "box+$1@home.test"), created_at=NOW + 1),
    replace(alias("/^(.+)-(.+)$/@example.org", "$2@other.test"), created_at=NOW + 2),
    alias("*@example.org", "rest@home.test"),
    alias("sales@other.test", "sales@home.test"),
    confirmed=("box@home.test",),
)


@pytest.mark.parametrize(
    ("recipient", "code", "found"),
    [
        ("support-ada@example.org", 250, ["exact@home.test"]),
        ("support-ada+x@example.org", 250, ["exact@home.test"]),
        ("support-xy@example.org", 250, ["prefix@home.test"]),
        ("support-shop@example.org", 250, ["box+shop@home.test"]),
        ("Support-Shop@Example.ORG", 250, ["box+shop@home.test"]),
        ("support-sales@example.org", 250, ["box+sales@home.test"]),
        ("my-sales@example.org", 250, ["sales@home.test"]),
        ("my-nobody@example.org", 550, []),
        ('"support-a b"@example.org', 250, ['"box+a b"@home.test']),
        ('"support-a@evil.test"@example.org', 250, ['"box+a@evil.test"@home.test']),
        ("support-" + "x" * 56 + "@example.org", 250, ["prefix@home.test"]),
        ("support-" + "y" * 56 + "@example.org", 250, ["box+" + "y" * 56 + "@home.test"]),
        ("other@example.org", 250, ["rest@home.test"]),
    ],
)
def test_expressions_come_behind_wildcards_in_the_order_of_their_making(
    recipient: str, code: int, found: list[str]
) -> None:
    answer = ask(EXPRESSIONS, recipient)
    assert (answer.reply.code, targets(answer)) == (code, found)


def test_what_makes_no_address_is_refused() -> None:
    table = snapshot(alias("/^x(.+)$/@example.org", "longer+$1@home.test"), confirmed=("longer@home.test",))
    answer = ask(table, "x" + "y" * 60 + "@example.org")
    assert (answer.reply.code, answer.reason) == (550, "alias-target-invalid")
    assert ask(table, "x" + "y" * 57 + "@example.org").reply.code == 250


@pytest.mark.parametrize(
    ("target", "confirmed"),
    [
        ("$1@elsewhere.test", "$1@elsewhere.test"),
        ("a$1+$2@elsewhere.test", "a$1@elsewhere.test"),
        ("$1@unproven.test", "$1@unproven.test"),
        ("box+$1@home.test", "box+$1@home.test"),
    ],
)
def test_no_word_in_the_store_lets_a_stranger_choose_a_mailbox(target: str, confirmed: str) -> None:
    table = Snapshot(
        SETTINGS,
        1,
        domains=[domain("example.org"), domain("unproven.test", verified=False)],
        aliases=[alias("/^(.)(.)$/@example.org", target)],
        destinations=[Destination("d", OWNER.id, confirmed, NOW, NOW)],
    )
    assert ask(table, "ab@example.org").reason == "destination-unconfirmed"


def test_an_expression_is_followed_for_each_local_part_that_leads_to_it() -> None:
    table = snapshot(
        alias("both@example.org", "a-1@other.test", "a-2@other.test"),
        alias("/^a-(.+)$/@other.test", "box+$1@home.test"),
        confirmed=("box@home.test",),
    )
    assert targets(ask(table, "both@example.org")) == ["box+1@home.test", "box+2@home.test"]


def test_what_is_kept_of_one_message_does_not_decide_the_next() -> None:
    table = snapshot(
        alias("via@example.org", "a-1@other.test"),
        alias("/^(.)-(.+)$/@other.test", "box+$2@home.test"),
        confirmed=("box@home.test",),
    )
    for _ in range(2):
        for recipient, found in (("x-3@other.test", "box+3@home.test"), ("via@example.org", "box+1@home.test")):
            assert targets(ask(table, recipient)) == [found]


def test_expressions_behind_each_other_take_no_sender_long() -> None:
    slow = [replace(alias(f"/(a?){{200}}a{{200}}{n}/@example.org", "x@home.test"), created_at=n) for n in range(9)]
    fan = [alias(f"f{n}@example.org", *(f"n{n}{m}@example.org" for m in range(10))) for n in range(10)]
    table = snapshot(*slow, *fan, alias("a@example.org", *(f"f{n}@example.org" for n in range(10))))
    assert ask(table, "f1@example.org").reason == "too-many-copies"
    began = time.thread_time()
    assert ask(table, "a@example.org").reason == "too-many-copies"
    # A hundred local parts would be looked at nine times each, at half a millisecond.
    assert time.thread_time() - began < 0.1


# ------------------------------------------------------------------ other accounts


STRANGER = Account("a3", "stranger@home.test", True, Role.MEMBER, "free", NOW)


def two_accounts(*, agreed: bool) -> Snapshot:
    theirs = Domain("theirs.test", STRANGER.id, "theirs.test", True, DeliveryMode.SPOOL, LogLevel.EVENTS, NOW)
    destinations = [Destination("d1", STRANGER.id, "secret@home.test", NOW, NOW)]
    destinations += [Destination("d2", OWNER.id, target, NOW, NOW) for target in ("own@home.test",)]
    if agreed:
        destinations.append(Destination("d3", OWNER.id, "x@theirs.test", NOW, NOW))
    return Snapshot(
        SETTINGS,
        1,
        accounts=[OWNER, OPERATOR, STRANGER],
        domains=[domain("example.org"), theirs],
        aliases=[
            alias("a@example.org", "x@theirs.test", "own@home.test"),
            alias("x@theirs.test", "secret@home.test", "x2@theirs.test"),
            alias("x2@theirs.test", "secret@home.test"),
        ],
        destinations=destinations,
    )


def test_another_account_has_to_agree_as_any_owner_of_a_mailbox() -> None:
    assert ask(two_accounts(agreed=False), "a@example.org").reason == "destination-unconfirmed"
    assert targets(ask(two_accounts(agreed=True), "a@example.org")) == ["secret@home.test", "own@home.test"]


def test_what_is_behind_the_address_of_another_account_is_not_told() -> None:
    recipient = Address.parse("a@example.org")
    told = route(two_accounts(agreed=True), recipient, NOW, explained=True, reader=OWNER.id)
    assert [str(shown) for shown in told.shown] == ["x@theirs.test", "own@home.test"]
    assert "secret" not in str(told.steps)
    assert "x2@" not in str(told.steps)
    assert "own@home.test" in str(told.steps)
    whole = route(two_accounts(agreed=True), recipient, NOW, explained=True)
    assert whole == told, "it is the same decision"
    assert whole.shown == whole.targets
    assert "secret@home.test" in str(whole.steps)


def test_where_the_operator_reads_mail_is_not_told_to_members() -> None:
    told = route(two_accounts(agreed=True), Address("postmaster", ""), NOW, explained=True, reader=OWNER.id)
    assert [str(target) for target in told.targets] == ["boss@home.test"]
    assert [str(shown) for shown in told.shown] == ["postmaster"]
    assert "boss" not in str(told.steps)


def test_of_those_who_claim_a_domain_the_one_who_has_proven_it_stands() -> None:
    def claimed(account: Account, *, verified: bool) -> Domain:
        return Domain(account.id, account.id, "d.test", verified, DeliveryMode.SPOOL, LogLevel.EVENTS, NOW)

    for domains in (
        [claimed(OWNER, verified=True), claimed(STRANGER, verified=False)],
        [claimed(STRANGER, verified=False), claimed(OWNER, verified=True)],
    ):
        table = Snapshot(SETTINGS, 1, domains=domains, aliases=[replace(PLAIN, domain_id=OWNER.id)])
        assert ask(table, "x@d.test").accepted
        assert table.log_level(OWNER.id) is LogLevel.EVENTS


PLAIN = alias("x@d.test", action=AliasAction.DISCARD)


# ------------------------------------------------------------------ aliases for so many messages


def test_an_alias_that_has_taken_its_messages_refuses() -> None:
    limited = replace(alias("a@example.org", "x@home.test"), max_uses=3, use_counter="c", uses=2)
    found = ask(snapshot(limited), "a@example.org")
    assert (found.reply.code, found.limited) == (250, (limited,))
    spent = ask(snapshot(replace(limited, uses=3)), "a@example.org")
    assert (spent.reply.code, spent.reply.enhanced, spent.reason, spent.limited) == (550, "5.2.1", "alias-used-up", ())


def test_who_accepts_mail_knows_better_than_the_snapshot_how_many_are_left() -> None:
    limited = replace(alias("a@example.org", "x@home.test"), max_uses=3, use_counter="c")
    table = snapshot(limited, alias("b@example.org", "a@example.org"))
    for name in ("a", "b"):
        recipient = Address(name, "example.org")
        for left, code in ((1, 250), (0, 550), (1, 250)):
            assert route(table, recipient, NOW, lambda alias, left=left: left).reply.code == code  # type: ignore[misc]
        assert route(table, recipient, NOW).limited == (limited,)
