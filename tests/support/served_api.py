"""The API of an appliance whose engine is away, served from a thread of this process over real connections.

Rooms, stores and the web server are those of the control process, made as it makes them. What has to do with the engine
answers UNAVAILABLE; tests of that start the whole appliance.
"""

import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio
from control_api.edges import Edges
from control_api.guard import serve_guarded
from control_api.rooms import Rooms
from entrance_hall import CHEAP
from graphql_client import GraphqlClient

from appliance import wire
from appliance.access.errands import Errand
from appliance.configuration import Configuration
from appliance.logbook.requests import RequestLog
from appliance.model.letter import Letter
from appliance.run.furnishing import furnish
from appliance.run.listeners import open_own_socket
from appliance.run.stores import open_records
from appliance.run.watching import Watching
from appliance.storage.memory_ephemeral import MemoryEphemeral

STOPPED_S = 20


@dataclass(slots=True)
class Letters:
    """A `Post` that keeps what it is given, and errands that are done at once."""

    sent: list[Letter] = field(default_factory=list)

    def send(self, letter: Letter) -> None:
        """See Post."""
        self.sent.append(letter)

    def add(self, errand: Errand) -> None:
        """See Errands."""
        errand()


@dataclass(frozen=True, slots=True)
class ServedApi:
    """It is served as long as the `with` of `served_api` lasts."""

    rooms: Rooms
    letters: Letters
    port: int
    local: Path
    """The socket of the operator of the machine."""

    def client(self, **options: Any) -> GraphqlClient:
        """Somebody outside."""
        return GraphqlClient(self.port, **options)

    def operator(self) -> GraphqlClient:
        """The operator of the machine."""
        return GraphqlClient(self.local)


@contextmanager
def furnished(config: Configuration, letters: Letters) -> Iterator[Rooms]:
    """The rooms of the control process, over the stores of this configuration."""
    records = open_records(config)
    try:
        engine = partial(wire.call, config.engine_socket)
        yield furnish(config, records, MemoryEphemeral(), engine, letters, letters, hasher=CHEAP)
    finally:
        records.close()


@contextmanager
def served_api(config: Configuration) -> Iterator[ServedApi]:
    """Serve the API of this configuration on a free port, and on its `control.sock`."""
    letters = Letters()
    with furnished(config, letters) as rooms, socket.create_server(("127.0.0.1", 0)) as outside:
        outside.setblocking(False)
        with open_own_socket(config.control_socket, 16) as inside:
            started: queue.Queue[trio.lowlevel.TrioToken | BaseException] = queue.Queue()
            shutdown = trio.Event()

            async def serve() -> None:
                watching = Watching(config, RequestLog(rooms.records))
                async with trio.open_nursery() as lasting:
                    lasting.start_soon(rooms.feed.run)
                    lasting.start_soon(watching.log.run)
                    async with trio.open_nursery() as nursery:
                        for listener, local in ((outside, False), (inside, True)):
                            edges = Edges(config.http.public_url, config.http.trusted_proxies, local)
                            app = watching.application(rooms, edges, shutdown)
                            await nursery.start(
                                partial(serve_guarded, app, [listener], shutdown, edges.speaks_for_others)
                            )
                        started.put(trio.lowlevel.current_trio_token())
                    lasting.cancel_scope.cancel()

            def run() -> None:
                try:
                    trio.run(serve)
                except BaseException as error:
                    started.put(error)
                    raise

            thread = threading.Thread(target=run, name="served API")
            thread.start()
            token = started.get(timeout=STOPPED_S)
            if isinstance(token, BaseException):
                raise token
            try:
                yield ServedApi(rooms, letters, outside.getsockname()[1], config.control_socket)
            finally:
                token.run_sync_soon(shutdown.set)
                thread.join(STOPPED_S)
                assert not thread.is_alive(), "the API has not stopped"
