"""Passwords: what is kept of them, and what it takes to be one."""

from typing import Literal

import pytest
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from entrance_hall import CHEAP

from appliance.access.passwords import MAX_PASSWORD_CHARACTERS, Passwords, hash_password
from appliance.model.refused import Refused


def anybody() -> None:
    """Lets everybody try."""


@pytest.mark.parametrize("typed", ["p\u00e4ssw\u00f6rter", "pa\u0308sswo\u0308rter"])
def test_a_password_is_kept_as_argon2id_of_its_composed_form(typed: str) -> None:
    kept = hash_password(typed)
    assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert PasswordHasher().verify(kept, "p\u00e4ssw\u00f6rter")
    with pytest.raises(VerifyMismatchError):
        PasswordHasher().verify(kept, "passworter")
    assert hash_password(typed) != kept, "salted"


@pytest.mark.parametrize(
    ("password", "why"),
    [("1234567", "at least 8"), ("x" * (MAX_PASSWORD_CHARACTERS + 1), "at most 1024"), ("\ud800" * 8, "UTF-8")],
)
def test_what_can_be_no_password_is_refused_with_its_field(password: str, why: str) -> None:
    with pytest.raises(Refused, match=why) as refused:
        hash_password(password, "newPassword")
    assert refused.value.field == "newPassword"


@pytest.mark.parametrize("password", ["12345678", "x" * MAX_PASSWORD_CHARACTERS, "        ", "\U0001f40e" * 8])
def test_any_eight_characters_are_a_password(password: str) -> None:
    passwords = Passwords(hasher=CHEAP)
    assert passwords.match(passwords.hash(password), password, anybody)


def test_without_an_account_no_password_is_right_and_the_same_work_is_done() -> None:
    verified: list[str] = []

    class Watched(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
            verified.append(str(hash))
            return super().verify(hash, password)

    passwords = Passwords(hasher=Watched(time_cost=1, memory_cost=8, parallelism=1))
    kept = passwords.hash("correct horse")
    assert not passwords.match(kept, "wrong password", anybody)
    assert not passwords.match(None, "wrong password", anybody)
    mine, nobodys = verified
    # The same parameters, and so the same time.
    assert mine.split("$")[1:4] == nobodys.split("$")[1:4]
    assert mine != nobodys


def test_what_is_kept_and_is_no_hash_matches_nothing() -> None:
    assert not Passwords(hasher=CHEAP).match("$argon2id$...", "correct horse", anybody)
