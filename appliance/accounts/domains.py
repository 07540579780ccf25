"""Domains: whose mail is taken, and in which manner.

Anybody may add any name, and it is theirs alone as long as they have not proven it: several accounts may have one name
that way, and see nothing of each other. Who proves it first has it (`ownership.py`). So nobody can keep an owner from
a name by adding it, and nobody loses what they have prepared because somebody else was quicker to type it.
"""

from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from enum import Enum

from appliance.accounts.destinations import no_longer_used
from appliance.accounts.rows import every, get, insert, some
from appliance.model.account import Account, Plan
from appliance.model.domain import Alias, DeliveryMode, Domain, LogLevel, QuarantineAction
from appliance.model.ids import IdSource, id_source
from appliance.model.names import domain_name
from appliance.model.refused import Refused
from appliance.model.time import Clock, wall_clock
from appliance.privacy.declarations import ALIASES, DOMAINS, EVENTS
from appliance.routing.changes import announcement
from appliance.storage.records import Change, Delete, Duplicate, Page, RecordStore, Update


class Domains:
    """The hosted domains of a record store. Every method may raise Refused, and StoreUnavailable."""

    def __init__(
        self,
        records: RecordStore,
        plans: Mapping[str, Plan],
        own_names: Set[str],
        clock: Clock = wall_clock,
        ids: IdSource | None = None,
    ) -> None:
        """`own_names` are the appliance's hostname and SRS domain, which nobody can host."""
        self._records = records
        self._plans = plans
        self._own_names = {name.lower().removesuffix(".") for name in own_names}
        self._clock = clock
        self._ids = ids or id_source(clock)

    def add(
        self, name: str, account: Account, *, verified: bool, delivery_mode: DeliveryMode, log_level: LogLevel
    ) -> Domain:
        """Host a domain for an account. Mail for it is refused as long as it is not verified.

        Adding an own domain once more as verified is how the word of an operator takes the place of a proof.
        """
        wanted = domain_name(name)
        if wanted in self._own_names:
            raise Refused(f"{wanted} is the name of this appliance itself, which can't be hosted.", "name")
        known = get(self._records, Domain, {"name": wanted, "account_id": account.id})
        if get(self._records, Domain, {"name": wanted, "verified": True}):
            raise Refused(f"{wanted} is hosted here already.", "name")
        if known is not None and not verified:
            raise Refused(f"{wanted} has been added already: prove that it is yours, and check it.", "name")
        if known is None:
            self._require_room(account)
        domain = Domain(self._ids(), account.id, wanted, verified, delivery_mode, log_level, self._clock())
        change: Change = insert(domain)
        if known is not None:
            domain = replace(known, verified=True)
            change = Update(DOMAINS, {"id": known.id}, {"verified": True, "verified_name": wanted})
        try:
            self._records.apply([change, *self._announcement(domain)])
        except Duplicate:
            raise Refused(f"{wanted} is hosted here already.", "name") from None
        return domain

    def every(self) -> Iterator[Domain]:
        """All domains, the oldest first."""
        return every(self._records, Domain, {})

    def page(self, account_id: str, after: str | None, limit: int) -> list[Domain]:
        """The domains of an account behind this id, the oldest first, at most `limit`."""
        return some(self._records, Domain, {"account_id": account_id}, Page(after=after, limit=limit))

    def count(self, account_id: str) -> int:
        """How many domains an account has."""
        return self._records.count(DOMAINS, {"account_id": account_id})

    def with_id(self, id: str) -> Domain | None:
        """The domain with this id."""
        return get(self._records, Domain, {"id": id})

    def of(self, account_id: str, name: str) -> Domain | None:
        """The domain of this name as this account has it, verified or not. Raises Refused for what is no name."""
        return get(self._records, Domain, {"account_id": account_id, "name": domain_name(name)})

    def hosted(self, name: str, account_id: str | None) -> Domain | None:
        """The domain with this stored name: as this account has it, or else as it has been proven."""
        own = None if account_id is None else get(self._records, Domain, {"account_id": account_id, "name": name})
        return own or get(self._records, Domain, {"name": name, "verified": True})

    def named(self, name: str) -> Domain:
        """The domain of this name: of the account that has proven it, or else of the one that was first to add it."""
        domain = self.find(name)
        if domain is None:
            raise Refused(f"{domain_name(name)} is not hosted here.", "name")
        return domain

    def find(self, name: str) -> Domain | None:
        """The same, or None where nobody has such a domain."""
        wanted = domain_name(name)
        proven = get(self._records, Domain, {"name": wanted, "verified": True})
        return proven or get(self._records, Domain, {"name": wanted})

    def change(
        self, name: str, *, delivery_mode: DeliveryMode | None = None, log_level: LogLevel | None = None
    ) -> Domain:
        """Set what is not None of the domain with this name, and return it as it is then."""
        return self.update(self.named(name), delivery_mode=delivery_mode, log_level=log_level)

    def update(
        self,
        domain: Domain,
        *,
        delivery_mode: DeliveryMode | None = None,
        log_level: LogLevel | None = None,
        quarantine_action: QuarantineAction | None = None,
        allow_from_rewrite: bool | None = None,
    ) -> Domain:
        """Set what is not None, and return the domain as it is then."""
        wanted = {
            "delivery_mode": delivery_mode,
            "log_level": log_level,
            "quarantine_action": quarantine_action,
            "allow_from_rewrite": allow_from_rewrite,
        }
        given = {name: value for name, value in wanted.items() if value is not None}
        if not given:
            return domain
        changes = {name: value.value if isinstance(value, Enum) else value for name, value in given.items()}
        update = Update(DOMAINS, {"id": domain.id}, changes)
        touched, *_ = self._records.apply([update, *self._announcement(domain)])
        changed = self.with_id(domain.id) if touched else None
        if changed is None:
            raise Refused(f"{domain.name} is not hosted here.", "name")
        return changed

    def remove(self, name: str) -> Domain:
        """Erase the domain with this name, as `erase` does."""
        return self.erase(self.named(name))

    def erase(self, domain: Domain) -> Domain:
        """Erase a domain with its aliases and its log, and the destinations that nothing leads to any more."""
        going = tuple(every(self._records, Alias, {"domain_id": domain.id}))
        changes: list[Change] = [
            Delete(ALIASES, {"domain_id": domain.id}),
            Delete(EVENTS, {"domain_id": domain.id}),
            *no_longer_used(self._records, domain.account_id, going),
            Delete(DOMAINS, {"id": domain.id}),
        ]
        self._records.apply([*changes, *self._announcement(domain)])
        return domain

    def _announcement(self, domain: Domain) -> tuple[Change, ...]:
        return announcement(self._ids, self._clock, domains=[domain.id], accounts=[domain.account_id])

    def _require_room(self, account: Account) -> None:
        # Two that add at the same instant may pass together: a plan is a limit of use, not of safety.
        limit = plan_of(account, self._plans).max_domains
        if self._records.count(DOMAINS, {"account_id": account.id}) >= limit:
            raise Refused(
                f"{account.email} has as many domains as the plan {account.plan!r} allows: {limit}. "
                "Remove one, or ask for a larger plan (max_domains).",
                "name",
            )


def plan_of(account: Account, plans: Mapping[str, Plan]) -> Plan:
    """What an account may use. Raises Refused where the configuration has lost its plan."""
    plan = plans.get(account.plan)
    if plan is None:
        raise Refused(f"The plan {account.plan!r} of {account.email} is not in the configuration: put it back there.")
    return plan
