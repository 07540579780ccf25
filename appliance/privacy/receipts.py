"""The receipt that somebody gets for a deleted account: what was erased, signed, and nothing about anybody in it.

Whoever has deleted an account can show it to others, and these can check that this appliance has said so; it tells
neither whose account that was nor what was in it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from appliance.model.time import format_instant
from appliance.privacy.canonical import canonical
from appliance.privacy.signatures import Signer

RECEIPT_KEY = "receipts"
"""The name of the secret that receipts are signed with; its public half stands in each."""


@dataclass(frozen=True, slots=True)
class Removed:
    """How much of one class of data went with an account."""

    collection: str
    count: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was erased, and the signature over it."""

    deleted_at: int
    removed: tuple[Removed, ...]
    signed_text: str
    signature: str
    public_key: str


def receipt(signer: Signer, appliance: str, deleted_at: int, removed: Iterable[Removed]) -> Receipt:
    """Sign what was erased. `appliance` is the name of the host that says so."""
    removed = tuple(removed)
    text = canonical(
        {
            "appliance": appliance,
            "deletedAt": format_instant(deleted_at),
            "removed": [{"collection": each.collection, "count": each.count} for each in removed],
        }
    )
    return Receipt(deleted_at, removed, text, signer.sign(text), signer.public_key)
