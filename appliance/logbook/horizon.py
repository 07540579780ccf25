"""How far the log is whole, where several nodes write it.

Each node takes its own events to the log, a moment after they have happened. So that all who follow are told in one
order, which is that of the ids, each node marks how far it is: no event of its with a smaller id is still to come. As
far as the least of these marks the log is whole, and an id says how far somebody was, whichever node it is of.

A node that is gone would hold up all others: its mark counts no more when it has not moved for `GONE_S`. What it had
not taken to the log comes later, when the node is back or another has its work, and is late: it has its place where it
came (`places.py`). So a node has to know until when the others wait for it. That is for `HOLDS_S` behind its last mark;
later it begins anew, with a mark of now, and what is older is late. While the store itself is away no mark can move,
and nobody is passed over for that.

The clock of all marks, and of the ids, is that of the store's server, as each node knows it: the clocks of the machines
themselves may differ by as much as they like.
"""

import time
from collections.abc import Callable
from typing import Protocol

from appliance.model.ids import first_id_at, id_source
from appliance.model.time import MINUTE_MS, Clock
from appliance.privacy.declarations import LOG_HORIZONS
from appliance.spool.clocks import boot_clock
from appliance.storage.records import Delete, Duplicate, Insert, RecordStore, StoreUnavailable, Update

MARGIN_MS = 500
"""How much earlier an event's id is made than it is handed in to be written, mostly: the longest that can lie between
is the reading of what a bounce quotes. Also by how much nodes may differ in what they take for the server's clock."""

MARK_MS = 300
"""How far a node has to be beyond its mark to write another: each is a write that all nodes' servers take part in."""

GONE_S = 10.0
"""How long the mark of a node may stand still while others are waited for. A node that is stopped for longer, and then
goes on, is told of late, as one that comes back."""

HOLDS_S = GONE_S / 2
"""For how long a node relies on it that the others wait for it, behind a mark. The rest is for what is on its way."""

OLD_MS = MINUTE_MS
"""A mark as old as this is that of a node which was gone before anybody looked."""

LISTEN_S = 0.5
"""How often it is looked whether another node of the same name moves its mark."""


class NameTaken(Exception):
    """Another node is alive that has the same name."""


class Writing(Protocol):
    """What is known of events that are not in the outbox yet (`spool.committer.GroupCommitter`)."""

    def pending_s(self) -> float:
        """For how many seconds at most the oldest of what was handed in has waited; 0 where nothing waits."""


def _awake_s() -> float:
    return boot_clock() / 1000


class OwnHorizon:
    """The mark of this node. What is no property of it blocks, and raises StoreUnavailable, and NameTaken where another
    node has its name."""

    def __init__(
        self,
        records: RecordStore,
        node: str,
        clock: Clock,
        machine: str = "",
        steady: Callable[[], float] = _awake_s,
    ) -> None:
        """`node` is its name, the same at every start; `machine` says where it runs, and nobody runs twice there.

        `clock` is that of the store's server; `steady` counts seconds, those included in which the machine sleeps.
        """
        self._records = records
        self._node = node
        self._clock = clock
        self._machine = machine
        self._steady = steady
        self._marked = 0
        self._marked_at = float("-inf")
        """When, by `steady`, the last mark was written that is certain."""
        self._passed = 0
        self._new_place = id_source(lambda: max(self._clock(), self._passed))

    @property
    def holds(self) -> bool:
        """Whether the others wait for it still: what is in the log by now, and not `passed`, came in time."""
        return self._steady() - self._marked_at < HOLDS_S

    @property
    def passed(self) -> str:
        """The others may be past every place before this one."""
        return first_id_at(self._passed)

    def new_place(self) -> str:
        """One where nobody is yet, as long as it `holds`: another one each time."""
        return self._new_place()

    def take(self, wait: Callable[[float], None] = time.sleep) -> None:
        """Take the name at the start; NameTaken where another node goes by it.

        An earlier run on the same machine has ended, as whoever starts this one knows. Of one elsewhere it is waited
        until its mark has stood still for `GONE_S`: it may have been here before the machine was started again.
        """
        began, seen = self._steady(), None
        while True:
            row = self._records.get(LOG_HORIZONS, {"id": self._node})
            if row is None or row.get("machine") in (None, self._machine):
                break
            if seen not in (None, row["marked_at"]):
                raise NameTaken(self._node)
            seen = row["marked_at"]
            if self._clock() - int(str(seen)) >= GONE_S * 1000 or self._steady() - began >= GONE_S:
                break
            wait(LISTEN_S)
        if row is not None:
            # Of two that start at once one has it.
            held = {"id": self._node, "machine": row.get("machine")}
            if self._records.apply([Update(LOG_HORIZONS, held, {"machine": self._machine})]) == [0]:
                raise NameTaken(self._node)
        self.begin()

    def present(self, writing: Writing) -> int:
        """The instant before which every event is in the outbox by now (milliseconds since the epoch)."""
        return self._clock() - MARGIN_MS - int(writing.pending_s() * 1000)

    def begin(self) -> None:
        """Have the others wait for it from now on: they were not told to, or have been waiting for too long."""
        instant = self._clock() - MARGIN_MS
        if -OLD_MS < instant - self._marked <= 0:
            # They notice one that moves.
            instant = self._marked + 1
        self._write(instant)

    def mark(self, instant: int) -> None:
        """What was in the outbox at `instant`'s `present` is in the log by now."""
        # One that is behind is of a moment when something waited to be written; a clock that was set back is followed.
        if -OLD_MS < instant - self._marked < MARK_MS:
            return
        self._write(instant)

    def forget(self) -> None:
        """Nothing more comes from here, and nobody is to wait for it."""
        self._records.apply([Delete(LOG_HORIZONS, {"id": self._node, "machine": self._machine})])

    def _write(self, instant: int) -> None:
        began, held = self._steady(), self.holds
        # Where the answer gets lost it may stand there.
        self._passed = instant if instant < self._marked else max(self._passed, instant)
        self._marked = instant
        own = {"id": self._node, "machine": self._machine}
        values = {"moved_to": first_id_at(instant), "marked_at": self._clock()}
        if self._records.apply([Update(LOG_HORIZONS, own, values)]) == [0]:
            try:
                self._records.apply([Insert(LOG_HORIZONS, {**own, **values})])
            except Duplicate:
                raise NameTaken(self._node) from None
        self._marked_at = began
        if not held:
            # Until it stood there, they went on.
            self._passed = max(instant, self._clock())


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
        """The id up to which the log is whole: nearly that of now where no node is there. Raises StoreUnavailable."""
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
        # One that begins now has an id of now behind it, whatever it takes for that.
        return min(awaited, default=first_id_at(instant - MARGIN_MS))
