"""A request over HTTP and its answer, as the routes see them."""

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

JSON: Final = "application/json"

CONTENT_POLICY: Final = b"content-security-policy"

SECURITY_HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (CONTENT_POLICY, b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
"""Of every answer, unless it brings its own."""


@dataclass(frozen=True, slots=True)
class Headers:
    """The header fields of a request, by name in lower case."""

    fields: tuple[tuple[bytes, bytes], ...]

    def every(self, name: str) -> list[str]:
        """Each value, in order. RFC 9110 §5.5: octets beyond ASCII are opaque, and kept apart as Latin-1."""
        wanted = name.encode("ascii")
        return [value.decode("latin-1") for key, value in self.fields if key == wanted]

    def get(self, name: str) -> str | None:
        """All values as one, joined as RFC 9110 §5.3 has it; None where there is none."""
        values = self.every(name)
        return ", ".join(values) if values else None


@dataclass(slots=True)
class Noted:
    """What is noted of an operation, as soon as it is known (`watch.py`)."""

    kind: str = ""
    """`query`, `mutation` or `subscription`; empty where it never came to an operation."""
    name: str | None = None
    """The name that its document gives it."""
    account_id: str | None = None
    """Whose session or token it came with."""
    code: str | None = None
    """Of its first error."""

    @property
    def is_there(self) -> bool:
        """Whether an operation was asked for at all."""
        return self.kind != "" or self.code is not None

    def answered(self, errors: Iterable[Mapping[str, Any]]) -> None:
        """These errors stand in its response, perhaps none."""
        self.code = next((error["extensions"]["code"] for error in errors), None)


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked, with its body read to the end."""

    method: str
    path: str
    query: str
    """What is behind the question mark, as it was sent."""
    headers: Headers
    peer: str | None
    """The address at the other end of the connection; None on a Unix socket."""
    body: bytes = b""
    noted: Noted = field(default_factory=Noted)
    """Filled in by the API where this is an operation."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route answers."""

    status: HTTPStatus
    body: bytes
    media_type: str = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Beside `SECURITY_HEADERS`, or in place of those with the same name."""

    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """Everything that is sent ahead of the body."""
        own = {name for name, _ in self.headers}
        return [
            (b"content-type", self.media_type.encode("ascii")),
            (b"content-length", str(len(self.body)).encode("ascii")),
            *(header for header in SECURITY_HEADERS if header[0] not in own),
            *self.headers,
        ]


Route = Callable[[Request], Awaitable[Answer]]


def told(status: HTTPStatus, content: Mapping[str, object], headers: tuple[tuple[bytes, bytes], ...] = ()) -> Answer:
    """One JSON object."""
    return Answer(status, json.dumps(content).encode(), headers=headers)


def request_of(scope: Scope) -> Request:
    """What an ASGI scope says of a request; its body is not read yet."""
    return Request(
        method=scope.get("method", "GET"),
        path=scope["path"],
        query=scope["query_string"].decode("latin-1"),
        headers=Headers(tuple((name.lower(), value) for name, value in scope["headers"])),
        peer=scope["client"][0] if scope.get("client") else None,
    )
