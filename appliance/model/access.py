"""What a caller of the API may do, and what it comes in with."""

from dataclasses import dataclass
from enum import Enum

from appliance.model.account import Account


class Scope(Enum):
    """What an API token may do. A session may do all of it that its account's role allows."""

    READ = "read"
    WRITE = "write"
    LOGS = "logs"
    """See the delivery log, which is the most private thing here."""
    OPERATE = "operate"
    """What only operators may; for tokens of operators."""


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is signed in with a browser."""

    id: str
    account_id: str
    created_at: int
    last_seen_at: int
    """To the minute."""
    user_agent: str
    """What the browser calls itself, cut short."""
    password_changed_at: int | None
    """As the account had it at the sign-in."""

    def is_of(self, account: Account) -> bool:
        """Whether it lets in to this account: another password ends it."""
        return self.account_id == account.id and self.password_changed_at == account.password_changed_at


@dataclass(frozen=True, slots=True)
class ApiToken:
    """What a program comes in with. Its secret is shown once and not kept."""

    id: str
    account_id: str
    name: str
    """What its owner calls it."""
    scopes: frozenset[Scope]
    created_at: int
    expires_at: int | None
    last_used_at: int | None = None
    """To the minute."""
