"""Aliases: which addresses of a domain lead where."""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from appliance.accounts.destinations import confirmation, confirmed_targets, no_longer_used
from appliance.accounts.domains import plan_of
from appliance.accounts.loops import refuse_endless
from appliance.accounts.names import alias_address, domain_name, mailbox
from appliance.accounts.refused import Refused
from appliance.accounts.rows import ROUTING_CHANGED, every, get, insert
from appliance.model.account import Account, Plan
from appliance.model.domain import Alias, AliasAction, Domain
from appliance.model.ids import IdSource, id_source
from appliance.model.time import Clock, wall_clock
from appliance.privacy.declarations import ALIASES
from appliance.routing.snapshot import one_spelling
from appliance.storage.records import Delete, Duplicate, RecordStore

MAX_DESTINATIONS = 10
"""How many mailboxes one alias leads to. More is a mailing list; with 100 recipients a message it bounds the copies."""

REFERENCE_LENGTH = 6
REFERENCE_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
"""RFC 4648 §6 in lower case: the reference travels in addresses, whose case some servers change."""

_ATTEMPTS = 8
"""How often to draw another reference, or look at the destinations again, when somebody else was quicker."""


@dataclass(frozen=True, slots=True)
class ListedAlias:
    """An alias with what people want to see beside it."""

    alias: Alias
    domain: Domain
    destinations: tuple[tuple[str, bool], ...]
    """Each target, and whether its owner has agreed."""


class Aliases:
    """The aliases of a record store. Every method may raise Refused, and StoreUnavailable."""

    def __init__(
        self,
        records: RecordStore,
        plans: Mapping[str, Plan],
        own_names: Set[str],
        clock: Clock = wall_clock,
        ids: IdSource | None = None,
        choose: Callable[[str], str] = secrets.choice,
    ) -> None:
        """`own_names` are the appliance's hostname and SRS domain: no alias leads to us. `choose` draws a letter."""
        self._records = records
        self._plans = plans
        self._own_names = {name.lower().removesuffix(".") for name in own_names}
        self._clock = clock
        self._ids = ids or id_source(clock)
        self._choose = choose

    def add(
        self,
        address: str,
        destinations: Sequence[str] = (),
        *,
        action: AliasAction = AliasAction.FORWARD,
        confirmed: bool = False,
        expires_at: int | None = None,
        description: str | None = None,
    ) -> ListedAlias:
        """Make `PATTERN@DOMAIN` lead to these addresses.

        `confirmed` is the word of whoever asks that the owners of the destinations have agreed; without it, all of
        them must be confirmed destinations of the account already.
        """
        pattern, name = alias_address(address)
        domain = self._hosted(name)
        account = self._owner(domain)
        targets = self._targets(destinations, action)
        now = self._clock()
        if expires_at is not None and expires_at <= now:
            raise Refused("The alias would have expired already: choose a later time.", "expiresAt")
        if not confirmed:
            self._require_confirmed(account, targets)
        self._require_room(account, domain)
        alias = Alias(
            id=self._ids(),
            domain_id=domain.id,
            pattern=pattern,
            action=action,
            targets=targets,
            reference=self._reference(),
            created_at=now,
            expires_at=expires_at,
            description=description,
        )
        refuse_endless(self._records, alias, domain)
        alias = self._store(alias, domain, vouched=confirmed)
        return ListedAlias(alias, domain, tuple((target, True) for target in targets))

    def every(self, domain: str | None = None) -> Iterator[ListedAlias]:
        """All aliases, or those of one domain: domain by domain, the oldest first."""
        hosted = every(self._records, Domain, {}) if domain is None else iter([self._hosted(domain_name(domain))])
        for each in hosted:
            confirmed = confirmed_targets(self._records, each.account_id)
            for alias in every(self._records, Alias, {"domain_id": each.id}):
                yield _listed(alias, each, confirmed)

    def remove(self, address: str) -> ListedAlias:
        """Erase the alias `PATTERN@DOMAIN`, and the destinations that nothing leads to any more."""
        pattern, name = alias_address(address)
        domain = self._hosted(name)
        alias = get(self._records, Alias, {"domain_id": domain.id, "pattern": pattern})
        if alias is None:
            raise Refused(f"There is no alias {pattern}@{name}.", "pattern")
        confirmed = confirmed_targets(self._records, domain.account_id)
        erased = no_longer_used(self._records, domain.account_id, (alias,))
        self._records.apply([Delete(ALIASES, {"id": alias.id}), *erased, ROUTING_CHANGED])
        return _listed(alias, domain, confirmed)

    def _hosted(self, name: str) -> Domain:
        domain = get(self._records, Domain, {"name": name})
        if domain is None:
            raise Refused(f"{name} is not hosted here: add the domain first.", "domain")
        return domain

    def _owner(self, domain: Domain) -> Account:
        account = get(self._records, Account, {"id": domain.account_id})
        if account is None:
            raise Refused(f"The account of {domain.name} is being deleted.", "domain")
        return account

    def _targets(self, destinations: Sequence[str], action: AliasAction) -> tuple[str, ...]:
        field = "destinations"
        if action is not AliasAction.FORWARD:
            if destinations:
                raise Refused(f"An alias whose action is {action.value} takes no destination.", field)
            return ()
        addresses = [mailbox(destination, field) for destination in destinations]
        for address in addresses:
            if address.domain in self._own_names:
                raise Refused(f"{address} is an address of this appliance itself: mail would come back.", field)
        targets = tuple({address.key: str(address) for address in addresses}.values())
        if not targets:
            raise Refused("Where should it lead? Name at least one destination, or another action than forward.", field)
        if len(targets) > MAX_DESTINATIONS:
            raise Refused(f"An alias may have at most {MAX_DESTINATIONS} destinations, not {len(targets)}.", field)
        return targets

    def _require_confirmed(self, account: Account, targets: Sequence[str]) -> None:
        known = confirmed_targets(self._records, account.id)
        missing = [target for target in targets if one_spelling(target) not in known]
        if missing:
            raise Refused(
                f"{', '.join(missing)} is not confirmed, and nothing is forwarded to a mailbox whose owner has not "
                "agreed. Confirmation mails are not built yet: until then the operator vouches for the owner's "
                "consent (--confirmed).",
                "destinations",
            )

    def _require_room(self, account: Account, domain: Domain) -> None:
        limit = plan_of(account, self._plans).max_aliases_per_domain
        if self._records.count(ALIASES, {"domain_id": domain.id}) >= limit:
            raise Refused(
                f"{domain.name} has as many aliases as the plan {account.plan!r} allows: {limit}. "
                "Remove one, or raise max_aliases_per_domain of the plan.",
                "pattern",
            )

    def _store(self, alias: Alias, domain: Domain, *, vouched: bool) -> Alias:
        """Insert the alias, and its destinations where somebody vouches for them, as one change."""
        for _ in range(_ATTEMPTS):
            vouching = (
                confirmation(self._records, domain.account_id, alias.targets, alias.created_at, self._ids)
                if vouched
                else []
            )
            try:
                self._records.apply([*vouching, insert(alias), ROUTING_CHANGED])
            except Duplicate as duplicate:
                if duplicate.collection is ALIASES and "pattern" in duplicate.fields:
                    raise Refused(f"There is an alias {alias.pattern}@{domain.name} already.", "pattern") from None
                # A reference that is taken, or a destination that another change has added just now.
                alias = replace(alias, reference=self._reference())
            else:
                return alias
        raise Refused("Too many changes at once: try again.")

    def _reference(self) -> str:
        return "".join(self._choose(REFERENCE_ALPHABET) for _ in range(REFERENCE_LENGTH))


def _listed(alias: Alias, domain: Domain, confirmed: Set[str]) -> ListedAlias:
    return ListedAlias(alias, domain, tuple((target, one_spelling(target) in confirmed) for target in alias.targets))
