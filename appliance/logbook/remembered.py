"""What the feed remembers of the last events: which were told, which one has had already, and what is at hand."""

from collections import deque

from appliance.logbook.messages import message_key
from appliance.logbook.places import Entry
from appliance.model.event import DeliveryEvent
from appliance.model.ids import id_before
from appliance.model.time import SECOND_MS

REMEMBERED = 100_000
"""Ids that were told last: some megabytes, and mostly more than there are in that minute."""

OVERLAP_MS = 60 * SECOND_MS
"""How far back something may still be told: what was durable and not told, or in the log before it was its turn."""

HAD = 2000
"""Ids that one who resumed has had from the log last, by which those are known that are told once more."""

RECENT = 5000
"""Events that were told last and are at hand: the log has them only moments later."""


class Told:
    """The events that were told last."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._in_order: deque[tuple[str, str]] = deque()
        self.forgotten = ""
        """The greatest place of those that were told and are not remembered any more."""

    def add(self, id: str, place: str) -> bool:
        """Remember the id of an event. Returns whether it is a new one."""
        if id in self._ids:
            return False
        self._ids.add(id)
        self._in_order.append((id, place))
        if len(self._in_order) > REMEMBERED:
            oldest, left = self._in_order.popleft()
            self._ids.discard(oldest)
            self.forgotten = max(self.forgotten, left)
        return True


class Recent:
    """The events that were told last, by the names of their messages."""

    def __init__(self) -> None:
        self._by_key: dict[str, tuple[DeliveryEvent, ...]] = {}
        self._in_order: deque[DeliveryEvent] = deque()

    def add(self, event: DeliveryEvent) -> None:
        """Keep this, and let go of the oldest."""
        key = message_key(event)
        self._by_key[key] = (*self._by_key.get(key, ()), event)
        self._in_order.append(event)
        if len(self._in_order) > RECENT:
            oldest = message_key(self._in_order.popleft())
            left = self._by_key.pop(oldest)[1:]
            if left:
                self._by_key[oldest] = left

    def of(self, key: str) -> tuple[DeliveryEvent, ...]:
        """The events of this message."""
        return self._by_key.get(key, ())


class Had:
    """What one who resumed has had already: what is not behind where it resumed, and what came from the log since."""

    def __init__(self, place: str) -> None:
        self.last = place
        """The place of what came last."""
        self._last: deque[Entry] = deque()
        self._ids: set[str] = set()
        self._earlier = place
        """Up to this place everything was there to be had."""

    def add(self, entry: Entry) -> None:
        """They come in order."""
        self.last = entry.place
        self._last.append(entry)
        self._ids.add(entry.event.id)
        if len(self._last) > HAD:
            oldest = self._last.popleft()
            self._earlier = oldest.place
            self._ids.discard(oldest.event.id)

    def __contains__(self, entry: Entry) -> bool:
        if entry.event.id in self._ids:
            return True
        # What is told now, and has a much older place, was made after the clock was set back: it is new.
        return id_before(self._earlier, OVERLAP_MS) < entry.place <= self._earlier
