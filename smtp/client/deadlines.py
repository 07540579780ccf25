"""When conversations have waited long enough: one task looks at the clock for all of them.

A conversation writes down until when it waits, and takes it back when it waits no more; the task sleeps until the first
of these instants. So a wait that ends in time, as nearly all do, costs an entry in a table. A cancel scope for each
message, whose deadline moves with every reply, costs a client more than all that it has to say.

It is as exact as a cancel scope: whose time is up before the task would look again wakes it.
"""

import math
from typing import Protocol

import trio

INSISTS_S = 1.0
"""How soon somebody is told again. Who was on the way from one wait to the next did not hear it the first time."""


class Waiter(Protocol):
    """Who waits, for no longer than it has said."""

    def give_up(self) -> None:
        """Its time is up: whatever it waits for now, it waits no more."""


class Deadlines:
    """Who waits, and until when, in one run of Trio."""

    def __init__(self) -> None:
        self.now = trio.lowlevel.current_clock().current_time
        """Trio's clock, in seconds. (`trio.current_time` looks for it anew each time.)"""
        self._due: dict[Waiter, float] = {}
        self._looks_at = math.inf
        self._sooner = trio.lowlevel.ParkingLot()

    def wait_until(self, waiter: Waiter, due: float) -> None:
        """It is told at `due` to give up, and no more at the instant that it has named before."""
        self._due[waiter] = due
        if due < self._looks_at:
            self._looks_at = due
            self._sooner.unpark()

    def forget(self, waiter: Waiter) -> None:
        """It waits no more."""
        self._due.pop(waiter, None)

    async def watch(self) -> None:
        """Tell those whose time is up, until cancelled."""
        while True:
            now = self.now()
            for waiter in [waiter for waiter, due in self._due.items() if due <= now]:
                self._due[waiter] = now + INSISTS_S
                waiter.give_up()
            self._looks_at = min(self._due.values(), default=math.inf)
            with trio.CancelScope(deadline=self._looks_at):
                await self._sooner.park()


_OF_THIS_RUN: trio.lowlevel.RunVar[Deadlines] = trio.lowlevel.RunVar("smtp.client.deadlines")


def deadlines_of_this_run() -> Deadlines:
    """Those of the present run of Trio. Whoever asks first starts the task, which ends with the run."""
    try:
        return _OF_THIS_RUN.get()
    except LookupError:
        deadlines = Deadlines()
        _OF_THIS_RUN.set(deadlines)
        trio.lowlevel.spawn_system_task(deadlines.watch)
        return deadlines
