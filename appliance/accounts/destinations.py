"""Destinations: the mailboxes that an account forwards to.

A destination stands in the store once for each account, in its one spelling (lower case, NFC, A-labels), with the
instant since which its owner has agreed; aliases name it by its address, however that is spelled. One that no alias of
the account names any more is erased with the last that did, so that no private address outlives its use.

Where an alias is an expression, `ada+$1@example.org` is about the mailbox `ada@example.org`, and its owner is asked. At
a domain that the account has verified nobody is asked: its owner is the one who makes the alias.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from appliance.accounts.rows import every, insert
from appliance.model.domain import Alias, AliasKind, Destination, Domain
from appliance.model.ids import IdSource
from appliance.privacy.declarations import CONFIRMATIONS, DESTINATIONS
from appliance.routing.patterns import references, without_references
from appliance.routing.snapshot import one_spelling
from appliance.storage.records import AnyOf, Change, Delete, RecordStore, Update


@dataclass(frozen=True, slots=True)
class Agreed:
    """Where an account may forward to."""

    mailboxes: frozenset[str]
    """In their one spelling: their owners have agreed."""
    domains: frozenset[str]
    """Those that the account has verified."""

    def covers(self, alias: Alias, target: str) -> bool:
        """Whether mail of this alias may go to this target."""
        return mailbox_of(alias, target) in self.mailboxes or self.owns(target)

    def owns(self, target: str) -> bool:
        """Whether the target is at a domain of the account itself."""
        return one_spelling(target).rpartition("@")[2] in self.domains


def agreed(records: RecordStore, account_id: str) -> Agreed:
    """Where this account may forward to, now."""
    destinations = every(records, Destination, {"account_id": account_id})
    domains = every(records, Domain, {"account_id": account_id, "verified": True})
    return Agreed(
        frozenset(destination.target for destination in destinations if destination.confirmed_at is not None),
        frozenset(domain.name for domain in domains),
    )


def mailbox_of(alias: Alias, target: str) -> str:
    """The mailbox that a target of an alias is about, in its one spelling."""
    is_template = alias.kind is AliasKind.REGEX and references(target)
    return one_spelling(without_references(target) if is_template else target)


def wanted(
    records: RecordStore, account_id: str, mailboxes: Collection[str], now: int, ids: IdSource, *, vouched: bool
) -> tuple[list[Change], list[Destination]]:
    """The changes after which an account has these mailboxes among its destinations, and those that are unconfirmed.

    Where somebody vouches for their owners, all are confirmed.
    """
    where = {"account_id": account_id, "target": AnyOf(tuple(mailboxes))}
    known = {each.target: each for each in every(records, Destination, where)} if mailboxes else {}
    changes: list[Change] = []
    unconfirmed: list[Destination] = []
    for mailbox in dict.fromkeys(mailboxes):
        destination = known.get(mailbox)
        if destination is None:
            destination = Destination(ids(), account_id, mailbox, confirmed_at=now if vouched else None, created_at=now)
            changes.append(insert(destination))
        elif destination.confirmed_at is None and vouched:
            changes.append(Update(DESTINATIONS, {"id": destination.id}, {"confirmed_at": now}))
            continue
        if destination.confirmed_at is None:
            unconfirmed.append(destination)
    return changes, unconfirmed


def no_longer_used(
    records: RecordStore, account_id: str, going: Iterable[Alias], instead: Iterable[Alias] = ()
) -> list[Change]:
    """The changes that erase every destination which only these aliases, about to go, have named.

    `instead` are those that take their place.
    """
    going = tuple(going)
    gone = {alias.id for alias in going}
    unused = {mailbox_of(alias, target) for alias in going for target in alias.targets}
    for alias in instead:
        unused.difference_update(mailbox_of(alias, target) for target in alias.targets)
    if not unused:
        return []
    for domain in every(records, Domain, {"account_id": account_id}):
        for alias in every(records, Alias, {"domain_id": domain.id}):
            if alias.id not in gone:
                unused.difference_update(mailbox_of(alias, target) for target in alias.targets)
    where = {"account_id": account_id, "target": AnyOf(tuple(sorted(unused)))}
    unused_ids = tuple(destination.id for destination in every(records, Destination, where))
    if not unused_ids:
        return []
    return [
        Delete(CONFIRMATIONS, {"destination_id": AnyOf(unused_ids)}),
        *(Delete(DESTINATIONS, {"id": id}) for id in unused_ids),
    ]
