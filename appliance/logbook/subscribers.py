"""Those who follow the log, and what waits for each of them.

The same event is one object in memory for all of them, so a thousand who follow cost little more than one; and one who
does not read costs nothing beyond a limit: what waits for it is thrown away, and it is told so.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import trio

from appliance.logbook.places import Entry
from appliance.model.event import DeliveryEvent

MAX_BEHIND = 1000
"""Events that wait for one who is slow, before it is let go: more than half a minute of a busy domain."""


class TooSlow(Exception):
    """Who follows has not read for so long that what waited for it was thrown away."""


@dataclass(frozen=True, slots=True)
class Interest:
    """Who follows, and what for."""

    owner: str
    """Whose it is, so that nobody takes all places: an account's id; empty for the operator of the machine."""
    wants: Callable[[DeliveryEvent], bool]
    """Whether an event is meant. Called for each, so it asks no store."""
    still: Callable[[], None] = lambda: None
    """Asked again and again, in a worker thread: what it raises ends the following. It may change what is wanted."""
    domain_ids: tuple[str, ...] | None = None
    """In which domains' log to look for what was before; None: in every one."""


class Subscriber:
    """One who follows: what was told to it and is not read yet."""

    def __init__(self, interest: Interest, begins: str) -> None:
        """`begins`: of what was missed while the engine was away, only what is behind this place is told."""
        self.interest = interest
        self.begins = begins
        self.ended: Exception | None = None
        """Why nothing is told any more."""
        self._waiting: deque[Entry] = deque()
        self._news = trio.Event()

    def tell(self, entry: Entry, *, missed: bool) -> None:
        """Have this read next, where it is wanted. Never waits."""
        if self.ended is not None or not self.interest.wants(entry.event) or (missed and entry.place <= self.begins):
            return
        if len(self._waiting) >= MAX_BEHIND:
            self.end(TooSlow("you have fallen too far behind: resume behind the last event that you have"))
        else:
            self._waiting.append(entry)
            self._news.set()

    def end(self, why: Exception) -> None:
        """Tell nothing more, not even what waits."""
        self.ended = why
        self._waiting.clear()
        self._news.set()

    async def next(self) -> Entry:
        """The next one. Raises TooSlow, or why it has ended."""
        while True:
            if self.ended is not None:
                raise self.ended
            if self._waiting:
                return self._waiting.popleft()
            self._news = trio.Event()
            await self._news.wait()
