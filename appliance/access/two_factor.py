"""The second factor: one-time codes by time (RFC 6238), and recovery codes for the day when the app is lost.

The secret that the app shares is the one thing in this room that has to be kept as it is; it is sealed under the key
`accounts`. A code is good for its own half minute and the ones before and behind it, for clocks that differ, and for
one sign-in: its step is kept, and no step up to it counts again (RFC 6238 §5.2). Of recovery codes there are hashes,
and each is erased by using it.
"""

import secrets
from base64 import b32encode
from dataclasses import dataclass
from hmac import compare_digest

import pyotp

from appliance.access.drawn import hash_of
from appliance.model.account import Account
from appliance.model.refused import Refused
from appliance.model.time import SECOND_MS, Clock
from appliance.privacy.declarations import RECOVERY_CODES, TWO_FACTORS
from appliance.storage.records import Damaged, Delete, Insert, Range, RecordStore, Update

STEP_S = 30
"""RFC 6238 §5.2 recommends it, and apps know no other."""

WINDOW = 1
"""Steps before and behind the present one whose codes are taken: RFC 6238 §5.2 recommends at most one for the delay of
the network; the other is for a clock that is fast."""

DIGITS = 6

RECOVERY_CODES_MADE = 10
RECOVERY_CODE_OCTETS = 10
"""Eighty bits: a plain hash of it tells nothing."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What is shown once, to be put into an app and into a drawer."""

    otpauth_url: str
    recovery_codes: tuple[str, ...]


class TwoFactors:
    """The second factors of a record store. Every method may raise StoreUnavailable."""

    def __init__(self, records: RecordStore, clock: Clock, issuer: str) -> None:
        """`issuer` is what apps show beside the account: the appliance's hostname."""
        self._records = records
        self._clock = clock
        self._issuer = issuer

    def is_enabled(self, account_id: str) -> bool:
        """Whether signing in to this account takes a code. Opens nothing: a lost key opens no account."""
        return self._records.count(TWO_FACTORS, {"account_id": account_id, "confirmed": True}) > 0

    def enrol(self, account: Account) -> Enrolment:
        """Make a secret and recovery codes, in place of any that were not confirmed. They count once confirmed.

        Raises Refused where there is a second factor already.
        """
        if self.is_enabled(account.id):
            raise Refused("There is a second factor already: switch it off first.")
        now = self._clock()
        secret = pyotp.random_base32()
        codes = tuple(_recovery_code() for _ in range(RECOVERY_CODES_MADE))
        row = {
            "account_id": account.id,
            "secret": secret,
            "confirmed": False,
            "last_step": 0,
            "created_at": now,
        }
        self._records.apply(
            [
                Delete(TWO_FACTORS, {"account_id": account.id, "confirmed": False}),
                Delete(RECOVERY_CODES, {"account_id": account.id}),
                Insert(TWO_FACTORS, row),
                *(Insert(RECOVERY_CODES, _recovery_row(account.id, code, now)) for code in codes),
            ]
        )
        url = pyotp.TOTP(secret, digits=DIGITS, interval=STEP_S).provisioning_uri(
            name=account.email, issuer_name=self._issuer
        )
        return Enrolment(url, codes)

    def confirm(self, account_id: str, code: str) -> bool:
        """Have the enrolled secret count from now on, by a code that its app shows. Returns whether the code is right.

        Raises Refused where nothing was enrolled.
        """
        if not self._records.count(TWO_FACTORS, {"account_id": account_id, "confirmed": False}):
            raise Refused("There is nothing to confirm: enable the second factor first.", "oneTimeCode")
        return self._take_code(account_id, code, confirmed=False)

    def take(self, account_id: str, code: str) -> bool:
        """Use up a one-time code or a recovery code. Returns whether it was right, and not used before."""
        if self._take_code(account_id, code, confirmed=True):
            return True
        used = Delete(RECOVERY_CODES, {"id": _recovery_id(account_id, code), "account_id": account_id})
        return self._records.apply([used]) == [1]

    def disable(self, account_id: str) -> None:
        """Erase the second factor of an account."""
        where = {"account_id": account_id}
        self._records.apply([Delete(TWO_FACTORS, where), Delete(RECOVERY_CODES, where)])

    def _take_code(self, account_id: str, code: str, *, confirmed: bool) -> bool:
        step = self._step_of(account_id, _plain(code))
        if step is None:
            return False
        # Whoever moves the step on has used the code; a second one at the same instant finds it moved.
        where = {"account_id": account_id, "confirmed": confirmed, "last_step": Range(until=step)}
        return self._records.apply([Update(TWO_FACTORS, where, {"last_step": step, "confirmed": True})]) == [1]

    def _step_of(self, account_id: str, code: str) -> int | None:
        """The step that a code is of; None where it is of none that counts now."""
        if len(code) != DIGITS:
            return None
        try:
            row = self._records.get(TWO_FACTORS, {"account_id": account_id})
        except Damaged:
            return None  # Sealed under a key that is lost: recovery codes still open, and only they.
        if row is None:
            return None
        app = pyotp.TOTP(str(row["secret"]), digits=DIGITS, interval=STEP_S)
        now = self._clock() // SECOND_MS // STEP_S
        for step in range(now - WINDOW, now + WINDOW + 1):
            if step >= 0 and compare_digest(app.generate_otp(step), code):
                return step
        return None


def _recovery_code() -> str:
    """Sixteen letters and digits that are hard to misread (RFC 4648 §6), in groups of four."""
    letters = b32encode(secrets.token_bytes(RECOVERY_CODE_OCTETS)).decode().lower()
    return "-".join(letters[at : at + 4] for at in range(0, len(letters), 4))


def _recovery_row(account_id: str, code: str, now: int) -> dict[str, object]:
    return {"id": _recovery_id(account_id, code), "account_id": account_id, "created_at": now}


def _recovery_id(account_id: str, code: str) -> str:
    return hash_of(f"{account_id} {_plain(code).lower()}")


def _plain(code: str) -> str:
    """Without what people put between the digits, and without what no code has."""
    return "".join(letter for letter in code if letter.isascii() and letter.isalnum())
