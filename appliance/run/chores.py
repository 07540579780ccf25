"""Turns: what one node at a time does for all that share a record store.

A turn is a row that a node changes only where nobody else's time is running (compare and set), so of two that ask at
once one gets it. It ends when the work is done, or with its time where a node has died over it.

The time is that of the nodes' own clocks. Where one of them is wrong, two nodes may have the same turn: it keeps them
from doing work twice, and what must not happen twice is decided by the write itself. A turn whose end is further away
than any can be was begun under a clock that has been put right since, and keeps nobody waiting.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from appliance.model.time import Clock
from appliance.privacy.declarations import CHORES
from appliance.storage.records import Duplicate, Insert, Range, RecordStore, StoreUnavailable, Update

TURN_MS = 60_000
"""How long a turn lasts, unless it is given back: so much later another node takes over from one that died over it."""

_OVER = 0
"""Until when a turn lasts that was given back."""


@contextmanager
def turn(records: RecordStore, chore: str, node: str, clock: Clock, lasts_ms: int = TURN_MS) -> Iterator[bool]:
    """Whether it is this node's turn at a chore, for the block; False while another's lasts. Raises StoreUnavailable.

    `node` is a name that no other process has.
    """
    now = clock()
    until = now + lasts_ms
    taken = _taken(records, chore, node, now, until)
    try:
        yield taken
    finally:
        if taken:
            try:
                # Only our own: where the work took too long, somebody else may have it by now.
                records.apply([Update(CHORES, {"name": chore, "node": node, "until": until}, {"until": _OVER})])
            except StoreUnavailable:
                pass  # It ends by itself.


def is_due(records: RecordStore, chore: str, node: str, clock: Clock, every_ms: int) -> bool:
    """Whether it is this node's turn at a chore that need not be done more often than this, whoever does it.

    The turn is not given back: until its time is over, nobody else has one. Raises StoreUnavailable.
    """
    now = clock()
    return _taken(records, chore, node, now, now + every_ms)


def _taken(records: RecordStore, chore: str, node: str, now: int, until: int) -> bool:
    mine = {"node": node, "until": until}
    # Its end may be as far away as ours would be, and as much again for clocks that differ.
    for over in (Range(until=now), Range(after=until + (until - now))):
        (touched,) = records.apply([Update(CHORES, {"name": chore, "until": over}, mine)])
        if touched:
            return True
    try:
        records.apply([Insert(CHORES, {"name": chore} | mine)])
    except Duplicate:
        return False
    return True
