"""The ASGI application: a table of routes, written out, and the same careful edges for each of them.

Whatever is asked gets an answer with the security headers, and no longer than the limits here. A body is read to its
end (within the limits) even where no route wants one, so that the connection can be kept.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Protocol

import trio

from control_api import metrics, pages
from control_api.exchange import (
    SECURITY_HEADERS,
    Answer,
    App,
    Receive,
    Request,
    Route,
    Scope,
    Send,
    request_of,
    told,
)
from control_api.privacy_pages import CANARY_PATH, POLICY_PATH
from control_api.watch import Watch

__all__ = ["SECURITY_HEADERS", "App", "Receive", "Scope", "Send", "application"]

EngineStatus = Callable[[], Awaitable[Mapping[str, object] | None]]
"""Asks the engine how it is; None where it does not answer. It has a limit of its own and does not raise."""

StoresAway = Callable[[], Awaitable[Sequence[str]]]
"""Asks the stores that this process stands on; the names of those that do not answer. It does not raise."""

BODY_OCTETS = 64 * 1024
"""More than any request to a route here has use for."""
BODY_S = 10.0
"""A body of that size takes longer only over a link, or from a client, that is not worth waiting for."""

FRONT_PATH = "/"
"""Where the links of letters lead: `<public_url>/#/...`."""
GRAPHQL_PATH = "/graphql"
METRICS_PATH = "/metrics"

Routes = Mapping[str, Mapping[str, Route]]


class GraphQL(Protocol):
    """The API: over HTTP and over a websocket; and what there is of it for people to read."""

    async def answer(self, request: Request) -> Answer:
        """To a GET or a POST."""

    async def converse(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        """Over a websocket, from before it is accepted until it is closed."""

    async def show_policy(self, request: Request) -> Answer:
        """What is stored here."""

    async def show_canary(self, request: Request) -> Answer:
        """The warrant canary."""


class _Gone(Exception):
    """The client went away in the middle of its request."""


def application(
    engine_status: EngineStatus,
    api: GraphQL | None = None,
    watch: Watch | None = None,
    measured: metrics.Measured | None = None,
    stores_away: StoresAway | None = None,
) -> App:
    """The application. Every route is in here. `watch` is told of every request, and `measured` is what it shows."""

    async def live(request: Request) -> Answer:
        return told(HTTPStatus.OK, {"live": True})

    async def ready(request: Request) -> Answer:
        status = await engine_status()
        # One word and no numbers: whoever can reach the port can read this.
        word = "unreachable" if status is None else "ready" if status.get("healthy") is True else "not healthy"
        away = [] if stores_away is None else await stores_away()
        is_ready = word == "ready" and not away
        answer = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
        return told(answer, {"ready": is_ready, "engine": word, **({"away": away} if away else {})})

    async def front(request: Request) -> Answer:
        return pages.front()

    async def show_metrics(request: Request) -> Answer:
        assert watch is not None
        assert measured is not None
        if not watch.edges.is_from_here(request):
            return told(HTTPStatus.FORBIDDEN, {"error": "this is for programs of this machine"})
        return Answer(HTTPStatus.OK, metrics.text(await measured(), watch.traffic), metrics.MEDIA_TYPE)

    routes: dict[str, Mapping[str, Route]] = {
        "/health/live": {"GET": live, "HEAD": live},
        "/health/ready": {"GET": ready, "HEAD": ready},
    }
    if api is not None:
        routes[FRONT_PATH] = {"GET": front, "HEAD": front}
        routes[POLICY_PATH] = {"GET": api.show_policy, "HEAD": api.show_policy}
        routes[CANARY_PATH] = {"GET": api.show_canary, "HEAD": api.show_canary}
        routes[GRAPHQL_PATH] = {"GET": api.answer, "POST": api.answer}
    if measured is not None:
        routes[METRICS_PATH] = {"GET": show_metrics, "HEAD": show_metrics}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                request, began = request_of(scope), time.monotonic()
                status: HTTPStatus | None = None
                try:
                    answer = await _answer(routes, request, receive)
                    status = answer.status
                except _Gone:
                    return
                except Exception:
                    # A defect of ours: the web server answers it, and says so in the log of the process.
                    status = HTTPStatus.INTERNAL_SERVER_ERROR
                    raise
                finally:
                    if watch is not None and status is not None:
                        watch.answered(request, request.path in routes, status, time.monotonic() - began)
                await _send_answer(scope, send, answer)
            case "websocket" if api is not None and scope["path"] == GRAPHQL_PATH:
                request = request_of(scope)
                if watch is None:
                    await api.converse(request, scope, receive, send)
                else:
                    await _converse_watched(api, watch, request, scope, receive, send)
            case "websocket":
                if watch is not None:
                    watch.answered(request_of(scope), False, HTTPStatus.FORBIDDEN, 0)
                await _refuse_websocket(receive, send)
            case "lifespan":
                await _live_through(receive, send)

    return app


async def _converse_watched(
    api: GraphQL, watch: Watch, request: Request, scope: Scope, receive: Receive, send: Send
) -> None:
    """A websocket is a request that is answered when it is over."""
    status, began = HTTPStatus.FORBIDDEN, time.monotonic()

    async def send_seen(message: dict[str, Any]) -> None:
        nonlocal status
        if message["type"] == "websocket.accept":
            status = HTTPStatus.SWITCHING_PROTOCOLS
        await send(message)

    watch.traffic.websockets_open += 1
    try:
        await api.converse(request, scope, receive, send_seen)
    finally:
        watch.traffic.websockets_open -= 1
        watch.answered(request, True, status, time.monotonic() - began)


async def _answer(routes: Routes, request: Request, receive: Receive) -> Answer:
    body = await _read_body(receive)
    if isinstance(body, Answer):
        return body
    methods = routes.get(request.path)
    if methods is None:
        return told(HTTPStatus.NOT_FOUND, {"error": "there is nothing at this path"})
    route = methods.get(request.method)
    if route is None:
        allowed = ", ".join(methods)
        # RFC 9110 §15.5.6: a 405 says in Allow what would be right.
        headers = ((b"allow", allowed.encode("ascii")),)
        return told(HTTPStatus.METHOD_NOT_ALLOWED, {"error": f"this path takes {allowed}"}, headers)
    # RFC 9110 §9.3.1: what a GET carries has no meaning, so nothing of it is kept.
    return await route(replace(request, body=body) if request.method == "POST" else request)


async def _read_body(receive: Receive) -> bytes | Answer:
    """Read the body to its end. Returns the refusal of one that is too large or too slow."""
    body = bytearray()
    closing = ((b"connection", b"close"),)
    with trio.move_on_after(BODY_S) as limit:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            body += message.get("body", b"")
            if len(body) > BODY_OCTETS:
                return told(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": "the request is too large"}, closing)
            if not message.get("more_body", False):
                return bytes(body)
    assert limit.cancelled_caught
    return told(HTTPStatus.REQUEST_TIMEOUT, {"error": "the request took too long"}, closing)


async def _send_answer(scope: Scope, send: Send, answer: Answer) -> None:
    await send({"type": "http.response.start", "status": int(answer.status), "headers": answer.all_headers()})
    # RFC 9110 §9.3.2: HEAD gets the headers of GET, with the length that the body would have.
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})


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
