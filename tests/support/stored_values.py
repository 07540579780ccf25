"""Deliveries, events, rows and keyrings for tests of what is stored: a test names only what it is about."""

from typing import Any

from msgspec.structs import replace

from appliance.model.delivery import Delivery, Recipient
from appliance.model.event import DeliveryEvent, EventType
from appliance.privacy.declarations import Collection, Kind, Protection
from appliance.privacy.sealing import KEY_OCTETS, Keyring, Sealer
from smtp.address import Address

NOON = 1_790_000_000_000
"""An instant; which one does not matter."""


def an_id(number: int) -> str:
    """An identifier of the right form that sorts by its number."""
    return f"{number:020x}"


def a_keyring(*names: str, seed: int = 1) -> Keyring:
    """Sealers under keys that are the same for the same seed; those of both stores without names."""
    names = names or ("accounts", "cluster", "log", "spool")
    return {name: Sealer(bytes([seed]) * (KEY_OCTETS - len(name)) + name.encode()) for name in names}


def a_delivery(number: int = 1, **changes: Any) -> Delivery:
    """A delivery that is due at NOON, of the message of the same number."""
    delivery = Delivery(
        id=an_id(number),
        message_id=an_id(number),
        accepted_at=NOON,
        size=4096,
        priority=0,
        sender="stranger@sender.example",
        return_path="srs0=tag=sender.example=stranger@srs.onward.example",
        target=Address("hidden.person", "mailbox.example"),
        recipients=(Recipient("alias@hosted.example", an_id(900)),),
        eight_bit=False,
        next_attempt_at=NOON,
    )
    return replace(delivery, **changes)


def an_event(number: int = 1, **changes: Any) -> DeliveryEvent:
    """An event with every data point."""
    event = DeliveryEvent(
        id=an_id(number),
        message_id=an_id(number),
        domain_id=an_id(900),
        at=NOON,
        type=EventType.RECEIVED,
        sender="stranger@sender.example",
        recipient="alias@hosted.example",
        size=4096,
        code=250,
        enhanced_code="2.0.0",
        reason="accepted",
        response="2.0.0 Accepted",
        attempt=1,
        duration_ms=7,
        client_address="192.0.2.17",
        client_name="mail.sender.example",
        subject="Quarterly figures",
        server_name="mx.mailbox.example",
        server_address="198.51.100.7",
    )
    return replace(event, **changes)


def a_row(collection: Collection, number: int = 1) -> dict[str, object]:
    """A row of any collection with every field in it, different for each number."""
    values: dict[Kind, object] = {
        Kind.INTEGER: number,
        Kind.BOOLEAN: bool(number % 2),
        Kind.OCTETS: bytes([number % 256]),
        Kind.LIST: [f"one {number}", "two"],
    }
    return {
        field.name: values.get(field.kind, an_id(number) if field.name == "id" else f"{field.name} {number}")
        for field in collection.fields
        if field.protection is not Protection.KEYED
    }
