"""Instants and durations as text, and the clock as an argument.

Instants are integer milliseconds since the epoch: they compare, subtract and index the same way in Python, SQLite and
MongoDB (whose datetimes have this very resolution), and no time zone can slip in.
"""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], int]
"""Returns the present instant in milliseconds since the epoch."""

SECOND_MS = 1000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

_UNITS_MS = {"ms": 1, "s": SECOND_MS, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS, "w": 7 * DAY_MS}
_DURATION = re.compile(r"(?:[0-9]{1,9}(?:ms|[smhdw]))+", re.ASCII)
_DURATION_PART = re.compile(r"([0-9]+)(ms|[smhdw])", re.ASCII)


def wall_clock() -> int:
    """The system's clock in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def format_instant(instant: int) -> str:
    """RFC 3339 in UTC with milliseconds: `2026-11-20T10:00:00.000Z`."""
    seconds, milliseconds = divmod(instant, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{milliseconds:03d}Z"


def parse_instant(text: str) -> int:
    """Read an RFC 3339 instant; one without an offset is taken as UTC.

    Raises ValueError where the text is not one.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time like 2026-11-20T10:00:00Z") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    # Not by way of `timestamp`: a float of seconds misses one millisecond in some.
    return (moment - _EPOCH) // _MILLISECOND


def parse_duration(text: str) -> int:
    """Read a duration such as `7d`, `90s` or `1h30m`, in milliseconds.

    Raises ValueError where the text is not one.
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a time span like 90s, 1h30m or 7d")
    return sum(int(count) * _UNITS_MS[unit] for count, unit in _DURATION_PART.findall(text))


def format_duration(duration_ms: int) -> str:
    """The shortest text that `parse_duration` reads back: 5400000 is `1h30m`."""
    if duration_ms == 0:
        return "0s"
    parts = []
    for unit, size in sorted(_UNITS_MS.items(), key=lambda item: -item[1]):
        if unit == "w":
            continue
        count, duration_ms = divmod(duration_ms, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)
