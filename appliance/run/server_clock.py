"""The clock of the server that nodes share, as far as it is known here.

What has to be in one order over all nodes (ids, and the marks in `logbook.horizon`) goes by it: the clocks of the
machines may differ by minutes. Between two looks it goes on by a clock of this machine that nobody can set, the
time included in which the machine sleeps.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import trio

from appliance.configuration import Configuration
from appliance.model.time import Clock, wall_clock
from appliance.run.stores import is_shared, shared_url
from appliance.spool.clocks import boot_clock
from appliance.storage.records import StoreUnavailable

LOOK_S = 10.0
"""How often the server is asked: in the meantime two clocks drift apart by less than a millisecond."""

_logger = logging.getLogger(__name__)


class ServerClock:
    """Called, it says the time by the server: milliseconds since the epoch. It never waits; any thread may call it."""

    def __init__(self, ask: Callable[[], int], elapsed: Callable[[], int] = boot_clock) -> None:
        """`ask` asks the server and blocks; `elapsed` counts milliseconds. Raises StoreUnavailable."""
        self._ask = ask
        self._elapsed = elapsed
        self._ahead = 0
        self.look()

    def __call__(self) -> int:
        return self._elapsed() + self._ahead

    def look(self) -> None:
        """Ask the server, and go by its answer. Blocks, and raises StoreUnavailable."""
        began = self._elapsed()
        answer = self._ask()
        took = self._elapsed() - began
        ahead = answer - began - took // 2
        # The answer was right at some moment in between: what agrees with one of these is no worse.
        if abs(ahead - self._ahead) > took // 2:
            self._ahead = ahead

    async def keep_looking(self) -> None:
        """Ask now and then, until cancelled. While the server is away it goes on as it goes."""
        while True:
            await trio.sleep(LOOK_S)
            try:
                await trio.to_thread.run_sync(self.look)
            except StoreUnavailable as error:
                _logger.info("the time of the shared store can't be asked for now: %s", error)


@contextmanager
def shared_clock(config: Configuration) -> Iterator[ServerClock | None]:
    """The clock of the server that nodes share, for the block; None where records and spool are this machine's alone.

    Raises CannotStart, StoreUnavailable, SchemaMismatch, SecretRefused.
    """
    if not is_shared(config):
        yield None
        return
    from appliance.storage.mongo_database import MongoDatabase

    with closing(MongoDatabase(shared_url(config), ())) as database:
        yield ServerClock(database.now)


def clock_ahead_ms(ask: Callable[[], int], clock: Clock = wall_clock) -> int:
    """By how much this machine's clock is ahead of the server's; negative where it is behind.

    As exact as half of the time that the answer takes. `ask` asks the server; raises StoreUnavailable.
    """
    began = clock()
    answer = ask()
    return began + (clock() - began) // 2 - answer
