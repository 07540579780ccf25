"""What the appliance is doing now."""

from collections.abc import Mapping
from typing import Any

import strawberry

from appliance.version import version
from appliance.wire import STATUS_S, NotRunning, WireError
from control_api.callers import Access
from control_api.context import Info
from control_api.fields import query
from control_api.scalars import DateTime, instant


@strawberry.type(description="One machine of the appliance.")
class ApplianceNode:
    """One engine, as it has told."""

    name: str
    seen_at: DateTime = strawberry.field(description="When it was last heard of.")
    queued: int = strawberry.field(description="Deliveries that it has; where several share the queue, is at just now.")
    clock_ahead_seconds: int | None = strawberry.field(
        description="By how much its clock is ahead of the shared store's; negative where it is behind, and null where "
        "it shares none."
    )


@strawberry.type(description="What the appliance is doing now. Numbers are for operators, and null for everybody else.")
class Status:
    """The answer of the engine, as far as the caller may see it."""

    version: str
    healthy: bool = strawberry.field(description="Mail is taken and sent.")
    started_at: DateTime | None
    queued: int | None = strawberry.field(description="Deliveries that are still to be done.")
    oldest_queued_at: DateTime | None
    open_connections: int | None = strawberry.field(description="SMTP connections that are open now.")
    nodes: list[ApplianceNode] | None = strawberry.field(description="The machines that have been heard of.")


@strawberry.type
class StatusQueries:
    """Status."""

    @query(Access.ANYONE, scope=None)
    def status(self, info: Info) -> Status:
        """What the appliance is doing now. All but version and health is for operators."""
        rooms = info.context.rooms
        told: Mapping[str, Any]
        try:
            told = next(rooms.engine("status", limit_s=STATUS_S), {})
        except (NotRunning, WireError):
            # An engine that is away is what this field is there to tell.
            told = {}
        shown = told if info.context.caller.is_operator else {}
        queued, now, own = shown.get("queued"), DateTime(rooms.clock()), rooms.configuration.hostname
        return Status(
            version=version(),
            healthy=told.get("healthy") is True,
            started_at=instant(shown.get("startedAt")),
            queued=queued,
            oldest_queued_at=instant(shown.get("oldestQueuedAt")),
            open_connections=shown.get("openConnections"),
            nodes=None if queued is None else _nodes(shown) or [_alone(own, now, queued)],
        )


def _nodes(told: Mapping[str, Any]) -> list[ApplianceNode]:
    """Those that share a store; none where there is but one."""
    return [
        ApplianceNode(
            name=each["name"],
            seen_at=DateTime(each["seenAt"]),
            queued=each["queued"],
            clock_ahead_seconds=round(each["clockAheadMs"] / 1000),
        )
        for each in told.get("nodes", ())
    ]


def _alone(name: str, now: DateTime, queued: int) -> ApplianceNode:
    return ApplianceNode(name=name, seen_at=now, queued=queued, clock_ahead_seconds=None)
