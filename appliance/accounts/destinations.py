"""Destinations: the mailboxes that an account forwards to.

A destination stands in the store once for each account, in its one spelling (lower case, NFC, A-labels), with the
instant since which its owner has agreed; aliases name it by its address, however that is spelled. One that no alias of
the account names any more is erased with the last that did, so that no private address outlives its use.
"""

from collections.abc import Collection, Iterable

from appliance.accounts.rows import every, insert
from appliance.model.domain import Alias, Destination, Domain
from appliance.model.ids import IdSource
from appliance.privacy.declarations import DESTINATIONS
from appliance.routing.snapshot import one_spelling
from appliance.storage.records import AnyOf, Change, Delete, RecordStore, Update


def confirmed_targets(records: RecordStore, account_id: str) -> frozenset[str]:
    """The addresses, in their one spelling, whose owners have agreed to what this account forwards."""
    destinations = every(records, Destination, {"account_id": account_id})
    return frozenset(destination.target for destination in destinations if destination.confirmed_at is not None)


def confirmation(
    records: RecordStore, account_id: str, targets: Collection[str], now: int, ids: IdSource
) -> list[Change]:
    """The changes after which these addresses are confirmed destinations of the account."""
    wanted = tuple(dict.fromkeys(map(one_spelling, targets)))
    where = {"account_id": account_id, "target": AnyOf(wanted)}
    known = {destination.target: destination for destination in every(records, Destination, where)}
    changes: list[Change] = []
    for target in wanted:
        destination = known.get(target)
        if destination is None:
            changes.append(insert(Destination(ids(), account_id, target, confirmed_at=now, created_at=now)))
        elif destination.confirmed_at is None:
            changes.append(Update(DESTINATIONS, {"id": destination.id}, {"confirmed_at": now}))
    return changes


def no_longer_used(records: RecordStore, account_id: str, going: Iterable[Alias]) -> list[Change]:
    """The changes that erase every destination which only these aliases, about to go, have named."""
    going = tuple(going)
    gone = {alias.id for alias in going}
    unused = {one_spelling(target) for alias in going for target in alias.targets}
    if not unused:
        return []
    for domain in every(records, Domain, {"account_id": account_id}):
        for alias in every(records, Alias, {"domain_id": domain.id}):
            if alias.id not in gone:
                unused.difference_update(map(one_spelling, alias.targets))
    return [Delete(DESTINATIONS, {"account_id": account_id, "target": target}) for target in sorted(unused)]
