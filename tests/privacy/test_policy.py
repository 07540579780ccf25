"""The policy is what is declared, with the times of the running configuration."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from stored_values import NOON, a_keyring, a_row, an_event

from appliance.model.time import DAY_MS
from appliance.privacy.declarations import ACCOUNTS, COLLECTIONS, DELIVERIES, EVENTS, NEVER_ASKED
from appliance.privacy.policy import Holdings, holdings, policy
from appliance.storage.event_rows import event_to_row
from appliance.storage.records import Insert
from appliance.storage.sqlite_records import SqliteRecords

SETTINGS = {"log.delivery_retention": 2 * DAY_MS, "log.error_retention": 5 * DAY_MS, "log.http_retention": 30 * DAY_MS}


@pytest.fixture
def records(tmp_path: Path) -> Iterator[SqliteRecords]:
    """With nothing stored."""
    records = SqliteRecords(tmp_path / "records.sqlite", a_keyring())
    yield records
    records.close()


def test_every_collection_and_every_field_is_in_it() -> None:
    made = policy(SETTINGS.__getitem__)
    assert [each.collection for each in made.stored] == list(COLLECTIONS)
    for collection in COLLECTIONS:
        assert f"### {collection.name}\n\n{collection.purpose}\n" in made.text
        section = made.text.partition(f"### {collection.name}\n")[2].partition("#")[0]
        for field in collection.fields:
            assert field.name in section


def test_how_long_something_is_kept_is_what_the_configuration_says() -> None:
    made = policy(SETTINGS.__getitem__)
    kept = {each.collection.name: each.retention_ms for each in made.stored}
    # The longest of the log's two.
    assert (kept["events"], kept["return_paths"], kept["accounts"]) == (5 * DAY_MS, 21 * DAY_MS, None)
    log = made.text.partition("### events\n")[2].partition("###")[0]
    assert "- Kept for 2d from at where type is RECEIVED, DELIVERED" in log
    assert "- Kept for 5d from at where type is SOFT_BOUNCED, HARD_BOUNCED, REFUSED" in log
    assert "sender (encrypted), sender_key (only as a keyed hash)" in log


def test_a_setting_that_there_is_not_is_no_policy() -> None:
    none: dict[str, int] = {}
    with pytest.raises(KeyError):
        policy(none.__getitem__)


def test_the_digest_tells_two_policies_apart_and_nothing_else() -> None:
    one = policy(SETTINGS.__getitem__)
    assert one == policy(dict(SETTINGS).__getitem__)
    assert len(one.digest) == 64
    assert one.digest in one.text
    longer = policy((SETTINGS | {"log.error_retention": 6 * DAY_MS}).__getitem__)
    fewer = policy(SETTINGS.__getitem__, COLLECTIONS[1:])
    reworded = policy(SETTINGS.__getitem__, (replace(COLLECTIONS[0], purpose="Other words."), *COLLECTIONS[1:]))
    assert len({each.digest for each in (one, longer, fewer, reworded)}) == 4


def test_how_much_there_is_and_since_when(records: SqliteRecords) -> None:
    assert holdings(records, EVENTS) == Holdings(0, None)
    for number, at in ((1, NOON), (2, NOON + 1)):
        records.apply([Insert(EVENTS, event_to_row(an_event(number, at=at)))])
    records.apply([Insert(ACCOUNTS, a_row(ACCOUNTS, 7)), Insert(NEVER_ASKED, a_row(NEVER_ASKED))])
    assert holdings(records, EVENTS) == Holdings(2, NOON)
    assert holdings(records, ACCOUNTS) == Holdings(1, 7)
    # Its key is a MAC, by which nobody can tell which is the oldest.
    assert holdings(records, NEVER_ASKED) == Holdings(1, None)
    assert holdings(records, DELIVERIES) is None
