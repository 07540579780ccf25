"""Accounts, domains, aliases and destinations as rows, and back.

The one place where a field of the model meets its name in the declarations.
"""

from collections.abc import Mapping
from dataclasses import asdict
from enum import Enum
from typing import Any

from appliance.model.account import Account, Role
from appliance.model.domain import Alias, AliasAction, DeliveryMode, Destination, Domain, LogLevel
from appliance.privacy.declarations import Row


def to_row(value: Account | Domain | Alias | Destination) -> Row:
    """A value as the row of its collection."""
    return {name: _plain(content) for name, content in asdict(value).items()}


def _plain(content: object) -> object:
    if isinstance(content, Enum):
        return content.value
    return list(content) if isinstance(content, tuple) else content


def row_to_account(row: Mapping[str, Any]) -> Account:
    """A row of ACCOUNTS as a value."""
    return Account(**{**row, "role": Role(row["role"])})


def row_to_domain(row: Mapping[str, Any]) -> Domain:
    """A row of DOMAINS as a value."""
    return Domain(
        **{
            **row,
            "delivery_mode": DeliveryMode(row["delivery_mode"]),
            "log_level": LogLevel(row["log_level"]),
        }
    )


def row_to_alias(row: Mapping[str, Any]) -> Alias:
    """A row of ALIASES as a value."""
    return Alias(**{**row, "action": AliasAction(row["action"]), "targets": tuple(row["targets"])})


def row_to_destination(row: Mapping[str, Any]) -> Destination:
    """A row of DESTINATIONS as a value."""
    return Destination(**row)
