"""Next hops that say what a test tells them to: what is asked of them and sent to them is written down."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from appliance.model.delivery import Answer, Deferred, Delivered, Delivery, Failed, Outcome

TAKEN = Delivered(Answer(250, "2.0.0", "delivered", "ok", "mx.home.test", "192.0.2.1"))


def later(code: int = 450, enhanced: str = "4.2.1", text: str = "busy", reason: str = "deferred") -> Deferred:
    """Not now."""
    return Deferred(Answer(code, enhanced, reason, text, "mx.home.test", "192.0.2.1"))


def never(code: int = 550, enhanced: str = "5.1.1", text: str = "unknown", reason: str = "mailbox-unknown") -> Failed:
    """Never."""
    return Failed(Answer(code, enhanced, reason, text, "mx.home.test", "192.0.2.1"))


class ScriptedHop:
    """One transaction with one of them."""

    def __init__(self, hops: "ScriptedHops", destination: str) -> None:
        self.hops = hops
        self.destination = destination
        self.asked: list[Delivery] = []
        self.has_left = False

    async def ask(self, deliveries: Sequence[Delivery]) -> list[Deferred | Failed | None]:
        """See NextHop."""
        self.asked += deliveries
        await trio.sleep(self.hops.thinks_s.get(self.destination, 0))
        return [self.hops.at_rcpt.get(str(delivery.target)) for delivery in deliveries]

    async def send(self, deliveries: Sequence[Delivery], content: Sequence[bytes]) -> list[Outcome]:
        """See NextHop."""
        assert not self.has_left
        await trio.sleep(self.hops.stalls_s.get(self.destination, 0))
        outcomes = [self.hops.at_the_end.get(str(delivery.target), TAKEN) for delivery in deliveries]
        for delivery, outcome in zip(deliveries, outcomes, strict=True):
            if isinstance(outcome, Delivered):
                self.hops.delivered.append((str(delivery.target), b"".join(content)))
                self.hops.deliveries.append(delivery)
        return outcomes

    def leave(self) -> None:
        """See NextHop."""
        self.has_left = True


@dataclass
class ScriptedHops:
    """All of them. Whatever is not scripted is taken at once."""

    at_rcpt: dict[str, Deferred | Failed] = field(default_factory=dict)
    """By mailbox."""
    at_the_end: dict[str, Outcome] = field(default_factory=dict)
    """By mailbox."""
    thinks_s: dict[str, float] = field(default_factory=dict)
    """By destination: how long RCPT takes."""
    stalls_s: dict[str, float] = field(default_factory=dict)
    """By destination: how long the reply to the final dot takes."""
    hops: list[ScriptedHop] = field(default_factory=list)
    delivered: list[tuple[str, bytes]] = field(default_factory=list)
    """Mailbox and octets, in the order in which they came."""
    deliveries: list[Delivery] = field(default_factory=list)
    """The same, as they were handed over."""

    def next_hop(self, destination: str, client: str) -> ScriptedHop:
        """See NextHops."""
        hop = ScriptedHop(self, destination)
        self.hops.append(hop)
        return hop

    @property
    def mailboxes(self) -> list[str]:
        """Who has got something, in order."""
        return sorted(mailbox for mailbox, _ in self.delivered)

    @property
    def all_have_left(self) -> bool:
        """Whether no connection is open any more."""
        return all(hop.has_left for hop in self.hops)
