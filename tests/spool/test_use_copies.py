"""What people are shown of the uses of an alias: a copy that follows, and never counts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
from stored_values import a_keyring

from appliance.model.domain import Alias, AliasAction
from appliance.model.ids import id_source
from appliance.privacy.declarations import ALIASES
from appliance.spool.committer import GroupCommitter
from appliance.spool.spool import Spool
from appliance.spool.use_copies import PAUSE_S, RETRY_S, keep_showing, show
from appliance.spool.uses import Uses
from appliance.storage.record_rows import row_to_alias, to_row
from appliance.storage.records import Insert
from appliance.storage.spool import CountUse
from appliance.storage.sqlite_records import SqliteRecords
from appliance.storage.sqlite_spool import SqliteSpool

ALIAS = Alias("a1", "d1", "x", AliasAction.DISCARD, (), "aaaaaa", 0, max_uses=5, use_counter="c1")


@dataclass
class Desk:
    """Both stores, and the counts of an engine."""

    records: SqliteRecords
    store: SqliteSpool
    spool: Spool
    uses: Uses
    counters: frozenset[str] = field(default=frozenset({"c1"}))

    async def accept(self) -> None:
        counts = self.uses.take([ALIAS])
        assert counts is not None
        await self.spool.record([], counts)
        self.uses.end(counts, accepted=True)

    def shown(self) -> int | None:
        row = self.records.get(ALIASES, {"id": "a1"})
        assert row is not None
        return row_to_alias(row).remaining_uses


@asynccontextmanager
async def a_desk(directory: Path) -> AsyncIterator[Desk]:
    records, store = (
        SqliteRecords(directory / "r.sqlite", a_keyring()),
        SqliteSpool(directory / "s.sqlite", a_keyring()),
    )
    if records.count(ALIASES, {}) == 0:
        records.apply([Insert(ALIASES, to_row(ALIAS))])
    async with GroupCommitter(store) as committer:
        yield Desk(records, store, Spool(store, committer, id_source()), Uses(store.uses()))
    store.close()
    records.close()


async def test_people_see_what_was_counted_and_nobody_has_to_load_routing_again(tmp_path: Path) -> None:
    async with a_desk(tmp_path) as desk:
        generation = desk.records.generation("routing")
        await desk.accept()
        assert desk.shown() == 5
        await show(desk.uses, desk.records)
        assert desk.shown() == 4
        assert desk.records.generation("routing") == generation


async def test_what_was_counted_before_a_crash_and_not_shown_is_shown_after_it(tmp_path: Path) -> None:
    async with a_desk(tmp_path) as desk:
        await desk.accept()
        await desk.accept()
    async with a_desk(tmp_path) as desk:
        await show(desk.uses, desk.records)
        assert desk.shown() == 3
        await show(Uses(desk.store.uses()), desk.records)
        assert desk.shown() == 3, "shown twice is counted once"


async def test_the_counts_of_aliases_that_are_gone_are_erased(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with a_desk(tmp_path) as desk, trio.open_nursery() as nursery:
        await desk.accept()
        await desk.spool.record([], [CountUse("gone", 0)])
        desk.uses = Uses(desk.store.uses())
        nursery.start_soon(keep_showing, desk.uses, desk.spool, desk.records, lambda: desk.counters)
        while desk.store.uses() != {"c1": 1}:
            await trio.sleep(PAUSE_S)
        desk.counters = frozenset()
        while desk.store.uses():
            await trio.sleep(PAUSE_S)
        nursery.cancel_scope.cancel()


async def test_an_alias_that_is_heard_of_later_than_its_count_keeps_it(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with a_desk(tmp_path) as desk, trio.open_nursery() as nursery:
        await desk.accept()
        await desk.spool.record([], [CountUse("gone", 0), CountUse("later", 0)])
        desk.uses = Uses(desk.store.uses())
        nursery.start_soon(keep_showing, desk.uses, desk.spool, desk.records, lambda: desk.counters, 10.0)
        await trio.sleep(2)
        assert desk.store.uses() == {"c1": 1, "gone": 1, "later": 1}
        desk.counters = frozenset({"c1", "later"})
        while "gone" in desk.store.uses():
            await trio.sleep(PAUSE_S)
        assert desk.store.uses() == {"c1": 1, "later": 1}
        nursery.cancel_scope.cancel()


async def test_a_store_that_refuses_is_tried_again(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with a_desk(tmp_path) as desk, trio.open_nursery() as nursery:
        await desk.accept()
        desk.records.close()
        nursery.start_soon(keep_showing, desk.uses, desk.spool, desk.records, lambda: desk.counters)
        await trio.sleep(RETRY_S * 2)
        assert desk.uses.uncopied() == {"c1": 1}
        nursery.cancel_scope.cancel()
