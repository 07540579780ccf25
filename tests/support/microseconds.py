"""Microseconds of processor time that something small costs, in this process, done again and again."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio

Once = Callable[[], Any]

ROUNDS = 7
"""The least of so many counts: what disturbs can only add to it."""
ROUND_S = 0.05
"""About how long each of them is."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One line of the table."""

    room: str
    name: str
    microseconds: float
    """Of processor time, user and system, for one message."""
    part_of_above: bool = False
    times: float | None = None
    """How many of them a message needs; None where the row is a message's worth already."""


def microseconds(once: Once) -> float:
    """What one call costs, user and system."""
    count = 1
    while (spent := _spent(once, count)) < ROUND_S * 1e9 / 4:
        count *= 2
    count = max(1, int(count * ROUND_S * 1e9 / spent))
    return min(_spent(once, count) for _ in range(ROUNDS)) / count / 1000


def microseconds_in_trio(many: Callable[[int], Awaitable[object]]) -> float:
    """The same for what is done inside Trio; `many` does it as often as it is told."""

    async def measure() -> float:
        async def spent(count: int) -> int:
            began = time.process_time_ns()
            await many(count)
            return time.process_time_ns() - began

        count = 16
        while await spent(count) < ROUND_S * 1e9 / 2:
            count *= 2
        return min([await spent(count) for _ in range(ROUNDS)]) / count / 1000

    return trio.run(measure)


def _spent(once: Once, count: int) -> int:
    began = time.process_time_ns()
    for _ in range(count):
        once()
    return time.process_time_ns() - began
