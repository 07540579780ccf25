"""What this room asks of the record store: one value, every value, and the change that stores one."""

from collections.abc import Iterator
from typing import Any, TypeVar

from appliance.model.account import Account
from appliance.model.domain import Alias, Destination, Domain
from appliance.privacy.declarations import ACCOUNTS, ALIASES, DESTINATIONS, DOMAINS, Collection
from appliance.routing.snapshot import GENERATION
from appliance.storage.record_rows import row_to_account, row_to_alias, row_to_destination, row_to_domain, to_row
from appliance.storage.records import Insert, Page, Raise, RecordStore, Where

Value = Account | Domain | Alias | Destination
V = TypeVar("V", Account, Domain, Alias, Destination)

ROUTING_CHANGED = Raise(GENERATION)
"""The last part of every change made here: a running appliance watches this generation."""

_KINDS: dict[type[Value], tuple[Collection, Any]] = {
    Account: (ACCOUNTS, row_to_account),
    Domain: (DOMAINS, row_to_domain),
    Alias: (ALIASES, row_to_alias),
    Destination: (DESTINATIONS, row_to_destination),
}


def insert(value: Value) -> Insert:
    """The change that stores this value."""
    collection, _ = _KINDS[type(value)]
    return Insert(collection, to_row(value))


def get(records: RecordStore, kind: type[V], where: Where) -> V | None:
    """The one value that meets the conditions, or None."""
    collection, read = _KINDS[kind]
    row = records.get(collection, where)
    return None if row is None else read(row)


def every(records: RecordStore, kind: type[V], where: Where) -> Iterator[V]:
    """All values that meet the conditions, in the order in which they were made, read page by page."""
    collection, read = _KINDS[kind]
    after: str | None = None
    while rows := records.find(collection, where, Page(after=after)):
        for row in rows:
            yield read(row)
        after = str(rows[-1]["id"])
