"""The client's driver under TLS: with our own server, and with servers that offer it and fail."""

import ssl

import pytest
import trio
from certificates import HOST, any_tls, server_tls, verifying_tls
from smtp_house import Caller, open_house, quick_settings
from smtp_scripted import greet, scripted, under_tls

from smtp.client.trio_client import ClientTls, ConnectError, Connection, Lost, Refused, Stage, Timeouts, TlsFailed

SHORT_S = 0.2
"""A timeout that a test waits for to the end."""

OFFER = b"250-odd.example\r\n250-PIPELINING\r\n250 STARTTLS\r\n"
ANYBODY = ClientTls(any_tls(), HOST)
REQUIRED = ClientTls(verifying_tls(), HOST, required=True)


async def connect(port: int, tls: ClientTls, timeouts: Timeouts | None = None) -> Connection:
    return await Connection.open(
        "127.0.0.1", port, helo="client.example", timeouts=timeouts or Timeouts(), expected_name=HOST, tls=tls
    )


async def send(connection: Connection, content: bytes = b"x\r\n", *, require_tls: bool = False) -> list[int]:
    results = await connection.send(
        "a@example.com", ["b@example.org"], [content], size=len(content), eight_bit=False, require_tls=require_tls
    )
    return [result.reply.code for result in results]


@pytest.mark.parametrize("chunking", [True, False])
async def test_messages_to_our_own_server(chunking: bool) -> None:
    large = b"\r\n" + b"0123456789abcde\r\n" * 100_000
    async with open_house(quick_settings(max_message_octets=1 << 22, tls=server_tls())) as house:
        connection = await Connection.open(
            "127.0.0.1", house.port, helo="client.example", tls=REQUIRED, chunking=chunking
        )
        assert connection.tls is not None
        assert connection.tls.verified
        assert connection.server_name == HOST
        assert "REQUIRETLS" in connection.extensions
        for content in (b"x\r\n", large, b"y\r\n"):
            assert await send(connection, content, require_tls=True) == [250]
        await connection.quit()
        assert [message.content for message in house.mailbox.messages] == [b"x\r\n", large, b"y\r\n"]
        assert house.mailbox.messages[0].parameters.require_tls
        (peer,) = house.mailbox.peers
        assert peer.tls is not None
        assert peer.tls.version == connection.tls.version


async def test_encryption_with_anybody_is_no_promise_of_requiretls() -> None:
    async with open_house(quick_settings(tls=server_tls())) as house:
        connection = await connect(house.port, ANYBODY)
        assert connection.tls is not None
        assert not connection.tls.verified
        assert await send(connection, require_tls=True) == [550]
        assert await send(connection) == [250]
        connection.aclose()


async def test_a_server_without_starttls_is_spoken_to_in_clear_unless_tls_is_required() -> None:
    async with open_house(quick_settings()) as house:
        connection = await connect(house.port, ANYBODY)
        assert connection.tls is None
        assert await send(connection) == [250]
        connection.aclose()
        with pytest.raises(TlsFailed, match="not offered"):
            await connect(house.port, REQUIRED)


async def test_a_refused_starttls_is_gone_on_from_unless_tls_is_required() -> None:
    heard: list[str | None] = []
    ended = trio.Semaphore(0)

    async def refuse(client: Caller) -> None:
        await greet(client, OFFER)
        heard.append(await client.line())
        await client.say(b"454 4.7.0 not now\r\n")
        heard.append(await client.line())
        ended.release()

    async with scripted(refuse) as port:
        connection = await connect(port, ANYBODY)
        assert connection.tls is None
        assert connection.usable
        with pytest.raises(Lost):
            await send(connection)
        with pytest.raises(Refused) as caught:
            await connect(port, REQUIRED)
        assert (caught.value.reply.code, caught.value.stage) == (454, Stage.STARTTLS)
        for _ in range(2):
            await ended.acquire()
    assert heard == ["STARTTLS", "MAIL FROM:<a@example.com>", "STARTTLS", None]


async def test_421_to_starttls_is_a_refusal() -> None:
    async def part(client: Caller) -> None:
        await greet(client, OFFER)
        await client.line()
        await client.say(b"421 4.3.2 bye\r\n")

    async with scripted(part) as port:
        with pytest.raises(Refused) as caught:
            await connect(port, ANYBODY)
        assert (caught.value.reply.code, caught.value.stage) == (421, Stage.STARTTLS)


@pytest.mark.parametrize(
    ("name", "expired", "reason"),
    [
        ("other.example.org", False, "certificate: hostname mismatch"),
        (HOST, True, "certificate: certificate has expired"),
    ],
)
async def test_a_server_that_cannot_prove_its_name(name: str, expired: bool, reason: str) -> None:
    async with open_house(quick_settings(tls=server_tls(name, expired=expired))) as house:
        with pytest.raises(TlsFailed, match=reason):
            await connect(house.port, REQUIRED)
        connection = await connect(house.port, ANYBODY)
        assert connection.tls is not None
        connection.aclose()


@pytest.mark.parametrize("name", ["", "a\0b"])
async def test_a_name_that_no_server_can_have_is_a_handshake_that_fails(name: str) -> None:
    async with open_house(quick_settings(tls=server_tls())) as house:
        with pytest.raises(TlsFailed, match="no server can have this name"):
            await connect(house.port, ClientTls(ANYBODY.context, name))


async def say_no_tls(client: Caller) -> None:
    await greet(client, OFFER)
    await client.line()
    await client.say(b"220 go\r\n")
    await client.stream.receive_some()
    await client.say(b"500 what is that?\r\n")
    await client.stream.receive_some()


async def fall_silent(client: Caller) -> None:
    await greet(client, OFFER)
    await client.line()
    await client.say(b"220 go\r\n")
    while await client.stream.receive_some():
        pass


async def inject(client: Caller) -> None:
    await greet(client, OFFER)
    await client.line()
    await client.say(b"220 go\r\n250-evil.example\r\n250 AUTH\r\n")
    await client.line()


async def leave(client: Caller) -> None:
    await greet(client, OFFER)
    await client.line()


async def leave_behind_220(client: Caller) -> None:
    await greet(client, OFFER)
    await client.line()
    await client.say(b"220 go\r\n")


async def leave_behind_handshake(client: Caller) -> None:
    await greet(client, OFFER)
    assert await client.line() == "STARTTLS"
    await client.say(b"220 go\r\n")
    await under_tls(client, server_tls())


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (say_no_tls, "tls: wrong version number"),
        (fall_silent, "tls: timed out"),
        (inject, "starttls: .* in clear"),
        (leave, "starttls: closed"),
        (leave_behind_220, "tls: .*(eof|reset|pipe|not connected)"),
        (leave_behind_handshake, "ehlo: .*(closed|eof|reset|pipe)"),
    ],
)
async def test_a_handshake_that_fails_is_told_from_a_server_that_is_not_there(script: object, reason: str) -> None:
    assert callable(script)
    async with scripted(script) as port:
        with pytest.raises(TlsFailed, match=reason):
            await connect(port, ANYBODY, Timeouts(tls=SHORT_S))
    assert issubclass(TlsFailed, ConnectError)


async def test_ehlo_is_said_again_and_what_was_offered_in_clear_is_forgotten() -> None:
    async def change(client: Caller) -> None:
        await greet(client, OFFER)
        await client.line()
        await client.say(b"220 go\r\n")
        await under_tls(client, server_tls())
        assert await client.line() == "EHLO client.example"
        await client.say(b"250-inner.example\r\n250 SIZE 7\r\n")
        assert await client.line() == "QUIT"
        await client.say(b"221 bye\r\n")

    async with scripted(change) as port:
        connection = await connect(port, REQUIRED)
        assert connection.extensions == {"SIZE": "7"}
        assert connection.server_name == "inner.example"
        await connection.quit()


async def test_a_refusal_of_ehlo_under_tls() -> None:
    async def refuse(client: Caller) -> None:
        await greet(client, OFFER)
        await client.line()
        await client.say(b"220 go\r\n")
        await under_tls(client, server_tls())
        await client.line()
        await client.say(b"450 not you\r\n")

    async with scripted(refuse) as port:
        with pytest.raises(Refused) as caught:
            await connect(port, REQUIRED)
        assert (caught.value.reply.code, caught.value.stage) == (450, Stage.EHLO)


async def test_what_comes_unasked_under_tls_ends_the_connection_before_the_next_message() -> None:
    said = trio.Event()

    async def take_leave(client: Caller) -> None:
        await greet(client, OFFER)
        await client.line()
        await client.say(b"220 go\r\n")
        await under_tls(client, server_tls())
        await client.line()
        await client.say(b"250 odd.example\r\n")
        await client.say(b"421 4.4.2 idle\r\n")
        said.set()
        await client.line()

    async with scripted(take_leave) as port:
        connection = await connect(port, REQUIRED)
        await said.wait()
        with pytest.raises(Lost) as caught:
            await send(connection)
        assert caught.value.stage is Stage.MAIL
        assert not connection.usable


async def test_cancelling_a_handshake_closes_the_connection() -> None:
    async with scripted(fall_silent) as port:
        with trio.move_on_after(SHORT_S) as scope:
            await connect(port, ANYBODY)
        assert scope.cancelled_caught


async def test_a_context_that_asks_for_a_name_gets_one() -> None:
    """The name that is sent along is the name that is checked."""
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def note(connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, asked: ssl.SSLContext) -> None:
        names.append(name)
        connection.context = server_tls()

    context.sni_callback = note
    async with open_house(quick_settings(tls=context)) as house:
        connection = await connect(house.port, REQUIRED)
        assert connection.tls is not None
        await connection.quit()
    assert names == [HOST]
