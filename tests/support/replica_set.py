"""A replica set of three real mongods on loopback, and the ways in which it changes its primary.

Who takes writes is asked of the members themselves, each directly: nothing is believed that the appliance believes.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from appliance_process import eventually
from mongod import REPLICA_SET, Mongod, require_mongod
from pymongo import MongoClient
from pymongo.errors import AutoReconnect, PyMongoError

MEMBERS = 3

ELECTION_S = 2.0
"""A primary that is not heard of for so long is replaced. MongoDB's own setting is 10."""

USUAL_ELECTION_S = 10.0

ELECTED_WITHIN_S = 60.0
"""On a machine that does other things as well, several rounds of voting."""

HEARTBEATS = 5
"""So many in that time, as in MongoDB's own settings."""

PROMPT_S = 0.3
"""A write that a majority has at once: less than a heartbeat, which here is 0.4."""

_OPLOG_MB = "32"
_ASKED_MS = 1000
_ACKNOWLEDGED_MS = 20_000
_WRITES = 6
_HELD_UP_MS = 1000


class ReplicaSet:
    """Three members. They die with the thread that starts them: this has one of its own. See `replica_set`."""

    def __init__(self, directory: Path, election_s: float = ELECTION_S) -> None:
        """`election_s`: after so long without a sign of life a primary is replaced."""
        self.members: list[Mongod] = []
        self._election_s = election_s
        self._starter = ThreadPoolExecutor(1)
        for number in range(MEMBERS):
            place = directory / f"member{number}"
            place.mkdir()
            member = Mongod(place, replica_set=True, has_peers=True, parameters=["ttlMonitorEnabled=false"])
            member.options = ("--oplogSize", _OPLOG_MB)
            self.members.append(member)

    def url_of(self, database: str) -> str:
        """As `store.url` takes it: all members are named in it."""
        return f"mongodb://{','.join(each.address for each in self.members)}/{database}?replicaSet={REPLICA_SET}"

    def bring_up(self) -> None:
        """Start all of them, and have them choose a primary."""
        for member in self.members:
            self.start(member)
        configuration = {
            "_id": REPLICA_SET,
            "members": [{"_id": number, "host": each.address} for number, each in enumerate(self.members)],
            "settings": {
                "electionTimeoutMillis": round(self._election_s * 1000),
                "heartbeatIntervalMillis": round(self._election_s * 1000 / HEARTBEATS),
            },
        }
        with self.members[0].client() as client:
            client.admin.command("replSetInitiate", configuration)
        self.await_primary()
        self.await_secondaries()

    def close(self) -> None:
        """End all of them."""
        for member in self.members:
            member.kill()
        self._starter.shutdown()

    def start(self, member: Mongod) -> None:
        """Start one that does not run. To be called by any thread."""
        self._starter.submit(member.start).result()

    # ------------------------------------------------------------------ who is what

    def primary(self) -> Mongod | None:
        """Who takes writes, as far as it can be asked; where two say so, it is the one with the later term."""
        found = [
            (answer["electionId"], each) for each in self.members if (answer := _hello(each)).get("isWritablePrimary")
        ]
        return max(found, key=lambda pair: bytes(pair[0].binary))[1] if found else None

    def await_primary(self, other_than: Mongod | None = None) -> Mongod:
        """Wait until there is one that takes writes."""

        def look() -> Mongod | None:
            found = self.primary()
            return found if found is not other_than else None

        return eventually(look, ELECTED_WITHIN_S, "a primary", every=0.05)

    def await_majority(self) -> None:
        """Wait until a majority has at once what is written now.

        Behind an election that may take seconds. Who copied from a primary that is silent has to find that out first;
        and after that the primary hears from the copies with the heartbeats alone, until they have found that out, too.
        """

        def is_acknowledged() -> bool:
            primary = self.primary()
            if primary is None:
                return False
            with primary.client(timeoutMS=_ACKNOWLEDGED_MS, w="majority", journal=True) as client:
                try:
                    # The first waits until there is a majority; of the others the quickest tells how quick it is.
                    return min([_seconds_to_write(client) for _ in range(_WRITES)][1:]) < PROMPT_S
                except PyMongoError:
                    return False

        eventually(is_acknowledged, ELECTED_WITHIN_S, "a majority", every=0.05)

    def await_secondaries(self) -> None:
        """Wait until all who are not the primary have caught up with it."""

        def all_are_there() -> bool:
            answers = [_hello(each) for each in self.members]
            return all(answer.get("isWritablePrimary") or answer.get("secondary") for answer in answers)

        eventually(all_are_there, ELECTED_WITHIN_S, "all members are of use", every=0.1)

    def others(self, member: Mongod) -> list[Mongod]:
        """All but this one."""
        return [each for each in self.members if each is not member]

    # ------------------------------------------------------------------ how it changes

    def step_down(self) -> None:
        """The primary hands over in good order, as before maintenance."""
        primary = self.await_primary()
        with primary.client() as client:
            try:
                client.admin.command("replSetStepDown", 20, secondaryCatchUpPeriodSecs=10)
            except AutoReconnect:
                # Connections may go with the office.
                pass

    def lose_what_no_majority_has(
        self, database: str, sooner_or_later: str = "", meanwhile: Callable[[], None] = lambda: None
    ) -> tuple[Mongod, set[str]]:
        """End the primary as soon as it has written something to a database that nobody has copied.

        `sooner_or_later`: a collection to which that has to be an update. They are held up at the primary until nobody
        copies any more what it writes. `meanwhile`: what happens just before it ends.

        Returns it, and to which collections it was. It does not run, and the others have chosen another: when it comes
        back it has to take back what it has written alone (`rollbacks`).
        """
        primary = self.await_primary()
        others = self.others(primary)
        if sooner_or_later:
            _hold_up(primary, f"{database}.{sooner_or_later}")
        copying = [_stop_copying(each) for each in others]
        for has_stopped in copying:
            has_stopped()
        try:
            lost = eventually(lambda: _written_alone(primary, database, sooner_or_later), what="it writes alone")
            meanwhile()
        finally:
            primary.kill()
            for each in others:
                _copy_again(each)
        self.await_primary(primary)
        return primary, lost


def _stop_copying(member: Mongod) -> Callable[[], None]:
    """Have it copy nothing more from anybody. What is returned waits until it does not."""
    with member.client() as client:
        set_up = client.admin.command("configureFailPoint", "stopReplProducer", mode="alwaysOn")

    def wait() -> None:
        once_more = int(set_up["count"]) + 1
        with member.client() as client:
            client.admin.command(
                "waitForFailPoint", "stopReplProducer", timesEntered=once_more, maxTimeMS=_ACKNOWLEDGED_MS
            )

    return wait


def _copy_again(member: Mongod) -> None:
    with member.client() as client:
        client.admin.command("configureFailPoint", "stopReplProducer", mode="off")


def _hold_up(primary: Mongod, collection: str) -> None:
    """Returns when there is an update of a collection that has to wait. It goes with the primary."""
    how = {"failCommands": ["update"], "namespace": collection, "blockConnection": True, "blockTimeMS": _HELD_UP_MS}
    with primary.client() as client:
        set_up = client.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=how)
        once_more = int(set_up["count"]) + 1
        client.admin.command("waitForFailPoint", "failCommand", timesEntered=once_more, maxTimeMS=_ACKNOWLEDGED_MS)


def _written_alone(primary: Mongod, database: str, collection: str) -> set[str]:
    """To which collections it has written what no majority has; nothing, while this one is not among them."""
    with primary.client() as client:
        copied = client.admin.command("replSetGetStatus")["optimes"]["lastCommittedOpTime"]["ts"]
        written = client["local"]["oplog.rs"].find({"ts": {"$gt": copied}, "ns": {"$regex": f"^{database}[.]"}})
        found = {str(each["ns"]).partition(".")[2] for each in written}
    return found if not collection or collection in found else set()


def rollbacks(member: Mongod) -> int:
    """How often this one has taken back what it had written; a number that only grows."""
    with member.client() as client:
        return int(client.admin.command("replSetGetRBID")["rbid"])


def _seconds_to_write(client: MongoClient[dict[str, Any]]) -> float:
    began = time.monotonic()
    client["probes"]["writes"].insert_one({})
    return time.monotonic() - began


def _hello(member: Mongod) -> dict[str, Any]:
    if not member.can_answer:
        return {}
    options = {"serverSelectionTimeoutMS": _ASKED_MS, "socketTimeoutMS": _ASKED_MS, "connectTimeoutMS": _ASKED_MS}
    with member.client(**options) as client:
        try:
            return dict(client.admin.command("hello"))
        except PyMongoError:
            return {}


@contextmanager
def replica_set(election_s: float = ELECTION_S) -> Iterator[ReplicaSet]:
    """A fresh one for as long as the block lasts. Skips the test where there is no mongod."""
    require_mongod()
    directory = Path(tempfile.mkdtemp(prefix="onward-replica-set-"))
    made = ReplicaSet(directory, election_s)
    try:
        made.bring_up()
        yield made
    finally:
        made.close()
        shutil.rmtree(directory, ignore_errors=True)
