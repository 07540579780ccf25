"""Attempts are limited by account, by network and in all, and nobody locks anybody else out."""

import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import count

import pytest
from entrance_hall import ADA, CHEAP, ELSEWHERE, HOME, PASSWORD, Hall

from appliance.access.attempts import Limits
from appliance.access.clients import Client, networks
from appliance.access.passwords import Passwords
from appliance.access.turns import Turns
from appliance.model.refused import Refused, TooMany
from appliance.model.time import MINUTE_MS
from appliance.storage.records import StoreUnavailable
from appliance.storage.sqlite_records import SqliteRecords

LIMITS = Limits()


def wrong(hall: Hall, email: str = ADA, client: Client = HOME) -> None:
    """Somebody types a wrong password, and is told so."""
    with pytest.raises(Refused):
        hall.sign_in(email, "wrong password", client)


def tries_in_vain(hall: Hall, email: str, client: Client) -> int:
    """How many wrong passwords somebody can type until they are let try no more."""
    for number in count():
        try:
            hall.sign_in(email, "wrong password", client)
        except Refused:
            continue
        except TooMany:
            return number
    raise AssertionError


def strangers(number: int) -> Client:
    """Somebody in a network of their own."""
    return Client(f"203.0.{113 + number // 250}.{number % 250 + 1}")


@pytest.mark.parametrize("email", [ADA, "nobody@people.test"])
def test_after_five_wrong_passwords_a_network_waits_for_this_account_known_or_not(hall: Hall, email: str) -> None:
    hall.account()
    assert tries_in_vain(hall, email, HOME) == LIMITS.account_from_network
    with pytest.raises(TooMany) as too_many:
        hall.sign_in(email)
    assert too_many.value.retry_after_s == 15 * 60


def test_meanwhile_the_owner_comes_in_from_elsewhere(hall: Hall) -> None:
    hall.account()
    tries_in_vain(hall, ADA, HOME)
    hall.sign_in(client=ELSEWHERE)


def test_and_so_does_the_owner_in_the_very_same_network_with_a_known_device(hall: Hall) -> None:
    hall.account()
    device = hall.sign_in().device
    tries_in_vain(hall, ADA, HOME)
    with pytest.raises(TooMany):
        hall.sign_in()
    hall.sign_in(client=replace(HOME, device=device))


def test_a_known_device_has_ten_tries_of_its_own(hall: Hall) -> None:
    hall.account()
    known = replace(HOME, device=hall.sign_in().device)
    for _ in range(LIMITS.device):
        wrong(hall, client=known)
    # From here on it is a stranger like any other.
    assert tries_in_vain(hall, ADA, known) == LIMITS.account_from_network


def test_a_device_of_one_account_is_a_stranger_to_others(hall: Hall) -> None:
    hall.account()
    hall.account("bob@people.test")
    known = replace(HOME, device=hall.sign_in().device)
    assert tries_in_vain(hall, "bob@people.test", known) == LIMITS.account_from_network


def test_after_a_quarter_of_an_hour_it_begins_anew(hall: Hall) -> None:
    hall.account()
    tries_in_vain(hall, ADA, HOME)
    hall.time.now += 15 * MINUTE_MS
    hall.sign_in()


def test_signing_in_forgets_the_tries_before(hall: Hall) -> None:
    hall.account()
    for _ in range(3):
        for _ in range(LIMITS.account_from_network - 1):
            wrong(hall)
        hall.sign_in()


def test_signing_in_to_an_own_account_buys_no_tries_at_others(hall: Hall) -> None:
    hall.account("bob@people.test")
    for number in range(LIMITS.network):
        hall.sign_in("bob@people.test")
        wrong(hall, f"a{number}@people.test")
    with pytest.raises(TooMany):
        hall.sign_in("bob@people.test")


def test_who_walks_through_a_list_of_addresses_is_stopped_and_nobody_else(hall: Hall) -> None:
    hall.account()
    for number in range(LIMITS.network):
        wrong(hall, f"a{number}@people.test")
    with pytest.raises(TooMany):
        hall.sign_in()
    hall.sign_in(client=ELSEWHERE)


def test_ipv6_is_counted_by_64_and_a_whole_48_has_five_times_as_much(hall: Hall) -> None:
    hall.account()
    for number in range(LIMITS.network):
        wrong(hall, f"a{number}@people.test", Client(f"2001:db8:1:1::{number:x}"))
    with pytest.raises(TooMany):
        hall.sign_in(client=Client("2001:db8:1:1:ffff::1"))
    for number in range(4 * LIMITS.network):
        wrong(hall, f"b{number}@people.test", Client(f"2001:db8:1:{number + 2:x}::1"))
    with pytest.raises(TooMany):
        hall.sign_in(client=Client("2001:db8:1:ffff::1"))
    hall.sign_in(client=Client("2001:db8:2::1"))


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [
        ("192.0.2.1", ("192.0.2.1",)),
        ("::ffff:192.0.2.1", ("192.0.2.1",)),
        ("2001:db8:1:2:3::4", ("2001:db8:1:2::/64", "2001:db8:1::/48")),
        ("fe80::1%eth0", ("fe80::/64", "fe80::/48")),
        ("", ("",)),
    ],
)
def test_a_client_is_counted_as_its_networks(address: str, counted_as: tuple[str, ...]) -> None:
    assert networks(address) == counted_as


def test_an_attack_from_many_networks_gets_two_tries_each_and_the_owner_still_comes_in(hall: Hall) -> None:
    hall.account()
    for number in range(LIMITS.account_is_attacked):
        wrong(hall, client=strangers(number))
    assert tries_in_vain(hall, ADA, strangers(100)) == LIMITS.account_from_network_attacked
    wrong(hall, client=ELSEWHERE)
    hall.sign_in(client=ELSEWHERE)


def test_a_flood_over_all_accounts_slows_strangers_down_and_shuts_nobody_out(records: SqliteRecords) -> None:
    hall = Hall(records, Limits(all_are_attacked=20))
    hall.account()
    for number in range(20):
        wrong(hall, f"a{number}@people.test", strangers(number))
    assert tries_in_vain(hall, "bob@people.test", strangers(100)) == LIMITS.account_from_network_attacked
    for number in range(LIMITS.network_attacked):
        wrong(hall, f"b{number}@people.test", strangers(200))
    with pytest.raises(TooMany):
        hall.sign_in("c@people.test", client=strangers(200))
    hall.sign_in()


def test_a_new_password_ends_the_attack_on_the_old_one(hall: Hall) -> None:
    hall.account()
    for number in range(LIMITS.account_is_attacked):
        wrong(hall, client=strangers(number))
    hall.entrance.sign_ups.request_password_reset(ADA, HOME)
    hall.entrance.sign_ups.reset_password(hall.bag.token(), "another password")
    assert tries_in_vain(hall, ADA, strangers(100)) == LIMITS.account_from_network


def test_a_hundred_tries_at_once_are_no_better_than_one_by_one(hall: Hall) -> None:
    hall.account()
    attempts = hall.entrance.sign_ins.attempts
    start, admitted = threading.Barrier(20), []

    def attempt() -> None:
        start.wait()
        for _ in range(5):
            try:
                attempts.admit(ADA, HOME.address, "")
                attempts.begin(ADA, HOME.address, "")
            except TooMany:
                continue
            admitted.append(True)

    threads = [threading.Thread(target=attempt) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(admitted) == LIMITS.account_from_network


def test_who_gets_no_turn_is_not_counted(hall: Hall) -> None:
    hall.account()
    nobody = Turns(waiting=0)
    sign_ins = replace(hall.entrance.sign_ins, passwords=Passwords(nobody, CHEAP))
    for _ in range(3 * LIMITS.network):
        with pytest.raises(TooMany):
            sign_ins.sign_in(ADA, PASSWORD, None, HOME)
    hall.sign_in()


def test_who_is_signed_in_has_ten_tries_at_the_password_and_hurts_only_that_session(hall: Hall) -> None:
    account = hall.account()
    stolen, own = (hall.session_id(hall.sign_in().session) for _ in range(2))
    for _ in range(LIMITS.device):
        with pytest.raises(Refused):
            hall.entrance.sign_ins.require_password(account, "wrong password", stolen)
    with pytest.raises(TooMany):
        hall.entrance.sign_ins.require_password(account, PASSWORD, stolen)
    hall.entrance.sign_ins.require_password(account, PASSWORD, own)
    hall.sign_in()


@pytest.mark.parametrize("verb", ["count", "counted"])
def test_who_cannot_be_counted_is_not_let_in(hall: Hall, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> int:
        raise StoreUnavailable("away")

    hall.account()
    hall.sign_in()
    broken: Callable[..., int] = away
    monkeypatch.setattr(hall.ephemeral, verb, broken)
    with pytest.raises(StoreUnavailable):
        hall.sign_in()
