"""What the engine answers on control.sock: its status, the queue's verbs, and events as they happen (`wire.py`)."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, fields
from typing import Any

import trio

from appliance import wire
from appliance.delivery.operator import QueueFilter, QueueOperator
from appliance.logbook.live import LiveStream, TooManyFollowers
from appliance.model.event import DeliveryEvent
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import SpoolStore
from smtp.server.trio_server import Statistics

_FILTERS = ("domain", "destination", "sender", "recipient", "id")


@dataclass(frozen=True, slots=True)
class ControlVerbs:
    """The verbs of one engine, by the rooms that carry them out."""

    queue: QueueOperator
    store: SpoolStore
    live: LiveStream
    statistics: Statistics
    started_at: int
    trouble: Callable[[], str | None]
    """Why the spool takes no mail; None where it does."""
    catch_up: Callable[[], Awaitable[None]]
    """Returns once the log has every event that was durable at the call."""

    def by_name(self) -> dict[str, wire.Verb]:
        """Every verb, by the name that it is called by."""
        verbs: dict[str, wire.Verb] = {
            "status": self._status,
            "queue.list": self._queue_list,
            "queue.retry": self._queue_retry,
            "queue.drop": self._queue_drop,
            "events": self._events,
        }
        return {name: _patient(verb) for name, verb in verbs.items()}

    async def _status(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        queued, oldest = await trio.to_thread.run_sync(self.store.depth)
        trouble = self.trouble()
        yield {
            "healthy": trouble is None,
            "trouble": trouble,
            "startedAt": self.started_at,
            "queued": queued,
            "oldestQueuedAt": oldest,
            "openConnections": self.statistics.connections_open,
        }

    async def _queue_list(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        wanted = _filter(arguments, everything=True)
        shown, after = await self.queue.page(wanted, None)
        while True:
            for delivery in shown:
                yield delivery
            if after is None:
                return
            shown, after = await self.queue.page(wanted, after)

    async def _queue_retry(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        yield {"affected": await self.queue.retry(_filter(arguments))}

    async def _queue_drop(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        yield {"affected": await self.queue.drop(_filter(arguments))}

    async def _events(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        try:
            follower = self.live.follow()
        except TooManyFollowers as error:
            raise wire.WireError(str(error)) from None
        try:
            if arguments.get("caughtUp") is True:
                # One result ahead of the events: from here on each is told, and what was before is in the log.
                await self.catch_up()
                yield {"following": True}
            async for event in follower:
                yield _plain(event)
        finally:
            follower.close()
        raise wire.WireError("you have fallen too far behind: read on from the log")


def _patient(verb: wire.Verb) -> wire.Verb:
    """A store that is away is said in words, not with a closed connection."""

    async def answered(arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        try:
            async with aclosing(verb(arguments)) as results:
                async for result in results:
                    yield result
        except StoreUnavailable as error:
            raise wire.WireError(f"the store does not answer: {error}") from None

    return answered


def _plain(event: DeliveryEvent) -> dict[str, Any]:
    """An event as JSON has it: the field names of the model, the type by its word."""
    return {field.name: getattr(event, field.name) for field in fields(event)} | {"type": event.type.value}


def _filter(arguments: Mapping[str, Any], *, everything: bool = False) -> QueueFilter:
    """What the caller means; with nothing set, everything only where that was said."""
    given = {name: arguments[name] for name in _FILTERS if arguments.get(name) is not None}
    unknown = sorted(set(arguments) - {*_FILTERS, "all"})
    if unknown:
        raise wire.WireError(f"there is no filter {unknown[0]!r}; there are {', '.join(_FILTERS)} and all")
    if not all(isinstance(value, str) for value in given.values()):
        raise wire.WireError("a filter is a text")
    if not given and not everything and arguments.get("all") is not True:
        raise wire.WireError("name which deliveries, or say all")
    return QueueFilter(**given)
