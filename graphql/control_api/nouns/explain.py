"""Where a message would go and why, without one being sent."""

import ipaddress
from typing import Self

import strawberry

from appliance.model.domain import DeliveryMode
from appliance.routing.explained import Explanation as Explained
from control_api.callers import Access
from control_api.context import Info
from control_api.errors import bad_input, not_found
from control_api.fields import query
from control_api.nouns.owned import may_see
from smtp.address import Address, AddressError


@strawberry.type(description="One thing that was looked at, in the order in which a session looks at it.")
class ExplanationStep:
    """One step."""

    check: str
    outcome: str
    detail: str


@strawberry.type(description="A copy that would leave.")
class PlannedDelivery:
    """One copy."""

    target: str
    envelope_sender: str
    hosts: list[str] = strawberry.field(description="The servers that would be tried, best first.")
    mode: DeliveryMode


@strawberry.type(description="What would become of a message for one recipient.")
class Explanation:
    """The decision, and what follows from it."""

    accepted: bool
    code: int = strawberry.field(description="The reply that RCPT TO would get.")
    enhanced_code: str
    reply: str
    reason: str = strawberry.field(description="A stable word to search for.")
    steps: list[ExplanationStep]
    deliveries: list[PlannedDelivery]

    @classmethod
    def of(cls, explained: Explained) -> Self:
        """From what was decided."""
        return cls(
            accepted=explained.accepted,
            code=explained.reply.code,
            enhanced_code=explained.reply.enhanced or "",
            reply=explained.reply.text,
            reason=explained.reason,
            steps=[
                ExplanationStep(check=each.check, outcome=each.outcome, detail=each.detail) for each in explained.steps
            ],
            deliveries=[
                PlannedDelivery(
                    target=each.target, envelope_sender=each.envelope_sender, hosts=list(each.hosts), mode=each.mode
                )
                for each in explained.deliveries
            ],
        )


@strawberry.type
class ExplainQueries:
    """Explaining."""

    @query(Access.SIGNED_IN)
    def explain(
        self, info: Info, recipient: str, sender: str | None = "", client_address: str | None = strawberry.UNSET
    ) -> Explanation:
        """Where a message would go and why, step by step. Sends nothing and stores nothing. For recipients at own
        domains; operators ask about any."""
        # RFC 5321 §4.5.1: postmaster needs no domain, and the null reverse-path is nobody.
        to = Address(recipient, "") if recipient.lower() == "postmaster" else _address(recipient, "recipient")
        writer = None if sender in (None, "", "<>") else _address(str(sender), "sender")
        if client_address:
            _require_ip(client_address)
        caller, rooms = info.context.caller, info.context.rooms
        hosted = rooms.domains.hosted(to.key[1], None if caller.account is None else caller.account.id)
        if not caller.is_operator and (hosted is None or not may_see(caller, hosted)):
            raise not_found("domain")
        reader = None if caller.is_operator or caller.account is None else caller.account.id
        return Explanation.of(rooms.explain(to, writer, reader, client_address or ""))


def _address(text: str, argument: str) -> Address:
    try:
        return Address.parse(text)
    except AddressError as error:
        raise bad_input(f"{argument} is not an email address: {error}.") from None


def _require_ip(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise bad_input("clientAddress is not an IP address.") from None
