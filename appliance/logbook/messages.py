"""The log as messages: what it has of one message for one recipient, put together; and how many of each kind a day had.

An event stands for itself and goes on its own day. So a message is nothing that is stored: it is the events of one
message id for one recipient, as far as they are still there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice

from appliance.model.event import DeliveryEvent, EventType
from appliance.model.ids import first_id_at
from appliance.model.time import DAY_MS, format_instant
from appliance.privacy.declarations import EVENTS
from appliance.storage.event_rows import row_to_event
from appliance.storage.records import AnyOf, Page, Range, RecordStore

ARRIVALS = frozenset({EventType.RECEIVED, EventType.REFUSED})
"""What a message begins with. It has the data points of the message; the events of attempts repeat some of them."""

AT_ONCE = 25
"""Messages whose events are read in one go: of a hundred recipients each, with some attempts, that is a few thousand
rows."""

EVENTS_AT_ONCE = 1000
"""Rows of the log that are read in one go."""

LONGEST_MS = DAY_MS
"""By how much the id of a message may be older or newer than its arrival says: by the longest transaction, or where the
clock has been set."""

DIGEST_OCTETS = 6
"""Of the recipient in the name of a message. A message has a hundred recipients, so two are alike once in 10^10."""


@dataclass(frozen=True, slots=True)
class LoggedMessage:
    """What the log has of one message for one recipient."""

    events: Sequence[DeliveryEvent]
    """At least one, in the order of their making."""

    @property
    def arrival(self) -> DeliveryEvent:
        """The event with the data points of the message.

        Where a domain's level keeps errors only, or the retention of errors is the longer one, it may not be there;
        then it is the first that is.
        """
        return next((event for event in self.events if event.type in ARRIVALS), self.events[0])

    @property
    def key(self) -> str:
        """Its name; greater for a newer message."""
        return message_key(self.events[0])


@dataclass(frozen=True, slots=True)
class MessageFilter:
    """Which messages are meant: those for which everything that is set is true."""

    recipient: str | None = None
    sender: str | None = None
    """Empty for the null reverse-path."""
    type: EventType | None = None
    """It has had such an event."""
    since: int | None = None
    """It arrived at this instant or later."""
    until: int | None = None
    """It arrived before this instant."""

    def matches(self, message: LoggedMessage) -> bool:
        """Whether this message is meant."""
        arrival = message.arrival
        return (
            (self.recipient is None or self.recipient.lower() == arrival.recipient.lower())
            and (self.sender is None or self.sender.lower() == arrival.sender.lower())
            and (self.type is None or any(event.type is self.type for event in message.events))
            and (self.since is None or arrival.at >= self.since)
            and (self.until is None or arrival.at < self.until)
        )

    def where(self, domain_id: str) -> dict[str, object]:
        """What events to look for: at least one of each message that is meant is such an event."""
        where: dict[str, object] = {"domain_id": domain_id}
        if self.recipient is not None:
            where["recipient"] = self.recipient
        if self.sender is not None:
            where["sender"] = self.sender
        if self.type is not None:
            where["type"] = self.type.value
        if self.since is not None or self.until is not None:
            where["message_id"] = Range(
                since=None if self.since is None else first_id_at(self.since - LONGEST_MS),
                until=None if self.until is None else first_id_at(self.until + LONGEST_MS),
            )
        return where


EVERYTHING = MessageFilter()


@dataclass(frozen=True, slots=True)
class DayCounts:
    """How many events of each type a day had."""

    day: str
    """In UTC: `2026-11-20`."""
    counts: Mapping[EventType, int]


def message_key(event: DeliveryEvent) -> str:
    """The name of the message for this recipient: the message's id, and a digest in place of the recipient.

    It stands in ids and addresses of pages, so the recipient itself must not be in it.
    """
    digest = blake2b(event.recipient.lower().encode(), key=event.message_id.encode(), digest_size=DIGEST_OCTETS)
    return f"{event.message_id}.{digest.hexdigest()}"


def messages(
    records: RecordStore, domain_id: str, wanted: MessageFilter = EVERYTHING, after: str | None = None, limit: int = 50
) -> list[LoggedMessage]:
    """Messages of a domain, the newest first, behind the key `after`. Raises StoreUnavailable.

    The order is that of the keys, so what happens meanwhile to an older message moves nothing from page to page.
    """
    return list(islice(_messages(records, domain_id, wanted, after, limit), limit))


def message(records: RecordStore, key: str) -> LoggedMessage | None:
    """The message of this name; None where the log has nothing of it (any more). Raises StoreUnavailable."""
    message_id = key.partition(".")[0]
    return next((one for one in _gathered(records, message_id) if one.key == key), None)


def event(records: RecordStore, id: str) -> DeliveryEvent | None:
    """The event with this id; None where there is none (any more). Raises StoreUnavailable."""
    row = records.get(EVENTS, {"id": id})
    return None if row is None else row_to_event(row)


def statistics(records: RecordStore, domain_id: str, days: int, now: int) -> list[DayCounts]:
    """What each of the last so many days had, today being the last of them. Raises StoreUnavailable.

    Counted where the events are, by an index: nothing is opened.
    """
    today = now // DAY_MS

    def counted(day: int, type: EventType) -> int:
        within = Range(since=day * DAY_MS, until=(day + 1) * DAY_MS)
        return records.count(EVENTS, {"domain_id": domain_id, "type": type.value, "at": within})

    return [
        DayCounts(format_instant(day * DAY_MS)[:10], {type: counted(day, type) for type in EventType})
        for day in range(today - days + 1, today + 1)
    ]


def _messages(
    records: RecordStore, domain_id: str, wanted: MessageFilter, after: str | None, limit: int
) -> Iterator[LoggedMessage]:
    where = wanted.where(domain_id)
    message_id: str | None = None
    if after is not None:
        message_id = after.partition(".")[0]
        # The page before may have ended in the middle of the recipients of one message.
        rest = _gathered(records, message_id, domain_id)
        yield from (one for one in rest if one.key < after and wanted.matches(one))
    at_once = min(limit, AT_ONCE)
    while True:
        page = Page(after=message_id, limit=at_once, newest_first=True)
        ids = records.distinct(EVENTS, "message_id", where, page)
        if ids:
            found = _gathered(records, AnyOf(tuple(ids)), domain_id)
            yield from (one for one in found if wanted.matches(one))
            message_id = str(ids[-1])
        if len(ids) < at_once:
            return


def _gathered(records: RecordStore, message_ids: str | AnyOf, domain_id: str | None = None) -> list[LoggedMessage]:
    """The messages with these ids, of all recipients or of those at one domain, the newest first."""
    by_key: dict[str, list[DeliveryEvent]] = {}
    last: str | None = None
    while True:
        # Not by domain as well: these have the index of messages, and the domain's would lead through its whole log.
        rows = records.find(EVENTS, {"message_id": message_ids}, Page(after=last, limit=EVENTS_AT_ONCE))
        for each in map(row_to_event, rows):
            last = each.id
            if domain_id in (None, each.domain_id):
                by_key.setdefault(message_key(each), []).append(each)
        if len(rows) < EVENTS_AT_ONCE:
            return [LoggedMessage(tuple(by_key[key])) for key in sorted(by_key, reverse=True)]
