"""When to try again, and when to give up."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """The configured steps (RFC 5321 §4.5.4.1): the last one is repeated until it is time to give up."""

    steps_ms: Sequence[int]
    give_up_after_ms: int

    def next_attempt(self, attempts: int, now: int) -> int:
        """When to try again after that many attempts, the last of which ended now."""
        return now + self.steps_ms[min(attempts, len(self.steps_ms)) - 1]

    def has_expired(self, accepted_at: int, now: int) -> bool:
        """Whether a delivery that was just deferred once more has had its time.

        Asked only behind an attempt, so that after a long stop there is always one more before a bounce.
        """
        return now - accepted_at >= self.give_up_after_ms
