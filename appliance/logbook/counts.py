"""How much has become of what, in plain numbers since the start: about nobody, and so whatever the log levels say."""

from collections.abc import Sequence

from appliance.model.delivery import Deferred, Delivered, Delivery, Outcome
from appliance.model.event import EventType
from smtp.histogram import Histogram

UNTIL_DELIVERED_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400)
"""From a moment, where the next hop is near and well, over the first retries, to a day."""


class Counts:
    """Counters that may be read at any time."""

    def __init__(self) -> None:
        self.refused = 0
        """Recipients of domains that are hosted here, refused in the session."""
        self.attempts_delivered = 0
        self.attempts_deferred = 0
        self.attempts_failed = 0
        """Deliveries tried, by what came of it; in transit only what the sender was not refused for."""
        self.delivered = 0
        """Deliveries that are done; in transit, too."""
        self.deferred = 0
        """How often a delivery stayed in the queue for another attempt."""
        self.bounced = 0
        """Deliveries that were given up: refused for good, or their time was over."""
        self.until_delivered_s = Histogram(UNTIL_DELIVERED_S)
        """From the 250 to the sender to that of the next hop. In transit the two are one."""

    def attempted(self, outcomes: Sequence[Outcome]) -> None:
        """These have come of attempts."""
        for outcome in outcomes:
            if isinstance(outcome, Delivered):
                self.attempts_delivered += 1
            elif isinstance(outcome, Deferred):
                self.attempts_deferred += 1
            else:
                self.attempts_failed += 1

    def settled(self, delivery: Delivery, became: EventType | None, now: int) -> None:
        """This has become of a delivery in the queue, now by the wall clock; None: others have taken its place."""
        if became is EventType.DELIVERED:
            self.delivered += 1
            # A clock that was set back makes nothing quicker than at once.
            self.until_delivered_s.observe(max(0, now - delivery.accepted_at) / 1000)
        elif became is EventType.SOFT_BOUNCED:
            self.deferred += 1
        elif became is EventType.HARD_BOUNCED:
            self.bounced += 1

    def attempted_in_transit(self, type: EventType) -> None:
        """This has come of an attempt while the sender waited: delivered, or refused beside what was delivered.

        What the sender was refused for is still the sender's, and no delivery of ours.
        """
        if type is EventType.DELIVERED:
            self.attempts_delivered += 1
            self.delivered += 1
        else:
            self.attempts_failed += 1
            self.bounced += 1
