"""Every contract test runs once for each backend."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_backends import BACKENDS, Backend, SqliteBackend

from appliance.storage.records import RecordStore
from appliance.storage.spool import SpoolStore


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """A fresh place for stores."""
    place = BACKENDS[request.param](tmp_path)
    yield place
    place.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[SqliteBackend]:
    """A fresh directory, for what is true of SQLite only."""
    place = SqliteBackend(tmp_path)
    yield place
    place.close()


@pytest.fixture
def records(backend: Backend) -> RecordStore:
    """An empty record store."""
    return backend.records()


@pytest.fixture
def spool(backend: Backend) -> SpoolStore:
    """An empty spool store."""
    return backend.spool()
