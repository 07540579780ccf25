"""When to try again, and when to give up."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

JITTER = 0.1
"""A wait is longer than configured by up to this share: what was deferred together does not come back together."""


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """The configured steps (RFC 5321 §4.5.4.1): the last one is repeated until it is time to give up."""

    steps_ms: Sequence[int]
    give_up_after_ms: int
    draw: Callable[[], float] = random.random
    """A number from 0 up to 1, for the jitter."""

    def step(self, attempts: int) -> int:
        """How long to wait after that many attempts, at least one, as it is configured."""
        return self.steps_ms[min(attempts, len(self.steps_ms)) - 1]

    def next_attempt(self, attempts: int, now: int) -> int:
        """When to try again after that many attempts, the last of which ended now."""
        step = self.step(attempts)
        return now + step + int(step * JITTER * self.draw())

    def has_expired(self, age_ms: int, running_ms: int) -> bool:
        """Whether a delivery that was just deferred once more has had its time.

        It has to be old by the wall clock, which may have been set, and by what we were running since: no clock that
        jumps and no long stop makes mail bounce. Asked only behind an attempt, so that after a stop there is always one
        more before a bounce.
        """
        return min(age_ms, running_ms) >= self.give_up_after_ms
