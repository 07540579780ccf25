"""Pages of a list: connections with a cursor behind each row, as Relay has them.

A cursor is the key of a row, so a page begins behind that row whatever has been added or removed in between. A resolver
asks for one row more than was wanted (`slice.limit`), which tells whether there is another page:

    wanted = Slice.of(first, after)
    rows = records.find(DOMAINS, {"account_id": account.id}, Page(after=wanted.after, limit=wanted.limit))
    return connection(rows, wanted, key=lambda row: row["id"], node=Domain.of, count=lambda: records.count(...))
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

import strawberry

from control_api.errors import bad_input
from control_api.fields import shown
from control_api.ids import base64url

MOST = 100
"""Rows of a page. A client that wants them all asks for page after page, and others get their turn in between."""
USUAL = 50
"""Rows of a page where nobody says how many; the contract has it as the default of `first`."""
MAX_CURSOR_LENGTH = 512
"""Characters of a cursor: ours are keys, of a hundred octets at most."""

Node = TypeVar("Node")
Row = TypeVar("Row")


@strawberry.type
class PageInfo:
    """Where a page ends."""

    end_cursor: str | None = strawberry.field(description="The `after` of the next page; null where this one is empty.")
    has_next_page: bool


@strawberry.type
class Edge(Generic[Node]):
    """A row and its cursor."""

    key: strawberry.Private[str]
    node: Node

    @shown
    def cursor(self) -> str:
        """The `after` of what follows this row."""
        return base64url(self.key)


@strawberry.type
class Connection(Generic[Node]):
    """A page of a list. `Connection[Domain]` is `DomainConnection` in the schema."""

    edges: list[Edge[Node]]
    page_info: PageInfo
    counted: strawberry.Private[Callable[[], int]]

    @shown
    def total_count(self) -> int:
        """How many there are on all pages."""
        return self.counted()


@dataclass(frozen=True, slots=True)
class Slice:
    """Which part of a list is wanted."""

    first: int
    after: str | None
    """The key behind which it begins; None: at the beginning."""

    @property
    def limit(self) -> int:
        """How many rows to ask the store for: one more than is wanted."""
        return self.first + 1

    @classmethod
    def of(cls, first: int | None, after: str | None) -> Self:
        """From the arguments of a field. Raises BAD_USER_INPUT."""
        if first is None:
            first = USUAL
        if not 0 <= first <= MOST:
            raise bad_input(f"first is between 0 and {MOST}.")
        return cls(first, None if after is None else _key(after))


def connection(
    rows: Sequence[Row],
    wanted: Slice,
    *,
    key: Callable[[Row], str],
    node: Callable[[Row], Node],
    count: Callable[[], int],
) -> Connection[Node]:
    """The page that these rows make, of which there may be one more than is wanted. `count` counts all pages."""
    shown = rows[: wanted.first]
    edges = [Edge(key=key(row), node=node(row)) for row in shown]
    return Connection(
        edges=edges,
        page_info=PageInfo(
            end_cursor=base64url(edges[-1].key) if edges else None, has_next_page=len(rows) > len(shown)
        ),
        counted=count,
    )


def _key(cursor: str) -> str:
    try:
        if len(cursor) > MAX_CURSOR_LENGTH:
            raise ValueError
        octets = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return octets.decode()
    except (binascii.Error, ValueError):
        raise bad_input("after is no cursor of this list.") from None
