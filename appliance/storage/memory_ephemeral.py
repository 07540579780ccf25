"""The ephemeral store in the memory of one process: gone when that ends."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from appliance.privacy.declarations import Collection, Store, collections_of
from appliance.storage.ephemeral import lifetime_ms, refuse_uncounted, refuse_undeclared


class _Entry(NamedTuple):
    ends_at: float
    value: bytes
    group: bytes


class _Entries:
    """What is kept of one collection: by key, in the order in which it ends, and by group."""

    def __init__(self) -> None:
        self._by_key: OrderedDict[bytes, _Entry] = OrderedDict()
        self._groups: dict[bytes, dict[bytes, None]] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, key: bytes) -> _Entry | None:
        return self._by_key.get(key)

    def append(self, key: bytes, entry: _Entry) -> None:
        """It ends last."""
        self.pop(key)
        self._by_key[key] = entry
        if entry.group:
            self._groups.setdefault(entry.group, {})[key] = None

    def replace(self, key: bytes, entry: _Entry) -> None:
        """It ends when what was there would have ended."""
        self._by_key[key] = entry

    def pop(self, key: bytes) -> _Entry | None:
        entry = self._by_key.pop(key, None)
        if entry is not None and entry.group:
            keys = self._groups[entry.group]
            del keys[key]
            if not keys:
                del self._groups[entry.group]
        return entry

    def first(self) -> tuple[bytes, _Entry] | None:
        return next(iter(self._by_key.items()), None)

    def of_group(self, group: bytes) -> dict[bytes, bytes]:
        return {key: self._by_key[key].value for key in self._groups.get(group, ())}


class MemoryEphemeral:
    """See `EphemeralStore`. Times are told by a clock that nobody sets."""

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        declared: Iterable[Collection] = collections_of(Store.EPHEMERAL),
    ) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._declared = {what.name: what for what in declared}
        self._lifetimes_s = {what.name: lifetime_ms(what) / 1000 for what in self._declared.values()}
        self._entries = {name: _Entries() for name in self._declared}

    def remember(self, what: Collection, key: bytes, value: bytes = b"", group: bytes = b"") -> None:
        """See EphemeralStore."""
        refuse_undeclared(what, self._declared.get(what.name), value, group)
        with self._lock:
            self._append(what, key, value, group)

    def renew(self, what: Collection, key: bytes, value: bytes) -> bool:
        """See EphemeralStore."""
        refuse_undeclared(what, self._declared.get(what.name), value)
        with self._lock:
            known = self._current(what).get(key)
            if known is not None:
                self._append(what, key, value, known.group)
            return known is not None

    def recall(self, what: Collection, key: bytes) -> bytes | None:
        """See EphemeralStore."""
        refuse_undeclared(what, self._declared.get(what.name))
        with self._lock:
            found = self._current(what).get(key)
            return None if found is None else found.value

    def recall_group(self, what: Collection, group: bytes) -> dict[bytes, bytes]:
        """See EphemeralStore."""
        refuse_undeclared(what, self._declared.get(what.name), group=group)
        with self._lock:
            return self._current(what).of_group(group)

    def forget(self, what: Collection, key: bytes) -> bytes | None:
        """See EphemeralStore."""
        refuse_undeclared(what, self._declared.get(what.name))
        with self._lock:
            found = self._current(what).pop(key)
            return None if found is None else found.value

    def count(self, what: Collection, key: bytes) -> int:
        """See EphemeralStore."""
        refuse_uncounted(what, self._declared.get(what.name))
        with self._lock:
            entries = self._current(what)
            known = entries.get(key)
            if known is None:
                self._append(what, key, b"1", b"")
                return 1
            counted = int(known.value) + 1
            entries.replace(key, known._replace(value=b"%d" % counted))
            return counted

    def counted(self, what: Collection, key: bytes) -> int:
        """See EphemeralStore."""
        refuse_uncounted(what, self._declared.get(what.name))
        with self._lock:
            found = self._current(what).get(key)
            return 0 if found is None else int(found.value)

    def check(self) -> None:
        """See EphemeralStore."""

    def _append(self, what: Collection, key: bytes, value: bytes, group: bytes) -> None:
        entries = self._current(what)
        entries.append(key, _Entry(self._monotonic() + self._lifetimes_s[what.name], value, group))
        if len(entries) > what.at_most:
            first = entries.first()
            assert first is not None
            entries.pop(first[0])

    def _current(self, what: Collection) -> _Entries:
        """The entries of a collection, without those that have had their time."""
        entries = self._entries[what.name]
        now = self._monotonic()
        while (first := entries.first()) is not None and first[1].ends_at <= now:
            entries.pop(first[0])
        return entries
