"""What the engine has counted since its start, and how the queue stands, as it tells on its socket (`metrics`).

Numbers only, and none of them about anybody. `control_api.metrics` has the names that the world sees.
"""

import contextlib
from dataclasses import dataclass
from typing import Any

import trio

from appliance.logbook.counts import Counts
from appliance.model.time import HOUR_MS, MINUTE_MS, Clock
from appliance.spool.committer import GroupCommitter
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import SpoolStore
from smtp.histogram import Histogram
from smtp.server.trio_server import Statistics

AGES_MS = (MINUTE_MS, 10 * MINUTE_MS, HOUR_MS, 4 * HOUR_MS, 24 * HOUR_MS, 72 * HOUR_MS)
"""From what any mail may take, over what a sender is told of, to what is soon given up."""

QUEUE_S = 1.0
"""How long it may take to count the queue: a million deliveries take half of it. Less than who asks has patience."""


@dataclass(frozen=True, slots=True)
class Measurements:
    """Where the numbers of one engine are."""

    statistics: Statistics
    counts: Counts
    committer: GroupCommitter
    store: SpoolStore
    clock: Clock
    started_at: int

    async def taken(self, *, healthy: bool) -> dict[str, Any]:
        """Every number as it is now. Without the queue's where the spool can't be read, or not soon."""
        statistics, counts = self.statistics, self.counts
        measured: dict[str, Any] = {
            "healthy": healthy,
            "startedAt": self.started_at,
            "sessions": {
                "open": statistics.connections_open,
                "accepted": statistics.connections_accepted,
                "turnedAway": statistics.connections_turned_away,
                "givenUp": statistics.connections_given_up,
            },
            "handshakes": statistics.handshakes,
            "handshakesFailed": statistics.handshakes_failed,
            "replies": {str(code): count for code, count in enumerate(statistics.replies_by_code) if count},
            "accepted": statistics.messages,
            "untilAccepted": _plain(statistics.until_accepted_s),
            "refused": counts.refused,
            "attempts": {
                "delivered": counts.attempts_delivered,
                "deferred": counts.attempts_deferred,
                "failed": counts.attempts_failed,
            },
            "delivered": counts.delivered,
            "deferred": counts.deferred,
            "bounced": counts.bounced,
            "untilDelivered": _plain(counts.until_delivered_s),
            "groupUnits": _plain(self.committer.group_units),
        }
        with contextlib.suppress(StoreUnavailable), trio.move_on_after(QUEUE_S):
            measured["queue"] = await trio.to_thread.run_sync(self._queue, abandon_on_cancel=True)
        return measured

    def _queue(self) -> dict[str, Any]:
        now = self.clock()
        _, oldest = self.store.depth()
        ages = self.store.ages([now - age for age in AGES_MS])
        return {
            "states": {state.name: count for state, count in self.store.states().items()},
            "older": [[age // 1000, count] for age, count in zip(AGES_MS, ages, strict=True)],
            "oldest": 0 if oldest is None else max(0, now - oldest) / 1000,
        }


def _plain(histogram: Histogram) -> dict[str, Any]:
    return {"bounds": histogram.bounds, "counts": histogram.counts, "sum": histogram.sum}
