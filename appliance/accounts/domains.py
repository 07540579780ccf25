"""Domains: whose mail is taken, and in which manner."""

from collections.abc import Iterator, Mapping, Set
from dataclasses import replace

from appliance.accounts.destinations import no_longer_used
from appliance.accounts.names import domain_name
from appliance.accounts.refused import Refused
from appliance.accounts.rows import ROUTING_CHANGED, every, get, insert
from appliance.model.account import Account, Plan
from appliance.model.domain import Alias, DeliveryMode, Domain, LogLevel
from appliance.model.ids import IdSource, id_source
from appliance.model.time import Clock, wall_clock
from appliance.privacy.declarations import ALIASES, DOMAINS, EVENTS
from appliance.storage.records import Change, Delete, Duplicate, RecordStore, Update


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

        Adding an own domain once more as verified is how an unverified one becomes so.
        """
        wanted = domain_name(name)
        if wanted in self._own_names:
            raise Refused(f"{wanted} is the name of this appliance itself, which can't be hosted.", "name")
        known = get(self._records, Domain, {"name": wanted})
        if known and known.account_id == account.id and verified and not known.verified:
            self._records.apply([Update(DOMAINS, {"id": known.id}, {"verified": True}), ROUTING_CHANGED])
            return replace(known, verified=True)
        if known is None:
            self._require_room(account)
        domain = Domain(self._ids(), account.id, wanted, verified, delivery_mode, log_level, self._clock())
        try:
            self._records.apply([insert(domain), ROUTING_CHANGED])
        except Duplicate:
            raise Refused(f"{wanted} is hosted here already.", "name") from None
        return domain

    def every(self) -> Iterator[Domain]:
        """All domains, the oldest first."""
        return every(self._records, Domain, {})

    def named(self, name: str) -> Domain:
        """The hosted domain of this name."""
        wanted = domain_name(name)
        domain = get(self._records, Domain, {"name": wanted})
        if domain is None:
            raise Refused(f"{wanted} is not hosted here.", "name")
        return domain

    def change(
        self, name: str, *, delivery_mode: DeliveryMode | None = None, log_level: LogLevel | None = None
    ) -> Domain:
        """Set what is not None, and return the domain as it is then."""
        domain = self.named(name)
        if delivery_mode is not None:
            domain = replace(domain, delivery_mode=delivery_mode)
        if log_level is not None:
            domain = replace(domain, log_level=log_level)
        changes = {"delivery_mode": domain.delivery_mode.value, "log_level": domain.log_level.value}
        touched, _ = self._records.apply([Update(DOMAINS, {"id": domain.id}, changes), ROUTING_CHANGED])
        if not touched:
            raise Refused(f"{domain.name} is not hosted here.", "name")
        return domain

    def remove(self, name: str) -> Domain:
        """Erase a domain with its aliases and its log, and the destinations that nothing leads to any more."""
        domain = self.named(name)
        going = tuple(every(self._records, Alias, {"domain_id": domain.id}))
        changes: list[Change] = [
            Delete(ALIASES, {"domain_id": domain.id}),
            Delete(EVENTS, {"domain_id": domain.id}),
            *no_longer_used(self._records, domain.account_id, going),
            Delete(DOMAINS, {"id": domain.id}),
        ]
        self._records.apply([*changes, ROUTING_CHANGED])
        return domain

    def _require_room(self, account: Account) -> None:
        # Two that add at the same instant may pass together: a plan is a limit of use, not of safety.
        limit = plan_of(account, self._plans).max_domains
        if self._records.count(DOMAINS, {"account_id": account.id}) >= limit:
            raise Refused(
                f"{account.email} has as many domains as the plan {account.plan!r} allows: {limit}. "
                "Remove one, or raise max_domains of the plan.",
                "name",
            )


def plan_of(account: Account, plans: Mapping[str, Plan]) -> Plan:
    """What an account may use. Raises Refused where the configuration has lost its plan."""
    plan = plans.get(account.plan)
    if plan is None:
        raise Refused(f"The plan {account.plan!r} of {account.email} is not in the configuration: put it back there.")
    return plan
