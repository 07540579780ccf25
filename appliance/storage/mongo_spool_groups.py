"""Writes groups into a spool that several nodes share: marks them, has the node decide, and finishes them.

Who waits for a group is answered when it is decided; it is finished behind that, and beside the next one's marks. What
a group has brought the next may mark anew before it is finished: a message is delivered within milliseconds, and done.

For the writing thread alone, but for what says otherwise. `mongo_spool_units.py` says what happens to the documents,
and why that holds.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import Any

import pymongo
from pymongo import UpdateOne

from appliance.model.delivery import DeliveryState
from appliance.privacy.declarations import ALIAS_USES, CONTENT, DELIVERIES, HOLDS, OUTBOX
from appliance.privacy.declarations import Collection as Declared
from appliance.storage.mongo_database import MongoDatabase
from appliance.storage.mongo_documents import Document
from appliance.storage.mongo_spool_leases import Leases
from appliance.storage.mongo_spool_nodes import ABSENT, Membership
from appliance.storage.mongo_spool_rows import Work
from appliance.storage.mongo_spool_units import COUNTED, Touched, Units
from appliance.storage.records import Duplicate, StoreUnavailable
from appliance.storage.spool import BeingChanged, ClockMarks, LeaseLost, Undecided

DOUBT_S = 60.0
"""For so long after a command whose answer did not come, it is looked for what it may still do: a server that hangs
carries out what it was sent when it goes on."""

_UNDER_WAY = DeliveryState.UNDER_WAY.value

_COUNTS: Document = {"$unset": {"fresh": ""}}
"""With a mark that takes the place of the last group's: that one counts, whatever becomes of this one."""


class _Unfinished:
    """A group that counts, and that is carried out beside what comes next."""

    def __init__(self, unit: str, work: Work) -> None:
        self.unit = unit
        self.work = work
        where = (
            Touched("deliveries", bool(work.deliveries or work.kept), bool(work.completed)),
            Touched("outbox", bool(work.events), takes=False),
            Touched("holds", bool(work.holds), bool(work.lifted)),
            Touched(COUNTED, bool(work.uses), takes=False),
        )
        self.where = [each for each in where if each.brings or each.takes]

    def is_in_the_way_of(self, other: Work) -> bool:
        """Whether the next group is about documents that this one changes or takes away. What it brings is there."""
        mine = (self.work.kept, self.work.completed)
        theirs = (other.deliveries, other.kept, other.completed)
        if any(not one.keys().isdisjoint(another) for one in mine for another in theirs):
            return True
        return bool(other.lifted and (self.work.holds or self.work.lifted))


class Groups:
    """The groups of this node."""

    def __init__(self, database: MongoDatabase, node: Membership, leases: Leases, units: Units) -> None:
        self._database = database
        self._node = node
        self._leases = leases
        self._units = units
        self._unfinished: _Unfinished | None = None
        self._finishing: Future[None] | None = None
        """What carries it out; or has, or has failed."""
        self._unclean: set[str] = set()
        """Groups that do not count, of which something may be left."""
        self._undecided: tuple[str, Work, Undecided] | None = None
        self._doubtful_until = float("-inf")

    @property
    def undecided(self) -> bool:
        """It is not known of a group whether it counts."""
        return self._undecided is not None

    @property
    def in_doubt(self) -> bool:
        """A command may still be carried out of which we have not heard."""
        return time.monotonic() < self._doubtful_until

    def doubt(self) -> None:
        """An answer did not come."""
        self._doubtful_until = time.monotonic() + DOUBT_S

    def own(self) -> set[str]:
        """The groups whose marks are this node's own business, and rightly there."""
        undecided = {self._undecided[0]} if self._undecided is not None else set()
        unfinished = {self._unfinished.unit} if self._unfinished is not None else set()
        return {*unfinished, *self._unclean, *undecided}

    def settle_up(self) -> None:
        """Bring what the last groups have left to its end. Raises StoreUnavailable."""
        self._clear_up()
        self._finish_the_last()
        self._units.erase_spent()

    def wait(self) -> None:
        """Return when the group that was decided last is finished, or that has failed. For any thread."""
        finishing = self._finishing
        if finishing is not None:
            wait([finishing])

    def see_that_it_is_finished(self) -> None:
        """The same, but raises StoreUnavailable where that has failed and was not made good yet. For any thread."""
        self.wait()
        if self._has_failed:
            raise StoreUnavailable(f"{self._database.place}: not all that counts can be seen yet")

    def write(self, work: Work, now: int) -> None:
        """Write one group; `now` is the server's clock as far as it is known. When it returns, the group counts, and is
        being finished. Raises StoreUnavailable (Undecided, where it may have happened), Duplicate, LeaseLost; then
        nothing has happened."""
        self._clear_up()
        if self._unfinished is not None and (self._has_failed or self._unfinished.is_in_the_way_of(work)):
            self._finish_the_last()
        unit = self._node.next_unit()
        for part in work.parts:
            part["origin"], part["since"] = unit, now
        if not work.needs_deciding:
            self._write_plainly(work, unit)
            return
        try:
            self._see_that_the_beginning_is_there(work)
            self._mark(work, unit)
            # A node's word is of one group: the marks of the one before have to be gone by then.
            self._finish_the_last()
        except BaseException as error:
            if isinstance(error, StoreUnavailable):
                self.doubt()
            self._take_back(unit)
            raise
        self._decide(work, unit)

    def _clear_up(self) -> None:
        """See to groups of which it is not known whether they count, and to what is left of those that do not."""
        if self._undecided is not None:
            unit, work, error = self._undecided
            decided = self._node.was_decided(unit)
            if decided:
                error.happened = True
                self._counts(unit, work)
            elif decided is False:
                self._unclean.add(unit)
            self._undecided = None
        for unit in list(self._unclean):
            self._clean(unit)

    def _finish_the_last(self) -> None:
        """Return when the last group is finished."""
        if self._unfinished is None:
            return
        self.wait()
        if self._has_failed:
            self._begin_to_finish(self._unfinished).result()
        self._unfinished = None

    def _begin_to_finish(self, group: _Unfinished) -> Future[None]:
        self._unfinished = group
        self._finishing = self._units.behind(partial(self._finish, group))
        return self._finishing

    @property
    def _has_failed(self) -> bool:
        """It was tried to finish the last group, and it is not finished."""
        finishing = self._finishing
        return finishing is not None and finishing.done() and finishing.exception() is not None

    # ------------------------------------------------------------------ marking

    def _mark(self, work: Work, unit: str) -> None:
        marks = {"unit": unit, "fresh": True}
        steps: list[Callable[[], object]] = []
        if work.deliveries:
            lease = self._leases.lease(unit, self._node.id)
            fresh = [
                {**document, **marks, **({"lease": lease} if document["state"] == _UNDER_WAY else {})}
                for document in work.deliveries.values()
            ]
            steps.append(partial(self._insert, DELIVERIES, fresh))
        if work.parts:
            steps.append(partial(self._insert, CONTENT, work.parts))
        if work.events:
            events = [{**document, **marks, "node": self._node.id} for document in work.events]
            steps.append(partial(self._insert, OUTBOX, events))
        if work.kept or work.completed:
            steps.append(partial(self._mark_deliveries, work, unit))
        if work.holds:
            steps.append(partial(self._insert, HOLDS, [{**document, **marks} for document in work.holds]))
        if work.lifted:
            steps.append(partial(self._mark_holds, work.lifted, unit))
        if work.uses:
            steps.append(partial(self._mark_uses, work.uses, unit))
        if work.return_paths:
            # A token stands for the same sender each time; being used again begins its time anew. Where the group does
            # not come about, it is swept as they all are.
            steps.append(partial(self._replace, "return_paths", work.return_paths.values()))
        self._units.at_once(steps)

    def _insert(self, collection: Declared, documents: Sequence[Document]) -> None:
        with self._database.translated(collection):
            self._database[collection.name].insert_many(documents, ordered=False)

    def _mark_deliveries(self, work: Work, unit: str) -> None:
        """Raises LeaseLost, BeingChanged."""
        changes = [
            UpdateOne(
                self._if_ours(delivery_id),
                {
                    "$set": {"unit": unit, "next": {name: value for name, value in document.items() if name != "_id"}},
                    **_COUNTS,
                },
            )
            for delivery_id, document in work.kept.items()
        ]
        changes += [
            UpdateOne(
                self._if_free(delivery_id) if delivered else self._if_ours(delivery_id),
                {"$set": {"unit": unit, "gone": True}, **_COUNTS},
            )
            for delivery_id, delivered in work.completed.items()
        ]
        with self._database.translated(DELIVERIES):
            marked = self._database["deliveries"].bulk_write(changes, ordered=False).matched_count
        if marked < len(changes):
            self._see_why_not([*work.kept, *work.completed], unit, brings=bool(work.deliveries))

    def _if_ours(self, delivery_id: str) -> Document:
        """The condition for whatever is done about a delivery, but for what has been delivered: it can't be undone."""
        token = self._leases.token(delivery_id)
        lease: Document = {"lease": ABSENT} if token is None else {"lease.token": token}
        return {**self._if_free(delivery_id), **lease}

    def _if_free(self, delivery_id: str) -> Document:
        """The condition that no group is at a delivery, but for the last one where that has brought it: it counts, so
        that who marks it anew finishes it in the same change."""
        last = self._unfinished
        free = {"$in": [None, last.unit]} if last is not None and delivery_id in last.work.deliveries else ABSENT
        return {"_id": delivery_id, "unit": free}

    def _see_why_not(self, delivery_ids: Sequence[str], unit: str, *, brings: bool) -> None:
        """Some of these could not be marked. Those that are not there any more need not be, where nobody thinks that he
        has them under way: what was dropped does not come back. But what comes in the place of one (`brings`: a report
        to the sender, say) has come already where another node was quicker.
        """
        with self._database.translated():
            found = self._database["deliveries"].find({"_id": {"$in": delivery_ids}}, {"unit": 1, "lease": 1})
            present = {str(each["_id"]): each for each in found}
        lost: list[str] = []
        for delivery_id in delivery_ids:
            document = present.get(delivery_id)
            token = self._leases.token(delivery_id)
            if document is None:
                if token is not None or brings:
                    lost.append(delivery_id)
            elif document.get("unit") == unit:
                continue
            elif "unit" in document:
                self.doubt()
                raise BeingChanged(f"{self._database.place}: another node is changing delivery {delivery_id}")
            elif document.get("lease", {}).get("token") != token:
                lost.append(delivery_id)
        if lost:
            raise LeaseLost(lost)

    def _mark_holds(self, hold_ids: Sequence[str], unit: str) -> None:
        with self._database.translated(HOLDS):
            self._database["holds"].update_many(
                {"_id": {"$in": hold_ids}, "unit": ABSENT}, {"$set": {"unit": unit, "gone": True}}
            )

    def _mark_uses(self, uses: Mapping[str, tuple[int, int]], unit: str) -> None:
        for counter, (known, added) in uses.items():
            change = {"$setOnInsert": {"uses": known}, "$push": {"pending": {"unit": unit, "uses": added}}}
            try:
                self._mark_use(counter, change)
            except Duplicate:
                # Another node has begun to count under it in the same moment: now it is there.
                self._mark_use(counter, change)

    def _mark_use(self, counter: str, change: Document) -> None:
        with self._database.translated(ALIAS_USES):
            self._database[COUNTED].update_one({"_id": counter}, change, upsert=True)

    def _see_that_the_beginning_is_there(self, work: Work) -> None:
        """Of a large message the first parts were kept before. Where this node was taken for dead since, they are gone.

        Raises StoreUnavailable.
        """
        first: dict[str, int] = {}
        for part in work.parts:
            identity = part["_id"]
            first[identity["message_id"]] = min(identity["part"], first.get(identity["message_id"], identity["part"]))
        accepted = {document["message_id"] for document in work.deliveries.values()}
        for message_id, parts in first.items():
            if parts and message_id in accepted:
                with self._database.translated():
                    kept = self._database["content"].count_documents(
                        {
                            "_id.message_id": message_id,
                            "_id.part": {"$lt": parts},
                            "origin": {"$gte": f"{self._node.id}.", "$lt": f"{self._node.id}/"},
                        }
                    )
                if kept != parts:
                    raise StoreUnavailable(f"{self._database.place}: the beginning of message {message_id} is gone")

    # ------------------------------------------------------------------ deciding

    def _decide(self, work: Work, unit: str) -> None:
        try:
            decided = self._node.decide(unit)
        except StoreUnavailable as error:
            self.doubt()
            undecided = Undecided(str(error))
            self._undecided = unit, work, undecided
            try:
                self.settle_up()
            except StoreUnavailable:
                if self._undecided is not None:
                    raise undecided from None
            if undecided.happened:
                return
            raise
        if not decided:
            self._take_back(unit)
            raise StoreUnavailable(f"{self._database.place}: this node was taken for dead by the others")
        self._counts(unit, work)

    def _counts(self, unit: str, work: Work) -> None:
        """A group counts from now on."""
        # Before it is finished: whoever looks for leases that are lost must not take for lost what is done.
        self._leases.release([*work.completed, *(each for each in work.kept if not _is_under_way(work.kept[each]))])
        self._leases.take([each for each in work.deliveries if _is_under_way(work.deliveries[each])], unit)
        self._begin_to_finish(_Unfinished(unit, work))

    def _finish(self, group: _Unfinished) -> None:
        """Carry out a group that counts. Not in the writing thread, which goes on meanwhile."""
        try:
            self._units.finish(group.unit, group.where, self._needing_no_word(group.work))
        except StoreUnavailable:
            # What is left to do is done before the next one counts, or by whoever finds it.
            self.doubt()
            raise
        self._units.erase_soon(tuple(group.work.spent))

    def _take_back(self, unit: str) -> None:
        self._unclean.add(unit)
        try:
            self._clean(unit)
        except StoreUnavailable:
            self.doubt()

    def _clean(self, unit: str) -> None:
        self._units.abort(unit)
        self._units.erase_what_came_with(unit)
        self._unclean.discard(unit)

    # ------------------------------------------------------------------ what needs no word

    def _write_plainly(self, work: Work, unit: str) -> None:
        try:
            if work.parts:
                self._insert(CONTENT, work.parts)
            if work.return_paths:
                self._replace("return_paths", work.return_paths.values())
        except BaseException:
            self._take_back(unit)
            raise
        self._units.erase_content(work.spent)
        self._units.at_once(self._needing_no_word(work))

    def _needing_no_word(self, work: Work) -> list[Callable[[], object]]:
        """Where one of these fails, events are moved once more, and the clocks are written down again."""
        steps: list[Callable[[], object]] = []
        if work.forgotten:
            steps.append(partial(self._erase, "outbox", work.forgotten))
        if work.forgotten_uses:
            steps.append(partial(self._erase, COUNTED, work.forgotten_uses))
        if work.clocks is not None:
            steps.append(partial(self._mark_clocks, work.clocks))
        return steps

    def _erase(self, name: str, ids: Sequence[str]) -> None:
        with self._database.translated():
            self._database[name].delete_many({"_id": {"$in": ids}})

    def _mark_clocks(self, marks: ClockMarks) -> None:
        changes = [
            # Of all nodes the one that is furthest.
            UpdateOne({"_id": name}, {"$max": {"value": getattr(marks, name)}}, upsert=True)
            for name in ("latest", "running", "steady")
        ]
        with self._database.translated():
            self._database["clocks"].bulk_write(changes, ordered=False)

    def _replace(self, name: str, documents: Collection[Document]) -> None:
        changes: list[Any] = [pymongo.ReplaceOne({"_id": each["_id"]}, each, upsert=True) for each in documents]
        with self._database.translated():
            self._database[name].bulk_write(changes, ordered=False)


def _is_under_way(document: Document) -> bool:
    return bool(document["state"] == _UNDER_WAY)
