"""What the spool keeps, as rows, and back: deliveries, holds and return paths.

A target is kept as its two parts with an @ between, unquoted, and parted at the last one: a domain never has an @.
Unlike the form of RFC 5321 that can be read back whatever the parts are, by any later version: a delivery that could
not be read would be mail that is neither delivered nor bounced.
"""

from typing import cast

from appliance.model.delivery import Delivery, DeliveryState, Recipient
from appliance.model.hold import Hold
from appliance.privacy.declarations import Row
from appliance.storage.spool import ReturnPath
from smtp.address import Address


def delivery_to_row(delivery: Delivery) -> Row:
    """The row of DELIVERIES that says what this delivery says."""
    return {
        "id": delivery.id,
        "message_id": delivery.message_id,
        "accepted_at": delivery.accepted_at,
        "size": delivery.size,
        "priority": delivery.priority,
        "eight_bit": delivery.eight_bit,
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        "next_attempt_at": delivery.next_attempt_at,
        "sender": delivery.sender,
        "return_path": delivery.return_path,
        "target": f"{delivery.target.local_part}@{delivery.target.domain}",
        "destination": delivery.target.key[1],
        "recipients": [_recipient_to_mapping(recipient) for recipient in delivery.recipients],
        "last_response": delivery.last_response,
        "utf8": delivery.utf8 or None,
        "require_tls": delivery.require_tls or None,
        "ret": delivery.ret or None,
        "envid": delivery.envid or None,
        "running_since": delivery.running_since or None,
        "authentication": delivery.authentication or None,
        "delay_told": delivery.delay_told or None,
        "held_for": delivery.held_for or None,
    }


def row_to_delivery(row: Row) -> Delivery:
    """The delivery that a row says. The codec has checked the row's types already."""
    recipients = cast("list[dict[str, str]]", row["recipients"])
    local_part, _, domain = cast(str, row["target"]).rpartition("@")
    return Delivery(
        id=cast(str, row["id"]),
        message_id=cast(str, row["message_id"]),
        accepted_at=cast(int, row["accepted_at"]),
        size=cast(int, row["size"]),
        priority=cast(int, row["priority"]),
        sender=cast(str, row["sender"]),
        return_path=cast(str, row["return_path"]),
        target=Address(local_part, domain),
        recipients=tuple(
            Recipient(each["address"], each["domain_id"], each.get("notify", ""), each.get("orcpt", ""))
            for each in recipients
        ),
        eight_bit=cast(bool, row["eight_bit"]),
        state=DeliveryState(row["state"]),
        attempts=cast(int, row["attempts"]),
        next_attempt_at=cast(int, row["next_attempt_at"]),
        last_response=cast("str | None", row["last_response"]),
        # Rows of earlier versions do not say it, and such a target can be reached in no other way (RFC 6531 §3.2).
        utf8=row["utf8"] is True or not local_part.isascii(),
        require_tls=row["require_tls"] is True,
        ret=cast("str | None", row["ret"]) or "",
        envid=cast("str | None", row["envid"]) or "",
        running_since=cast("int | None", row["running_since"]) or 0,
        authentication=cast("str | None", row["authentication"]) or "",
        delay_told=row["delay_told"] is True,
        held_for=cast("str | None", row["held_for"]) or "",
    )


def _recipient_to_mapping(recipient: Recipient) -> dict[str, str]:
    mapping = {"address": recipient.address, "domain_id": recipient.domain_id}
    if recipient.notify:
        mapping["notify"] = recipient.notify
    if recipient.orcpt:
        mapping["orcpt"] = recipient.orcpt
    return mapping


def hold_to_row(hold: Hold) -> Row:
    """The row of HOLDS that says what this hold says."""
    return {
        "id": hold.id,
        "created_at": hold.created_at,
        "by_account": hold.by_account or None,
        "domain": hold.domain or None,
        "destination": hold.destination or None,
        "sender": hold.sender,
    }


def row_to_hold(row: Row) -> Hold:
    """The hold that a row says."""
    return Hold(
        id=cast(str, row["id"]),
        created_at=cast(int, row["created_at"]),
        domain=cast("str | None", row["domain"]) or "",
        destination=cast("str | None", row["destination"]) or "",
        sender=cast("str | None", row["sender"]),
        by_account=bool(row["by_account"]),
    )


def return_path_to_row(return_path: ReturnPath) -> Row:
    """The row of RETURN_PATHS that says what this return path says."""
    return {
        "token": return_path.token,
        "sender": return_path.sender,
        "reference": return_path.reference,
        "created_at": return_path.created_at,
    }


def row_to_return_path(row: Row) -> ReturnPath:
    """The return path that a row says."""
    return ReturnPath(
        token=cast(str, row["token"]),
        sender=cast(str, row["sender"]),
        reference=cast(str, row["reference"]),
        created_at=cast(int, row["created_at"]),
    )
