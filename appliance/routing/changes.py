"""What has changed of what routing knows, told from whoever changes it to every node that routes by it.

Each change of accounts, domains, aliases and blocks ends by raising the generation `routing`, and with it, in the same
batch, a row is stored that says which domains, aliases and accounts it was about. So each raise has one row, and nobody
counts the rows: two nodes that change something at once ask nothing of each other. `following.py` reads them.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
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
    """Ids of domains of which something has changed: themselves, or any of their aliases."""
    aliases: Mapping[str, Collection[str]] = field(default_factory=dict)
    """By the ids of other domains, the ids of those aliases that have changed; nothing else of these domains has."""
    accounts: frozenset[str] = frozenset()
    """Ids of accounts of which something has changed: themselves, or their destinations."""
    blocks: bool = False


def announcement(
    ids: IdSource,
    clock: Clock,
    *,
    domains: Collection[str] = (),
    aliases: Collection[str] | None = None,
    accounts: Collection[str] = (),
    blocks: bool = False,
) -> tuple[Change, Change]:
    """The last part of every batch that changes what routing knows: what it is about, and the generation raised.

    `aliases`: where of the one domain that is named nothing has changed but these. All arguments are ids.
    """
    row = {
        "id": ids(),
        "at": clock(),
        "domains": list(domains),
        "aliases": None if aliases is None else list(aliases),
        "accounts": list(accounts),
        "blocks": blocks,
    }
    # In this order: where a batch becomes visible step by step, whoever sees the generation can see the row, and
    # whoever sees the row can see what it is about.
    return Insert(ROUTING_CHANGES, row), Raise(GENERATION)


def touched_by(rows: Iterable[Mapping[str, Any]]) -> Touched:
    """What these rows are about, together."""
    domains: set[str] = set()
    aliases: dict[str, set[str]] = {}
    accounts: set[str] = set()
    blocks = False
    for row in rows:
        if row["aliases"] is None:
            domains.update(row["domains"])
        else:
            for domain in row["domains"]:
                aliases.setdefault(domain, set()).update(row["aliases"])
        accounts.update(row["accounts"])
        blocks = blocks or row["blocks"]
    others = {domain: ids for domain, ids in aliases.items() if domain not in domains}
    return Touched(frozenset(domains), others, frozenset(accounts), blocks)
