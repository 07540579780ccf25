"""What one engine hears of others that share its spool: here over one file, which another has open as well."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from storage_backends import BACKENDS, Backend

from appliance.delivery.holds import Holds
from appliance.model.hold import Hold
from appliance.run import neighbours
from appliance.run.neighbours import keep_hearing
from appliance.spool.uses import Uses
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import AddHold, CountUse, LiftHold, SpoolStore

HOLD = Hold(id="h1", created_at=1, domain="example.org", destination="", sender=None)
LIMIT_S = 20.0


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    made = BACKENDS["sqlite"](tmp_path)
    yield made
    made.close()


@asynccontextmanager
async def hearing(store: SpoolStore, holds: Holds, uses: Uses) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_hearing, store, holds, uses)
        yield
        nursery.cancel_scope.cancel()


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(LIMIT_S):
        while not holds():
            await trio.sleep(0.01)


async def test_what_another_node_does_is_heard_of(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "HOLDS_S", 0.02)
    monkeypatch.setattr(neighbours, "USES_S", 0.02)
    other, holds, uses = backend.spool(), Holds(), Uses({})
    async with hearing(backend.spool(), holds, uses):
        other.apply([AddHold(HOLD), CountUse("c1", 4)])
        await until(lambda: holds.rules == (HOLD,) and uses.all_but(()) == {"c1"})
        other.apply([LiftHold(HOLD.id)])
        await until(lambda: not holds.has_rules)


async def test_a_store_that_is_away_leaves_what_was_known(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(neighbours, "HOLDS_S", 0.02)
    monkeypatch.setattr(neighbours, "USES_S", 0.02)
    store, holds, uses = backend.spool(), Holds([HOLD]), Uses({"c1": 1})

    asked: Counter[str] = Counter()

    def away(what: str) -> object:
        asked[what] += 1
        raise StoreUnavailable("the server is away")

    with monkeypatch.context() as patch:
        for what in ("holds", "uses"):
            patch.setattr(store, what, partial(away, what))
        async with hearing(store, holds, uses):
            await until(lambda: asked["holds"] >= 3 and asked["uses"] >= 3)
            assert holds.rules == (HOLD,)
            assert uses.all_but(()) == {"c1"}
    assert len(caplog.records) == 2, "each is said once"


async def test_rules_that_are_being_read_while_they_change_here_are_too_old(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "HOLDS_S", 0.02)
    store, holds = backend.spool(), Holds([HOLD])
    store.apply([AddHold(HOLD)])
    seen: list[tuple[Hold, ...]] = []

    def read() -> list[Hold]:
        seen.append(trio.from_thread.run_sync(lambda: tuple(holds.rules)))
        if len(seen) == 1:
            # It is lifted here, with its row gone first, just when the rows have been read.
            trio.from_thread.run_sync(holds.remove, HOLD.id)
            return [HOLD]
        return []

    monkeypatch.setattr(store, "holds", read)
    async with hearing(store, holds, Uses({})):
        await until(lambda: len(seen) >= 2)
    assert seen[:2] == [(HOLD,), ()]


def test_rules_that_were_read_before_a_change_here_are_too_old() -> None:
    holds = Holds([HOLD])
    changes = holds.changes
    holds.remove(HOLD.id)
    holds.learn([HOLD], changes)
    assert not holds.has_rules
    holds.learn([HOLD], holds.changes)
    assert holds.rules == (HOLD,)
