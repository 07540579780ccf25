"""Keeping a snapshot in line with the records: what has been announced is loaded, and nothing else.

Announcements are counted. Each raise of the generation has one row (`changes.py`), so as many rows have been read as
the generation has risen, or something is missing. That way it does not matter in which order rows become visible, nor
whose clock made their ids: rows are looked for from a moment before the newest one on, and where one is missing among
all that are kept. Where one stays missing (it was swept before this node came back, or it was never written),
everything is loaded anew.
"""

from collections.abc import Callable
from time import monotonic

from appliance.model.ids import id_before
from appliance.model.time import MINUTE_MS, SECOND_MS
from appliance.privacy.declarations import ROUTING_CHANGES
from appliance.routing.changes import GENERATION, touched_by
from appliance.routing.loading import changed, load
from appliance.routing.snapshot import Settings, Snapshot
from appliance.storage.records import Page, RecordStore

OVERLAPS_MS = (5 * SECOND_MS, 5 * MINUTE_MS)
"""How far behind the newest row others are looked for, which a node with a slower clock has written since: first
nearby, where they are with clocks that are kept, then farther, and then everywhere."""

PATIENCE_S = 2.0
"""How long a row may be missing before everything is loaded. A row is visible before the generation is raised."""

AHEAD_PATIENCE_S = 30.0
"""How long there may be more rows than the generation has risen: whoever died between the two has its batch finished by
others within a quarter of a minute, and what its row is about has been loaded. After that these are other records."""

_ATTEMPTS = 5
"""How often to look for an instant without a change before everything is loaded; where there is none, the count says
later that a row is missing, and everything is loaded once more."""

_PAGE = 1000


class Follower:
    """Holds the snapshot of a record store. `look` is called by one thread at a time; anybody may read `snapshot`."""

    def __init__(self, records: RecordStore, settings: Settings, clock: Callable[[], float] = monotonic) -> None:
        """Loads everything. `clock` has seconds. Raises StoreUnavailable."""
        self._records = records
        self._settings = settings
        self._clock = clock
        self.whole_loads = 0
        """How often everything has been loaded."""
        self._counted = 0
        """Which generation the snapshot is of: so many announcements are in it."""
        self._read: set[str] = set()
        """The ids of those that have been read."""
        self._newest = ""
        self._kept_in_mind = 0
        self._missing_since: float | None = None
        self.snapshot = self._load_everything()

    def look(self) -> Snapshot:
        """The snapshot of what is stored now. Some microseconds where nothing has changed.

        Raises StoreUnavailable; the snapshot stays as it was then, and the next look does it all.
        """
        generation = self._records.generation(GENERATION)
        if generation == self._counted:
            self._missing_since = None
            return self.snapshot
        self._forget()
        rows = self._announced(generation)
        counted = self._counted + len(rows)
        # What was announced while rows were read is among them, and in the generation as it is now.
        latest = generation if counted <= generation else self._records.generation(GENERATION)
        if rows:
            portion = changed(self._records, self.snapshot, touched_by(rows))
            self.snapshot = self.snapshot.replaced(counted, portion)
            self._counted = counted
            self._read.update(str(row["id"]) for row in rows)
            self._newest = max(self._newest, *(str(row["id"]) for row in rows))
        if generation <= counted <= latest:
            self._missing_since = None
        elif self._missing_since is None:
            self._missing_since = self._clock()
        elif self._clock() - self._missing_since > (PATIENCE_S if counted < generation else AHEAD_PATIENCE_S):
            self.snapshot = self._load_everything()
        return self.snapshot

    def _announced(self, generation: int) -> list[dict[str, object]]:
        """The rows that have not been read: those near the newest, or more where these are too few."""
        rows: list[dict[str, object]] = []
        for overlap_ms in OVERLAPS_MS:
            rows = self._unread(id_before(self._newest, overlap_ms) if self._newest else None)
            if self._counted + len(rows) >= generation:
                return rows
        return self._unread(None)

    def _load_everything(self) -> Snapshot:
        for _ in range(_ATTEMPTS):
            counted = self._records.generation(GENERATION)
            read = self._ids()
            if self._records.generation(GENERATION) == counted:
                break
        # From here on whatever changes is announced by a row that has not been read.
        snapshot = load(self._records, self._settings)
        self._counted, self._read, self._newest = counted, set(read), max(read, default="")
        self._missing_since = None
        self.whole_loads += 1
        return snapshot

    def _unread(self, after: str | None) -> list[dict[str, object]]:
        """The rows behind this id that have not been read."""
        unread: list[dict[str, object]] = []
        while rows := self._records.find(ROUTING_CHANGES, {}, Page(after=after, limit=_PAGE)):
            unread += (row for row in rows if row["id"] not in self._read)
            if len(rows) < _PAGE:
                break
            after = str(rows[-1]["id"])
        return unread

    def _ids(self) -> list[str]:
        ids: list[str] = []
        while found := self._records.distinct(ROUTING_CHANGES, "id", {}, Page(ids[-1] if ids else None, _PAGE)):
            ids += map(str, found)
        return ids

    def _forget(self) -> None:
        """Where much has been read, keep in mind only what could be read again: what is still stored."""
        if len(self._read) > 2 * self._kept_in_mind + _PAGE:
            self._read.intersection_update(self._ids())
            self._kept_in_mind = len(self._read)
