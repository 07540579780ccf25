"""The storage backends that the contract tests run against. A further one is one more class and one more entry here."""

from pathlib import Path
from typing import Protocol

from stored_values import a_keyring

from appliance.privacy.sealing import Keyring
from appliance.storage.disk import THE_DISK, Disk
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


BACKENDS = {"sqlite": SqliteBackend}
