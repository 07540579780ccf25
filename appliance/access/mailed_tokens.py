"""What stands in a mailed link: who has it, has read the mail.

A hash of it is stored, with what it is for. It is good once and for a while; several for one account are good side by
side, so that nobody makes the link in somebody's mailbox worthless by asking for another.
"""

from dataclasses import dataclass
from enum import Enum

from appliance.access.drawn import draw, hash_of
from appliance.model.time import Clock, parse_duration
from appliance.privacy.declarations import MAILED_TOKENS
from appliance.storage.records import Delete, Insert, RecordStore


class Purpose(Enum):
    """What a mailed token is good for."""

    VERIFY_EMAIL = "verify-email"
    RESET_PASSWORD = "reset-password"

    @property
    def lifetime_ms(self) -> int:
        """For how long it is good: as long as it is kept."""
        for retention in MAILED_TOKENS.retention:
            if retention.where == ("purpose", (self.value,)):
                return parse_duration(retention.setting)
        raise LookupError(f"no retention is declared for {self.value}")


@dataclass(frozen=True, slots=True)
class MailedToken:
    """What is kept of one."""

    id: str
    """The hash of its secret."""
    account_id: str
    password_hash: str | None
    """The password that a sign-up asks for."""


class MailedTokens:
    """The mailed tokens of a record store. Every method may raise StoreUnavailable."""

    def __init__(self, records: RecordStore, clock: Clock) -> None:
        self._records = records
        self._clock = clock

    def issue(self, account_id: str, purpose: Purpose, password_hash: str | None = None) -> tuple[str, Insert]:
        """A new secret to be mailed, and the change that makes it good."""
        secret = draw()
        row = {
            "id": hash_of(secret),
            "account_id": account_id,
            "purpose": purpose.value,
            "password_hash": password_hash,
            "created_at": self._clock(),
        }
        return secret, Insert(MAILED_TOKENS, row)

    def find(self, secret: str, purpose: Purpose) -> MailedToken | None:
        """What is behind a secret that is good for this purpose now; None for any other."""
        row = self._records.get(MAILED_TOKENS, {"id": hash_of(secret), "purpose": purpose.value})
        if row is None:
            return None
        created_at, password_hash = row["created_at"], row["password_hash"]
        assert isinstance(created_at, int)
        assert password_hash is None or isinstance(password_hash, str)
        if self._clock() - created_at >= purpose.lifetime_ms:
            return None
        return MailedToken(str(row["id"]), str(row["account_id"]), password_hash)

    def use(self, token: MailedToken) -> bool:
        """Use it up. Returns whether it was still there: to one caller of several at once."""
        return self._records.apply([Delete(MAILED_TOKENS, {"id": token.id})]) == [1]


def all_of(account_id: str, purpose: Purpose) -> Delete:
    """The change after which no token of an account is good for this any more."""
    return Delete(MAILED_TOKENS, {"account_id": account_id, "purpose": purpose.value})
