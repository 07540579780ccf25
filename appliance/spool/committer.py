"""Group commit: one thread makes the operations of many tasks durable with one synchronisation of the disk.

Tasks hand in units of operations and wait. The thread takes all that has gathered while it was busy with the group
before, and applies it as one transaction. So a lone message waits for one fsync, and a thousand at once for a few:
the group grows by itself with the load, without a timer.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

import outcome
import trio

from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import Operation, SpoolStore

MAX_GROUP_UNITS = 512
"""Units in one transaction: bounds how long the first of a group waits for the last."""

T = TypeVar("T")


class Committer(Protocol):
    """What makes operations durable, and runs the other calls that belong to the writing thread."""

    async def commit(self, operations: Sequence[Operation]) -> None:
        """Returns once all of them are durable, as one; raises StoreUnavailable where none of them is."""

    async def call(self, function: Callable[[], T]) -> T:
        """Run a function of the store in the writing thread, between two groups."""


class InlineCommitter:
    """Does at once, in the caller's task, what is asked: for tests under a clock that jumps while threads work."""

    def __init__(self, store: SpoolStore) -> None:
        self._store = store

    async def commit(self, operations: Sequence[Operation]) -> None:
        """See Committer."""
        await trio.lowlevel.checkpoint()
        self._store.apply(operations)

    async def call(self, function: Callable[[], T]) -> T:
        """See Committer."""
        await trio.lowlevel.checkpoint()
        return function()


class _Unit:
    """What one task waits for: operations that belong together, or a call."""

    __slots__ = ("function", "operations", "result", "task")

    def __init__(self, operations: Sequence[Operation], function: Callable[[], Any] | None) -> None:
        self.operations = operations
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
        self._units: queue.SimpleQueue[_Unit | None] = queue.SimpleQueue()
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread = threading.Thread(target=self._work, name="spool-writer", daemon=True)
        self.groups = 0
        """Transactions so far."""
        self.units = 0
        """Units so far; units / groups is how well grouping works."""

    async def __aenter__(self) -> "GroupCommitter":
        self._token = trio.lowlevel.current_trio_token()
        self._thread.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._units.put(None)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._thread.join)

    async def commit(self, operations: Sequence[Operation]) -> None:
        """See Committer."""
        await self._wait(_Unit(operations, None))

    async def call(self, function: Callable[[], T]) -> T:
        """See Committer."""
        return cast(T, await self._wait(_Unit((), function)))

    async def _wait(self, unit: _Unit) -> Any:
        self._units.put(unit)
        return await trio.lowlevel.wait_task_rescheduled(_cannot_abort)

    # ------------------------------------------------------------------ in the thread

    def _work(self) -> None:
        while True:
            group, last = self._gather()
            if group:
                self._carry_out(group)
                assert self._token is not None
                try:
                    self._token.run_sync_soon(_settle, group)
                except trio.RunFinishedError:
                    return
            if last:
                return

    def _gather(self) -> tuple[list[_Unit], bool]:
        """The units that wait, at least one; and whether the end was among them."""
        group: list[_Unit] = []
        unit = self._units.get()
        while unit is not None:
            group.append(unit)
            if len(group) >= MAX_GROUP_UNITS:
                return group, False
            try:
                unit = self._units.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _carry_out(self, group: list[_Unit]) -> None:
        self.groups += 1
        self.units += len(group)
        operations = [operation for unit in group for operation in unit.operations]
        if operations:
            result = outcome.capture(self._store.apply, operations)
            if isinstance(result, outcome.Error):
                for unit in group:
                    # An outcome can be delivered once, so each task gets one of its own.
                    unit.result = outcome.Error(result.error)
                if len(group) > 1 and not isinstance(result.error, StoreUnavailable):
                    # One unit is to blame and nothing was done: the others must not suffer for it.
                    for unit in group:
                        unit.result = outcome.capture(self._store.apply, unit.operations)
        for unit in group:
            if unit.function is not None:
                unit.result = outcome.capture(unit.function)


def _settle(group: list[_Unit]) -> None:
    for unit in group:
        trio.lowlevel.reschedule(unit.task, unit.result)


def _cannot_abort(_: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED
