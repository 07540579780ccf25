"""The guarded web server: inputs that once ended it, and others of their kind, end nothing but their own connection."""

import json
import logging
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import hypercorn.trio.run
import pytest
import trio
import trio.testing
from abusive_requests import MALFORMED, PREFACE, SETTINGS, UPGRADE
from control_api import guard, http
from control_api.guard import GuardedServer, SpeaksForOthers, serve_guarded
from control_api.http import App, application
from hypercorn.trio.tcp_server import TCPServer


async def _well() -> Mapping[str, object]:
    return {"healthy": True}


@asynccontextmanager
async def served(app: App, speaks_for_others: SpeaksForOthers = lambda address: True) -> AsyncIterator[tuple[str, int]]:
    """The application, served; the address of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        shutdown = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_guarded, app, [listener], shutdown, speaks_for_others))
            yield listener.getsockname()
            shutdown.set()


async def exchange(address: tuple[str, int], octets: bytes) -> bytes:
    """Send this and read to the end of what comes back."""
    with trio.fail_after(20):
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(octets)
            return await rest(stream)


async def rest(stream: trio.SocketStream, stop_at: bytes = b"nowhere in an answer") -> bytes:
    """What comes back, up to these octets or the end."""
    received = bytearray()
    try:
        while stop_at not in received and (got := await stream.receive_some()):
            received += got
    except trio.BrokenResourceError:
        pass
    return bytes(received)


async def is_served(stream: trio.SocketStream) -> bool:
    """Whether a request on this connection, which is kept, is answered."""
    await stream.send_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    with trio.fail_after(20):
        return (await rest(stream, b"}")).startswith(b"HTTP/1.1 200")


async def get(address: tuple[str, int], path: str, method: str = "GET", more: str = "") -> tuple[int, bytes, bytes]:
    """Status, header lines and body."""
    request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n"
    head, _, body = (await exchange(address, request.encode())).partition(b"\r\n\r\n")
    return int(head.split()[1]), head.lower(), body


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_bad_connection_ends_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "IDLE_S", 1.0)
    async with served(application(_well)) as address:
        async with await trio.open_tcp_stream(*address) as bystander, await trio.open_tcp_stream(*address) as stream:
            assert await is_served(bystander)
            try:
                await stream.send_all(MALFORMED[name])
                await stream.send_eof()
                await stream.receive_some()
            except trio.BrokenResourceError:
                pass  # Reset: the server closed before it had read everything.
            # A connection from before it is served, and so is one after it.
            assert await is_served(bystander)
            assert (await get(address, "/health/live"))[0] == 200
        with trio.fail_after(20):
            while GuardedServer.open_connections:
                await trio.sleep(0.01)


@pytest.mark.parametrize("name", [name for name in MALFORMED if "websocket" in name])
async def test_who_is_refused_a_websocket_takes_no_place(name: str) -> None:
    async with served(application(_well)) as address:
        with trio.fail_after(guard.IDLE_S / 2):
            await exchange(address, MALFORMED[name])


async def test_headers_that_are_too_large_are_refused_in_one_piece_as_well() -> None:
    async with served(application(_well)) as address:
        assert (await get(address, "/health/live", more=f"X: {'y' * (guard.HEADER_OCTETS - 200)}\r\n"))[0] == 200
        assert (await get(address, "/health/live", more=f"X: {'y' * guard.HEADER_OCTETS}\r\n"))[0] == 431
        assert (await get(address, f"/health/live?{'y' * guard.HEADER_OCTETS}"))[0] == 431


async def test_one_who_does_not_read_takes_no_request_of_others_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SEND_S", 0.2)
    ahead = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 100
    async with served(application(_well)) as address, await trio.open_tcp_stream(*address) as bystander:
        await bystander.send_all(b"POST /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab")
        async with await trio.open_tcp_stream(*address) as stream:
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            with trio.fail_after(20):
                try:
                    while True:
                        await stream.send_all(ahead)
                except trio.BrokenResourceError:
                    pass  # It is cut off.
        await trio.testing.wait_all_tasks_blocked()
        await bystander.send_all(b"cde")
        with trio.fail_after(20):
            assert (await rest(bystander, b"}")).startswith(b"HTTP/1.1 405")


async def test_without_the_guard_one_connection_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason for it. Where this fails, Hypercorn has learnt to stand it, and the guard may go."""
    monkeypatch.setattr(hypercorn.trio.run, "TCPServer", TCPServer)
    began, began_again = trio.Event(), trio.Event()

    async def app(scope: http.Scope, receive: http.Receive, send: http.Send) -> None:
        if scope["type"] == "lifespan":
            (began_again if began.is_set() else began).set()
        await application(_well)(scope, receive, send)

    async with served(app) as address:
        await exchange(address, MALFORMED["an octet behind the headers of a websocket upgrade"])
        # And the reason for the second fence: the server begins again.
        with trio.fail_after(20):
            await began_again.wait()
        assert (await get(address, "/health/live"))[0] == 200


@pytest.mark.parametrize("more", ["Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n", ""])
async def test_what_asks_for_http_2_is_answered_in_http_1(more: str) -> None:
    async with served(application(_well)) as address:
        if more:
            request = f"GET /health/live HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode()
            async with await trio.open_tcp_stream(*address) as stream:
                await stream.send_all(request)
                assert (await rest(stream, b"}")).startswith(b"HTTP/1.1 200")
        else:
            assert (await exchange(address, PREFACE + SETTINGS)).startswith(b"HTTP/1.1 4")


async def test_an_error_in_a_route_is_a_500_and_its_text_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> Mapping[str, object]:
        raise ValueError("a fault")

    async with served(application(broken)) as address:
        assert (await get(address, "/health/ready"))[0] == 500
        assert (await get(address, "/health/live"))[0] == 200
    assert any(record.levelno >= logging.ERROR for record in caplog.records)


async def test_a_connection_that_the_client_closes_is_gone_at_once() -> None:
    async with served(application(_well)) as address:
        async with await trio.open_tcp_stream(*address) as stream:
            assert await is_served(stream)
        with trio.fail_after(guard.IDLE_S / 3):
            while GuardedServer.open_connections:
                await trio.sleep(0.01)


async def test_connections_beyond_the_limit_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "CONNECTIONS", 1)
    async with served(application(_well)) as address, await trio.open_tcp_stream(*address) as first:
        await first.send_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await first.receive_some()).startswith(b"HTTP/1.1 200")
        assert await exchange(address, b"") == b""
        assert GuardedServer.open_connections == 1
    assert GuardedServer.open_connections == 0


async def test_one_client_does_not_take_the_places_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "CONNECTIONS_OF_ONE", 1)
    async with served(application(_well), lambda address: address != "127.0.0.1") as address:
        async with await trio.open_tcp_stream(*address) as first:
            assert await is_served(first)
            assert await exchange(address, b"") == b"", "a second one of this client"
        with trio.fail_after(20):
            while GuardedServer.of_clients:
                await trio.sleep(0.01)
        assert (await get(address, "/health/live"))[0] == 200


async def test_a_proxy_has_as_many_connections_as_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "CONNECTIONS_OF_ONE", 1)
    async with served(application(_well)) as address, await trio.open_tcp_stream(*address) as first:
        assert await is_served(first)
        assert (await get(address, "/health/live"))[0] == 200


# ------------------------------------------------------------------ health


async def test_live_and_ready() -> None:
    async with served(application(_well)) as address:
        status, head, body = await get(address, "/health/live")
        assert (status, json.loads(body)) == (200, {"live": True})
        assert b"content-type: application/json" in head
        for name, value in http.SECURITY_HEADERS:
            assert name + b": " + value in head
        assert b"server:" not in head
        status, _, body = await get(address, "/health/ready")
        assert (status, json.loads(body)) == (200, {"ready": True, "engine": "ready"})


@pytest.mark.parametrize(
    ("told", "word"), [(None, "unreachable"), ({"healthy": False, "queued": 7}, "not healthy"), ({}, "not healthy")]
)
async def test_not_ready(told: Mapping[str, object] | None, word: str) -> None:
    async def status() -> Mapping[str, object] | None:
        return told

    async with served(application(status)) as address:
        code, _, body = await get(address, "/health/ready")
        # One word: how much mail is queued is nobody's business here.
        assert (code, json.loads(body)) == (503, {"ready": False, "engine": word})
        assert (await get(address, "/health/live"))[0] == 200


async def test_head_is_get_without_the_body() -> None:
    async with served(application(_well)) as address:
        _, _, body = await get(address, "/health/live")
        status, head, nothing = await get(address, "/health/live", "HEAD")
        assert (status, nothing) == (200, b"")
        assert f"content-length: {len(body)}".encode() in head


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/health/live/", 404),
        ("GET", "/health/../etc/passwd", 404),
        ("POST", "/health/live", 405),
        ("DELETE", "/health/ready", 405),
        ("PATCH", "/nowhere", 404),
    ],
)
async def test_what_is_not_there_is_refused_in_json(method: str, path: str, status: int) -> None:
    async with served(application(_well)) as address:
        code, head, body = await get(address, path, method, "Content-Length: 0\r\n")
        assert code == status
        assert list(json.loads(body)) == ["error"]
        assert (b"allow: get, head" in head) == (status == 405)


@pytest.mark.parametrize("framing", ["Content-Length: 1000000\r\n", "Transfer-Encoding: chunked\r\n"])
async def test_a_large_body_is_refused(framing: str) -> None:
    body = b"x" * 1_000_000 if framing.startswith("Content") else b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n0\r\n\r\n"
    async with served(application(_well)) as address, await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(f"POST /health/live HTTP/1.1\r\nHost: x\r\n{framing}\r\n".encode() + body[:100_000])
        with trio.fail_after(20):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 413")


TOO_LARGE = b"POST /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 100_000


async def until_answered(stream: trio.SocketStream) -> None:
    """Returns once there is an answer to read, and reads nothing of it."""
    with trio.fail_after(20):
        await stream.socket.recv(1, socket.MSG_PEEK)


async def test_one_who_sends_all_of_a_large_body_before_reading_reads_the_refusal() -> None:
    async with served(application(_well)) as address, await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(TOO_LARGE)
        await until_answered(stream)
        for _ in range(30):
            await stream.send_all(b"x" * 100_000)
        with trio.fail_after(20):
            assert (await rest(stream)).startswith(b"HTTP/1.1 413")


async def test_a_large_body_is_not_read_to_whatever_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "LINGER_OCTETS", 1_000_000)
    async with served(application(_well)) as address, await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(TOO_LARGE)
        await until_answered(stream)
        # Before the time would be over.
        with trio.fail_after(guard.LINGER_S - 1):
            try:
                while True:
                    await stream.send_all(b"x" * 100_000)
            except trio.BrokenResourceError:
                pass


async def test_one_who_was_refused_and_stays_takes_no_place_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "LINGER_S", 0.05)
    async with served(application(_well)) as address, await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(TOO_LARGE)
        await until_answered(stream)
        with trio.fail_after(20):
            while GuardedServer.open_connections:
                await trio.sleep(0.01)


async def test_one_who_is_answered_before_all_is_heard_takes_no_place() -> None:
    asked, go_on = trio.Event(), trio.Event()

    async def app(scope: http.Scope, receive: http.Receive, send: http.Send) -> None:
        if scope["type"] == "lifespan":
            await application(_well)(scope, receive, send)
        else:
            asked.set()
            await go_on.wait()
            await send({"type": "http.response.start", "status": 413, "headers": [(b"connection", b"close")]})
            await send({"type": "http.response.body", "body": b""})

    async with served(app) as address, await trio.open_tcp_stream(*address) as stream:
        # More pieces than Hypercorn puts before an application that does not take them.
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100)
        await asked.wait()
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        with trio.fail_after(20):
            assert (await rest(stream)).startswith(b"HTTP/1.1 413")


async def test_a_slow_body_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_S", 0.05)
    async with served(application(_well)) as address:
        request = b"POST /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab"
        assert (await exchange(address, request)).startswith(b"HTTP/1.1 408")


async def test_a_websocket_is_refused() -> None:
    async with served(application(_well)) as address:
        assert (await exchange(address, UPGRADE + b"\r\n")).startswith(b"HTTP/1.1 403")


async def test_two_requests_use_one_connection() -> None:
    async with served(application(_well)) as address:
        request = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
        last = request.replace(b"Host", b"Connection: close\r\nHost")
        assert (await exchange(address, request + last)).count(b"HTTP/1.1 200") == 2


async def test_the_end_waits_for_a_request_under_way() -> None:
    asked, go_on = trio.Event(), trio.Event()

    async def slow() -> Mapping[str, object]:
        asked.set()
        await go_on.wait()
        return {"healthy": True}

    answers: list[int] = []

    async def ask(address: tuple[str, int]) -> None:
        answers.append((await get(address, "/health/ready"))[0])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        shutdown = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_guarded, application(slow), [listener], shutdown, bool))
            nursery.start_soon(ask, listener.getsockname())
            await asked.wait()
            shutdown.set()
            go_on.set()
    assert answers == [200]
