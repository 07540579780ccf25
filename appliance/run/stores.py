"""The stores of one data directory, opened with the keys that each of them needs, and no others.

The engine, the control process and the command line all come through here, so that there is one place which knows the
names of the files. Each backend is imported where it is opened: nobody loads one that it does not use.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from appliance.configuration import Configuration
from appliance.configuration.mongo_urls import user_of, with_password
from appliance.privacy.declarations import COLLECTIONS, Store, collections_of
from appliance.privacy.receipts import RECEIPT_KEY
from appliance.privacy.sealing import Keyring, Sealer
from appliance.privacy.secrets import Secrets
from appliance.run import CannotStart
from appliance.run.cluster_keys import ClusterSecrets
from appliance.run.lost_keys import KeyLost, advice, how_to_hand_over
from appliance.storage.copying import is_unfinished
from appliance.storage.directory import make_private_directory
from appliance.storage.records import RecordStore
from appliance.version import version

if TYPE_CHECKING:
    from appliance.storage.mongo_records import MongoRecords
    from appliance.storage.mongo_spool import MongoSpool
    from appliance.storage.spool import SpoolStore

RECORDS_FILE = "records.sqlite"
SPOOL_FILE = "spool.sqlite"

SRS_KEY = "srs"
"""The key that signs rewritten senders, and what the marks of our Received lines are derived from. No store is sealed
under it."""

EPHEMERAL_KEY = "ephemeral"
"""The key of what lies in a Redis: the same for all processes and nodes that share it (`appliance.run.ephemeral`).
Whoever has another one finds nothing there: its people are signed out, and its limits begin anew."""

ALL_KEYS = (
    *sorted({each.sealed_under for each in COLLECTIONS if each.sealed_under and not each.shared}),
    SRS_KEY,
    RECEIPT_KEY,
)

MONGODB_PASSWORD = "mongodb-password"
"""The secret for the MongoDB: that of the user in the URL."""

_log = logging.getLogger(__name__)


def open_records(config: Configuration, *, whole: bool = True) -> RecordStore:
    """The record store, made at its first use. Only whoever copies into it takes one that is not `whole`.

    Raises CannotStart, StoreUnavailable, SchemaMismatch, SecretRefused (KeyLost and ClusterKeyUnfit among them) or
    OSError.
    """
    records = _open_records(config)
    try:
        if whole and is_unfinished(records):
            raise CannotStart(
                "a copy into this store was broken off, and it is not whole: run the same `onward store copy` once more"
            )
    except BaseException:
        records.close()
        raise
    return records


def _open_records(config: Configuration) -> RecordStore:
    if is_shared(config):
        return _open_shared(config, Store.RECORDS, partial(_shared_records, config))
    from appliance.storage.sqlite_records import SqliteRecords

    return _open(config, Store.RECORDS, RECORDS_FILE, SqliteRecords)


def open_spool(config: Configuration, node: str = "") -> SpoolStore:
    """The spool, made at its first use. Raises the same.

    For the engine alone, or while none runs. `node`: the name of this one, where it is to take part in a spool that
    nodes share (`node_name.py`); who only looks has none.
    """
    if is_shared(config):
        return _open_shared(config, Store.SPOOL, partial(_shared_spool, config, node))
    from appliance.storage.sqlite_spool import SqliteSpool

    return _open(config, Store.SPOOL, SPOOL_FILE, SqliteSpool)


def is_shared(config: Configuration) -> bool:
    """Whether records and spool are in a store that several nodes share; else they are this machine's alone."""
    return config.store.url.startswith("mongodb")


def _shared_records(config: Configuration, keyring: Keyring) -> MongoRecords:
    from appliance.storage.mongo_records import MongoRecords

    return MongoRecords(shared_url(config), keyring)


def _shared_spool(config: Configuration, node: str, keyring: Keyring) -> MongoSpool:
    from appliance.storage.mongo_spool import MongoSpool

    return MongoSpool(shared_url(config), keyring, node, version())


def shared_url(config: Configuration) -> str:
    """The URL of the store that nodes share, with the password for it. Raises CannotStart, SecretRefused."""
    url = config.store.url
    password = Secrets(config.data_dir, _handed_over()).load(MONGODB_PASSWORD)
    if not user_of(url):
        return url
    if password:
        return with_password(url, password)
    if "tlsCertificateKeyFile=" in url:
        # Who we are is said by the certificate.
        return url
    path = config.data_dir / "secrets" / MONGODB_PASSWORD
    raise CannotStart(f"store.url names a user, and there is no password: {how_to_hand_over(path)}")


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
            raise KeyLost(
                f"{path} is sealed under a key that is not there any more. "
                f"{advice(name, own.file_of(name), f'move {path} away')}"
            )
    whole = opened(path, keyring(config, names))
    _tell_of_others(path, whole)
    return whole


def _open_shared(config: Configuration, store: Store, opened: Callable[[Keyring], _AnyStore]) -> _AnyStore:
    """The same for a store that nodes share, whose keys are in the record store that they share."""
    make_private_directory(config.data_dir)

    def in_use() -> Collection[str]:
        with closing(opened({})) as keyless:
            return keyless.keys_in_use().keys()

    names = {each.sealed_under for each in collections_of(store, shared=True) if each.sealed_under}
    own = cluster_secrets(config)
    whole = opened(_sealers(own.keys_of_store(names, in_use)))
    try:
        _tell_of_others("store.url", whole)
    except BaseException:
        whole.close()
        raise
    return whole


def _tell_of_others(place: object, whole: _Sealed) -> None:
    """Say in the log of the process which keys open nothing of what is sealed under their names."""
    for name, opens in whole.keys_in_use().items():
        if not opens:
            _log.error(
                "nothing that is sealed in %s opens with %s.key: it is another key, put the right one back", place, name
            )


def keyring(config: Configuration, names: Iterable[str]) -> Keyring:
    """The sealers of these names; a key that does not exist yet is made. Raises SecretRefused or OSError."""
    return _sealers(secrets(config).keys(names))


def _sealers(keys: Mapping[str, bytes]) -> Keyring:
    return {name: Sealer(key) for name, key in keys.items()}


def secrets(config: Configuration) -> Secrets:
    """The secrets of this appliance: what systemd hands over, and what the data directory holds.

    Where nodes share a store, its keys are in there; asking for one may raise what opening that store does.
    """
    if is_shared(config):
        return cluster_secrets(config)
    return Secrets(config.data_dir, _handed_over())


def cluster_secrets(config: Configuration) -> ClusterSecrets:
    """The secrets of a node of the store at `store.url`, which nodes share."""
    return ClusterSecrets(config.data_dir, _handed_over(), partial(_shared_records, config))


def _handed_over() -> Path | None:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(directory) if directory else None
