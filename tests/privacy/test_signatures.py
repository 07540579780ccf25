"""Signed statements: one text for one meaning, and a signature that is good for this text and this key alone."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.privacy.canonical import canonical
from appliance.privacy.receipts import Removed, receipt
from appliance.privacy.signatures import Signer, is_signed

SIGNER = Signer(bytes(range(32)))


def test_a_value_has_one_canonical_text() -> None:
    value = {"b": [1, None, True], "a": {"z": "Grüße", "y": ""}}
    assert canonical(value) == '{"a":{"y":"","z":"Grüße"},"b":[1,null,true]}'
    assert canonical(dict(reversed(value.items()))) == canonical(value)


def test_a_signature_is_ed25519_as_others_check_it() -> None:
    """RFC 8032 §7.1, TEST 1: the empty text under this key."""
    signer = Signer(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    public = base64.b64decode(signer.public_key)
    assert public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    signature = base64.b64decode(signer.sign(""))
    assert signature.hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    Ed25519PublicKey.from_public_bytes(public).verify(signature, b"")


def test_a_signature_holds_for_its_text_and_its_key_alone() -> None:
    text, other = "Grüße", Signer(bytes(32))
    signature = SIGNER.sign(text)
    assert is_signed(text, signature, SIGNER.public_key)
    assert not is_signed(text + " ", signature, SIGNER.public_key)
    assert not is_signed(text, signature, other.public_key)
    assert not is_signed(text, other.sign(text), SIGNER.public_key)


@pytest.mark.parametrize("nonsense", ["", "x", "AAAA", "=" * 44, "ä" * 44, "\ud800", SIGNER.public_key + "\n"])
def test_what_is_no_signature_or_no_key_is_not_signed(nonsense: str) -> None:
    assert not is_signed("text", nonsense, SIGNER.public_key)
    assert not is_signed("text", SIGNER.sign("text"), nonsense)
    assert not is_signed("\ud800", SIGNER.sign("text"), SIGNER.public_key)


def test_a_key_of_the_wrong_length_is_no_key() -> None:
    with pytest.raises(ValueError, match="32"):
        Signer(bytes(31))


def test_a_receipt_says_what_was_erased_in_the_order_given() -> None:
    made = receipt(SIGNER, "mx.onward.test", 0, [Removed("domains", 2), Removed("accounts", 1)])
    assert made.signed_text == (
        '{"appliance":"mx.onward.test","deletedAt":"1970-01-01T00:00:00.000Z",'
        '"removed":[{"collection":"domains","count":2},{"collection":"accounts","count":1}]}'
    )
    assert is_signed(made.signed_text, made.signature, made.public_key)
