"""Accounts: who owns domains."""

from collections.abc import Iterator, Mapping
from itertools import islice

from appliance.accounts.rows import every, get, insert, some
from appliance.model.account import Account, Plan, Role, usual_plan
from appliance.model.ids import IdSource, id_source
from appliance.model.names import account_email
from appliance.model.refused import Refused
from appliance.model.time import Clock, wall_clock
from appliance.privacy.declarations import ACCOUNTS
from appliance.routing.changes import announcement
from appliance.storage.records import Duplicate, Page, RecordStore, Update


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
        self, email: str, *, role: Role = Role.MEMBER, plan: str | None = None, password_hash: str | None = None
    ) -> Account:
        """Add an account whose address counts as verified. Without a password nobody can sign in to it yet.

        `password_hash` is made by `appliance.access.passwords`.
        """
        account = Account(
            id=self._ids(),
            email=account_email(email),
            email_verified=True,
            role=role,
            plan=self._plan(plan),
            created_at=self._clock(),
            password_hash=password_hash,
        )
        try:
            self._records.apply([insert(account), *announcement(self._ids, self._clock, accounts=[account.id])])
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

    def with_id(self, account_id: str) -> Account | None:
        """The account with this id; None where there is none."""
        return get(self._records, Account, {"id": account_id})

    def page(self, after: str | None, limit: int, search: str = "") -> list[Account]:
        """The accounts behind this id, the oldest first, at most `limit`: those with `search` in their address."""
        return list(islice(self._searched(search, after), limit))

    def count(self, search: str = "") -> int:
        """How many accounts there are, or how many have `search` in their address."""
        return sum(1 for _ in self._searched(search, None)) if search else self._records.count(ACCOUNTS, {})

    def set_plan(self, account_id: str, plan: str) -> Account | None:
        """Give an account another plan of the configuration; returns it, or None where there is no such account."""
        wanted = self._plan(plan)
        change = Update(ACCOUNTS, {"id": account_id}, {"plan": wanted})
        self._records.apply([change, *announcement(self._ids, self._clock, accounts=[account_id])])
        return self.with_id(account_id)

    def _searched(self, search: str, after: str | None) -> Iterator[Account]:
        wanted_text = search.casefold()
        while rows := some(self._records, Account, {}, Page(after=after)):
            for account in rows:
                if wanted_text in account.email.casefold():
                    yield account
            after = rows[-1].id

    def _plan(self, name: str | None) -> str:
        if name is None:
            return usual_plan(self._plans)
        if name not in self._plans:
            known = ", ".join(sorted(self._plans))
            raise Refused(f"There is no plan {name!r}. The configuration has: {known}.", "plan")
        return name
