"""The connections to a smarthost, which the couriers of all destinations share.

Each destination has couriers of its own, and with a smarthost they all go to the same place. So its connections are
lent to them, for one batch of mail at a time, and at most as many as one destination may have. Who comes first is
served first: a destination with much mail keeps no other from the relay.

A relay that refuses one connection beside others has shown how many it bears. That is no trouble of any destination:
who was refused waits for one of those that there are.
"""

from dataclasses import dataclass

import trio

from appliance.delivery.connecting import Reached
from appliance.delivery.destination import WIDER_AFTER_MS
from appliance.delivery.reaching import Unreachable
from appliance.model.delivery import Deferred, Failed

PAUSE_S = 30.0
"""How long a relay is left alone that could not be reached: what is due meanwhile shares the outcome. Else each
destination would find out by itself, one after the other, for half a minute each where nobody answers."""


@dataclass(slots=True)
class Kept:
    """A connection, and what it has done."""

    reached: Reached
    carried: int = 0
    """Transactions."""


class RelayConnections:
    """The connections of this process to its smarthost."""

    def __init__(self, most: int) -> None:
        """`most` at once."""
        self._most = most
        self._places = trio.CapacityLimiter(most)
        self._idle: list[Kept] = []
        self._couriers = 0
        self._trouble: Deferred | Failed | None = None
        self._until = 0.0
        self._narrowed_at = 0.0
        """When the relay last showed how many it bears."""

    def join(self) -> None:
        """One more courier is there."""
        self._couriers += 1

    async def leave(self) -> None:
        """One fewer is there. More connections than couriers are not kept."""
        self._couriers -= 1
        surplus, self._idle = self._idle[self._couriers :], self._idle[: self._couriers]
        async with trio.open_nursery() as nursery:
            for kept in surplus:
                nursery.start_soon(kept.reached.connection.quit)

    async def borrow(self) -> Kept | None:
        """Wait for a place. Returns a connection that is open, or None to make one.

        Raises Unreachable where somebody has just tried in vain. Otherwise `give_back` has to follow, in the same task.
        """
        await self._places.acquire()
        if self._idle:
            # The last one back is the likeliest to be open still.
            return self._idle.pop()
        if self._trouble is not None and trio.current_time() < self._until:
            self._places.release()
            raise Unreachable(self._trouble)
        return None

    def give_back(self, kept: Kept | None) -> None:
        """The place is free again, and with it a connection that is worth keeping."""
        if kept is not None:
            if kept.reached.connection.usable:
                self._idle.append(kept)
                self._trouble = None
            else:
                kept.reached.connection.aclose()
        now = trio.current_time()
        if self._places.total_tokens < self._most and now - self._narrowed_at >= WIDER_AFTER_MS / 1000:
            self._places.total_tokens += 1
            self._narrowed_at = now
        self._places.release()

    def failed(self, outcome: Deferred | Failed) -> bool:
        """The relay could not be reached, by one who has borrowed a place. Returns whether he had better give it back
        and borrow again, because others are there or on the way."""
        others = int(self._places.borrowed_tokens) - 1
        if others > 0 or self._idle:
            self._places.total_tokens = max(1, others)
            self._narrowed_at = trio.current_time()
            return True
        # One after the other has found that nobody answers: that says nothing about how many the relay bears.
        self._places.total_tokens = self._most
        self._trouble = outcome
        self._until = trio.current_time() + PAUSE_S
        return False

    def try_again(self) -> None:
        """Forget that the relay could not be reached: somebody says that it can be."""
        self._trouble = None
