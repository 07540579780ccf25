"""GraphQL over HTTP, by the specification of that name: POST, and queries by GET, in both media types.

With `application/graphql-response+json` the status tells what has become of a request. With `application/json` it is
200 for whatever was well-formed, because that is what clients of old expect. In neither does a failing field change it.

Two things are refused which some servers take: several requests in one, by which one connection could ask for as much
as it likes, and anything that a form of another site could send.
"""

from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
import trio
from graphql import OperationType

from control_api import operations, pages
from control_api.callers import Credentials, identified
from control_api.context import Context
from control_api.edges import Edges
from control_api.errors import ApiError, Code, as_told, bad_input, forbidden, unavailable
from control_api.exchange import JSON, Answer, Noted, Request
from control_api.negotiation import Offers, preferred
from control_api.rooms import Rooms

RESPONSE_JSON: Final = "application/graphql-response+json"
WAIT_S = 5.0
"""How long a request waits for a worker thread. Where all are taken for so long, more waiting makes it worse."""
PARAMETERS = 20
"""Of a GET; four have a meaning."""

_OFFERS: Final[Offers] = {
    RESPONSE_JSON: (3, RESPONSE_JSON),
    JSON: (2, JSON),
    "application/*": (1, JSON),
    "*/*": (0, JSON),
}

_STATUS: Final[Mapping[Code, HTTPStatus]] = {
    Code.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    Code.FORBIDDEN: HTTPStatus.FORBIDDEN,
    Code.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.BAD_USER_INPUT: HTTPStatus.BAD_REQUEST,
    Code.TOO_COMPLEX: HTTPStatus.BAD_REQUEST,
    Code.RATE_LIMITED: HTTPStatus.TOO_MANY_REQUESTS,
    Code.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""Where nothing was executed for this reason."""


class _NotTaken(Exception):
    """A request that HTTP has a status of its own for."""

    def __init__(self, status: HTTPStatus, error: ApiError, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(error.message)
        self.status = status
        self.error = error
        self.headers = headers


async def answer(rooms: Rooms, edges: Edges, request: Request) -> Answer:
    """Answer a GET or a POST of the API."""
    if request.method == "GET" and _is_for_the_page(request):
        return pages.explorer()
    media_type = accepted(request.headers.get("accept"))
    if media_type is None:
        error = bad_input(f"The answer is {RESPONSE_JSON} or {JSON}; Accept allows neither.")
        return _refused(HTTPStatus.NOT_ACCEPTABLE, error, JSON)
    try:
        credentials = edges.credentials(request)
        if credentials.bearer is None and edges.is_foreign(request):
            raise forbidden("This request comes from the page of another site.")
        asked = _asked_by_post(request) if request.method == "POST" else _asked_by_get(request)
        work = partial(_answer_in_thread, rooms, edges, credentials, asked, request, media_type)
        with trio.move_on_after(WAIT_S):
            return await operations.in_thread(credentials.address, work)
        raise unavailable("The appliance is busy. Try again later.")
    except _NotTaken as refusal:
        request.noted.code = refusal.error.code.value
        return _refused(refusal.status, refusal.error, media_type, *refusal.headers)
    except ApiError as error:
        request.noted.code = error.code.value
        return _refused(_STATUS[error.code], error, media_type)


def accepted(accept: str | None) -> str | None:
    """The media type of the answer to a client that accepts these; None where it would accept none of ours.

    Whoever does not care gets `application/json`: it knows no other.
    """
    if accept is None:
        return JSON
    return preferred(accept, _OFFERS)


def encoded(answer: Mapping[str, Any]) -> bytes:
    """A response as JSON."""
    return msgspec.json.encode(answer)


def asked_of(parameters: object) -> operations.Request:
    """A request from its parameters, as they are in JSON on every way here. Raises BAD_USER_INPUT."""
    if isinstance(parameters, list):
        raise bad_input("One request at a time: batches are not taken.")
    if not isinstance(parameters, dict):
        raise bad_input("A request is a JSON object.")
    query, variables = parameters.get("query"), parameters.get("variables")
    name, extensions = parameters.get("operationName"), parameters.get("extensions")
    if not isinstance(query, str) or not query.strip():
        raise bad_input("query is missing: the text of a GraphQL document.")
    if variables is not None and not isinstance(variables, dict):
        raise bad_input("variables is an object.")
    if name is not None and not isinstance(name, str):
        raise bad_input("operationName is a text.")
    if extensions is not None and not isinstance(extensions, dict):
        raise bad_input("extensions is an object.")
    return operations.Request(query, variables, name or None)


def _answer_in_thread(
    rooms: Rooms, edges: Edges, credentials: Credentials, asked: operations.Request, request: Request, media_type: str
) -> Answer:
    noted = request.noted
    try:
        caller = identified(credentials, rooms.doorkeeper)
    except Exception as error:  # noqa: BLE001 - whatever it is, the client is told as much as it may know
        told = as_told(error)
        noted.code = told.code.value
        return _refused(_STATUS[told.code], told, media_type)
    noted.account_id = caller.account_id
    context = Context(caller, rooms)
    try:
        response = _executed(asked, context, noted, request.method)
    except operations.Refusal as refusal:
        noted.answered(refusal.errors)
        # With application/json, a request that is well-formed gets 200, whatever its document is.
        status = HTTPStatus.OK if media_type == JSON else _STATUS[Code(refusal.errors[0]["extensions"]["code"])]
        return Answer(status, encoded({"errors": refusal.errors}), _with_charset(media_type))
    noted.answered(response.get("errors", ()))
    cookies = tuple(edges.set_cookie(what) for what in context.cookies)
    return Answer(HTTPStatus.OK, encoded(response), _with_charset(media_type), cookies)


def _executed(asked: operations.Request, context: Context, noted: Noted, method: str) -> dict[str, Any]:
    known = operations.read(asked.query, signed_in=context.caller.is_signed_in)
    kind = known.operation(asked.operation_name, noted).operation
    if kind is OperationType.SUBSCRIPTION:
        raise operations.refused(bad_input("Subscriptions go over a websocket."))
    if kind is OperationType.MUTATION and method == "GET":
        allow = (b"allow", b"POST")
        raise _NotTaken(HTTPStatus.METHOD_NOT_ALLOWED, bad_input("A mutation goes by POST."), allow)
    return operations.execute(known, asked, context)


def _asked_by_post(request: Request) -> operations.Request:
    media_type, *parameters = (part.strip().lower() for part in (request.headers.get("content-type") or "").split(";"))
    charsets = [part.partition("=")[2].strip('" ') for part in parameters if part.startswith("charset")]
    # A form can send neither; a script of another site has to ask first whether it may send JSON, and is not answered.
    if media_type != JSON or charsets not in ([], ["utf-8"]):
        raise _NotTaken(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, bad_input(f"A request is {JSON} in UTF-8."))
    return asked_of(_decoded(request.body, "The request"))


def _asked_by_get(request: Request) -> operations.Request:
    try:
        sent = dict(parse_qsl(request.query, keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS))
    except ValueError:
        raise bad_input("What is behind the question mark is no form in UTF-8.") from None
    parameters: dict[str, Any] = {name: sent[name] for name in ("query", "operationName") if name in sent}
    for name in ("variables", "extensions"):
        if sent.get(name):
            parameters[name] = _decoded(sent[name].encode(), name)
    return asked_of(parameters)


def _decoded(octets: bytes, what: str) -> object:
    try:
        return msgspec.json.decode(octets)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise bad_input(f"{what} is no JSON.") from None


def _is_for_the_page(request: Request) -> bool:
    """Whether a browser asks for something to look at, and not for the answer to a query."""
    asks = any(name == "query" for name, _ in parse_qsl(request.query, keep_blank_values=True))
    return not asks and "text/html" in (request.headers.get("accept") or "").lower()


def _with_charset(media_type: str) -> str:
    return f"{media_type}; charset=utf-8"


def _refused(status: HTTPStatus, error: ApiError, media_type: str, *headers: tuple[bytes, bytes]) -> Answer:
    if status is HTTPStatus.UNAUTHORIZED:
        # RFC 9110 §11.6.1: a 401 says what would help.
        headers = (*headers, (b"www-authenticate", b"Bearer"))
    retry_after = error.extensions.get("retryAfterSeconds")
    if retry_after is not None:
        headers = (*headers, (b"retry-after", str(retry_after).encode("ascii")))
    body = encoded({"errors": [{"message": error.message, "extensions": error.extensions}]})
    return Answer(status, body, _with_charset(media_type), headers)
