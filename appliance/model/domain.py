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


class QuarantineAction(Enum):
    """What becomes of mail whose author's domain asks to put it aside (RFC 9989: `p=quarantine`)."""

    FORWARD = "forward"
    """It goes on, and the mailbox decides: it has a folder for such mail, and we have none."""
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain whose mail we take once its ownership is proven.

    Several accounts may have said that a name is theirs; one of them at most has proven it.
    """

    id: str
    account_id: str
    name: str
    """Lower case, A-labels."""
    verified: bool
    delivery_mode: DeliveryMode
    log_level: LogLevel
    created_at: int
    quarantine_action: QuarantineAction = QuarantineAction.FORWARD
    allow_from_rewrite: bool = False
    """Whether From may be rewritten where DMARC would otherwise fail at the next hop. It changes what people read, so
    the owner has to want it."""


class AliasKind(Enum):
    """How a pattern matches a local part. The order is the order of precedence (`appliance.routing`)."""

    EXACT = "exact"
    WILDCARD = "wildcard"
    """`sales*`: everything that begins with `sales`."""
    REGEX = "regex"
    """`/^support-(.+)$/`: everything that the RE2 expression between the slashes finds something in."""
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
    """Lower case, but for an expression, which is as it was typed; `AliasKind` follows from it."""
    action: AliasAction
    targets: tuple[str, ...]
    """Addresses; forwarded to only where the account's destination of that name is confirmed. Those of an expression
    may have `$1` to `$9` in their local part, for what its groups have found."""
    reference: str
    """Six characters that stand for this alias inside a rewritten sender (`appliance.forwarding.srs`)."""
    created_at: int
    enabled: bool = True
    expires_at: int | None = None
    description: str | None = None
    max_uses: int | None = None
    """How many messages it takes from the instant on at which this was set; None for no limit."""
    use_counter: str | None = None
    """Names the counter of these messages; it is another one each time that a limit is set."""
    uses: int = 0
    """What the counter was at when it was last copied here: it counts in the spool, and is moments ahead."""

    @property
    def remaining_uses(self) -> int | None:
        """How many more messages it takes, as far as is known here; None for no limit."""
        return None if self.max_uses is None else max(0, self.max_uses - self.uses)

    @property
    def kind(self) -> AliasKind:
        """Which kind of pattern this is."""
        if self.pattern == "*":
            return AliasKind.CATCH_ALL
        if len(self.pattern) > 1 and self.pattern[0] == self.pattern[-1] == "/":
            return AliasKind.REGEX
        return AliasKind.WILDCARD if self.pattern.endswith("*") else AliasKind.EXACT


@dataclass(frozen=True, slots=True)
class Destination:
    """A mailbox that an account forwards to; confirmed once its owner has agreed."""

    id: str
    account_id: str
    target: str
    confirmed_at: int | None
    created_at: int
