"""The broom: erases, in both durable stores, what has outlived the retention that its declaration names.

It goes through the declarations and nothing else, so that a class of data with a retention can't be forgotten, on any
backend. (The ephemeral store forgets by itself.) It keeps no clock of its own and no task: whoever calls `sweep` says
what time it is.
"""

from collections.abc import Callable
from itertools import chain

from appliance.model.time import MINUTE_MS, SECOND_MS, parse_duration
from appliance.privacy.declarations import Collection, Retention, Store, collections_of
from appliance.privacy.owners import owned
from appliance.storage.records import RecordStore
from appliance.storage.spool import SpoolStore

MIN_INTERVAL_MS = SECOND_MS
"""Sweeping costs a transaction for each retention; more often than this nobody could tell the difference."""

MAX_INTERVAL_MS = MINUTE_MS
"""How late erasure may be at most: `7d` means seven days, not seven days and a night."""


class Sweeper:
    """Erases by every retention of every declared collection. Synchronous; call it from one thread at a time."""

    def __init__(
        self,
        records: RecordStore,
        spool: SpoolStore,
        retention_ms: Callable[[str], int],
        seeks_ownerless: Callable[[], bool] = lambda: True,
    ) -> None:
        """`retention_ms` looks a setting such as `log.error_retention` up, each time anew, for it may be changed.

        `seeks_ownerless` is asked in each sweep whether to look for rows whose owner is gone: every row that belongs to
        somebody is looked at for that, and where several nodes share the records one of them is enough.

        Raises whatever `retention_ms` raises for a setting that does not exist: at the start, not on the first night.
        """
        self._records = records
        self._spool = spool
        self._retention_ms = retention_ms
        self._seeks_ownerless = seeks_ownerless
        self._latest = 0
        self.interval_ms()

    def sweep(self, now: int) -> dict[str, int]:
        """Erase what is too old at this instant. Returns the number of rows erased, by collection.

        Raises StoreUnavailable; what was erased by then is erased, and the next sweep does the rest.
        """
        # The promise on time, P7: by the latest instant seen. A clock that was set back prolongs nothing.
        self._latest = max(self._latest, now)
        erased: dict[str, int] = {}
        for collection, retention in _retentions():
            before = self._latest - self._span_ms(retention)
            if collection.store is Store.SPOOL:
                count = self._spool.sweep(retention, before)
            else:
                count = self._records.sweep(collection, retention, before)
            erased[collection.name] = erased.get(collection.name, 0) + count
        # What is written for an account or a domain in the moment of its deletion, and what such a row owns in turn.
        for collection in owned() if self._seeks_ownerless() else ():
            count = self._records.erase_ownerless(collection)
            if count:
                erased[collection.name] = erased.get(collection.name, 0) + count
        return erased

    def interval_ms(self) -> int:
        """How long to wait between two sweeps, in milliseconds: half the shortest retention, within bounds."""
        shortest = min(self._span_ms(retention) for _collection, retention in _retentions())
        return max(MIN_INTERVAL_MS, min(MAX_INTERVAL_MS, shortest // 2))

    def _span_ms(self, retention: Retention) -> int:
        # A configuration key has a section and a dot; a span has none.
        if "." in retention.setting:
            return self._retention_ms(retention.setting)
        return parse_duration(retention.setting)


def _retentions() -> list[tuple[Collection, Retention]]:
    declared = chain.from_iterable(collections_of(store) for store in (Store.RECORDS, Store.SPOOL))
    return [(collection, retention) for collection in declared for retention in collection.retention]
