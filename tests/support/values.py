"""Values of the model for tests, with everything filled in that a test does not care about."""

from typing import Any

from msgspec.structs import replace

from appliance.model.delivery import Answer, Delivery, Recipient
from appliance.model.event import DeliveryEvent, EventType
from smtp.address import Address

NOW = 1_800_000_000_000


def delivery(id: str = "d1", message_id: str = "m1", **changes: Any) -> Delivery:
    """A delivery for alice@home.test, written to sales@example.org by friend@sender.test."""
    return replace(
        Delivery(
            id=id,
            message_id=message_id,
            accepted_at=NOW,
            size=100,
            priority=0,
            sender="friend@sender.test",
            return_path="srs0=x@srs.mx.example.net",
            target=Address("alice", "home.test"),
            recipients=(Recipient("sales@example.org", "domain1"),),
            eight_bit=False,
            next_attempt_at=NOW,
        ),
        **changes,
    )


def answer(code: int = 250, **changes: Any) -> Answer:
    """What a server said."""
    return replace(Answer(code, f"{code // 100}.0.0", "delivered", "ok", "mx.home.test", "192.0.2.1"), **changes)


def event(id: str = "e1", type: EventType = EventType.DELIVERED, **changes: Any) -> DeliveryEvent:
    """An event of the message m1."""
    return replace(
        DeliveryEvent(
            id=id,
            message_id="m1",
            domain_id="domain1",
            at=NOW,
            type=type,
            sender="friend@sender.test",
            recipient="sales@example.org",
            size=100,
            code=250,
            enhanced_code="2.0.0",
            reason="delivered",
            response="ok",
            attempt=1,
            duration_ms=5,
        ),
        **changes,
    )
