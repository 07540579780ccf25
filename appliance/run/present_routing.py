"""The routing table that RCPT is answered from, kept in line with the records, and honest about its age.

A store that is away for a moment is nobody's concern: what is in memory answers. But a node may be cut off while others
go on, and then what it knows gets old. After some seconds it does not refuse for good any more, for what it does not
know may have been added elsewhere. After some minutes it takes nothing more, for what it knows may have been removed.
"""

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from appliance.routing.following import Follower
from appliance.routing.snapshot import Freshness, Settings, Snapshot
from appliance.storage.records import RecordStore, StoreUnavailable

AGED_AFTER_S = 5.0
"""How long after the records were last read RCPT gets 451 where it would be refused. An election among the servers of a
database may take longer; a change is to reach every node within two seconds, and a long load within some more."""

STALE_AFTER_S = 300.0
"""How long what was accepted goes on to be: longer than a server takes to be started again or replaced by another, and
shorter than anybody who has removed an address would put up with its mail being forwarded. Beyond it RCPT gets 451."""

_CHECK_S = 0.5
"""How often the age is looked at."""

_logger = logging.getLogger(__name__)


class PresentRouting:
    """Has the present snapshot (`appliance.reception.session.Routing`)."""

    def __init__(self, records: RecordStore, settings: Settings) -> None:
        """Loads everything. Raises StoreUnavailable."""
        with _collector_at_rest():
            self._follower = Follower(records, settings)
            gc.freeze()
        self.snapshot: Snapshot = self._follower.snapshot
        self._read_at: float | None = None
        self._away = False

    @property
    def whole_loads(self) -> int:
        """How often everything has been loaded, and not only what had changed."""
        return self._follower.whole_loads

    async def look(self) -> None:
        """Load what has changed. A store that is away leaves in place what is there. By one task at a time."""
        try:
            self.snapshot = await trio.to_thread.run_sync(self._loaded)
        except StoreUnavailable as error:
            if not self._away:
                _logger.warning("records can't be read, routing stays as it is: %s", error)
            self._away = True
            return
        self._read_at = trio.current_time()
        if self._away:
            _logger.info("records can be read again")
            self._away = False

    def _loaded(self) -> Snapshot:
        before = self._follower.whole_loads
        with _collector_at_rest():
            snapshot = self._follower.look()
            if self._follower.whole_loads != before:
                gc.freeze()
        return snapshot

    async def keep_age(self) -> None:
        """Say of the snapshot how old it is, until cancelled: also while a store that hangs lets no look end."""
        self._read_at = self._read_at or trio.current_time()
        while True:
            await trio.sleep(_CHECK_S)
            freshness = _freshness(trio.current_time() - self._read_at)
            if freshness is not self.snapshot.freshness:
                _logger.log(
                    logging.INFO if freshness is Freshness.FRESH else logging.WARNING,
                    "what routing knows is %s",
                    freshness.value,
                )
                self.snapshot = self.snapshot.aged(freshness)


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """A large table is hundreds of thousands of values without a cycle. While it grows, Python's collector of garbage
    would go through all of it again and again, and hold everybody up for a tenth of a second each time. What is frozen
    (`gc.freeze`) before this ends, it does not go through afterwards either."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _freshness(age_s: float) -> Freshness:
    if age_s > STALE_AFTER_S:
        return Freshness.STALE
    return Freshness.AGED if age_s > AGED_AFTER_S else Freshness.FRESH
