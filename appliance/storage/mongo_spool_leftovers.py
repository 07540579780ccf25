"""What nodes that are gone have left behind in a spool that several share, and what this one has: brought to its end.

Never what another living node has: its groups, its leases, its events and what it is receiving are its own as long as
it is heard of. What belongs to one that is gone is for whoever comes first; each step does nothing where another has
taken it already.

Content without a delivery is searched for in small steps while mail flows, as on one machine (`sqlite_leftovers.py`):
it was brought by a reception that ended with its node, or its last delivery was completed by a node that died right
then.
"""

import time
from collections.abc import Callable, Collection

from appliance.model.delivery import DeliveryState
from appliance.model.time import DAY_MS
from appliance.storage.mongo_database import MongoDatabase
from appliance.storage.mongo_documents import Document
from appliance.storage.mongo_spool_groups import Groups
from appliance.storage.mongo_spool_leases import Leases
from appliance.storage.mongo_spool_nodes import ABSENT, Membership, node_of, number_of, older_than
from appliance.storage.mongo_spool_units import Units

HELD_AT_ONCE = 500
"""Deliveries that one step looks at whether they need be held any longer."""

MAX_HELD = 100_000
"""Deliveries that one start looks at; so many ids are 8 MB."""

PARTS_AT_ONCE = 1000
"""Parts of content that one step of the search looks at, in an index."""

LONGEST_RECEPTION_MS = DAY_MS
"""No message takes longer to arrive: what is older and has no delivery has none any more, whoever brought it."""

EXPIRED_EVERY_S = 60.0
"""How often leases are looked for that have expired. It goes through all that is under way, and what a dead node had is
taken over without it."""

SEARCH_EVERY_S = 3600.0
"""How often all content is looked through, beside after a start and after a node is gone."""

_WAITING, _UNDER_WAY, _HELD = (state.value for state in DeliveryState)

_SET_BACK = {"$set": {"state": _WAITING}, "$unset": {"lease": ""}}


class Leftovers:
    """What is still to be brought to its end. True while there is something. For the writing thread alone.

    Every method raises StoreUnavailable; what was done by then is done, and the next call goes on.
    """

    def __init__(
        self,
        database: MongoDatabase,
        node: Membership,
        leases: Leases,
        groups: Groups,
        units: Units,
        may_go_on: Callable[[Document], bool],
    ) -> None:
        """`may_go_on` says whether a delivery that is HELD need not be."""
        self._database = database
        self._node = node
        self._leases = leases
        self._groups = groups
        self._units = units
        self._may_go_on = may_go_on
        self._held: list[str] = []
        self._searched: str | None = None
        """Up to which message content has been looked at; None where no search is on."""
        self._searched_at = float("-inf")
        self._expired_at = float("-inf")
        self._before: tuple[str, int] = ("", 0)
        """What this node has brought in up to this group was brought before its start."""
        self._dead: set[str] = set()
        """Nodes whose content has been looked for already."""

    def __bool__(self) -> bool:
        return bool(self._held) or self._searched is not None

    def after_start(self, last_unit: str) -> None:
        """Nobody is at work on this node yet: what earlier runs had under way waits again, and what they have left is
        looked for. `last_unit` is the last group before that."""
        self._node.mark_earlier_runs()
        self._before = node_of(last_unit), number_of(last_unit)
        self._leases.release(self._leases.held())
        with self._database.translated():
            deliveries = self._database["deliveries"]
            deliveries.update_many({"lease.node": self._node.id, "unit": ABSENT}, _SET_BACK)
            held = deliveries.find({"state": _HELD, "unit": ABSENT}, {"_id": 1}).limit(MAX_HELD)
            self._held = [str(each["_id"]) for each in held]
        self._search()
        self.take_over(silent=False)

    def take_over(self, *, silent: bool) -> None:
        """Finish or take away what nodes have left that are gone, and take over what they had.

        `silent`: those are gone, too, that have not been heard of for too long.
        """
        if silent:
            self._node.mark_the_dead()
        # The marks first: a node enters before it marks anything, so that it is found to be alive.
        marked = self._units.marked({"$gt": ""})
        living, gone = self._node.living_and_gone()
        own = self._groups.own()
        for unit in marked:
            node = node_of(unit)
            if node == self._node.id:
                if unit not in own:
                    # A command that was given up was carried out all the same, later.
                    self._units.abort(unit)
            elif node not in living:
                if number_of(unit) == gone.get(node):
                    self._units.finish_what_is_left(unit)
                else:
                    self._units.abort(unit)
        with self._database.translated():
            deliveries = self._database["deliveries"]
            if gone:
                ids = list(gone)
                deliveries.update_many({"lease.node": {"$in": ids}, "unit": ABSENT}, _SET_BACK)
                self._database["outbox"].update_many(
                    {"node": {"$in": ids}, "unit": ABSENT}, {"$set": {"node": self._node.id}}
                )
        if silent and time.monotonic() - self._expired_at >= EXPIRED_EVERY_S:
            self._set_back_what_has_expired(living)
        if self._groups.in_doubt:
            self._set_back_what_nobody_has()
        self._node.forget_the_gone()
        if not self._dead.issuperset(gone) or time.monotonic() - self._searched_at >= SEARCH_EVERY_S:
            self._search()
        self._dead = set(gone)

    def step(self) -> None:
        """Take one small step."""
        if self._held:
            some = self._held[-HELD_AT_ONCE:]
            with self._database.translated():
                deliveries = self._database["deliveries"]
                held = deliveries.find({"_id": {"$in": some}, "state": _HELD, "unit": ABSENT})
                released = [document["_id"] for document in held if self._may_go_on(document)]
                if released:
                    deliveries.update_many({"_id": {"$in": released}, "state": _HELD, "unit": ABSENT}, _SET_BACK)
            del self._held[-len(some) :]
        elif self._searched is not None:
            self._search_on(self._searched)

    def _set_back_what_has_expired(self, living: Collection[str]) -> None:
        """Leases that no living node has, and none that is known to be gone: of one that was forgotten since."""
        self._expired_at = time.monotonic()
        others = {"state": _UNDER_WAY, "unit": ABSENT, "lease.node": {"$nin": [self._node.id, *living]}}
        with self._database.translated():
            self._database["deliveries"].update_many({**others, "$expr": older_than("lease.until", 0)}, _SET_BACK)

    def _set_back_what_nobody_has(self) -> None:
        """Leases that a claim has brought whose answer got lost."""
        with self._database.translated():
            deliveries = self._database["deliveries"]
            for document in deliveries.find({"lease.node": self._node.id, "unit": ABSENT}, {"lease": 1}):
                if self._leases.token(document["_id"]) is None:
                    token = document["lease"]["token"]
                    deliveries.update_one({"_id": document["_id"], "lease.token": token, "unit": ABSENT}, _SET_BACK)

    # ------------------------------------------------------------------ content without a delivery

    def _search(self) -> None:
        self._searched = ""
        self._searched_at = time.monotonic()

    def _search_on(self, after: str) -> None:
        seen = ("_id.message_id", "_id.part", "origin", "since")
        with self._database.translated():
            # The index alone has all of it: a part has up to 256 KiB.
            found = list(
                self._database["content"]
                .find({"_id.message_id": {"$gt": after}}, dict.fromkeys(seen, 1))
                .sort([("_id.message_id", 1), ("_id.part", 1)])
                .limit(PARTS_AT_ONCE)
            )
            messages = {str(each["_id"]["message_id"]) for each in found}
            left = set(self._database["deliveries"].distinct("message_id", {"message_id": {"$in": list(messages)}}))
        if messages - left:
            self._erase([each for each in found if each["_id"]["message_id"] not in left])
        # Of the last message there may be more parts: they are erased by its id, or stay with it.
        self._searched = max(messages) if len(found) == PARTS_AT_ONCE else None

    def _erase(self, parts: list[Document]) -> None:
        now = self._database.now()
        living, _ = self._node.living_and_gone()
        spent = {
            str(each["_id"]["message_id"])
            for each in parts
            if node_of(each["origin"]) not in living
            or self._is_from_before(each["origin"])
            or each["since"] < now - LONGEST_RECEPTION_MS
        }
        self._units.erase_content(spent)

    def _is_from_before(self, origin: str) -> bool:
        node, number = self._before
        return node_of(origin) == node and number_of(origin) <= number
