"""Accounts, domains, aliases, destinations, help requests and blocks as rows, and back.

The one place where a field of the model meets its name in the declarations.
"""

from collections.abc import Mapping
from dataclasses import asdict
from enum import Enum
from typing import Any

from appliance.model.account import Account, Role
from appliance.model.block import Block, BlockKind
from appliance.model.domain import Alias, AliasAction, DeliveryMode, Destination, Domain, LogLevel, QuarantineAction
from appliance.model.help import HelpReply, HelpRequest, LogAccess
from appliance.privacy.declarations import Row

_ACTIONS = {action.value: action for action in AliasAction}
"""There may be a million aliases to read, and to ask the Enum takes a fifth of the time of each."""

Value = Account | Domain | Alias | Destination | HelpRequest | HelpReply | LogAccess | Block


def to_row(value: Value) -> Row:
    """A value as the row of its collection."""
    row = {name: _plain(content) for name, content in asdict(value).items()}
    if isinstance(value, Domain):
        row["verified_name"] = value.name if value.verified else None
    return row


def _plain(content: object) -> object:
    if isinstance(content, Enum):
        return content.value
    return list(content) if isinstance(content, tuple) else content


def row_to_account(row: Mapping[str, Any]) -> Account:
    """A row of ACCOUNTS as a value."""
    return Account(**{**row, "role": Role(row["role"])})


def row_to_domain(row: Mapping[str, Any]) -> Domain:
    """A row of DOMAINS as a value."""
    # What was stored before these could be chosen has neither.
    quarantine = row["quarantine_action"]
    return Domain(
        id=row["id"],
        account_id=row["account_id"],
        name=row["name"],
        verified=row["verified"],
        delivery_mode=DeliveryMode(row["delivery_mode"]),
        log_level=LogLevel(row["log_level"]),
        created_at=row["created_at"],
        quarantine_action=QuarantineAction.FORWARD if quarantine is None else QuarantineAction(quarantine),
        allow_from_rewrite=row["allow_from_rewrite"] is True,
    )


def row_to_alias(row: Mapping[str, Any]) -> Alias:
    """A row of ALIASES as a value."""
    return Alias(
        id=row["id"],
        domain_id=row["domain_id"],
        pattern=row["pattern"],
        action=_ACTIONS[row["action"]],
        targets=tuple(row["targets"]),
        reference=row["reference"],
        created_at=row["created_at"],
        enabled=row["enabled"],
        expires_at=row["expires_at"],
        description=row["description"],
        max_uses=row["max_uses"],
        use_counter=row["use_counter"],
        uses=row["uses"] or 0,
    )


def row_to_destination(row: Mapping[str, Any]) -> Destination:
    """A row of DESTINATIONS as a value."""
    return Destination(**row)


def row_to_help_request(row: Mapping[str, Any]) -> HelpRequest:
    """A row of HELP_REQUESTS as a value."""
    return HelpRequest(**row)


def row_to_help_reply(row: Mapping[str, Any]) -> HelpReply:
    """A row of HELP_REPLIES as a value."""
    return HelpReply(**row)


def row_to_log_access(row: Mapping[str, Any]) -> LogAccess:
    """A row of LOG_ACCESSES as a value."""
    return LogAccess(**row)


def row_to_block(row: Mapping[str, Any]) -> Block:
    """A row of BLOCKS as a value."""
    return Block(**{**row, "kind": BlockKind(row["kind"])})
