"""The spool store: mail under way.

A message counts as accepted at the instant when the group with its `Accept` is durable; content parts without a
delivery are leftovers of a reception that never ended, and recovery erases them. A message is gone with the last of
its deliveries: `Complete` erases the content in the same group.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from appliance.model.delivery import Delivery, DeliveryState
from appliance.model.event import DeliveryEvent
from appliance.model.hold import Hold
from appliance.privacy.declarations import Retention
from appliance.storage.records import StoredRow, StoreUnavailable

T = TypeVar("T")

PART_OCTETS = 1 << 18
"""Content is kept in parts of at most this size: a session holds one part in memory, never a large message."""

RENEW_S = 10.0
"""How often a node says that it is alive, where several share a store: it may miss two of three before others take its
work over."""


@dataclass(frozen=True, slots=True)
class ReturnPath:
    """What a rewritten sender's token stands for (`appliance.forwarding.srs`)."""

    token: str
    sender: str
    reference: str
    """The reference of the alias that was written to."""
    created_at: int


class AddPart(Struct, frozen=True):
    """Keep one part of a message's content. Parts are numbered from 0 without gaps."""

    message_id: str
    part: int
    octets: bytes


class Accept(Struct, frozen=True):
    """Take responsibility for a message: every delivery of it, and the events that say so."""

    deliveries: Sequence[Delivery]
    events: Sequence[DeliveryEvent] = ()
    return_paths: Sequence[ReturnPath] = ()


class Complete(Struct, frozen=True):
    """A delivery is done, well or ill: erase it, and the content with the last one."""

    delivery_id: str
    message_id: str
    events: Sequence[DeliveryEvent] = ()
    delivered: bool = False
    """The next hop has it. So it is erased even where another node has taken the delivery over meanwhile: that is
    better than a second copy."""


class Keep(Struct, frozen=True):
    """A delivery stays in the queue with what this value says: deferred, held, released or due at once."""

    delivery: Delivery
    events: Sequence[DeliveryEvent] = ()


class Abandon(Struct, frozen=True):
    """A reception has ended without an Accept: erase the parts that were kept."""

    message_id: str


class Record(Struct, frozen=True):
    """Events of which no delivery is changed, such as a refusal."""

    events: Sequence[DeliveryEvent]


class Forget(Struct, frozen=True):
    """These events have reached the log: erase them from the outbox."""

    event_ids: Sequence[str] = ()


class AddHold(Struct, frozen=True):
    """From now on what this rule is about is to be held."""

    hold: Hold


class LiftHold(Struct, frozen=True):
    """A rule is gone. What it has held stays held until it is released."""

    hold_id: str


@dataclass(frozen=True, slots=True)
class ClockMarks:
    """What the clocks that nobody can set have come to, in milliseconds (`appliance.spool.clocks`)."""

    steady: int = 0
    running: int = 0
    latest: int = 0
    """The latest instant that the wall clock has shown."""


class CountUse(Struct, frozen=True):
    """One message more under this counter, of an alias that takes only so many."""

    counter: str
    known: int
    """Where the store has no such counter, it begins with so many."""


class ForgetUses(Struct, frozen=True):
    """No alias has these counters any more."""

    counters: Sequence[str]


class MarkClocks(Struct, frozen=True):
    """Write down what the clocks have come to."""

    marks: ClockMarks


Operation = (
    AddPart
    | Accept
    | Complete
    | Keep
    | Abandon
    | Record
    | Forget
    | AddHold
    | LiftHold
    | CountUse
    | ForgetUses
    | MarkClocks
)


class Prepared(Struct, frozen=True):
    """Operations as a backend will write them. What is in it is the backend's own affair."""

    content: Any


class Undecided(StoreUnavailable):
    """A group has failed, and the next start may find it all the same. Nobody may be told that it was refused, as long
    as the store is `undecided`.
    """

    happened = False
    """Whether it was made durable after all. True or final no earlier than the store is certain again."""


class BeingChanged(StoreUnavailable):
    """Another node is at a delivery of the group this very moment. The other units of the group are none the worse."""


class LeaseLost(Exception):
    """Another node has taken deliveries over that this one took to be its own. Nothing of the group has happened, and
    what was to be done about these deliveries is no longer this node's business."""

    def __init__(self, delivery_ids: Collection[str]) -> None:
        super().__init__(f"other nodes have taken over {', '.join(sorted(delivery_ids))}")
        self.delivery_ids = frozenset(delivery_ids)


@dataclass(frozen=True, slots=True)
class Node:
    """One of the nodes that share a store. Instants are by the clock of the store's server."""

    id: str
    """Of one run; the next has another."""
    name: str
    """The same over all runs."""
    hostname: str
    version: str
    started_at: int
    seen_at: int
    gone: bool
    """It has ended, or has not been seen for so long that others have its work."""
    under_way: int
    """Deliveries that it is at."""
    clock_ahead_ms: int
    """By how much the clock of its machine is ahead of the server's; negative where it is behind."""


class Turn(Protocol):
    """Runs a function in the thread that writes, and returns what it returns."""

    def __call__(self, function: Callable[[], T]) -> T:
        """Raises what the function does."""


def at_once(function: Callable[[], T]) -> T:
    """The `Turn` of whoever is that thread."""
    return function()


class SpoolStore(Protocol):
    """What the spool needs of a backend. Every method may raise StoreUnavailable, and then nothing has happened.

    `apply`, `write` and `recover` are called by one thread, the others by any; of `claim` and `tidy` what must not
    happen beside these is done in that thread, by way of `turn`.
    """

    @property
    def shared(self) -> bool:
        """Other nodes may be at work in it: `renew` has to be called."""

    @property
    def degraded(self) -> str | None:
        """Why the store can't write now, since the disk has failed under it; None where it can."""

    @property
    def undecided(self) -> bool:
        """A group that has raised Undecided may still come back."""

    def apply(self, operations: Sequence[Operation]) -> None:
        """Prepare and write in one."""

    def prepare(self, operations: Sequence[Operation]) -> Prepared:
        """Encode and seal operations, so that the thread that writes has less to do. Changes nothing."""

    def write(self, units: Sequence[Prepared]) -> None:
        """Make all of these durable as one group; all or none. Durable when it returns.

        The operations of a group are about different deliveries, or stand in the order of a delivery's life (accept,
        keep, complete): backends may gather what is alike. Raises LeaseLost where several nodes share the store and one
        of the deliveries is another's by now.
        """

    def claim(self, now: int, limit: int, without: Collection[str] = (), turn: Turn = at_once) -> list[Delivery]:
        """Take due deliveries (WAITING, `next_attempt_at` <= now) and mark them UNDER_WAY.

        Those of higher priority first, and of one priority the earliest; but of a full `limit` one in OLDEST_EVERY is
        for the earliest of the others, whatever their priority. Returned in the order in which they became due.
        Those to a destination in `without` (domains in lower case) stay where they are.
        """

    def renew(self) -> Collection[str]:
        """Say to the other nodes that this one is alive, and keep for it what it has under way.

        To be called every RENEW_S, by any thread. Returns the ids of deliveries that others have taken over, as far as
        it was not told before. Does nothing where the store is one node's alone.
        """

    def nodes(self) -> list[Node]:
        """The nodes that share the store, this one among them, by name; none where it is one node's alone."""

    def next_due(self, without: Collection[str] = (), after: int = 0) -> int | None:
        """When the next WAITING delivery is due, later than `after`, to a destination not in `without`.

        None where there is none.
        """

    def recover(self) -> None:
        """After a start: what was UNDER_WAY is WAITING again, and so is what was HELD because it could not be opened
        and now can be; content without a delivery is erased. What a full disk does not allow now is left for `tidy`.
        What other nodes have under way, or are receiving, is left to them.
        """

    def tidy(self, turn: Turn = at_once) -> bool:
        """Go on with what could not be done before, and see that there is room in reserve, for some moments at most.

        Returns whether nothing is left to do. To be called every few seconds; never raises StoreUnavailable.
        """

    def has_room(self, octets: int) -> bool:
        """Whether there is room for new mail with so much content. Cheap: it may be a second old. Never raises."""

    def part(self, message_id: str, part: int) -> bytes | None:
        """One part of a message's content; None behind the last, or where the message is gone."""

    def deliveries(self, after: str | None = None, limit: int = 1000) -> list[Delivery]:
        """What is in the queue, in the order of the delivery's id, behind `after`."""

    def delivery(self, delivery_id: str) -> Delivery | None:
        """One delivery; None where it is done."""

    def deliveries_of(self, message_id: str) -> list[Delivery]:
        """Those of one message that are not done, in the order of their ids, without looking through the queue."""

    def depth(self) -> tuple[int, int | None]:
        """How many deliveries are in the queue, and when the one with the lowest id, the oldest, was accepted."""

    def states(self) -> dict[DeliveryState, int]:
        """How many deliveries are in each state; a state without any may be missing."""

    def ages(self, instants: Sequence[int]) -> list[int]:
        """How many deliveries in the queue were made before each of these instants (milliseconds since the epoch)."""

    def outbox(self, limit: int) -> list[StoredRow]:
        """Events that have not reached the log yet, oldest first, as they stand on the disk (column `id` is theirs)."""

    def return_path(self, token: str) -> ReturnPath | None:
        """What a token stands for; None where it is unknown or has expired."""

    def holds(self) -> list[Hold]:
        """The rules by which mail is held, the oldest first."""

    def uses(self) -> dict[str, int]:
        """How many messages have been counted under each counter."""

    def clock_marks(self) -> ClockMarks:
        """What the clocks had come to when that was last written down; zeros in a new store."""

    def sweep(self, retention: Retention, before: int) -> int:
        """Erase return paths older than this instant. Returns how many rows that were."""

    def close(self) -> None:
        """Let go of the store."""
