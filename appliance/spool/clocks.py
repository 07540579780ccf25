"""Time, for mail that waits: a wall clock that jumps must neither bounce it nor let it wait for ever.

Four clocks, all in milliseconds:

    wall      what people see: when mail was accepted, when an event happened. It may be set, in either direction.
    steady    what mail waits for: begins with the wall clock and never goes back, nor jumps while we run. When we
              start again it catches up with the wall clock, so that the time we were away counts as waiting.
    latest    the latest instant that the wall clock has ever shown: what is to be forgotten goes by it, so that a clock
              that is set back prolongs nothing.
    running   the time for which an appliance has run, over all its runs; being away does not count. A delivery has had
              its time only when it is old by this one too.

What the last three have come to is written down now and then (`ClockMarks`): a crash takes a little of it back, and
that only prolongs.
"""

import time
from collections.abc import Callable

from appliance.model.time import Clock
from appliance.storage.spool import ClockMarks


def boot_clock() -> int:
    """Milliseconds since the machine was started, those included in which it slept; nobody can set it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class Clocks:
    """The clocks of one run."""

    def __init__(self, wall: Clock, marks: ClockMarks, elapsed: Callable[[], int] = boot_clock) -> None:
        """`marks` is what the run before has left; `elapsed` runs on whatever happens to the wall clock."""
        self.wall = wall
        self._elapsed = elapsed
        self._began = elapsed()
        self._steady_at_start = max(wall(), marks.steady)
        self._running_at_start = marks.running
        self._latest = marks.latest

    @classmethod
    def all_from(cls, clock: Clock) -> "Clocks":
        """All that go as one: for whoever has only one, such as a test."""
        return cls(clock, ClockMarks(running=clock()), clock)

    def steady(self) -> int:
        """What `Delivery.next_attempt_at` is told by."""
        return self._steady_at_start + self._elapsed() - self._began

    def running(self) -> int:
        """What `Delivery.running_since` is told by."""
        return self._running_at_start + self._elapsed() - self._began

    def latest(self) -> int:
        """What retention is told by."""
        self._latest = max(self._latest, self.wall())
        return self._latest

    def on_the_wall(self, steady: int) -> int:
        """When something that is due by the steady clock will happen, as people would say it."""
        return self.wall() + steady - self.steady()

    def adopt(self, marks: ClockMarks) -> None:
        """Follow the clocks of another node that are further: mail waits by the same time on all that share a spool.
        Nothing goes back."""
        self._steady_at_start += max(0, marks.steady - self.steady())
        self._running_at_start += max(0, marks.running - self.running())
        self._latest = max(self._latest, marks.latest)

    def marks(self) -> ClockMarks:
        """What the next run has to know."""
        return ClockMarks(self.steady(), self.running(), self.latest())
