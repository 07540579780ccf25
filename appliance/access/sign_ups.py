"""Sign-up, the verification of an address, and a password that is forgotten: what begins and ends with a mailed link.

Somebody who signs up is told nothing but that a letter is under way. For an address without an account there is one
from then on, that nobody can sign in to: the password stands with the mailed link and becomes the account's when that
is opened. For an address that has an account, its owner gets a letter that says so. Both take one hash, one commit and
one letter.

So whoever signs up with somebody else's address gets nowhere, and the last letter opened has the say: a stranger who
was quicker leaves no password behind.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from appliance.access.api_tokens import ApiTokens
from appliance.access.attempts import Attempts
from appliance.access.clients import Client
from appliance.access.letters import LetterWriter, Rationing
from appliance.access.mailed_tokens import MailedTokens, Purpose, all_of
from appliance.access.passwords import Passwords, require_usable
from appliance.access.postbox import Postbox
from appliance.access.rows import account_where
from appliance.access.sessions import Sessions
from appliance.model.account import Account, Plan, Role, usual_plan
from appliance.model.ids import IdSource
from appliance.model.letter import Letter
from appliance.model.names import account_email
from appliance.model.refused import Refused
from appliance.model.time import Clock
from appliance.privacy.declarations import ACCOUNTS
from appliance.storage.record_rows import to_row
from appliance.storage.records import Change, Duplicate, Insert, RecordStore, Update


@dataclass(frozen=True, slots=True, kw_only=True)
class SignUps:
    """Thread-safe. Every method may raise Refused, TooMany, and StoreUnavailable."""

    records: RecordStore
    plans: Mapping[str, Plan]
    passwords: Passwords
    tokens: MailedTokens
    sessions: Sessions
    api_tokens: ApiTokens
    attempts: Attempts
    rationing: Rationing
    writer: LetterWriter
    postbox: Postbox
    clock: Clock
    ids: IdSource

    def sign_up(self, email: str, password: str, client: Client) -> None:
        """Begin an account. What becomes of it is said in a letter, and nowhere else."""
        wanted = account_email(email)
        require_usable(password)
        self.rationing.admit(client.address)
        hashed = self.passwords.hash(password)
        if not self.rationing.may_write_to(wanted):
            return
        self.postbox.post(self._begun(wanted, hashed))

    def verify_email(self, token: str) -> Account:
        """Verify an address by the token that was mailed to it; returns its account."""
        found = self.tokens.find(token, Purpose.VERIFY_EMAIL)
        account = account_where(self.records, {"id": found.account_id}) if found else None
        if found is None or account is None:
            raise _not_good()
        changes: dict[str, object] = {"email_verified": True, "password_hash": found.password_hash}
        where = {"id": account.id, "email_verified": False}
        verified, _ = self.records.apply([Update(ACCOUNTS, where, changes), all_of(account.id, Purpose.VERIFY_EMAIL)])
        if not verified:
            # By another letter, or by a new password, at this very moment: what that has set stays.
            raise _not_good()
        return replace(account, email_verified=True, password_hash=found.password_hash)

    def request_password_reset(self, email: str, client: Client) -> None:
        """Mail a link to set another password, where there is such an account. The answer comes before that is known to
        anybody."""
        wanted = account_email(email)
        self.rationing.admit(client.address)
        account = account_where(self.records, {"email": wanted})
        if self.rationing.may_write_to(wanted):
            self.postbox.write_and_post(lambda: self._reset(account))

    def reset_password(self, token: str, new_password: str, present_session: str = "") -> Account:
        """Set another password by the token that was mailed; returns the account. All its sessions end.

        `present_session` is the id of the session of whoever asks; it holds on where it is of that very account.
        Whoever has read the mail has verified the address, too.
        """
        require_usable(new_password, "newPassword")
        found = self.tokens.find(token, Purpose.RESET_PASSWORD)
        account = account_where(self.records, {"id": found.account_id}) if found else None
        if found is None or account is None:
            raise _not_good()
        hashed = self.passwords.hash(new_password, "newPassword")
        if not self.tokens.use(found):
            raise _not_good()
        changed = replace(
            account, email_verified=True, password_hash=hashed, password_changed_at=_later(self.clock(), account)
        )
        self.records.apply(
            [
                Update(
                    ACCOUNTS,
                    {"id": account.id},
                    {
                        "email_verified": True,
                        "password_hash": hashed,
                        "password_changed_at": changed.password_changed_at,
                    },
                ),
                *(all_of(account.id, purpose) for purpose in Purpose),
            ]
        )
        self.sessions.end_all(changed, but=present_session)
        self.attempts.password_is_new(account.email)
        self.postbox.tell(self.writer.password_changed(account.email, len(self.api_tokens.of(account.id))))
        return changed

    def _begun(self, email: str, hashed: str) -> Letter:
        """Store what a sign-up begins; returns the letter about it."""
        account = account_where(self.records, {"email": email})
        if account is None:
            account = self._new(email)
            try:
                return self._verification(account, hashed, Insert(ACCOUNTS, to_row(account)))
            except Duplicate:
                # Somebody else was quicker by a moment.
                account = account_where(self.records, {"email": email}) or account
        if not account.email_verified:
            # It is kept for a while from its last sign-up on, so that its last link has something to verify.
            return self._verification(
                account, hashed, Update(ACCOUNTS, {"id": account.id}, {"created_at": self.clock()})
            )
        token, change = self.tokens.issue(account.id, Purpose.RESET_PASSWORD)
        self.records.apply([change])
        return self.writer.already_here(email, token)

    def _verification(self, account: Account, hashed: str, beginning: Change) -> Letter:
        token, change = self.tokens.issue(account.id, Purpose.VERIFY_EMAIL, hashed)
        self.records.apply([beginning, change])
        return self.writer.verify_email(account.email, token)

    def _new(self, email: str) -> Account:
        return Account(
            id=self.ids(),
            email=email,
            email_verified=False,
            role=Role.MEMBER,
            plan=usual_plan(self.plans),
            created_at=self.clock(),
        )

    def _reset(self, account: Account | None) -> Letter | None:
        if account is None:
            return None
        token, change = self.tokens.issue(account.id, Purpose.RESET_PASSWORD)
        self.records.apply([change])
        return self.writer.reset_password(account.email, token)


def _later(now: int, account: Account) -> int:
    """The instant of a change of password: never that of the one before, by which sessions are told apart."""
    return now if account.password_changed_at is None else max(now, account.password_changed_at + 1)


def _not_good() -> Refused:
    return Refused(
        "This link is not good any more: it has been used, or is too old. Ask for another.", "token", "INVALID_TOKEN"
    )
