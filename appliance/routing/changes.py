"""What has changed of what routing knows, told from whoever changes it to every node that routes by it.

Each change of accounts, domains, aliases and blocks ends by raising the generation `routing`, and with it, in the same
batch, a row is stored that says which domains and accounts it was about. So each raise has one row, and nobody counts
the rows: two nodes that change something at once ask nothing of each other. `following.py` reads them.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from appliance.model.ids import IdSource
from appliance.model.time import Clock
from appliance.privacy.declarations import ROUTING_CHANGES
from appliance.storage.records import Change, Insert, Raise

GENERATION = "routing"
"""The generation that is raised with every change of accounts, domains, aliases and blocks."""


@dataclass(frozen=True, slots=True)
class Touched:
    """What is to be loaded anew."""

    domains: frozenset[str] = frozenset()
    """Ids of domains of which something has changed: themselves, or their aliases."""
    accounts: frozenset[str] = frozenset()
    """Ids of accounts of which something has changed: themselves, or their destinations."""
    blocks: bool = False


def announcement(
    ids: IdSource,
    clock: Clock,
    *,
    domains: Collection[str] = (),
    accounts: Collection[str] = (),
    blocks: bool = False,
) -> tuple[Change, Change]:
    """The last part of every batch that changes what routing knows: what it is about, and the generation raised."""
    row = {"id": ids(), "at": clock(), "domains": list(domains), "accounts": list(accounts), "blocks": blocks}
    # In this order: where a batch becomes visible step by step, whoever sees the generation can see the row, and
    # whoever sees the row can see what it is about.
    return Insert(ROUTING_CHANGES, row), Raise(GENERATION)


def touched_by(rows: Iterable[Mapping[str, Any]]) -> Touched:
    """What these rows are about, together."""
    domains: set[str] = set()
    accounts: set[str] = set()
    blocks = False
    for row in rows:
        domains.update(row["domains"])
        accounts.update(row["accounts"])
        blocks = blocks or row["blocks"]
    return Touched(frozenset(domains), frozenset(accounts), blocks)
