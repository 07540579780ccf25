"""Who is refused, whatever they bring."""

from dataclasses import dataclass
from enum import Enum


class BlockKind(Enum):
    """What a block is compared with."""

    SENDER = "sender"
    """The whole envelope sender."""
    SENDER_DOMAIN = "sender_domain"
    """The domain of the envelope sender, and all domains below it."""
    CLIENT_ADDRESS = "client_address"
    """The client's IP address: one, or a network."""
    CLIENT_NAME = "client_name"
    """The client's name where its address and its name lead to each other, and all names below it."""


@dataclass(frozen=True, slots=True)
class Block:
    """One sender or client whose mail is refused."""

    id: str
    kind: BlockKind
    value: str
    """In the one spelling of its kind: a mailbox by its key, a domain or name in lower case and A-labels, an address
    or network as `ipaddress` writes it."""
    reason: str
    """For operators; it is not told to whoever is refused."""
    created_at: int
    expires_at: int | None = None

    def stands(self, now: int) -> bool:
        """Whether it refuses at this instant."""
        return self.expires_at is None or now < self.expires_at
