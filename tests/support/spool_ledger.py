"""What a spool has promised: the state that the operations lead to, in plain Python, to hold a real one against."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from appliance.model.delivery import Delivery
from appliance.model.hold import Hold
from appliance.storage.spool import (
    Abandon,
    Accept,
    AddHold,
    AddPart,
    ClockMarks,
    Complete,
    Forget,
    Keep,
    LiftHold,
    MarkClocks,
    Operation,
    Record,
    ReturnPath,
)
from appliance.storage.sqlite_spool import SqliteSpool

TIDYINGS = 1000
"""Within so many, everything that a start has found is cleared away."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a spool has. Never changed: `after` makes the next one."""

    deliveries: dict[str, Delivery] = field(default_factory=dict)
    parts: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    events: frozenset[str] = frozenset()
    holds: dict[str, Hold] = field(default_factory=dict)
    return_paths: dict[str, ReturnPath] = field(default_factory=dict)
    marks: ClockMarks = field(default_factory=ClockMarks)

    def after(self, operations: Iterable[Operation]) -> "Kept":
        """What it has once these are durable."""
        kept = replace(
            self,
            deliveries=dict(self.deliveries),
            parts=dict(self.parts),
            holds=dict(self.holds),
            return_paths=dict(self.return_paths),
        )
        for operation in operations:
            kept = kept._after(operation)
        return kept

    def _after(self, operation: Operation) -> "Kept":
        marks, events = self.marks, self.events
        match operation:
            case AddPart(message_id, part, octets):
                assert part == len(self.parts.get(message_id, ()))
                self.parts[message_id] = (*self.parts.get(message_id, ()), octets)
            case Accept(deliveries, _, return_paths):
                self.deliveries.update({delivery.id: delivery for delivery in deliveries})
                self.return_paths.update({path.token: path for path in return_paths})
            case Complete(delivery_id, message_id):
                self.deliveries.pop(delivery_id, None)
                self._forget(message_id)
            case Keep(delivery):
                if delivery.id in self.deliveries:
                    self.deliveries[delivery.id] = delivery
            case Abandon(message_id):
                self._forget(message_id)
            case Forget(event_ids):
                events = events.difference(event_ids)
            case AddHold(hold):
                self.holds[hold.id] = hold
            case LiftHold(hold_id):
                self.holds.pop(hold_id, None)
            case MarkClocks(marks):
                pass
        if isinstance(operation, Accept | Complete | Keep | Record):
            events = events.union(event.id for event in operation.events)
        return replace(self, marks=marks, events=events)

    def _forget(self, message_id: str) -> None:
        if all(delivery.message_id != message_id for delivery in self.deliveries.values()):
            self.parts.pop(message_id, None)

    def can_follow(self, unit: Iterable[Operation]) -> bool:
        """Whether the parts in this unit are the next ones of their messages."""
        return all(
            operation.part == len(self.parts.get(operation.message_id, ()))
            for operation in unit
            if isinstance(operation, AddPart)
        )

    def found_by_a_start(self) -> dict[str, Any]:
        """What `found_in` says of a store that has just this."""
        messages = {delivery.message_id for delivery in self.deliveries.values()}
        return {
            "deliveries": self.deliveries,
            "content": {message_id: b"".join(self.parts.get(message_id, ())) for message_id in messages},
            "events": sorted(self.events),
            "holds": self.holds,
            "return paths": self.return_paths,
            "marks": self.marks,
        }


def found_in(store: SqliteSpool, tokens: Sequence[str]) -> dict[str, Any]:
    """Everything that can be found in a store, and the return paths of these tokens."""
    deliveries = store.deliveries()
    content: dict[str, bytes] = {}
    for message_id in {delivery.message_id for delivery in deliveries}:
        parts: list[bytes] = []
        while (octets := store.part(message_id, len(parts))) is not None:
            parts.append(octets)
        content[message_id] = b"".join(parts)
    return {
        "deliveries": {delivery.id: delivery for delivery in deliveries},
        "content": content,
        "events": [row["id"] for row in store.outbox(10_000)],
        "holds": {hold.id: hold for hold in store.holds()},
        "return paths": {token: path for token in tokens if (path := store.return_path(token)) is not None},
        "marks": store.clock_marks(),
    }


def started(store: SqliteSpool) -> SqliteSpool:
    """The same store after what a start does."""
    store.recover()
    for _ in range(TIDYINGS):
        if store.tidy():
            return store
    raise AssertionError("the spool is never tidy")
