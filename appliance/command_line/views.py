"""Values as the API shows them: the field names and enum values of graphql/schema.graphql, times as RFC 3339.

Each is a selection of the type's fields: what is not at hand here is left out, not made up.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from appliance.accounts.aliases import ListedAlias
from appliance.command_line.api_ids import own_id
from appliance.model.account import Account, Plan
from appliance.model.domain import Domain
from appliance.model.event import DeliveryEvent
from appliance.model.time import format_instant

if TYPE_CHECKING:
    from appliance.accounts.ownership import DnsRecord
    from appliance.privacy.canary import Canary
    from appliance.privacy.receipts import Receipt
    from appliance.routing.explained import Explanation

Json = dict[str, Any]


def account_view(account: Account, plans: Mapping[str, Plan]) -> Json:
    """`Account`."""
    return {
        "id": account.id,
        "email": account.email,
        "emailVerified": account.email_verified,
        "role": account.role.name,
        "plan": _plan_view(account.plan, plans.get(account.plan)),
        "createdAt": format_instant(account.created_at),
    }


def _plan_view(name: str, plan: Plan | None) -> Json:
    if plan is None:
        # The configuration has lost it since: the name is all there is.
        return {"name": name}
    return {
        "name": plan.name,
        "maxMessageBytes": plan.max_message_octets,
        "maxDomains": plan.max_domains,
        "maxAliasesPerDomain": plan.max_aliases_per_domain,
        "maxMessagesPerDay": plan.max_messages_per_day,
        "priority": plan.priority,
    }


def receipt_view(receipt: "Receipt") -> Json:
    """`DeletionReceipt`."""
    return {
        "deletedAt": format_instant(receipt.deleted_at),
        "removed": [{"collection": each.collection, "count": each.count} for each in receipt.removed],
        "signature": receipt.signature,
        "publicKey": receipt.public_key,
        "signedText": receipt.signed_text,
    }


def canary_view(canary: "Canary", now: int) -> Json:
    """`WarrantCanary`."""
    return {
        "statements": list(canary.statements),
        "issuedAt": format_instant(canary.issued_at),
        "expiresAt": format_instant(canary.expires_at),
        "expired": canary.expired(now),
        "signature": canary.signature,
        "publicKey": canary.public_key,
        "signedText": canary.signed_text,
    }


def domain_view(domain: Domain) -> Json:
    """`Domain`."""
    return {
        "id": domain.id,
        "name": domain.name,
        "verified": domain.verified,
        "deliveryMode": domain.delivery_mode.name,
        "logLevel": domain.log_level.name,
        "quarantineAction": domain.quarantine_action.name,
        "allowFromRewrite": domain.allow_from_rewrite,
        "createdAt": format_instant(domain.created_at),
    }


def dns_record_view(record: "DnsRecord") -> Json:
    """`DnsRecord`."""
    return {
        "purpose": record.purpose.name,
        "name": record.name,
        "type": record.type,
        "expected": record.expected,
        "found": list(record.found),
        "ok": record.ok,
        "required": record.required,
        "advice": record.advice,
    }


def alias_view(listed: ListedAlias) -> Json:
    """`Alias`."""
    alias = listed.alias
    return {
        "id": alias.id,
        "domain": {"id": listed.domain.id, "name": listed.domain.name},
        "pattern": alias.pattern,
        "kind": alias.kind.name,
        "action": alias.action.name,
        "destinations": [{"target": target, "confirmed": confirmed} for target, confirmed in listed.destinations],
        "enabled": alias.enabled,
        "expiresAt": None if alias.expires_at is None else format_instant(alias.expires_at),
        "remainingUses": alias.remaining_uses,
        "description": alias.description,
        "createdAt": format_instant(alias.created_at),
    }


def event_view(event: DeliveryEvent) -> Json:
    """`DeliveryEvent`, with the data points of its `Message` that the event carries."""
    return {
        "id": event.id,
        "message": {
            "id": event.message_id,
            "clientAddress": event.client_address,
            "clientName": event.client_name,
            "subject": event.subject,
            "sender": event.sender,
            "recipient": event.recipient,
            "sizeBytes": event.size,
        },
        "at": format_instant(event.at),
        "type": event.type.name,
        "response": event.response,
        "code": event.code,
        "enhancedCode": event.enhanced_code,
        "reason": event.reason,
        "serverName": event.server_name,
        "serverAddress": event.server_address,
        "tls": event.tls,
        "durationMs": event.duration_ms,
        "attempt": event.attempt,
    }


def explanation_view(explanation: "Explanation") -> Json:
    """`Explanation`."""
    return {
        "accepted": explanation.accepted,
        "code": explanation.reply.code,
        "enhancedCode": explanation.reply.enhanced,
        "reply": explanation.reply.text,
        "reason": explanation.reason,
        "steps": [{"check": step.check, "outcome": step.outcome, "detail": step.detail} for step in explanation.steps],
        "deliveries": [
            {
                "target": delivery.target,
                "envelopeSender": delivery.envelope_sender,
                "hosts": list(delivery.hosts),
                "mode": delivery.mode.name,
            }
            for delivery in explanation.deliveries
        ],
    }


def delivery_view(delivery: Mapping[str, Any]) -> Json:
    """`Delivery`, as the API has answered, with its id as it stands in the lines of the log."""
    return {**delivery, "id": own_id(delivery["id"])}


def hold_view(rule: Mapping[str, Any]) -> Json:
    """`Hold`, the same."""
    return {**rule, "id": own_id(rule["id"])}
