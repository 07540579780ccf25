"""The second factor: codes by time, once each, and recovery codes for the day when the app is lost."""

import threading
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pyotp
import pytest
from entrance_hall import ADA, ELSEWHERE, HOME, PASSWORD, Hall
from stored_values import a_keyring

from appliance.access.attempts import Limits
from appliance.access.two_factor import Enrolment
from appliance.model.account import Account
from appliance.model.refused import Refused, TooMany
from appliance.privacy.declarations import RECOVERY_CODES, TWO_FACTORS
from appliance.storage.sqlite_records import SqliteRecords

STEP_MS = 30_000


class App:
    """What people have on their telephone: shows codes for what it was given to scan."""

    def __init__(self, hall: Hall, otpauth_url: str) -> None:
        self._hall = hall
        parts = urlsplit(otpauth_url)
        assert (parts.scheme, parts.netloc) == ("otpauth", "totp")
        assert unquote(parts.path) == f"/mx.onward.test:{ADA}"
        self._totp = pyotp.parse_uri(otpauth_url)
        assert len(parse_qs(parts.query)["secret"][0]) == 32

    def code(self, steps: int = 0) -> str:
        """What it shows now, or so many half minutes from now."""
        assert isinstance(self._totp, pyotp.TOTP)
        return self._totp.at(self._hall.time.now // 1000, counter_offset=steps)


def session_of(hall: Hall) -> str:
    return hall.session_id(hall.sign_in().session)


def enrolled(hall: Hall) -> tuple[Account, App, Enrolment]:
    """An account that was signed in to with a code just now."""
    account = hall.account()
    session = session_of(hall)
    enrolment = hall.entrance.sign_ins.enable_two_factor(account, session, PASSWORD)
    app = App(hall, enrolment.otpauth_url)
    hall.entrance.sign_ins.confirm_two_factor(account, session, app.code())
    hall.time.now += 2 * STEP_MS
    return account, app, enrolment


def refused_code(hall: Hall, code: str | None) -> str:
    with pytest.raises(Refused) as refused:
        hall.sign_in(code=code)
    assert refused.value.field == "oneTimeCode"
    return refused.value.code


def test_signing_in_takes_a_code_once_the_factor_is_confirmed(hall: Hall) -> None:
    account = hall.account()
    session = session_of(hall)
    enrolment = hall.entrance.sign_ins.enable_two_factor(account, session, PASSWORD)
    hall.sign_in()
    assert not hall.entrance.two_factors.is_enabled(account.id)
    app = App(hall, enrolment.otpauth_url)
    with pytest.raises(Refused):
        hall.entrance.sign_ins.confirm_two_factor(account, session, "000000" if app.code() != "000000" else "000001")
    hall.entrance.sign_ins.confirm_two_factor(account, session, app.code())
    assert hall.entrance.two_factors.is_enabled(account.id)
    hall.time.now += STEP_MS
    assert refused_code(hall, None) == "ONE_TIME_CODE_REQUIRED"
    hall.sign_in(code=app.code())


def test_the_password_comes_first(hall: Hall) -> None:
    _, app, _ = enrolled(hall)
    for code in (None, app.code()):
        with pytest.raises(Refused) as refused:
            hall.sign_in(password="wrong password", code=code)
        assert refused.value.code == "WRONG_CREDENTIALS"
    hall.sign_in(code=app.code())


def test_a_code_is_good_once(hall: Hall) -> None:
    _, app, _ = enrolled(hall)
    code = app.code()
    hall.sign_in(code=code)
    assert refused_code(hall, code) == "WRONG_ONE_TIME_CODE"


def test_the_code_that_confirmed_is_used_up(hall: Hall) -> None:
    account = hall.account()
    session = session_of(hall)
    enrolment = hall.entrance.sign_ins.enable_two_factor(account, session, PASSWORD)
    code = App(hall, enrolment.otpauth_url).code()
    hall.entrance.sign_ins.confirm_two_factor(account, session, code)
    assert refused_code(hall, code) == "WRONG_ONE_TIME_CODE"


def test_a_clock_may_be_half_a_minute_off_and_no_more(hall: Hall) -> None:
    _, app, _ = enrolled(hall)
    for steps in (-2, 2):
        assert refused_code(hall, app.code(steps)) == "WRONG_ONE_TIME_CODE"
    for steps in (-1, 0, 1):
        hall.sign_in(code=app.code(steps))


def test_no_code_from_before_the_last_one_is_good(hall: Hall) -> None:
    _, app, _ = enrolled(hall)
    hall.sign_in(code=app.code(1))
    for steps in (-1, 0, 1):
        assert refused_code(hall, app.code(steps)) == "WRONG_ONE_TIME_CODE"


def test_a_code_is_read_as_apps_show_it(hall: Hall) -> None:
    _, app, _ = enrolled(hall)
    code = app.code()
    hall.sign_in(code=f" {code[:3]} {code[3:]} ")


@pytest.mark.parametrize("code", ["", "1", "12345", "1234567", "abcdef", "１２３４５６", "\ud800", "x" * 100_000])
def test_whatever_is_no_code_is_refused(hall: Hall, code: str) -> None:
    enrolled(hall)
    assert refused_code(hall, code) == ("WRONG_ONE_TIME_CODE" if code else "ONE_TIME_CODE_REQUIRED")


def test_of_many_who_use_one_code_at_once_one_comes_in(hall: Hall) -> None:
    account, app, enrolment = enrolled(hall)
    for code in (app.code(), enrolment.recovery_codes[0]):
        start = threading.Barrier(4)
        taken: list[bool] = []

        def take(code: str = code, start: threading.Barrier = start, taken: list[bool] = taken) -> None:
            start.wait()
            taken.append(hall.entrance.two_factors.take(account.id, code))

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == [False, False, False, True]


def test_a_recovery_code_opens_once_however_it_is_typed(hall: Hall) -> None:
    _, _, enrolment = enrolled(hall)
    assert len(set(enrolment.recovery_codes)) == 10
    first, second, *_ = enrolment.recovery_codes
    hall.sign_in(code=first)
    assert refused_code(hall, first) == "WRONG_ONE_TIME_CODE"
    hall.sign_in(code=second.upper().replace("-", " "))
    assert hall.records.count(RECOVERY_CODES, {}) == 8


def test_a_recovery_code_is_of_one_account(hall: Hall) -> None:
    _, _, enrolment = enrolled(hall)
    bob = hall.account("bob@people.test")
    assert not hall.entrance.two_factors.take(bob.id, enrolment.recovery_codes[0])
    hall.sign_in(code=enrolment.recovery_codes[0])


def test_what_is_shown_once_stands_nowhere_in_the_clear(hall: Hall, tmp_path: Path) -> None:
    _, _, enrolment = enrolled(hall)
    hall.records.close()
    octets = b"".join(path.read_bytes() for path in tmp_path.glob("records.sqlite*"))
    secret = parse_qs(urlsplit(enrolment.otpauth_url).query)["secret"][0]
    for shown in (secret, *enrolment.recovery_codes, *(code.replace("-", "") for code in enrolment.recovery_codes)):
        assert shown.encode() not in octets


def test_it_is_switched_off_by_password_and_code(hall: Hall) -> None:
    account, app, enrolment = enrolled(hall)
    session = hall.session_id(hall.sign_in(code=enrolment.recovery_codes[0]).session)
    with pytest.raises(Refused) as refused:
        hall.entrance.sign_ins.disable_two_factor(account, session, "wrong password", app.code())
    assert refused.value.code == "WRONG_PASSWORD"
    with pytest.raises(Refused) as refused:
        hall.entrance.sign_ins.disable_two_factor(account, session, PASSWORD, enrolment.recovery_codes[0])
    assert refused.value.code == "WRONG_ONE_TIME_CODE"
    hall.entrance.sign_ins.disable_two_factor(account, session, PASSWORD, app.code())
    hall.sign_in()
    assert hall.records.count(TWO_FACTORS, {}) == hall.records.count(RECOVERY_CODES, {}) == 0
    with pytest.raises(Refused, match="no second factor"):
        hall.entrance.sign_ins.disable_two_factor(account, session, PASSWORD, app.code())


def test_another_secret_takes_the_password_and_no_second_factor_before_it(hall: Hall) -> None:
    account, _, enrolment = enrolled(hall)
    session = hall.session_id(hall.sign_in(code=enrolment.recovery_codes[0]).session)
    with pytest.raises(Refused, match="already"):
        hall.entrance.sign_ins.enable_two_factor(account, session, PASSWORD)
    assert hall.records.count(RECOVERY_CODES, {}) == 9
    with pytest.raises(Refused):
        hall.entrance.sign_ins.enable_two_factor(account, session, "wrong password")
    with pytest.raises(Refused, match="nothing to confirm"):
        hall.entrance.sign_ins.confirm_two_factor(account, session, "123456")


def test_a_secret_that_was_never_confirmed_is_replaced_by_the_next(hall: Hall) -> None:
    account = hall.account()
    session = session_of(hall)
    first, second = (hall.entrance.sign_ins.enable_two_factor(account, session, PASSWORD) for _ in range(2))
    with pytest.raises(Refused):
        hall.entrance.sign_ins.confirm_two_factor(account, session, App(hall, first.otpauth_url).code())
    hall.entrance.sign_ins.confirm_two_factor(account, session, App(hall, second.otpauth_url).code())
    assert not hall.entrance.two_factors.take(account.id, first.recovery_codes[0])


def test_after_five_wrong_codes_strangers_try_no_more_and_the_owner_is_told(hall: Hall) -> None:
    _, app, _ = enrolled(hall)
    known = hall.sign_in(code=app.code()).device
    for _ in range(Limits().codes):
        refused_code(hall, app.code(5))
    (letter,) = hall.bag.letters
    assert letter.recipient == ADA
    assert "right password" in letter.text
    for client in (HOME, ELSEWHERE):
        with pytest.raises(TooMany):
            hall.sign_in(client=client, code=app.code(1))
    hall.sign_in(client=type(HOME)(HOME.address, device=known), code=app.code(1))


def test_a_new_password_lets_the_owner_in_from_anywhere_again(hall: Hall) -> None:
    _, app, _ = enrolled(hall)
    for _ in range(Limits().codes):
        refused_code(hall, app.code(5))
    hall.entrance.sign_ups.request_password_reset(ADA, HOME)
    hall.entrance.sign_ups.reset_password(hall.bag.token(), "another password")
    with pytest.raises(Refused):
        hall.sign_in(password="another password")
    hall.sign_in(password="another password", code=app.code())


def test_where_the_key_is_lost_recovery_codes_open_and_nothing_else(hall: Hall, tmp_path: Path) -> None:
    _, app, enrolment = enrolled(hall)
    hall.records.close()
    records = SqliteRecords(tmp_path / "records.sqlite", {**a_keyring(), **a_keyring("accounts", seed=2)})
    other = Hall(records)
    other.time.now = hall.time.now
    assert refused_code(other, None) == "ONE_TIME_CODE_REQUIRED"
    assert refused_code(other, app.code()) == "WRONG_ONE_TIME_CODE"
    session = other.session_id(other.sign_in(code=enrolment.recovery_codes[0]).session)
    other.entrance.sign_ins.disable_two_factor(other.accounts.of(ADA), session, PASSWORD, enrolment.recovery_codes[1])
    other.sign_in()
    records.close()
