"""The ephemeral store in the memory of one process: gone when that ends."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from appliance.storage.ephemeral import Fleeting

_Entries = OrderedDict[bytes, tuple[float, bytes]]
"""Key to the instant of its end and its value, in the order of being remembered: of one class, that is the order in
which they end."""


class MemoryEphemeral:
    """See `EphemeralStore`. Times are told by a clock that nobody sets."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._classes: dict[Fleeting, _Entries] = {}

    def remember(self, what: Fleeting, key: bytes, value: bytes = b"") -> None:
        """See EphemeralStore."""
        with self._lock:
            entries = self._current(what)
            entries.pop(key, None)
            entries[key] = (self._monotonic() + what.lifetime_ms / 1000, value)
            if len(entries) > what.max_entries:
                entries.popitem(last=False)

    def recall(self, what: Fleeting, key: bytes) -> bytes | None:
        """See EphemeralStore."""
        with self._lock:
            found = self._current(what).get(key)
            return None if found is None else found[1]

    def forget(self, what: Fleeting, key: bytes) -> bytes | None:
        """See EphemeralStore."""
        with self._lock:
            found = self._current(what).pop(key, None)
            return None if found is None else found[1]

    def _current(self, what: Fleeting) -> _Entries:
        """The entries of a class, without those that have had their time."""
        entries = self._classes.setdefault(what, OrderedDict())
        now = self._monotonic()
        while entries:
            key, (ends_at, _) = next(iter(entries.items()))
            if ends_at > now:
                break
            del entries[key]
        return entries
