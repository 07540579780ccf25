"""Signed statements: a text, and an Ed25519 signature (RFC 8032) over its octets that anybody can check.

The text is canonical JSON (`canonical.py`). Signatures and public keys are base64 of their 64 and 32 octets.
"""

import base64
import binascii

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PUBLIC_KEY_OCTETS = 32
SIGNATURE_OCTETS = 64
"""RFC 8032 §5.1.5 and §5.1.6."""


class Signer:
    """Signs under one key. Thread-safe."""

    def __init__(self, key: bytes) -> None:
        """`key` is the 32 octets of a private key (RFC 8032 §5.1.5): any 32. Raises ValueError for another length."""
        self._key = Ed25519PrivateKey.from_private_bytes(key)
        self.public_key = base64.b64encode(self._key.public_key().public_bytes_raw()).decode("ascii")
        """In base64, for whoever wants to check."""

    def sign(self, text: str) -> str:
        """The signature over the octets of a text, in base64."""
        return base64.b64encode(self._key.sign(text.encode())).decode("ascii")


def is_signed(text: str, signature: str, public_key: str) -> bool:
    """Whether this signature over the text is of this key. Never raises, whatever the texts are."""
    try:
        key = Ed25519PublicKey.from_public_bytes(_octets(public_key, PUBLIC_KEY_OCTETS))
        key.verify(_octets(signature, SIGNATURE_OCTETS), text.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def _octets(text: str, count: int) -> bytes:
    """Raises ValueError where the text is not base64 of so many octets."""
    try:
        octets = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if len(octets) != count:
        raise ValueError(f"{len(octets)} octets instead of {count}")
    return octets
