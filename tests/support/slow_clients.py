"""Thousands of clients that hold a session and hardly use it, in a process of their own.

Run as a program it keeps so many connections to a server on loopback, from many addresses of 127.0.0.0/8. A third of
them send a command octet by octet, a third the content of a message, and a third ask and ask and never read a reply.
Whoever is turned away comes again. The first line on its standard output says that all have called once; the end of its
standard input ends it, and it counts on one more line.
"""

import argparse
import json
import os
import random
import resource
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import trio

OCTET_EVERY_S = 2.0
"""Between two octets of one client, on average."""
AGAIN_AFTER_S = 5.0
"""Before a client that has lost its connection comes again, on average."""
GREETED_WITHIN_S = 60.0
"""What a slow client waits for replies before it goes on without."""
CALLS_AT_ONCE = 100
"""Clients that connect at the same moment: more than the server's backlog would be another test."""
SMALL_BUFFER = 4096
"""Octets that the kernel keeps for a client that does not read."""
END_WITHIN = 30.0
"""Seconds in which the process ends that has been told to."""

_ENVELOPE = b"EHLO slow.example.net\r\nMAIL FROM:<slow@example.net>\r\nRCPT TO:<info@forward.test>\r\nDATA\r\n"


@dataclass(slots=True)
class Counts:
    """What has become of the slow clients."""

    connected: int = 0
    """Now."""
    most_connected: int = 0
    calls: int = 0
    lost: int = 0
    """Connections that the server has refused, or has ended."""


class SlowClients:
    """The process, inside a `with`; all have called once when it begins."""

    def __init__(self, port: int, count: int, addresses: int) -> None:
        self._command = [sys.executable, str(Path(__file__).resolve())]
        self._command += [f"--port={port}", f"--count={count}", f"--addresses={addresses}"]
        self.counts = Counts()
        """Known at the end."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError("the slow clients have ended")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            said, _ = self._process.communicate("", END_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        else:
            self.counts = Counts(**json.loads(said.splitlines()[-1]))


class _Crowd:
    def __init__(self, port: int, count: int, addresses: int) -> None:
        self.counts = Counts()
        self._port = port
        self._count = count
        self._addresses = addresses
        self._calling = trio.CapacityLimiter(CALLS_AT_ONCE)
        self._not_called = count
        self._all_have_called = trio.Event()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(self._count):
                nursery.start_soon(self._client, number)
            await self._all_have_called.wait()
            print(json.dumps({"called": self._count}), flush=True)
            async for _ in trio.lowlevel.FdStream(os.dup(0)):
                pass
            counts = asdict(self.counts)
            nursery.cancel_scope.cancel()
        print(json.dumps(counts), flush=True)

    async def _client(self, number: int) -> None:
        place = number % self._addresses
        # 127.1.x.y and up: behind the addresses that servers and honest clients have.
        address = f"127.{1 + place // 62500}.{1 + place // 250 % 250}.{1 + place % 250}"
        behaviour = (_slow_command, _slow_content, _never_reads)[number % 3]
        is_first_call = True
        while True:
            with trio.socket.socket() as connection:
                try:
                    async with self._calling:
                        await self._call(connection, address)
                finally:
                    if is_first_call:
                        is_first_call = False
                        self._not_called -= 1
                        if not self._not_called:
                            self._all_have_called.set()
                self.counts.connected += 1
                self.counts.most_connected = max(self.counts.most_connected, self.counts.connected)
                try:
                    await behaviour(connection)
                except OSError:
                    self.counts.lost += 1
                finally:
                    self.counts.connected -= 1
            await trio.sleep(random.uniform(0.5, 1.5) * AGAIN_AFTER_S)

    async def _call(self, connection: trio.socket.SocketType, address: str) -> None:
        self.counts.calls += 1
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        await connection.bind((address, 0))
        await connection.connect(("127.0.0.1", self._port))


async def _pause() -> None:
    await trio.sleep(random.uniform(0.5, 1.5) * OCTET_EVERY_S)


async def _read(connection: trio.socket.SocketType) -> bytes:
    """What has come. Raises OSError where the server has ended the session."""
    with trio.move_on_after(GREETED_WITHIN_S):
        octets = await connection.recv(4096)
        if not octets or octets.startswith(b"421"):
            raise ConnectionAbortedError
        return octets
    return b""


async def _slow_command(connection: trio.socket.SocketType) -> None:
    await _read(connection)
    while True:
        for octet in b"NOOP " + b"x" * 40:
            await connection.send(bytes([octet]))
            await _pause()
        await connection.send(b"\r\n")
        await _read(connection)


async def _slow_content(connection: trio.socket.SocketType) -> None:
    await _read(connection)
    await connection.send(_ENVELOPE)
    received = b""
    while b"354" not in received:
        octets = await _read(connection)
        if not octets:
            raise ConnectionAbortedError
        received += octets
    while True:
        await connection.send(b"x")
        await _pause()


async def _never_reads(connection: trio.socket.SocketType) -> None:
    await connection.send(b"EHLO slow.example.net\r\n")
    while True:
        # Waits for ever where neither end's buffers have room, and fails where the server has ended the session.
        await connection.send(b"NOOP\r\n" * 200)
        await _pause()


def main() -> None:
    """Hold sessions until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--addresses", type=int, default=200)
    arguments = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    trio.run(_Crowd(arguments.port, arguments.count, arguments.addresses).run)


if __name__ == "__main__":
    main()
