"""Group commit with a real spool on a real disk: who waits, who is told what, and that nobody suffers for another."""

import contextlib
import threading
from collections.abc import AsyncIterable, Iterator, Sequence
from pathlib import Path

import pytest
import trio
from values import NOW, delivery

from appliance.model.ids import id_source
from appliance.privacy.sealing import Sealer
from appliance.spool.committer import GroupCommitter
from appliance.spool.spool import Spool
from appliance.storage.records import Damaged, Duplicate, StoreFull, StoreUnavailable
from appliance.storage.spool import PART_OCTETS, Accept, AddPart, Complete, LeaseLost, Prepared, Undecided
from appliance.storage.sqlite_spool import SqliteSpool


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteSpool]:
    opened = SqliteSpool(tmp_path / "spool.sqlite", {"spool": Sealer(bytes(32)), "log": Sealer(bytes(32))})
    yield opened
    opened.close()


class Watched:
    """A real store that remembers the groups it was given, and fails when it is told to."""

    def __init__(self, store: SqliteSpool) -> None:
        self._store = store
        self.groups: list[int] = []
        self.failing: Exception | None = None

    def write(self, units: Sequence[Prepared]) -> None:
        self.groups.append(len(units))
        if self.failing is not None:
            raise self.failing
        self._store.write(units)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


async def _read(spool: Spool, message_id: str) -> list[bytes]:
    content = spool.content(message_id)
    return [part async for part in content] if isinstance(content, AsyncIterable) else list(content)


async def test_what_was_committed_is_there_when_commit_returns(store: SqliteSpool) -> None:
    async with GroupCommitter(store) as committer:
        await committer.commit([AddPart("m1", 0, b"octets"), Accept([delivery()])])
        assert store.part("m1", 0) == b"octets"
        assert [each.id for each in store.deliveries()] == ["d1"]


async def test_many_tasks_share_few_groups(store: SqliteSpool) -> None:
    async with GroupCommitter(store) as committer:
        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(committer.commit, [Accept([delivery(f"d{number:03}", f"m{number:03}")])])
        assert committer.units == 300
        assert committer.groups < 100
    assert len(store.deliveries()) == 300


async def test_what_comes_while_a_group_is_being_written_is_the_next_group(store: SqliteSpool) -> None:
    begun, let_go = threading.Event(), threading.Event()

    class Halting(Watched):
        def write(self, units: Sequence[Prepared]) -> None:
            begun.set()
            assert let_go.wait(10)
            super().write(units)

    halting = Halting(store)
    async with GroupCommitter(halting) as committer, trio.open_nursery() as nursery:  # type: ignore[arg-type]
        nursery.start_soon(committer.commit, [Accept([delivery("d1", "m1")])])
        await trio.to_thread.run_sync(begun.wait)
        for number in (2, 3, 4):
            nursery.start_soon(committer.commit, [Accept([delivery(f"d{number}", f"m{number}")])])
        await trio.testing.wait_all_tasks_blocked()
        let_go.set()
    assert halting.groups == [1, 3]


async def test_a_store_that_refuses_is_told_to_every_task_of_the_group_and_then_works_again(store: SqliteSpool) -> None:
    watched = Watched(store)
    refused: list[str] = []

    async def try_to(committer: GroupCommitter, number: int) -> None:
        try:
            await committer.commit([Accept([delivery(f"d{number}", f"m{number}")])])
        except StoreUnavailable as error:
            refused.append(str(error))

    async with GroupCommitter(watched) as committer:  # type: ignore[arg-type]
        watched.failing = StoreUnavailable("the disk is full")
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(try_to, committer, number)
        assert refused == ["the disk is full"] * 20
        assert store.deliveries() == []
        watched.failing = None
        await committer.commit([Accept([delivery()])])
    assert len(store.deliveries()) == 1


async def test_a_defect_in_one_unit_does_not_hurt_its_neighbours(store: SqliteSpool) -> None:
    store.apply([AddPart("m7", 0, b"x"), Accept([delivery("d7", "m7")])])
    failed: list[int] = []

    async def try_to(committer: GroupCommitter, number: int) -> None:
        try:
            await committer.commit([AddPart(f"m{number}", 0, b"x"), Accept([delivery(f"d{number}", f"m{number}")])])
        except Duplicate:
            failed.append(number)

    async with GroupCommitter(store) as committer, trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(try_to, committer, number)
    assert failed == [7]
    assert len(store.deliveries()) == 20


async def test_a_row_that_is_damaged_does_not_refuse_the_mail_of_others(store: SqliteSpool) -> None:
    """What became of a message is tried again each second: all that came with it would be refused, each time."""

    class WithDamage(Watched):
        """What is about message 7 meets a damaged page."""

        def write(self, units: Sequence[Prepared]) -> None:
            if "'m7'" in str(units):
                raise Damaged("the file is damaged")
            self._store.write(units)

    damaged: list[int] = []

    async def try_to(committer: GroupCommitter, number: int) -> None:
        try:
            await committer.commit([Accept([delivery(f"d{number}", f"m{number}")])])
        except Damaged:
            damaged.append(number)

    async with GroupCommitter(WithDamage(store)) as committer, trio.open_nursery() as nursery:  # type: ignore[arg-type]
        for number in range(10):
            nursery.start_soon(try_to, committer, number)
    assert damaged == [7]
    assert len(store.deliveries()) == 9


async def test_what_is_too_much_together_is_written_one_by_one(store: SqliteSpool) -> None:
    class Narrow(Watched):
        """There is room for one, and never for the one of message 7."""

        def write(self, units: Sequence[Prepared]) -> None:
            self.groups.append(len(units))
            if len(units) > 1 or "'m7'" in str(units):
                raise StoreFull("the disk is full")
            self._store.write(units)

    refused: list[int] = []

    async def try_to(committer: GroupCommitter, number: int) -> None:
        try:
            await committer.commit([Accept([delivery(f"d{number}", f"m{number}")])])
        except StoreFull:
            refused.append(number)

    narrow = Narrow(store)
    async with GroupCommitter(narrow) as committer, trio.open_nursery() as nursery:  # type: ignore[arg-type]
        for number in range(10):
            nursery.start_soon(try_to, committer, number)
    assert max(narrow.groups) > 1
    assert refused == [7]
    assert len(store.deliveries()) == 9


async def test_of_a_large_group_only_the_one_that_is_to_blame_is_written_by_itself(store: SqliteSpool) -> None:
    """On a slow store each try costs seconds, and there may be hundreds."""
    tried: list[int] = []

    class WithDamage(Watched):
        def write(self, units: Sequence[Prepared]) -> None:
            tried.append(len(units))
            if "'m77'" in str(units):
                raise Damaged("the file is damaged")
            self._store.write(units)

    async def try_to(committer: GroupCommitter, number: int) -> None:
        with contextlib.suppress(Damaged):
            await committer.commit([Accept([delivery(f"d{number}", f"m{number}")])])

    async with GroupCommitter(WithDamage(store)) as committer, trio.open_nursery() as nursery:  # type: ignore[arg-type]
        for number in range(256):
            nursery.start_soon(try_to, committer, number)
    assert len(store.deliveries()) == 255
    assert len(tried) < 30


class Lost(Watched):
    """Other nodes have deliveries 7 and 9 by now, as long as `failing` says nothing else."""

    lost = frozenset({"d7", "d9"})

    def write(self, units: Sequence[Prepared]) -> None:
        found = {each for each in self.lost if f"'{each}'" in str(units)}
        if found and self.failing is None:
            self.groups.append(len(units))
            raise LeaseLost(found)
        super().write(units)


async def completed_together(committer: GroupCommitter, count: int) -> dict[int, str]:
    """Say of so many deliveries, in one group, that they are done; returns what was refused."""
    told: dict[int, str] = {}
    let_go = threading.Event()

    async def complete(number: int) -> None:
        try:
            await committer.commit([Complete(f"d{number}", f"m{number}")])
        except (LeaseLost, StoreUnavailable) as error:
            told[number] = type(error).__name__

    async with trio.open_nursery() as nursery:
        nursery.start_soon(committer.call, let_go.wait)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(count):
            nursery.start_soon(complete, number)
        await trio.testing.wait_all_tasks_blocked()
        let_go.set()
    return told


async def test_what_others_have_taken_over_is_told_apart_in_three_tries(store: SqliteSpool) -> None:
    for number in range(20):
        store.apply([AddPart(f"m{number}", 0, b"x"), Accept([delivery(f"d{number}", f"m{number}")])])
    some_are_lost = Lost(store)
    async with GroupCommitter(some_are_lost) as committer:  # type: ignore[arg-type]
        assert await completed_together(committer, 20) == {7: "LeaseLost", 9: "LeaseLost"}
    assert {each.id for each in store.deliveries()} == {"d7", "d9"}
    assert some_are_lost.groups == [20, 18, 1, 1]


async def test_a_store_that_goes_away_in_the_middle_of_the_parts_is_not_asked_for_the_rest(store: SqliteSpool) -> None:
    class GoingAway(Lost):
        def write(self, units: Sequence[Prepared]) -> None:
            if len(self.groups) == 1:
                self.failing = Undecided("there was no answer")
            super().write(units)

    away = GoingAway(store)
    async with GroupCommitter(away) as committer:  # type: ignore[arg-type]
        told = await completed_together(committer, 20)
        assert away.groups == [20, 18]
        assert committer.last_failure == "there was no answer"
    # Nobody knows of what was tried; what was not has not happened.
    assert told == {**dict.fromkeys(range(20), "Undecided"), 7: "StoreUnavailable", 9: "StoreUnavailable"}


async def test_a_store_that_is_slow_does_not_hold_up_everybody_with_its_parts(
    store: SqliteSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.spool.committer.PARTS_S", 0)
    some_are_lost = Lost(store)
    async with GroupCommitter(some_are_lost) as committer:  # type: ignore[arg-type]
        assert await completed_together(committer, 20) == {7: "StoreUnavailable", 9: "StoreUnavailable"}
    assert some_are_lost.groups == [20, 18]


async def test_a_reception_that_could_not_be_abandoned_is_so_later(
    store: SqliteSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.spool.spool.TIDY_S", 0)
    watched = Watched(store)
    async with GroupCommitter(watched) as committer:  # type: ignore[arg-type]
        spool = Spool(store, committer, id_source())
        gone, coming = spool.begin(), spool.begin()
        await gone.append(bytes(PART_OCTETS))
        watched.failing = StoreUnavailable("the disk reports an error")
        await gone.abort()
        assert store.part(gone.message_id, 0) is not None
        # Still broken: it is tried again and stays remembered.
        assert await spool.claim(0, 1) == []
        assert store.part(gone.message_id, 0) is not None
        watched.failing = None
        await coming.append(bytes(PART_OCTETS))
        assert store.part(gone.message_id, 0) is None
        assert store.part(coming.message_id, 0) is not None


async def test_a_claim_leaves_out_what_it_is_told_to(store: SqliteSpool) -> None:
    async with GroupCommitter(store) as committer:
        spool = Spool(store, committer, id_source())
        await committer.commit([Accept([delivery()])])
        domain = delivery().target.key[1]
        assert await spool.claim(NOW, 10, {domain}) == []
        assert await spool.next_due({domain}) is None
        assert await spool.next_due() == NOW
        assert len(await spool.claim(NOW, 10)) == 1


async def test_leaving_waits_for_what_was_handed_in(store: SqliteSpool) -> None:
    async with trio.open_nursery() as nursery:
        async with GroupCommitter(store) as committer:
            nursery.start_soon(committer.commit, [Accept([delivery()])])
            await trio.testing.wait_all_tasks_blocked()
        assert len(store.deliveries()) == 1


async def test_a_large_message_is_kept_in_parts_and_comes_back_whole(store: SqliteSpool) -> None:
    content = bytes(range(256)) * 4096 + b"the end"
    async with GroupCommitter(store) as committer:
        spool = Spool(store, committer, id_source())
        incoming = spool.begin()
        for start in range(0, len(content), 70_000):
            await incoming.append(content[start : start + 70_000])
        assert incoming.size == len(content)
        assert store.deliveries() == []
        await incoming.commit([delivery(message_id=incoming.message_id)], [])
        parts = await _read(spool, incoming.message_id)
        assert b"".join(parts) == content
        assert {len(part) for part in parts[:-1]} == {PART_OCTETS}
        assert await spool.head(incoming.message_id) == content[:PART_OCTETS]
        await spool.settle([Complete("d1", incoming.message_id)])
        assert store.part(incoming.message_id, 0) is None


async def test_nothing_is_left_of_a_large_message_that_was_abandoned(store: SqliteSpool) -> None:
    async with GroupCommitter(store) as committer:
        incoming = Spool(store, committer, id_source()).begin()
        await incoming.append(bytes(2 * PART_OCTETS))
        assert store.part(incoming.message_id, 0) is not None
        await incoming.abort()
        assert store.part(incoming.message_id, 0) is None


async def test_no_delivery_is_ever_there_without_its_content(store: SqliteSpool) -> None:
    """Whatever dies between two groups: content and deliveries are one unit."""

    class Looking(Watched):
        def write(self, units: Sequence[Prepared]) -> None:
            super().write(units)
            complete.append(all(store.part(each.message_id, 0) == b"octets" for each in store.deliveries()))

    complete: list[bool] = []
    async with GroupCommitter(Looking(store)) as committer:  # type: ignore[arg-type]
        incoming = Spool(store, committer, id_source()).begin()
        await incoming.append(b"octets")
        await incoming.commit([delivery(message_id=incoming.message_id)], [])
    assert complete == [True]
    assert len(store.deliveries()) == 1


async def test_a_refused_commit_leaves_nothing_in_memory(store: SqliteSpool) -> None:
    watched = Watched(store)
    async with GroupCommitter(watched) as committer:  # type: ignore[arg-type]
        spool = Spool(store, committer, id_source())
        incoming = spool.begin()
        await incoming.append(b"octets")
        watched.failing = StoreUnavailable("no")
        with pytest.raises(StoreUnavailable):
            await incoming.commit([delivery(message_id=incoming.message_id)], [])
        with pytest.raises(KeyError):
            await _read(spool, incoming.message_id)


async def test_settling_asks_a_refusing_disk_until_it_takes_it(store: SqliteSpool) -> None:
    watched = Watched(store)
    async with GroupCommitter(watched) as committer:  # type: ignore[arg-type]
        spool = Spool(store, committer, id_source())
        await committer.commit([AddPart("m1", 0, b"x"), Accept([delivery()])])
        watched.failing = StoreUnavailable("no")

        async def mend() -> None:
            while len(watched.groups) < 2:
                await trio.sleep(0.01)
            watched.failing = None

        async with trio.open_nursery() as nursery:
            nursery.start_soon(mend)
            await spool.settle([Complete("d1", "m1")])
    assert store.deliveries() == []


async def test_nobody_is_told_what_became_of_a_group_before_it_is_certain(store: SqliteSpool) -> None:
    """A 4xx for mail that the next start finds and delivers would be a lie; no answer at all is none."""

    class Uncertain(Watched):
        undecided = True

    uncertain = Uncertain(store)
    told: list[str] = []

    async def try_to(committer: GroupCommitter, number: int) -> None:
        try:
            await committer.commit([Accept([delivery(f"d{number}", f"m{number}")])])
        except StoreUnavailable as error:
            told.append(f"{number} {error}")

    async with GroupCommitter(uncertain) as committer, trio.open_nursery() as nursery:  # type: ignore[arg-type]
        uncertain.failing = Undecided("the sync has failed")
        nursery.start_soon(try_to, committer, 1)
        while not uncertain.groups:
            await trio.testing.wait_all_tasks_blocked()
        # What was never written can be refused at once.
        uncertain.failing = StoreUnavailable("still broken")
        await try_to(committer, 2)
        assert told == ["2 still broken"]
        assert committer.last_failure == "still broken"
        uncertain.undecided = False
        uncertain.failing = None
        await try_to(committer, 3)
    assert told == ["2 still broken", "1 the sync has failed"]
    assert [each.id for each in store.deliveries()] == ["d3"]
