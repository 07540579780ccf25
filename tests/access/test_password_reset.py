"""A password that is forgotten or changed: who can set another, and who is signed out by it."""

import pytest
from entrance_hall import ADA, ELSEWHERE, HOME, PASSWORD, Hall, away

from appliance.access.clients import WIDER, Client
from appliance.access.letters import PER_NETWORK
from appliance.model.access import Scope
from appliance.model.refused import Refused, TooMany
from appliance.model.time import HOUR_MS

NEW = "another password"


def test_a_forgotten_password_is_set_anew_by_the_mailed_link(hall: Hall) -> None:
    hall.account()
    hall.entrance.sign_ups.request_password_reset("ADA@people.test", HOME)
    account = hall.entrance.sign_ups.reset_password(hall.bag.token(), NEW)
    assert account.email == ADA
    hall.sign_in(password=NEW)
    with pytest.raises(Refused):
        hall.sign_in()


def test_for_an_unknown_address_nothing_is_written_and_nothing_is_said(hall: Hall) -> None:
    hall.entrance.sign_ups.request_password_reset(ADA, HOME)
    assert hall.bag.letters == []


def test_a_link_is_good_once_and_for_two_hours(hall: Hall) -> None:
    hall.account()
    hall.entrance.sign_ups.request_password_reset(ADA, HOME)
    token = hall.bag.token()
    hall.time.now += 2 * HOUR_MS
    with pytest.raises(Refused):
        hall.entrance.sign_ups.reset_password(token, NEW)
    hall.time.now -= 1
    with pytest.raises(Refused, match="at least"):
        hall.entrance.sign_ups.reset_password(token, "short")
    hall.entrance.sign_ups.reset_password(token, NEW)
    with pytest.raises(Refused, match="not good any more"):
        hall.entrance.sign_ups.reset_password(token, "a third password")
    hall.sign_in(password=NEW)


def test_the_first_link_that_is_used_ends_the_others(hall: Hall) -> None:
    hall.account()
    for client in (HOME, ELSEWHERE):
        hall.entrance.sign_ups.request_password_reset(ADA, client)
    first, second = (letter.text.partition("token=")[2].split()[0] for letter in hall.bag.letters)
    hall.entrance.sign_ups.reset_password(first, NEW)
    with pytest.raises(Refused):
        hall.entrance.sign_ups.reset_password(second, "a third password")


def test_a_reset_ends_all_sessions_and_nobody_elses(hall: Hall) -> None:
    hall.account()
    hall.account("bob@people.test")
    sessions = [hall.sign_in().session for _ in range(3)]
    bobs = hall.sign_in("bob@people.test").session
    hall.entrance.sign_ups.request_password_reset(ADA, HOME)
    account = hall.entrance.sign_ups.reset_password(hall.bag.token(), NEW)
    assert [hall.who(session) for session in sessions] == [None] * 3
    assert hall.entrance.sessions.of(account) == []
    assert hall.who(bobs) == "bob@people.test"


def test_a_reset_by_somebody_who_is_signed_in_leaves_that_session(hall: Hall) -> None:
    hall.account()
    mine, other = hall.sign_in().session, hall.sign_in().session
    hall.entrance.sign_ups.request_password_reset(ADA, HOME)
    hall.entrance.sign_ups.reset_password(hall.bag.token(), NEW, hall.session_id(mine))
    assert (hall.who(mine), hall.who(other)) == (ADA, None)


def test_a_session_that_was_begun_with_the_old_password_is_none_even_where_it_was_not_found_to_be_ended(
    hall: Hall,
) -> None:
    before = hall.account()
    hall.entrance.sign_ups.request_password_reset(ADA, HOME)
    hall.entrance.sign_ups.reset_password(hall.bag.token(), NEW)
    # As by somebody whose password was checked a moment before, and whose session comes a moment after.
    late, _ = hall.entrance.sessions.begin(before, "")
    assert hall.who(late) is None


def test_two_changes_at_the_same_instant_are_told_apart(hall: Hall) -> None:
    hall.account()
    hall.entrance.sign_ups.request_password_reset(ADA, HOME)
    once = hall.entrance.sign_ups.reset_password(hall.bag.token(), NEW)
    hall.entrance.sign_ups.request_password_reset(ADA, HOME)
    hall.entrance.sign_ups.reset_password(hall.bag.token(), "a third password")
    late, _ = hall.entrance.sessions.begin(once, "")
    assert hall.who(late) is None


def test_a_reset_verifies_the_address_and_opens_an_account_that_had_no_password(hall: Hall) -> None:
    hall.accounts.add(ADA)
    hall.entrance.sign_ups.sign_up("bob@people.test", PASSWORD, HOME)
    for email in (ADA, "bob@people.test"):
        hall.entrance.sign_ups.request_password_reset(email, HOME)
        assert hall.entrance.sign_ups.reset_password(hall.bag.token(email), NEW).email_verified
        hall.sign_in(email, NEW)


def test_the_owner_is_told_of_the_change_and_of_the_programs_that_still_come_in(hall: Hall) -> None:
    account = hall.account()
    hall.entrance.api_tokens.create(account, "backup", {Scope.READ}, None)
    hall.entrance.sign_ups.request_password_reset(ADA, HOME)
    hall.entrance.sign_ups.reset_password(hall.bag.token(), NEW)
    assert "API tokens of your account, of which there are 1" in hall.bag.letters[-1].text


def test_a_change_of_password_ends_all_other_sessions(hall: Hall) -> None:
    account = hall.account()
    mine, other = hall.sign_in().session, hall.sign_in(client=ELSEWHERE).session
    hall.entrance.sign_ins.change_password(account, hall.session_id(mine), PASSWORD, NEW)
    assert (hall.who(mine), hall.who(other)) == (ADA, None)
    hall.sign_in(password=NEW)
    assert "has been changed" in hall.bag.letters[-1].text


def test_a_change_takes_the_present_password_and_an_acceptable_new_one(hall: Hall) -> None:
    account = hall.account()
    mine = hall.session_id(hall.sign_in().session)
    for current, new, field in ((NEW, NEW, "currentPassword"), (PASSWORD, "short", "newPassword")):
        with pytest.raises(Refused) as refused:
            hall.entrance.sign_ins.change_password(account, mine, current, new)
        assert refused.value.field == field
    hall.sign_in()


def test_a_change_makes_links_worthless_that_were_mailed_before(hall: Hall) -> None:
    account = hall.account()
    hall.entrance.sign_ups.request_password_reset(ADA, HOME)
    token = hall.bag.token()
    hall.entrance.sign_ins.change_password(account, hall.session_id(hall.sign_in().session), PASSWORD, NEW)
    with pytest.raises(Refused):
        hall.entrance.sign_ups.reset_password(token, "a third password")


def test_a_stranger_cannot_ask_for_letters_without_end_from_one_network_of_ipv6(hall: Hall) -> None:
    for number in range(PER_NETWORK * WIDER):
        hall.entrance.sign_ups.request_password_reset(ADA, Client(f"2001:db8:1:{number:x}::1"))
    with pytest.raises(TooMany):
        hall.entrance.sign_ups.request_password_reset(ADA, Client("2001:db8:1:ffff::1"))
    hall.entrance.sign_ups.request_password_reset(ADA, Client("2001:db8:2::1"))


def test_a_password_is_set_by_a_link_while_the_store_of_sessions_is_away(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall.account()
    session = hall.sign_in().session
    hall.entrance.sign_ups.request_password_reset(ADA, HOME)
    with monkeypatch.context() as broken:
        for verb in ("recall_group", "forget"):
            away(hall, verb, broken)
        hall.entrance.sign_ups.reset_password(hall.bag.token(), NEW)
    assert "has been changed" in hall.bag.letters[-1].text
    assert hall.who(session) is None, "what could not be erased is over all the same"
    hall.sign_in(password=NEW)


def test_a_change_of_password_that_was_made_is_told_where_the_sessions_can_not_be_ended(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = hall.account()
    mine, other = hall.sign_in().session, hall.sign_in(client=ELSEWHERE).session
    session_id = hall.session_id(mine)
    with monkeypatch.context() as broken:
        away(hall, "recall_group", broken)
        hall.entrance.sign_ins.change_password(account, session_id, PASSWORD, NEW)
    assert "has been changed" in hall.bag.letters[-1].text
    assert (hall.who(mine), hall.who(other)) == (None, None)
    hall.sign_in(password=NEW)
