"""What the spool's operations write, as rows: encoded and sealed by the task that brings them, not by the thread that
writes."""

from collections import defaultdict
from collections.abc import Sequence

from appliance.model.event import DeliveryEvent
from appliance.privacy.declarations import ALIAS_USES, CLOCKS, CONTENT, DELIVERIES, HOLDS, OUTBOX, RETURN_PATHS
from appliance.privacy.sealing import Keyring
from appliance.storage.codec import Codec, RowRefused
from appliance.storage.delivery_rows import delivery_to_row, hold_to_row, return_path_to_row
from appliance.storage.event_rows import event_to_row
from appliance.storage.spool import (
    PART_OCTETS,
    Abandon,
    Accept,
    AddHold,
    AddPart,
    Complete,
    CountUse,
    Forget,
    ForgetUses,
    Keep,
    LiftHold,
    MarkClocks,
    Operation,
    Prepared,
    Record,
)
from appliance.storage.sqlite_conditions import Bindings
from appliance.storage.sqlite_spool_statements import Kind

Rows = defaultdict[Kind, list[Bindings]]
"""What a unit writes: rows by their kind, encoded and sealed."""

_SETTLING = {
    Kind.KEEP_DELIVERY,
    Kind.ERASE_DELIVERY,
    Kind.ERASE_CONTENT,
    Kind.ERASE_EVENT,
    Kind.ADD_HOLD,
    Kind.ERASE_HOLD,
}


def settles(unit: Prepared) -> bool:
    """Whether it is about mail that is there already: it may have the last room on the disk."""
    return not _SETTLING.isdisjoint(unit.content)


class SpoolRows:
    """The codecs of the spool's collections, and what operations come to in them. Thread-safe."""

    def __init__(self, keyring: Keyring) -> None:
        self.deliveries = Codec(DELIVERIES, keyring)
        self.content = Codec(CONTENT, keyring)
        self.outbox = Codec(OUTBOX, keyring)
        self.return_paths = Codec(RETURN_PATHS, keyring)
        self.holds = Codec(HOLDS, keyring)
        self.uses = Codec(ALIAS_USES, keyring)
        self.clocks = Codec(CLOCKS, keyring)

    def prepare(self, operations: Sequence[Operation]) -> Prepared:
        """What these write, as one unit. What the declarations refuse raises RowRefused."""
        rows: Rows = defaultdict(list)
        for operation in operations:
            self._prepare(operation, rows)
        return Prepared(rows)

    def _prepare(self, operation: Operation, rows: Rows) -> None:
        events: Sequence[DeliveryEvent] = ()
        match operation:
            case AddPart(message_id, part, octets):
                if len(octets) > PART_OCTETS:
                    raise RowRefused(CONTENT, "octets", f"takes at most {PART_OCTETS} octets a part")
                row = {"message_id": message_id, "part": part, "octets": octets}
                rows[Kind.ADD_PART].append(self.content.encode(row))
            case Accept(deliveries, events, return_paths):
                for delivery in deliveries:
                    rows[Kind.ADD_DELIVERY].append(self.deliveries.encode(delivery_to_row(delivery)))
                for path in return_paths:
                    rows[Kind.ADD_RETURN_PATH].append(self.return_paths.encode(return_path_to_row(path)))
            case Complete(delivery_id, message_id, events):
                rows[Kind.ERASE_DELIVERY].append((delivery_id,))
                rows[Kind.ERASE_CONTENT].append((message_id,))
            case Keep(delivery, events):
                values = (*self.deliveries.encode(delivery_to_row(delivery)), delivery.id)
                rows[Kind.KEEP_DELIVERY].append(values)
            case Abandon(message_id):
                rows[Kind.ERASE_CONTENT].append((message_id,))
            case Record(events):
                pass
            case Forget(event_ids):
                rows[Kind.ERASE_EVENT].extend((event_id,) for event_id in event_ids)
            case AddHold(hold):
                rows[Kind.ADD_HOLD].append(self.holds.encode(hold_to_row(hold)))
            case LiftHold(hold_id):
                rows[Kind.ERASE_HOLD].append((hold_id,))
            case CountUse(counter, known):
                rows[Kind.COUNT_USE].append(self.uses.encode({"id": counter, "uses": known + 1}))
            case ForgetUses(counters):
                rows[Kind.ERASE_USES].extend((counter,) for counter in counters)
            case MarkClocks(marks):
                for name in ("latest", "running", "steady"):
                    row = {"id": name, "value": getattr(marks, name)}
                    rows[Kind.MARK_CLOCK].append(self.clocks.encode(row))
        for event in events:
            rows[Kind.ADD_EVENT].append(self.outbox.encode(event_to_row(event)))
