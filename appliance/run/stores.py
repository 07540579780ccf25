"""The stores of one data directory, opened with the keys that each of them needs, and no others.

The engine, the control process and the command line all come through here, so that there is one place which knows the
names of the files. Each backend is imported where it is opened: nobody loads one that it does not use.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from appliance.configuration import Configuration
from appliance.privacy.declarations import COLLECTIONS, Store, collections_of
from appliance.privacy.receipts import RECEIPT_KEY
from appliance.privacy.sealing import Keyring, Sealer
from appliance.privacy.secrets import SecretRefused, Secrets
from appliance.run import CannotStart
from appliance.storage.directory import make_private_directory

if TYPE_CHECKING:
    from appliance.storage.sqlite_records import SqliteRecords
    from appliance.storage.sqlite_spool import SqliteSpool

RECORDS_FILE = "records.sqlite"
SPOOL_FILE = "spool.sqlite"

SRS_KEY = "srs"
"""The key that signs rewritten senders, and what the marks of our Received lines are derived from. No store is sealed
under it."""

ALL_KEYS = (
    *sorted({collection.sealed_under for collection in COLLECTIONS if collection.sealed_under}),
    SRS_KEY,
    RECEIPT_KEY,
)


_ADVICE = {
    "spool": "Put {key} back, or, to begin anew without the mail that is in it, move {path} away",
    "accounts": "Put {key} back, or, where it is gone for good, make a new one: (umask 077; head -c 32 /dev/urandom > "
    "{key}). Accounts with a second factor then sign in with a recovery code, and enable it anew",
    "log": "Put {key} back, or, to begin a new log beside the old one, which nobody can read without it, "
    "make a new key: (umask 077; head -c 32 /dev/urandom > {key})",
}
"""What to do when a key is lost."""

_log = logging.getLogger(__name__)


class KeyLost(CannotStart, SecretRefused):
    """Rows are there, and the key that they are sealed under is not. A new one would open none of them."""


def open_records(config: Configuration) -> SqliteRecords:
    """The record store, made at its first use. Raises StoreUnavailable, SchemaMismatch, SecretRefused or OSError."""
    from appliance.storage.sqlite_records import SqliteRecords

    return _open(config, Store.RECORDS, RECORDS_FILE, SqliteRecords)


def open_spool(config: Configuration) -> SqliteSpool:
    """The spool, made at its first use. For the engine alone. Raises the same."""
    from appliance.storage.sqlite_spool import SqliteSpool

    return _open(config, Store.SPOOL, SPOOL_FILE, SqliteSpool)


class _Sealed(Protocol):
    """A store that can say which keys its rows need."""

    def keys_in_use(self) -> Mapping[str, bool]: ...

    def close(self) -> None: ...


_AnyStore = TypeVar("_AnyStore", bound=_Sealed)


def _open(config: Configuration, store: Store, file: str, opened: Callable[[Path, Keyring], _AnyStore]) -> _AnyStore:
    from appliance.storage.sqlite_salvage import numbers_of

    make_private_directory(config.data_dir)
    path = config.data_dir / file
    names = {collection.sealed_under for collection in collections_of(store) if collection.sealed_under}
    own = secrets(config)
    missing = {name for name in names if not own.exists(name)}
    if missing and numbers_of(path):
        keyless = opened(path, {})
        try:
            lost = sorted(missing & keyless.keys_in_use().keys())
        finally:
            keyless.close()
        for name in lost:
            advice = _ADVICE[name].format(key=config.data_dir / "secrets" / f"{name}.key", path=path)
            raise KeyLost(f"{path} is sealed under a key that is not there any more. {advice}")
    whole = opened(path, keyring(config, names))
    for name, opens in whole.keys_in_use().items():
        if not opens:
            _log.error(
                "nothing that is sealed in %s opens with %s.key: it is another key, put the right one back", path, name
            )
    return whole


def keyring(config: Configuration, names: Iterable[str]) -> Keyring:
    """The sealers of these names; a key that does not exist yet is made. Raises SecretRefused or OSError."""
    own = secrets(config)
    return {name: Sealer(own.key(name)) for name in names}


def secrets(config: Configuration) -> Secrets:
    """The secrets of this appliance: what systemd hands over, and what the data directory holds."""
    handed_over = os.environ.get("CREDENTIALS_DIRECTORY")
    return Secrets(config.data_dir, Path(handed_over) if handed_over else None)
