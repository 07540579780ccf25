"""Identifiers: twenty lower-case hexadecimal digits that sort by the time they were made.

Forty-four bits of milliseconds, then thirty-six bits that start at random in each millisecond and count up within it.
Two nodes that make ids at the same instant meet with a chance of one in 68 billion, and a unique index would say so;
within one process an id is always greater than the one before, which is what lets a log be read by cursor.
"""

import random
from collections.abc import Callable

from appliance.model.time import Clock, wall_clock

IdSource = Callable[[], str]

_SERIAL_BITS = 36


def first_id_at(instant: int) -> str:
    """What sorts before every id that was made at this instant (milliseconds since the epoch) or later."""
    return f"{max(instant, 0) << _SERIAL_BITS:020x}"


def id_before(id: str, span_ms: int) -> str:
    """What an id would be that was made so many milliseconds earlier."""
    return f"{max(int(id, 16) - (span_ms << _SERIAL_BITS), 0):020x}"


def id_source(clock: Clock = wall_clock, randbits: Callable[[int], int] | None = None) -> IdSource:
    """Make a source of identifiers. Not for secrets: whoever sees one can guess its neighbours."""
    draw = randbits or random.SystemRandom().getrandbits
    # The system's source costs a call to the kernel; it seeds a generator that does not.
    generator = random.Random(draw(64))
    last = 0

    def next_id() -> str:
        nonlocal last
        now = clock()
        if now > last >> _SERIAL_BITS:
            last = now << _SERIAL_BITS | generator.getrandbits(_SERIAL_BITS - 1)
        else:
            last += 1
        return f"{last:020x}"

    return next_id
