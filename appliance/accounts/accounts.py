"""Accounts: who owns domains."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from appliance.accounts.names import account_email
from appliance.accounts.refused import Refused
from appliance.accounts.rows import ROUTING_CHANGED, every, get, insert
from appliance.model.account import Account, Plan, Role
from appliance.model.domain import Domain
from appliance.model.ids import IdSource, id_source
from appliance.model.time import Clock, wall_clock
from appliance.privacy.declarations import ACCOUNTS, ALIASES, DESTINATIONS, DOMAINS, EVENTS
from appliance.storage.records import Change, Delete, Duplicate, RecordStore

DEFAULT_PLAN = "free"
"""The plan of a new account; where the configuration has none of this name, the first that it has."""


@dataclass(frozen=True, slots=True)
class Removed:
    """How much of one class of data went with an account."""

    collection: str
    count: int


class Accounts:
    """The accounts of a record store. Every method may raise Refused, and StoreUnavailable."""

    def __init__(
        self,
        records: RecordStore,
        plans: Mapping[str, Plan],
        clock: Clock = wall_clock,
        ids: IdSource | None = None,
    ) -> None:
        self._records = records
        self._plans = plans
        self._clock = clock
        self._ids = ids or id_source(clock)

    def add(
        self, email: str, *, role: Role = Role.MEMBER, plan: str | None = None, password: str | None = None
    ) -> Account:
        """Add an account whose address counts as verified. Without a password nobody can sign in to it yet."""
        account = Account(
            id=self._ids(),
            email=account_email(email),
            email_verified=True,
            role=role,
            plan=self._plan(plan),
            created_at=self._clock(),
            password_hash=None if password is None else _hash(password),
        )
        try:
            self._records.apply([insert(account), ROUTING_CHANGED])
        except Duplicate:
            raise Refused(f"There is an account for {account.email} already.", "email") from None
        return account

    def every(self) -> Iterator[Account]:
        """All accounts, the oldest first."""
        return every(self._records, Account, {})

    def of(self, email: str) -> Account:
        """The account with this address."""
        wanted = account_email(email)
        account = get(self._records, Account, {"email": wanted})
        if account is None:
            raise Refused(f"There is no account for {wanted}.", "email")
        return account

    def delete(self, email: str) -> list[Removed]:
        """Erase an account and everything of it: domains, their aliases and log, and destinations.

        Mail that is under way already is still delivered or bounced.
        """
        account = self.of(email)
        changes: list[Change] = []
        for domain in every(self._records, Domain, {"account_id": account.id}):
            changes += [Delete(ALIASES, {"domain_id": domain.id}), Delete(EVENTS, {"domain_id": domain.id})]
        changes += [
            Delete(DOMAINS, {"account_id": account.id}),
            Delete(DESTINATIONS, {"account_id": account.id}),
            Delete(ACCOUNTS, {"id": account.id}),
        ]
        counts = self._records.apply([*changes, ROUTING_CHANGED])
        removed = dict.fromkeys((c.name for c in (ACCOUNTS, DOMAINS, ALIASES, DESTINATIONS, EVENTS)), 0)
        for change, count in zip(changes, counts, strict=False):
            assert isinstance(change, Delete)
            removed[change.collection.name] += count
        return [Removed(collection, count) for collection, count in removed.items()]

    def _plan(self, name: str | None) -> str:
        if name is None:
            return DEFAULT_PLAN if DEFAULT_PLAN in self._plans else next(iter(self._plans))
        if name not in self._plans:
            known = ", ".join(sorted(self._plans))
            raise Refused(f"There is no plan {name!r}. The configuration has: {known}.", "plan")
        return name


def _hash(password: str) -> str:
    # Imported where it is needed: most commands hash nothing, and loading argon2 costs them a part of their start.
    from appliance.accounts.passwords import hash_password

    return hash_password(password)
