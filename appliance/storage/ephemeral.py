"""The ephemeral store: what is remembered for a while, and would be no loss of mail if it were forgotten at once.

Losing it may let a sender's retry reach a next hop twice, and a report come back to nobody; nothing worse. Each class
of what is kept is a value (`Fleeting`) that says why, how long and how much of it at most. Keys are MACs and values are
sealed by whoever remembers them: nothing here names a person, whatever a backend does with it.
"""

from dataclasses import dataclass
from typing import Protocol

from appliance.model.time import DAY_MS, HOUR_MS


@dataclass(frozen=True, slots=True)
class Fleeting:
    """One class of what is remembered."""

    name: str
    purpose: str
    """For people."""
    lifetime_ms: int
    max_entries: int
    """Beyond it the oldest is forgotten: no stranger makes memory grow."""


TRANSIT_DELIVERED = Fleeting(
    name="transit_delivered",
    purpose="Which mailboxes have a message already that its sender was asked to send again (a MAC of the envelope and "
    "the message), so that the next attempt leaves them out.",
    # RFC 5321 §4.5.4.1: senders give up after four or five days.
    lifetime_ms=5 * DAY_MS,
    max_entries=100_000,
)

TRANSIT_REFUSED = Fleeting(
    name="transit_refused",
    purpose="Which aliases a message was refused for while others took it, so that its sender hears that at the next "
    "attempt.",
    # Whoever was put off comes back within that (RFC 5321 §4.5.4.1: after half an hour or so). Longer would catch more
    # messages that only look like the retry; shorter costs the sender one more round.
    lifetime_ms=4 * HOUR_MS,
    max_entries=10_000,
)

TRANSIT_RETURN_PATHS = Fleeting(
    name="transit_return_paths",
    purpose="Senders whose address is too long to be carried inside a rewritten one, so that a bounce can find them.",
    # As long as a rewritten sender is valid (`appliance.forwarding.srs.VALID_DAYS`).
    lifetime_ms=21 * DAY_MS,
    max_entries=100_000,
)


class EphemeralStore(Protocol):
    """What is needed of a backend. Every method may block for a moment, may be called by any thread, and may raise
    StoreUnavailable."""

    def remember(self, what: Fleeting, key: bytes, value: bytes = b"") -> None:
        """Keep a value under a key for the lifetime of its class, from now on, in place of what was there."""

    def recall(self, what: Fleeting, key: bytes) -> bytes | None:
        """What is kept under a key; None where there is nothing, or no more."""

    def forget(self, what: Fleeting, key: bytes) -> bytes | None:
        """Keep it no longer, and return what it was: to one caller of several at once. None where there was nothing."""
