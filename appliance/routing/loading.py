"""The records as routing sees them: all of them, those that have changed, or those that one question is about.

They are read a few hundred domains at a time. A change that slips in between two pages is announced behind it
(`changes.py`), and what it is about is loaded once more.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from sys import intern
from typing import Any

from appliance.model.account import Role
from appliance.model.domain import Alias, Destination, Domain
from appliance.privacy.declarations import ACCOUNTS, ALIASES, BLOCKS, DESTINATIONS, DOMAINS, Collection
from appliance.routing.blocked import BlockTable
from appliance.routing.changes import GENERATION, Touched
from appliance.routing.hosted import HostedDomain
from appliance.routing.snapshot import AskedSnapshot, Owner, Portion, Settings, Snapshot, standing
from appliance.storage.record_rows import row_to_account, row_to_alias, row_to_block, row_to_destination, row_to_domain
from appliance.storage.records import AnyOf, Page, RecordStore, Where

AT_ONCE = 100
"""Domains, or accounts, of which the rows are asked for together: a thousand aliases, mostly, and fewer values than a
condition may have."""

MOST_ALIASES = 100
"""Aliases of one domain that are loaded one by one where they have changed at once; of more, the domain is loaded."""

_PAGE = 2000
"""Rows of one answer: so many are held beside what is made of them."""


def load(records: RecordStore, settings: Settings) -> Snapshot:
    """Build the snapshot of all that is stored now. Raises StoreUnavailable."""
    # The generation first: a change that slips in behind it is loaded once more, and never missed.
    generation = records.generation(GENERATION)
    domains = list(_domains(records, {}))
    destinations: dict[str, list[Destination]] = {}
    for row in _rows(records, DESTINATIONS, {}):
        destination = row_to_destination(row)
        destinations.setdefault(destination.account_id, []).append(destination)
    owning = {domain.account_id: domain.account_id for domain in domains}
    owners: dict[str, Owner] = {}
    for row in _rows(records, ACCOUNTS, {}):
        account = row_to_account(row)
        if account.id in owning or account.role is Role.OPERATOR:
            # Under the id that its domains hold already.
            id = owning.get(account.id, account.id)
            owners[id] = Owner.of(account, destinations.pop(account.id, ()))
    # One that was stored at the moment when its account was deleted is erased soon, and says nothing of it.
    wanted = standing(domain for domain in domains if domain.account_id in owners)
    everything = Portion(_hosted(records, wanted), owners, _blocks(records))
    return Snapshot(settings, generation).replaced(generation, everything)


def changed(records: RecordStore, known: Snapshot, touched: Touched) -> Portion:
    """What is stored now of what has been touched. Raises StoreUnavailable."""
    few = {domain_id: ids for domain_id, ids in touched.aliases.items() if len(ids) <= MOST_ALIASES}
    whole = touched.domains.union(touched.aliases.keys() - few.keys())
    before = (known.hosted_by_id(id) for id in whole)
    names = {hosted.domain.name for hosted in before if hosted is not None}
    for ids in _in_batches(whole):
        names.update(domain.name for domain in _domains(records, {"id": AnyOf(ids)}))
    portion = named(records, names, touched.accounts)
    # With an account everything of it goes, also what was added while it went.
    gone = {id for id, owner in portion.owners.items() if owner is None}
    if gone:
        portion = named(records, names.union(known.names_of(gone)), touched.accounts)
    blocks = _blocks(records) if touched.blocks else None
    return Portion(portion.hosted, portion.owners, blocks, _aliases(records, few))


def named(records: RecordStore, names: Iterable[str], accounts: Iterable[str] = ()) -> Portion:
    """What is stored now under these names, and of these accounts. Raises StoreUnavailable."""
    names = set(names)
    rivals = [domain for batch in _in_batches(names) for domain in _domains(records, {"name": AnyOf(batch)})]
    owners = _owners(records, {domain.account_id for domain in rivals}.union(accounts))
    wanted = standing(domain for domain in rivals if owners[domain.account_id] is not None)
    return Portion(dict.fromkeys(names) | _hosted(records, wanted), owners)


def for_one_question(records: RecordStore, settings: Settings) -> Snapshot:
    """A snapshot that loads each domain when it is asked for. Raises StoreUnavailable, and so does what it returns."""
    operators = (row_to_account(row) for row in _rows(records, ACCOUNTS, {"role": Role.OPERATOR.value}))
    appliance = Portion({}, {each.id: Owner.of(each, ()) for each in operators}, _blocks(records))
    generation = records.generation(GENERATION)
    asked = AskedSnapshot(settings, generation, lambda name: named(records, [name]))
    return asked.replaced(generation, appliance)


def _hosted(records: RecordStore, wanted: Mapping[str, Domain]) -> dict[str, HostedDomain | None]:
    """These domains with their aliases."""
    hosted: dict[str, HostedDomain | None] = {}
    for names in _in_batches(wanted):
        aliases: dict[str, list[Alias]] = {wanted[name].id: [] for name in names}
        for row in _rows(records, ALIASES, {"domain_id": AnyOf(tuple(aliases))}):
            alias = row_to_alias(row)
            aliases[alias.domain_id].append(alias)
        hosted.update((name, HostedDomain(wanted[name], aliases[wanted[name].id])) for name in names)
    return hosted


def _aliases(records: RecordStore, touched: Mapping[str, Iterable[str]]) -> dict[str, dict[str, Alias | None]]:
    """These aliases, by the ids of their domains and their own; None for one that there is not."""
    aliases: dict[str, dict[str, Alias | None]] = {id: dict.fromkeys(ids) for id, ids in touched.items()}
    for batch in _in_batches(id for ids in touched.values() for id in ids):
        for row in _rows(records, ALIASES, {"id": AnyOf(batch)}):
            alias = row_to_alias(row)
            aliases.setdefault(alias.domain_id, {})[alias.id] = alias
    return aliases


def _owners(records: RecordStore, ids: Iterable[str]) -> dict[str, Owner | None]:
    """These accounts with their destinations; None for one that there is not."""
    owners: dict[str, Owner | None] = dict.fromkeys(ids)
    for batch in _in_batches(list(owners)):
        destinations: dict[str, list[Destination]] = {id: [] for id in batch}
        for row in _rows(records, DESTINATIONS, {"account_id": AnyOf(batch)}):
            destination = row_to_destination(row)
            destinations[destination.account_id].append(destination)
        for row in _rows(records, ACCOUNTS, {"id": AnyOf(batch)}):
            account = row_to_account(row)
            owners[account.id] = Owner.of(account, destinations[account.id])
    return owners


def _blocks(records: RecordStore) -> BlockTable:
    return BlockTable(row_to_block(row) for row in _rows(records, BLOCKS, {}))


def _domains(records: RecordStore, where: Where) -> Iterator[Domain]:
    for row in _rows(records, DOMAINS, where):
        # An account has many of them, and they have its id together.
        yield row_to_domain(row | {"account_id": intern(row["account_id"])})


def _rows(records: RecordStore, collection: Collection, where: Where) -> Iterator[dict[str, Any]]:
    after = None
    while rows := records.find(collection, where, Page(after=after, limit=_PAGE)):
        yield from rows
        if len(rows) < _PAGE:
            return
        after = str(rows[-1]["id"])


def _in_batches(values: Iterable[str]) -> Iterator[tuple[str, ...]]:
    left = iter(values)
    while batch := tuple(islice(left, AT_ONCE)):
        yield batch
