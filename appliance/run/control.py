"""The control process: what faces browsers, put together.

It holds no key of the spool, and no mail. It opens the record store, with the key of the log, which it shows to those
whose log it is. What it knows of mail under way it asks the engine, over the engine's socket.
"""

import os
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
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
from appliance.run.ephemeral import open_ephemeral
from appliance.run.furnishing import furnish
from appliance.run.post_office import post_office
from appliance.run.server_clock import ServerClock, shared_clock
from appliance.run.stores import open_records
from appliance.run.watching import Watching

NICE = 5
"""Where processors are short, mail goes first: of one, the engine has three times the share of this process. In three
pairs of runs on two busy processors, with 200 who followed a log, the 99th percentile of a message's wait fell to 0.6,
0.1 and 0.3 of what it was without."""


def main(
    config: Configuration, http_listeners: list[socket.socket], local_listener: socket.socket, ready: Ready
) -> None:
    """Serve HTTP until SIGTERM; call `ready` once it is served. Who comes through `local_listener` is the operator.

    Raises StoreUnavailable or SchemaMismatch where the record store can't be opened, CannotStart, SecretRefused or
    OSError.
    """
    _yield_to_mail()
    records = open_records(config)
    try:
        errands = ErrandThread()
        engine = partial(wire.call, config.engine_socket)
        ephemeral, key = open_ephemeral(config)
        post = post_office(config, engine)
        with shared_clock(config) as clock:
            rooms = furnish(config, records, ephemeral, engine, post, errands, ephemeral_key=key, server_clock=clock)
            trio.run(_serve, config, rooms, errands, clock, http_listeners, local_listener, ready)
    finally:
        records.close()


def _yield_to_mail() -> None:
    # Some sandboxes refuse it; all works without.
    with suppress(OSError):
        os.nice(NICE)


async def _serve(
    config: Configuration,
    rooms: Rooms,
    errands: ErrandThread,
    clock: ServerClock | None,
    http_listeners: list[socket.socket],
    local_listener: socket.socket,
    ready: Ready,
) -> None:
    shutdown = trio.Event()
    watching = Watching(config, RequestLog(rooms.records))

    def served(listeners: list[socket.socket], edges: Edges) -> Callable[..., Awaitable[None]]:
        app = watching.application(rooms, edges, shutdown)
        return partial(serve_guarded, app, listeners, shutdown, edges.speaks_for_others)

    http = config.http
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as lasting:
            lasting.start_soon(trio.to_thread.run_sync, errands.run)
            lasting.start_soon(rooms.feed.run)
            lasting.start_soon(watching.log.run)
            if clock is not None:
                lasting.start_soon(clock.keep_looking)
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
