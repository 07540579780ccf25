"""Who is let in, and who has to make room.

There is room for so many connections in all, and for so many of one client. When all places are taken, a newcomer is
not simply turned away: whoever takes a thousand places and sends an octet a minute on each would then have closed the
house for everybody. Instead the client with the most connections gives one up, the one that has progressed least; and
where each has but one, it is the least of all. A newcomer whose own client has the most gets nothing.

Progress is octets received a second. A connection gets a while to show it before it is judged.

Pure: the time comes in as an argument, in seconds of any clock that does not run backwards.
"""

from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

# So long a connection is left in peace. A client on the other side of the world needs a second or two for its message.
SETTLING_S = 5.0
# How long the order of those who may have to go is used before it is made anew: with a thousand connections that takes
# a millisecond, and a flood of newcomers must not have it for each of them.
RANKING_S = 0.5


class Guest(Hashable, Protocol):
    """What is asked of a connection."""

    client: str
    """Whom it is counted as."""
    since: float
    """When it came."""

    @property
    def octets_received(self) -> int:
        """All that has come from it."""

    @property
    def may_leave(self) -> bool:
        """False while something is being done for it that must not be cut short."""


GuestT = TypeVar("GuestT", bound=Guest)


class Admission(Generic[GuestT]):
    """The connections there are, by client."""

    def __init__(self, max_guests: int, max_per_client: int) -> None:
        self._max_guests = max_guests
        self._max_per_client = max_per_client
        self._by_client: dict[str, set[GuestT]] = {}
        self._count = 0
        self._ranking: list[GuestT] = []
        self._ranked_at = float("-inf")

    def __len__(self) -> int:
        return self._count

    def has_room_for(self, client: str) -> bool:
        """Whether this client may have one more, if there is a place."""
        return len(self._by_client.get(client, ())) < self._max_per_client

    @property
    def is_full(self) -> bool:
        """Whether somebody has to go before another can come."""
        return self._count >= self._max_guests

    def enter(self, guest: GuestT) -> None:
        """One more."""
        self._by_client.setdefault(guest.client, set()).add(guest)
        self._count += 1

    def leave(self, guest: GuestT) -> None:
        """One less. May be said again."""
        guests = self._by_client.get(guest.client)
        if guests is not None and guest in guests:
            guests.remove(guest)
            self._count -= 1
            if not guests:
                del self._by_client[guest.client]

    def who_makes_room(self, client: str, now: float) -> GuestT | None:
        """Who has to go so that this client can come; None where nobody should. It has not left by that."""
        held = len(self._by_client.get(client, ()))
        if not self._ranking and now - self._ranked_at >= RANKING_S:
            self._rank(now)
        while self._ranking:
            guest = self._ranking[-1]
            guests = self._by_client.get(guest.client, ())
            if len(guests) <= held:
                # Its client has given up others since, or the newcomer's own has as many.
                return None
            self._ranking.pop()
            if guest in guests and guest.may_leave:
                return guest
        return None

    def _rank(self, now: float) -> None:
        """Put those of the busiest clients in order, who has to go first at the end."""
        busiest = max(map(len, self._by_client.values()), default=0)
        settled = [
            guest
            for guests in self._by_client.values()
            if len(guests) == busiest
            for guest in guests
            if guest.may_leave and now - guest.since >= SETTLING_S
        ]
        settled.sort(key=lambda guest: guest.octets_received / (now - guest.since), reverse=True)
        self._ranking = settled
        self._ranked_at = now
