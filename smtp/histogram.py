"""How often a value was how large, in a handful of integers: cheap enough to be kept for every message."""

from bisect import bisect_left
from collections.abc import Sequence


class Histogram:
    """Counts of values by upper bounds that never change. May be read at any time; written to from one thread."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` ascend. A value counts under the first bound that is not below it."""
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        """By bound; the last is of values beyond all of them."""
        self.sum = 0.0
        """Of all values."""

    def observe(self, value: float) -> None:
        """One more value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value
