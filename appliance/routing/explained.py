"""What would become of a message, told to whoever may know: the answer that RCPT would get, and why."""

from dataclasses import dataclass

from appliance.model.domain import DeliveryMode
from appliance.routing.route import Step
from smtp.reply import Reply


@dataclass(frozen=True, slots=True)
class PlannedDelivery:
    """One copy that would leave."""

    target: str
    envelope_sender: str
    hosts: tuple[str, ...]
    """The servers that would be tried, best first; empty where DNS names none, and then a step says why."""
    mode: DeliveryMode


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would become of a message for one recipient."""

    reply: Reply
    reason: str
    steps: tuple[Step, ...]
    deliveries: tuple[PlannedDelivery, ...]

    @property
    def accepted(self) -> bool:
        """Whether mail for the recipient is taken."""
        return self.reply.code == 250
