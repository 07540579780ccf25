"""The pages that the appliance serves: each one file of our own, that asks no other host for anything."""

import base64
import functools
import hashlib
import html
import re
from collections.abc import Iterable
from http import HTTPStatus
from pathlib import Path
from string import Template
from typing import Final

from control_api.exchange import CONTENT_POLICY, Answer

HTML: Final = "text/html; charset=utf-8"

_SHARED_STYLE = '@import "look.css";'
"""In a page: the file of this name goes here, since the policy lets no page load anything."""


@functools.cache
def front() -> Answer:
    """What stands at the root: where the links of our letters lead, and what this is."""
    text = _file("front.html")
    return Answer(HTTPStatus.OK, text.encode(), HTML, (_policy(text, *_SCRIPTED),))


@functools.cache
def explorer() -> Answer:
    """Where a person tries the API. At the same place a program gets something else."""
    text = _file("explorer.html")
    return Answer(HTTPStatus.OK, text.encode(), HTML, (_policy(text, *_SCRIPTED), (b"vary", b"accept")))


def paper(title: str, content: str, host: str, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    """A page that is only read, and has no script. `content` is HTML, from its heading on; the others are texts."""
    template = _file("paper.html")
    text = Template(template).substitute(title=html.escape(title), content=content, host=html.escape(host))
    # Of the template: whatever the content is, it adds no style that may apply.
    return Answer(status, text.encode(), HTML, (_policy(template, ("style",)),))


_SCRIPTED = (("script", "style"), ("connect-src 'self'",))
"""What a page has that asks the API: these elements, and the right to ask."""


def _policy(text: str, elements: Iterable[str], more: Iterable[str] = ()) -> tuple[bytes, bytes]:
    """The header that names a page's own script and style by their digests, and lets nothing else run."""
    parts = (
        "default-src 'none'",
        *(f"{element}-src {_digest(element, text)}" for element in elements),
        *more,
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    return CONTENT_POLICY, "; ".join(parts).encode("ascii")


@functools.cache
def _file(name: str) -> str:
    """A page as it is in its file, with the style that it shares with others."""
    here = Path(__file__)
    text = here.with_name(name).read_text("utf-8")
    return text.replace(_SHARED_STYLE, here.with_name("look.css").read_text("utf-8"))


def _digest(element: str, text: str) -> str:
    """The source expression for the one element of this name (CSP Level 3 §2.3.1)."""
    (content,) = re.findall(f"<{element}>(.*?)</{element}>", text, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
