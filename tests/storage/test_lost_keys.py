"""A key that is lost or another one: said when the stores are opened, and never replaced without a word."""

from pathlib import Path

import pytest
from stored_values import a_delivery, an_event

from appliance.configuration import Configuration
from appliance.privacy.declarations import EVENTS
from appliance.run.lost_keys import KeyLost
from appliance.run.stores import open_records, open_spool
from appliance.storage.event_rows import event_to_row
from appliance.storage.records import Insert
from appliance.storage.spool import Accept


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configuration:
    """A data directory with a delivery in its spool and an event in its log."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    config = Configuration(hostname="mx.example.net", data_dir=tmp_path / "data")
    spool, records = open_spool(config), open_records(config)
    spool.apply([Accept([a_delivery()])])
    records.apply([Insert(EVENTS, event_to_row(an_event()))])
    spool.close()
    records.close()
    return config


def key(config: Configuration, name: str) -> Path:
    return config.data_dir / "secrets" / f"{name}.key"


def test_a_spool_whose_key_is_lost_is_not_opened_with_a_new_one(config: Configuration) -> None:
    put_aside = key(config, "spool").rename(config.data_dir / "aside")
    with pytest.raises(KeyLost, match=r"spool\.sqlite is sealed under a key.*Put .*/secrets/spool\.key back.*move"):
        open_spool(config)
    assert not key(config, "spool").exists()
    put_aside.rename(key(config, "spool"))
    spool = open_spool(config)
    assert spool.deliveries() == [a_delivery()]
    spool.close()


def test_a_spool_that_is_moved_away_begins_anew(config: Configuration) -> None:
    key(config, "spool").unlink()
    (config.data_dir / "spool.sqlite").unlink()
    spool = open_spool(config)
    assert spool.deliveries() == []
    spool.close()


def test_a_log_whose_key_is_lost_is_not_opened_with_a_new_one(config: Configuration) -> None:
    key(config, "log").unlink()
    with pytest.raises(KeyLost, match=r"records\.sqlite is sealed under a key.*Put .*/secrets/log\.key back"):
        open_records(config)
    # Nothing in the spool is sealed under it.
    open_spool(config).close()


def test_a_key_that_nothing_is_sealed_under_is_made(config: Configuration) -> None:
    records = open_records(config)
    records.sweep(EVENTS, EVENTS.retention[0], 1 << 60)
    records.close()
    key(config, "log").unlink()
    open_records(config).close()
    assert key(config, "log").exists()


def test_another_key_is_said_in_the_log_of_the_process(config: Configuration, caplog: pytest.LogCaptureFixture) -> None:
    open_spool(config).close()
    open_records(config).close()
    assert caplog.text == ""
    for name in ("spool", "log"):
        key(config, name).write_bytes(bytes(32))
    open_spool(config).close()
    open_records(config).close()
    assert "spool.sqlite opens with spool.key: it is another key" in caplog.text
    assert "records.sqlite opens with log.key: it is another key" in caplog.text
