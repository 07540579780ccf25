"""A stand-in for the engine on its socket: it answers about mail under way, and remembers what it was asked.

Events are told to whoever listens, and kept until it is asked to have them in the log, as the real one does.
"""

import os
import threading
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio
from msgspec import structs

from appliance.configuration import Configuration
from appliance.logbook.live import LiveStream
from appliance.model.event import DeliveryEvent
from appliance.model.time import HOUR_MS
from appliance.privacy.declarations import EVENTS
from appliance.run.stores import open_records
from appliance.storage.event_rows import event_to_row
from appliance.storage.records import Insert, RecordStore
from appliance.wire import Verb, WireError, serve

NOON = 1_795_176_000_000
DELIVERY = {
    "id": "d1",
    "messageId": "m1",
    "state": "WAITING",
    "sender": "",
    "recipient": "info@example.org",
    "destinationDomain": "home.test",
    "sizeBytes": 1234,
    "priority": 0,
    "acceptedAt": NOON,
    "attempts": 2,
    "nextAttemptAt": NOON + 1000,
    "expiresAt": NOON + HOUR_MS,
    "lastResponse": "450 4.2.1 \x1b[31mlater\r\n",
    "why": "its mailbox said 450 4.2.1 \x1b[31mlater\r\n",
}
HELD = {**DELIVERY, "id": "d3", "state": "HELD", "nextAttemptAt": None, "why": "held by the operator"}
HOLD = {"id": "h1", "domain": None, "destinationDomain": "home.test", "sender": "", "createdAt": NOON}

_STOPPED_S = 20


class EngineStandIn:
    """Answers as the engine does, about what a test says."""

    def __init__(self, records: RecordStore, deliveries: list[dict[str, Any]]) -> None:
        self.asked: list[dict[str, Any]] = []
        """The arguments of what was asked about deliveries."""
        self.holds: list[dict[str, Any]] = []
        self.token: trio.lowlevel.TrioToken | None = None
        self._records = records
        self._deliveries = deliveries
        self._live = LiveStream()
        self._outbox: list[DeliveryEvent] = []

    def happens(self, *events: DeliveryEvent) -> None:
        """These have become durable. From any thread."""
        assert self.token is not None
        self.token.run_sync_soon(self._tell, events)

    @property
    def is_followed(self) -> bool:
        """Whether anybody listens."""
        return bool(self._live._followers)

    def _tell(self, events: tuple[DeliveryEvent, ...]) -> None:
        self._outbox += events
        self._live.publish(list(events))

    def _move(self) -> None:
        self._records.apply([Insert(EVENTS, event_to_row(event)) for event in self._outbox])
        self._outbox.clear()

    # ------------------------------------------------------------------ verbs

    def _note(self, arguments: Mapping[str, Any]) -> None:
        self.asked.append({name: value for name, value in arguments.items() if value is not None})
        if arguments.get("sender") == "refuse@me.test":
            raise WireError("the store does not answer")

    async def page(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        """Every delivery behind the id, whatever the filter."""
        self._note(arguments)
        after = arguments.get("after") or ""
        yield [each for each in self._deliveries if each["id"] > after][: arguments["limit"]]

    async def list_holds(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        """Every hold."""
        for hold in self.holds:
            yield hold

    async def change(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        """As many as there are."""
        self._note(arguments)
        yield {"affected": len(self._deliveries), "lifted": len(self.holds)}

    async def add_hold(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        """As many as there are, and the last hold."""
        self._note(arguments)
        yield {"affected": len(self._deliveries), "hold": self.holds[-1]}

    async def lift_hold(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        """As many as there are, and the hold where there is one of this id."""
        self._note(arguments)
        found = [hold for hold in self.holds if hold["id"] == arguments["hold"]]
        yield {"affected": len(self._deliveries), "hold": found[0] if found else None}

    async def events(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        """What happens."""
        follower = self._live.follow()
        try:
            self._move()
            yield {"following": True}
            async for event in follower:
                yield {**structs.asdict(event), "type": event.type.value}
        finally:
            follower.close()

    async def catch_up(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        """Has everything in the log."""
        self._move()
        yield {"caughtUp": True}

    async def status(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        """It is well."""
        yield {"healthy": True, "startedAt": NOON, "queued": 7, "oldestQueuedAt": NOON, "openConnections": 2}

    async def count(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        """As many as there are."""
        yield {"count": len(self._deliveries)}

    @property
    def verbs(self) -> dict[str, Verb]:
        """By name."""
        return {
            "status": self.status,
            "queue.page": self.page,
            "queue.count": self.count,
            "queue.holds": self.list_holds,
            "queue.retry": self.change,
            "queue.hold": self.change,
            "queue.addHold": self.add_hold,
            "queue.liftHold": self.lift_hold,
            "queue.release": self.change,
            "queue.fail": self.change,
            "queue.drop": self.change,
            "events": self.events,
            "log.catchUp": self.catch_up,
        }


@contextmanager
def standing_in(config: Configuration, deliveries: list[dict[str, Any]]) -> Iterator[EngineStandIn]:
    """A stand-in on the engine's socket of this configuration, in a thread of its own."""
    records = open_records(config)
    engine = EngineStandIn(records, deliveries)
    listening, stop = threading.Event(), trio.Event()

    async def run(path: Path) -> None:
        path.unlink(missing_ok=True)
        with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as listener:
            await listener.bind(os.fspath(path))
            listener.listen()
            engine.token = trio.lowlevel.current_trio_token()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve, trio.SocketListener(listener), engine.verbs, print)
                listening.set()
                await stop.wait()
                nursery.cancel_scope.cancel()

    thread = threading.Thread(target=partial(trio.run, run, config.engine_socket), name="engine stand-in")
    thread.start()
    assert listening.wait(_STOPPED_S)
    try:
        yield engine
    finally:
        assert engine.token is not None
        engine.token.run_sync_soon(stop.set)
        thread.join(_STOPPED_S)
        config.engine_socket.unlink(missing_ok=True)
        records.close()
