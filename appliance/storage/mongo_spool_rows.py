"""What the spool's operations come to in MongoDB, as documents: encoded and sealed by the task that brings them.

Beside the declared fields stand marks, by which several nodes share the store (`mongo_spool_units.py` says how):

    unit            the group that is at this document, as its name: nobody else changes it meanwhile
    fresh           the group brings it: nobody sees it yet
    gone            the group takes it away
    next            what it will be, field by field, when the group counts
    lease           of a delivery that is UNDER_WAY: {token, node, until}
    origin, since   of content: the group that brought it, and when that was by the server's clock
    node            of an event in the outbox: which node brings it to the log
    pending         of a count: [{unit, uses}], what groups add to it that do not count yet
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from appliance.model.event import DeliveryEvent
from appliance.privacy.declarations import (
    ALIAS_USES,
    CLOCKS,
    CONTENT,
    DELIVERIES,
    HOLDS,
    OUTBOX,
    RETURN_PATHS,
    Collection,
    Row,
    Store,
    collections_of,
)
from appliance.privacy.sealing import Keyring, Unsealable
from appliance.storage.codec import Codec, KeyMissing, RowRefused
from appliance.storage.delivery_rows import delivery_to_row, hold_to_row, return_path_to_row
from appliance.storage.event_rows import event_to_row
from appliance.storage.mongo_documents import Document, Documents, Index, Shape, shape_of
from appliance.storage.records import Duplicate
from appliance.storage.spool import (
    PART_OCTETS,
    Abandon,
    Accept,
    AddHold,
    AddPart,
    ClockMarks,
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

_TEXT, _FLAG, _NUMBER = {"bsonType": "string"}, {"bsonType": "bool"}, {"bsonType": ["int", "long"]}
_MAP, _ARRAY = {"bsonType": "object"}, {"bsonType": "array"}

_MARK_TYPES: Mapping[str, Mapping[str, object]] = {
    "unit": _TEXT,
    "fresh": _FLAG,
    "gone": _FLAG,
    "next": _MAP,
    "lease": _MAP,
    "origin": _TEXT,
    "since": _NUMBER,
    "node": _TEXT,
    "pending": _ARRAY,
}


def _where_present(path: str) -> Index:
    return Index(f"by_{path.replace('.', '_')}", (path,), only={path: {"$exists": True}})


# With these two in it, content without a delivery is found in the index alone.
_SEARCHED = Index("by_message_id_part", ("_id.message_id", "_id.part", "origin", "since"))

_MARK_INDEXES: Mapping[Collection, tuple[Index, ...]] = {
    DELIVERIES: (_where_present("unit"), _where_present("lease.node")),
    CONTENT: (_SEARCHED, Index("by_origin", ("origin",))),
    OUTBOX: (_where_present("unit"), Index("by_node_id", ("node", "_id"))),
    HOLDS: (_where_present("unit"),),
    ALIAS_USES: (_where_present("pending.unit"),),
}

SHAPES: tuple[Shape, ...] = tuple(
    shape_of(
        collection,
        beside={mark: _MARK_TYPES[mark] for mark in collection.marks},
        indexes=_MARK_INDEXES.get(collection, ()),
    )
    for collection in collections_of(Store.SPOOL, shared=True)
)
"""The collections of the spool, with what its documents are marked with."""


class Rows:
    """The documents of one collection: encoded, sealed and back. Thread-safe."""

    def __init__(self, collection: Collection, keyring: Keyring) -> None:
        self.collection = collection
        self.codec = Codec(collection, keyring)
        self.documents = Documents(collection)

    def document(self, row: Row) -> Document:
        """The document of a row. Raises RowRefused, KeyMissing."""
        return self.documents.document(self.codec.encode(row))

    def row(self, document: Document) -> dict[str, object]:
        """The row of a document. Raises Unsealable, KeyMissing, RowRefused."""
        return self.codec.decode(self.documents.stored(document))

    def opens(self, document: Document) -> bool:
        """Whether the key that is held opens it."""
        try:
            self.row(document)
        except (Unsealable, RowRefused, KeyMissing):
            return False
        return True


@dataclass(slots=True)
class Work:
    """What a unit of operations, or a group of units, does to the documents of the spool."""

    parts: list[Document] = field(default_factory=list)
    deliveries: dict[str, Document] = field(default_factory=dict)
    """New ones, by id."""
    kept: dict[str, Document] = field(default_factory=dict)
    """What deliveries that are there already will be, by id."""
    completed: dict[str, bool] = field(default_factory=dict)
    """Deliveries that are done; whether the next hop has them."""
    spent: dict[str, None] = field(default_factory=dict)
    """Messages whose content goes, where no delivery of theirs is left."""
    events: list[Document] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    """Events that have reached the log."""
    return_paths: dict[str, Document] = field(default_factory=dict)
    holds: list[Document] = field(default_factory=list)
    lifted: list[str] = field(default_factory=list)
    uses: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By counter: what it begins with where there is none, and how many are added."""
    forgotten_uses: list[str] = field(default_factory=list)
    clocks: ClockMarks | None = None

    @property
    def needs_deciding(self) -> bool:
        """Whether it has to happen whole. The rest may be done one by one, and again."""
        return bool(
            self.deliveries or self.kept or self.completed or self.events or self.holds or self.lifted or self.uses
        )

    @property
    def settles(self) -> bool:
        """Whether it is about mail that is there already: it may have the last room on the disk."""
        return bool(self.kept or self.completed or self.spent or self.forgotten or self.holds or self.lifted)

    def accept(self, document: Document) -> None:
        """A new delivery. Raises Duplicate."""
        if document["_id"] in self.deliveries:
            raise Duplicate(DELIVERIES, DELIVERIES.key)
        self.deliveries[document["_id"]] = document

    def keep(self, document: Document) -> None:
        """A delivery will be this, where it is there."""
        mine = self.deliveries if document["_id"] in self.deliveries else self.kept
        mine[document["_id"]] = document

    def complete(self, delivery_id: str, message_id: str, *, delivered: bool) -> None:
        """A delivery is done."""
        self.spent[message_id] = None
        self.kept.pop(delivery_id, None)
        if self.deliveries.pop(delivery_id, None) is None:
            self.completed[delivery_id] = delivered or self.completed.get(delivery_id, False)

    def count(self, counter: str, known: int, uses: int = 1) -> None:
        """A counter gets so many more."""
        begins, already = self.uses.get(counter, (known, 0))
        self.uses[counter] = begins, already + uses

    def absorb(self, other: "Work") -> None:
        """What comes behind it in the group. Raises Duplicate."""
        for delivery in other.deliveries.values():
            self.accept(delivery)
        for delivery in other.kept.values():
            self.keep(delivery)
        for delivery_id, delivered in other.completed.items():
            self.kept.pop(delivery_id, None)
            if self.deliveries.pop(delivery_id, None) is None:
                self.completed[delivery_id] = delivered or self.completed.get(delivery_id, False)
        for counter, (known, uses) in other.uses.items():
            self.count(counter, known, uses)
        self.parts += other.parts
        self.spent.update(other.spent)
        self.events += other.events
        self.forgotten += other.forgotten
        self.return_paths.update(other.return_paths)
        self.holds += other.holds
        self.lifted += other.lifted
        self.forgotten_uses += other.forgotten_uses
        self.clocks = other.clocks or self.clocks


def gathered(units: Iterable[Prepared]) -> Work:
    """What a group of units comes to. The units stay as they are: one may be written again by itself.

    Raises Duplicate.
    """
    work = Work()
    for unit in units:
        work.absorb(unit.content)
    return work


class SpoolRows:
    """The documents of the spool's collections, and what operations come to in them. Thread-safe."""

    def __init__(self, keyring: Keyring) -> None:
        self.deliveries = Rows(DELIVERIES, keyring)
        self.content = Rows(CONTENT, keyring)
        self.outbox = Rows(OUTBOX, keyring)
        self.return_paths = Rows(RETURN_PATHS, keyring)
        self.holds = Rows(HOLDS, keyring)
        self.uses = Rows(ALIAS_USES, keyring)
        self.clocks = Rows(CLOCKS, keyring)

    def prepare(self, operations: Sequence[Operation]) -> Prepared:
        """What these do, as one unit. Raises RowRefused for what the declarations refuse; Duplicate."""
        work = Work()
        for operation in operations:
            self._prepare(operation, work)
        return Prepared(work)

    def _prepare(self, operation: Operation, work: Work) -> None:
        events: Sequence[DeliveryEvent] = ()
        match operation:
            case AddPart(message_id, part, octets):
                if len(octets) > PART_OCTETS:
                    raise RowRefused(CONTENT, "octets", f"takes at most {PART_OCTETS} octets a part")
                work.parts.append(self.content.document({"message_id": message_id, "part": part, "octets": octets}))
            case Accept(deliveries, events, return_paths):
                for delivery in deliveries:
                    work.accept(self.deliveries.document(delivery_to_row(delivery)))
                for path in return_paths:
                    work.return_paths[path.token] = self.return_paths.document(return_path_to_row(path))
            case Complete(delivery_id, message_id, events, delivered):
                work.complete(delivery_id, message_id, delivered=delivered)
            case Keep(delivery, events):
                work.keep(self.deliveries.document(delivery_to_row(delivery)))
            case Abandon(message_id):
                work.spent[message_id] = None
            case Record(events):
                pass
            case Forget(event_ids):
                work.forgotten += event_ids
            case AddHold(hold):
                work.holds.append(self.holds.document(hold_to_row(hold)))
            case LiftHold(hold_id):
                work.lifted.append(hold_id)
            case CountUse(counter, known):
                self.uses.codec.encode({"id": counter, "uses": known + 1})
                work.count(counter, known)
            case ForgetUses(counters):
                work.forgotten_uses += counters
            case MarkClocks(marks):
                work.clocks = marks
        work.events += [self.outbox.document(event_to_row(event)) for event in events]
