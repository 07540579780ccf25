"""What is remembered of one destination: what waits for it, how many connections it bears, whether it is left alone.

A pure value: time comes in as an argument, in milliseconds of the steady clock, and nothing here waits.

How many connections: a few at first. While all goes well each message that is answered opens one more, up to what is
configured. A destination that refuses one beside others that work has shown how many it bears, and is asked for one
more only after a while. One that can't be reached at all is left alone, the longer the more often that happens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from appliance.delivery.schedule import RetrySchedule
from appliance.delivery.waiting import Waiting
from appliance.model.delivery import Answer, Deferred, Outcome

INITIAL_COURIERS = 5
"""Connections to a destination of which nothing is known, as in Postfix (initial_destination_concurrency)."""

WIDER_AFTER_MS = 60_000
"""How long a number of connections that a destination has shown to be its most is kept, before one more is tried: what
refuses connections often counts those that it refuses."""

FIRST_PAUSE_MS = 60_000
"""For how long a destination is left alone that could not be reached: as Postfix's minimal_backoff_time goes, short,
because most such troubles are."""

LONGEST_PAUSE_MS = 15 * 60_000
"""What the pauses grow to, each twice the one before: mail for a destination that is back waits no longer than this."""

_OF_THE_DESTINATION = frozenset({"connection-failed", "host-refused", "connection-lost", "dns-failed"})
"""Reasons of an answer that are about the destination, and not about a message."""

_NOT_OF_A_MESSAGE = _OF_THE_DESTINATION | {"spool-failed", "internal-error"}
"""The same, and those about ourselves."""


def trouble(outcomes: Sequence[Outcome], *, tls_was_required: bool) -> Answer | None:
    """The answer by which a destination, and not a message, has refused; None where there is none.

    Where TLS was required, only what was said or lost over a connection counts: other mail may find one.
    """
    for outcome in outcomes:
        if not isinstance(outcome, Deferred):
            continue
        answer = outcome.answer
        # RFC 5321 §3.8: 421 is about the service, whatever command it answers.
        if answer.code == 421 or answer.reason == "connection-lost":
            return answer
        if answer.reason in _OF_THE_DESTINATION and not tls_was_required:
            return answer
    return None


def has_answered(outcomes: Sequence[Outcome]) -> bool:
    """Whether a destination without `trouble` has dealt with a message, well or ill."""
    return any(outcome.answer.code and outcome.answer.reason not in _NOT_OF_A_MESSAGE for outcome in outcomes)


@dataclass(slots=True)
class Pause:
    """A time in which nothing is attempted."""

    began_at: int
    until: int
    answer: Answer
    """What it follows from."""
    shared: Deferred | None
    """What all mail shares that was due when it began; None where the answer was about one message as well."""
    is_told: bool
    """All of that mail has been told, also what waited in the spool, but for what stands behind newer mail of a higher
    priority: nothing more is to be claimed until the end."""


class Window:
    """How many couriers a destination may have."""

    __slots__ = ("_answered", "_narrowed_at", "at_most", "limit")

    def __init__(self, at_most: int) -> None:
        self.at_most = at_most
        self.limit = min(INITIAL_COURIERS, at_most)
        self._answered = 0
        """Messages since the limit was last changed."""
        self._narrowed_at: int | None = None
        """When the destination last showed how many it bears; None while it has not."""

    def widen(self, now: int) -> None:
        """A message was answered."""
        if self.limit >= self.at_most:
            return
        self._answered += 1
        if self._narrowed_at is not None and (now - self._narrowed_at < WIDER_AFTER_MS or self._answered < self.limit):
            return
        self.limit += 1
        self._answered = 0

    def narrow(self, bears: int, now: int) -> None:
        """One more than so many was too much."""
        self.limit = max(1, min(self.limit, bears))
        self._answered = 0
        self._narrowed_at = now

    def close(self) -> None:
        """Nothing works; one courier will try. If it finds that all is well again, the rest may follow quickly."""
        self.limit = 1
        self._answered = 0
        self._narrowed_at = None


class Destination:
    """One destination, for as long as there is mail for it, or trouble to remember."""

    def __init__(self, domain: str, max_couriers: int) -> None:
        self.domain = domain
        """In lower case."""
        self.waiting = Waiting()
        self.couriers = 0
        self.window = Window(max_couriers)
        self.pause: Pause | None = None
        self._pauses = 0
        """How many there have been since it last answered."""

    @property
    def wants_a_courier(self) -> bool:
        """Whether one more is of use and allowed."""
        return bool(self.waiting) and self.pause is None and self.couriers < self.window.limit

    @property
    def in_trouble(self) -> bool:
        """Whether it has not answered since it was last paused."""
        return self._pauses > 0

    def has_answered(self, now: int) -> None:
        """All is well: a message was dealt with."""
        self.window.widen(now)
        self._pauses = 0
        self.pause = None

    def has_refused_one(self, now: int) -> None:
        """One connection was refused or broken off, while other couriers are at work. It is about to leave."""
        self.window.narrow(self.couriers - 1, now)

    def leave_alone(self, now: int, answer: Answer, shared: Deferred | None, schedule: RetrySchedule) -> None:
        """Begin a pause: it has refused the only courier.

        It is no longer than mail would wait by its schedule that had been tried as often.
        """
        grown = min(FIRST_PAUSE_MS << min(self._pauses, 10), LONGEST_PAUSE_MS)
        self._pauses += 1
        length = min(grown, schedule.step(self._pauses))
        self.pause = Pause(now, now + length, answer, shared, is_told=shared is None)
        self.window.close()

    def end_pause(self) -> None:
        """It may be tried again. How often it has been paused is not forgotten before it has answered."""
        self.pause = None
