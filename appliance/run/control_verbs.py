"""What the engine answers on engine.sock: its health and status, the queue's verbs, letters to be sent, and events as
they happen (`wire.py`)."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from msgspec import structs

from appliance import wire
from appliance.delivery.operator import QueueFilter, QueueOperator
from appliance.logbook.live import LiveStream, TooManyFollowers
from appliance.model.delivery import DeliveryState
from appliance.model.event import DeliveryEvent
from appliance.model.hold import Hold
from appliance.model.letter import Letter
from appliance.reception.submission import Submission
from appliance.run.measurements import Measurements
from appliance.run.present_queue import PresentQueue, QueueState
from appliance.storage.records import StoreUnavailable
from smtp.address import AddressError, parse_domain
from smtp.server.trio_server import Statistics

_FILTERS = ("domain", "destination", "sender", "recipient", "id", "state")


@dataclass(frozen=True, slots=True)
class ControlVerbs:
    """The verbs of one engine, by the rooms that carry them out."""

    queue: QueueOperator
    submission: Submission
    present_queue: PresentQueue
    live: LiveStream
    statistics: Statistics
    measurements: Measurements
    started_at: int
    trouble: Callable[[], str | None]
    """Why the spool takes no mail; None where it does."""
    catch_up: Callable[[], Awaitable[None]]
    """Returns once the log has every event that was durable at the call."""

    def by_name(self) -> dict[str, wire.Verb]:
        """Every verb, by the name that it is called by."""
        verbs: dict[str, wire.Verb] = {
            "health": self._health,
            "status": self._status,
            "metrics": self._metrics,
            "queue.page": self._queue_page,
            "queue.count": self._queue_count,
            "queue.holds": self._queue_holds,
            "queue.retry": self._queue_retry,
            "queue.hold": self._queue_hold,
            "queue.addHold": self._queue_add_hold,
            "queue.liftHold": self._queue_lift_hold,
            "queue.release": self._queue_release,
            "queue.fail": self._queue_fail,
            "queue.drop": self._queue_drop,
            "letter.send": self._letter_send,
            "events": self._events,
            "log.catchUp": self._catch_up,
        }
        return {name: _patient(verb) for name, verb in verbs.items()}

    async def _health(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        """What is known already: nobody is asked for it."""
        yield self._known_health()

    async def _status(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        queue = await self.present_queue.state()
        yield {
            **self._known_health(),
            "startedAt": self.started_at,
            "openConnections": self.statistics.connections_open,
            **({} if queue is None else _shown_queue(queue)),
        }

    def _known_health(self) -> dict[str, Any]:
        trouble = self.trouble()
        return {"healthy": trouble is None, "trouble": trouble}

    async def _metrics(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        yield await self.measurements.taken(healthy=self.trouble() is None)

    # ------------------------------------------------------------------ the queue

    async def _queue_page(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        given = dict(arguments)
        after, limit = given.pop("after", None), given.pop("limit", None)
        if not (after is None or isinstance(after, str)) or not isinstance(limit, int):
            raise wire.WireError("a page has a limit, and maybe an id that it is behind")
        yield await self.queue.page(_filter(given, everything=True), after, limit)

    async def _queue_count(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        yield {"count": await self.queue.count(_filter(arguments, everything=True))}

    async def _queue_holds(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        for rule in self.queue.holds(_filter(arguments, everything=True)):
            yield _shown_hold(rule)

    async def _queue_retry(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        yield {"affected": await self.queue.retry(_filter(arguments))}

    async def _queue_hold(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        yield {"affected": await self.queue.hold(_filter(arguments))}

    async def _queue_add_hold(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        added = await self.queue.add_hold(_filter(arguments))
        if added is None:
            raise wire.WireError("a hold is about a domain, a destination or a sender, and nothing else")
        affected, rule = added
        yield {"affected": affected, "hold": _shown_hold(rule)}

    async def _queue_lift_hold(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        given = dict(arguments)
        hold_id = str(given.pop("hold", ""))
        affected, rule = await self.queue.lift_hold(hold_id, _filter(given, everything=True)) or (0, None)
        yield {"affected": affected, "hold": None if rule is None else _shown_hold(rule)}

    async def _queue_release(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        affected, lifted = await self.queue.release(_filter(arguments))
        yield {"affected": affected, "lifted": lifted}

    async def _queue_fail(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        yield {"affected": await self.queue.fail(_filter(arguments))}

    async def _queue_drop(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        yield {"affected": await self.queue.drop(_filter(arguments))}

    # ------------------------------------------------------------------ letters of our own

    async def _letter_send(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        recipient, subject, text = (arguments.get(name) for name in ("recipient", "subject", "text"))
        if not (isinstance(recipient, str) and isinstance(subject, str) and isinstance(text, str)):
            raise wire.WireError("a letter has a recipient, a subject and a text")
        try:
            mailboxes = await self.submission.submit(Letter(recipient, subject, text))
        except AddressError:
            raise wire.WireError("a letter is to one address") from None
        yield {"mailboxes": mailboxes}

    # ------------------------------------------------------------------ events

    async def _catch_up(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        await self.catch_up()
        yield {"caughtUp": True}

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


def _shown_queue(queue: QueueState) -> dict[str, Any]:
    return {
        "queued": queue.queued,
        "waiting": queue.states.get(DeliveryState.WAITING, 0),
        "held": queue.states.get(DeliveryState.HELD, 0),
        "oldestQueuedAt": queue.oldest_at,
        "nodes": [
            {
                "name": each.name,
                "seenAt": each.seen_at,
                "queued": each.under_way,
                "clockAheadMs": each.clock_ahead_ms,
            }
            for each in queue.nodes
            if not each.gone
        ],
    }


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
    return structs.asdict(event) | {"type": event.type.value}


def _shown_hold(rule: Hold) -> dict[str, Any]:
    """A rule in the words of the API; what it does not ask for is null."""
    return {
        "id": rule.id,
        "domain": rule.domain or None,
        "destinationDomain": rule.destination or None,
        "sender": rule.sender,
        "createdAt": rule.created_at,
    }


def _filter(arguments: Mapping[str, Any], *, everything: bool = False) -> QueueFilter:
    """What the caller means; with nothing set, everything only where that was said."""
    given = {name: arguments[name] for name in _FILTERS if arguments.get(name) is not None}
    within = arguments.get("within")
    unknown = sorted(set(arguments) - {*_FILTERS, "all", "within"})
    if unknown:
        raise wire.WireError(f"there is no filter {unknown[0]!r}; there are {', '.join(_FILTERS)} and all")
    if not all(isinstance(value, str) for value in given.values()):
        raise wire.WireError("a filter is a text")
    if not (within is None or isinstance(within, dict)):
        raise wire.WireError("within has the ids of an account's domains by their names")
    # All of one account's is less than everything.
    if not given and within is None and not everything and arguments.get("all") is not True:
        raise wire.WireError("name which deliveries, or say all")
    for name in ("domain", "destination"):
        _check_domain(given.get(name))
    return QueueFilter(**{**given, "state": _state(given.get("state")), "within": within})


def _check_domain(name: str | None) -> None:
    """A filter for what is no domain would change nothing, and a hold of it would keep nothing back."""
    if name is None or (name[:1] == "[" and name[-1:] == "]"):
        return
    try:
        parse_domain(name)
    except AddressError as error:
        raise wire.WireError(f"{name!r} is not a domain: {error}") from None


def _state(name: str | None) -> DeliveryState | None:
    if name is None:
        return None
    try:
        return DeliveryState[name]
    except KeyError:
        words = ", ".join(state.name for state in DeliveryState)
        raise wire.WireError(f"there is no state {name!r}; there are {words}") from None
