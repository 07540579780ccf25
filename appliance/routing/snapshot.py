"""The routing table at one generation of the records: what is hosted, and which alias takes an address."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from appliance.model.account import Account, Plan, Role
from appliance.model.block import Block
from appliance.model.domain import Alias, AliasKind, Destination, Domain, LogLevel
from appliance.privacy.declarations import ACCOUNTS, ALIASES, BLOCKS, DESTINATIONS, DOMAINS, Collection
from appliance.routing.blocked import BlockTable
from appliance.routing.patterns import cost_of, find
from appliance.storage.record_rows import row_to_account, row_to_alias, row_to_block, row_to_destination, row_to_domain
from appliance.storage.records import Page, RecordStore
from smtp.address import Address

GENERATION = "routing"
"""The generation that is raised with every change of accounts, domains, aliases and blocks."""

_PAGE = 5000


@dataclass(frozen=True, slots=True)
class Settings:
    """What the configuration has to say about routing."""

    hostname: str
    srs_domain: str
    postmaster: str = ""
    """Where mail for postmaster goes; empty: to the first operator."""
    plans: Mapping[str, Plan] = field(default_factory=dict)
    """What accounts may use, by the names of their plans."""


def one_spelling(target: str) -> str:
    """A stored target in the one form by which such are compared: lower case, NFC, A-labels.

    It is not read once more: what was once stored as an address has to be found again by every later version.
    """
    local_part, _, domain = target.rpartition("@")
    return "@".join(Address(local_part, domain).key)


class HostedDomain:
    """One domain and its aliases, arranged for looking up."""

    __slots__ = ("catch_all", "confirmed", "domain", "exact", "patterns", "patterns_cost", "prefix_lengths", "prefixes")

    def __init__(self, domain: Domain, aliases: Iterable[Alias], confirmed: frozenset[str]) -> None:
        self.domain = domain
        self.confirmed = confirmed
        """The targets, in their `one_spelling`, whose owners have agreed to be forwarded to by this account."""
        self.exact: dict[str, Alias] = {}
        self.prefixes: dict[str, Alias] = {}
        self.patterns: list[Alias] = []
        """Those that are expressions, in the order in which they were made."""
        self.catch_all: Alias | None = None
        for alias in aliases:
            if alias.kind is AliasKind.CATCH_ALL:
                self.catch_all = alias
            elif alias.kind is AliasKind.WILDCARD:
                self.prefixes[alias.pattern[:-1]] = alias
            elif alias.kind is AliasKind.REGEX:
                self.patterns.append(alias)
            else:
                self.exact[alias.pattern] = alias
        self.patterns.sort(key=lambda alias: (alias.created_at, alias.id))
        # Now, in the thread that loads: while a sender waits for RCPT, none is to be compiled.
        self.patterns_cost = sum(cost_of(alias.pattern) for alias in self.patterns)
        self.prefix_lengths = sorted({len(prefix) for prefix in self.prefixes}, reverse=True)

    def match(self, local_part: str) -> Alias | None:
        """The alias that takes the local part of an `Address.key`, by the precedence in this package's docstring."""
        alias = self.exact.get(local_part)
        if alias is None and "+" in local_part:
            alias = self.exact.get(local_part.split("+", 1)[0])
        if alias is not None:
            return alias
        for length in self.prefix_lengths:
            alias = self.prefixes.get(local_part[:length])
            if alias is not None and len(local_part) >= length:
                return alias
        for alias in self.patterns:
            if find(alias.pattern, local_part) is not None:
                return alias
        return self.catch_all


class Snapshot:
    """Everything routing knows. What it says never changes once it is built; a change of the records makes a new one,
    and every RCPT is answered from the one that stands then."""

    def __init__(
        self,
        settings: Settings,
        generation: int,
        accounts: Iterable[Account] = (),
        domains: Iterable[Domain] = (),
        aliases: Iterable[Alias] = (),
        destinations: Iterable[Destination] = (),
        blocks: Iterable[Block] = (),
    ) -> None:
        self.settings = settings
        self.generation = generation
        self.blocks = BlockTable(blocks)
        """Whom the operators refuse, whatever they write to."""
        confirmed: dict[str, set[str]] = {}
        for destination in destinations:
            if destination.confirmed_at is not None:
                confirmed.setdefault(destination.account_id, set()).add(one_spelling(destination.target))
        by_domain: dict[str, list[Alias]] = {}
        self._by_reference: dict[str, Alias] = {}
        for alias in aliases:
            by_domain.setdefault(alias.domain_id, []).append(alias)
            self._by_reference[alias.reference] = alias
        self.use_counters = frozenset(alias.use_counter for alias in self._by_reference.values() if alias.use_counter)
        """The counters of all aliases that take only so many messages."""
        # Several accounts may claim a name: the one that has proven it comes last, and stands.
        self._hosted = {
            domain.name: HostedDomain(
                domain, by_domain.get(domain.id, ()), frozenset(confirmed.get(domain.account_id, ()))
            )
            for domain in sorted(domains, key=lambda domain: domain.verified)
        }
        self._domains = {hosted.domain.id: hosted.domain for hosted in self._hosted.values()}
        accounts = list(accounts)
        by_account = {account.id: settings.plans.get(account.plan) for account in accounts}
        self._plans = {domain.id: by_account.get(domain.account_id) for domain in self._domains.values()}
        operators = sorted((account.id, account.email) for account in accounts if account.role is Role.OPERATOR)
        own = {id for id, _ in operators}
        self._unbound = frozenset(domain.id for domain in self._domains.values() if domain.account_id in own)
        self.postmaster = settings.postmaster or (operators[0][1] if operators else "")
        """The operator's mailbox; empty where nobody is the operator yet."""
        self.mailboxes: dict[str, tuple[Address, ...]] = {}
        """What aliases lead to in the end, by their ids: for `route` alone, which follows each only once. In it is only
        what follows from this snapshot, for everybody and at any time."""

    def hosted(self, domain: str) -> HostedDomain | None:
        """The domain of this name (lower case, A-labels), verified or not."""
        return self._hosted.get(domain)

    def log_level(self, domain_id: str) -> LogLevel:
        """How much of this domain's mail the log may remember; NONE for one that is gone."""
        domain = self._domains.get(domain_id)
        return LogLevel.NONE if domain is None else domain.log_level

    def plan(self, domain_id: str) -> Plan | None:
        """What the account of a domain may use. None where nothing but `[smtp]` bounds its mail: for an operator, who
        needs no protection from the own machine, where the configuration has lost the plan, and for a domain that is
        gone."""
        return None if domain_id in self._unbound else self._plans.get(domain_id)

    def priority(self, domain_ids: Iterable[str]) -> int:
        """How urgent mail for these domains is: as the most urgent of them. 0 for the appliance's own addresses, and
        where there is no plan."""
        plans = (self._plans.get(domain_id) for domain_id in domain_ids)
        return max((plan.priority if plan else 0 for plan in plans), default=0)

    def alias_address(self, reference: str) -> str | None:
        """The alias behind the reference in a rewritten sender, as pattern@domain; None where it is gone."""
        alias = self._by_reference.get(reference)
        domain = self._domains.get(alias.domain_id) if alias else None
        return f"{alias.pattern}@{domain.name}" if alias and domain else None

    def postmaster_address(self) -> Address:
        """The operator's mailbox as an address; bare `postmaster` where nobody is the operator yet.

        Mail for postmaster is always accepted (RFC 5321 §4.5.1); with nobody to have it, it waits in the queue.
        """
        return Address.parse(self.postmaster) if self.postmaster else Address("postmaster", "")


def load(records: RecordStore, settings: Settings) -> Snapshot:
    """Build the snapshot of what is stored now. Raises StoreUnavailable."""
    # The generation first: a change that slips in behind it is loaded once more, and never missed.
    generation = records.generation(GENERATION)
    return Snapshot(
        settings,
        generation,
        accounts=[row_to_account(row) for row in _all(records, ACCOUNTS)],
        domains=[row_to_domain(row) for row in _all(records, DOMAINS)],
        aliases=[row_to_alias(row) for row in _all(records, ALIASES)],
        destinations=[row_to_destination(row) for row in _all(records, DESTINATIONS)],
        blocks=[row_to_block(row) for row in _all(records, BLOCKS)],
    )


def _all(records: RecordStore, collection: Collection) -> Iterable[dict[str, object]]:
    after = None
    while rows := records.find(collection, {}, Page(after=after, limit=_PAGE)):
        yield from rows
        after = str(rows[-1]["id"])
