"""How many deliveries are in memory: bounded, in all and for each destination. What is beyond stays in the spool."""

from collections import Counter
from collections.abc import Iterable, Sequence

MAX_CLAIMED = 20_000
"""Deliveries in memory at once. One is about a kilobyte; the rest of the queue waits on the disk."""

MAX_CLAIMED_PER_DESTINATION = 500
"""Of these, how many for one destination: what a slow one can't take must not fill the memory that others need.
(A claim may go over it by as much as it takes in one go.)"""


class Memory:
    """A place for each delivery, by the domain it goes to (lower case)."""

    def __init__(self) -> None:
        self._taken = 0
        self._taken_for: Counter[str] = Counter()

    @property
    def room(self) -> int:
        """How many more there may be."""
        return MAX_CLAIMED - self._taken

    @property
    def full(self) -> set[str]:
        """Destinations that have as many as they may."""
        return {domain for domain, count in self._taken_for.items() if count >= MAX_CLAIMED_PER_DESTINATION}

    def reserve(self, domains: Sequence[str]) -> bool:
        """Take a place for each of these. False, and nothing is taken, where one of them has no room."""
        wanted = Counter(domains)
        if len(domains) > self.room or any(
            self._taken_for[domain] + count > MAX_CLAIMED_PER_DESTINATION for domain, count in wanted.items()
        ):
            return False
        self.take(domains)
        return True

    def take(self, domains: Iterable[str]) -> None:
        """Take places, whether there is room or not: these are here already."""
        taken = Counter(domains)
        self._taken += taken.total()
        self._taken_for.update(taken)

    def release(self, domains: Iterable[str]) -> bool:
        """Give places back. Returns whether a destination that was full is so no more."""
        given_back = Counter(domains)
        self._taken -= given_back.total()
        some_have_room = False
        for domain, count in given_back.items():
            before = self._taken_for[domain]
            if before > count:
                self._taken_for[domain] = before - count
            else:
                del self._taken_for[domain]
            some_have_room = some_have_room or before >= MAX_CLAIMED_PER_DESTINATION > before - count
        return some_have_room
