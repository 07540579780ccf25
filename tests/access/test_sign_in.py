"""Signing in: who gets a session, what everybody else hears, and what a session is worth."""

from dataclasses import replace

import pytest
from argon2 import PasswordHasher
from entrance_hall import ADA, CHEAP, ELSEWHERE, HOME, PASSWORD, Hall, away

from appliance.access.clients import Client
from appliance.access.sessions import MOST_OF_ONE, Sessions
from appliance.model.access import Scope
from appliance.model.refused import Refused
from appliance.model.time import DAY_MS, MINUTE_MS
from appliance.privacy.declarations import ACCOUNTS, Collection
from appliance.privacy.sealing import Sealer
from appliance.storage.memory_ephemeral import MemoryEphemeral
from appliance.storage.records import Delete, StoreUnavailable
from appliance.storage.sqlite_records import SqliteRecords


@pytest.mark.parametrize("typed", [ADA, "ADA@People.Test", "  ada@people.test "])
def test_who_knows_the_password_is_known_by_the_session(hall: Hall, typed: str) -> None:
    account = hall.account()
    signed_in = hall.sign_in(typed)
    assert signed_in.account == account
    known = hall.entrance.doorkeeper.by_session(signed_in.session)
    assert known is not None
    assert known.account == account


def test_the_same_password_composed_otherwise_is_the_same(hall: Hall) -> None:
    hall.account(password="pässwörter")
    hall.sign_in(password="pa\u0308sswo\u0308rter")


def test_wrong_unknown_and_unverified_hear_the_same(hall: Hall) -> None:
    hall.account()
    hall.accounts.add("bob@people.test")
    hall.entrance.sign_ups.sign_up("carol@people.test", PASSWORD, HOME)
    heard = set()
    for email in (ADA, "bob@people.test", "carol@people.test", "nobody@people.test"):
        with pytest.raises(Refused) as refused:
            hall.sign_in(email, "wrong password" if email == ADA else PASSWORD)
        heard.add((refused.value.reason, refused.value.field, refused.value.code))
    assert len(heard) == 1


@pytest.mark.parametrize("password", ["", "x" * 100_000, "\ud800", "a\0b"])
def test_whatever_is_typed_is_wrong_and_nothing_more(hall: Hall, password: str) -> None:
    hall.account()
    with pytest.raises(Refused):
        hall.sign_in(password=password)


@pytest.mark.parametrize("secret", ["", "x", "\ud800", "x" * 100_000, "ä", "a\0b"])
def test_whatever_a_cookie_says_is_nobody(hall: Hall, secret: str) -> None:
    assert hall.who(secret) is None
    assert hall.entrance.doorkeeper.by_token(secret) is None
    assert hall.entrance.doorkeeper.by_token(f"onward_{secret}") is None


def test_each_sign_in_has_a_secret_of_its_own(hall: Hall) -> None:
    hall.account()
    sessions = {hall.sign_in().session for _ in range(5)}
    assert len(sessions) == 5
    assert all(len(session) >= 43 for session in sessions)


def test_a_session_ends_a_week_after_it_was_last_seen(hall: Hall) -> None:
    hall.account()
    session = hall.sign_in().session
    for _ in range(3):
        hall.time.now += 6 * DAY_MS
        assert hall.who(session) == ADA
    hall.time.now += 7 * DAY_MS
    assert hall.who(session) is None


def test_a_session_ends_after_a_month_however_often_it_is_seen(hall: Hall) -> None:
    hall.account()
    session = hall.sign_in().session
    for _ in range(29):
        hall.time.now += DAY_MS
        assert hall.who(session) == ADA
    hall.time.now += DAY_MS
    assert hall.who(session) is None


def test_sessions_are_listed_with_when_they_were_seen_and_ended_one_by_one(hall: Hall) -> None:
    account = hall.account()
    first = hall.sign_in(client=Client("192.0.2.1", "First\x07" + "x" * 500)).session
    hall.time.now += MINUTE_MS
    second = hall.sign_in(client=ELSEWHERE).session
    hall.time.now += MINUTE_MS
    assert hall.who(first) == ADA
    listed = hall.entrance.sessions.of(account)
    assert [session.id for session in listed] == [hall.session_id(first), hall.session_id(second)]
    assert listed[0].last_seen_at == hall.time.now
    assert listed[0].created_at == hall.time.now - 2 * MINUTE_MS
    assert listed[0].user_agent == ("First" + "x" * 500)[:200]
    assert hall.entrance.sessions.end(account.id, listed[0].id)
    assert not hall.entrance.sessions.end(account.id, listed[0].id)
    assert (hall.who(first), hall.who(second)) == (None, ADA)


def test_nobody_ends_the_session_of_somebody_else(hall: Hall) -> None:
    hall.account()
    bob = hall.account("bob@people.test")
    session = hall.sign_in().session
    assert not hall.entrance.sessions.end(bob.id, hall.session_id(session))
    assert hall.who(session) == ADA


def test_one_session_too_many_ends_the_one_not_seen_for_longest(hall: Hall) -> None:
    account = hall.account()
    sessions = []
    for _ in range(MOST_OF_ONE):
        sessions.append(hall.sign_in().session)
        hall.time.now += MINUTE_MS
    assert hall.who(sessions[0]) == ADA
    sessions.append(hall.sign_in().session)
    assert [hall.who(session) is not None for session in sessions] == [True, False] + [True] * (MOST_OF_ONE - 1)
    assert len(hall.entrance.sessions.of(account)) == MOST_OF_ONE


def test_what_goes_with_an_account_takes_its_sessions_along(hall: Hall) -> None:
    account = hall.account()
    hall.account("bob@people.test")
    mine, bobs = hall.sign_in().session, hall.sign_in("bob@people.test").session
    hall.records.apply([Delete(ACCOUNTS, {"id": account.id})])
    assert hall.who(mine) is None
    assert hall.entrance.sessions.erase(account.id) == 1
    assert hall.entrance.sessions.of(account) == []
    assert hall.who(bobs) == "bob@people.test"


def test_what_is_kept_of_a_session_names_nobody(hall: Hall) -> None:
    kept: list[bytes] = []

    class Watched(MemoryEphemeral):
        def remember(self, what: Collection, key: bytes, value: bytes = b"", group: bytes = b"") -> None:
            kept.extend([key, value, group])

    account = hall.account()
    sessions = Sessions(Watched(), Sealer(bytes(32)), hall.time.wall, iter("ab").__next__)
    secret, _ = sessions.begin(account, "A browser")
    octets = b"".join(kept)
    assert len(octets) > 100
    for said in (secret, account.id, "A browser", ADA):
        assert said.encode() not in octets


def test_sessions_of_a_run_before_are_over(hall: Hall) -> None:
    hall.account()
    session = hall.sign_in().session
    of_another_run = Sessions(hall.ephemeral, Sealer(bytes(31) + b"x"), hall.time.wall, iter("ab").__next__)
    assert of_another_run.find(session) is None


def test_a_session_that_came_back_damaged_from_the_store_is_none(hall: Hall) -> None:
    class Damaging(MemoryEphemeral):
        def recall(self, what: Collection, key: bytes) -> bytes | None:
            return (super().recall(what, key) or b"?")[:-1] + b"?"

    sessions = Sessions(Damaging(), Sealer(bytes(32)), hall.time.wall, iter("ab").__next__)
    secret, _ = sessions.begin(hall.account(), "A browser")
    assert sessions.find(secret) is None


def test_a_hash_with_other_parameters_is_renewed_at_sign_in(records: SqliteRecords) -> None:
    of_old = Hall(records)
    of_old.account()
    dearer = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
    hall = Hall(records, hasher=dearer)
    session = hall.sign_in().session
    kept = hall.accounts.of(ADA).password_hash
    assert kept is not None
    assert not dearer.check_needs_rehash(kept)
    assert CHEAP.check_needs_rehash(kept)
    assert hall.who(session) == ADA, "another hash of the same password ends nothing"
    hall.sign_in()
    assert hall.accounts.of(ADA).password_hash == kept


def test_a_device_is_known_to_its_account_until_the_password_changes(hall: Hall) -> None:
    account = hall.account()
    bob = hall.account("bob@people.test")
    devices = hall.entrance.sign_ins.devices
    device = hall.sign_in().device
    assert devices.known(account, device)
    assert not devices.known(bob, device)
    assert not devices.known(None, device)
    assert not devices.known(replace(account, password_changed_at=1), device)
    for forged in ("", ".", device[:-1], "x" + device, device + "ä", "x" * 1000 + device, device.partition(".")[0]):
        assert not devices.known(account, forged)


def test_a_store_that_takes_nothing_more_signs_nobody_out(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    hall.account()
    session = hall.sign_in().session
    away(hall, "renew", monkeypatch)
    for _ in range(3):
        hall.time.now += DAY_MS
        assert hall.who(session) == ADA


def test_while_the_store_is_away_nobody_is_said_to_be_signed_out(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    account = hall.account()
    signed_in = hall.sign_in()
    for verb in ("recall", "recall_group"):
        away(hall, verb, monkeypatch)
    for ask in (
        lambda: hall.who(signed_in.session),
        lambda: hall.entrance.sessions.of(account),
        lambda: hall.entrance.sessions.end(account.id, signed_in.session_id),
        lambda: hall.entrance.sessions.erase(account.id),
        hall.sign_in,
    ):
        with pytest.raises(StoreUnavailable):
            ask()


def test_a_program_comes_in_by_its_token_while_the_store_of_sessions_is_away(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, _ = hall.entrance.api_tokens.create(hall.account(), "backup", {Scope.READ}, None)
    for verb in ("recall", "recall_group", "count", "counted"):
        away(hall, verb, monkeypatch)
    known = hall.entrance.doorkeeper.by_token(secret)
    assert known is not None
    assert known.account.email == ADA
