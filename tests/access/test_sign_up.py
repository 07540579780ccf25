"""Signing up: a letter for everybody, an account for who opens it, and nothing to be learnt from the answer."""

import pytest
from entrance_hall import ADA, ELSEWHERE, HOME, PASSWORD, Hall

from appliance.access import letters
from appliance.access.clients import Client
from appliance.model.account import Role
from appliance.model.refused import Refused, TooMany
from appliance.model.time import DAY_MS, HOUR_MS
from appliance.privacy.declarations import ACCOUNTS, MAILED_TOKENS
from appliance.privacy.sweeper import Sweeper
from appliance.storage.sqlite_spool import SqliteSpool


def test_who_signs_up_and_opens_the_letter_can_sign_in(hall: Hall) -> None:
    hall.entrance.sign_ups.sign_up("Ada@People.test", PASSWORD, HOME)
    (letter,) = hall.bag.letters
    assert letter.recipient == ADA
    assert "https://mx.onward.test/#/verify-email?token=" in letter.text
    account = hall.entrance.sign_ups.verify_email(hall.bag.token())
    assert (account.email, account.email_verified, account.role, account.plan) == (ADA, True, Role.MEMBER, "free")
    assert hall.who(hall.sign_in().session) == ADA


def test_before_the_letter_is_opened_nobody_signs_in(hall: Hall) -> None:
    hall.entrance.sign_ups.sign_up(ADA, PASSWORD, HOME)
    assert not hall.accounts.of(ADA).email_verified
    with pytest.raises(Refused) as refused:
        hall.sign_in()
    assert refused.value.code == "WRONG_CREDENTIALS"


def test_who_has_an_account_hears_of_it_and_keeps_the_password(hall: Hall) -> None:
    before = hall.account()
    hall.entrance.sign_ups.sign_up(ADA, "another password", HOME)
    (letter,) = hall.bag.letters
    assert "has an account already" in letter.text
    assert hall.accounts.of(ADA) == before
    hall.sign_in()
    with pytest.raises(Refused):
        hall.sign_in(password="another password")
    hall.entrance.sign_ups.reset_password(hall.bag.token(), "a third password")
    hall.sign_in(password="a third password")


def test_the_letter_that_is_opened_has_the_say_over_the_password(hall: Hall) -> None:
    hall.entrance.sign_ups.sign_up(ADA, "of a stranger", ELSEWHERE)
    theirs = hall.bag.token()
    hall.entrance.sign_ups.sign_up(ADA, PASSWORD, HOME)
    hall.entrance.sign_ups.verify_email(hall.bag.token())
    hall.sign_in()
    with pytest.raises(Refused, match="not good any more"):
        hall.entrance.sign_ups.verify_email(theirs)
    with pytest.raises(Refused):
        hall.sign_in(password="of a stranger")


def test_a_link_is_good_once_and_for_a_week(hall: Hall) -> None:
    hall.entrance.sign_ups.sign_up(ADA, PASSWORD, HOME)
    token = hall.bag.token()
    hall.time.now += 7 * DAY_MS
    with pytest.raises(Refused, match="not good any more"):
        hall.entrance.sign_ups.verify_email(token)
    hall.time.now -= 1
    hall.entrance.sign_ups.verify_email(token)
    with pytest.raises(Refused, match="not good any more") as refused:
        hall.entrance.sign_ups.verify_email(token)
    assert (refused.value.field, refused.value.code) == ("token", "INVALID_TOKEN")


def test_a_link_for_one_thing_is_no_good_for_another(hall: Hall) -> None:
    hall.entrance.sign_ups.sign_up(ADA, PASSWORD, HOME)
    with pytest.raises(Refused):
        hall.entrance.sign_ups.reset_password(hall.bag.token(), "another password")
    hall.account("bob@people.test")
    hall.entrance.sign_ups.request_password_reset("bob@people.test", HOME)
    with pytest.raises(Refused):
        hall.entrance.sign_ups.verify_email(hall.bag.token("bob@people.test"))


def test_no_stored_octet_says_what_stands_in_the_link(hall: Hall) -> None:
    hall.entrance.sign_ups.sign_up(ADA, PASSWORD, HOME)
    stored = repr(hall.records.find(MAILED_TOKENS, {})) + repr(hall.records.find(ACCOUNTS, {}))
    assert hall.bag.token() not in stored
    assert PASSWORD not in stored


@pytest.mark.parametrize(
    ("email", "password", "field"),
    [
        ("nonsense", PASSWORD, "email"),
        (ADA, "short", "password"),
        (ADA, "x" * 1025, "password"),
        (ADA, "\ud800" * 8, "password"),
    ],
)
def test_what_can_be_no_account_is_said_at_once(hall: Hall, email: str, password: str, field: str) -> None:
    with pytest.raises(Refused) as refused:
        hall.entrance.sign_ups.sign_up(email, password, HOME)
    assert refused.value.field == field
    assert hall.bag.letters == []


def test_nobody_gets_more_than_three_letters_an_hour_and_nobody_is_told(hall: Hall) -> None:
    hall.account("bob@people.test")
    for number in range(6):
        client = Client(f"192.0.2.{number}")
        hall.entrance.sign_ups.sign_up(ADA, PASSWORD, client)
        hall.entrance.sign_ups.request_password_reset("bob@people.test", client)
    assert len(hall.bag.to(ADA)) == len(hall.bag.to("bob@people.test")) == 3
    # The links of all three are good: whoever used the letters up has taken nothing away.
    hall.entrance.sign_ups.reset_password(hall.bag.token("bob@people.test"), "another password")
    hall.time.now += HOUR_MS + 1
    hall.entrance.sign_ups.sign_up(ADA, PASSWORD, HOME)
    assert len(hall.bag.to(ADA)) == 4


def test_one_network_asks_for_so_many_letters_an_hour_and_others_go_on(hall: Hall) -> None:
    for number in range(letters.PER_NETWORK):
        hall.entrance.sign_ups.sign_up(f"a{number}@people.test", PASSWORD, HOME)
    with pytest.raises(TooMany) as too_many:
        hall.entrance.sign_ups.request_password_reset(ADA, HOME)
    assert too_many.value.retry_after_s == 3600
    hall.entrance.sign_ups.sign_up(ADA, PASSWORD, ELSEWHERE)
    assert len(hall.bag.to(ADA)) == 1


def test_a_flood_of_requests_leaves_each_network_one(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters, "IN_ALL", 20)
    for number in range(20):
        hall.entrance.sign_ups.request_password_reset(f"a{number}@people.test", Client(f"203.0.113.{number}"))
    hall.entrance.sign_ups.sign_up(ADA, PASSWORD, HOME)
    with pytest.raises(TooMany):
        hall.entrance.sign_ups.sign_up(ADA, PASSWORD, HOME)
    hall.entrance.sign_ups.sign_up(ADA, PASSWORD, ELSEWHERE)
    assert len(hall.bag.to(ADA)) == 2


def test_an_address_that_is_never_verified_is_erased_after_a_week(hall: Hall, spool: SqliteSpool) -> None:
    sweeper = Sweeper(hall.records, spool, lambda setting: DAY_MS)
    hall.account("bob@people.test")
    hall.entrance.sign_ups.sign_up(ADA, PASSWORD, HOME)
    hall.time.now += 6 * DAY_MS
    # Who signs up once more has a whole week for it.
    hall.entrance.sign_ups.sign_up(ADA, PASSWORD, HOME)
    hall.time.now += 2 * DAY_MS
    sweeper.sweep(hall.time.now)
    hall.accounts.of(ADA)
    hall.time.now += 6 * DAY_MS
    sweeper.sweep(hall.time.now)
    assert [account.email for account in hall.accounts.every()] == ["bob@people.test"]
    assert hall.records.count(MAILED_TOKENS, {}) == 0
