"""The control process: what faces browsers, put together.

It holds no store and no key. What it knows of mail it asks the engine, over the control socket.
"""

import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import trio
from control_api.guard import serve_guarded
from control_api.http import application

from appliance import wire
from appliance.configuration import Configuration
from appliance.run.child import Ready

STATUS_S = 2.0
"""How long the engine may take to say how it is; one that takes longer is not well."""


def main(config: Configuration, http_listeners: list[socket.socket], ready: Ready) -> None:
    """Serve HTTP until SIGTERM; call `ready` once it is served."""
    trio.run(_serve, config, http_listeners, ready)


async def _serve(config: Configuration, http_listeners: list[socket.socket], ready: Ready) -> None:
    shutdown = trio.Event()
    app = application(engine_status(config))
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            # Without an address to serve on there is nothing to do but to stay for the supervisor.
            if http_listeners:
                await nursery.start(partial(serve_guarded, app, http_listeners, shutdown))
            ready()
            async for _ in signals:
                break
            for listener in http_listeners:
                listener.close()
            shutdown.set()


def engine_status(config: Configuration) -> Callable[[], Awaitable[Mapping[str, object] | None]]:
    """What asks the engine of this configuration for its status. The callable returns None where none is told."""

    async def status() -> Mapping[str, object] | None:
        try:
            told = await wire.ask(config.control_socket, "status", STATUS_S)
        except (wire.NotRunning, wire.WireError):
            return None
        return told if isinstance(told, dict) else None

    return status
