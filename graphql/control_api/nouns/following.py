"""Following the log: each event as it happens, for those who may know of it."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import strawberry
import trio

from appliance.accounts.reach import GONE
from appliance.logbook.feed import TooManyFollow
from appliance.logbook.subscribers import Interest, TooSlow
from appliance.model.domain import Domain as StoredDomain
from appliance.model.event import DeliveryEvent as StoredEvent
from appliance.model.event import EventType
from appliance.model.names import domain_name
from appliance.model.refused import Refused
from appliance.routing.changes import GENERATION
from control_api.callers import Access
from control_api.context import Context, Info
from control_api.errors import bad_input, forbidden, not_found, rate_limited
from control_api.fields import subscription
from control_api.ids import taken_apart
from control_api.nouns.log import DeliveryEvent, given_value, permit, reader_of
from control_api.nouns.owned import may_see

# The form of `appliance.model.ids`.
_EVENT_ID: Final = re.compile("[0-9a-f]{20}")

AGAIN_S = 5
"""After so many seconds one who was turned away may try again."""


class _View:
    """What one who follows may see and wants to see. Any thread may refresh it."""

    def __init__(self, context: Context, domain: StoredDomain | None, recipient: str | None, type: EventType | None):
        self._context = context
        self._domain = domain
        self._recipient = None if recipient is None else recipient.lower()
        self._type = type
        self.domain_ids: frozenset[str] | None = frozenset()
        """Whose events: of these domains; None: of all."""
        self._seen: int | None = None
        """The generation of the records that this was looked up in."""

    def refresh(self) -> None:
        """Look up what may be seen now. Raises FORBIDDEN, or NOT_FOUND, where nothing may be any more."""
        rooms, reader = self._context.rooms, reader_of(self._context)
        generation = rooms.records.generation(GENERATION)
        # What somebody else grants may also end by itself.
        if generation == self._seen and (self._domain is None or reader.owns(self._domain)):
            return
        self._seen = generation
        try:
            self.domain_ids = rooms.reach.log_of(reader, self._domain)
        except Refused as refusal:
            raise (not_found("domain") if refusal.code == GONE else forbidden(refusal.reason)) from None

    def wants(self, event: StoredEvent) -> bool:
        """Whether an event is to be told."""
        return (
            (self.domain_ids is None or event.domain_id in self.domain_ids)
            and (self._type is None or event.type is self._type)
            and (self._recipient is None or event.recipient.lower() == self._recipient)
        )


@strawberry.type
class LogSubscriptions:
    """Following the log."""

    @subscription(Access.SIGNED_IN)
    async def delivery_events(
        self,
        info: Info,
        domain: str | None = strawberry.UNSET,
        recipient: str | None = strawberry.UNSET,
        type: EventType | None = strawberry.UNSET,
        after: strawberry.ID | None = strawberry.UNSET,
    ) -> AsyncGenerator[DeliveryEvent, None]:
        """Events as they happen, of the viewer's domains.

        `after` resumes behind an event id, as far as the log reaches. Where this ends with an error, resume behind the
        last event that you have had.
        """
        context = info.context
        begins = _stored_id(after) if after else None
        found = None
        if domain is not None and domain is not strawberry.UNSET:
            found = await trio.to_thread.run_sync(_domain_named, info, domain)
        view = _View(context, found, recipient if given_value(recipient) else None, type or None)
        await trio.to_thread.run_sync(view.refresh)
        account = context.caller.account
        interest = Interest(
            owner="" if account is None else account.id,
            wants=view.wants,
            still=view.refresh,
            domain_ids=None if view.domain_ids is None else tuple(sorted(view.domain_ids)),
        )
        try:
            async with aclosing(context.rooms.feed.events(interest, begins)) as events:
                async for event in events:
                    yield DeliveryEvent.of(event)
        except TooManyFollow as error:
            raise rate_limited(f"Not now: {error}.", AGAIN_S) from None
        except TooSlow as error:
            raise rate_limited(f"You read too slowly: {error}.", AGAIN_S) from None


def _stored_id(after: str) -> str:
    parts = taken_apart(after)
    if parts is None or parts[0] != DeliveryEvent.__name__ or not _EVENT_ID.fullmatch(parts[1]):
        raise bad_input("after is the id of an event.")
    return parts[1]


def _domain_named(info: Info, name: str) -> StoredDomain:
    """In a worker thread: the domain whose log is asked for. Raises NOT_FOUND, FORBIDDEN or BAD_USER_INPUT."""
    caller, domains = info.context.caller, info.context.rooms.domains
    try:
        wanted = domain_name(name, "domain")
        own = None if caller.account is None else domains.of(caller.account.id, wanted)
        found = own or (domains.find(wanted) if caller.is_operator else None)
    except Refused as refusal:
        raise bad_input(refusal.reason) from None
    if found is None or not may_see(caller, found):
        raise not_found("domain")
    permit(info, found, f"deliveryEvents(domain: {found.name})")
    return found
