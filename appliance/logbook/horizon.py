"""How far the log is whole, where several nodes write it.

Each node takes its own events to the log, a moment after they have happened. So that all who follow are told in one
order, which is that of the ids, each node marks how far it is: no event of its with a smaller id is still to come. As
far as the least of these marks the log is whole, and an id says how far somebody was, whichever node it is of.

A node that is gone would hold up all others: its mark counts no more when it has not moved for `GONE_S`. What it had
not taken to the log comes later, when the node is back or another has its work, and is told then. While the store
itself is away no mark can move, and that time does not count.
"""

import time
from collections.abc import Callable
from typing import Protocol

from appliance.model.ids import first_id_at
from appliance.model.time import MINUTE_MS, Clock
from appliance.privacy.declarations import LOG_HORIZONS
from appliance.storage.records import Delete, Duplicate, Insert, RecordStore, StoreUnavailable, Update

MARGIN_MS = 500
"""How much earlier an event's id is made than it is handed in to be written, at most. The longest that can lie between
is the reading of what a bounce quotes."""

MARK_MS = 300
"""How far a node has to be beyond its mark to write another: each is a write that all nodes' servers take part in."""

GONE_S = 10.0
"""How long the mark of a node may stand still while others are waited for. A node that is stopped for longer, and then
goes on, is told of late, as one that comes back."""

OLD_MS = MINUTE_MS
"""A mark as old as this by the wall clock is that of a node which was gone before anybody looked."""


class Writing(Protocol):
    """What is known of events that are not in the outbox yet (`spool.committer.GroupCommitter`)."""

    def pending_s(self) -> float:
        """For how many seconds at most the oldest of what was handed in has waited; 0 where nothing waits."""


class OwnHorizon:
    """The mark of this node. `mark` and `forget` block, and raise StoreUnavailable."""

    def __init__(self, records: RecordStore, node: str, clock: Clock) -> None:
        """`node` is its name, the same at every start."""
        self._records = records
        self._node = node
        self._clock = clock
        self._marked = 0

    def present(self, writing: Writing) -> int:
        """The instant before which every event is in the outbox by now (milliseconds since the epoch)."""
        return self._clock() - MARGIN_MS - int(writing.pending_s() * 1000)

    def mark(self, instant: int) -> None:
        """What was in the outbox at `instant`'s `present` is in the log by now."""
        # One that is behind is of a moment when something waited to be written; a clock that was set back is followed.
        if -OLD_MS < instant - self._marked < MARK_MS:
            return
        values = {"moved_to": first_id_at(instant), "marked_at": self._clock()}
        if self._records.apply([Update(LOG_HORIZONS, {"id": self._node}, values)]) == [0]:
            try:
                self._records.apply([Insert(LOG_HORIZONS, {"id": self._node, **values})])
            except Duplicate:
                return  # Another of this name: the next mark is behind this one.
        self._marked = instant

    def forget(self) -> None:
        """Nothing more comes from here, and nobody is to wait for it."""
        self._records.apply([Delete(LOG_HORIZONS, {"id": self._node})])


class Horizons:
    """The marks of all nodes, as one follower of the log sees them. For one thread at a time."""

    def __init__(self, records: RecordStore, clock: Clock, steady: Callable[[], float] = time.monotonic) -> None:
        """`steady` counts seconds."""
        self._records = records
        self._clock = clock
        self._steady = steady
        self._seen: dict[str, tuple[str, float]] = {}
        """The last mark of each node, and for how long it has stood still."""
        self._looked_at = steady()
        self._was_blind = False
        """The store was away since: nobody could mark anything either."""

    def reached(self) -> str:
        """The id up to which the log is whole: that of now, where no node is there. Raises StoreUnavailable."""
        try:
            rows = self._records.find(LOG_HORIZONS, {})
        except StoreUnavailable:
            self._was_blind = True
            raise
        now, instant = self._steady(), self._clock()
        passed = 0.0 if self._was_blind else now - self._looked_at
        self._looked_at, self._was_blind = now, False
        marks: dict[str, tuple[str, float]] = {}
        for row in rows:
            node, moved_to = str(row["id"]), str(row["moved_to"])
            known = self._seen.get(node)
            if known is not None and known[0] == moved_to:
                marks[node] = moved_to, known[1] + passed
            elif known is None and instant - int(str(row["marked_at"])) > OLD_MS:
                marks[node] = moved_to, GONE_S
            else:
                marks[node] = moved_to, 0.0
        self._seen = marks
        awaited = [moved_to for moved_to, still_s in marks.values() if still_s < GONE_S]
        return min(awaited, default=first_id_at(instant))
