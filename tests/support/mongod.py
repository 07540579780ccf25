"""A real mongod on loopback: standalone, or a replica set of one; started, stopped, frozen, killed and come back.

Where it comes from, tests/install-peers says. Its data are in a directory of its own, and it dies with whoever started
it. TTL indexes are looked at each second instead of each minute, and it can be told to fail (`failing`). Sets of
several are in `replica_set.py`.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from certificates import Files, authority_file
from peer_programs import HOW_TO_GET_THEM, LIMIT_S, PLACE, free_port
from pymongo import MongoClient
from pymongo.errors import PyMongoError

PROGRAM = PLACE / "mongod" / "mongod"
"""Beside it are the libraries that it wants."""

REPLICA_SET = "onward"
"""The name of the set that one started with `replica_set` is a member of."""

_CACHE_GIGABYTES = "0.25"
"""Its smallest: several stand beside each other when tests run in parallel."""


def require_mongod() -> None:
    """Skip the test where there is no mongod; under CI=true that is a failure."""
    if PROGRAM.exists():
        return
    message = f"there is no mongod here: {HOW_TO_GET_THEM}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


class Mongod:
    """One server, on the same port and with the same data however often it is started."""

    def __init__(
        self,
        directory: Path,
        *,
        replica_set: bool = False,
        has_peers: bool = False,
        parameters: Sequence[str] = (),
        addresses: str = "127.0.0.1",
        tls: Files | None = None,
        asks_for_certificates: bool = False,
    ) -> None:
        """The directory is its own, and there already.

        `has_peers`: somebody else brings it together with other members of its set, and chooses no primary among one.
        `parameters`: each `name=value` for --setParameter. `addresses`: where it listens, with commas between them.
        `tls`: it is spoken with under TLS only; who shows it a certificate must have one of the tests' authority, and
        with `asks_for_certificates` everybody must.
        """
        self.port = free_port()
        self.replica_set = replica_set
        self._has_peers = has_peers
        self._tls = tls
        self._asks_for_certificates = asks_for_certificates
        self._is_frozen = False
        self._addresses = addresses
        self._directory = directory
        self._parameters = parameters
        self.options: Sequence[str] = ()
        """What else is to stand in its command from the next start on."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What a client connects to, without the name of a database."""
        return f"mongodb://{self.address}/{f'?replicaSet={REPLICA_SET}' if self.replica_set else ''}"

    def url_of(self, database: str) -> str:
        """The same with the name of a database, as `store.url` takes it."""
        before, _, after = self.url.rpartition("/")
        return f"{before}/{database}{after}"

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def can_answer(self) -> bool:
        """It runs, and is not frozen."""
        return self._process is not None and not self._is_frozen

    @property
    def pid(self) -> int:
        """Its process. Raises AssertionError where none runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Run it until `stop` or `kill`. When this returns it takes writes, or answers where it has peers. Raises
        RuntimeError where it does not."""
        data = self._directory / "data"
        data.mkdir(exist_ok=True)
        log = self._directory / "mongod.log"
        settings = (
            "ttlMonitorSleepSecs=1",
            "enableTestCommands=1",
            "diagnosticDataCollectionEnabled=false",
            # Otherwise a primary that is told to end waits a quarter of a minute for a secondary to take over.
            "shutdownTimeoutMillisForSignaledShutdown=0",
            *self._parameters,
        )
        command = [
            # It dies with this process, also where that is killed.
            *("setpriv", "--pdeathsig", "KILL"),
            *(str(PROGRAM), "--dbpath", str(data), "--port", str(self.port), "--bind_ip", self._addresses),
            *("--wiredTigerCacheSizeGB", _CACHE_GIGABYTES, "--nounixsocket", "--logpath", str(log), "--logappend"),
            *(("--replSet", REPLICA_SET) if self.replica_set else ()),
            *(part for setting in settings for part in ("--setParameter", setting)),
            *self._tls_options(),
            *self.options,
        ]
        self._is_frozen = False
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LD_LIBRARY_PATH": str(PROGRAM.parent)},
        )
        try:
            self._await_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End it as an operator does; what it has is on the disk. Does nothing where none runs."""
        if self._process is not None:
            self.thaw()
            self._process.terminate()
            try:
                self._process.wait(timeout=LIMIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._process.wait()
            self._process = None

    def kill(self) -> None:
        """End it with SIGKILL. Does nothing where none runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """SIGSTOP: its connections stand, and nobody answers."""
        assert self._process is not None
        self._is_frozen = True
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self._is_frozen = False

    @contextmanager
    def client(self, **options: Any) -> Iterator[MongoClient[dict[str, Any]]]:
        """A client with nothing of ours in between. `options` are of MongoClient."""
        client = self._client(**{"serverSelectionTimeoutMS": int(LIMIT_S * 1000), **options})
        try:
            yield client
        finally:
            client.close()

    @contextmanager
    def failing(self, commands: Sequence[str], *, times: int | None = None, **how: object) -> Iterator[None]:
        """These commands fail while the block lasts, or so often: `errorCode=11600`, `closeConnection=True`, and so on.

        This is the fail point `failCommand`, which names what it can do in MongoDB's own tests of its drivers.
        """
        mode: str | Mapping[str, int] = "alwaysOn" if times is None else {"times": times}
        with self.client() as client:
            client.admin.command("configureFailPoint", "failCommand", mode=mode, data={"failCommands": commands, **how})
            try:
                yield
            finally:
                client.admin.command("configureFailPoint", "failCommand", mode="off")

    def _client(self, **options: Any) -> MongoClient[dict[str, Any]]:
        secured: dict[str, Any] = {}
        if self._tls is not None:
            secured = {"tls": True, "tlsCAFile": str(authority_file()), "tlsCertificateKeyFile": str(self._own_file())}
            # Its certificate may be for whoever a test likes.
            secured["tlsAllowInvalidHostnames"] = True
        return MongoClient(f"mongodb://{self.address}/?directConnection=true", **secured, **options)

    def _own_file(self) -> Path:
        """Its certificate and its key; for who looks whether it is well, too."""
        assert self._tls is not None
        both = self._directory / "certificate-and-key.pem"
        both.write_bytes(self._tls.certificate.read_bytes() + self._tls.key.read_bytes())
        return both

    def _tls_options(self) -> Sequence[str]:
        if self._tls is None:
            return ()
        return (
            *("--tlsMode", "requireTLS", "--tlsCertificateKeyFile", str(self._own_file())),
            *("--tlsCAFile", str(authority_file())),
            *(() if self._asks_for_certificates else ("--tlsAllowConnectionsWithoutCertificates",)),
        )

    def _await_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + LIMIT_S
        with self._client(serverSelectionTimeoutMS=100) as client:
            while True:
                try:
                    hello = client.admin.command("hello")
                    if hello["isWritablePrimary"] or self._has_peers:
                        return
                    if self.replica_set and "setName" not in hello:
                        member = {"_id": 0, "host": self.address}
                        client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [member]})
                except PyMongoError:
                    pass
                if self._process.poll() is not None or time.monotonic() > deadline:
                    words = (self._directory / "mongod.log").read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"mongod does not start: {words}")
                time.sleep(0.01)


@contextmanager
def running_mongod(
    *,
    replica_set: bool = False,
    parameters: Sequence[str] = (),
    options: Sequence[str] = (),
    tls: Files | None = None,
    asks_for_certificates: bool = False,
) -> Iterator[Mongod]:
    """A fresh one for as long as the block lasts. Skips the test where there is none.

    `options` are of its command; the others as in `Mongod`.
    """
    require_mongod()
    directory = Path(tempfile.mkdtemp(prefix="onward-mongod-"))
    server = Mongod(
        directory, replica_set=replica_set, parameters=parameters, tls=tls, asks_for_certificates=asks_for_certificates
    )
    server.options = options
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(directory, ignore_errors=True)
