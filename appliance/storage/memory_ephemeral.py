"""The ephemeral store in the memory of one process: gone when that ends."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from appliance.privacy.declarations import Collection, Store, collections_of
from appliance.storage.ephemeral import lifetime_ms, refuse_undeclared

_Entries = OrderedDict[bytes, tuple[float, bytes]]
"""Key to the instant of its end and its value, in the order of being remembered: of one collection, that is the order
in which they end."""


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
        self._entries: dict[str, _Entries] = {name: OrderedDict() for name in self._declared}

    def remember(self, what: Collection, key: bytes, value: bytes = b"") -> None:
        """See EphemeralStore."""
        refuse_undeclared(what, self._declared.get(what.name), value)
        with self._lock:
            entries = self._current(what)
            entries.pop(key, None)
            entries[key] = (self._monotonic() + self._lifetimes_s[what.name], value)
            if len(entries) > what.at_most:
                entries.popitem(last=False)

    def recall(self, what: Collection, key: bytes) -> bytes | None:
        """See EphemeralStore."""
        refuse_undeclared(what, self._declared.get(what.name))
        with self._lock:
            found = self._current(what).get(key)
            return None if found is None else found[1]

    def forget(self, what: Collection, key: bytes) -> bytes | None:
        """See EphemeralStore."""
        refuse_undeclared(what, self._declared.get(what.name))
        with self._lock:
            found = self._current(what).pop(key, None)
            return None if found is None else found[1]

    def _current(self, what: Collection) -> _Entries:
        """The entries of a collection, without those that have had their time."""
        entries = self._entries[what.name]
        now = self._monotonic()
        while entries:
            key, (ends_at, _) = next(iter(entries.items()))
            if ends_at > now:
                break
            del entries[key]
        return entries
