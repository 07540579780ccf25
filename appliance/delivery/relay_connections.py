"""The connections to a smarthost, which the couriers of all destinations share.

Each destination has couriers of its own, and with a smarthost they all go to the same place. So its connections are
lent to them, for one batch of mail at a time, and at most as many as one destination may have. Who comes first is
served first: a destination with much mail keeps no other from the relay.
"""

from collections.abc import Callable
from dataclasses import dataclass

import trio

from appliance.delivery.connecting import Reached
from appliance.delivery.reaching import Unreachable
from appliance.model.delivery import Deferred, Failed

PAUSE_S = 30.0
"""How long a relay is left alone that could not be reached: what is due meanwhile shares the outcome. Else each
destination would find out by itself, one after the other, for half a minute each where nobody answers."""

IsSpeaking = Callable[[], bool]
"""Whether a courier has a connection to the relay at this moment."""


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
        self._places = trio.Semaphore(most, max_value=most)
        self._idle: list[Kept] = []
        self._couriers: list[IsSpeaking] = []
        self._trouble: Deferred | Failed | None = None
        self._until = 0.0

    def join(self, courier: IsSpeaking) -> None:
        """One more courier is there."""
        self._couriers.append(courier)

    async def leave(self, courier: IsSpeaking) -> None:
        """One fewer is there. More connections than couriers are not kept."""
        self._couriers.remove(courier)
        left = len(self._couriers)
        surplus, self._idle = self._idle[left:], self._idle[:left]
        async with trio.open_nursery() as nursery:
            for kept in surplus:
                nursery.start_soon(kept.reached.connection.quit)

    async def borrow(self) -> Kept | None:
        """Wait for a place. Returns a connection that is open, or None to make one.

        Raises Unreachable where somebody has just tried in vain. Otherwise `give_back` has to follow.
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
        self._places.release()

    def try_again(self) -> None:
        """Forget that the relay could not be reached: somebody says that it can be."""
        self._trouble = None

    def failed(self, outcome: Deferred | Failed) -> None:
        """The relay could not be reached, by one who has borrowed a place."""
        if self._idle or any(is_speaking() for is_speaking in self._couriers):
            # It has had enough of our connections, not of our mail.
            return
        self._trouble = outcome
        self._until = trio.current_time() + PAUSE_S
