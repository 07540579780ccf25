"""Times on the command line: an instant such as 2026-11-20T10:00:00Z, or a span such as 7d from now."""

import click

from appliance.model.time import Clock, parse_duration, parse_instant, wall_clock

_PRESENT = f"{__name__}.present"


def present(ctx: click.Context | None, clock: Clock = wall_clock) -> int:
    """Now, and for one command the same each time: what counts from now, and now itself, are to fit together."""
    return clock() if ctx is None else int(ctx.meta.setdefault(_PRESENT, clock()))


class When(click.ParamType[int]):
    """WHEN, in milliseconds since the epoch. A span counts from now, towards the past or the future."""

    name = "when"

    def __init__(self, *, past: bool, clock: Clock = wall_clock) -> None:
        self._sign = -1 if past else 1
        self._clock = clock

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it; what is no time is an error of the command line."""
        text = str(value)
        try:
            return present(ctx, self._clock) + self._sign * parse_duration(text)
        except ValueError:
            pass
        try:
            return parse_instant(text)
        except (ValueError, OverflowError):
            self.fail(f"{text!r} is neither a time like 2026-11-20T10:00:00Z nor a span like 1h30m or 7d", param, ctx)
