"""The ASGI application: a table of routes, written out, and the same careful edges for each of them.

Whatever is asked gets one JSON object, the security headers, and no longer than the limits here. A body is read to its
end (within the limits) even where no route wants one, so that the connection can be kept.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import trio

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

EngineStatus = Callable[[], Awaitable[Mapping[str, object] | None]]
"""Asks the engine how it is; None where it does not answer. It has a limit of its own and does not raise."""

BODY_OCTETS = 64 * 1024
"""More than any request to a route here has use for."""
BODY_S = 10.0
"""A body of that size takes longer only over a link, or from a client, that is not worth waiting for."""

SECURITY_HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route answers: a status and one JSON object."""

    status: HTTPStatus
    content: Mapping[str, object]
    headers: tuple[tuple[bytes, bytes], ...] = ()


Route = Callable[[], Awaitable[Answer]]


class _Gone(Exception):
    """The client went away in the middle of its request."""


def application(engine_status: EngineStatus) -> App:
    """The application. Every route is in here."""

    async def live() -> Answer:
        return Answer(HTTPStatus.OK, {"live": True})

    async def ready() -> Answer:
        status = await engine_status()
        # One word and no numbers: whoever can reach the port can read this.
        word = "unreachable" if status is None else "ready" if status.get("healthy") is True else "not healthy"
        answer = HTTPStatus.OK if word == "ready" else HTTPStatus.SERVICE_UNAVAILABLE
        return Answer(answer, {"ready": word == "ready", "engine": word})

    routes: Mapping[str, Mapping[str, Route]] = {
        "/health/live": {"GET": live, "HEAD": live},
        "/health/ready": {"GET": ready, "HEAD": ready},
    }

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                try:
                    await _send_answer(scope, send, await _answer(routes, scope, receive))
                except _Gone:
                    pass
            case "websocket":
                await _refuse_websocket(receive, send)
            case "lifespan":
                await _live_through(receive, send)

    return app


async def _answer(routes: Mapping[str, Mapping[str, Route]], scope: Scope, receive: Receive) -> Answer:
    refusal = await _read_body(receive)
    if refusal is not None:
        return refusal
    methods = routes.get(scope["path"])
    if methods is None:
        return Answer(HTTPStatus.NOT_FOUND, {"error": "there is nothing at this path"})
    route = methods.get(scope["method"])
    if route is None:
        allowed = ", ".join(methods)
        # RFC 9110 §15.5.6: a 405 says in Allow what would be right.
        headers = ((b"allow", allowed.encode("ascii")),)
        return Answer(HTTPStatus.METHOD_NOT_ALLOWED, {"error": f"this path takes {allowed}"}, headers)
    return await route()


async def _read_body(receive: Receive) -> Answer | None:
    """Read the body to its end. Returns the refusal of one that is too large or too slow."""
    # RFC 9110 §9.3.1: what a GET carries has no meaning, so nothing of it is kept.
    octets = 0
    closing = ((b"connection", b"close"),)
    with trio.move_on_after(BODY_S) as limit:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            octets += len(message.get("body", b""))
            if octets > BODY_OCTETS:
                return Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": "the request is too large"}, closing)
            if not message.get("more_body", False):
                return None
    assert limit.cancelled_caught
    return Answer(HTTPStatus.REQUEST_TIMEOUT, {"error": "the request took too long"}, closing)


async def _send_answer(scope: Scope, send: Send, answer: Answer) -> None:
    body = json.dumps(answer.content).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode("ascii")),
        *SECURITY_HEADERS,
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": int(answer.status), "headers": headers})
    # RFC 9110 §9.3.2: HEAD gets the headers of GET, with the length that the body would have.
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def _refuse_websocket(receive: Receive, send: Send) -> None:
    message = await receive()
    if message["type"] == "websocket.connect":
        # Before it is accepted this is a 403.
        await send({"type": "websocket.close", "code": 1000})


async def _live_through(receive: Receive, send: Send) -> None:
    while True:
        match (await receive())["type"]:
            case "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            case "lifespan.shutdown":
                await send({"type": "lifespan.shutdown.complete"})
                return
