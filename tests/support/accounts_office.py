"""Where accounts, domains and aliases are changed: a real record store, a clock that stands still, and the rules."""

from collections.abc import Mapping
from dataclasses import dataclass

from appliance.accounts.accounts import Accounts
from appliance.accounts.aliases import Aliases
from appliance.accounts.deletion import Deletion
from appliance.accounts.domains import Domains
from appliance.model.account import Account, Plan
from appliance.model.domain import DeliveryMode, Domain, LogLevel
from appliance.privacy.owners import owned_elsewhere
from appliance.privacy.signatures import Signer
from appliance.storage.sqlite_records import SqliteRecords

NOON = 1_795_176_000_000
OWN_NAMES = frozenset({"mx.onward.test", "srs.mx.onward.test"})
PLANS: Mapping[str, Plan] = {
    "free": Plan("free", 1 << 20, max_domains=2, max_aliases_per_domain=30, max_messages_per_day=10, priority=0),
    "large": Plan("large", 1 << 20, max_domains=50, max_aliases_per_domain=50, max_messages_per_day=10, priority=1),
    "huge": Plan("huge", 1 << 20, max_domains=50, max_aliases_per_domain=500, max_messages_per_day=10, priority=1),
}


@dataclass
class Office:
    """Where people change who forwards what."""

    records: SqliteRecords
    accounts: Accounts
    domains: Domains
    aliases: Aliases

    def account(self, email: str = "ada@people.test", plan: str = "large") -> Account:
        """An account with room for what a test does."""
        return self.accounts.add(email, plan=plan)

    def domain(self, name: str, account: Account, *, verified: bool = True) -> Domain:
        """A domain with the usual settings."""
        return self.domains.add(
            name, account, verified=verified, delivery_mode=DeliveryMode.SPOOL, log_level=LogLevel.EVENTS
        )

    def delete(self, email: str) -> dict[str, int]:
        """Delete an account, and return how much went, by the name of the collection."""
        nothing_there = dict.fromkeys(owned_elsewhere(), lambda account_id: 0)
        deletion = Deletion(
            self.records, Signer(bytes(32)), "mx.onward.test", lambda domain: 0, lambda given_up: None, nothing_there
        )
        receipt = deletion.delete(self.accounts.of(email))
        return {each.collection: each.count for each in receipt.removed}

    def generation(self) -> int:
        """How often routing has been told to look again."""
        return self.records.generation("routing")
