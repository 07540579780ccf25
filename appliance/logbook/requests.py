"""The log of HTTP: one row for each request and each operation of the API, written behind the back of who asked.

What is to be written gathers in memory, and one task takes it to the record store, many rows in one transaction. A
request never waits for the disk, and where the disk refuses, the lines wait for it, so many at most: what comes then is
lost, and counted. So is what strangers ask beyond a measure, and nothing else.
"""

import logging
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

import trio

from appliance.model.ids import id_source
from appliance.model.time import DAY_MS, Clock, wall_clock
from appliance.privacy.declarations import HTTP_REQUESTS, Row
from appliance.storage.records import Duplicate, Insert, RecordStore, StoreUnavailable

MAX_WAITING = 10_000
"""Lines that wait to be written: some megabytes, and ten seconds of as much as the API can answer."""

MAX_OF_STRANGERS = 200_000
"""Lines of a day that are of nobody who is signed in: two a second, all day. Whoever asks faster would fill the disk
that mail is on; thirty such days are about a gigabyte."""

BATCH = 500
"""Lines written in one transaction."""

PAUSE_S = 1.0
"""How long lines gather. So much of the log is lost where the process dies."""

MAX_TEXT = 200
"""Characters that are kept of anything that a client has written."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request, or one operation over a websocket, that has been answered."""

    method: str
    path: str
    """Without what is behind the question mark."""
    status: int
    """Of HTTP."""
    duration_s: float
    client_address: str | None = None
    """None for the socket in the data directory."""
    operation: str | None = None
    """The name that its document gives it; None without one."""
    code: str | None = None
    """Of the first error of an operation; None without one."""
    account_id: str | None = None
    """Whose session or token it came with."""


class RequestLog:
    """Takes lines from one task after the other, and writes them as long as `run` runs."""

    def __init__(self, records: RecordStore, clock: Clock = wall_clock) -> None:
        self._records = records
        self._clock = clock
        self._new_id = id_source(clock)
        self._waiting: deque[Row] = deque()
        self._refuses = False
        self.written = 0
        self.lost = 0
        """Lines that there was no room for."""
        self._day = 0
        self._of_strangers = 0
        """Lines of that day."""

    def add(self, request: LoggedRequest) -> None:
        """One more line, of now. Never waits, and never raises."""
        now = self._clock()
        if len(self._waiting) >= MAX_WAITING or not self._has_room_for(request, now // DAY_MS):
            self.lost += 1
            return
        self._waiting.append(
            {
                "id": self._new_id(),
                "at": now,
                "method": request.method,
                "path": _kept(request.path),
                "status": request.status,
                "duration_ms": round(request.duration_s * 1000),
                "client_address": request.client_address,
                "operation": None if request.operation is None else _kept(request.operation),
                "code": request.code,
                "account_id": request.account_id,
            }
        )

    def _has_room_for(self, request: LoggedRequest, day: int) -> bool:
        if request.account_id is not None or request.client_address is None:
            return True
        if day != self._day:
            self._day, self._of_strangers = day, 0
        self._of_strangers += 1
        return self._of_strangers <= MAX_OF_STRANGERS

    async def run(self) -> None:
        """Write until cancelled, and then once more."""
        try:
            while True:
                await trio.sleep(PAUSE_S)
                await self._write()
        finally:
            with trio.CancelScope(shield=True):
                await self._write()

    async def _write(self) -> None:
        """Write what waits. Where the store refuses it goes on waiting."""
        while self._waiting:
            rows = list(islice(self._waiting, BATCH))
            try:
                await trio.to_thread.run_sync(self._store, rows)
            except StoreUnavailable as error:
                if not self._refuses:
                    _logger.warning("the log of HTTP can't be written: %s", error)
                self._refuses = True
                return
            self._refuses = False
            self.written += len(rows)
            for _ in rows:
                self._waiting.popleft()

    def _store(self, rows: list[Row]) -> None:
        try:
            self._records.apply([Insert(HTTP_REQUESTS, row) for row in rows])
        except Duplicate:
            # The store was away when they were written before, and has some of them all the same.
            for row in rows:
                with suppress(Duplicate):
                    self._records.apply([Insert(HTTP_REQUESTS, row)])


def _kept(text: str) -> str:
    """As much as is kept of what a client has written, in what can be stored."""
    return text[:MAX_TEXT].encode("utf-8", "replace").decode("utf-8")
