"""A map that never changes, and of which a changed copy costs little: what is not changed is shared by both.

Texts are spread over small dicts by their hash. A changed copy copies the dicts in which something changes, and the
list of all dicts; of a million entries that is some tens of kilobytes, and some microseconds.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Generic, TypeVar

V = TypeVar("V")

_USUAL = 48
"""Entries of one of the dicts, in the mean, where their number is known beforehand: few to copy, and few dicts."""

_MOST = 4 * _USUAL
"""Entries of one of them, in the mean, beyond which they are spread anew over four times as many."""


class SharedMap(Mapping[str, V], Generic[V]):
    """Thread-safe, because nothing in it changes: whoever looks something up needs no lock."""

    __slots__ = ("_length", "_mask", "_parts")

    def __init__(self, entries: Iterable[tuple[str, V]] = (), *, expected: int = 0) -> None:
        """Of several entries with one key the last counts. `expected` is about how many there are."""
        count = 1
        while count * _USUAL < expected:
            count *= 2
        self._parts: list[dict[str, V]] = [{} for _ in range(count)]
        self._mask = count - 1
        for key, value in entries:
            self._parts[hash(key) & self._mask][key] = value
        self._length = sum(map(len, self._parts))

    def __getitem__(self, key: str) -> V:
        return self._parts[hash(key) & self._mask][key]

    def __contains__(self, key: object) -> bool:
        return key in self._parts[hash(key) & self._mask]

    def __iter__(self) -> Iterator[str]:
        for part in self._parts:
            yield from part

    def __len__(self) -> int:
        return self._length

    def changed(self, removed: Iterable[str], added: Iterable[tuple[str, V]], *, expected: int = 0) -> "SharedMap[V]":
        """A copy without these keys, and then with these entries. It is this very map where that changes nothing.

        `expected` is about how many are added, where that is known.
        """
        if expected > self._length:
            gone = set(removed)
            left = ((key, value) for part in self._parts for key, value in part.items() if key not in gone)
            return SharedMap(chain(left, added), expected=self._length + expected)
        parts = list(self._parts)
        own: set[int] = set()

        def part_of(key: str) -> dict[str, V]:
            place = hash(key) & self._mask
            if place not in own:
                own.add(place)
                parts[place] = dict(parts[place])
            return parts[place]

        length = self._length
        for key in removed:
            if key in parts[hash(key) & self._mask]:
                del part_of(key)[key]
                length -= 1
        for key, value in added:
            there = parts[hash(key) & self._mask]
            if key not in there or there[key] != value:
                length += key not in there
                part_of(key)[key] = value
        if not own:
            return self
        if length > _MOST * len(parts):
            return SharedMap((entry for part in parts for entry in part.items()), expected=length)
        other: SharedMap[V] = SharedMap()
        other._parts, other._mask, other._length = parts, self._mask, length
        return other
