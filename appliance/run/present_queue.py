"""How the queue stands, told without waiting for a store that does not answer.

Whoever asks has it counted, and waits for that a moment. Where the store is slow or away, he hears what it was when it
was counted last, and it is counted by one thread, however many ask.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import trio

from appliance.model.delivery import DeliveryState
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import Node, SpoolStore

PATIENCE_S = 0.5
"""How long it may take to count the queue for an answer: less than who asks has patience (`wire.STATUS_S`). A million
deliveries in a file take about as long."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """What was counted."""

    queued: int
    oldest_at: int | None
    """When the oldest was accepted."""
    states: Mapping[DeliveryState, int]
    nodes: Sequence[Node]


class PresentQueue:
    """The queue of one store, as far as it is known."""

    def __init__(self, store: SpoolStore) -> None:
        self._store = store
        self._known: QueueState | None = None
        self._counting = False
        self._asking = trio.Lock()

    async def state(self) -> QueueState | None:
        """How it stands: now, or when it was counted last; None where it never was."""
        with trio.move_on_after(PATIENCE_S):
            async with self._asking:
                if not self._counting:
                    await trio.to_thread.run_sync(self._count, abandon_on_cancel=True)
        return self._known

    def _count(self) -> None:
        self._counting = True
        try:
            with suppress(StoreUnavailable):
                queued, oldest_at = self._store.depth()
                self._known = QueueState(queued, oldest_at, self._store.states(), self._store.nodes())
        finally:
            self._counting = False
