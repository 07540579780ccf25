"""A committer without a thread, for tests under a clock that jumps while threads work."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import trio

from appliance.storage.spool import Operation, SpoolStore, Turn, at_once

T = TypeVar("T")


class InlineCommitter:
    """Does at once, in the caller's task, what is asked. A `Committer`."""

    def __init__(self, store: SpoolStore) -> None:
        self._store = store

    async def commit(self, operations: Sequence[Operation]) -> None:
        """See `Committer`."""
        await trio.lowlevel.checkpoint()
        self._store.apply(operations)

    async def call(self, function: Callable[[], T]) -> T:
        """See `Committer`."""
        await trio.lowlevel.checkpoint()
        return function()

    async def beside(self, do: Callable[[Turn], T]) -> T:
        """See `Committer`."""
        return await self.call(partial(do, at_once))
