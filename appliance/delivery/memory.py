"""How many deliveries are in memory: bounded, in all and for each destination. What is beyond stays in the spool."""

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
        self._taken_for: dict[str, int] = {}

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
        if len(domains) > self.room:
            return False
        for reserved, domain in enumerate(domains):
            if self._taken_for.get(domain, 0) >= MAX_CLAIMED_PER_DESTINATION:
                self.release(domains[:reserved])
                return False
            self._take(domain)
        return True

    def take(self, domains: Iterable[str]) -> None:
        """Take places, whether there is room or not: these are here already."""
        for domain in domains:
            self._take(domain)

    def release(self, domains: Iterable[str]) -> bool:
        """Give places back. Returns whether a destination that was full is so no more."""
        some_have_room = False
        for domain in domains:
            before = self._taken_for.pop(domain, 0)
            if before > 1:
                self._taken_for[domain] = before - 1
            self._taken -= 1
            some_have_room = some_have_room or before == MAX_CLAIMED_PER_DESTINATION
        return some_have_room

    def _take(self, domain: str) -> None:
        self._taken_for[domain] = self._taken_for.get(domain, 0) + 1
        self._taken += 1
