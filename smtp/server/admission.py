"""Who is let in, and who has to make room.

There is room for so many connections in all, and for so many of one client. When all places are taken, a newcomer is
not simply turned away: whoever takes a thousand places and sends an octet a minute on each would then have closed the
house for everybody. Instead the client with the most connections gives one up, the one that has progressed least; and
where each has but one, it is the least of all. A newcomer whose own client has the most gets nothing.

Progress is octets received a second. A connection gets a while to show it before it is judged: among several of one
client those that have had it go first, and the only one of a client has it for certain.

Pure: the time comes in as an argument, in seconds of any clock that does not run backwards.
"""

from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

# So long a connection may take to show what it is about. A client on the other side of the world has said EHLO by then.
# Were it longer, a flood of newcomers who show nothing would keep all places fresh, and nobody had to go.
SETTLING_S = 2.0
# How long the order of those who may have to go is used before it is made anew: with a thousand connections that takes
# a millisecond, and a flood of newcomers must not have it for each of them.
RANKING_S = 0.1


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
        # The clients by how many connections they have: who has the most is found without asking everybody.
        self._clients_with: dict[int, dict[str, None]] = {}
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
        guests = self._by_client.setdefault(guest.client, set())
        if guest not in guests:
            guests.add(guest)
            self._count += 1
            self._recount(guest.client, len(guests) - 1, len(guests))

    def leave(self, guest: GuestT) -> None:
        """One less. May be said again."""
        guests = self._by_client.get(guest.client)
        if guests is not None and guest in guests:
            guests.remove(guest)
            self._count -= 1
            self._recount(guest.client, len(guests) + 1, len(guests))
            if not guests:
                del self._by_client[guest.client]

    def who_makes_room(self, client: str, now: float) -> GuestT | None:
        """Who has to go so that this client can come; None where nobody should. It has not left by that."""
        held = len(self._by_client.get(client, ()))
        most = max(self._clients_with, default=0)
        if most <= held:
            # The newcomer's own client has as many as anybody.
            return None
        if most > 1:
            # Who has several has no right to all of them, however fresh they are: only among them is it asked who has
            # shown what.
            for busiest in self._clients_with[most]:
                leaving = [guest for guest in self._by_client[busiest] if guest.may_leave]
                if leaving:
                    return min(leaving, key=lambda guest: (now - guest.since < SETTLING_S, _progress(guest, now)))
            return None
        if now - self._ranked_at >= RANKING_S:
            self._rank(now)
        while self._ranking:
            guest = self._ranking.pop()
            if guest in self._by_client.get(guest.client, ()) and guest.may_leave:
                return guest
        return None

    def _recount(self, client: str, before: int, after: int) -> None:
        if before:
            del self._clients_with[before][client]
            if not self._clients_with[before]:
                del self._clients_with[before]
        if after:
            self._clients_with.setdefault(after, {})[client] = None

    def _rank(self, now: float) -> None:
        """Put everybody in order, who has to go first at the end."""
        settled = [
            guest
            for guests in self._by_client.values()
            for guest in guests
            if guest.may_leave and now - guest.since >= SETTLING_S
        ]
        settled.sort(key=lambda guest: _progress(guest, now), reverse=True)
        self._ranking = settled
        self._ranked_at = now


def _progress(guest: Guest, now: float) -> float:
    # A clock tick at least: nobody is infinitely quick.
    return guest.octets_received / max(now - guest.since, 0.001)
