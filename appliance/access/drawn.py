"""Secrets that are drawn at random: cookies, tokens, links. What is drawn is shown once; a hash of it is kept.

Unlike a password, nobody guesses one of 2^256: a plain hash of it tells nothing, and is found by an index.
"""

import secrets
from hashlib import sha256

SECRET_OCTETS = 32


def draw() -> str:
    """A secret, of letters that need no escape in a link, a cookie or a header."""
    return secrets.token_urlsafe(SECRET_OCTETS)


def hash_of(secret: str) -> str:
    """What is kept of one. Takes whatever a stranger shows."""
    return sha256(secret.encode("utf-8", "replace")).hexdigest()
