"""A hall with empty stores for every test of this room."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from entrance_hall import Hall
from stored_values import a_keyring

from appliance.storage.sqlite_records import SqliteRecords
from appliance.storage.sqlite_spool import SqliteSpool


@pytest.fixture
def records(tmp_path: Path) -> Iterator[SqliteRecords]:
    """An empty record store."""
    records = SqliteRecords(tmp_path / "records.sqlite", a_keyring())
    yield records
    records.close()


@pytest.fixture
def hall(records: SqliteRecords) -> Hall:
    """A hall with nobody in it."""
    return Hall(records)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[SqliteSpool]:
    """An empty spool, for the broom goes through both stores."""
    spool = SqliteSpool(tmp_path / "spool.sqlite", a_keyring())
    yield spool
    spool.close()
