"""An office with an empty store for every test of this room."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from accounts_office import NOON, OWN_NAMES, PLANS, Office
from stored_values import a_keyring

from appliance.accounts.accounts import Accounts
from appliance.accounts.aliases import Aliases
from appliance.accounts.domains import Domains
from appliance.model.ids import id_source
from appliance.storage.sqlite_records import SqliteRecords


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    """An office with an empty store."""
    records = SqliteRecords(tmp_path / "records.sqlite", a_keyring())
    ids = id_source()
    yield Office(
        records,
        Accounts(records, PLANS, lambda: NOON, ids),
        Domains(records, PLANS, OWN_NAMES, lambda: NOON, ids),
        Aliases(records, PLANS, OWN_NAMES, lambda: NOON, ids),
    )
    records.close()
