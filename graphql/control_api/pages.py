"""The pages that the appliance serves: each one file of our own, that asks no other host for anything."""

import base64
import functools
import hashlib
import re
from http import HTTPStatus
from pathlib import Path

from control_api.exchange import CONTENT_POLICY, Answer


@functools.cache
def front() -> Answer:
    """What stands at the root: where the links of our letters lead, and what this is."""
    return _page("front.html")


@functools.cache
def explorer() -> Answer:
    """Where a person tries the API. At the same place a program gets something else."""
    return _page("explorer.html", (b"vary", b"accept"))


def _page(name: str, *headers: tuple[bytes, bytes]) -> Answer:
    """A page. Its policy names its own script and style by their digests, and lets nothing else run."""
    text = Path(__file__).with_name(name).read_text("utf-8")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_digest('script', text)}",
            f"style-src {_digest('style', text)}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    own = (CONTENT_POLICY, policy.encode("ascii"))
    return Answer(HTTPStatus.OK, text.encode(), "text/html; charset=utf-8", (own, *headers))


def _digest(element: str, text: str) -> str:
    """The source expression for the one element of this name (CSP Level 3 §2.3.1)."""
    (content,) = re.findall(f"<{element}>(.*?)</{element}>", text, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
