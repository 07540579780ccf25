"""The decorators that make fields of methods. Each says who may ask, and nothing here is made without saying so.

    @query(Access.SIGNED_IN)
    def domain(self, info: Info, name: str) -> Domain | None:
        \"\"\"A domain of the viewer.\"\"\"

The method's docstring is the field's description. It takes `info`, and is called only for those who may: what it still
has to see to is whose data it is about. A `mutation` answers with its payload, and where a room has raised `Refused`,
its payload with that as an error. Methods that are fields of other types are `shown` to everybody who sees the object,
or `shown_alike`, or `guarded`.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final, cast, get_type_hints

import strawberry

from appliance.model.access import Scope
from appliance.model.refused import Refused
from control_api.callers import Access
from control_api.errors import Payload, UserError

Resolver = Callable[..., Any]
Decorator = Callable[[Resolver], Any]

ACCESS: Final = "access"
SCOPE: Final = "scope"
"""The names under which a field's metadata tells who may ask for it."""
ALIKE: Final = "alike"
"""The name under which it tells that it is the same for all of them."""


def query(access: Access, scope: Scope | None = Scope.READ) -> Decorator:
    """A field of Query. `scope` is what a token needs; None for what is no secret."""
    return _made(access, scope)


def guarded(access: Access, scope: Scope | None = Scope.READ) -> Decorator:
    """A field of any other type, for these alone."""
    return _made(access, scope)


def shown(resolver: Resolver) -> Any:
    """A field of any other type, for everybody who sees the object that it is of."""
    return strawberry.field(resolver=resolver, description=inspect.getdoc(resolver))


def shown_alike(resolver: Resolver) -> Any:
    """A field as `shown`, which is the same whoever asks: one answer may be told to many (`subscriptions.py`)."""
    return strawberry.field(resolver=resolver, description=inspect.getdoc(resolver), metadata={ALIKE: True})


def mutation(access: Access, scope: Scope | None = Scope.WRITE, *, sets_cookie: bool = False) -> Decorator:
    """A field of Mutation, whose method returns a `Payload`. One that sets a cookie is refused over a websocket."""
    return _made(access, scope, answers_refusals=True, sets_cookie=sets_cookie)


def subscription(access: Access, scope: Scope | None = Scope.LOGS) -> Decorator:
    """A field of Subscription, whose method is an asynchronous generator."""
    return _made(access, scope, subscribes=True)


def _made(
    access: Access,
    scope: Scope | None,
    *,
    answers_refusals: bool = False,
    sets_cookie: bool = False,
    subscribes: bool = False,
) -> Decorator:
    def decorator(resolver: Resolver) -> Any:
        if "info" not in inspect.signature(resolver).parameters:
            raise TypeError(f"{resolver.__qualname__} takes no info, by which it is known who asks")

        @functools.wraps(resolver)
        def admitted(*args: Any, **kwargs: Any) -> Any:
            context = kwargs["info"].context
            context.caller.require(access, scope)
            if sets_cookie:
                context.require_headers()
            if not answers_refusals:
                return resolver(*args, **kwargs)
            try:
                return resolver(*args, **kwargs)
            except Refused as refusal:
                return _payload_of(resolver)(errors=[UserError.of(refusal)])

        return strawberry.field(
            resolver=admitted,
            description=inspect.getdoc(resolver),
            metadata={ACCESS: access, SCOPE: scope},
            is_subscription=subscribes,
        )

    return decorator


@functools.cache
def _payload_of(resolver: Resolver) -> type[Payload]:
    payload = get_type_hints(resolver)["return"]
    assert issubclass(payload, Payload), f"{resolver.__qualname__} returns no payload"
    return cast(type[Payload], payload)
