"""Whether a server answers at all: one waits for all, and the others are told at once that it is away.

Whoever has waited in vain has waited for everybody. From then on nobody asks a server that is silent, and a thread of
its own asks (`ping`) in place of all of them, as patiently as anybody would, again and again, until there is an answer:
then all is as before, in the same moment. So a message hears soon that it can't be taken, and nobody misses a server
that is back, or a new primary, for longer than it takes to find it.

What is refused meanwhile was not sent (`NotAsked`): it has not happened, and never will.
"""

import logging
import threading
import time
from collections.abc import Callable

from appliance.storage.mongo_errors import NotAsked

HESITATION_S = 1.0
"""For so long it may be only one question that was too much, or a line that is slow: whoever comes in this time waits
for the answer to the ping, which a server in order gives within milliseconds."""

PAUSE_S = 0.2
"""Between two tries, where one fails without having waited."""

_log = logging.getLogger(__name__)


class Rest:
    """Of one database. Thread-safe."""

    def __init__(self, place: str, ping: Callable[[], bool]) -> None:
        """`ping` asks the server, waits as long as any operation would, and says whether there was an answer. Where
        it raises, the rest is over: then whoever asks shall see it himself. `place` is for people."""
        self._place = place
        self._ping = ping
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._over.set()
        self._is_closed = False
        self._cause = ""
        self._began_at = 0.0

    @property
    def cause(self) -> str | None:
        """Why nobody is let through; None where everybody is, or waits for a moment whether he can be."""
        return None if self._over.is_set() or self._left_s() > 0 else self._cause

    def enter(self) -> None:
        """Let somebody ask. Raises NotAsked while the server is away."""
        if self._over.is_set():
            return
        left_s = self._left_s()
        if left_s <= 0 or not self._over.wait(left_s):
            raise NotAsked(self._cause)

    def wait(self, limit_s: float) -> None:
        """Return when the server answers, or after this time: for what must not be refused without having been tried.
        What the thread tries meanwhile is as good as a try of one's own."""
        self._over.wait(limit_s)

    def begin(self, cause: str) -> None:
        """Somebody has waited in vain, and the next need not."""
        with self._lock:
            if self._is_closed or not self._over.is_set():
                return
            self._cause = cause
            self._began_at = time.monotonic()
            self._over.clear()
            # It ends with the process, in whatever question it is.
            threading.Thread(target=self._try_for_all, name="mongo-ping", daemon=True).start()

    def close(self) -> None:
        """Nobody asks any more."""
        with self._lock:
            self._is_closed = True
            self._over.set()

    def _left_s(self) -> float:
        return self._began_at + HESITATION_S - time.monotonic()

    def _try_for_all(self) -> None:
        is_told = False
        try:
            while not self._over.is_set() and not self._ping():
                if not is_told and not self._over.is_set():
                    _log.warning("%s: nobody asks until it answers", self._cause)
                    is_told = True
                self._over.wait(PAUSE_S)
        finally:
            with self._lock:
                self._over.set()
        if is_told and not self._is_closed:
            _log.warning("%s: it answers again after %.1f s", self._place, time.monotonic() - self._began_at)
