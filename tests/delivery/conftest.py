"""A spool of its own for each test of the scheduler."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.privacy.sealing import Sealer
from appliance.storage.sqlite_spool import SqliteSpool


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteSpool]:
    opened = SqliteSpool(tmp_path / "spool.sqlite", {"spool": Sealer(bytes(32)), "log": Sealer(bytes(32))})
    yield opened
    opened.close()
