"""What a resolver knows besides its arguments: who asks, the rooms, and the cookies that the answer may set."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import strawberry

from control_api.callers import Caller
from control_api.errors import bad_input
from control_api.limits import Budget
from control_api.rooms import Rooms


class Cookie(Enum):
    """The cookies there are, by name. Both are HttpOnly: no script has a use for them."""

    SESSION = "onward_session"
    """The secret of a session."""
    DEVICE = "onward_device"
    """What a browser was given at an earlier sign-in; it lets nobody in (`appliance.access.devices`)."""


@dataclass(frozen=True, slots=True)
class SetCookie:
    """What an answer does with a cookie."""

    cookie: Cookie
    value: str
    lives_s: int
    """0: it is taken away."""


@dataclass(slots=True)
class Context:
    """Of one operation."""

    caller: Caller
    rooms: Rooms
    over_http: bool = True
    """Whether the answer has headers. One over a websocket has none, and can set no cookie."""
    cookies: list[SetCookie] = field(default_factory=list)
    """What the answer is to do with cookies."""
    budget: Budget = field(default_factory=Budget)
    memory: dict[object, Any] = field(default_factory=dict)
    """What resolvers of this operation have found out already, under a key that each chooses."""

    def set_cookie(self, cookie: Cookie, value: str, lives_s: int) -> None:
        """Have the answer set a cookie, which lives this many seconds."""
        self.cookies.append(SetCookie(cookie, value, lives_s))

    def take_cookie_away(self, cookie: Cookie) -> None:
        """Have the answer end a cookie."""
        self.cookies.append(SetCookie(cookie, "", 0))

    def require_headers(self) -> None:
        """Raise BAD_USER_INPUT where the answer cannot set a cookie."""
        if not self.over_http:
            raise bad_input("This sets a cookie, which a websocket can't: ask for it by POST.")


Info = strawberry.Info[Context, None]
"""What resolvers take as `info`."""
