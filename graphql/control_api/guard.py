"""Hypercorn under Trio, with a guard: one bad connection ends itself, and a server that dies begins again.

Hypercorn 0.18.0 lets an error in one connection through to the nursery of all connections, and one websocket upgrade
with an octet behind its headers, from anybody, is such an error. So the class that serves a connection is replaced by
one that catches what its own connection raises. That class is private to Hypercorn, which is why pyproject.toml pins it
exactly; `tests/run/test_guard.py` holds the inputs that once went through.

And there is no HTTP/2: where a client goes away while a response is on its way, Hypercorn's side of it waits for ever,
so that anybody could use up the connections. What is asked over HTTP/2 is answered in HTTP/1.1.
"""

import logging
import os
import socket
from collections.abc import Sequence
from typing import cast

import h11
import hypercorn.protocol
import hypercorn.trio.run
import trio
from hypercorn.config import Config
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio import serve
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.typing import Framework

from control_api.http import App

CONNECTIONS = 512
"""At once. Each costs a file descriptor and a task; a supervisor asks on one, a browser on six."""
IDLE_S = 15.0
"""How long a connection may stay open without a request, or with half of its headers."""
HEADER_OCTETS = 16 * 1024
"""All header lines of a request together."""
SHUTDOWN_S = 5.0
"""How long requests under way may take once the end has begun."""
RESTART_S = 0.5
"""The pause before a server that died begins again, so that a lasting fault costs a line a moment, not a processor."""

_logger = logging.getLogger(__name__)


class GuardedServer(TCPServer):
    """One connection, whose errors are its own."""

    open_connections = 0

    async def run(self) -> None:
        """Serve the connection to its end. Raises nothing but cancellation."""
        if GuardedServer.open_connections >= CONNECTIONS:
            await trio.aclose_forcefully(self.stream)
            return
        GuardedServer.open_connections += 1
        try:
            await super().run()
        except* Exception:
            # The text of the error may repeat what the client sent; the log shows its type and place.
            _logger.warning("a connection was closed after an error in it", exc_info=True)
        finally:
            GuardedServer.open_connections -= 1
            await trio.aclose_forcefully(self.stream)

    async def _read_data(self) -> None:
        await super()._read_data()
        # The client has closed. Hypercorn would keep, and we count, the connection until its idle time is over.
        await self.idle_task.stop()


class OnlyHttp1(H11Protocol):
    """A connection that stays at HTTP/1.1, whatever it is asked to become."""

    async def _check_protocol(self, event: h11.Request) -> None:
        # RFC 9110 §7.8: a server may ignore Upgrade. A websocket is looked for elsewhere.
        pass


hypercorn.trio.run.TCPServer = GuardedServer  # type: ignore[attr-defined]
hypercorn.protocol.H11Protocol = OnlyHttp1  # type: ignore[attr-defined]


async def serve_guarded(
    app: App,
    listeners: Sequence[socket.socket],
    shutdown: trio.Event,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the application on sockets that listen already, until `shutdown` is set. The sockets stay the caller's.

    Starts once it serves. Raises what keeps it from serving for the first time; after that, it begins again.
    """
    started = False

    async def tell_started(*, task_status: trio.TaskStatus[list[str]]) -> None:
        await serve(cast(Framework, app), _config(listeners), shutdown_trigger=shutdown.wait, task_status=task_status)

    while not shutdown.is_set():
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(tell_started)
                if not started:
                    started = True
                    task_status.started()
        except* Exception:
            if not started:
                raise
            _logger.exception("the web server died and begins again")
            with trio.move_on_after(RESTART_S):
                await shutdown.wait()


def _config(listeners: Sequence[socket.socket]) -> Config:
    config = Config()
    # Hypercorn takes over the descriptors that it is given and closes them: it gets copies.
    config.bind = [f"fd://{os.dup(listener.fileno())}" for listener in listeners]
    config.backlog = 1024
    config.accesslog = None
    config.errorlog = _quiet_logger()
    config.include_server_header = False
    config.keep_alive_timeout = IDLE_S
    config.h11_max_incomplete_size = HEADER_OCTETS
    config.alpn_protocols = ["http/1.1"]
    config.websocket_max_message_size = 64 * 1024
    config.graceful_timeout = SHUTDOWN_S
    return config


def _quiet_logger() -> logging.Logger:
    """Hypercorn's own log from warnings up: who listens where is the supervisor's to say."""
    logger = logging.getLogger("hypercorn.error")
    logger.setLevel(logging.WARNING)
    return logger
