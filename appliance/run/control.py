"""The control process: what faces browsers, put together.

It holds no key of the spool, and no mail. It opens the record store, with the key of the log, which it shows to those
whose log it is. What it knows of mail under way it asks the engine, over the engine's socket.
"""

import signal
import socket
from collections.abc import Awaitable, Callable
from functools import partial

import trio
from control_api.edges import Edges
from control_api.guard import serve_guarded
from control_api.rooms import Rooms

from appliance import wire
from appliance.access.errands import ErrandThread
from appliance.configuration import Configuration
from appliance.logbook.requests import RequestLog
from appliance.run.child import Ready
from appliance.run.furnishing import furnish
from appliance.run.post_office import post_office
from appliance.run.stores import open_records
from appliance.run.watching import Watching
from appliance.storage.memory_ephemeral import MemoryEphemeral


def main(
    config: Configuration, http_listeners: list[socket.socket], local_listener: socket.socket, ready: Ready
) -> None:
    """Serve HTTP until SIGTERM; call `ready` once it is served. Who comes through `local_listener` is the operator.

    Raises StoreUnavailable or SchemaMismatch where the record store can't be opened, CannotStart, SecretRefused or
    OSError.
    """
    records = open_records(config)
    try:
        errands = ErrandThread()
        engine = partial(wire.call, config.engine_socket)
        rooms = furnish(config, records, MemoryEphemeral(), engine, post_office(config, engine), errands)
        trio.run(_serve, config, rooms, errands, http_listeners, local_listener, ready)
    finally:
        records.close()


async def _serve(
    config: Configuration,
    rooms: Rooms,
    errands: ErrandThread,
    http_listeners: list[socket.socket],
    local_listener: socket.socket,
    ready: Ready,
) -> None:
    shutdown = trio.Event()
    watching = Watching(config, RequestLog(rooms.records))

    def served(listeners: list[socket.socket], edges: Edges) -> Callable[..., Awaitable[None]]:
        return partial(serve_guarded, watching.application(rooms, edges, shutdown), listeners, shutdown)

    http = config.http
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as lasting:
            lasting.start_soon(trio.to_thread.run_sync, errands.run)
            lasting.start_soon(rooms.feed.run)
            lasting.start_soon(watching.log.run)
            try:
                async with trio.open_nursery() as nursery:
                    # Without an address to serve on there is still the operator.
                    if http_listeners:
                        await nursery.start(served(http_listeners, Edges(http.public_url, http.trusted_proxies)))
                    await nursery.start(served([local_listener], Edges(http.public_url, local=True)))
                    ready()
                    async for _ in signals:
                        break
                    for listener in (*http_listeners, local_listener):
                        listener.close()
                    shutdown.set()
            finally:
                # Letters that were asked for until the end are still written: that thread is waited for.
                errands.close()
                lasting.cancel_scope.cancel()
