"""What the guard adds to Hypercorn for websockets, and for those who do not read."""

import socket
import struct

import pytest
import trio
from control_api import guard, http
from control_api.guard import GuardedServer
from served_api import ServedApi
from websocket_client import UPGRADE, masked, websocket

LARGE = b"x" * 70_000
"""More than a message may have."""


async def is_over(open_before: int = 0) -> None:
    """Returns once no more connections than these count."""
    with trio.fail_after(10):
        while GuardedServer.open_connections > open_before:
            await trio.sleep(0.01)


async def until_broken(stream: trio.SocketStream, octets: bytes) -> None:
    """Send this over and over, until the server has closed."""
    with trio.fail_after(20):
        try:
            while True:
                await stream.send_all(octets)
        except trio.BrokenResourceError:
            pass


async def test_no_message_is_compressed(api: ServedApi) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", api.port) as stream:
        offer = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        await stream.send_all(UPGRADE.removesuffix(b"\r\n") + offer)
        head = (await stream.receive_some()).lower()
        assert head.startswith(b"http/1.1 101")
        assert b"sec-websocket-extensions" not in head


async def test_a_message_that_never_ends_is_not_kept(api: ServedApi) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", api.port) as stream:
        await stream.send_all(UPGRADE)
        assert b" 101 " in await stream.receive_some()
        # RFC 6455 §5.4: the first fragment of a message, and then one after the other, of which none is the last.
        fragment = b"\xfe" + len(LARGE[:60_000]).to_bytes(2, "big") + bytes(4) + LARGE[:60_000]
        await stream.send_all(b"\x01" + fragment)
        await until_broken(stream, b"\x00" + fragment)
    await is_over()


async def test_a_websocket_that_is_closed_takes_no_place(api: ServedApi) -> None:
    async with websocket(api.port) as client:
        await client.introduce()
        assert GuardedServer.open_connections == 1
    await is_over()


async def test_who_goes_on_after_the_close_takes_no_place(api: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "LINGER_S", 0.2)
    async with await trio.open_tcp_stream("127.0.0.1", api.port) as stream:
        await stream.send_all(UPGRADE)
        assert b" 101 " in await stream.receive_some()
        await until_broken(stream, masked({"type": "nonsense"}))
    await is_over()


async def test_who_does_not_read_is_cut_off(api: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SEND_S", 0.3)
    stream = await trio.open_tcp_stream("127.0.0.1", api.port)
    async with stream:
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await until_broken(stream, b"GET /graphql HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\n\r\n" * 100)
    await is_over()


async def test_who_asks_ahead_and_vanishes_takes_no_place(api: ServedApi) -> None:
    for _ in range(20):
        stream = await trio.open_tcp_stream("127.0.0.1", api.port)
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.send_all(b"GET /graphql HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\n\r\n" * 50)
        # A reset, while answers are on their way.
        await stream.aclose()
    await is_over()


async def test_the_operator_gets_in_however_many_strangers_there_are(
    api: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "CONNECTIONS", 0)

    def asked() -> int:
        with api.operator() as operator:
            return operator.ask("{ status { version } }").status

    assert await trio.to_thread.run_sync(asked) == 200
    async with await trio.open_tcp_stream("127.0.0.1", api.port) as stream:
        with trio.fail_after(10):
            assert await stream.receive_some() == b""


async def test_a_slow_request_is_refused_and_others_are_not_kept_waiting(
    api: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "BODY_S", 0.2)
    async with await trio.open_tcp_stream("127.0.0.1", api.port) as stream:
        await stream.send_all(b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        async with websocket(api.port) as client:
            await client.introduce()
        with trio.fail_after(10):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 408")
