"""The SMTP server of `smtp/` with nothing behind it, in a process of its own, so that what it costs can be read.

Run as a program it serves on a free port of 127.0.0.1 (which all of 127.0.0.0/8 reaches) and keeps a message's content
in memory until its end, where it forgets it. The first line on its standard output is `{"port": …}`; each line on its
standard input is answered with its counters, and the end of its standard input ends it.
"""

import argparse
import cProfile
import gc
import json
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trio

from smtp.address import Address
from smtp.parameters import MailParameters, RecipientParameters
from smtp.reply import Reply
from smtp.server.serving import Peer, ServerSettings, Statistics
from smtp.server.trio_server import serve

CHECKOUT = Path(__file__).resolve().parents[2]
HOSTNAME = "mx.example.org"
BACKLOG = 4096
"""Connections that the kernel may hold for us: a bench opens them faster than anybody else does."""
END_WITHIN = 30.0
"""Seconds in which a server ends that has been told to."""

_OK = Reply(250, "OK", "2.0.0")


class LoneServer:
    """The process, inside a `with`."""

    def __init__(self, *, tls: bool = False, profile: Path | None = None, **settings: float) -> None:
        """`settings` are fields of ServerSettings; `profile` is where cProfile writes what it has counted."""
        self._command = [sys.executable, str(Path(__file__).resolve()), "--settings", json.dumps(settings)]
        self._command += ["--tls"] if tls else []
        self._command += ["--profile", str(profile)] if profile else []

    def __enter__(self) -> Self:
        # What is measured is the code beside this file, not one that is installed.
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.pid = self._process.pid
        self.port: int = self._answer()["port"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def counters(self, *, collect: bool = False) -> dict[str, Any]:
        """What it has counted so far, CPU seconds among it. `collect` has garbage collected first."""
        assert self._process.stdin is not None
        self._process.stdin.write("collect\n" if collect else "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the server has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


class _Forgetful:
    """Says yes to everything, and forgets it."""

    def __init__(self, peer: Peer) -> None:
        self._content: list[bytes] = []

    async def mail(self, sender: Address | None, parameters: MailParameters) -> Reply:
        return _OK

    async def recipient(self, recipient: Address, parameters: RecipientParameters) -> Reply:
        return _OK

    async def data(self) -> Reply | None:
        return None

    async def content(self, octets: bytes) -> None:
        self._content.append(octets)

    async def end_of_data(self) -> Reply:
        self._content.clear()
        return _OK

    async def reset(self) -> None:
        self._content.clear()


async def _answer_questions(statistics: Statistics, shutdown: trio.Event) -> None:
    """Until standard input ends."""
    requests = trio.lowlevel.FdStream(os.dup(0))
    async for request in requests:
        if b"collect" in request:
            gc.collect()
        used = resource.getrusage(resource.RUSAGE_SELF)
        counters = {
            "messages": statistics.messages,
            "connections_open": statistics.connections_open,
            "connections_accepted": statistics.connections_accepted,
            "connections_turned_away": statistics.connections_turned_away,
            "replies": statistics.replies,
            "user_s": used.ru_utime,
            "system_s": used.ru_stime,
        }
        print(json.dumps(counters), flush=True)
    shutdown.set()


async def _serve(settings: ServerSettings) -> None:
    shutdown, statistics = trio.Event(), Statistics()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(BACKLOG)
        listener.setblocking(False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_answer_questions, statistics, shutdown)
            print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
            await serve(
                [listener],
                _Forgetful,
                settings,
                shutdown=shutdown,
                on_error=lambda error: print(error, file=sys.stderr),
                statistics=statistics,
            )


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", type=json.loads, default={}, help="fields of ServerSettings, as JSON")
    parser.add_argument("--tls", action="store_true", help="offer STARTTLS with a certificate made for it")
    parser.add_argument("--profile", help="run under cProfile and write what it has counted here")
    arguments = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    context = None
    if arguments.tls:
        # Only here: what is measured in clear does not carry the weight of what makes certificates.
        from certificates import server_tls

        context = server_tls(HOSTNAME)
    settings = ServerSettings(HOSTNAME, **{"shutdown_grace_s": 0.5, **arguments.settings, "tls": context})
    if arguments.profile:
        profile = cProfile.Profile()
        profile.runcall(trio.run, _serve, settings)
        profile.dump_stats(arguments.profile)
    else:
        trio.run(_serve, settings)


if __name__ == "__main__":
    main()
