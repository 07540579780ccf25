"""The record store: rows of declared collections, found by equality, changed together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.privacy.declarations import Collection, Retention, Row


class StoreUnavailable(Exception):
    """The store can't be reached, is full or is broken. Trying again later may help; to a sender this is a 4xx."""


class StoreFull(StoreUnavailable):
    """There is no room. To a sender this is 452 4.3.1."""


class Damaged(StoreUnavailable):
    """What is stored can't be opened or is corrupt: trying again will not help."""


class SchemaMismatch(Exception):
    """The store holds something that is not declared, or was written by a later version. Nothing in it was touched."""


class Duplicate(Exception):
    """A row with the same unique fields is there already."""

    def __init__(self, collection: Collection, fields: tuple[str, ...]) -> None:
        super().__init__(f"{collection.name}: there is one with the same {', '.join(fields)} already")
        self.collection = collection
        self.fields = fields


@dataclass(frozen=True, slots=True)
class Range:
    """A condition on a number or an id: `since` <= value < `until`; `after` < value."""

    since: int | str | None = None
    until: int | str | None = None
    after: int | str | None = None


@dataclass(frozen=True, slots=True)
class AnyOf:
    """A condition: the value is one of these."""

    values: tuple[object, ...]


Where = Mapping[str, object]
"""Conditions by field name, all of which hold: a value to be equal to (None: absent), a Range, or an AnyOf.

A sealed field can be asked for by equality where it has a keyed twin; the backend compares MACs.
"""


@dataclass(frozen=True, slots=True)
class Insert:
    """Add a row. Duplicate is raised where a unique field says no."""

    collection: Collection
    row: Row


@dataclass(frozen=True, slots=True)
class Update:
    """Set fields of every row that meets the conditions."""

    collection: Collection
    where: Where
    changes: Row


@dataclass(frozen=True, slots=True)
class Delete:
    """Erase every row that meets the conditions."""

    collection: Collection
    where: Where


@dataclass(frozen=True, slots=True)
class Raise:
    """Add one to the generation of this name (`GENERATIONS`), which begins at 0."""

    name: str


Change = Insert | Update | Delete | Raise

StoredRow = Mapping[str, object]
"""A row as it stands on the disk, by column: sealed and keyed already. Only ever handed from store to store."""


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of an answer: rows behind the key `after`, in the order of the key, at most `limit`."""

    after: str | None = None
    limit: int = 1000
    newest_first: bool = False


class RecordStore(Protocol):
    """What the rooms need of records. Every method may raise StoreUnavailable.

    Thread-safe: calls may come from any thread, and each is durable when it returns.
    """

    def apply(self, changes: Sequence[Change]) -> list[int]:
        """Make these changes as one: all or none. Returns the number of rows that each has touched."""

    def get(self, collection: Collection, where: Where) -> dict[str, object] | None:
        """The one row that meets the conditions, or None. Keyed fields are not part of it."""

    def find(self, collection: Collection, where: Where, page: Page = ...) -> list[dict[str, object]]:
        """The rows that meet the conditions, ordered by the collection's key."""

    def count(self, collection: Collection, where: Where) -> int:
        """How many rows meet the conditions."""

    def distinct(self, collection: Collection, field: str, where: Where, page: Page = ...) -> list[object]:
        """The values that a clear field has in the rows that meet the conditions, each once, in their order.

        `page.after` is a value of this field.
        """

    def generation(self, name: str) -> int:
        """How often this generation has been raised."""

    def stored(self, collection: Collection, page: Page = ...) -> list[StoredRow]:
        """Rows as they stand, all columns of them, in the order of the key. Needs no key of a seal."""

    def import_stored(self, collection: Collection, rows: Iterable[StoredRow]) -> None:
        """Take rows over from another store as they stand; one whose key is here already is passed over."""

    def sweep(self, collection: Collection, retention: Retention, before: int) -> int:
        """Erase what the retention names and is older than this instant. Returns how many rows that were."""

    def erase_ownerless(self, collection: Collection) -> int:
        """Erase every row whose owner (`belongs_to`) there is not, or not any more. Returns how many rows that were."""

    def close(self) -> None:
        """Let go of the store."""
