"""Group commit: one thread makes the operations of many tasks durable with one synchronisation of the disk.

Tasks hand in units of operations and wait. What they hand in while a group is being written, and before every task that
can run has run, gathers to the next group: one transaction, one fsync, one waking of the thread. A lone message waits
for one fsync, and a thousand at once for a few: the group grows by itself with the load, without a timer.

Where the disk fails under a group, so that the next start may find it or not, nobody can be told truly what became of
it: a 4xx for mail that is then delivered would be a lie. Its tasks wait until the store is certain again, and then hear
which it was. If this process ends before, they have not been answered, and senders keep what was not answered.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar, cast

import outcome
import trio

from appliance.storage.records import Damaged, StoreFull, StoreUnavailable
from appliance.storage.spool import (
    BeingChanged,
    Complete,
    Keep,
    LeaseLost,
    Operation,
    Prepared,
    SpoolStore,
    Turn,
    Undecided,
    at_once,
)
from smtp.histogram import Histogram

MAX_GROUP_UNITS = 512
"""Units in one transaction: bounds how long the first of a group waits for the last."""

GROUP_UNITS = (1, 2, 4, 8, 16, 32, 64, 128, 256, MAX_GROUP_UNITS)
"""By which sizes groups are counted."""

PARTS_S = 10.0
"""For so long a group that was refused is tried in parts. On a store that takes seconds for each, the last of it would
wait for many minutes, and so would who comes behind: they are told to come again."""

T = TypeVar("T")


class Committer(Protocol):
    """What makes operations durable, and runs the other calls that belong to the writing thread."""

    async def commit(self, operations: Sequence[Operation]) -> None:
        """Returns once all of them are durable, as one; raises StoreUnavailable where none of them is."""

    async def call(self, function: Callable[[], T]) -> T:
        """Run a function of the store in the writing thread, between two groups."""

    async def beside(self, do: Callable[[Turn], T]) -> T:
        """Run one that has to look for what it does, beside that thread where looking may take long; what it has found
        it does in there, by the `Turn` that it is given."""


class _Unit:
    """What one task waits for: operations that belong together, or a call."""

    __slots__ = ("function", "operations", "prepared", "result", "task")

    def __init__(self, operations: Sequence[Operation] | None, function: Callable[[], Any] | None) -> None:
        self.operations = operations
        self.prepared: Prepared | None = None
        self.function = function
        self.task = trio.lowlevel.current_task()
        self.result: outcome.Outcome[Any] = outcome.Value(None)


class GroupCommitter:
    """The writing thread of a spool, and the tasks that wait for it.

    Use as an async context manager; leaving it waits for everything that was handed in. `commit` can't be cancelled
    once it waits: the operations will be durable whether or not anybody listens, so it says which it was.
    """

    def __init__(self, store: SpoolStore) -> None:
        self._store = store
        self._gathering: deque[_Unit] = deque()
        self._writing = False
        """A group is with the thread."""
        self._awaited = trio.lowlevel.ParkingLot()
        """Where the feeder waits for something to hand over."""
        self._groups: queue.SimpleQueue[list[_Unit] | None] = queue.SimpleQueue()
        self._gathers_since = self._written_since = self._undecided_since = 0.0
        """Since when, by Trio's clock, what is gathering has been handed in, what is being written, and what is
        undecided: the earliest that it can have been."""
        self._undecided: list[_Unit] = []
        """What can't be answered before the store is certain again. For the thread alone."""
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread = threading.Thread(target=self._work, name="spool-writer", daemon=True)
        self.groups = 0
        """Transactions so far."""
        self.units = 0
        """Units so far; units / groups is how well grouping works."""
        self.group_units = Histogram(GROUP_UNITS)
        """Units of a group."""
        self.last_failure: str | None = None
        """Why the store refused the last group; None where it took it."""

    async def __aenter__(self) -> "GroupCommitter":
        self._token = trio.lowlevel.current_trio_token()
        self._thread.start()
        trio.lowlevel.spawn_system_task(self._feed)
        return self

    async def __aexit__(self, *exception: object) -> None:
        with trio.CancelScope(shield=True):
            while self._writing or self._gathering:
                await trio.sleep(0.001)
            self._groups.put(None)
            await trio.to_thread.run_sync(self._thread.join)

    async def commit(self, operations: Sequence[Operation]) -> None:
        """See Committer."""
        self._gather(_Unit(operations, None))
        await trio.lowlevel.wait_task_rescheduled(_cannot_abort)

    async def call(self, function: Callable[[], T]) -> T:
        """See Committer."""
        self._gather(_Unit(None, function))
        return cast(T, await trio.lowlevel.wait_task_rescheduled(_cannot_abort))

    async def beside(self, do: Callable[[Turn], T]) -> T:
        """See Committer. Where nodes share the store, each look is a question to a server."""
        if not self._store.shared:
            return await self.call(partial(do, at_once))
        return await trio.to_thread.run_sync(do, self._turn)

    def _turn(self, function: Callable[[], T]) -> T:
        """A `Turn`, for threads that a task of ours waits for."""
        return trio.from_thread.run(self.call, function)

    def pending_s(self) -> float:
        """For how many seconds at most the oldest of what was handed in has waited; 0 where nothing waits."""
        if self._undecided:
            since = self._undecided_since
        elif self._writing:
            since = self._written_since
        elif self._gathering:
            since = self._gathers_since
        else:
            return 0.0
        return trio.current_time() - since

    def _gather(self, unit: _Unit) -> None:
        """Take a unit in, for the task that is about to wait for it."""
        self._gathering.append(unit)
        # What comes while a group is being written is looked for when that is done, and what comes behind another is
        # found with it.
        if not self._writing and len(self._gathering) == 1:
            self._gathers_since = trio.current_time()
            self._awaited.unpark()

    async def _feed(self) -> None:
        """Hand groups to the thread, one at a time.

        Being woken makes it run behind all the tasks that can run already, and by then they have handed in theirs.
        """
        while True:
            if self._gathering and not self._writing:
                count = min(len(self._gathering), MAX_GROUP_UNITS)
                group = [self._gathering.popleft() for _ in range(count)]
                self._prepare(group)
                self._writing = True
                self._written_since, self._gathers_since = self._gathers_since, trio.current_time()
                self._groups.put(group)
            # Looked first, then parked, with nothing in between: a waking can't be missed.
            await self._awaited.park()

    def _prepare(self, group: list[_Unit]) -> None:
        """Encode and seal what a group will write. In one go, so that what does it is at hand in the processor's
        caches: that takes a tenth off the processor time of a whole message."""
        for unit in group:
            if unit.operations is not None:
                try:
                    unit.prepared = self._store.prepare(unit.operations)
                except Exception as error:  # noqa: BLE001  it is the task's that handed it in
                    unit.result = outcome.Error(error)

    def _settle(self, group: list[_Unit]) -> None:
        self._writing = False
        for unit in group:
            trio.lowlevel.reschedule(unit.task, unit.result)
        if self._gathering:
            self._awaited.unpark()

    # ------------------------------------------------------------------ in the thread

    def _work(self) -> None:
        while (group := self._groups.get()) is not None:
            answered = self._answerable(group)
            assert self._token is not None
            try:
                self._token.run_sync_soon(self._settle, answered)
            except trio.RunFinishedError:
                return

    def _answerable(self, group: list[_Unit]) -> list[_Unit]:
        """Carry out a group, and say who can be told now what became of theirs."""
        self._carry_out(group)
        waiting = [unit for unit in group if _is_undecided(unit)]
        answered = [unit for unit in group if not _is_undecided(unit)]
        if not self._undecided:
            self._undecided_since = self._written_since
        self._undecided += waiting
        if not self._undecided or self._store.undecided:
            return answered
        for unit in self._undecided:
            if _has_happened(unit):
                unit.result = outcome.Value(None)
        answered += self._undecided
        self._undecided = []
        return answered

    def _carry_out(self, group: list[_Unit]) -> None:
        self.groups += 1
        self.units += len(group)
        self.group_units.observe(len(group))
        writing = [unit for unit in group if unit.prepared is not None]
        if writing:
            self.last_failure = None
            self._write(writing)
        for unit in group:
            if unit.function is not None:
                unit.result = outcome.capture(unit.function)

    def _write(self, writing: list[_Unit]) -> None:
        """Write units as one group. Where some of them are to blame, or together they are too much, nothing was done:
        then in parts, down to those that are refused by themselves."""
        began, some_have_ended = time.monotonic(), False
        waiting = [writing]
        while waiting:
            if some_have_ended and time.monotonic() - began >= PARTS_S:
                self._refuse(waiting, "the store is too slow to be asked about each by itself")
                return
            units = waiting.pop()
            result = outcome.capture(self._store.write, [unit.prepared for unit in units if unit.prepared is not None])
            if isinstance(result, outcome.Error):
                if _is_for_all(result.error):
                    self._answer(units, result.error)
                    self._refuse(waiting, str(result.error))
                    return
                if len(units) > 1:
                    waiting += _parts(units, result.error)
                    continue
                self._answer(units, result.error)
            some_have_ended = True

    def _answer(self, units: Iterable[_Unit], error: BaseException) -> None:
        if isinstance(error, StoreUnavailable) and not isinstance(error, BeingChanged):
            self.last_failure = str(error)
        for unit in units:
            # An outcome can be delivered once, so each task gets one of its own.
            unit.result = outcome.Error(error)

    def _refuse(self, untried: Iterable[Iterable[_Unit]], why: str) -> None:
        """Of these it is certain that nothing was done, whatever became of the others."""
        for units in untried:
            self._answer(units, StoreUnavailable(why))


def _parts(units: list[_Unit], error: BaseException) -> list[list[_Unit]]:
    """What a group that was refused is written in, the last first."""
    if isinstance(error, LeaseLost):
        concerned = [unit for unit in units if _is_about(unit, error.delivery_ids)]
        if concerned:
            others = [unit for unit in units if unit not in concerned]
            return [*([unit] for unit in concerned), *([others] if others else [])]
    middle = len(units) // 2
    return [units[middle:], units[:middle]]


def _is_about(unit: _Unit, delivery_ids: Collection[str]) -> bool:
    return any(
        (operation.delivery_id if isinstance(operation, Complete) else operation.delivery.id) in delivery_ids
        for operation in unit.operations or ()
        if isinstance(operation, Complete | Keep)
    )


def _is_for_all(error: BaseException) -> bool:
    """Whether the store refuses whatever it is asked now, and not only these units."""
    return isinstance(error, StoreUnavailable) and not isinstance(error, StoreFull | Damaged | BeingChanged)


def _is_undecided(unit: _Unit) -> bool:
    return isinstance(unit.result, outcome.Error) and isinstance(unit.result.error, Undecided)


def _has_happened(unit: _Unit) -> bool:
    result = unit.result
    return isinstance(result, outcome.Error) and isinstance(result.error, Undecided) and result.error.happened


def _cannot_abort(_: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED
