"""Who owns domains, and what their plan allows."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Role(Enum):
    """What an account may see. An operator steers the whole appliance; a member sees own domains."""

    MEMBER = "member"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Plan:
    """What an account may use. Plans are defined in the configuration, not stored."""

    name: str
    max_message_octets: int
    max_domains: int
    max_aliases_per_domain: int
    max_messages_per_day: int
    priority: int
    """Higher is delivered first."""


DEFAULT_PLAN = "free"
"""The plan of a new account; where the configuration has none of this name, the first that it has."""


def usual_plan(plans: Mapping[str, Plan]) -> str:
    """The name of the plan that a new account has."""
    return DEFAULT_PLAN if DEFAULT_PLAN in plans else next(iter(plans))


@dataclass(frozen=True, slots=True)
class Account:
    """A person who owns domains."""

    id: str
    email: str
    email_verified: bool
    role: Role
    plan: str
    """The name of a plan in the configuration."""
    created_at: int
    password_hash: str | None = None
    """Argon2id in PHC form; None for an account that cannot sign in yet."""
    password_changed_at: int | None = None
    """When its owner set another one; sessions from before have ended."""
