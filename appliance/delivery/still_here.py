"""Why a delivery is not with the next hop yet, in plain words for whoever looks at the queue."""

from dataclasses import dataclass
from datetime import UTC, datetime

from appliance.delivery.destination import Pause
from appliance.model.delivery import Delivery, DeliveryState
from appliance.spool.clocks import Clocks


@dataclass(frozen=True, slots=True)
class Facts:
    """What the scheduler knows of a delivery and its destination."""

    is_in_hand: bool
    """A courier is at it."""
    couriers: int
    """How many the destination has now."""
    max_couriers: int
    """How many there may be over all destinations."""
    is_starved: bool
    """The destination has none because there are that many."""
    pause: Pause | None


def still_here(delivery: Delivery, facts: Facts, clocks: Clocks) -> str:
    """Why it still waits. Times are as the wall clock will show them."""
    if facts.is_in_hand:
        return "is being delivered"
    now = clocks.steady()
    domain = delivery.target.key[1]
    waits = delivery.state is DeliveryState.WAITING
    pause = facts.pause if facts.pause is not None and facts.pause.until > now else None
    if waits and delivery.next_attempt_at > (pause.until if pause else now):
        return f"{_before(delivery)}next attempt at {_time(delivery.next_attempt_at, clocks)}"
    if pause is not None:
        paused = f"{domain} is paused until {_time(pause.until, clocks)} after {_said(pause)}"
        return f"{_before(delivery)}{paused}"
    if waits:
        return f"{_before(delivery)}waits for its turn to be taken out of the queue"
    if facts.is_starved or not facts.couriers:
        return f"waits for a connection: all {facts.max_couriers} of the appliance are busy"
    if facts.couriers == 1:
        return f"waits for a connection: the one to {domain} is busy"
    return f"waits for a connection: all {facts.couriers} to {domain} are busy"


def _before(delivery: Delivery) -> str:
    return f"was deferred: {delivery.last_response}; " if delivery.attempts and delivery.last_response else ""


def _said(pause: Pause) -> str:
    answer = pause.answer
    if not answer.code:
        return answer.text
    # What was said to one message may name its mailbox, and this is told of all.
    words = "" if pause.shared is None else f" {answer.text}"
    return f"{answer.code} {answer.enhanced_code}{words}"


def _time(steady: int, clocks: Clocks) -> str:
    """`10:31:05Z`, with the date in front where it is another day."""
    today = datetime.fromtimestamp(clocks.wall() / 1000, UTC).date()
    then = datetime.fromtimestamp(clocks.on_the_wall(steady) / 1000, UTC)
    return then.strftime("%H:%M:%SZ" if then.date() == today else "%Y-%m-%d %H:%M:%SZ")
