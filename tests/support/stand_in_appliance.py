"""The real supervisor and control process with a stand-in for the engine: `python stand_in_appliance.py FILE`.

The stand-in greets each SMTP client with its process id and the configured hostname, then takes one command that says
how it is to misbehave. So a test can tell the generations of the engine apart, and make one of them end in any way.
"""

import json
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path

import trio

from appliance.configuration import Configuration, load
from appliance.run import control
from appliance.run.child import Ready
from appliance.run.supervisor import supervise


def engine_main(config: Configuration, smtp: list[socket.socket], engine_socket: socket.socket, ready: Ready) -> None:
    """Stands in for `appliance.run.engine.main`."""
    if os.environ.get("STAND_IN") == "fails" or config.hostname.startswith("fails."):
        raise RuntimeError("the spool is upside down")
    trio.run(_serve, config, smtp, engine_socket, ready)


async def _serve(config: Configuration, smtp: list[socket.socket], engine_socket: socket.socket, ready: Ready) -> None:
    async def greet(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(f"220 {os.getpid()} {config.hostname}\r\n".encode())
            match await stream.receive_some():
                case b"CRASH":
                    os._exit(3)
                case b"RAISE":
                    raise ValueError("no mail for somebody@example.org")
                case b"STUBBORN":
                    stubborn.set()
                    await stream.send_all(b"250 as you like\r\n")

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            assert json.loads(await stream.receive_some())["verb"] in ("health", "status")
            await stream.send_all(json.dumps({"result": {"healthy": True}}).encode() + b"\n")

    stubborn = trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as sessions, trio.open_nursery() as accepting:
            for listener, handler in [*((one, greet) for one in smtp), (engine_socket, answer)]:
                listening = [trio.SocketListener(trio.socket.from_stdlib_socket(listener))]
                accepting.start_soon(partial(trio.serve_listeners, handler, listening, handler_nursery=sessions))
            ready()
            async for _ in signals:
                if not stubborn.is_set():
                    break
            # Who was let in is greeted, who was not stays with the supervisor's socket.
            accepting.cancel_scope.cancel()


if __name__ == "__main__":
    file = Path(sys.argv[1])
    sys.exit(supervise(load(file), file, engine_main, control.main))
