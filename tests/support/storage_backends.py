"""The storage backends that the contract tests run against. A further one is one more class and one more entry here."""

import secrets
from pathlib import Path
from typing import Protocol

from mongod import Mongod
from stored_values import a_keyring

from appliance.privacy.sealing import Keyring
from appliance.storage.disk import THE_DISK, Disk
from appliance.storage.mongo_records import MongoRecords
from appliance.storage.mongo_spool import MongoSpool
from appliance.storage.mongo_spool_nodes import LEASE_MS
from appliance.storage.records import RecordStore
from appliance.storage.spool import SpoolStore
from appliance.storage.sqlite_records import SqliteRecords
from appliance.storage.sqlite_spool import SqliteSpool


class Backend(Protocol):
    """A place where one record store and one spool store live; opening twice leads to the same rows."""

    def records(self, keyring: Keyring | None = None) -> RecordStore:
        """Open the record store; with both keys unless told otherwise."""

    def spool(self, keyring: Keyring | None = None) -> SpoolStore:
        """Open the spool store."""

    def close(self) -> None:
        """Close every store that was opened."""


class SqliteBackend:
    """Two files in a directory."""

    def __init__(self, directory: Path) -> None:
        self.records_path = directory / "data" / "records.sqlite"
        self.spool_path = directory / "data" / "spool.sqlite"
        self._opened: list[RecordStore | SpoolStore] = []

    def records(self, keyring: Keyring | None = None) -> SqliteRecords:
        store = SqliteRecords(self.records_path, a_keyring() if keyring is None else keyring)
        self._opened.append(store)
        return store

    def spool(self, keyring: Keyring | None = None, disk: Disk = THE_DISK) -> SqliteSpool:
        store = SqliteSpool(self.spool_path, a_keyring() if keyring is None else keyring, disk=disk)
        self._opened.append(store)
        return store

    def close(self) -> None:
        for store in self._opened:
            store.close()


class MongoBackend:
    """A database of its own on a server that others use too."""

    def __init__(self, server: Mongod) -> None:
        self.server = server
        emptied = _EMPTIED.get(server.port)
        self.database = emptied.pop() if emptied else f"test-{secrets.token_hex(6)}"
        self.url = server.url_of(self.database)
        self._opened: list[MongoRecords | MongoSpool] = []

    def records(self, keyring: Keyring | None = None, abandoned_ms: int = 10_000) -> MongoRecords:
        """With `abandoned_ms=0` it takes everybody for dead who is in the middle of something."""
        store = MongoRecords(self.url, a_keyring() if keyring is None else keyring, abandoned_ms=abandoned_ms)
        self._opened.append(store)
        return store

    def spool(self, keyring: Keyring | None = None, node: str = "one", lease_ms: int = LEASE_MS) -> MongoSpool:
        store = MongoSpool(self.url, a_keyring() if keyring is None else keyring, node, lease_ms=lease_ms)
        self._opened.append(store)
        return store

    def close(self) -> None:
        for store in self._opened:
            store.close()
        with self.server.client() as client:
            for name in client[self.database].list_collection_names():
                if name != "schema":
                    client[self.database][name].delete_many({})
        _EMPTIED.setdefault(self.server.port, []).append(self.database)


_EMPTIED: dict[int, list[str]] = {}
"""By the port of a server: databases without a document. To make all collections and indexes takes half a second."""

BACKENDS = {"sqlite": SqliteBackend}

MONGODS = ("mongod", "mongod_replica_set")
"""The fixtures of the servers that a `MongoBackend` can be on."""
