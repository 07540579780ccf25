"""API tokens: what a program shows, what it may do with it, and when that ends."""

import pytest
from entrance_hall import ADA, Hall

from appliance.access.api_tokens import MOST_OF_ONE
from appliance.model.access import Scope
from appliance.model.account import Role
from appliance.model.refused import Refused
from appliance.model.time import DAY_MS, MINUTE_MS
from appliance.privacy.declarations import ACCOUNTS, API_TOKENS
from appliance.privacy.sweeper import Sweeper
from appliance.storage.records import Delete, StoreUnavailable
from appliance.storage.sqlite_spool import SqliteSpool

READ = frozenset({Scope.READ})


def test_a_program_is_known_by_its_token_and_may_do_what_its_scopes_say(hall: Hall) -> None:
    account = hall.account()
    secret, token = hall.entrance.api_tokens.create(account, " backup ", {Scope.READ, Scope.LOGS}, None)
    assert secret.startswith("onward_")
    assert (token.name, token.created_at, token.last_used_at) == ("backup", hall.time.now, None)
    known = hall.entrance.doorkeeper.by_token(secret)
    assert known is not None
    assert (known.account, known.id, known.scopes) == (account, token.id, frozenset({Scope.READ, Scope.LOGS}))
    assert hall.entrance.doorkeeper.by_session(secret) is None


def test_a_session_is_no_token(hall: Hall) -> None:
    hall.account()
    assert hall.entrance.doorkeeper.by_token(hall.sign_in().session) is None


def test_the_secret_is_shown_once_and_not_kept(hall: Hall) -> None:
    secret, _ = hall.entrance.api_tokens.create(hall.account(), "backup", READ, None)
    stored = repr(hall.records.find(API_TOKENS, {}))
    assert secret not in stored
    assert secret.removeprefix("onward_") not in stored


def test_it_is_known_to_the_minute_when_a_token_was_used(hall: Hall) -> None:
    account = hall.account()
    secret, _ = hall.entrance.api_tokens.create(account, "backup", READ, None)
    used = []
    for wait in (0, MINUTE_MS - 1, 1):
        hall.time.now += wait
        hall.entrance.doorkeeper.by_token(secret)
        (token,) = hall.entrance.api_tokens.of(account.id)
        used.append(token.last_used_at)
    assert used == [hall.time.now - MINUTE_MS, hall.time.now - MINUTE_MS, hall.time.now]


def test_a_disk_that_takes_no_more_turns_nobody_away(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> list[int]:
        raise StoreUnavailable("full")

    secret, _ = hall.entrance.api_tokens.create(hall.account(), "backup", READ, None)
    monkeypatch.setattr(hall.records, "apply", full)
    assert hall.entrance.doorkeeper.by_token(secret) is not None


def test_a_token_lets_nobody_in_once_its_time_is_over_and_is_erased_a_month_later(
    hall: Hall, spool: SqliteSpool
) -> None:
    account = hall.account()
    secret, _ = hall.entrance.api_tokens.create(account, "backup", READ, hall.time.now + DAY_MS)
    for_ever, _ = hall.entrance.api_tokens.create(account, "for ever", READ, None)
    sweeper = Sweeper(hall.records, spool, lambda setting: DAY_MS)
    hall.time.now += DAY_MS - 1
    assert hall.entrance.doorkeeper.by_token(secret) is not None
    hall.time.now += 1
    assert hall.entrance.doorkeeper.by_token(secret) is None
    sweeper.sweep(hall.time.now + 30 * DAY_MS)
    assert [token.name for token in hall.entrance.api_tokens.of(account.id)] == ["backup", "for ever"]
    sweeper.sweep(hall.time.now + 30 * DAY_MS + 1)
    assert [token.name for token in hall.entrance.api_tokens.of(account.id)] == ["for ever"]
    assert hall.entrance.doorkeeper.by_token(for_ever) is not None


def test_its_owner_revokes_a_token_and_nobody_else(hall: Hall) -> None:
    ada, bob = hall.account(), hall.account("bob@people.test")
    secret, token = hall.entrance.api_tokens.create(ada, "backup", READ, None)
    assert not hall.entrance.api_tokens.revoke(bob.id, token.id)
    assert hall.entrance.doorkeeper.by_token(secret) is not None
    assert hall.entrance.api_tokens.revoke(ada.id, token.id)
    assert not hall.entrance.api_tokens.revoke(ada.id, token.id)
    assert hall.entrance.doorkeeper.by_token(secret) is None


def test_a_token_of_an_account_that_is_gone_lets_nobody_in(hall: Hall) -> None:
    account = hall.account()
    secret, _ = hall.entrance.api_tokens.create(account, "backup", READ, None)
    hall.records.apply([Delete(ACCOUNTS, {"id": account.id})])
    assert hall.entrance.doorkeeper.by_token(secret) is None


def test_only_operators_have_tokens_that_operate(hall: Hall) -> None:
    with pytest.raises(Refused) as refused:
        hall.entrance.api_tokens.create(hall.account(), "steer", {Scope.READ, Scope.OPERATE}, None)
    assert refused.value.field == "scopes"
    operator = hall.account("bob@people.test", role=Role.OPERATOR)
    secret, _ = hall.entrance.api_tokens.create(operator, "steer", {Scope.OPERATE}, None)
    known = hall.entrance.doorkeeper.by_token(secret)
    assert known is not None
    assert known.scopes == {Scope.OPERATE}


@pytest.mark.parametrize(
    ("name", "scopes", "expires_in", "field"),
    [
        ("", READ, None, "name"),
        ("  ", READ, None, "name"),
        ("x" * 101, READ, None, "name"),
        ("a\nb", READ, None, "name"),
        ("backup", frozenset[Scope](), None, "scopes"),
        ("backup", READ, 0, "expiresAt"),
    ],
)
def test_a_token_that_breaks_a_rule_is_refused(
    hall: Hall, name: str, scopes: frozenset[Scope], expires_in: int | None, field: str
) -> None:
    account = hall.account()
    expires_at = None if expires_in is None else hall.time.now + expires_in
    with pytest.raises(Refused) as refused:
        hall.entrance.api_tokens.create(account, name, scopes, expires_at)
    assert refused.value.field == field
    assert hall.entrance.api_tokens.of(account.id) == []


def test_an_account_has_so_many_tokens_and_no_more(hall: Hall) -> None:
    account = hall.account()
    tokens = [hall.entrance.api_tokens.create(account, f"no {n}", READ, None)[1] for n in range(MOST_OF_ONE)]
    with pytest.raises(Refused, match="revoke"):
        hall.entrance.api_tokens.create(account, "one more", READ, None)
    hall.entrance.api_tokens.revoke(account.id, tokens[0].id)
    hall.entrance.api_tokens.create(account, "one more", READ, None)
    assert hall.accounts.of(ADA) == account
