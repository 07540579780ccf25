"""The routing table at one generation of the records: what is hosted, and which alias takes an address."""

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from enum import Enum

from appliance.model.account import Account, Plan, Role
from appliance.model.block import Block
from appliance.model.domain import Alias, Destination, Domain, LogLevel
from appliance.routing.blocked import BlockTable
from appliance.routing.hosted import HostedDomain
from appliance.routing.shared_map import SharedMap
from smtp.address import Address


@dataclass(frozen=True, slots=True)
class Settings:
    """What the configuration has to say about routing."""

    hostname: str
    srs_domain: str
    postmaster: str = ""
    """Where mail for postmaster goes; empty: to the first operator."""
    plans: Mapping[str, Plan] = field(default_factory=dict)
    """What accounts may use, by the names of their plans."""


class Freshness(Enum):
    """How far one can rely on what a snapshot says, by when the records were last read."""

    FRESH = "fresh"
    """A moment ago."""
    AGED = "aged"
    """Not for some seconds. What is accepted, still is; what would be refused may have been added meanwhile."""
    STALE = "stale"
    """For so long that whoever has removed an address may rely on it that nothing is forwarded from there."""


def one_spelling(target: str) -> str:
    """A stored target in the one form by which such are compared: lower case, NFC, A-labels.

    It is not read once more: what was once stored as an address has to be found again by every later version.
    """
    local_part, _, domain = target.rpartition("@")
    return "@".join(Address(local_part, domain).key)


@dataclass(frozen=True, slots=True)
class Owner:
    """What routing knows of an account."""

    plan: str | None
    """The name of its plan; None where only destinations are known of the account."""
    operator: str | None
    """The address of an operator; None for a member."""
    agreed: Container[str]
    """The targets, in their `one_spelling`, whose owners have agreed to be forwarded to by this account."""

    @classmethod
    def of(cls, account: Account | None, destinations: Iterable[Destination]) -> "Owner":
        """An account with its destinations."""
        agreed = frozenset(one_spelling(each.target) for each in destinations if each.confirmed_at is not None)
        if account is None:
            return cls(None, None, agreed)
        return cls(account.plan, account.email if account.role is Role.OPERATOR else None, agreed)


@dataclass(frozen=True, slots=True)
class Portion:
    """Part of the records as it is now, to take the place of what a snapshot has of it."""

    hosted: Mapping[str, HostedDomain | None]
    """By the name of the domain; None for one that is not hosted any more."""
    owners: Mapping[str, Owner | None]
    """By the id of the account; None for one that is gone."""
    blocks: BlockTable | None = None
    """None where they are as they were."""
    aliases: Mapping[str, Mapping[str, Alias | None]] = field(default_factory=dict)
    """By the id of a domain that is otherwise as it was, and by their own: those that have changed; None for one that
    is gone. Those of a domain that is not hosted are nobody's."""


def standing(domains: Iterable[Domain]) -> dict[str, Domain]:
    """Whose each name is, of the domains in the order of their ids: several accounts may claim a name, and the one
    that has proven it comes last, and stands."""
    return {domain.name: domain for domain in sorted(domains, key=lambda domain: domain.verified)}


class Snapshot:
    """Everything routing knows. What it says never changes once it is built; a change of the records makes a new one,
    and every RCPT is answered from the one that stands then.

    A new one shares with the one before all that has not changed (`shared_map.py`): domains and accounts as they are,
    and most of the maps that lead to them. So whoever looks needs no lock and sees no change half made, and a change
    costs what has changed.
    """

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
        self.freshness = Freshness.FRESH
        self.blocks = BlockTable()
        """Whom the operators refuse, whatever they write to."""
        self.use_counters = SharedMap[None]()
        """The counters of all aliases that take only so many messages; the same object as long as they are the same."""
        self.postmaster = settings.postmaster
        """The operator's mailbox; empty where nobody is the operator yet."""
        self.mailboxes: dict[str, tuple[Address, ...]] = {}
        """What aliases lead to in the end, by their ids: for `route` alone, which follows each only once. In it is only
        what follows from this snapshot, for everybody and at any time."""
        self._hosted = SharedMap[HostedDomain]()
        self._by_id = SharedMap[HostedDomain]()
        self._owners = SharedMap[Owner]()
        self._domain_ids = SharedMap[str]()
        """By the references of their aliases."""
        self._operators: dict[str, str] = {}
        by_domain: dict[str, list[Alias]] = {}
        for alias in aliases:
            by_domain.setdefault(alias.domain_id, []).append(alias)
        by_account: dict[str, list[Destination]] = {}
        for destination in destinations:
            by_account.setdefault(destination.account_id, []).append(destination)
        known = {account.id: account for account in accounts}
        self._take(
            Portion(
                {
                    name: HostedDomain(domain, by_domain.get(domain.id, ()))
                    for name, domain in standing(domains).items()
                },
                {id: Owner.of(known.get(id), by_account.get(id, ())) for id in known.keys() | by_account.keys()},
                BlockTable(blocks),
            )
        )

    def replaced(self, generation: int, portion: Portion) -> "Snapshot":
        """The snapshot of a later generation, in which this portion is another."""
        later = copy(self)
        later.generation = generation
        later.mailboxes = {}
        later._take(portion)
        return later

    def aged(self, freshness: Freshness) -> "Snapshot":
        """The same, to be relied upon so far."""
        older = copy(self)
        older.freshness = freshness
        return older

    def hosted(self, domain: str) -> HostedDomain | None:
        """The domain of this name (lower case, A-labels), verified or not."""
        return self._hosted.get(domain)

    def hosted_by_id(self, domain_id: str) -> HostedDomain | None:
        """The domain of this id; None for one that does not stand, because another account has proven its name."""
        return self._by_id.get(domain_id)

    def names_of(self, account_ids: Collection[str]) -> Iterator[str]:
        """The domains of these accounts. It goes through all that there are: some tens of milliseconds for 100,000."""
        return (name for name, hosted in self._hosted.items() if hosted.domain.account_id in account_ids)

    def agreed(self, account_id: str, mailbox: str) -> bool:
        """Whether the owner of a mailbox, in its `one_spelling`, has agreed to be forwarded to by this account."""
        owner = self._owners.get(account_id)
        return owner is not None and mailbox in owner.agreed

    def log_level(self, domain_id: str) -> LogLevel:
        """How much of this domain's mail the log may remember; NONE for one that is gone."""
        hosted = self._by_id.get(domain_id)
        return LogLevel.NONE if hosted is None else hosted.domain.log_level

    def plan(self, domain_id: str) -> Plan | None:
        """What the account of a domain may use. None where nothing but `[smtp]` bounds its mail: for an operator, who
        needs no protection from the own machine, where the configuration has lost the plan, and for a domain that is
        gone."""
        owner = self._owner(domain_id)
        return None if owner is None or owner.operator is not None else self._plan(owner)

    def priority(self, domain_ids: Iterable[str]) -> int:
        """How urgent mail for these domains is: as the most urgent of them. 0 for the appliance's own addresses, and
        where there is no plan."""
        plans = (self._plan(self._owner(domain_id)) for domain_id in domain_ids)
        return max((plan.priority if plan else 0 for plan in plans), default=0)

    def alias_address(self, reference: str) -> str | None:
        """The alias behind the reference in a rewritten sender, as pattern@domain; None where it is gone."""
        domain_id = self._domain_ids.get(reference)
        hosted = None if domain_id is None else self._by_id.get(domain_id)
        pattern = None if hosted is None else hosted.pattern_of(reference)
        return None if hosted is None or pattern is None else f"{pattern}@{hosted.domain.name}"

    def postmaster_address(self) -> Address:
        """The operator's mailbox as an address; bare `postmaster` where nobody is the operator yet.

        Mail for postmaster is always accepted (RFC 5321 §4.5.1); with nobody to have it, it waits in the queue.
        """
        return Address.parse(self.postmaster) if self.postmaster else Address("postmaster", "")

    def _owner(self, domain_id: str) -> Owner | None:
        hosted = self._by_id.get(domain_id)
        return None if hosted is None else self._owners.get(hosted.domain.account_id)

    def _plan(self, owner: Owner | None) -> Plan | None:
        return None if owner is None or owner.plan is None else self.settings.plans.get(owner.plan)

    def _take(self, portion: Portion) -> None:
        """Put a portion in the place of what was there. Only while nobody else has this snapshot."""
        new = {name: hosted for name, hosted in portion.hosted.items() if hosted is not None}
        old = [hosted for hosted in map(self._hosted.get, portion.hosted) if hosted is not None]
        gone = [name for name, hosted in portion.hosted.items() if hosted is None]
        self._hosted = self._hosted.changed(gone, new.items(), expected=len(new))
        self._take_ids(old, new.values())
        self._take_counters(old, new.values())
        self._take_aliases(portion.aliases)
        owners = {id: owner for id, owner in portion.owners.items() if owner is not None}
        gone = [id for id, owner in portion.owners.items() if owner is None]
        self._owners = self._owners.changed(gone, owners.items(), expected=len(owners))
        self._take_operators(portion.owners)
        if portion.blocks is not None:
            self.blocks = portion.blocks

    def _take_ids(self, old: Collection[HostedDomain], new: Collection[HostedDomain]) -> None:
        gone = {hosted.domain.id for hosted in old}
        if gone:
            gone.difference_update(hosted.domain.id for hosted in new)
        self._by_id = self._by_id.changed(gone, ((hosted.domain.id, hosted) for hosted in new), expected=len(new))
        unused = {
            reference
            for hosted in old
            for reference in hosted.references
            # Another domain, whose turn was before, may have drawn the same reference after the alias had gone.
            if self._domain_ids.get(reference) == hosted.domain.id
        }
        if unused:
            unused.difference_update(reference for hosted in new for reference in hosted.references)
        # One by one, for there may be a million: a dict of them would hold up whoever waits while it grows.
        used = ((reference, hosted.domain.id) for hosted in new for reference in hosted.references)
        count = sum(len(hosted.references) for hosted in new)
        self._domain_ids = self._domain_ids.changed(unused, used, expected=count)

    def _take_counters(self, old: Iterable[HostedDomain], new: Iterable[HostedDomain]) -> None:
        after = dict.fromkeys(counter for hosted in new for counter in hosted.use_counters)
        before = {counter for hosted in old for counter in hosted.use_counters}
        self.use_counters = self.use_counters.changed(before - after.keys(), after.items(), expected=len(after))

    def _take_aliases(self, aliases: Mapping[str, Mapping[str, Alias | None]]) -> None:
        """The same for domains of which only these have changed: it costs what has changed, however many they have."""
        new: list[HostedDomain] = []
        before: dict[str, Alias] = {}
        after: dict[str, Alias] = {}
        for domain_id, changes in aliases.items():
            hosted = self._by_id.get(domain_id)
            if hosted is not None:
                other, replaced = hosted.changed(changes)
                new.append(other)
                before.update((alias.reference, alias) for alias in replaced)
                after.update((alias.reference, alias) for alias in changes.values() if alias is not None)
        self._hosted = self._hosted.changed((), ((hosted.domain.name, hosted) for hosted in new))
        self._by_id = self._by_id.changed((), ((hosted.domain.id, hosted) for hosted in new))
        # As with whole domains: another may have drawn the reference since.
        unused = [
            reference
            for reference, alias in before.items()
            if reference not in after and self._domain_ids.get(reference) == alias.domain_id
        ]
        used = ((reference, alias.domain_id) for reference, alias in after.items())
        self._domain_ids = self._domain_ids.changed(unused, used)
        counters = dict.fromkeys(alias.use_counter for alias in after.values() if alias.use_counter)
        unused = [alias.use_counter for alias in before.values() if alias.use_counter]
        self.use_counters = self.use_counters.changed(set(unused) - counters.keys(), counters.items())

    def _take_operators(self, owners: Mapping[str, Owner | None]) -> None:
        operators = {id: email for id, email in self._operators.items() if id not in owners}
        operators |= {id: owner.operator for id, owner in owners.items() if owner and owner.operator is not None}
        self._operators = operators
        first = operators[min(operators)] if operators else ""
        self.postmaster = self.settings.postmaster or first


class AskedSnapshot(Snapshot):
    """A snapshot for one question, which is about little: each domain is asked for when the question comes to it.

    Who looks something up in it waits for whoever is asked, and gets the exceptions. Not thread-safe.
    """

    def __init__(self, settings: Settings, generation: int, ask: Callable[[str], Portion]) -> None:
        """`ask` is called once for each name of a domain."""
        super().__init__(settings, generation)
        self._ask = ask
        self._asked: set[str] = set()

    def hosted(self, domain: str) -> HostedDomain | None:
        """See `Snapshot`."""
        if domain not in self._asked:
            self._take(self._ask(domain))
            self._asked.add(domain)
        return super().hosted(domain)
