"""GraphQL over a websocket, by the protocol graphql-transport-ws: many operations at once over one connection.

    client                              server
    connection_init  ------------------>             within INIT_S, once, perhaps with a token
                     <------------------ connection_ack
    subscribe 1      ------------------>             a query, a mutation or a subscription
                     <------------------ next 1      one answer, or one for each event
                     <------------------ complete 1  or error 1, where nothing (more) is executed
    complete 1       ------------------>             enough of it
    ping             <-----------------> pong

Whoever says something else is told why and closed, with the codes of the protocol. Who asks is found out anew for each
operation, and every so often while operations last: one who signs out, or whose token is revoked, hears no more.

A reader who is too slow costs no memory: so many messages wait for it, then for so long the operation waits, and then
the connection is told so and closed. What it has missed, it can ask for again behind what it had last.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack, aclosing
from dataclasses import replace
from enum import Enum
from functools import partial
from typing import Any, Final

import msgspec
import trio
from graphql import OperationType

from control_api import operations, subscriptions
from control_api.callers import Credentials, identified
from control_api.context import Context
from control_api.edges import Edges, bearer
from control_api.errors import ApiError, Code, as_told, rate_limited
from control_api.exchange import Noted, Receive, Request, Scope, Send
from control_api.graphql_http import asked_of, encoded
from control_api.rooms import Rooms
from control_api.watch import Watch

PROTOCOL: Final = "graphql-transport-ws"

INIT_S = 10.0
"""How long a client may take to introduce itself. A person's hand is not in it."""
OPERATIONS = 50
"""At once on one connection: more than a page has things to show."""
WAITING_MESSAGES = 256
"""For a reader who does not keep up: ten seconds of a busy log."""
WAITING_OCTETS = 512 * 1024
"""Of all these together, and no more than one message beyond: four times those ten seconds. Answers may be large, and
so may be what a ping wants back."""
TURNS = 4
"""Operations of one connection that are read, executed and answered at once; a subscription only until it has begun.
The next one is not even heard before: what it brings would have to be kept."""
SLOW_S = 10.0
"""How long an operation waits for such a reader to make room."""
IDLE_S = 60.0
"""How long a connection is kept on which nothing is under way. Places are few, and a client comes back when it needs
one."""
STILL_KNOWN_S = 5.0
"""So often it is looked up whether the session or the token is still good."""
REASON_OCTETS = 123
"""RFC 6455 §5.5: a control frame carries 125, of which the code takes two."""


class Close(Enum):
    """Why the server closes, by the codes of graphql-transport-ws and of RFC 6455 §7.4.1."""

    NOTHING_UNDER_WAY = 1000
    GOING_AWAY = 1001
    TOO_SLOW = 1008
    INVALID_MESSAGE = 4400
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403
    NO_SUBPROTOCOL = 4406
    NO_INIT = 4408
    NOT_UNIQUE = 4409
    TOO_MANY_INITS = 4429


class _Closing(Exception):
    """The connection is closed for this reason."""

    def __init__(self, code: Close, reason: str, *last_words: Mapping[str, object]) -> None:
        """`last_words` are messages that are said before."""
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.last_words = last_words


class _Gone(Exception):
    """The client has closed, or is not there any more."""


async def converse(
    rooms: Rooms,
    edges: Edges,
    shutdown: trio.Event,
    watch: Watch | None,
    request: Request,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Serve one connection, from before it is accepted until it is closed, or `shutdown` is set."""
    if (await receive())["type"] != "websocket.connect":
        return
    # A browser asks no leave for a websocket to another site, and sends cookies along: the origin is all there is.
    if edges.is_foreign(request):
        # Before it is accepted this is a 403.
        await send({"type": "websocket.close", "code": Close.FORBIDDEN.value})
        return
    offered = PROTOCOL in scope["subprotocols"]
    await send({"type": "websocket.accept", "subprotocol": PROTOCOL if offered else None})
    conversation = _Conversation(rooms, send, partial(watch.carried_out, request) if watch is not None else _pass)
    try:
        if not offered:
            raise _Closing(Close.NO_SUBPROTOCOL, f"The subprotocol is {PROTOCOL}")
        await conversation.go(edges, request, receive, shutdown)
    except* _Closing as group:
        closing = _first(group)
        for message in closing.last_words:
            await _send(send, message)
        reason = closing.reason.encode()[:REASON_OCTETS].decode("utf-8", "ignore")
        await send({"type": "websocket.close", "code": closing.code.value, "reason": reason})
    except* _Gone:
        pass


class _Conversation:
    """What is known of one connection."""

    def __init__(self, rooms: Rooms, send: Send, carried_out: Callable[[Noted, float], None]) -> None:
        """`carried_out` is told of each operation that has ended, and for how many seconds it went on."""
        self._rooms = rooms
        self._send = send
        self._carried_out = carried_out
        self._credentials = Credentials()
        self._acknowledged = False
        self._under_way: dict[str, trio.CancelScope] = {}
        self._last_busy_at = trio.current_time()
        self._turns = trio.Semaphore(TURNS)
        self._outgoing, self._to_write = trio.open_memory_channel[bytes](WAITING_MESSAGES)
        self._waiting_octets = 0
        self._written = trio.Event()

    async def go(self, edges: Edges, request: Request, receive: Receive, shutdown: trio.Event) -> None:
        """Raises _Closing or _Gone, in a group."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            nursery.start_soon(self._until, shutdown)
            try:
                self._credentials = edges.credentials(request)
            except ApiError as error:
                raise _Closing(Close.FORBIDDEN, error.message) from None
            with trio.move_on_after(INIT_S):
                while not self._acknowledged:
                    await self._hear(await _message(receive), nursery)
            if not self._acknowledged:
                raise _Closing(Close.NO_INIT, "Connection initialisation timeout")
            nursery.start_soon(self._still_known)
            nursery.start_soon(self._until_idle)
            while True:
                await self._hear(await _message(receive), nursery)

    # ------------------------------------------------------------------ what the client says

    async def _hear(self, message: Mapping[str, Any], nursery: trio.Nursery) -> None:
        match message:
            case {"type": "connection_init"}:
                await self._begin(message.get("payload"))
            case {"type": "ping"}:
                payload = {"payload": message["payload"]} if "payload" in message else {}
                await self._say({"type": "pong", **payload})
            case {"type": "pong"}:
                pass
            case {"type": "complete", "id": str(id)}:
                if id in self._under_way:
                    self._under_way.pop(id).cancel()
            case {"type": "subscribe", "id": str(id), "payload": payload} if id:
                await self._subscribe(id, payload, nursery)
            case _:
                raise _Closing(Close.INVALID_MESSAGE, "Invalid message")

    async def _begin(self, payload: object) -> None:
        if self._acknowledged:
            raise _Closing(Close.TOO_MANY_INITS, "Too many initialisation requests")
        if payload is not None and not isinstance(payload, dict):
            raise _Closing(Close.INVALID_MESSAGE, "The payload of connection_init is an object")
        try:
            for name, value in (payload or {}).items():
                if name.lower() == "authorization":
                    self._credentials = replace(self._credentials, bearer=bearer(str(value)))
            await self._in_thread(identified, self._credentials, self._rooms.doorkeeper)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told as much as it may know
            told = as_told(error)
            code = Close.FORBIDDEN if told.code is Code.UNAUTHENTICATED else Close.GOING_AWAY
            raise _Closing(code, told.message) from None
        self._acknowledged = True
        await self._say({"type": "connection_ack"})

    async def _subscribe(self, id: str, payload: object, nursery: trio.Nursery) -> None:
        if not self._acknowledged:
            raise _Closing(Close.UNAUTHORIZED, "Unauthorized")
        if id in self._under_way:
            raise _Closing(Close.NOT_UNIQUE, f"Subscriber for {id} already exists")
        try:
            asked = asked_of(payload)
        except ApiError as error:
            raise _Closing(Close.INVALID_MESSAGE, error.message) from None
        if len(self._under_way) >= OPERATIONS:
            too_many = rate_limited(f"At most {OPERATIONS} operations at once on one connection.", 1)
            await self._say(_error(id, operations.refused(too_many).errors))
            return
        await self._turns.acquire()
        turn = ExitStack()
        turn.callback(self._turns.release)
        scope = self._under_way[id] = trio.CancelScope()
        nursery.start_soon(self._carry_out, id, asked, scope, turn)

    # ------------------------------------------------------------------ operations

    async def _carry_out(self, id: str, asked: operations.Request, scope: trio.CancelScope, turn: ExitStack) -> None:
        with turn:
            await self._carry_out_in_turn(id, asked, scope, turn)

    async def _carry_out_in_turn(
        self, id: str, asked: operations.Request, scope: trio.CancelScope, turn: ExitStack
    ) -> None:
        last: Mapping[str, object] = {"id": id, "type": "complete"}
        noted, began = Noted(), trio.current_time()
        try:
            with scope:
                try:
                    await self._answers(id, asked, noted, turn)
                except operations.Refusal as refusal:
                    noted.answered(refusal.errors)
                    last = _error(id, refusal.errors)
                except _Closing:
                    raise
                except Exception as error:  # noqa: BLE001 - the source of events has failed; the connection has not
                    told = operations.refused(as_told(error))
                    noted.answered(told.errors)
                    last = _error(id, told.errors)
        finally:
            self._carried_out(noted, trio.current_time() - began)
        self._last_busy_at = trio.current_time()
        # One that the client has completed is forgotten already, and its id perhaps in use again.
        if self._under_way.get(id) is scope:
            del self._under_way[id]
            await self._say(last)

    async def _answers(self, id: str, asked: operations.Request, noted: Noted, turn: ExitStack) -> None:
        began = await self._in_thread(self._executed, asked, noted)
        if isinstance(began, dict):
            noted.answered(began.get("errors", ()))
            await self._say({"id": id, "type": "next", "payload": began})
            return
        known, context = began
        turn.close()
        async with aclosing(await subscriptions.subscribe(known, asked, context)) as answers:
            async for answer in answers:
                await self._say({"id": id, "type": "next", "payload": msgspec.Raw(answer)})

    def _executed(self, asked: operations.Request, noted: Noted) -> dict[str, Any] | tuple[operations.Read, Context]:
        """In a worker thread: the answer of a query or a mutation, or what a subscription begins with."""
        caller = identified(self._credentials, self._rooms.doorkeeper)
        noted.account_id = caller.account_id
        context = Context(caller, self._rooms, over_http=False)
        known = operations.read(asked.query, signed_in=caller.is_signed_in)
        if known.operation(asked.operation_name, noted).operation is OperationType.SUBSCRIPTION:
            return known, context
        return operations.execute(known, asked, context)

    async def _in_thread(self, work: Any, *arguments: object) -> Any:
        return await operations.in_thread(self._credentials.address, work, *arguments)

    # ------------------------------------------------------------------ what the client is told

    async def _say(self, message: Mapping[str, object]) -> None:
        octets = encoded(message)
        with trio.move_on_after(SLOW_S) as limit:
            while self._waiting_octets > WAITING_OCTETS:
                await self._written.wait()
            self._waiting_octets += len(octets)
            try:
                await self._outgoing.send(octets)
            except trio.Cancelled:
                self._waiting_octets -= len(octets)
                raise
        if limit.cancelled_caught:
            error = rate_limited("You read too slowly. Go on behind what you have had last.", 1)
            last_words = [_error(id, operations.refused(error).errors) for id in self._under_way]
            raise _Closing(Close.TOO_SLOW, error.message, *last_words)

    async def _write(self) -> None:
        async for octets in self._to_write:
            await self._send({"type": "websocket.send", "text": octets.decode()})
            self._waiting_octets -= len(octets)
            self._written.set()
            self._written = trio.Event()

    async def _until_idle(self) -> None:
        while self._under_way or trio.current_time() < self._last_busy_at + IDLE_S:
            # While something is under way it is looked at later again: to end a connection is not urgent.
            await trio.sleep(IDLE_S if self._under_way else self._last_busy_at + IDLE_S - trio.current_time())
        raise _Closing(Close.NOTHING_UNDER_WAY, "Nothing is under way. Connect again when there is")

    async def _until(self, shutdown: trio.Event) -> None:
        await shutdown.wait()
        raise _Closing(Close.GOING_AWAY, "The appliance stops. Connect again in a moment")

    async def _still_known(self) -> None:
        """Close once a session or a token is no good any more."""
        before = None
        while True:
            try:
                now = await self._in_thread(identified, self._credentials, self._rooms.doorkeeper)
            except Exception as error:  # noqa: BLE001 - a store that is away says nothing about the credential
                if as_told(error).code is Code.UNAUTHENTICATED:
                    raise _Closing(Close.FORBIDDEN, "The token is no good any more") from None
            else:
                if before is not None and now.credential_id != before.credential_id:
                    raise _Closing(Close.FORBIDDEN, "The session has ended")
                before = now
            await trio.sleep(STILL_KNOWN_S)


async def _message(receive: Receive) -> Mapping[str, Any]:
    """The next message of the client. Raises _Gone, or _Closing for what is no JSON object."""
    received = await receive()
    if received["type"] == "websocket.disconnect":
        raise _Gone
    try:
        message = msgspec.json.decode(received.get("text") or "")
    except (msgspec.DecodeError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise _Closing(Close.INVALID_MESSAGE, "A message is a JSON object, as text")
    return message


async def _send(send: Send, message: Mapping[str, object]) -> None:
    await send({"type": "websocket.send", "text": encoded(message).decode()})


def _pass(noted: Noted, duration_s: float) -> None:
    """Where nobody watches."""


def _error(id: str, errors: list[dict[str, Any]]) -> Mapping[str, object]:
    return {"id": id, "type": "error", "payload": errors}


def _first(group: BaseExceptionGroup[_Closing]) -> _Closing:
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("a group has members")
