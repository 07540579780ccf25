"""The policy and the warrant canary, each at an address of its own: pages for people, and the bare text for programs.

Everybody may read them, and nobody has to run a script for it. What they say is escaped, whoever has written it.
"""

import html
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Final

import trio

from appliance.configuration import retention_ms
from appliance.model.time import format_instant
from appliance.privacy.canary import Canary
from appliance.privacy.canonical import canonical
from appliance.privacy.policy import policy
from appliance.storage.records import StoreUnavailable
from control_api import operations, pages
from control_api.edges import Edges
from control_api.errors import ApiError, as_told, unavailable
from control_api.exchange import JSON, Answer, Request, told
from control_api.negotiation import Offers, preferred
from control_api.rooms import Rooms

CANARY_PATH: Final = "/canary"
POLICY_PATH: Final = "/privacy"

WAIT_S = 5.0
"""How long a reader waits for a worker thread. Where all are taken for so long, more waiting makes it worse."""

_MARKDOWN: Final = "text/markdown; charset=utf-8"
"""RFC 7763."""
_TEXT: Final = "text/plain; charset=utf-8"
_PAGE: Offers = {"text/html": (5, pages.HTML), "text/*": (1, pages.HTML), "*/*": (0, pages.HTML)}

_POLICY_OFFERS: Offers = {**_PAGE, "text/markdown": (4, _MARKDOWN), "text/plain": (3, _TEXT)}
_CANARY_OFFERS: Offers = {**_PAGE, "application/json": (4, JSON), "text/plain": (3, _TEXT), "text/markdown": (2, _TEXT)}
"""Statements are no Markdown: who asks for it gets them as they are."""

Write = Callable[[Rooms, str], Answer]
"""Makes the answer of this media type. For worker threads: it asks the store, and may raise StoreUnavailable."""

_NONE_PUBLISHED: Final = "No canary has been published here."


async def show_policy(rooms: Rooms, edges: Edges, request: Request) -> Answer:
    """What this appliance stores, why, where and for how long, by the running configuration."""
    return await _written(_policy, _POLICY_OFFERS, rooms, edges, request)


async def show_canary(rooms: Rooms, edges: Edges, request: Request) -> Answer:
    """The canary that was published last, and whether it is an alarm; 503 where the store does not answer."""
    return await _written(_canary, _CANARY_OFFERS, rooms, edges, request)


async def _written(write: Write, offers: Offers, rooms: Rooms, edges: Edges, request: Request) -> Answer:
    """One of the two in the form that is asked for, from a worker thread; or that it can't be had now."""
    # RFC 9110 §12.5.1: who takes nothing that we have can be given the page all the same.
    media_type = preferred(request.headers.get("accept") or "*/*", offers) or pages.HTML
    address = "" if edges.local else edges.client_address(request)
    answer: Answer | None = None
    with trio.move_on_after(WAIT_S):
        try:
            answer = await operations.in_thread(address, write, rooms, media_type)
        except StoreUnavailable as error:
            answer = _unanswered(as_told(error), rooms.configuration.hostname, media_type)
    if answer is None:
        busy = unavailable("The appliance is busy. Try again later.")
        answer = _unanswered(busy, rooms.configuration.hostname, media_type)
    # RFC 9110 §12.5.5: it is one of several.
    return replace(answer, headers=(*answer.headers, (b"vary", b"accept")))


def _unanswered(error: ApiError, host: str, media_type: str) -> Answer:
    status = HTTPStatus.SERVICE_UNAVAILABLE
    if media_type == JSON:
        return told(status, {"error": error.message})
    if media_type == pages.HTML:
        return pages.paper("Not now", f"<h1>Not now</h1>\n<p>{html.escape(error.message)}</p>", host, status)
    return Answer(status, f"{error.message}\n".encode(), media_type)


# ------------------------------------------------------------------ the policy


def _policy(rooms: Rooms, media_type: str) -> Answer:
    text = policy(partial(retention_ms, rooms.configuration)).text
    if media_type == pages.HTML:
        return pages.paper("What is stored here", as_html(text), rooms.configuration.hostname)
    return Answer(HTTPStatus.OK, text.encode(), media_type)


def as_html(text: str) -> str:
    """The Markdown that the policy is written in as HTML: headings, lists of single lines, paragraphs, and code."""
    return "\n".join(map(_block, re.split(r"\n{2,}", text.strip())))


def _block(block: str) -> str:
    heading = re.fullmatch(r"(#{1,6}) (.*)", block)
    if heading:
        level = len(heading[1])
        return f"<h{level}>{_inline(heading[2])}</h{level}>"
    if block.startswith("- "):
        items = "".join(f"<li>{_inline(line.removeprefix('- '))}</li>" for line in block.split("\n"))
        return f"<ul>{items}</ul>"
    return f"<p>{_inline(block)}</p>"


def _inline(text: str) -> str:
    return re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(text))


# ------------------------------------------------------------------ the canary


def _canary(rooms: Rooms, media_type: str) -> Answer:
    canary, now = rooms.canaries.current(), rooms.clock()
    if media_type == JSON:
        return Answer(HTTPStatus.OK, canonical(None if canary is None else _signed(canary)).encode())
    if media_type == _TEXT:
        return Answer(HTTPStatus.OK, _canary_text(canary, now).encode(), _TEXT)
    configuration = rooms.configuration
    if canary is None:
        title, content = "The warrant canary", f"<p>{_NONE_PUBLISHED}</p>"
    else:
        title = "The warrant canary has expired" if canary.expired(now) else "The warrant canary"
        content = _canary_html(canary, now, configuration.http.public_url)
    return pages.paper(title, f"<h1>{title}</h1>\n{content}", configuration.hostname)


def _signed(canary: Canary) -> dict[str, object]:
    """What `onward canary verify` reads."""
    return {"signedText": canary.signed_text, "signature": canary.signature, "publicKey": canary.public_key}


def _canary_text(canary: Canary | None, now: int) -> str:
    if canary is None:
        return f"{_NONE_PUBLISHED}\n"
    alarm = [_alarm(canary), ""] if canary.expired(now) else []
    statements = [f"- {statement}" for statement in canary.statements]
    return "\n".join([*alarm, *statements, "", *(f"{name}: {value}" for name, value in _facts(canary))]) + "\n"


def _canary_html(canary: Canary, now: int, public_url: str) -> str:
    alarm = [f'<p class="alarm">{html.escape(_alarm(canary))}</p>'] if canary.expired(now) else []
    items = "".join(f"<li>{html.escape(statement)}</li>" for statement in canary.statements)
    facts = "".join(f"<dt>{name}</dt><dd>{html.escape(value)}</dd>" for name, value in _facts(canary))
    check = f"curl -s -H 'Accept: {JSON}' {public_url}{CANARY_PATH} | onward canary verify --key PUBLIC_KEY -"
    return "\n".join(
        [
            *alarm,
            "<p>Somebody signs these statements away from this appliance, again and again before they expire. One that "
            "has expired is an alarm, and so is one that is signed with another key than the one before.</p>",
            f'<ul class="statements">{items}</ul>',
            f"<dl>{facts}</dl>",
            "<p>To verify it, on a machine of your own, with the public key that you know from before:</p>",
            f"<pre>{html.escape(check)}</pre>",
        ]
    )


def _alarm(canary: Canary) -> str:
    return (
        f"This is an alarm: the canary expired at {_readable(canary.expires_at)}, and nobody has signed it anew. "
        "Do not rely on what it says."
    )


def _facts(canary: Canary) -> tuple[tuple[str, str], ...]:
    return (
        ("Issued", _readable(canary.issued_at)),
        ("Expires", _readable(canary.expires_at)),
        ("Public key (Ed25519, in base64)", canary.public_key),
        ("Signature (in base64, over the octets of the signed text)", canary.signature),
        ("Signed text", canary.signed_text),
    )


def _readable(instant: int) -> str:
    """To the minute, as in `2026-11-20 10:00 UTC`."""
    return f"{format_instant(instant)[:16].replace('T', ' ')} UTC"
