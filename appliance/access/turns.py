"""Turns at what is expensive: so many at a time, who is known first, and nobody waits in an endless queue."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from appliance.model.refused import TooMany

AT_ONCE = 2
"""Hashes at a time. Each takes 64 MiB and a core or more: a third would only make the other two slower."""

WAITING = 3
"""Who may wait, of those who are known and of strangers each: with the two that are under way strangers hold five of
the eight threads that answer everybody (`control_api.operations`), and no more."""

RETRY_AFTER_S = 2
"""When it is worth another try: by then all who wait now have had their turn."""


class Turns:
    """Threads take turns. Under a flood of strangers, those who are known wait for one turn to end, and no more."""

    def __init__(self, at_once: int = AT_ONCE, waiting: int = WAITING) -> None:
        self._free = at_once
        self._waiting = waiting
        self._changed = threading.Condition()
        self._first: deque[object] = deque()
        self._others: deque[object] = deque()

    @contextmanager
    def turn(self, *, first: bool = False) -> Iterator[None]:
        """Wait for a turn, and have it. Raises TooMany where so many wait already."""
        queue = self._first if first else self._others
        ticket = object()
        with self._changed:
            if len(queue) >= self._waiting:
                raise TooMany(
                    "Too many people are signing in at this moment. Try again in some seconds.", RETRY_AFTER_S
                )
            queue.append(ticket)
            self._changed.wait_for(lambda: self._free > 0 and self._next() is ticket)
            queue.popleft()
            self._free -= 1
            # Two turns may have ended at once: the next one looks, too.
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()

    def _next(self) -> object:
        return (self._first or self._others)[0]
