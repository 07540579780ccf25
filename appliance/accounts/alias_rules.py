"""The rules for aliases: where one may lead, for how long and how many messages, and how many there may be."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace

from appliance.accounts.destinations import agreed
from appliance.accounts.domains import plan_of
from appliance.accounts.rows import every
from appliance.accounts.texts import one_line
from appliance.model.account import Account, Plan
from appliance.model.domain import Alias, AliasAction, AliasKind, Domain
from appliance.model.ids import IdSource
from appliance.model.names import mailbox
from appliance.model.refused import Refused
from appliance.privacy.declarations import ALIASES
from appliance.routing.patterns import (
    MAX_COST_PER_DOMAIN,
    MAX_PATTERNS_PER_DOMAIN,
    cost_of,
    groups_of,
    references,
    stand_in_detail,
)
from appliance.storage.records import RecordStore

MAX_DESTINATIONS = 10
"""How many mailboxes one alias leads to. More is a mailing list; with 100 recipients a message it bounds the copies."""

MAX_USES = 1_000_000_000
"""Messages that an alias can be made for; beyond that it has no limit worth counting."""

MAX_DESCRIPTION = 200
"""Characters of a description: a line in a list."""


class AliasRules:
    """What an alias has to keep to, over what is stored. Every method may raise Refused, and StoreUnavailable."""

    def __init__(self, records: RecordStore, plans: Mapping[str, Plan], own_names: Set[str], ids: IdSource) -> None:
        """`own_names` are the appliance's hostname and SRS domain: no alias leads to us."""
        self._records = records
        self._plans = plans
        self._own_names = {name.lower().removesuffix(".") for name in own_names}
        self._ids = ids

    def leading_to(self, alias: Alias, destinations: Sequence[str], account: Account) -> Alias:
        """The alias with these targets. Raises Refused."""
        field = "destinations"
        if alias.action is not AliasAction.FORWARD:
            if destinations:
                raise Refused(f"An alias whose action is {alias.action.value} takes no destination.", field)
            return replace(alias, targets=())
        addresses = [mailbox(destination, field) for destination in destinations]
        for address in addresses:
            if address.domain in self._own_names:
                raise Refused(f"{address} is an address of this appliance itself: mail would come back.", field)
        targets = tuple({address.key: str(address) for address in addresses}.values())
        if not targets:
            raise Refused("Where should it lead? Name at least one destination, or another action than forward.", field)
        if len(targets) > MAX_DESTINATIONS:
            raise Refused(f"An alias may have at most {MAX_DESTINATIONS} destinations, not {len(targets)}.", field)
        if alias.kind is AliasKind.REGEX:
            self._require_places(alias.pattern, targets, account)
        return replace(alias, targets=targets)

    def _require_places(self, pattern: str, targets: Iterable[str], account: Account) -> None:
        """What an expression has found may stand only where its owner knows of it (`appliance.routing.patterns`)."""
        groups = groups_of(pattern)
        own = agreed(self._records, account.id).domains
        for target in targets:
            missing = [number for number in references(target) if number > groups]
            if missing:
                raise Refused(f"{target} stands for ${missing[0]}, and {pattern} has {groups} groups.", "destinations")
            if references(target) and not stand_in_detail(target) and target.rpartition("@")[2] not in own:
                raise Refused(
                    f"{target} would let whoever writes choose the mailbox. $1 may stand behind a + (as in ada+$1@), "
                    "or in front of the @ of a domain that your account has verified.",
                    "destinations",
                )

    def require_room(self, account: Account, domain: Domain, alias: Alias) -> None:
        """Raise Refused where the domain may have no further alias."""
        limit = plan_of(account, self._plans).max_aliases_per_domain
        if self._records.count(ALIASES, {"domain_id": domain.id}) >= limit:
            raise Refused(
                f"{domain.name} has as many aliases as the plan {account.plan!r} allows: {limit}. "
                "Remove one, or ask for a larger plan (max_aliases_per_domain).",
                "pattern",
            )
        if alias.kind is AliasKind.REGEX:
            self.require_few_patterns(alias, domain)

    def require_few_patterns(self, new: Alias, domain: Domain) -> None:
        """Raise Refused where the domain may not have this expression beside those that it has."""
        others = [
            alias.pattern
            for alias in every(self._records, Alias, {"domain_id": domain.id})
            if alias.kind is AliasKind.REGEX and alias.id != new.id
        ]
        if len(others) >= MAX_PATTERNS_PER_DOMAIN:
            raise Refused(
                f"{domain.name} has {MAX_PATTERNS_PER_DOMAIN} expressions, and may not have more: every address is "
                "looked at with each of them.",
                "pattern",
            )
        if sum(map(cost_of, others)) + cost_of(new.pattern) > MAX_COST_PER_DOMAIN:
            raise Refused(
                f"With this one the expressions of {domain.name} would take too long: write it with fewer repetitions "
                "such as {1,64}, or remove another.",
                "pattern",
            )

    def for_uses(self, alias: Alias, remaining: int | None) -> Alias:
        """The alias with so many messages left; None for no limit. Raises Refused."""
        if remaining is None:
            return replace(alias, max_uses=None, use_counter=None, uses=0)
        if not 1 <= remaining <= MAX_USES:
            raise Refused(f"An alias is made for 1 to {MAX_USES} messages.", "remainingUses")
        # Another counter each time: what is counted under the old limit meanwhile does not count against the new one.
        return replace(alias, max_uses=remaining, use_counter=self._ids(), uses=0)


def later(expires_at: int | None, now: int) -> int | None:
    """An expiry that is still to come; None for none. Raises Refused."""
    if expires_at is not None and expires_at <= now:
        raise Refused("The alias would have expired already: choose a later time.", "expiresAt")
    return expires_at


def described(text: str | None) -> str | None:
    """A description on one line; None where nothing is written. Raises Refused."""
    return one_line(text, "description", MAX_DESCRIPTION) if text and text.strip() else None
