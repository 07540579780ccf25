"""A server on loopback that does what a test tells it to, however odd."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
from smtp_house import LIMIT_S, Caller

EHLO = b"250-odd.example\r\n250-PIPELINING\r\n250-SIZE 0\r\n250 8BITMIME\r\n"


@asynccontextmanager
async def scripted(script: Callable[[Caller], Awaitable[None]]) -> AsyncIterator[int]:
    """Each connection is one run of the script, and is closed behind it. Gives the port."""

    async def run(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                await script(Caller(stream))
            except trio.BrokenResourceError:
                # The client has gone: its test says whether that was right.
                pass

    with trio.fail_after(LIMIT_S):
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, run, listeners)
            yield listeners[0].socket.getsockname()[1]
            nursery.cancel_scope.cancel()


async def greet(client: Caller, ehlo: bytes = EHLO) -> None:
    """The greeting, and the reply to EHLO."""
    await client.say(b"220 odd.example ESMTP\r\n")
    assert await client.line() == "EHLO client.example"
    await client.say(ehlo)


async def under_tls(client: Caller, context: ssl.SSLContext) -> None:
    """Shake hands, as a server: from here on the client is spoken to under TLS."""
    secured: trio.SSLStream[trio.SocketStream] = trio.SSLStream(client.transport, context, server_side=True)
    await secured.do_handshake()
    client.stream = secured


async def as_far_as_content(client: Caller) -> None:
    """Up to 354, for one recipient."""
    await greet(client)
    while await client.line() != "DATA":
        pass
    await client.say(b"250 ok\r\n250 ok\r\n354 go\r\n")


async def as_far_as_final_dot(client: Caller) -> None:
    """Up to the final dot, which is not answered."""
    await as_far_as_content(client)
    while await client.line() != ".":
        pass
