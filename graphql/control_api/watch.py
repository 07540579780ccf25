"""What is noted of each request and each operation: numbers, for `/metrics`, and a line in the log of HTTP.

Neither has anything of what was sent or answered. Numbers have the name of an operation or a path only where it is one
of ours, so that nobody can make them grow by inventing names.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from typing import Final, Protocol

from appliance.logbook.requests import LoggedRequest
from control_api import operation_files
from control_api.edges import Edges
from control_api.exchange import Noted, Request
from smtp.histogram import Histogram

ANSWERED_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""From an answer out of memory to what a person has given up waiting for."""

OTHER: Final = "other"
"""In place of what a client has made up."""
OK: Final = "OK"
"""The code of an operation without an error."""
_WEBSOCKET: Final = "WEBSOCKET"
"""What an operation over a websocket has for a method."""
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"})
_NAMED = re.compile(r"^(?:query|mutation|subscription)\s+(\w+)", re.MULTILINE)


class Log(Protocol):
    """Where lines go."""

    def add(self, request: LoggedRequest) -> None:
        """One more. Never waits, and never raises."""


class Traffic:
    """Counters of the whole process, which may be read at any time; written to by the tasks of Trio."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        """By path, method and status."""
        self.request_s: dict[str, Histogram] = {}
        """By path, how long an answer took."""
        self.websockets_open = 0
        self.operations: Counter[tuple[str, str, str]] = Counter()
        """By name, kind and code."""
        self.operation_s: dict[str, Histogram] = {}
        """By name, how long an answer took; without subscriptions, which last as long as somebody listens."""

    def request(self, path: str, method: str, status: int, duration_s: float) -> None:
        """One more request."""
        self.requests[path, method, status] += 1
        if status == HTTPStatus.SWITCHING_PROTOCOLS:
            # It has lasted as long as somebody was there.
            return
        if path not in self.request_s:
            self.request_s[path] = Histogram(ANSWERED_S)
        self.request_s[path].observe(duration_s)

    def operation(self, noted: Noted, duration_s: float) -> None:
        """One more operation."""
        name = noted.name if noted.name in own_operations() else OTHER
        self.operations[name, noted.kind or OTHER, noted.code or OK] += 1
        if noted.kind != "subscription":
            if name not in self.operation_s:
                self.operation_s[name] = Histogram(ANSWERED_S)
            self.operation_s[name].observe(duration_s)


@dataclass(frozen=True, slots=True)
class Watch:
    """Notes what goes through one listener."""

    edges: Edges
    log: Log
    traffic: Traffic = field(default_factory=Traffic)

    def answered(self, request: Request, known_path: bool, status: int, duration_s: float) -> None:
        """A request has been answered, and with it the operation that was in it."""
        method = request.method if request.method in _METHODS else OTHER
        self.traffic.request(request.path if known_path else OTHER, method, status, duration_s)
        if request.noted.is_there:
            self.traffic.operation(request.noted, duration_s)
        self._add(request, method, status, duration_s, request.noted)

    def carried_out(self, request: Request, noted: Noted, duration_s: float) -> None:
        """An operation over the websocket of this request has ended."""
        self.traffic.operation(noted, duration_s)
        self._add(request, _WEBSOCKET, HTTPStatus.SWITCHING_PROTOCOLS, duration_s, noted)

    def _add(self, request: Request, method: str, status: int, duration_s: float, noted: Noted) -> None:
        self.log.add(
            LoggedRequest(
                method=method,
                path=request.path,
                status=status,
                duration_s=duration_s,
                client_address=None if self.edges.local else self.edges.client_address(request) or None,
                operation=noted.name,
                code=noted.code,
                account_id=noted.account_id,
            )
        )


@cache
def own_operations() -> frozenset[str]:
    """The names of the operations that are written down (`operation_files`)."""
    files = operation_files.folder().glob("*.graphql")
    return frozenset(name for file in files for name in _NAMED.findall(file.read_text(encoding="utf-8")))
