"""What the control process notes of its own work: the log of HTTP, and the numbers that `/metrics` shows."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import trio
from control_api.api import Api
from control_api.edges import Edges
from control_api.exchange import App
from control_api.http import application
from control_api.metrics import State
from control_api.rooms import Rooms
from control_api.watch import Traffic, Watch

from appliance import wire
from appliance.configuration import Configuration
from appliance.logbook.requests import RequestLog
from appliance.storage.disk import THE_DISK
from appliance.storage.records import StoreUnavailable

CHECK_S = 0.5
"""How long the store of sessions may take to answer who asks how we are: he has to hear at once what is wrong."""


@dataclass(frozen=True, slots=True)
class Watching:
    """One for the process, over all its listeners. `log.run` has to run for lines to be written."""

    config: Configuration
    log: RequestLog
    traffic: Traffic = field(default_factory=Traffic)

    def application(self, rooms: Rooms, edges: Edges, shutdown: trio.Event) -> App:
        """The application for a listener with these edges."""
        watch = Watch(edges, self.log, self.traffic)
        api = Api(rooms, edges, shutdown, watch)
        return application(engine_status(self.config), api, watch, self.measured, stores_away(rooms))

    async def measured(self) -> State:
        """The state that `/metrics` shows."""
        try:
            space = await trio.to_thread.run_sync(THE_DISK.space, self.config.data_dir)
        except OSError:
            space = None
        return State(
            engine=await _asked(self.config, "metrics"),
            disk_free=space.octets if space else None,
            disk_size=space.all_octets if space else None,
            log_written=self.log.written,
            log_lost=self.log.lost,
        )


def stores_away(rooms: Rooms) -> Callable[[], Awaitable[Sequence[str]]]:
    """What asks whether the store of sessions answers, soon: without it nobody signs in, and mail goes on."""

    async def away() -> Sequence[str]:
        with suppress(StoreUnavailable), trio.move_on_after(CHECK_S):
            await trio.to_thread.run_sync(rooms.ephemeral.check, abandon_on_cancel=True)
            return []
        return ["ephemeral"]

    return away


def engine_status(config: Configuration) -> Callable[[], Awaitable[Mapping[str, object] | None]]:
    """What asks the engine of this configuration how it is. The callable returns None where none is told."""

    async def status() -> Mapping[str, object] | None:
        return await _asked(config, "health")

    return status


async def _asked(config: Configuration, verb: str) -> Mapping[str, Any] | None:
    try:
        told = await wire.ask(config.engine_socket, verb, wire.STATUS_S)
    except (wire.NotRunning, wire.WireError):
        return None
    return told if isinstance(told, dict) else None
