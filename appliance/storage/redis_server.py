"""The way to a Redis: connections that are kept, an end for every wait, and a rest for everybody while it is away.

Whoever asks waits as long as the names below say, and that only where the server has just gone: from then on all are
told at once that it is away, and after each `REST_S` one of them tries for all (`_Rest`). So a server that hangs holds
one thread, and is back for everybody within a moment of its being back.

Error handling: whatever redis-py raises is turned, here at the border, into StoreUnavailable (StoreFull where the
server has no memory left). After any other error all idle connections are closed: behind a name, or behind the
Sentinels, there may be another server by now.

This is the one file that imports redis-py.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.connection import Connection, ConnectionPool, SSLConnection
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from appliance.storage.records import StoreFull, StoreUnavailable
from appliance.storage.redis_address import RedisAddress
from appliance.storage.redis_scripts import Script

CONNECT_S = 1.0
"""For one attempt to connect to one address. A server in the same data centre answers within milliseconds. (What the
address of a name is, the system finds out, within limits of its own: `resolv.conf`.)"""

ANSWER_S = 1.0
"""For one answer, TLS and logging in included. The longest script takes microseconds; a server that is busy for longer
(it forks to write its file, or somebody has asked for KEYS *) is as good as away."""

SENTINEL_S = 0.5
"""The same for a Sentinel, which has less to do, and of which there are several to be asked one after another."""

MAX_CONNECTIONS = 16
"""Of one process: more than there are threads that ask (`reception.transit.MEMORY_THREADS` and, in the control process,
those of `control_api.operations`)."""

TURN_S = 1.0
"""For a connection, where all of them are busy."""

REST_S = 1.0
"""How long nobody asks a server that has not answered. Long enough that most do not wait for it, short enough that it
is not missed for long once it is back."""

IDLE_S = 30
"""A connection that has not been used for so long is tried (PING) before it is used again: what is between may have
forgotten it."""

ASK_AGAIN = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
"""Once, at once, on another connection, where one was cut: the server has been started anew, or is another one since.
Never after a timeout. Whatever was asked may have been done then already; each step bears being done twice, at the cost
of a number that was counted for nobody, or of a value that nobody gets."""

NEVER_AGAIN = Retry(NoBackoff(), 0)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RedisAbout:
    """What a server says about itself."""

    version: str
    persists: bool
    """It writes what it has to a file."""
    memory_octets: int
    """What it may take; 0 for no limit."""
    evicts: bool
    """It forgets something else to make room."""


class RedisServer:
    """One Redis. Thread-safe; to be made behind a fork, not before. Nothing is asked before it is needed."""

    def __init__(
        self,
        address: RedisAddress,
        password: str | None = None,
        sentinel_password: str | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sentinel: Sentinel | None = None
        self._client = self._connected(address, password, sentinel_password)
        self._turns = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._rest = _Rest(monotonic)

    def run(self, script: Script, key: bytes, *arguments: bytes | int) -> Any:
        """What a script answers: an int, octets, a list of octets, or None. Raises StoreUnavailable."""

        def ask() -> Any:
            try:
                return self._client.evalsha(script.digest, 1, key, *arguments)
            except redis.exceptions.NoScriptError:
                # It is another server, or the same one anew. Whoever has run it once knows it.
                return self._client.eval(script.text, 1, key, *arguments)

        return self._asked(ask)

    def about(self) -> RedisAbout | None:
        """What it says about itself; None where our user may not ask. Raises StoreUnavailable."""

        def ask() -> RedisAbout | None:
            try:
                server, persistence, memory = map(self._client.info, ("server", "persistence", "memory"))
                saves = self._client.config_get("save").get("save", "") != ""
            except redis.exceptions.NoPermissionError:
                return None
            return RedisAbout(
                version=str(server["redis_version"]),
                persists=saves or bool(persistence["aof_enabled"]),
                memory_octets=int(memory["maxmemory"]),
                evicts=str(memory["maxmemory_policy"]) != "noeviction",
            )

        return cast("RedisAbout | None", self._asked(ask))

    def close(self) -> None:
        """Close all connections."""
        self._client.connection_pool.disconnect()
        if self._sentinel is not None:
            self._sentinel.close()

    def _connected(self, address: RedisAddress, password: str | None, sentinel_password: str | None) -> "redis.Redis":
        secured: dict[str, Any] = {}
        if address.tls:
            secured["ssl_ca_certs"] = address.authorities or None
            if address.certificate:
                secured["ssl_certfile"] = secured["ssl_keyfile"] = address.certificate
        options: dict[str, Any] = {
            "db": address.database,
            "username": address.user or None,
            "password": password,
            "max_connections": MAX_CONNECTIONS,
            "socket_connect_timeout": CONNECT_S,
            "socket_timeout": ANSWER_S,
            "health_check_interval": IDLE_S,
            # To ask all Sentinels once more would take too long, and they would say the same.
            "retry": NEVER_AGAIN if address.service else ASK_AGAIN,
            "protocol": 2,
            # CLIENT SETINFO came with Redis 7.2.
            "driver_info": None,
            **secured,
        }
        if not address.service:
            ((host, port),) = address.hosts
            kind = SSLConnection if address.tls else Connection
            return redis.Redis(connection_pool=ConnectionPool(connection_class=kind, host=host, port=port, **options))
        asking: dict[str, Any] = {
            "password": sentinel_password,
            "socket_connect_timeout": SENTINEL_S,
            "socket_timeout": SENTINEL_S,
            "retry": NEVER_AGAIN,
            "protocol": 2,
            "driver_info": None,
        }
        over_tls = {"ssl": True} if address.tls else {}
        asking |= secured | over_tls
        self._sentinel = Sentinel(address.hosts, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
        found: redis.Redis = self._sentinel.master_for(  # type: ignore[no-untyped-call]
            address.service, **options, **over_tls
        )
        return found

    def _asked(self, ask: Callable[[], Any]) -> Any:
        self._rest.enter()
        try:
            answer = self._in_turn(ask)
        except redis.exceptions.OutOfMemoryError as error:
            self._rest.end()
            raise StoreFull(f"the Redis has no memory left: {error}") from error
        except (redis.RedisError, OSError) as error:
            self._client.connection_pool.disconnect(inuse_connections=False)
            if isinstance(error, redis.ConnectionError | redis.TimeoutError | OSError):
                cause = _cause(error)
                self._rest.begin(cause)
                raise StoreUnavailable(f"the Redis is away: {cause}") from error
            self._rest.end()
            raise StoreUnavailable(f"the Redis does not do what it is asked: {error}") from error
        except BaseException:
            self._rest.leave()
            raise
        self._rest.end()
        return answer

    def _in_turn(self, ask: Callable[[], Any]) -> Any:
        if not self._turns.acquire(timeout=TURN_S):
            raise StoreUnavailable(f"all {MAX_CONNECTIONS} connections to the Redis are busy")
        try:
            return ask()
        finally:
            self._turns.release()


def _cause(error: Exception) -> str:
    if isinstance(error, MasterNotFoundError):
        # redis-py would tell all that it knows of each connection.
        return "no Sentinel answers that knows a server of this name"
    return str(error) or "there is no answer"


class _Rest:
    """Whether the server is away: then nobody asks for a while, and then one does for all."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._cause = ""
        self._began_at = 0.0
        self._over_at = 0.0
        self._one_tries = False

    def enter(self) -> None:
        """Let somebody ask, or raise StoreUnavailable. Whoever has asked calls one of the others."""
        with self._lock:
            if not self._cause:
                return
            if self._one_tries or self._monotonic() < self._over_at:
                raise StoreUnavailable(f"the Redis is away: {self._cause}")
            self._one_tries = True

    def begin(self, cause: str) -> None:
        """There was no answer."""
        with self._lock:
            now = self._monotonic()
            if not self._cause:
                self._began_at = now
                _log.warning("the Redis is away: %s", cause)
            self._cause = cause
            self._over_at = now + REST_S
            self._one_tries = False

    def end(self) -> None:
        """There was an answer."""
        if not self._cause:
            return
        with self._lock:
            if self._cause:
                _log.warning("the Redis is back after %.1f s", self._monotonic() - self._began_at)
            self._cause = ""
            self._one_tries = False

    def leave(self) -> None:
        """Nobody knows: somebody else is to try."""
        with self._lock:
            self._one_tries = False
