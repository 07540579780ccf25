"""What a sealer promises: only the right key, in the right place, opens; and the same value gives the same MAC."""

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from appliance.privacy.sealing import KEY_OCTETS, MAC_OCTETS, SEALING_OCTETS, Sealer, Unsealable

KEY = bytes(range(KEY_OCTETS))
SEALER = Sealer(KEY)


@given(st.binary(max_size=300), st.binary(max_size=40))
def test_what_is_sealed_opens_again(plaintext: bytes, context: bytes) -> None:
    sealed = SEALER.seal(plaintext, context)
    assert len(sealed) == len(plaintext) + SEALING_OCTETS
    assert Sealer(KEY).open(sealed, context) == plaintext


def test_another_key_another_context_or_another_octet_does_not_open() -> None:
    sealed = SEALER.seal(b"plaintext", b"context")
    with pytest.raises(Unsealable):
        Sealer(bytes(KEY_OCTETS)).open(sealed, b"context")
    for context in (b"", b"contex", b"context\x01", b"Context"):
        with pytest.raises(Unsealable):
            SEALER.open(sealed, context)
    for position in range(len(sealed)):
        damaged = bytearray(sealed)
        damaged[position] ^= 1
        with pytest.raises(Unsealable):
            SEALER.open(bytes(damaged), b"context")
    for length in range(len(sealed)):
        with pytest.raises(Unsealable):
            SEALER.open(sealed[:length], b"context")


def test_the_same_plaintext_never_looks_the_same() -> None:
    assert len({SEALER.seal(b"plaintext", b"context") for _ in range(100)}) == 100


def test_the_layout_on_the_disk() -> None:
    """What later versions have to open: written down with nothing but HMAC and AES-GCM, from RFC 5869."""

    def hmac_sha256(key: bytes, octets: bytes) -> bytes:
        return hmac.digest(key, octets, "sha256")

    def subkey(purpose: bytes) -> bytes:
        return hmac_sha256(hmac_sha256(bytes(32), KEY), purpose + b"\x01")

    row_key = hmac_sha256(subkey(b"onward: sealing"), b"context" + b"\x01")
    nonce = b"twelve octet"
    sealed = b"\x01" + nonce + AESGCM(row_key).encrypt(nonce, b"plaintext", b"\x01")
    assert SEALER.open(sealed, b"context") == b"plaintext"
    mac = hmac_sha256(subkey(b"onward: keyed fields"), b"context\0value")
    assert SEALER.mac("value", "context") == mac[:MAC_OCTETS]


def test_no_two_rows_are_sealed_under_one_key() -> None:
    """The decision on nonces: under one AES key there is one row, so that random nonces can't meet."""
    first, second = SEALER._row_key(b"row 1"), SEALER._row_key(b"row 2")
    assert first != second
    assert len(first) == len(second) == 32
    assert first == SEALER._row_key(b"row 1")


def test_a_mac_depends_on_key_context_and_value() -> None:
    mac = SEALER.mac("ann@sender.example", "events/sender_key")
    assert len(mac) == MAC_OCTETS
    assert mac == Sealer(KEY).mac("ann@sender.example", "events/sender_key")
    others = {
        Sealer(bytes(KEY_OCTETS)).mac("ann@sender.example", "events/sender_key"),
        SEALER.mac("ann@sender.example", "events/recipient_key"),
        SEALER.mac("Ann@sender.example", "events/sender_key"),
        SEALER.mac("", "events/sender_key"),
        hashlib.sha256(b"ann@sender.example").digest()[:MAC_OCTETS],
    }
    assert len(others) == 5
    assert mac not in others


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_key_of_another_length_is_none(length: int) -> None:
    with pytest.raises(ValueError, match=f"32 octets, not {length}"):
        Sealer(bytes(length))
