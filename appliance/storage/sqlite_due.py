"""What in the spool is due: how much of each priority a claim takes, and when there is something to do next.

The rows of each priority stand in the index by the time at which they are due. So what is looked at is what is due, and
a step for each priority that there is, however much waits for a later time.
"""

from collections.abc import Callable, Iterator, Sequence

from appliance.model.delivery import DeliveryState
from appliance.storage import sqlite_spool_statements as texts
from appliance.storage.codec import StoredValue
from appliance.storage.shares import divide

_WAITING = DeliveryState.WAITING.value

_ABOVE_ALL = 1 << 62
"""Higher than any priority."""


class Due:
    """What is due in one spool. `left_out` are the keys of destinations that do not count."""

    def __init__(self, read: Callable[[str, Sequence[StoredValue]], Sequence[Sequence[StoredValue]]]) -> None:
        """`read` finds the rows of a SELECT with these values."""
        self._read = read

    def shares(self, now: int, limit: int, left_out: Sequence[StoredValue]) -> dict[int, int]:
        """How many deliveries to claim of each priority, `limit` in all. Raises StoreUnavailable."""
        priorities = list(self._priorities())
        if len(priorities) < 2:
            return dict.fromkeys(priorities, limit)
        statement = texts.due(len(left_out))
        return divide(
            {
                priority: self._numbers(statement, (_WAITING, priority, now, *left_out, limit))
                for priority in priorities
            },
            limit,
        )

    def next(self, after: int, left_out: Sequence[StoredValue]) -> int | None:
        """When the next delivery is due, later than `after`; None where none waits. Raises StoreUnavailable."""
        statement = texts.next_due(len(left_out))
        return min(
            (
                due
                for priority in self._priorities()
                for due in self._numbers(statement, (_WAITING, priority, after, *left_out))
            ),
            default=None,
        )

    def _priorities(self) -> Iterator[int]:
        """Those of what waits, from the highest down."""
        priority = _ABOVE_ALL
        while found := self._numbers(texts.NEXT_PRIORITY, (_WAITING, priority)):
            (priority,) = found
            yield priority

    def _numbers(self, statement: str, values: Sequence[StoredValue]) -> list[int]:
        return [number for (number,) in self._read(statement, values) if isinstance(number, int)]
