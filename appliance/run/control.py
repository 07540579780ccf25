"""The control process: what faces browsers, put together.

It holds no store and no key. What it knows of mail it asks the engine, over `<data_dir>/control.sock`.
"""

import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec
import trio
from control_api.guard import serve_guarded
from control_api.http import application

from appliance.configuration import Configuration
from appliance.run.child import Ready

STATUS_S = 2.0
"""How long the engine may take to say how it is; one that takes longer is not well."""
STATUS_OCTETS = 64 * 1024
"""The longest answer that is read."""


def main(config: Configuration, http_listeners: list[socket.socket], ready: Ready) -> None:
    """Serve HTTP until SIGTERM; call `ready` once it is served."""
    trio.run(_serve, config, http_listeners, ready)


async def _serve(config: Configuration, http_listeners: list[socket.socket], ready: Ready) -> None:
    shutdown = trio.Event()
    app = application(engine_status(config.data_dir))
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


def engine_status(data_dir: Path) -> Callable[[], Awaitable[Mapping[str, object] | None]]:
    """What asks the engine of this data directory for its status. The callable returns None where none is told."""
    path = data_dir / "control.sock"

    async def ask() -> Mapping[str, object] | None:
        try:
            with trio.fail_after(STATUS_S):
                return await _ask(path)
        except (OSError, trio.TooSlowError, trio.BrokenResourceError, msgspec.MsgspecError, RecursionError):
            return None

    return ask


async def _ask(path: Path) -> Mapping[str, object] | None:
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(b'{"verb": "status"}\n')
        answer = bytearray()
        while b"\n" not in answer and len(answer) <= STATUS_OCTETS:
            octets = await stream.receive_some()
            if not octets:
                break
            answer += octets
    line, _, _ = answer.partition(b"\n")
    content = msgspec.json.decode(bytes(line), type=dict[str, object])
    result = content.get("result")
    return result if isinstance(result, dict) else None
