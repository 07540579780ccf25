"""A client of graphql-transport-ws that says exactly what a test wants said."""

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

PROTOCOL = "graphql-transport-ws"
ANSWER_S = 20


UPGRADE = (
    b"GET /graphql HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
)
"""The handshake, octet by octet."""


@dataclass(frozen=True, slots=True)
class WebsocketClient:
    """One connection."""

    connection: WebSocketConnection

    async def say(self, **message: object) -> None:
        """Send a message."""
        await self.connection.send_message(json.dumps(message))

    async def hear(self) -> Any:
        """The next message."""
        with trio.fail_after(ANSWER_S):
            return json.loads(await self.connection.get_message())

    async def introduce(self, payload: object = None) -> None:
        """connection_init, and its acknowledgement."""
        await self.say(type="connection_init", **({} if payload is None else {"payload": payload}))
        assert await self.hear() == {"type": "connection_ack"}

    async def subscribe(self, id: str, query: str, **variables: object) -> None:
        """Begin an operation."""
        await self.say(id=id, type="subscribe", payload={"query": query, "variables": variables})

    async def answer_to(self, query: str, **variables: object) -> Any:
        """The one answer of a query or a mutation."""
        await self.subscribe("an answer", query, **variables)
        answer = await self.hear()
        assert answer["type"] == "next", answer
        assert await self.hear() == {"id": "an answer", "type": "complete"}
        return answer["payload"]

    async def closed(self) -> tuple[int, str | None]:
        """Read until the server closes: the code and the reason."""
        with trio.fail_after(ANSWER_S):
            while self.connection.closed is None:
                with contextlib.suppress(ConnectionClosed):
                    await self.connection.get_message()
        return self.connection.closed.code, self.connection.closed.reason


@asynccontextmanager
async def websocket(
    where: int | Path, *, protocols: Sequence[str] = (PROTOCOL,), headers: Sequence[tuple[str, str]] = ()
) -> AsyncIterator[WebsocketClient]:
    """A connection to a port of this machine or a Unix socket, not yet introduced."""
    opened: trio.SocketStream = await (
        trio.open_unix_socket(where) if isinstance(where, Path) else trio.open_tcp_stream("127.0.0.1", where)
    )
    async with opened as stream, trio.open_nursery() as nursery:
        connection = await wrap_client_stream(
            nursery,
            stream,
            "127.0.0.1" if isinstance(where, Path) else f"127.0.0.1:{where}",
            "/graphql",
            subprotocols=list(protocols),
            extra_headers=[(name.encode(), value.encode()) for name, value in headers],
        )
        try:
            yield WebsocketClient(connection)
        finally:
            with trio.move_on_after(ANSWER_S):
                await connection.aclose()
            nursery.cancel_scope.cancel()


def masked(message: object) -> bytes:
    """A text frame of a client, masked with zeros (RFC 6455 §5.2)."""
    text = json.dumps(message).encode()
    length = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + text
