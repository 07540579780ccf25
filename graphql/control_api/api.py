"""The API as a whole, as the application is given it: what it may call, and what it believes of the outside."""

from dataclasses import dataclass, field

import trio

from control_api import graphql_http, graphql_ws, privacy_pages
from control_api.edges import Edges
from control_api.exchange import Answer, Receive, Request, Scope, Send
from control_api.rooms import Rooms
from control_api.watch import Watch


@dataclass(frozen=True, slots=True)
class Api:
    """GraphQL, over HTTP and over a websocket; and what there is of it for people to read."""

    rooms: Rooms
    edges: Edges
    shutdown: trio.Event = field(default_factory=trio.Event)
    """Once set, websockets are told and closed; requests under way are answered."""
    watch: Watch | None = None
    """What is told of operations over websockets; those over HTTP are known with their requests."""

    async def answer(self, request: Request) -> Answer:
        """To a GET or a POST."""
        return await graphql_http.answer(self.rooms, self.edges, request)

    async def converse(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        """Over a websocket, from before it is accepted until it is closed."""
        await graphql_ws.converse(self.rooms, self.edges, self.shutdown, self.watch, request, scope, receive, send)

    async def show_policy(self, request: Request) -> Answer:
        """What is stored here."""
        return await privacy_pages.show_policy(self.rooms, self.edges, request)

    async def show_canary(self, request: Request) -> Answer:
        """The warrant canary."""
        return await privacy_pages.show_canary(self.rooms, self.edges, request)
