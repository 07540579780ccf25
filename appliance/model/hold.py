"""Mail that an operator keeps back."""

from dataclasses import dataclass

from appliance.model.delivery import Delivery


@dataclass(frozen=True, slots=True)
class Hold:
    """A rule: what waits and what will arrive is held, until the rule is lifted.

    A delivery is meant for which everything that is set is true. At least one is set; all are in lower case.
    """

    id: str
    created_at: int
    domain: str = ""
    """The hosted domain that was written to."""
    destination: str = ""
    """The domain of the mailbox."""
    sender: str | None = None
    """The envelope sender; empty for the null reverse-path, None where it does not matter."""

    def matches(self, delivery: Delivery) -> bool:
        """Whether this delivery is to be held."""
        return (
            (self.sender is None or self.sender == delivery.sender.lower())
            and (not self.destination or self.destination == delivery.target.key[1])
            and (
                not self.domain
                or any(recipient.address.rpartition("@")[2].lower() == self.domain for recipient in delivery.recipients)
            )
        )
