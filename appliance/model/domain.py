"""Domains, their aliases, and where aliases lead."""

from dataclasses import dataclass
from enum import Enum


class DeliveryMode(Enum):
    """What a 250 from us stands on (see the promise in the README)."""

    SPOOL = "spool"
    """Committed to stable storage first, delivered afterwards."""
    TRANSIT = "transit"
    """Never stored: every next hop has said 250 before we do."""


class LogLevel(Enum):
    """How much of a domain's mail the log may remember."""

    NONE = "none"
    ERRORS = "errors"
    """Refusals and bounces only, without the client's address and name and without the subject."""
    EVENTS = "events"
    """The five events with all their data points."""


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain whose mail we take once its ownership is proven."""

    id: str
    account_id: str
    name: str
    """Lower case, A-labels."""
    verified: bool
    delivery_mode: DeliveryMode
    log_level: LogLevel
    created_at: int


class AliasKind(Enum):
    """How a pattern matches a local part. The order is the order of precedence (`appliance.routing`)."""

    EXACT = "exact"
    WILDCARD = "wildcard"
    """`sales*`: everything that begins with `sales`."""
    CATCH_ALL = "catch_all"
    """`*`: everything that no other alias takes."""


class AliasAction(Enum):
    """What becomes of a message that an alias takes."""

    FORWARD = "forward"
    REJECT = "reject"
    """550: no such user."""
    DEFER = "defer"
    """450: try again later."""
    DISCARD = "discard"
    """250, and nothing is forwarded."""


@dataclass(frozen=True, slots=True)
class Alias:
    """A pattern of local parts at a domain, and the mailboxes behind it."""

    id: str
    domain_id: str
    pattern: str
    """Lower case; `AliasKind` follows from it."""
    action: AliasAction
    targets: tuple[str, ...]
    """Addresses; forwarded to only where the account's destination of that name is confirmed."""
    reference: str
    """Six characters that stand for this alias inside a rewritten sender (`appliance.forwarding.srs`)."""
    created_at: int
    enabled: bool = True
    expires_at: int | None = None
    description: str | None = None

    @property
    def kind(self) -> AliasKind:
        """Which kind of pattern this is."""
        if self.pattern == "*":
            return AliasKind.CATCH_ALL
        return AliasKind.WILDCARD if self.pattern.endswith("*") else AliasKind.EXACT


@dataclass(frozen=True, slots=True)
class Destination:
    """A mailbox that an account forwards to; confirmed once its owner has agreed."""

    id: str
    account_id: str
    target: str
    confirmed_at: int | None
    created_at: int
