"""The way of an event from the spool's outbox to the log: real stores, a real writing thread, and dying in between."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import apsw
import pytest
import trio
from faulty_disk import FaultyDisk
from storage_backends import SqliteBackend
from stored_values import a_delivery, a_keyring, an_event, an_id

from appliance.logbook import mover
from appliance.logbook.mover import BATCH, keep_moving, move_events
from appliance.logbook.reading import read
from appliance.model.event import DeliveryEvent
from appliance.model.ids import id_source
from appliance.privacy.declarations import EVENTS
from appliance.spool.committer import GroupCommitter
from appliance.spool.spool import Spool
from appliance.storage.records import RecordStore, StoreUnavailable
from appliance.storage.spool import Accept, Record, SpoolStore
from appliance.storage.sqlite_records import SqliteRecords


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[SqliteBackend]:
    opened = SqliteBackend(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def disk() -> Iterator[FaultyDisk]:
    made = FaultyDisk()
    yield made
    made.unregister()


@asynccontextmanager
async def a_spool(store: SpoolStore) -> AsyncIterator[Spool]:
    async with GroupCommitter(store) as committer:
        yield Spool(store, committer, id_source())


def events(count: int, first: int = 1) -> list[DeliveryEvent]:
    return [an_event(number) for number in range(first, first + count)]


def ids(found: Sequence[DeliveryEvent]) -> list[str]:
    return [each.id for each in found]


async def test_events_arrive_as_they_were_and_leave_the_outbox(backend: SqliteBackend) -> None:
    store, records = backend.spool(), backend.records()
    made = [*events(3), an_event(4, client_name=None, subject=None, enhanced_code=None, sender="")]
    async with a_spool(store) as spool:
        await spool.committer.commit([Accept([a_delivery()], made[:2])])
        await spool.record(made[2:])
        assert read(records) == []
        assert await move_events(spool, records) == 4
        assert await move_events(spool, records) == 0
    assert read(records) == made
    assert store.outbox(10) == []


async def test_the_order_is_that_of_their_making_over_any_number_of_batches(backend: SqliteBackend) -> None:
    store, records = backend.spool(), backend.records()
    made = events(2 * BATCH + 1)
    store.apply([Record(made)])
    async with a_spool(store) as spool:
        moved = [await move_events(spool, records)]
        assert ids(read(records)) == ids(made[:BATCH]), "the oldest first"
        while moved[-1]:
            moved.append(await move_events(spool, records))
    assert moved == [BATCH, BATCH, 1, 0]
    assert read(records, limit=len(made)) == made


async def test_dying_between_import_and_forget_doubles_nothing_and_loses_nothing(backend: SqliteBackend) -> None:
    store, records = backend.spool(), backend.records()
    store.apply([Record(events(5))])
    # As far as it had come when it died:
    records.import_stored(EVENTS, store.outbox(3))
    store.close()
    again = backend.spool()
    again.recover()
    async with a_spool(again) as spool:
        assert await move_events(spool, records) == 5
    assert read(records) == events(5)
    assert again.outbox(10) == []


async def test_no_key_is_needed_on_the_way(backend: SqliteBackend) -> None:
    backend.spool().apply([Record(events(2))])
    store, records = backend.spool(a_keyring("spool")), backend.records({})
    async with a_spool(store) as spool:
        assert await move_events(spool, records) == 2
    assert read(backend.records()) == events(2)


async def test_what_the_log_cannot_take_now_stays_in_the_outbox(tmp_path: Path, disk: FaultyDisk) -> None:
    backend = SqliteBackend(tmp_path)
    store = backend.spool()
    records = SqliteRecords(backend.records_path, a_keyring(), disk=disk.disk)
    try:
        store.apply([Record(events(3))])
        async with a_spool(store) as spool:
            with disk.failing(write=apsw.FullError("no space")), pytest.raises(StoreUnavailable):
                await move_events(spool, records)
            assert len(store.outbox(10)) == 3
            assert read(records) == []
            assert await move_events(spool, records) == 3
        assert read(records) == events(3)
    finally:
        records.close()
        backend.close()


async def test_a_spool_that_cannot_forget_makes_no_second_entry(
    tmp_path: Path, disk: FaultyDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.storage.sqlite_salvage.SALVAGE_EVERY_S", 0)
    backend = SqliteBackend(tmp_path)
    store, records = backend.spool(disk=disk.disk), backend.records()
    try:
        store.apply([Record(events(3))])
        async with a_spool(store) as spool:
            with disk.failing(write=apsw.IOError("broken")), pytest.raises(StoreUnavailable):
                await move_events(spool, records)
            assert read(records) == events(3)
            assert await move_events(spool, records) == 3
        assert read(records) == events(3)
        assert store.outbox(10) == []
    finally:
        backend.close()


async def test_the_mover_goes_on_by_itself_once_the_store_is_back(
    tmp_path: Path, disk: FaultyDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mover, "RETRY_S", 0.01)
    monkeypatch.setattr(mover, "PAUSE_S", 0.01)
    backend = SqliteBackend(tmp_path)
    store = backend.spool()
    records = SqliteRecords(backend.records_path, a_keyring(), disk=disk.disk)
    refusing = Refusing(records)
    as_records = cast(RecordStore, refusing)
    try:
        async with a_spool(store) as spool, trio.open_nursery() as nursery:
            with disk.failing(write=apsw.FullError("no space")), trio.fail_after(20):
                await spool.record(events(2))
                nursery.start_soon(keep_moving, spool, as_records)
                while refusing.times < 3:
                    await trio.sleep(0.005)
                assert len(store.outbox(10)) == 2
            with trio.fail_after(20):
                await until_logged(records, 2)
                await spool.record(events(2, first=3))
                await until_logged(records, 4)
            nursery.cancel_scope.cancel()
        assert read(records) == events(4)
        assert ids(read(records))[0] == an_id(1)
    finally:
        records.close()
        backend.close()


class Refusing:
    """The real records, counting how often they refuse."""

    def __init__(self, records: SqliteRecords) -> None:
        self._records = records
        self.times = 0

    def import_stored(self, *arguments: object) -> None:
        try:
            self._records.import_stored(*arguments)  # type: ignore[arg-type]
        except StoreUnavailable:
            self.times += 1
            raise

    def __getattr__(self, name: str) -> object:
        return getattr(self._records, name)


async def until_logged(records: RecordStore, count: int) -> None:
    while len(read(records)) < count:
        await trio.sleep(0.005)
