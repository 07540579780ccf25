"""The stores of one data directory, opened with the keys that each of them needs, and no others.

The engine, the control process and the command line all come through here, so that there is one place which knows the
names of the files. Each backend is imported where it is opened: nobody loads one that it does not use.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.configuration import Configuration
from appliance.privacy.declarations import COLLECTIONS, Store, collections_of
from appliance.privacy.sealing import Keyring, Sealer
from appliance.privacy.secrets import Secrets
from appliance.storage.directory import make_private_directory

if TYPE_CHECKING:
    from appliance.storage.sqlite_records import SqliteRecords
    from appliance.storage.sqlite_spool import SqliteSpool

RECORDS_FILE = "records.sqlite"
SPOOL_FILE = "spool.sqlite"

SRS_KEY = "srs"
"""The key that signs rewritten senders. No store is sealed under it."""

ALL_KEYS = (*sorted({collection.sealed_under for collection in COLLECTIONS if collection.sealed_under}), SRS_KEY)


def open_records(config: Configuration) -> SqliteRecords:
    """The record store, made at its first use. Raises StoreUnavailable, SecretRefused or OSError."""
    from appliance.storage.sqlite_records import SqliteRecords

    make_private_directory(config.data_dir)
    return SqliteRecords(config.data_dir / RECORDS_FILE, keyring(config, _keys_of(Store.RECORDS)))


def open_spool(config: Configuration) -> SqliteSpool:
    """The spool, made at its first use. For the engine alone. Raises StoreUnavailable, SecretRefused or OSError."""
    from appliance.storage.sqlite_spool import SqliteSpool

    make_private_directory(config.data_dir)
    return SqliteSpool(config.data_dir / SPOOL_FILE, keyring(config, _keys_of(Store.SPOOL)))


def keyring(config: Configuration, names: Iterable[str]) -> Keyring:
    """The sealers of these names; a key that does not exist yet is made. Raises SecretRefused or OSError."""
    own = secrets(config)
    return {name: Sealer(own.key(name)) for name in names}


def secrets(config: Configuration) -> Secrets:
    """The secrets of this appliance: what systemd hands over, and what the data directory holds."""
    handed_over = os.environ.get("CREDENTIALS_DIRECTORY")
    return Secrets(config.data_dir, Path(handed_over) if handed_over else None)


def _keys_of(store: Store) -> set[str]:
    return {collection.sealed_under for collection in collections_of(store) if collection.sealed_under}
