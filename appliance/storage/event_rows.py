"""Delivery events as rows, and back: the same for the outbox of the spool and for the log."""

from typing import cast

from appliance.model.event import DeliveryEvent, EventType
from appliance.privacy.declarations import Row


def event_to_row(event: DeliveryEvent) -> Row:
    """The row of EVENTS (and of OUTBOX) that says what this event says."""
    return {
        "id": event.id,
        "message_id": event.message_id,
        "domain_id": event.domain_id,
        "at": event.at,
        "type": event.type.value,
        "size": event.size,
        "code": event.code,
        "enhanced_code": event.enhanced_code,
        "reason": event.reason,
        "attempt": event.attempt,
        "duration_ms": event.duration_ms,
        "sender": event.sender,
        "recipient": event.recipient,
        "response": event.response,
        "client_address": event.client_address,
        "client_name": event.client_name,
        "subject": event.subject,
        "server_name": event.server_name,
        "server_address": event.server_address,
        "tls": event.tls,
    }


def row_to_event(row: Row) -> DeliveryEvent:
    """The event that a row says. The codec has checked the row's types already."""
    return DeliveryEvent(
        id=cast(str, row["id"]),
        message_id=cast(str, row["message_id"]),
        domain_id=cast(str, row["domain_id"]),
        at=cast(int, row["at"]),
        type=EventType(row["type"]),
        size=cast(int, row["size"]),
        code=cast(int, row["code"]),
        enhanced_code=cast("str | None", row["enhanced_code"]),
        reason=cast(str, row["reason"]),
        attempt=cast(int, row["attempt"]),
        duration_ms=cast(int, row["duration_ms"]),
        sender=cast(str, row["sender"]),
        recipient=cast(str, row["recipient"]),
        response=cast(str, row["response"]),
        client_address=cast("str | None", row["client_address"]),
        client_name=cast("str | None", row["client_name"]),
        subject=cast("str | None", row["subject"]),
        server_name=cast("str | None", row["server_name"]),
        server_address=cast("str | None", row["server_address"]),
        tls=cast("str | None", row["tls"]),
    )
