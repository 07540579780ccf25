"""Ids as the API shows them: one name for everything that can be named, whatever kind of thing it is.

A global id is the kind and the stored id, `Domain:01k9...`, in base64url without padding, as Relay has it. Nobody is to
take it apart, and nothing depends on nobody doing so: whoever asks with it is asked who they are all the same.
"""

import base64
import binascii
from typing import Final

import strawberry

from control_api.errors import not_found

MAX_ID_LENGTH = 256
"""Characters of a global id. Ours have less than a hundred."""


_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


def global_id(kind: str, stored_id: str) -> strawberry.ID:
    """The id of a thing of this GraphQL type."""
    return strawberry.ID(base64url(f"{kind}:{stored_id}"))


def base64url(text: str) -> str:
    """A text in base64url without padding (RFC 4648 §5). Each row of a page has one: this is the short way to it."""
    octets = binascii.b2a_base64(text.encode(), newline=False)
    return octets.translate(_URL_SAFE).rstrip(b"=").decode("ascii")


def taken_apart(id: str) -> tuple[str, str] | None:
    """The kind and the stored id of what `global_id` has made; None for anything else."""
    if len(id) > MAX_ID_LENGTH:
        return None
    try:
        octets = base64.b64decode(id + "=" * (-len(id) % 4), altchars=b"-_", validate=True)
        kind, colon, stored_id = octets.decode("ascii").partition(":")
    except (binascii.Error, ValueError):
        return None
    return (kind, stored_id) if colon and stored_id else None


def stored_id(id: str, kind: str) -> str:
    """The stored id behind the id of a thing that has to be of this kind. Raises NOT_FOUND where it is none."""
    parts = taken_apart(id)
    if parts is None or parts[0] != kind:
        raise not_found(_words(kind))
    return parts[1]


def _words(kind: str) -> str:
    """`HelpRequest` is `help request`."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in kind).strip()
