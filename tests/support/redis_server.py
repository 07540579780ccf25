"""A Redis of our own: in a directory of its own, on a free port of loopback, with nothing written to the disk.

It can be killed, held still and started anew on the same port. `Replicated` is one master with a replica, and a
Sentinel that makes the other one the master.
"""

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from certificates import Files, authority_file
from peer_programs import HOW_TO_GET_THEM, LIMIT_S, free_port

from appliance.storage.redis_address import RedisAddress

HOST = "127.0.0.1"

_PROGRAM = shutil.which("redis-server")

_PASS_TIME = """
for _, key in ipairs(redis.call('KEYS', '*')) do
    local left = redis.call('PTTL', key)
    if left >= 0 then redis.call('PEXPIRE', key, left - ARGV[1]) end
end
"""


def missing() -> str:
    """Why there can be no server here; empty where there can."""
    return "" if _PROGRAM else f"there is no redis-server: {HOW_TO_GET_THEM}"


class PrivateRedis:
    """One server. Whoever starts one ends it: use it inside a `with`."""

    def __init__(self, directory: Path, *settings: str, tls: Files | None = None, sentinel: bool = False) -> None:
        """`settings` are lines of its configuration."""
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None
        self._log = directory / "log"
        self._configuration = directory / "redis.conf"
        lines = [f"bind {HOST}", f"dir {directory}", *settings]
        lines += [] if sentinel else ['save ""', "appendonly no"]
        if tls is None:
            lines.append(f"port {self.port}")
        else:
            lines += ["port 0", f"tls-port {self.port}", f"tls-cert-file {tls.certificate}", f"tls-key-file {tls.key}"]
            lines += [f"tls-ca-cert-file {authority_file()}"]
        self._configuration.write_text("\n".join(lines) + "\n")
        self._mode = ["--sentinel"] if sentinel else []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def address(self) -> RedisAddress:
        """For who speaks to it in the clear."""
        return RedisAddress(hosts=((HOST, self.port),))

    @property
    def url(self) -> str:
        """The same, as it is written in a configuration."""
        return f"redis://{HOST}:{self.port}/0"

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        assert _PROGRAM is not None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [_PROGRAM, str(self._configuration), *self._mode], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + LIMIT_S
        while True:
            try:
                self.ask("PING")
            except redis.AuthenticationError:
                return
            except redis.RedisError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.kill()
                    raise RuntimeError(f"redis-server does not start: {self._log.read_text()[-2000:]}") from None
                time.sleep(0.01)
            else:
                return

    def kill(self) -> None:
        """End it as a power failure would. Nothing where it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def hold(self) -> None:
        """It keeps its connections, takes more of them, and does nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def let_go(self) -> None:
        """It goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold it for as long as a `with` lasts."""
        self.hold()
        try:
            yield
        finally:
            self.let_go()

    def ask(self, *command: str | bytes | int) -> Any:
        """What it answers to a command."""
        secured: dict[str, Any] = {"ssl": True, "ssl_ca_certs": str(authority_file())} if self._tls else {}
        with redis.Redis(HOST, self.port, socket_timeout=5, protocol=2, **secured) as client:
            return client.execute_command(*command)

    def pass_time(self, seconds: float) -> None:
        """Whatever has an end comes so much nearer to it."""
        self.ask("EVAL", _PASS_TIME, 0, round(seconds * 1000))


SERVICE = "mymaster"
"""What the Sentinel calls the server."""


class Replicated:
    """Two servers, of which one is the master, and a Sentinel. A master that is gone for half a second is replaced."""

    def __init__(self, directory: Path) -> None:
        self.first = PrivateRedis(directory / "first")
        self.second = PrivateRedis(directory / "second", f"replicaof {HOST} {self.first.port}")
        self.sentinel = PrivateRedis(
            directory / "sentinel",
            f"sentinel monitor {SERVICE} {HOST} {self.first.port} 1",
            f"sentinel down-after-milliseconds {SERVICE} 500",
            f"sentinel failover-timeout {SERVICE} 2000",
            sentinel=True,
        )
        self._all = contextlib.ExitStack()

    def __enter__(self) -> Self:
        for server in (self.first, self.second, self.sentinel):
            self._all.enter_context(server)
        deadline = time.monotonic() + LIMIT_S
        while not self._are_ready():
            if time.monotonic() > deadline:
                raise RuntimeError("the Sentinel does not find the replica")
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._all.close()

    @property
    def address(self) -> RedisAddress:
        """Of the Sentinel."""
        return RedisAddress(hosts=((HOST, self.sentinel.port),), service=SERVICE)

    def _are_ready(self) -> bool:
        linked = self.second.ask("INFO", "replication")["master_link_status"] == "up"
        # What the Sentinel has heard from the replica itself.
        return linked and "'ok'" in str(self.sentinel.ask("SENTINEL", "REPLICAS", SERVICE))
