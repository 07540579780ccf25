"""Mail under way, and the holds that keep it back: seen and steered by way of the engine."""

from collections.abc import Mapping
from typing import Any, Final, Self

import strawberry

from appliance.accounts.reach import Reader, mail_domain
from appliance.model.delivery import DeliveryState
from appliance.model.refused import Refused
from control_api.callers import Access
from control_api.context import Info
from control_api.errors import Payload, bad_input, not_found
from control_api.fields import mutation, query
from control_api.ids import stored_id, taken_apart
from control_api.nouns.log import given_value, reader_of
from control_api.nouns.node import Node
from control_api.paging import USUAL, Connection, Slice, connection
from control_api.scalars import DateTime, instant

DELIVERY_STATE: Final = strawberry.enum(DeliveryState, description="The states of a delivery; what is done is gone.")

LOOKING_S = 20.0
"""How long the engine may look through the queue for a page of it, or for a member's change."""

PATIENCE_S = 3600.0
"""How long it may take for a change by an operator: a million deliveries take minutes."""

MOST_HOLDS = 100
"""Of one member. Each of them is looked at before each delivery, whoever that is for: ten thousand would slow all mail
down."""


@strawberry.type(description="What is still to be done for one recipient of one queued message.")
class Delivery(Node):
    """One delivery, as the engine tells it."""

    state: DeliveryState
    message_id: str = strawberry.field(description="What the sender was told in the 250.")
    sender: str = strawberry.field(description="The envelope sender; empty for the null reverse-path.")
    recipient: str = strawberry.field(description="The alias that was written to; several that lead to one mailbox.")
    destination_domain: str = strawberry.field(description="The domain of the mailbox.")
    size_bytes: int
    priority: int = strawberry.field(description="Higher is delivered first.")
    accepted_at: DateTime
    attempts: int
    next_attempt_at: DateTime | None
    expires_at: DateTime = strawberry.field(description="When it is given up, and the sender told.")
    last_response: str | None = strawberry.field(
        description="What the destination said last, in which the mailbox is masked."
    )
    why: str = strawberry.field(description="Why it is not there yet, in words.")

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """From what the engine tells."""
        return cls(
            stored_id=told["id"],
            state=DeliveryState[told["state"]],
            message_id=told["messageId"],
            sender=told["sender"],
            recipient=told["recipient"],
            destination_domain=told["destinationDomain"],
            size_bytes=told["sizeBytes"],
            priority=told["priority"],
            accepted_at=DateTime(told["acceptedAt"]),
            attempts=told["attempts"],
            next_attempt_at=instant(told["nextAttemptAt"]),
            expires_at=DateTime(told["expiresAt"]),
            last_response=told["lastResponse"],
            why=told["why"],
        )

    @classmethod
    def found(cls, info: Info, stored_id: str) -> Self | None:
        """See Node."""
        (page,) = _asked(info, "queue.page", {"id": stored_id}, limit=1)
        return next((cls.of(told) for told in page if told["id"] == stored_id), None)


@strawberry.type(description="A rule by which mail is kept back: all for which everything that is set is true.")
class Hold(Node):
    """One rule, as the engine tells it."""

    domain: str | None = strawberry.field(description="The hosted domain that was written to.")
    destination_domain: str | None = strawberry.field(description="The domain of the mailbox.")
    sender: str | None = strawberry.field(description="The envelope sender; empty for the null reverse-path.")
    created_at: DateTime

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """From what the engine tells."""
        return cls(
            stored_id=told["id"],
            domain=told["domain"],
            destination_domain=told["destinationDomain"],
            sender=told["sender"],
            created_at=DateTime(told["createdAt"]),
        )

    @classmethod
    def found(cls, info: Info, stored_id: str) -> Self | None:
        """See Node."""
        return next((cls.of(told) for told in _asked(info, "queue.holds", {}) if told["id"] == stored_id), None)


@strawberry.input(description="Which deliveries are meant: those for which all that is set is true.")
class QueueFilter:
    """See QueueFilter of the engine."""

    domain: str | None = strawberry.field(default=strawberry.UNSET, description="The hosted domain written to.")
    destination_domain: str | None = strawberry.field(
        default=strawberry.UNSET, description="The domain of the mailbox."
    )
    sender: str | None = strawberry.field(default=strawberry.UNSET, description="Empty for the null reverse-path.")
    recipient: str | None = strawberry.field(default=strawberry.UNSET, description="The alias that was written to.")
    state: DeliveryState | None = strawberry.UNSET
    id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="Of the delivery; or what the sender of its message was told in the 250."
    )
    all: bool | None = strawberry.field(
        default=strawberry.UNSET,
        description="All is meant, and nothing else is set. An operator has to say so before anything is changed.",
    )


@strawberry.type
class QueuePayload(Payload):
    """What has become of the deliveries that were meant."""

    affected: int = strawberry.field(default=0, description="How many deliveries were changed.")
    lifted: int = strawberry.field(default=0, description="How many holds were lifted with them, by a release.")


@strawberry.type
class HoldPayload(Payload):
    """The rule; of one that was lifted, as it was."""

    hold: Hold | None = None
    affected: int = strawberry.field(default=0, description="How many deliveries were held, or let go.")


@strawberry.type
class QueueQueries:
    """Looking at mail under way."""

    @query(Access.SIGNED_IN)
    def queue(
        self,
        info: Info,
        first: int | None = USUAL,
        after: str | None = strawberry.UNSET,
        filter: QueueFilter | None = strawberry.UNSET,
    ) -> Connection[Delivery]:
        """Deliveries that wait, are held, or are under way. A member sees those of own domains."""
        wanted = Slice.of(first, after or None)
        try:
            arguments = _arguments(filter or QueueFilter())
        except Refused as refusal:
            raise bad_input(refusal.reason) from None
        (rows,) = _asked(info, "queue.page", arguments, after=wanted.after, limit=wanted.limit)
        return connection(
            rows,
            wanted,
            key=lambda told: str(told["id"]),
            node=Delivery.of,
            count=lambda: int(_asked(info, "queue.count", arguments)[0]["count"]),
        )

    @query(Access.SIGNED_IN)
    def holds(self, info: Info) -> list[Hold]:
        """The holds in force, the oldest first. A member sees those of own domains."""
        return [Hold.of(told) for told in _asked(info, "queue.holds", {})]


@strawberry.type
class QueueMutations:
    """Steering mail under way. What a courier is sending at this moment can't be called back."""

    @mutation(Access.SIGNED_IN)
    def retry_deliveries(self, info: Info, filter: QueueFilter) -> QueuePayload:
        """Try what waits now, whatever the schedule says. Of own domains; an operator's reach all."""
        return _changed(info, "queue.retry", filter)

    @mutation(Access.SIGNED_IN)
    def hold_deliveries(self, info: Info, filter: QueueFilter) -> QueuePayload:
        """Keep back what waits now, until it is released."""
        return _changed(info, "queue.hold", filter)

    @mutation(Access.SIGNED_IN)
    def release_deliveries(self, info: Info, filter: QueueFilter) -> QueuePayload:
        """Try what is held now, and lift the holds that are about nothing else."""
        return _changed(info, "queue.release", filter)

    @mutation(Access.SIGNED_IN)
    def fail_deliveries(self, info: Info, filter: QueueFilter) -> QueuePayload:
        """Give up now: the sender gets a bounce."""
        return _changed(info, "queue.fail", filter)

    @mutation(Access.SIGNED_IN)
    def drop_deliveries(self, info: Info, filter: QueueFilter) -> QueuePayload:
        """Erase without a bounce."""
        return _changed(info, "queue.drop", filter)

    @mutation(Access.SIGNED_IN)
    def add_hold(
        self,
        info: Info,
        domain: str | None = strawberry.UNSET,
        destination_domain: str | None = strawberry.UNSET,
        sender: str | None = strawberry.UNSET,
    ) -> HoldPayload:
        """Hold what waits and what will arrive, until it is lifted. A member names the domain, which is an own one."""
        wanted = _arguments(QueueFilter(domain=domain, destination_domain=destination_domain, sender=sender))
        if not wanted:
            raise Refused("Say what to hold: mail for a domain, to a destination, or from a sender.")
        info.context.rooms.reach.require_own(_reader(info), _domain(domain, "domain"))
        if not _reader(info).reaches_all and len(_asked(info, "queue.holds", {})) >= MOST_HOLDS:
            raise Refused(f"An account has at most {MOST_HOLDS} holds: lift one first.")
        (told,) = _asked(info, "queue.addHold", wanted, limit_s=_patience(info))
        return HoldPayload(hold=Hold.of(told["hold"]), affected=told["affected"])

    @mutation(Access.SIGNED_IN)
    def lift_hold(self, info: Info, id: strawberry.ID) -> HoldPayload:
        """Lift a hold, and try what it has held now."""
        (told,) = _asked(info, "queue.liftHold", {}, hold=stored_id(id, Hold.__name__), limit_s=_patience(info))
        if told["hold"] is None:
            raise not_found("hold")
        return HoldPayload(hold=Hold.of(told["hold"]), affected=told["affected"])


def _changed(info: Info, verb: str, filter: QueueFilter) -> QueuePayload:
    arguments = _arguments(filter)
    if not arguments and _reader(info).reaches_all:
        if filter.all is not True:
            raise bad_input("Say which deliveries: set something in the filter, or all.")
        arguments = {"all": True}
    elif arguments and filter.all is True:
        raise bad_input("The filter says all, and something else: set one of them.")
    (told,) = _asked(info, verb, arguments, limit_s=_patience(info))
    return QueuePayload(affected=told["affected"], lifted=told.get("lifted", 0))


def _asked(
    info: Info, verb: str, wanted: Mapping[str, object], *, limit_s: float = LOOKING_S, **more: object
) -> list[Any]:
    """What the engine answers, as far as the caller reaches."""
    rooms = info.context.rooms
    within = rooms.reach.mail_of(_reader(info))
    return list(rooms.engine(verb, limit_s=limit_s, within=within, **wanted, **more))


def _arguments(filter: QueueFilter) -> dict[str, object]:
    """A filter as the engine takes it. Raises Refused."""
    id = filter.id if given_value(filter.id) else None
    parts = taken_apart(id) if id else None
    wanted = {
        "domain": _domain(filter.domain, "domain"),
        "destination": _domain(filter.destination_domain, "destinationDomain"),
        "sender": filter.sender,
        "recipient": filter.recipient,
        "state": filter.state.name if filter.state else None,
        "id": parts[1] if parts and parts[0] == Delivery.__name__ else id,
    }
    return {name: value for name, value in wanted.items() if given_value(value)}


def _domain(name: str | None, field: str) -> str | None:
    return mail_domain(name, field) if name is not None and name is not strawberry.UNSET else None


def _reader(info: Info) -> Reader:
    return reader_of(info.context)


def _patience(info: Info) -> float:
    return PATIENCE_S if _reader(info).reaches_all else LOOKING_S
