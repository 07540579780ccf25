"""Mail that is kept back, by an operator or by the account that it is for."""

from dataclasses import dataclass

from appliance.model.delivery import Delivery
from smtp.address import ascii_domain


@dataclass(frozen=True, slots=True)
class Hold:
    """A rule: what waits and what will arrive is held, until the rule is lifted.

    A delivery is meant for which everything that is set is true. At least one is set; all are in lower case, and
    domains are A-labels.
    """

    id: str
    created_at: int
    domain: str = ""
    """The hosted domain that was written to."""
    destination: str = ""
    """The domain of the mailbox."""
    sender: str | None = None
    """The envelope sender; empty for the null reverse-path, None where it does not matter."""
    by_account: bool = False
    """The account of the domain has set it, and may lift it; else an operator has, and no account may."""

    def matches(self, delivery: Delivery) -> bool:
        """Whether this delivery is to be held."""
        return (
            (self.sender is None or self.sender == folded(delivery.sender))
            and (not self.destination or self.destination == delivery.target.key[1])
            and (
                not self.domain
                or any(
                    ascii_domain(recipient.address.rpartition("@")[2]) == self.domain
                    for recipient in delivery.recipients
                )
            )
        )


def folded(address: str) -> str:
    """An address as rules and filters compare it: in lower case, the domain as A-labels."""
    local_part, at, domain = address.rpartition("@")
    return f"{local_part.lower()}{at}{ascii_domain(domain)}"
