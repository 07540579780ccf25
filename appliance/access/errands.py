"""Errands: what is done once the answer is given, in one thread of its own.

A letter is written only to who has an account. Were it written before the answer, the time of the answer would tell who
that is; so it is written behind it. One that can't be posted is tried again a few times, for an engine that is being
restarted; after that its loss is in the log, and whoever misses it asks once more.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from queue import Empty, Full, Queue
from typing import Protocol

from appliance.model.letter import LetterRefused, NotPosted
from appliance.model.refused import TooMany
from appliance.storage.records import StoreUnavailable

WAITING = 200
"""Errands that may wait: what an hour may bring while the engine is away."""

PAUSES_S = (1.0, 5.0, 30.0)
"""How long to wait before an errand is tried again."""

RETRY_AFTER_S = 60
"""When it is worth another try where too many errands wait."""

Errand = Callable[[], None]

_log = logging.getLogger(__name__)


class Errands(Protocol):
    """Sees to it that something is done soon."""

    def add(self, errand: Errand) -> None:
        """Have it done after the answer. Raises TooMany."""


class ErrandThread:
    """`Errands` that are done one after another by the thread that calls `run`."""

    def __init__(self, pauses_s: Sequence[float] = PAUSES_S) -> None:
        self._queue: Queue[Errand | None] = Queue(WAITING)
        self._pauses_s = tuple(pauses_s)
        self._closing = threading.Event()

    def add(self, errand: Errand) -> None:
        """See Errands."""
        try:
            self._queue.put_nowait(errand)
        except Full:
            raise TooMany("Too much is waiting to be done. Try again in a minute.", RETRY_AFTER_S) from None

    def run(self) -> None:
        """Do errands until `close`; those that wait then are tried once more."""
        while not self._closing.is_set():
            errand = self._queue.get()
            if errand is not None:
                self._do(errand)
        while True:
            try:
                errand = self._queue.get_nowait()
            except Empty:
                return
            if errand is not None:
                self._do(errand)

    def close(self) -> None:
        """Have `run` return, without waiting for it."""
        self._closing.set()
        try:
            self._queue.put_nowait(None)
        except Full:
            pass  # Whoever is busy with them looks at the event before the next.

    def _do(self, errand: Errand) -> None:
        for pause_s in (*self._pauses_s, None):
            try:
                errand()
            except (NotPosted, StoreUnavailable) as error:
                # What will never be taken must not keep the others waiting.
                if isinstance(error, LetterRefused) or pause_s is None or self._closing.is_set():
                    _log.error("a letter was not sent: %s", error)
                    return
                self._closing.wait(pause_s)
            except Exception:  # noqa: BLE001
                # A defect in one errand must not keep all the others from being done.
                _log.exception("an errand met a defect")
                return
            else:
                return
