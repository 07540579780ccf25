"""A record store that several nodes share."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from mongod import Mongod, running_mongod
from storage_backends import MongoBackend

from appliance.privacy.declarations import collections_of
from appliance.privacy.sealing import Keyring
from appliance.storage.records import RecordStore
from appliance.storage.sqlite_records import SqliteRecords

Opened = Callable[[Keyring], RecordStore]


@pytest.fixture(scope="session")
def mongod() -> Iterator[Mongod]:
    """A server that is started once for many tests, which leave it as it is."""
    with running_mongod(parameters=["ttlMonitorEnabled=false"]) as server:
        yield server


@pytest.fixture(params=["sqlite", "mongodb"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """Opens a store with nothing in it: on a server, and in a file that has what is shared as well."""
    if request.param == "sqlite":
        monkeypatch.setattr("appliance.storage.sqlite_records.collections_of", partial(collections_of, shared=True))
        yield partial(SqliteRecords, tmp_path / "records.sqlite")
        return
    place = MongoBackend(request.getfixturevalue("mongod"))
    yield place.records
    place.close()
