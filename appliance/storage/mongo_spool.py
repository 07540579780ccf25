"""The spool store on a MongoDB that several nodes share: mail under way.

Any node takes mail, and any node delivers what is due: it claims it under a lease, renews that while it is at it, and
what a node has that is not heard of any more, others take over. How a group of changes comes to be as one is in
`mongo_spool_units.py`, which nodes there are and what their word is in `mongo_spool_nodes.py`.

Reads are of what counts, but a group is not seen by others as one: its deliveries become visible one after another,
within a moment. This node itself reads them when they all are. Nothing is built on more than that; each delivery is one
document.

Where a document can't be opened (damaged, or the key is not the one it was sealed under) its delivery is held, so that
the others go on, and says so in the log of the process; its content is never erased for that. The next start looks
whether it can be opened by then.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Collection, Sequence
from functools import lru_cache, partial

from appliance.model.delivery import Delivery, DeliveryState
from appliance.model.hold import Hold
from appliance.model.ids import first_id_at
from appliance.privacy.declarations import RETURN_PATHS, Retention
from appliance.privacy.sealing import Keyring, Unsealable
from appliance.storage.codec import RowRefused
from appliance.storage.delivery_rows import row_to_delivery, row_to_hold, row_to_return_path
from appliance.storage.mongo_database import MongoDatabase
from appliance.storage.mongo_documents import Document
from appliance.storage.mongo_due import Due
from appliance.storage.mongo_errors import NotAsked
from appliance.storage.mongo_keys import keys_in_use
from appliance.storage.mongo_room import Room
from appliance.storage.mongo_spool_groups import Groups
from appliance.storage.mongo_spool_leases import Leases
from appliance.storage.mongo_spool_leftovers import Leftovers
from appliance.storage.mongo_spool_nodes import ABSENT, LEASE_MS, Membership
from appliance.storage.mongo_spool_rows import SHAPES, SpoolRows, gathered
from appliance.storage.mongo_spool_sights import Sights
from appliance.storage.mongo_spool_units import Units
from appliance.storage.records import Damaged, StoredRow, StoreFull, StoreUnavailable
from appliance.storage.spool import ClockMarks, LeaseLost, Node, Operation, Prepared, ReturnPath, Turn, at_once

_log = logging.getLogger(__name__)

_WAITING, _UNDER_WAY, _HELD = (state.value for state in DeliveryState)

KEYS_KEPT = 4096
"""Destinations whose keyed form is kept for the next claim that leaves them out: more than are ever left out at once.
"""

TIDY_STEPS = 16
"""Steps of one tidying; what comes in is written between two of them."""

RECOVERY_STEPS = 32
"""Steps that a start takes before mail flows: a small spool is tidy by then."""

_SEEN = {"fresh": ABSENT}
"""The condition that a document counts."""


class MongoSpool:
    """A `SpoolStore` that nodes share."""

    def __init__(self, url: str, keyring: Keyring, name: str, version: str = "", *, lease_ms: int = LEASE_MS) -> None:
        """Reach the server, and be one of its nodes. `name` is the node's over all its runs: whoever starts it sees to
        it that no two with the same are alive.

        Raises StoreUnavailable, SchemaMismatch.
        """
        self._rows = SpoolRows(keyring)
        self._database = MongoDatabase(url, SHAPES)
        self._node = Membership(self._database, name, version, lease_ms)
        self._leases = Leases()
        self._units = Units(self._database, lease_ms)
        self._groups = Groups(self._database, self._node, self._leases, self._units)
        self._leftovers = Leftovers(
            self._database, self._node, self._leases, self._groups, self._units, self._may_go_on
        )
        self._sights = Sights(self._database, self._node, self._groups, self._units)
        self._due = Due(self._database, lease_ms)
        self._room = Room(self._database)
        self._lease_s = lease_ms / 1000
        self._destination_key = lru_cache(KEYS_KEPT)(
            lambda domain: self._rows.deliveries.codec.lookup("destination", domain)[1]
        )
        self._beaten_at = self._heard_again_at = _awake()
        self._server_ahead_ms = 0
        self._failure: str | None = None
        self._left: set[str] = set()
        """Ids that this node had, under which leases of its own may still stand."""
        self._is_stuck = False
        self._is_closed = False
        self._tidying = threading.Lock()
        try:
            self._enter()
        except BaseException:
            self._let_go()
            raise

    @property
    def shared(self) -> bool:
        """See `SpoolStore`."""
        return True

    @property
    def degraded(self) -> str | None:
        """See `SpoolStore`. As far as it was heard of since the node last said that it is alive."""
        return self._database.trouble or self._failure

    @property
    def undecided(self) -> bool:
        """See `SpoolStore`."""
        return self._groups.undecided

    def apply(self, operations: Sequence[Operation]) -> None:
        """See `SpoolStore`. When it returns, everybody sees what has become of it."""
        self.write([self.prepare(operations)])
        self._groups.wait()
        with contextlib.suppress(StoreUnavailable):
            # It is tried again by `tidy`, as what could not be finished.
            self._units.erase_spent()

    def prepare(self, operations: Sequence[Operation]) -> Prepared:
        """See `SpoolStore`. What the declarations refuse raises RowRefused."""
        return self._rows.prepare(operations)

    def write(self, units: Sequence[Prepared]) -> None:
        """See `SpoolStore`."""
        work = gathered(units)
        self._see_that_it_is_in()
        new_octets = sum(len(part["sealed"]) for part in work.parts)
        if new_octets and not work.settles and not self._room.has(new_octets):
            raise StoreFull(f"{self._database.place}: the disk is full")
        try:
            self._groups.write(work, self._server_now())
        except LeaseLost as lost:
            if len(units) == 1:
                # It was told to whom it concerns: nobody here is at these any more.
                self._leases.release(lost.delivery_ids)
            raise
        except StoreFull:
            self._room.is_full()
            raise

    def claim(self, now: int, limit: int, without: Collection[str] = (), turn: Turn = at_once) -> list[Delivery]:
        """See `SpoolStore`."""
        self._groups.wait()
        left_out = [self._destination_key(domain) for domain in without]
        claimed: list[Delivery] = []
        while wanted := limit - len(claimed):
            try:
                found = self._due.found(now, wanted, left_out)
                claimed += turn(partial(self._take, found)) if found else []
            except StoreUnavailable:
                if claimed:
                    break
                raise
            if len(found) < wanted:
                break
            # Where others were quicker there may be more behind it.
        claimed.sort(key=lambda delivery: (delivery.next_attempt_at, delivery.id))
        return claimed

    def renew(self) -> Collection[str]:
        """See `SpoolStore`."""
        # It is not refused untried: what a lease is worth depends on it.
        self._database.wait_for_it()
        before, id = self._leases.held(), self._node.id
        try:
            if not self._node.beat():
                raise StoreUnavailable(f"{self._database.place}: this node was taken for dead by the others")
            self._is_heard()
            self._failure = None
            has_moved = not self._left
            found = self._renewed()
            if not has_moved or self._left or id != self._node.id:
                # Its leases still bear the name that it had before: they are not lost for that.
                raise StoreUnavailable(f"{self._database.place}: this node is about to be one of them again")
        except StoreUnavailable as error:
            self._failure = str(error)
            raise
        return self._leases.lose(before, found)

    def nodes(self) -> list[Node]:
        """See `SpoolStore`."""
        return self._node.all()

    def next_due(self, without: Collection[str] = (), after: int = 0) -> int | None:
        """See `SpoolStore`."""
        self._groups.wait()
        return self._due.next(after, [self._destination_key(domain) for domain in without])

    def recover(self) -> None:
        """See `SpoolStore`."""
        self._see_that_it_is_in()
        try:
            self._leftovers.after_start(self._node.next_unit())
            for _ in range(RECOVERY_STEPS):
                self._leftovers.step()
        except StoreUnavailable as error:
            if self._is_closed:
                raise
            self._is_stuck = True
            _log.warning("what earlier runs have left behind can't be cleared away now: %s", error)

    def tidy(self, turn: Turn = at_once) -> bool:
        """See `SpoolStore`."""
        with self._tidying:
            try:
                self._tidy(turn)
            except StoreUnavailable as error:
                if not self._is_stuck:
                    _log.warning("the spool can't be tidied now: %s", error)
                self._is_stuck = True
                return False
        self._is_stuck = False
        return not self._leftovers

    def has_room(self, octets: int) -> bool:
        """See `SpoolStore`. As the server said it at the last tidying."""
        return self._room.has(octets)

    def part(self, message_id: str, part: int) -> bytes | None:
        """See `SpoolStore`. A part that can't be opened is Damaged."""
        found = self._one("content", {"_id": {"message_id": message_id, "part": part}})
        if found is None:
            return None
        try:
            octets = self._rows.content.row(found)["octets"]
        except Unsealable as error:
            raise Damaged(f"part {part} of message {message_id} can't be opened: {error}") from error
        assert isinstance(octets, bytes)
        return octets

    def deliveries(self, after: str | None = None, limit: int = 1000) -> list[Delivery]:
        """See `SpoolStore`. What can't be opened is passed over; the page is filled with what comes behind it."""
        found: list[Delivery] = []
        position = after or ""
        while len(found) < limit:
            with self._reading():
                behind = self._database["deliveries"].find({"_id": {"$gt": position}, **_SEEN})
                documents = list(behind.sort("_id", 1).limit(limit - len(found)))
            found += [delivery for document in documents if (delivery := self._opened(document)) is not None]
            if not documents:
                break
            position = documents[-1]["_id"]
        return found

    def delivery(self, delivery_id: str) -> Delivery | None:
        """See `SpoolStore`."""
        self._groups.wait()
        found = self._one("deliveries", {"_id": delivery_id, **_SEEN})
        return None if found is None else self._opened(found)

    def deliveries_of(self, message_id: str) -> list[Delivery]:
        """See `SpoolStore`."""
        with self._reading():
            documents = list(self._database["deliveries"].find({"message_id": message_id, **_SEEN}).sort("_id", 1))
        return [delivery for document in documents if (delivery := self._opened(document)) is not None]

    def depth(self) -> tuple[int, int | None]:
        """See `SpoolStore`. Counted in an index: whoever asks for it every few seconds must not read a long queue."""
        with self._reading():
            oldest = self._database["deliveries"].find_one(_SEEN, {"accepted_at": 1}, sort=[("_id", 1)])
        if oldest is None:
            return 0, None
        # What comes and goes while it is being counted must not hide the one that was seen.
        return max(1, self._counted({"_id": {"$gte": ""}})), int(oldest["accepted_at"])

    def states(self) -> dict[DeliveryState, int]:
        """See `SpoolStore`. The index alone has the answer."""
        counts = {state: self._counted({"state": state.value}) for state in DeliveryState}
        return {state: count for state, count in counts.items() if count}

    def ages(self, instants: Sequence[int]) -> list[int]:
        """See `SpoolStore`. No part of the index is gone through twice."""
        older: dict[int, int] = {}
        since, count = "", 0
        for instant in sorted(instants):
            until = first_id_at(instant)
            count += self._counted({"_id": {"$gte": since, "$lt": until}})
            older[instant], since = count, until
        return [older[instant] for instant in instants]

    def outbox(self, limit: int) -> list[StoredRow]:
        """See `SpoolStore`. Those that this node brings to the log; needs no key."""
        # Whoever reads it builds on it that nothing earlier comes behind.
        self._groups.see_that_it_is_finished()
        with self._database.translated():
            found = self._database["outbox"].find({"node": self._node.id, **_SEEN}).sort("_id", 1).limit(limit)
            return [self._rows.outbox.documents.stored_row(document) for document in found]

    def return_path(self, token: str) -> ReturnPath | None:
        """See `SpoolStore`."""
        found = self._one("return_paths", {"_id": token})
        if found is None:
            return None
        try:
            return row_to_return_path(self._rows.return_paths.row(found))
        except Unsealable as error:
            raise Damaged(f"the return path {token} can't be opened: {error}") from error

    def holds(self) -> list[Hold]:
        """See `SpoolStore`. One that can't be opened holds nothing, and says so in the log of the process."""
        found: list[Hold] = []
        with self._reading():
            documents = list(self._database["holds"].find(_SEEN).sort("_id", 1))
        for document in documents:
            try:
                found.append(row_to_hold(self._rows.holds.row(document)))
            except (Unsealable, RowRefused) as error:
                _log.error("hold %s can't be opened: %s", document["_id"], error)
        return found

    def uses(self) -> dict[str, int]:
        """See `SpoolStore`."""
        with self._reading():
            return {str(each["_id"]): int(each["uses"]) for each in self._database["alias_uses"].find()}

    def clock_marks(self) -> ClockMarks:
        """See `SpoolStore`. Of all nodes the one that is furthest."""
        with self._database.translated():
            marks = {str(each["_id"]): int(each["value"]) for each in self._database["clocks"].find()}
        return ClockMarks(marks.get("steady", 0), marks.get("running", 0), marks.get("latest", 0))

    def sweep(self, retention: Retention, before: int) -> int:
        """See `SpoolStore`."""
        if retention not in RETURN_PATHS.retention:
            raise RowRefused(RETURN_PATHS, retention.since, "has no such retention")
        with self._database.translated():
            return self._database["return_paths"].delete_many({retention.since: {"$lt": before}}).deleted_count

    def keys_in_use(self) -> dict[str, bool]:
        """The names of the keys that something is sealed under, and whether any of it opens. Needs no key."""
        rows = self._rows
        return keys_in_use(self._database, (rows.deliveries, rows.content, rows.outbox, rows.return_paths, rows.holds))

    def close(self) -> None:
        """See `SpoolStore`. The other nodes take at once what is left here."""
        if self._is_closed:
            return
        self._groups.wait()
        try:
            self._node.leave()
        except StoreUnavailable as error:
            _log.warning("the other nodes can't be told that this one ends: %s", error)
        self._let_go()

    # ------------------------------------------------------------------ one of the nodes

    def _enter(self) -> None:
        self._node.enter()
        self._beaten_at = _awake()
        self._server_ahead_ms = self._database.now() - int(self._beaten_at * 1000)
        self._room.measure()

    def _let_go(self) -> None:
        self._is_closed = True
        self._units.close()
        self._database.close()

    def _is_heard(self) -> None:
        """The server has heard that this node is alive."""
        now = _awake()
        if now - self._beaten_at >= self._lease_s / 2:
            self._heard_again_at = now
        self._beaten_at = now

    def _server_now(self) -> int:
        """The server's clock, as far as it is known without asking it."""
        return self._server_ahead_ms + int(_awake() * 1000)

    def _see_that_it_is_in(self, *, certainly: bool = False) -> None:
        """Enter again where the others have taken this node for dead, and keep what none of them has taken yet.

        For the writing thread. Raises StoreUnavailable.
        """
        if self._is_closed:
            raise StoreUnavailable(f"{self._database.place}: it has been closed")
        if certainly and self._node.beat():
            self._is_heard()
        if self._node.is_out:
            _log.warning("the other nodes have taken this one for dead; it goes on under a new name")
            # What it was in the middle of is brought to its end, or taken back, by who comes first.
            self._groups.settle_up()
            self._left.add(self._node.id)
            self._enter()
        if self._left:
            self._bring_leases_along()

    def _bring_leases_along(self) -> None:
        """Keep under its present id what this node had under earlier ones. Raises StoreUnavailable."""
        before, tokens = list(self._left), list(set(self._leases.held().values()))
        with self._database.translated():
            self._database["deliveries"].update_many(
                {"lease.node": {"$in": before}, "lease.token": {"$in": tokens}},
                {"$set": {"lease.node": self._node.id}},
            )
        self._renewed()
        self._left.clear()

    def _tidy(self, turn: Turn) -> None:
        """Raises StoreUnavailable."""
        if self._node.beat():
            self._is_heard()
        last_unit = turn(self._settled_up)
        # Where the server was away, the others could not say either that they are alive. First they are to.
        silent = _awake() - self._heard_again_at >= self._lease_s / 2
        if self._sights.anything(last_unit, silent=silent):
            turn(partial(self._leftovers.take_over, silent=silent))
            self._sights.is_seen_to()
        for _ in range(TIDY_STEPS):
            if not self._leftovers:
                break
            turn(self._leftovers.step)
        self._room.measure()

    def _settled_up(self) -> str:
        """Bring to its end what this node was in the middle of; returns the name of a group that is later than all that
        it has begun. For the writing thread. Raises StoreUnavailable."""
        self._see_that_it_is_in()
        self._groups.settle_up()
        return self._node.next_unit()

    def _take(self, found: Sequence[str]) -> list[Delivery]:
        """Claim of these what still waits. For the writing thread. Raises StoreUnavailable."""
        self._see_that_it_is_in()
        token = self._node.next_unit()
        try:
            taken = self._due.take(found, token, self._leases.lease(token, self._node.id))
        except NotAsked:
            raise
        except StoreUnavailable:
            # It may have been done: `tidy` sets back what nobody has.
            self._groups.doubt()
            raise
        again = set(self._leases.take([document["_id"] for document in taken], token))
        try:
            if _awake() - self._beaten_at >= self._lease_s / 2:
                taken = self._still_ours(taken)
            claimed = [self._opened_or_held(document) for document in taken if document["_id"] not in again]
        except StoreUnavailable:
            # Nobody here hears of them.
            self._leases.release(document["_id"] for document in taken if document["_id"] not in again)
            self._groups.doubt()
            raise
        return [delivery for delivery in claimed if delivery is not None]

    def _still_ours(self, claimed: list[Document]) -> list[Document]:
        """Of what was claimed just now, what this node has. It may have stood still in between, and others may have
        taken it for dead. Raises StoreUnavailable."""
        self._see_that_it_is_in(certainly=True)
        ours = self._renewed()
        self._leases.release([document["_id"] for document in claimed if document["_id"] not in ours])
        return [document for document in claimed if document["_id"] in ours]

    def _renewed(self) -> set[str]:
        """Renew the leases of this node; returns what it has."""
        return self._due.renew(self._node.id)

    # ------------------------------------------------------------------ documents

    def _reading(self) -> contextlib.AbstractContextManager[None]:
        """For a question about what counts: asked when all of that can be seen."""
        self._groups.wait()
        return self._database.translated()

    def _one(self, name: str, condition: Document) -> Document | None:
        with self._database.translated():
            return self._database[name].find_one(condition)

    def _counted(self, condition: Document) -> int:
        """How many deliveries that count meet a condition which an index has."""
        deliveries = self._database["deliveries"]
        with self._reading():
            all_, fresh = (
                # As the command, and not as an aggregation: it counts in the index, without looking at documents.
                deliveries.database.command(
                    "count", deliveries.name, query={**condition, **more}, readConcern={"level": "majority"}
                )
                for more in ({}, {"unit": {"$gt": ""}, "fresh": True})
            )
        return max(0, int(all_["n"]) - int(fresh["n"]))

    def _opened(self, document: Document) -> Delivery | None:
        try:
            return row_to_delivery(self._rows.deliveries.row(document))
        except (Unsealable, RowRefused) as error:
            _log.error("delivery %s can't be opened: %s", document["_id"], error)
            return None

    def _may_go_on(self, document: Document) -> bool:
        """Whether a delivery that is held was held only because it could not be opened, and now can be."""
        delivery = self._opened(document)
        return delivery is not None and not delivery.held_for

    def _opened_or_held(self, document: Document) -> Delivery | None:
        delivery = self._opened(document)
        if delivery is None:
            self._leases.release([document["_id"]])
            with self._database.translated():
                self._database["deliveries"].update_one(
                    {"_id": document["_id"], "lease.token": document["lease"]["token"], "unit": ABSENT},
                    {"$set": {"state": _HELD}, "$unset": {"lease": ""}},
                )
        return delivery


def _awake() -> float:
    """Seconds by a clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
