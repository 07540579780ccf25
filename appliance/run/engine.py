"""The engine: the composition root of mail.

One process, one nursery tree: sessions inward, couriers outward, and around them what keeps the house (the mover of
events, the sweeper, the eye on the records). It stops in the order in which mail flows: no new mail, then no new
attempts, then what is left of the log is moved.
"""

import gc
import logging
import os
import signal
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import fields
from ipaddress import ip_network
from typing import Any

import trio

from appliance import wire
from appliance.configuration import Configuration, retention_ms
from appliance.delivery.connecting import ConnectionSettings
from appliance.delivery.courier import Courier
from appliance.delivery.operator import QueueFilter, QueueOperator
from appliance.delivery.schedule import RetrySchedule
from appliance.delivery.scheduler import Scheduler
from appliance.delivery.settlement import Settler
from appliance.forwarding.srs import SenderRewriter
from appliance.logbook.events import Logbook
from appliance.logbook.live import LiveStream, TooManyFollowers
from appliance.logbook.mover import BATCH, keep_moving, move_events
from appliance.model.domain import LogLevel
from appliance.model.event import DeliveryEvent
from appliance.model.ids import id_source
from appliance.model.time import wall_clock
from appliance.privacy.sweeper import Sweeper
from appliance.reception.client_names import ClientNames
from appliance.reception.session import MAX_HEADER_SECTION, Reception
from appliance.reports.own_mail import OwnMail
from appliance.resolver import DnsResolver
from appliance.routing.snapshot import GENERATION, Settings, Snapshot, load
from appliance.run.certificates import server_tls, verifying
from appliance.run.hosts import host_settings
from appliance.run.stores import RECORDS_FILE, SRS_KEY, open_records, open_spool, secrets
from appliance.spool.committer import GroupCommitter
from appliance.spool.spool import Spool
from appliance.storage.records import RecordStore, StoreUnavailable
from appliance.storage.spool import PART_OCTETS, SpoolStore
from smtp.server.conduct import ConductLimits
from smtp.server.trio_server import ServerSettings, Statistics, serve
from smtp.tls import opportunistic_context

WATCH_S = 0.3
"""How often the records are asked whether they have changed: a change acts within a second."""

PROBE_S = 2.0
"""How often a spool that has refused something is tried, so that it is known to work again before mail comes."""

HELD_OCTETS = PART_OCTETS + MAX_HEADER_SECTION
"""How much of a message reception keeps in memory while it comes in; what is beyond goes to the disk at once."""

GC_THRESHOLDS = (10_000, 20, 100)
"""New containers before a look at the youngest, and how many such looks before one at the older ones (`gc`)."""

_logger = logging.getLogger(__name__)


def main(
    config: Configuration,
    smtp_listeners: list[socket.socket],
    control_listener: socket.socket,
    ready: Callable[[], None],
) -> None:
    """Run until SIGTERM. Raises StoreUnavailable or SchemaMismatch where a store can't be opened, and CannotStart."""
    tls = server_tls(config)
    records = open_records(config)
    store = open_spool(config)
    try:
        store.recover()
        _rest_the_collector()
        trio.run(_Engine(config, records, store, tls).run, smtp_listeners, control_listener, ready)
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
        self, config: Configuration, records: RecordStore, store: SpoolStore, tls: ssl.SSLContext | None
    ) -> None:
        self._config = config
        self._tls = tls
        self._records = records
        self._store = store
        self._settings = Settings(config.hostname, config.forwarding.srs_domain, config.mail.postmaster)
        self.snapshot: Snapshot = load(records, self._settings)
        self._live = LiveStream()
        self._statistics = Statistics()
        self._started_at = wall_clock()
        self._sweeper = Sweeper(records, store, lambda setting: retention_ms(config, setting))
        self._records_path = config.data_dir / RECORDS_FILE
        self._records_file = _identity(os.stat(self._records_path))
        """Which file of that name the records are read from and written to."""
        self._records_replaced = False
        self._moving = trio.CancelScope()
        self._trouble: str | None = None
        """Why the spool takes no mail, from the first refusal until a trial has succeeded."""

    async def run(
        self, smtp_listeners: Sequence[socket.socket], control_listener: socket.socket, ready: Callable[[], None]
    ) -> None:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async with GroupCommitter(self._store) as committer, trio.open_nursery() as background:
                spool = Spool(self._store, committer, id_source())
                background.start_soon(self._watch_spool, spool, committer)
                await self._serve(spool, background, signals, smtp_listeners, control_listener, ready)
                background.cancel_scope.cancel()
            if not self._records_replaced:
                await self._move_the_rest()

    async def _serve(
        self,
        spool: Spool,
        background: trio.Nursery,
        signals: AsyncIterator[int],
        smtp_listeners: Sequence[socket.socket],
        control_listener: socket.socket,
        ready: Callable[[], None],
    ) -> None:
        config = self._config
        resolver = DnsResolver(config.dns.nameservers, config.dns.timeout / 1000)
        rewriter = SenderRewriter(config.forwarding.srs_domain, [secrets(config).key(SRS_KEY)])
        logbook = Logbook(self._log_level, wall_clock, spool.new_id)
        schedule = RetrySchedule(config.delivery.retry, config.delivery.give_up_after)
        own_mail = OwnMail(
            hostname=config.hostname,
            reporter=config.mail.from_,
            snapshot=self._present,
            rewriter=rewriter,
            look_up=self._store.return_path,
            new_id=spool.new_id,
        )
        settler = Settler(spool, logbook, schedule, own_mail, self._present, wall_clock)
        verifying_tls, _ = verifying()
        connections = ConnectionSettings(
            config.delivery.port,
            host_settings(config),
            opportunistic=opportunistic_context(),
            # Where there is none, `doubts` has said so.
            verifying=verifying_tls,
        )
        scheduler = Scheduler(
            spool,
            settler,
            self._live,
            lambda domain: Courier(domain, resolver, connections, wall_clock),
            wall_clock,
            config.delivery.max_per_destination,
        )
        reception = Reception(
            hostname=config.hostname,
            routing=self,
            rewriter=rewriter,
            spool=spool,
            logbook=logbook,
            live=self._live,
            client_names=ClientNames(resolver, background),
            own_mail=own_mail,
            next=scheduler,
            clock=wall_clock,
        )
        queue = QueueOperator(spool, scheduler, schedule, wall_clock)
        shutdown, stop_delivery = trio.Event(), trio.Event()
        background.start_soon(_wait_for, signals, shutdown)
        background.start_soon(self._watch_records, shutdown)
        background.start_soon(self._sweep)
        background.start_soon(self._keep_moving, spool)
        background.start_soon(self._answer_control, control_listener, queue, spool)
        async with trio.open_nursery() as mail:
            mail.start_soon(scheduler.run, stop_delivery)
            ready()
            await serve(
                smtp_listeners,
                reception.session,
                _server_settings(config, self._tls),
                shutdown=shutdown,
                on_error=_logger.error,
                statistics=self._statistics,
            )
            stop_delivery.set()

    # ------------------------------------------------------------------ the present state of the records

    def _present(self) -> Snapshot:
        return self.snapshot

    def _log_level(self, domain_id: str) -> LogLevel:
        return self.snapshot.log_level(domain_id)

    async def _watch_records(self, shutdown: trio.Event) -> None:
        """Load a new snapshot when the records have changed. A store that is away leaves the old one in place.

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
            try:
                if await trio.to_thread.run_sync(self._records.generation, GENERATION) != self.snapshot.generation:
                    self.snapshot = await trio.to_thread.run_sync(load, self._records, self._settings)
            except StoreUnavailable as error:
                _logger.warning("records can't be read, routing stays as it is: %s", error)

    def _is_replaced(self) -> bool:
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
            if self._trouble is None and committer.last_failure is not None:
                _logger.error("the spool takes no mail: %s", committer.last_failure)
                self._trouble = committer.last_failure
            while self._trouble is not None:
                await trio.sleep(PROBE_S)
                trial = spool.begin()
                try:
                    await trial.append(bytes(PART_OCTETS))
                    await trial.abort()
                except StoreUnavailable as error:
                    self._trouble = str(error)
                else:
                    _logger.info("the spool takes mail again")
                    self._trouble = None

    async def _keep_moving(self, spool: Spool) -> None:
        with self._moving:
            await keep_moving(spool, self._records)

    async def _catch_up(self, spool: Spool) -> None:
        """Return once the log has every event that was durable at the call."""
        while not self._records_replaced and await move_events(spool, self._records) == BATCH:
            pass

    async def _sweep(self) -> None:
        while True:
            try:
                erased = await trio.to_thread.run_sync(self._sweeper.sweep, wall_clock())
            except StoreUnavailable as error:
                _logger.warning("what has had its time can't be erased now: %s", error)
            else:
                if any(erased.values()):
                    _logger.info("swept %s", " ".join(f"{name}={count}" for name, count in erased.items() if count))
            await trio.sleep(self._sweeper.interval_ms() / 1000)

    async def _move_the_rest(self) -> None:
        """The last events, after the last session and the last courier."""
        async with GroupCommitter(self._store) as committer:
            spool = Spool(self._store, committer, id_source())
            try:
                while await move_events(spool, self._records):
                    pass
            except StoreUnavailable as error:
                _logger.warning("events wait in the outbox for the next start: %s", error)

    # ------------------------------------------------------------------ the control socket

    async def _answer_control(self, listener: socket.socket, queue: QueueOperator, spool: Spool) -> None:
        async def status(arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
            queued, oldest = await trio.to_thread.run_sync(self._store.depth)
            yield {
                "healthy": self._trouble is None,
                "trouble": self._trouble,
                "startedAt": self._started_at,
                "queued": queued,
                "oldestQueuedAt": oldest,
                "openConnections": self._statistics.connections_open,
            }

        async def queue_list(arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
            wanted = _filter(arguments, everything=True)
            shown, after = await queue.page(wanted, None)
            while True:
                for delivery in shown:
                    yield delivery
                if after is None:
                    return
                shown, after = await queue.page(wanted, after)

        async def queue_retry(arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
            yield {"affected": await queue.retry(_filter(arguments))}

        async def queue_drop(arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
            yield {"affected": await queue.drop(_filter(arguments))}

        async def events(arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
            try:
                follower = self._live.follow()
            except TooManyFollowers as error:
                raise wire.WireError(str(error)) from None
            try:
                if arguments.get("caughtUp") is True:
                    # One result ahead of the events: from here on each is told, and what was before is in the log.
                    await self._catch_up(spool)
                    yield {"following": True}
                async for event in follower:
                    yield _plain(event)
            finally:
                follower.close()
            raise wire.WireError("you have fallen too far behind: read on from the log")

        verbs: dict[str, wire.Verb] = {
            "status": status,
            "queue.list": queue_list,
            "queue.retry": queue_retry,
            "queue.drop": queue_drop,
            "events": events,
        }
        listener.setblocking(False)
        await wire.serve(
            trio.SocketListener(trio.socket.from_stdlib_socket(listener)),
            {name: _patient(verb) for name, verb in verbs.items()},
            _logger.error,
        )


def _patient(verb: wire.Verb) -> wire.Verb:
    """A store that is away is said in words, not with a closed connection."""

    async def answered(arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        try:
            async with aclosing(verb(arguments)) as results:
                async for result in results:
                    yield result
        except StoreUnavailable as error:
            raise wire.WireError(f"the store does not answer: {error}") from None

    return answered


def _plain(event: DeliveryEvent) -> dict[str, Any]:
    """An event as JSON has it: the field names of the model, the type by its word."""
    return {field.name: getattr(event, field.name) for field in fields(event)} | {"type": event.type.value}


_FILTERS = ("domain", "destination", "sender", "recipient", "id")


def _filter(arguments: Mapping[str, Any], *, everything: bool = False) -> QueueFilter:
    """What the caller means; with nothing set, everything only where that was said."""
    given = {name: arguments[name] for name in _FILTERS if arguments.get(name) is not None}
    unknown = sorted(set(arguments) - {*_FILTERS, "all"})
    if unknown:
        raise wire.WireError(f"there is no filter {unknown[0]!r}; there are {', '.join(_FILTERS)} and all")
    if not all(isinstance(value, str) for value in given.values()):
        raise wire.WireError("a filter is a text")
    if not given and not everything and arguments.get("all") is not True:
        raise wire.WireError("name which deliveries, or say all")
    return QueueFilter(**given)


def _identity(found: os.stat_result) -> tuple[int, int]:
    """Which file it is, whatever its name."""
    return found.st_dev, found.st_ino


def _server_settings(config: Configuration, tls: ssl.SSLContext | None) -> ServerSettings:
    return ServerSettings(
        hostname=config.hostname,
        max_message_octets=config.smtp.max_message_size,
        max_recipients=config.smtp.max_recipients,
        max_connections=config.smtp.max_connections,
        max_connections_per_client=config.smtp.max_connections_per_client,
        max_header_octets=config.smtp.max_header_size,
        max_in_flight_octets=config.smtp.max_in_flight,
        max_held_octets=HELD_OCTETS,
        min_octets_per_s=config.smtp.minimum_rate,
        conduct=ConductLimits(
            tarpit_after=max(1, config.smtp.max_unknown_recipients // 5),
            unknown_recipients_max=config.smtp.max_unknown_recipients,
        ),
        command_timeout_s=config.smtp.command_timeout / 1000,
        transaction_timeout_s=config.smtp.transaction_timeout / 1000,
        tls=tls,
        trusted_proxies=tuple(ip_network(network) for network in config.smtp.trusted_proxies),
    )


async def _wait_for(signals: AsyncIterator[int], shutdown: trio.Event) -> None:
    async for _ in signals:
        shutdown.set()
        return
