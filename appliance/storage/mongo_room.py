"""Room for new mail on a MongoDB server: what it says about its disk.

A mongod whose disk is full ends itself, with all that it does for everybody. So new mail is refused long before; what
becomes of the mail that is there takes little, and gives back more.
"""

from appliance.storage.mongo_database import MongoDatabase
from appliance.storage.room import SMALLEST_SHARE

FLOOR_OCTETS = 512 << 20
"""New mail leaves so much free on the server's disk: a checkpoint of a busy server and its log take some hundred MB."""

COPIES = 2
"""What is written stands in the server's log and in its data, and for a moment in both."""


class Room:
    """The room on the server of one database. Thread-safe."""

    def __init__(self, database: MongoDatabase) -> None:
        self._database = database
        self._free = 0

    def measure(self) -> None:
        """Ask the server. Raises StoreUnavailable."""
        with self._database.translated():
            told = self._database["deliveries"].database.command("dbStats")
        # A server that does not say it has its disk elsewhere, and somebody who looks after it.
        total = int(told.get("fsTotalSize") or 0)
        floor = min(FLOOR_OCTETS, total // SMALLEST_SHARE)
        self._free = total - int(told.get("fsUsedSize") or 0) - floor if total else FLOOR_OCTETS

    def is_full(self) -> None:
        """The server has refused something for that; until it is asked again there is no room."""
        self._free = 0

    def has(self, octets: int) -> bool:
        """Whether so much content fits, as the server said it last. Asks nobody."""
        return self._free > COPIES * octets
