"""The delivery log: events, the messages that they make, and counts of them. How they are followed: `following.py`."""

from dataclasses import field
from typing import Final, Self

import strawberry

from appliance.accounts.reach import Reader
from appliance.logbook.messages import (
    LoggedMessage,
    MessageFilter,
    event,
    message,
    message_key,
    messages,
    statistics,
)
from appliance.model.access import Scope
from appliance.model.domain import Domain as StoredDomain
from appliance.model.event import DeliveryEvent as StoredEvent
from appliance.model.event import EventType
from appliance.model.refused import Refused
from control_api.callers import Access
from control_api.context import Context, Info
from control_api.errors import bad_input, forbidden
from control_api.fields import guarded, shown, shown_alike
from control_api.nouns.node import Node
from control_api.nouns.owned import may_see
from control_api.paging import USUAL, Edge, PageInfo, Slice, connection
from control_api.scalars import DateTime

EVENT_TYPE: Final = strawberry.enum(EventType, description="The words of the logging policy, and the only ones.")

MOST_DAYS = 92
"""Of statistics: a quarter. Events are mostly kept for a week, and each day is counted for itself."""


@strawberry.type(description="One step in the life of a message for one recipient. Never its content.")
class DeliveryEvent(Node):
    """One event, as it stands in the log."""

    stored: strawberry.Private[StoredEvent]

    at: DateTime
    type: EventType
    response: str = strawberry.field(
        description="Ours when refused or received, else the destination server's, in which a hidden destination is "
        "masked."
    )
    code: int = strawberry.field(description="The SMTP reply code; 0 where there was no reply.")
    enhanced_code: str | None = strawberry.field(description="RFC 3463, such as 5.1.1.")
    reason: str = strawberry.field(description="A stable word to search for, such as `alias-unknown`.")
    server_name: str | None
    server_address: str | None
    tls: str | None = strawberry.field(description="How the connection of an attempt was encrypted; null without TLS.")
    duration_ms: int
    attempt: int = strawberry.field(description="Counted from 1; 0 where the event is of no attempt.")

    @classmethod
    def of(cls, stored: StoredEvent) -> Self:
        """From what is stored."""
        return cls(
            stored_id=stored.id,
            stored=stored,
            at=DateTime(stored.at),
            type=stored.type,
            response=stored.response,
            code=stored.code,
            enhanced_code=stored.enhanced_code,
            reason=stored.reason,
            server_name=stored.server_name,
            server_address=stored.server_address,
            tls=stored.tls,
            duration_ms=stored.duration_ms,
            attempt=stored.attempt,
        )

    @classmethod
    def found(cls, info: Info, stored_id: str) -> Self | None:
        """See Node."""
        info.context.caller.require(Access.SIGNED_IN, Scope.LOGS)
        stored = event(info.context.rooms.records, stored_id)
        return cls.of(stored) if stored is not None and _may_read(info, stored.domain_id, "deliveryEvent") else None

    @shown
    def message(self) -> "Message":
        """What the event is about."""
        return Message.of_event(self.stored)


@strawberry.type(description="One message for one recipient (alias), as far as the log has it. Never its content.")
class Message(Node):
    """One message. The log is asked for more than one of its events only where that is needed."""

    known: strawberry.Private[StoredEvent]
    """One event of it."""
    gathered: strawberry.Private[list[LoggedMessage]] = field(default_factory=list)
    """The whole message, once somebody has asked for it."""

    sender: str = strawberry.field(description="The envelope sender; empty for the null reverse-path.")
    recipient: str = strawberry.field(description="The alias that was written to.")

    @classmethod
    def of(cls, gathered: LoggedMessage) -> Self:
        """From all its events."""
        whole = cls.of_event(gathered.events[0])
        whole.gathered.append(gathered)
        return whole

    @classmethod
    def of_event(cls, known: StoredEvent) -> Self:
        """From one of its events."""
        return cls(stored_id=message_key(known), known=known, sender=known.sender, recipient=known.recipient)

    @classmethod
    def found(cls, info: Info, stored_id: str) -> Self | None:
        """See Node."""
        info.context.caller.require(Access.SIGNED_IN, Scope.LOGS)
        gathered = message(info.context.rooms.records, stored_id)
        if gathered is None or not _may_read(info, gathered.events[0].domain_id, "message"):
            return None
        return cls.of(gathered)

    @shown_alike
    def received_at(self, info: Info) -> DateTime:
        """When it arrived."""
        return DateTime(self._whole(info).arrival.at)

    @shown_alike
    def client_address(self, info: Info) -> str | None:
        """Where it came from; null where the domain's log level keeps errors only."""
        return self._whole(info).arrival.client_address

    @shown_alike
    def client_name(self, info: Info) -> str | None:
        """The verified name of that address; null where it has none, and where only errors are kept."""
        return self._whole(info).arrival.client_name

    @shown_alike
    def subject(self, info: Info) -> str | None:
        """Its subject; null where it has none, and where only errors are kept."""
        return self._whole(info).arrival.subject

    @shown_alike
    def size_bytes(self, info: Info) -> int:
        """As it was received; of a refused one, what the sender said, or 0."""
        return self._whole(info).arrival.size

    @shown_alike
    def events(self, info: Info) -> list[DeliveryEvent]:
        """What has happened to it, in order, as far as it is still in the log."""
        return [DeliveryEvent.of(stored) for stored in self._whole(info).events]

    def _whole(self, info: Info) -> LoggedMessage:
        if not self.gathered:
            rooms = info.context.rooms
            stored = message(rooms.records, self.stored_id)
            # What has just happened reaches the log in a moment.
            at_hand = (self.known, *rooms.feed.recent(self.stored_id), *(stored.events if stored else ()))
            by_id = {each.id: each for each in at_hand}
            self.gathered.append(LoggedMessage(tuple(by_id[id] for id in sorted(by_id))))
        return self.gathered[0]


@strawberry.type
class MessageConnection:
    """A page of messages. They are not counted: the log is long, and each day's numbers are in `statistics`."""

    edges: list[Edge[Message]]
    page_info: PageInfo


@strawberry.input(
    name="MessageFilter", description="Which messages are meant: those for which all that is set is true."
)
class MessageFilterInput:
    """See MessageFilter of the logbook."""

    recipient: str | None = strawberry.UNSET
    sender: str | None = strawberry.field(default=strawberry.UNSET, description="Empty for the null reverse-path.")
    type: EventType | None = strawberry.field(default=strawberry.UNSET, description="It has had such an event.")
    since: DateTime | None = strawberry.field(default=strawberry.UNSET, description="It arrived then or later.")
    until: DateTime | None = strawberry.field(default=strawberry.UNSET, description="It arrived before then.")


@strawberry.type(description="How many events of each type a day had.")
class DayStatistics:
    """One day."""

    day: str = strawberry.field(description="In UTC: `2026-11-20`.")
    received: int
    delivered: int
    soft_bounced: int
    hard_bounced: int
    refused: int


@strawberry.type
class LogOfDomain:
    """What a domain has of the log."""

    stored: strawberry.Private[StoredDomain]

    @guarded(Access.SIGNED_IN, Scope.LOGS)
    def messages(
        self,
        info: Info,
        first: int | None = USUAL,
        after: str | None = strawberry.UNSET,
        filter: MessageFilterInput | None = strawberry.UNSET,
    ) -> MessageConnection:
        """Its messages, the newest first."""
        wanted = Slice.of(first, after or None)
        given = {name: value for name, value in vars(filter or MessageFilterInput()).items() if given_value(value)}
        permit(info, self.stored, f"messages({', '.join(given)})" if given else "messages")
        rows = messages(info.context.rooms.records, self.stored.id, MessageFilter(**given), wanted.after, wanted.limit)
        page = connection(rows, wanted, key=lambda row: row.key, node=Message.of, count=lambda: 0)
        return MessageConnection(edges=page.edges, page_info=page.page_info)

    @guarded(Access.SIGNED_IN, Scope.LOGS)
    def statistics(self, info: Info, days: int | None = 7) -> list[DayStatistics]:
        """Counts per day for plots: of so many days up to today, the oldest first."""
        days = 7 if days is None else days
        if not 1 <= days <= MOST_DAYS:
            raise bad_input(f"days is between 1 and {MOST_DAYS}.")
        permit(info, self.stored, f"statistics(days: {days})")
        rooms = info.context.rooms
        return [
            DayStatistics(
                day=each.day,
                received=each.counts[EventType.RECEIVED],
                delivered=each.counts[EventType.DELIVERED],
                soft_bounced=each.counts[EventType.SOFT_BOUNCED],
                hard_bounced=each.counts[EventType.HARD_BOUNCED],
                refused=each.counts[EventType.REFUSED],
            )
            for each in statistics(rooms.records, self.stored.id, days, rooms.clock())
        ]


def given_value(value: object) -> bool:
    """Whether an argument was given, and is not null."""
    return value is not None and value is not strawberry.UNSET


def reader_of(context: Context) -> Reader:
    """Who reads, as the rooms know people."""
    return Reader(context.caller.account, context.caller.is_operator)


def permit(info: Info, domain: StoredDomain, query: str) -> None:
    """Let the caller read a domain's log, and have it written down where it is not the caller's. Raises FORBIDDEN."""
    memory: dict[object, bool] = info.context.memory
    key = (permit, domain.id, query)
    if key not in memory:
        try:
            info.context.rooms.reach.permit_log(reader_of(info.context), domain, query)
        except Refused as refusal:
            raise forbidden(refusal.reason) from None
        memory[key] = True


def _may_read(info: Info, domain_id: str, query: str) -> bool:
    domain = info.context.rooms.domains.with_id(domain_id)
    if domain is None or not may_see(info.context.caller, domain):
        return False
    permit(info, domain, query)
    return True
