"""Every contract test runs once for each backend."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from mongod import Mongod, running_mongod
from redis_server import PrivateRedis, missing
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


@pytest.fixture(scope="session")
def running_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRedis]:
    """A Redis that is started once for many tests."""
    if missing():
        pytest.skip(missing())
    with PrivateRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(running_redis: PrivateRedis) -> PrivateRedis:
    """An empty Redis, which the tests leave as it is: one that is to be broken is started by its test."""
    running_redis.ask("FLUSHALL")
    return running_redis


@pytest.fixture(scope="session")
def mongod() -> Iterator[Mongod]:
    """A mongod that is started once for many tests, which leave it as it is. What is old stays: no TTL index acts."""
    with running_mongod(parameters=["ttlMonitorEnabled=false"]) as server:
        yield server


@pytest.fixture(scope="session")
def mongod_replica_set() -> Iterator[Mongod]:
    """The same as the only member of a replica set."""
    with running_mongod(replica_set=True, parameters=["ttlMonitorEnabled=false"]) as server:
        yield server
