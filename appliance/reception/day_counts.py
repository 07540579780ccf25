"""How many messages each account has received today, for the limit that its plan sets.

The day is that of UTC: one number an account, and everybody can tell when it ends. (Of the last 24 hours there would
have to be a number for each, and in the long run no more would come through.) It is the day that the wall clock shows:
one that is set over a midnight, forwards or back, begins a day anew, and none is ever longer for it.

A message counts for an account when it gets its 250, once, however many of the account's addresses it was for. RCPT
only looks: what was under way when the limit was reached is taken, which is at most a message for each connection.

RCPT waits for no disk, so the numbers are in memory. They are written to the record store every WRITE_S
and at the end, for the next start and for `explain`. A crash forgets what came since the last writing, and so lets an
account receive that many more; where the store is away, it is what came since it went.

Where several nodes share the store, each writes what it has counted itself, and reads then what the others have: an
account may receive at each of them what it could at one, until they have heard of each other.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice

import trio

from appliance.model.time import DAY_MS, Clock
from appliance.privacy.declarations import RECEIVED_TODAY
from appliance.storage.records import Insert, Page, RecordStore, StoreUnavailable, Update

WRITE_S = 30.0
"""How often what has been counted is written: as seldom as the clocks are, and often enough for who asks `explain`."""

_PAGE = 5000

_AT_ONCE = 200
"""Accounts in one batch: of many, a store that several nodes share would take as long as a batch may at most."""

_COUNTED = ("day", "messages")
"""What is another each time."""

_log = logging.getLogger(__name__)


class DayCounts:
    """The counts of one engine. For its one thread."""

    def __init__(self, counts: Mapping[str, int] = {}, now: int = 0, *, node: str = "") -> None:
        """`counts` is what the run before has written on the day of this instant, by account. `node` names this one
        among several; empty where it is the only one."""
        self.node = node
        self._day = day_of(now)
        self._counts = dict(counts)
        self._elsewhere: dict[str, int] = {}
        """What other nodes have counted, as far as it is known here."""
        self._unwritten: set[str] = set()

    def received(self, account_id: str, now: int) -> int:
        """How many messages an account has received on the day of this instant."""
        self._turn_to(now)
        return self._counts.get(account_id, 0) + self._elsewhere.get(account_id, 0)

    def count(self, account_ids: Iterable[str], now: int) -> None:
        """A message was accepted for these accounts, each of which is named once."""
        self._turn_to(now)
        for account_id in account_ids:
            self._counts[account_id] = self._counts.get(account_id, 0) + 1
            self._unwritten.add(account_id)

    def unwritten(self, now: int) -> dict[str, int]:
        """What the record store does not know yet, by account."""
        self._turn_to(now)
        return {account_id: self._counts[account_id] for account_id in self._unwritten}

    def written(self, counts: Mapping[str, int], now: int) -> None:
        """The record store has these of the day of this instant; what has been counted meanwhile is still to be
        written."""
        if self._day == day_of(now):
            self._unwritten -= {each for each, count in counts.items() if self._counts.get(each) == count}

    def learn(self, elsewhere: Mapping[str, int], now: int) -> None:
        """Other nodes have counted these on the day of this instant."""
        self._turn_to(now)
        self._elsewhere = dict(elsewhere)

    def _turn_to(self, now: int) -> None:
        if not 0 <= now - self._day < DAY_MS:
            self._day = day_of(now)
            self._counts.clear()
            self._elsewhere.clear()
            self._unwritten.clear()


async def keep_written(counts: DayCounts, records: RecordStore, clock: Clock) -> None:
    """Write what has been counted, and hear of what others have, again and again, until cancelled.

    A store that refuses hears it the next time, and until then what others had before stands.
    """
    away = False
    while True:
        await trio.sleep(WRITE_S)
        try:
            await write_down(counts, records, clock())
            if counts.node:
                await hear_of_others(counts, records, clock())
        except StoreUnavailable as error:
            if not away:
                _log.warning("what accounts have received today can't be written down now: %s", error)
            away = True
        else:
            if away:
                _log.info("what accounts have received today is written down again")
            away = False


async def write_down(counts: DayCounts, records: RecordStore, now: int) -> None:
    """Write what has been counted. Raises StoreUnavailable."""
    if unwritten := counts.unwritten(now):
        await trio.to_thread.run_sync(write_counts, records, unwritten, now, counts.node)
        counts.written(unwritten, now)


async def hear_of_others(counts: DayCounts, records: RecordStore, now: int) -> None:
    """Read what other nodes have counted. Raises StoreUnavailable."""
    _, elsewhere = await trio.to_thread.run_sync(stored_counts, records, now, counts.node)
    counts.learn(elsewhere, now)


# ------------------------------------------------------------------ in the record store


def day_of(now: int) -> int:
    """When the day of an instant began, in milliseconds since the epoch."""
    return now - now % DAY_MS


def write_counts(records: RecordStore, counts: Mapping[str, int], now: int, node: str = "") -> None:
    """Store what accounts have received here on the day of this instant. Raises StoreUnavailable."""
    left = iter(counts.items())
    while some := list(islice(left, _AT_ONCE)):
        rows = [
            {
                "id": f"{account_id}@{node}",
                "account_id": account_id,
                "node": node,
                "day": day_of(now),
                "messages": count,
            }
            for account_id, count in some
        ]
        # Mostly they are there, and to change one is less than to put another in its place.
        changes = [Update(RECEIVED_TODAY, {"id": row["id"]}, {key: row[key] for key in _COUNTED}) for row in rows]
        touched = records.apply(changes)
        new = [Insert(RECEIVED_TODAY, row) for row, was_there in zip(rows, touched, strict=True) if not was_there]
        if new:
            records.apply(new)


def stored_counts(records: RecordStore, now: int, node: str = "") -> tuple[dict[str, int], dict[str, int]]:
    """What is stored of the day of this instant, by account: of this node, and of all others together. Raises
    StoreUnavailable."""
    here: dict[str, int] = {}
    elsewhere: Counter[str] = Counter()
    after = None
    while rows := records.find(RECEIVED_TODAY, {"day": day_of(now)}, Page(after=after, limit=_PAGE)):
        for row in rows:
            account_id, messages = str(row["account_id"]), int(str(row["messages"]))
            if row["node"] == node:
                here[account_id] = messages
            else:
                elsewhere[account_id] += messages
        after = str(rows[-1]["id"])
    return here, elsewhere


def stored_count(records: RecordStore, account_id: str, now: int) -> int:
    """The same for one account, of all nodes together. Raises StoreUnavailable."""
    rows = records.find(RECEIVED_TODAY, {"account_id": account_id, "day": day_of(now)})
    return sum(int(str(row["messages"])) for row in rows)
