"""A desk for every test of this room."""

from pathlib import Path

import pytest
from command_line_desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A directory with a configuration of its own, in which nothing has happened yet."""
    return Desk(tmp_path)
