"""Following the log of the running appliance: a websocket on its `control.sock` that is opened again when it breaks.

The protocol is graphql-transport-ws. Whatever breaks, nothing is lost and nothing told twice: each time it is resumed
behind the last event that was told.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import trio
from control_api.operation_files import operation
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, wrap_client_stream

from appliance.command_line.api_ids import api_id, own_id
from appliance.command_line.control import not_answering
from appliance.logbook.remembered import Told
from appliance.model.event import DeliveryEvent, EventType
from appliance.model.ids import first_id_at
from appliance.model.time import parse_instant, wall_clock
from appliance.wire import WireError

if TYPE_CHECKING:
    from appliance.configuration import Configuration

PROTOCOL = "graphql-transport-ws"

BEGIN_S = 20.0
"""How long the appliance may take to begin."""

RETRY_S = 1.0
"""How long to wait before it is tried again, where it is away."""

MAX_MESSAGE = 1 << 20
"""Octets of a message. An event has a few thousand."""

_PASSING = frozenset({"UNAVAILABLE", "RATE_LIMITED"})
"""Errors that are worth another try."""


class _Broken(Exception):
    """The connection is gone, or could not be had; another one may go better."""


def follow(
    config: Configuration,
    variables: Mapping[str, object],
    since: int | None,
    tell: Callable[[DeliveryEvent], None],
    note: Callable[[str], None],
) -> None:
    """Tell of each event as it happens, for ever; with `since` of those from that instant on first.

    `note` is told when the appliance goes away and comes back. Raises NotRunning or ControlAway where it is not there
    at the beginning, WireError with its words where it refuses, and KeyboardInterrupt for Ctrl-C.
    """
    trio.run(_Following(config, variables, since, tell, note).run)


class _Following:
    """One who follows, over as many connections as it takes."""

    def __init__(
        self,
        config: Configuration,
        variables: Mapping[str, object],
        since: int | None,
        tell: Callable[[DeliveryEvent], None],
        note: Callable[[str], None],
    ) -> None:
        self._config = config
        self._variables = variables
        self._since = since
        self._tell = tell
        self._note = note
        # An id is made a moment before what it is for is dated.
        self._began = None if since is None else first_id_at(since - 1000)
        """What sorts before all that is to be told."""
        self._last = ""
        """The id that was told last."""
        self._told = Told()
        self._has_begun = False
        self._is_away = False
        self._failure: BaseException | None = None

    async def run(self) -> None:
        """Follow until Ctrl-C or a failure that lasts, which is raised bare: no nursery has wrapped it up."""
        with trio.open_signal_receiver(signal.SIGINT) as interrupts:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_interrupted, interrupts, nursery.cancel_scope)
                await self._follow_on()
                nursery.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    async def _until_interrupted(self, interrupts: Any, following: trio.CancelScope) -> None:
        async for _ in interrupts:
            self._failure = KeyboardInterrupt()
            following.cancel()
            return

    async def _follow_on(self) -> None:
        """Connect again and again; ends with a failure that lasts."""
        while self._failure is None:
            try:
                await self._follow_once()
            except* (_Broken, ConnectionClosed, HandshakeError, OSError, trio.BrokenResourceError, trio.TooSlowError):
                if not self._has_begun and self._failure is None:
                    self._failure = WireError("the appliance does not let anybody follow its log now; its log says why")
                elif self._failure is None:
                    self._gone()
                    await trio.sleep(RETRY_S)

    async def _follow_once(self) -> None:
        with trio.fail_after(BEGIN_S):
            stream = await self._connected()
        async with stream, trio.open_nursery() as nursery:
            with trio.fail_after(BEGIN_S):
                connection = await wrap_client_stream(
                    nursery, stream, "localhost", "/graphql", subprotocols=[PROTOCOL], max_message_size=MAX_MESSAGE
                )
                await self._begin(connection)
            self._here()
            while self._failure is None:
                with self._kept():
                    await self._hear(connection)
            nursery.cancel_scope.cancel()

    async def _begin(self, connection: WebSocketConnection) -> None:
        await _say(connection, type="connection_init")
        await self._hear(connection)
        variables = {name: value for name, value in self._variables.items() if value is not None}
        if self._began is None:
            # From now on. Whoever comes again begins where it began the first time.
            self._began = first_id_at(wall_clock())
        else:
            variables["after"] = api_id("DeliveryEvent", self._last or self._began)
        await _say(
            connection, id="1", type="subscribe", payload={"query": operation("follow_log"), "variables": variables}
        )

    async def _connected(self) -> trio.SocketStream:
        try:
            return await trio.open_unix_socket(self._config.control_socket)
        except OSError:
            if not self._has_begun:
                self._failure = await trio.to_thread.run_sync(not_answering, self._config)
            raise

    async def _hear(self, connection: WebSocketConnection) -> None:
        message = json.loads(await connection.get_message())
        match message["type"]:
            case "next":
                payload = message["payload"]
                if payload.get("errors"):
                    self._refused(payload["errors"])
                event = event_of(payload["data"]["deliveryEvents"])
                # A node that was cut off while it brought an event to the log may have to bring it once more.
                if self._told.add(event.id, event.id) and (self._since is None or event.at >= self._since):
                    self._tell(event)
                self._last = event.id
            case "error":
                self._refused(message["payload"])
            case "complete":
                raise _Broken
            case "ping":
                await _say(connection, type="pong")

    def _refused(self, errors: Sequence[Mapping[str, Any]]) -> None:
        """Raises _Broken where another try may go better; what was being told is told again then. Else WireError."""
        (first, *_) = errors
        if first["extensions"]["code"] in _PASSING and self._has_begun:
            raise _Broken
        raise WireError(first["message"])

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """What a connection does not mend is kept, and ends everything; no nursery is to wrap it up."""
        try:
            yield
        except (_Broken, ConnectionClosed, trio.Cancelled):
            raise
        except BaseException as error:  # noqa: BLE001 - it is raised again, outside
            self._failure = error

    def _here(self) -> None:
        self._has_begun = True
        if self._is_away:
            self._is_away = False
            self._note("The appliance is back.")

    def _gone(self) -> None:
        if not self._is_away:
            self._is_away = True
            self._note("The appliance does not answer any more; going on as soon as it does.")


def event_of(node: Mapping[str, Any]) -> DeliveryEvent:
    """An event of the API as the model has it; it names no domain."""
    message = node["message"]
    return DeliveryEvent(
        id=own_id(node["id"]),
        message_id=own_id(message["id"]).partition(".")[0],
        domain_id="",
        at=parse_instant(node["at"]),
        type=EventType(node["type"]),
        sender=message["sender"],
        recipient=message["recipient"],
        size=message["sizeBytes"],
        code=node["code"],
        enhanced_code=node["enhancedCode"],
        reason=node["reason"],
        response=node["response"],
        attempt=node["attempt"],
        duration_ms=node["durationMs"],
        client_address=message["clientAddress"],
        client_name=message["clientName"],
        subject=message["subject"],
        server_name=node["serverName"],
        server_address=node["serverAddress"],
        tls=node["tls"],
    )


async def _say(connection: WebSocketConnection, **message: object) -> None:
    await connection.send_message(json.dumps(message))
