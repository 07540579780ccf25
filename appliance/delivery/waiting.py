"""What waits for a courier, for one destination: in which order it goes, and what shares a transaction."""

from collections import deque
from collections.abc import Callable, Iterator

from appliance.model.delivery import OLDEST_EVERY, Delivery

MAX_BATCH = 100
"""Recipients in one transaction (RFC 5321 §4.5.3.1.8: every server takes at least as many)."""


class Waiting:
    """Deliveries to one destination, of higher priority first; every OLDEST_EVERY-th batch is what has been due the
    longest, whatever its priority, so that nothing starves. False when it is empty."""

    __slots__ = ("_by_priority", "_turns")

    def __init__(self) -> None:
        self._by_priority: dict[int, deque[Delivery]] = {}
        """Those of one priority in the order in which they came; no queue in it is empty."""
        self._turns = 0

    def __bool__(self) -> bool:
        return bool(self._by_priority)

    def __iter__(self) -> Iterator[Delivery]:
        for queue in self._by_priority.values():
            yield from queue

    def add(self, delivery: Delivery) -> None:
        """Put a delivery behind those of its priority."""
        self._queue(delivery.priority).append(delivery)

    def give_back(self, batch: list[Delivery]) -> None:
        """Put a batch back to where it was taken from."""
        self._queue(batch[0].priority).extendleft(reversed(batch))

    def next_batch(self) -> list[Delivery]:
        """Take the next delivery, and those right behind it that can share its transaction; empty where there is none.

        They share message and return path. One that needs SMTPUTF8 must not take those with it that do not, and one
        that requires TLS says so for its whole transaction (RFC 8689 §4.2).
        """
        if not self._by_priority:
            return []
        priority = self._next_priority()
        queue = self._by_priority[priority]
        first = queue.popleft()
        batch = [first]
        while (
            queue
            and len(batch) < MAX_BATCH
            and queue[0].message_id == first.message_id
            and queue[0].return_path == first.return_path
            and queue[0].utf8 == first.utf8
            and queue[0].require_tls == first.require_tls
        ):
            batch.append(queue.popleft())
        if not queue:
            del self._by_priority[priority]
        return batch

    def take_all(self) -> list[Delivery]:
        """Take everything, what would go first before the rest."""
        taken = [delivery for priority in sorted(self._by_priority, reverse=True) for delivery in self._queue(priority)]
        self._by_priority.clear()
        return taken

    def take(self, wanted: Callable[[Delivery], bool]) -> list[Delivery]:
        """Take what is wanted, and leave the others in their order."""
        taken: list[Delivery] = []
        for priority, queue in list(self._by_priority.items()):
            left: deque[Delivery] = deque()
            for delivery in queue:
                (taken if wanted(delivery) else left).append(delivery)
            if left:
                self._by_priority[priority] = left
            else:
                del self._by_priority[priority]
        return taken

    def _queue(self, priority: int) -> deque[Delivery]:
        queue = self._by_priority.get(priority)
        if queue is None:
            queue = self._by_priority[priority] = deque()
        return queue

    def _next_priority(self) -> int:
        if len(self._by_priority) > 1:
            self._turns += 1
            if self._turns % OLDEST_EVERY == 0:
                return min(self._by_priority, key=lambda priority: _due(self._by_priority[priority][0]))
        return max(self._by_priority)


def _due(delivery: Delivery) -> tuple[int, str]:
    return delivery.next_attempt_at, delivery.id
