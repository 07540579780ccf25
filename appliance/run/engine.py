"""The engine: the composition root of mail.

One process, one nursery tree: sessions inward, couriers outward, and around them what keeps the house (the mover of
events, the sweeper, the eye on the records). It stops in the order in which mail flows: no new mail, then no new
attempts, then what is left of the log is moved.
"""

import contextlib
import gc
import logging
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Sequence

import trio

from appliance import wire
from appliance.configuration import Configuration
from appliance.logbook.horizon import NameTaken
from appliance.logbook.live import LiveStream
from appliance.logbook.mover import BATCH, SharedLogWriter, keep_moving, move_events
from appliance.model.ids import id_source
from appliance.model.time import Clock, wall_clock
from appliance.reception.day_counts import DayCounts, keep_written, stored_counts, write_down
from appliance.reception.transit import Waits
from appliance.routing.snapshot import Settings
from appliance.run.assembly import MailRooms, assemble, server_settings
from appliance.run.certificates import server_tls
from appliance.run.control_verbs import ControlVerbs
from appliance.run.hosts import smarthost
from appliance.run.measurements import Measurements
from appliance.run.neighbours import keep_hearing
from appliance.run.node_name import named, refusal
from appliance.run.present_queue import PresentQueue
from appliance.run.present_routing import PresentRouting
from appliance.run.server_clock import ServerClock, shared_clock
from appliance.run.shared_certificate import keep_current
from appliance.run.stores import RECORDS_FILE, is_shared, open_records, open_spool
from appliance.run.sweeping import broom, keep_swept
from appliance.spool.clocks import Clocks
from appliance.spool.committer import GroupCommitter
from appliance.spool.sharing import keep_sharing
from appliance.spool.spool import Spool
from appliance.spool.use_copies import keep_showing, show
from appliance.spool.uses import Uses
from appliance.storage.records import RecordStore, StoreUnavailable
from appliance.storage.spool import PART_OCTETS, MarkClocks, SpoolStore
from smtp.server.trio_server import Statistics, serve

WATCH_S = 0.3
"""How often the records are asked whether they have changed: a change acts within a second."""

PROBE_S = 2.0
"""How often a spool that has refused something is tried, so that it is known to work again before mail comes."""

MARK_S = 30.0
"""How often the clocks are written down: as much as that a crash may take back."""

HEARD_WITHIN_S = 60.0
"""How long it may take until routing here has heard of an alias that was made at another node, where nodes share the
stores and these are slow."""

GC_THRESHOLDS = (10_000, 20, 100)
"""New containers before a look at the youngest, and how many such looks before one at the older ones (`gc`)."""

TRANSIT_GRACE_S = 5.0
"""How long next hops of mail in transit are still waited for once shutdown has begun. Less than sessions have for their
transactions, so that each sender can still be told."""

_logger = logging.getLogger(__name__)


def main(
    config: Configuration,
    smtp_listeners: list[socket.socket],
    engine_listener: socket.socket,
    ready: Callable[[], None],
) -> None:
    """Run until SIGTERM. Raises StoreUnavailable or SchemaMismatch where a store can't be opened, and CannotStart."""
    tls = server_tls(config)
    # A password that is missing is told now, and not from within.
    smarthost(config)
    records = open_records(config)
    with shared_clock(config) as clock:
        node, shared_log = ("", None) if clock is None else named(config, records, clock)
        store = open_spool(config, node)
        try:
            store.recover()
            engine = _Engine(config, records, store, tls, node, clock, shared_log)
            _rest_the_collector()
            trio.run(engine.run, smtp_listeners, engine_listener, ready)
        finally:
            store.close()
            records.close()


def _rest_the_collector() -> None:
    """Let Python look for cycles of garbage less often: a message makes hundreds of short-lived values and no cycles.

    What is there at the start stays for good and is not looked at again. It saves about a tenth of the CPU a message.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


class _Engine:
    """Everything that is put together for one run."""

    def __init__(
        self,
        config: Configuration,
        records: RecordStore,
        store: SpoolStore,
        tls: ssl.SSLContext | None,
        node: str,
        clock: ServerClock | None,
        shared_log: SharedLogWriter | None,
    ) -> None:
        """`node`: the name of this one among those that share the stores; empty where they are its alone, and then
        there is neither a clock of theirs nor a log."""
        self._config = config
        self._node = node
        self._server_clock = clock
        self._shared_log = shared_log
        self._wall: Clock = clock or wall_clock
        """One for all that share a store: what one has taken in, another gives up, counts and erases."""
        self._new_id = id_source(self._wall)
        self._tls = tls
        self._records = records
        self._store = store
        settings = Settings(config.hostname, config.forwarding.srs_domain, config.mail.postmaster, config.plans)
        self._routing = PresentRouting(records, settings)
        self._live = LiveStream()
        self._statistics = Statistics()
        self._started_at = self._wall()
        here, elsewhere = stored_counts(records, self._started_at, node)
        self._day_counts = DayCounts(here, self._started_at, node=node)
        self._day_counts.learn(elsewhere, self._started_at)
        self._clocks = Clocks(self._wall, store.clock_marks())
        self._uses = Uses(store.uses())
        self._sweeper = broom(config, records, store, node, self._wall)
        self._records_path = None if node else config.data_dir / RECORDS_FILE
        self._records_file = None if self._records_path is None else _identity(os.stat(self._records_path))
        """Which file of that name the records are read from and written to."""
        self._records_replaced = False
        self._moving = trio.CancelScope()
        self._trouble: str | None = None
        """Why the spool takes no mail, from the first refusal until a trial has succeeded."""

    async def run(
        self, smtp_listeners: Sequence[socket.socket], engine_listener: socket.socket, ready: Callable[[], None]
    ) -> None:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async with GroupCommitter(self._store) as committer, trio.open_nursery() as background:
                spool = Spool(self._store, committer, self._new_id)
                background.start_soon(self._watch_spool, spool, committer)
                await self._serve(spool, committer, background, signals, smtp_listeners, engine_listener, ready)
                background.cancel_scope.cancel()
            if not self._records_replaced:
                await self._move_the_rest()
                try:
                    await write_down(self._day_counts, self._records, self._wall())
                except StoreUnavailable as error:
                    _logger.warning("what accounts have received today can't be written down now: %s", error)

    async def _serve(
        self,
        spool: Spool,
        committer: GroupCommitter,
        background: trio.Nursery,
        signals: AsyncIterator[int],
        smtp_listeners: Sequence[socket.socket],
        engine_listener: socket.socket,
        ready: Callable[[], None],
    ) -> None:
        routing = self._routing
        rooms = assemble(
            self._config, spool, routing, self._live, self._day_counts, self._uses, self._clocks, background
        )
        shutdown, stop_delivery = trio.Event(), trio.Event()
        background.start_soon(_wait_for, signals, shutdown)
        background.start_soon(self._watch_records, shutdown)
        background.start_soon(self._routing.keep_age)
        if self._tls is not None and is_shared(self._config) and not self._config.tls.certificate:
            node = f"{self._config.hostname} {spool.new_id()}"
            background.start_soon(keep_current, self._tls, self._records, self._config.hostname, node)
        background.start_soon(keep_swept, self._sweeper, self._clocks.latest)
        background.start_soon(self._keep_moving, spool, committer)
        if self._server_clock is not None:
            background.start_soon(self._server_clock.keep_looking)
        background.start_soon(self._keep_time, spool)
        background.start_soon(keep_written, self._day_counts, self._records, self._wall)
        background.start_soon(rooms.queue.finish)
        if self._store.shared:
            background.start_soon(keep_sharing, spool, self._clocks, rooms.scheduler.lose)
            background.start_soon(keep_hearing, self._store, rooms.holds, self._uses)
        background.start_soon(self._answer, engine_listener, rooms, spool, committer)
        background.start_soon(_end_waits, shutdown, rooms.reception.transit.waits)
        async with trio.open_nursery() as mail:
            mail.start_soon(rooms.scheduler.run, stop_delivery)
            ready()
            await serve(
                smtp_listeners,
                rooms.reception.session,
                server_settings(self._config, self._tls),
                shutdown=shutdown,
                on_error=_logger.error,
                statistics=self._statistics,
            )
            stop_delivery.set()

    # ------------------------------------------------------------------ the present state of the records

    async def _watch_records(self, shutdown: trio.Event) -> None:
        """Load what has changed of the records. A store that is away leaves in place what is there.

        Where the file itself is another one, as after a restore, this engine would go on with what is gone: it ends in
        order, and its successor begins with what is there.
        """
        while True:
            await trio.sleep(WATCH_S)
            if self._is_replaced():
                _logger.warning("%s has been replaced: ending, to begin again with the new one", RECORDS_FILE)
                self._records_replaced = True
                # What is in the outbox waits for the successor: here it would go into a file that nobody can open.
                self._moving.cancel()
                shutdown.set()
                return
            await self._routing.look()

    def _is_replaced(self) -> bool:
        if self._records_path is None:
            return False
        try:
            return _identity(os.stat(self._records_path)) != self._records_file
        except OSError:
            return False  # Somebody is about to put another there, or has the directory in hand: look again.

    # ------------------------------------------------------------------ keeping the house

    async def _watch_spool(self, spool: Spool, committer: GroupCommitter) -> None:
        """Notice a spool that refuses, and try it until it takes something again.

        Without a trial it would stay refusing in the eyes of whoever sends mail only to those that are ready.
        """
        while True:
            await trio.sleep(WATCH_S)
            found = self._store.degraded or committer.last_failure or _lack_of_room(spool)
            if self._trouble is None and found is not None:
                _logger.error("the spool takes no mail: %s", found)
                self._trouble = found
            while self._trouble is not None:
                await trio.sleep(PROBE_S)
                trial = spool.begin()
                try:
                    await trial.append(bytes(PART_OCTETS))
                    await trial.abort()
                except StoreUnavailable as error:
                    self._trouble = str(error)
                else:
                    self._trouble = _lack_of_room(spool)
                    if self._trouble is None:
                        _logger.info("the spool takes mail again")

    async def _keep_moving(self, spool: Spool, committer: GroupCommitter) -> None:
        marking = None if self._shared_log is None else (self._shared_log, committer)
        patience_s = HEARD_WITHIN_S if self._store.shared else 0.0
        with self._moving:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(keep_moving, spool, self._records, marking)
                    nursery.start_soon(keep_showing, self._uses, spool, self._records, self._use_counters, patience_s)
            except* NameTaken:
                raise refusal(self._config, self._node) from None

    def _use_counters(self) -> Collection[str]:
        return self._routing.snapshot.use_counters

    async def _catch_up(self, spool: Spool) -> None:
        """Return once the log has every event that was durable at the call."""
        while not self._records_replaced and await move_events(spool, self._records, self._shared_log) == BATCH:
            pass

    async def _keep_time(self, spool: Spool) -> None:
        """Write down now and then what the clocks have come to; a store that refuses hears it the next time.

        The first time at once: by what is not written down, a clock that is set back would make mail wait.
        """
        while True:
            with contextlib.suppress(StoreUnavailable):
                await spool.committer.commit([MarkClocks(self._clocks.marks())])
            await trio.sleep(MARK_S)

    async def _move_the_rest(self) -> None:
        """The last events, after the last session and the last courier."""
        async with GroupCommitter(self._store) as committer:
            spool = Spool(self._store, committer, self._new_id)
            try:
                await committer.commit([MarkClocks(self._clocks.marks())])
                while await move_events(spool, self._records, self._shared_log):
                    pass
                await show(self._uses, self._records)
                if self._shared_log is not None:
                    await trio.to_thread.run_sync(self._shared_log.horizon.forget)
            except StoreUnavailable as error:
                _logger.warning("events wait in the outbox for the next start: %s", error)

    # ------------------------------------------------------------------ the engine's socket

    async def _answer(self, listener: socket.socket, rooms: MailRooms, spool: Spool, committer: GroupCommitter) -> None:
        async def catch_up() -> None:
            await self._catch_up(spool)

        verbs = ControlVerbs(
            queue=rooms.queue,
            submission=rooms.submission,
            present_queue=PresentQueue(self._store),
            live=self._live,
            statistics=self._statistics,
            measurements=Measurements(
                statistics=self._statistics,
                counts=rooms.reception.logbook.counts,
                committer=committer,
                store=self._store,
                clock=wall_clock,
                started_at=self._started_at,
            ),
            started_at=self._started_at,
            trouble=lambda: self._trouble,
            catch_up=catch_up,
        )
        listener.setblocking(False)
        await wire.serve(trio.SocketListener(trio.socket.from_stdlib_socket(listener)), verbs.by_name(), _logger.error)


def _identity(found: os.stat_result) -> tuple[int, int]:
    """Which file it is, whatever its name."""
    return found.st_dev, found.st_ino


def _lack_of_room(spool: Spool) -> str | None:
    """Senders hear of it before they have sent anything, so that nothing need ever fail for it."""
    return None if spool.has_room(PART_OCTETS) else "there is no room on the disk"


async def _end_waits(shutdown: trio.Event, waits: Waits) -> None:
    """Senders in transit hear soon after the signal that it is not now: nothing was promised to them."""
    await shutdown.wait()
    waits.end_within(TRANSIT_GRACE_S)


async def _wait_for(signals: AsyncIterator[int], shutdown: trio.Event) -> None:
    async for _ in signals:
        shutdown.set()
        return
