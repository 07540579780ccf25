"""Signing in and out, and everything else that takes a password.

For an address without an account the same is done as for one that has one: the same counters, one look into the store,
one hash. An account whose address is not verified has no password yet; its owner hears the same as everybody who is
wrong, with a hint at the letter.
"""

from dataclasses import dataclass, replace

from appliance.access.api_tokens import ApiTokens
from appliance.access.attempts import Attempts
from appliance.access.clients import Client
from appliance.access.devices import Devices
from appliance.access.letters import LetterWriter
from appliance.access.mailed_tokens import Purpose, all_of
from appliance.access.passwords import Passwords, require_usable
from appliance.access.postbox import Postbox
from appliance.access.rows import account_where
from appliance.access.sessions import Sessions
from appliance.access.two_factor import Enrolment, TwoFactors
from appliance.model.account import Account
from appliance.model.names import account_email
from appliance.model.refused import Refused, TooMany
from appliance.model.time import Clock
from appliance.privacy.declarations import ACCOUNTS
from appliance.storage.records import RecordStore, Update


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Somebody has come in."""

    account: Account
    session: str
    """The secret of the session, for its cookie."""
    session_id: str
    device: str
    """What the browser shows from now on to be known (`devices.py`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIns:
    """Thread-safe. Every method may raise Refused, TooMany, and StoreUnavailable."""

    records: RecordStore
    passwords: Passwords
    attempts: Attempts
    devices: Devices
    sessions: Sessions
    two_factors: TwoFactors
    api_tokens: ApiTokens
    writer: LetterWriter
    postbox: Postbox
    clock: Clock

    def sign_in(self, email: str, password: str, code: str | None, client: Client) -> SignedIn:
        """Begin a session. One that the browser has shown is for the caller to end: a session is never taken over."""
        wanted = account_email(email)
        account = account_where(self.records, {"email": wanted})
        device = self.devices.known(account, client.device)
        known = self.attempts.admit(wanted, client.address, device)

        def begin() -> None:
            self.attempts.begin(wanted, client.address, device if known else "")

        kept = account.password_hash if account is not None and account.email_verified else None
        if not self.passwords.match(kept, password, begin, first=known) or account is None or kept is None:
            if not known:
                self.attempts.password_was_wrong(wanted, client.address)
            raise Refused(
                "That is not right: the address or the password is wrong, or the address has not been verified yet. "
                "If you have just signed up, open the link in our letter first.",
                None,
                "WRONG_CREDENTIALS",
            )
        self.attempts.password_was_right(wanted, client.address, device)
        if self.two_factors.is_enabled(account.id):
            self._require_code(account, code, client.address, device)
        account = self._with_current_hash(account, kept, password)
        secret, session = self.sessions.begin(account, client.user_agent)
        return SignedIn(account, secret, session.id, self.devices.mark(account))

    def require_password(self, account: Account, password: str, session_id: str, field: str = "password") -> None:
        """Let go on only who types the password of the account that is signed in to already. Raises Refused."""

        def admit() -> None:
            self.attempts.admit_once_more(session_id)

        if not self.passwords.match(account.password_hash, password, admit, first=True):
            raise Refused("This is not your password.", field, "WRONG_PASSWORD")
        self.attempts.right_once_more(session_id)

    def change_password(self, account: Account, session_id: str, current: str, new: str) -> Account:
        """Set another password; returns the account with it. All sessions end but this one."""
        require_usable(new, "newPassword")
        self.require_password(account, current, session_id, "currentPassword")
        hashed = self.passwords.hash(new, "newPassword")
        now = max(self.clock(), (account.password_changed_at or 0) + 1)
        changed = replace(account, password_hash=hashed, password_changed_at=now)
        # Only in place of the one that was typed: somebody else may have set another at the same instant.
        where = {"id": account.id, "password_hash": account.password_hash}
        touched, _ = self.records.apply(
            [
                Update(ACCOUNTS, where, {"password_hash": hashed, "password_changed_at": now}),
                all_of(account.id, Purpose.RESET_PASSWORD),
            ]
        )
        if not touched:
            raise Refused("The password has been changed elsewhere at this moment.", "currentPassword")
        self.sessions.end_all(changed, but=session_id)
        self.postbox.tell(self.writer.password_changed(account.email, len(self.api_tokens.of(account.id))))
        return changed

    def enable_two_factor(self, account: Account, session_id: str, password: str) -> Enrolment:
        """Show the secret for one-time codes. It counts once it is confirmed."""
        self.require_password(account, password, session_id)
        return self.two_factors.enrol(account)

    def confirm_two_factor(self, account: Account, session_id: str, code: str) -> None:
        """Have signing in take a code from now on."""
        # Whoever sees the secret need not guess: this only keeps somebody from asking for ever.
        self.attempts.admit_once_more(session_id)
        if not self.two_factors.confirm(account.id, code):
            raise _wrong_code()

    def disable_two_factor(self, account: Account, session_id: str, password: str, code: str) -> None:
        """Have signing in take no code any more. Takes one last code, or a recovery code."""
        self.require_password(account, password, session_id)
        if not self.two_factors.is_enabled(account.id):
            raise Refused("There is no second factor to switch off.")
        self._require_code(account, code, "", session_id)
        self.two_factors.disable(account.id)

    def _require_code(self, account: Account, code: str | None, address: str, device: str) -> None:
        if not code:
            raise Refused(
                "This account has a second factor: type the code that your app shows, too.",
                "oneTimeCode",
                "ONE_TIME_CODE_REQUIRED",
            )
        known = self.attempts.admit_code(account.email, device)
        if self.two_factors.take(account.id, code):
            return
        if not known and self.attempts.code_was_wrong(account.email, address):
            self.postbox.tell(self.writer.wrong_codes(account.email))
        raise _wrong_code()

    def _with_current_hash(self, account: Account, kept: str, password: str) -> Account:
        """The account, its password hashed anew where the parameters have changed since it was."""
        if not self.passwords.is_outdated(kept):
            return account
        try:
            hashed = self.passwords.hash(password)
        except TooMany:
            return account  # At the next sign-in.
        # In place of the very hash that was checked: a password that is changed at this instant stays.
        where = {"id": account.id, "password_hash": kept}
        self.records.apply([Update(ACCOUNTS, where, {"password_hash": hashed})])
        return replace(account, password_hash=hashed)


def _wrong_code() -> Refused:
    return Refused(
        "This code is not right, or has been used. Wait for the next one that your app shows.",
        "oneTimeCode",
        "WRONG_ONE_TIME_CODE",
    )
