"""The cryptography of sealed and keyed fields: one `Sealer` for each key.

What a sealer knows is 32 octets of key. From them it derives, by HKDF-SHA256 (RFC 5869), one key to seal with and one
to make MACs with, so that neither says anything about the other. Destroy the 32 octets, and what was sealed is noise.

The decision on nonces
----------------------
AES-GCM breaks when a nonce comes twice under one key, and random nonces of 96 bits do that by the birthday bound: NIST
SP 800-38D §8.3 allows 2^32 of them under one key. A busy appliance seals four times for each message and would be there
in two weeks, while the key is to live for years. So no two rows share a key: each context (the name of the collection
and the key of the row) is expanded into an AES-256 key of its own, and only what is sealed again and again *for the
same row*, a delivery that is deferred, draws on the same 2^32. That needs no counter that a crash, a fork or a restored
backup could turn back, costs one HMAC (about 1 µs), and binds the sealed octets to their row: moved to another, they
meet another key and do not open.
"""

import os
from collections import deque
from collections.abc import Callable, Mapping
from functools import lru_cache
from hmac import compare_digest

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_OCTETS = 32
"""What AES-256 takes, and the output of SHA-256."""

MAC_OCTETS = 16
"""Enough that two values of one field never meet by chance; half the index of a whole SHA-256."""

MACS_REMEMBERED = 512
"""The last MACs, with what they stand for, that a sealer keeps at hand. The events of one message have the same sender
and recipient, and a destination comes again and again: looked up, a MAC costs a tenth. No more than are needed for the
messages of some moments, because each keeps an address in memory."""

# How the octets behind it are laid out: nonce, ciphertext, tag. A later layout gets the next number.
_VERSION = b"\x01"
_NONCE_OCTETS = 12
_NONCES_AT_ONCE = 256
_TAG_OCTETS = 16

SEALING_OCTETS = len(_VERSION) + _NONCE_OCTETS + _TAG_OCTETS
"""By how much sealed octets are longer than the plaintext."""


class Unsealable(Exception):
    """These octets were not sealed under this key for this context, or are damaged."""


class Sealer:
    """Seals, opens and makes MACs under one key. Thread-safe, and harmless to fork."""

    __slots__ = ("_macs", "_row_keys", "mac")

    def __init__(self, key: bytes) -> None:
        """Raises ValueError where the key is not 32 octets long."""
        if len(key) != KEY_OCTETS:
            raise ValueError(f"a sealing key has {KEY_OCTETS} octets, not {len(key)}")
        # Both stand ready with the key absorbed and are only ever copied: half the cost of a new HMAC.
        self._row_keys = HMAC(_subkey(key, b"onward: sealing"), SHA256())
        self._macs = HMAC(_subkey(key, b"onward: keyed fields"), SHA256())
        self.mac: Callable[[str, str], bytes] = lru_cache(MACS_REMEMBERED)(self._mac)
        """Sixteen octets that stand for a value (the first) in a context, the same each time."""

    def seal(self, plaintext: bytes, context: bytes) -> bytes:
        """Encrypt and authenticate, for this context only. The result is `SEALING_OCTETS` longer than the plaintext."""
        try:
            nonce = _nonces.pop()
        except IndexError:
            nonce = _drawn_nonce()
        return _VERSION + nonce + AESGCM(self._row_key(context)).encrypt(nonce, plaintext, _VERSION)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """What was sealed for this context. Raises Unsealable."""
        if len(sealed) < SEALING_OCTETS or not compare_digest(sealed[:1], _VERSION):
            raise Unsealable("these octets are not sealed in a way that is known here")
        nonce, ciphertext = sealed[1 : 1 + _NONCE_OCTETS], sealed[1 + _NONCE_OCTETS :]
        try:
            return AESGCM(self._row_key(context)).decrypt(nonce, ciphertext, _VERSION)
        except InvalidTag:
            raise Unsealable("sealed under another key or for another row, or damaged") from None

    def _mac(self, value: str, context: str) -> bytes:
        state = self._macs.copy()
        # A context is made of declared names, which have no NUL: the first one ends it, whatever the value holds.
        state.update(f"{context}\0{value}".encode())
        return state.finalize()[:MAC_OCTETS]

    def _row_key(self, context: bytes) -> bytes:
        # RFC 5869 §2.3 with one block of output: T(1) = HMAC-Hash(PRK, info | 0x01)
        state = self._row_keys.copy()
        state.update(context + b"\x01")
        return state.finalize()


_nonces: deque[bytes] = deque()
# A child of fork must not say again what its parent is about to say.
os.register_at_fork(after_in_child=_nonces.clear)


def _drawn_nonce() -> bytes:
    """Twelve random octets. Drawn with many for later: each call to the kernel lets go of the interpreter's lock."""
    drawn = os.urandom(_NONCES_AT_ONCE * _NONCE_OCTETS)
    first, *later = [drawn[at : at + _NONCE_OCTETS] for at in range(0, len(drawn), _NONCE_OCTETS)]
    _nonces.extend(later)
    return first


Keyring = Mapping[str, Sealer]
"""The sealers by the name that `Collection.sealed_under` gives. A process holds only those that it needs."""


def _subkey(key: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), KEY_OCTETS, salt=None, info=purpose).derive(key)
