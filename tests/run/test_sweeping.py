"""The broom's rounds: who looks for what nobody owns, and what is said of a store that is away."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from owned_rows import store_one_of_each
from stored_values import a_keyring, an_id
from trio.testing import MockClock

from appliance.configuration import Configuration
from appliance.model.time import MINUTE_MS
from appliance.privacy.declarations import ACCOUNTS
from appliance.privacy.sealing import Keyring
from appliance.run.sweeping import broom, keep_swept
from appliance.storage.records import Delete, RecordStore, StoreUnavailable
from appliance.storage.sqlite_spool import SqliteSpool

NOON = 1_750_000_000_000


@pytest.fixture
def records(opened: Callable[[Keyring], RecordStore]) -> Iterator[RecordStore]:
    """What the nodes share."""
    records = opened(a_keyring())
    yield records
    records.close()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[SqliteSpool]:
    """With nothing in it."""
    spool = SqliteSpool(tmp_path / "spool.sqlite", a_keyring())
    yield spool
    spool.close()


def test_of_several_nodes_one_looks_for_what_nobody_owns_within_each_minute(
    records: RecordStore, spool: SqliteSpool, tmp_path: Path
) -> None:
    config = Configuration(hostname="mx.onward.test", data_dir=tmp_path)
    now, rounds = NOON, 3
    nodes = [broom(config, records, spool, name, lambda: now) for name in ("one", "two", "three")]
    found = []
    for _ in range(rounds):
        for node in nodes:
            # One row for each to find, if it looks.
            store_one_of_each(records, now % 1000)
            records.apply([Delete(ACCOUNTS, {"id": an_id(now % 1000)})])
            found.append(any(node.sweep(0).values()))
            now += 7
        now += MINUTE_MS
    assert found == [True, False, False] * rounds, "one in each round, however close together they come"
    now += MINUTE_MS
    assert any(nodes[2].sweep(0).values()), "where one is gone, another has the turn"


async def test_an_outage_is_told_when_it_begins_and_when_it_is_over(
    records: RecordStore,
    spool: SqliteSpool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    autojump_clock.autojump_threshold = 0.1
    caplog.set_level(logging.INFO, "appliance")

    def refuse(*arguments: object) -> int:
        raise StoreUnavailable("the server is away")

    sweeper = broom(Configuration(hostname="mx.onward.test", data_dir=tmp_path), records, spool, "")
    async with trio.open_nursery() as nursery:
        with monkeypatch.context() as patch:
            patch.setattr(records, "sweep", refuse)
            nursery.start_soon(keep_swept, sweeper, lambda: NOON)
            await trio.sleep(4.5 * sweeper.interval_ms() / 1000)
        await trio.sleep(3 * sweeper.interval_ms() / 1000)
        nursery.cancel_scope.cancel()
    assert [record.getMessage() for record in caplog.records] == [
        "what has had its time can't be erased now: the server is away",
        "what has had its time is erased again",
    ]
