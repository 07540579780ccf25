"""An API to speak with, over HTTP, with stores of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from served_api import ServedApi, served_api

from appliance.configuration import Configuration


@pytest.fixture
def config(tmp_path: Path) -> Configuration:
    """The defaults, in a directory of the test."""
    return Configuration(hostname="mx.onward.test", data_dir=tmp_path / "var")


@pytest.fixture
def api(config: Configuration) -> Iterator[ServedApi]:
    """The API without an engine, served for this test."""
    with served_api(config) as served:
        yield served
