"""What belongs to an account: found by what is declared, so that no class of data can be forgotten.

A collection says whose its rows are (`belongs_to`), by way of others where need be: an event is its domain's, and the
domain an account's. Deletion erases, and the export shows, what is found in this way.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from appliance.privacy.declarations import ACCOUNTS, Collection
from appliance.privacy.owners import owned
from appliance.storage.records import AnyOf, Page, RecordStore, Where


@dataclass(frozen=True, slots=True)
class Belonging:
    """The rows of one collection that are an account's."""

    collection: Collection
    where: Where


def belongings(records: RecordStore, account_id: str) -> list[Belonging]:
    """Everything in the record store that is this account's, the account itself first. Raises StoreUnavailable."""
    found: dict[str, Belonging] = {}
    for collection in owned():
        belongs_to = collection.belongs_to
        assert belongs_to is not None
        owner: object = account_id
        if belongs_to.owner != ACCOUNTS.name:
            owner = AnyOf(tuple(_ids(records, found[belongs_to.owner])))
        found[collection.name] = Belonging(collection, {belongs_to.by: owner})
    return list(found.values())


def rows_of(
    records: RecordStore, belonging: Belonging, *, newest_first: bool = False
) -> Iterator[Mapping[str, object]]:
    """The rows, read page by page in the order of their key. Raises StoreUnavailable."""
    (key,) = belonging.collection.key
    after: str | None = None
    while rows := records.find(belonging.collection, belonging.where, Page(after, newest_first=newest_first)):
        yield from rows
        after = str(rows[-1][key])


def _ids(records: RecordStore, owners: Belonging) -> Iterator[str]:
    (key,) = owners.collection.key
    return (str(row[key]) for row in rows_of(records, owners))
