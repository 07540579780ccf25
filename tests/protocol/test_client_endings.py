"""Endings that come too soon: a reply within the content, an end in one packet with a reply, a goodbye that fails.

What was promised is believed however the connection ends behind it, and what was not is not.
"""

import pytest
import trio
from smtp_house import Caller
from smtp_scripted import as_far_as_content, as_far_as_final_dot, greet, scripted

from smtp.client.conversation import BLOCK_OCTETS
from smtp.client.trio_client import Connection, Lost, Stage, Timeouts
from smtp.reply import Reply

SHORT_S = 0.2
BLOCK = b"0123456789abcd\r\n" * (BLOCK_OCTETS // 16)
BLOCKS = 1000
"""More than fits between the two."""


async def connect(port: int, timeouts: Timeouts | None = None) -> Connection:
    return await Connection.open("127.0.0.1", port, helo="client.example", timeouts=timeouts or Timeouts())


async def send(connection: Connection, blocks: int = 0) -> tuple[int, Stage]:
    content = [b"x\r\n"] + [BLOCK] * blocks
    [result] = await connection.send("a@example.com", ["b@example.org"], content, size=3, eight_bit=False)
    return result.reply.code, result.stage


@pytest.mark.parametrize("behind", [b"", b"421 4.3.2 bye\r\n", b"250 2.0.0 and again\r\n", b"\0\xff rubbish"])
async def test_a_promise_counts_whatever_comes_in_one_packet_with_it(behind: bytes) -> None:
    async def script(client: Caller) -> None:
        await as_far_as_final_dot(client)
        await client.say(b"250 2.0.0 taken\r\n" + behind)
        await client.transport.send_eof()
        await client.line()

    async with scripted(script) as port:
        connection = await connect(port)
        assert await send(connection) == (250, Stage.END_OF_DATA)
        # Another message is not begun over what has ended, or has more to say.
        with pytest.raises(Lost) as caught:
            await send(connection)
        assert caught.value.stage is Stage.MAIL
        await connection.quit()


@pytest.mark.parametrize("answer", [b"", b"421 bye\r\n", b"500 what?\r\n", b"\0\r\n", b"354 go\r\n", None])
async def test_a_goodbye_that_fails_is_no_failure(answer: bytes | None) -> None:
    async def script(client: Caller) -> None:
        await as_far_as_final_dot(client)
        await client.say(b"250 2.0.0 taken\r\n")
        assert await client.line() == "QUIT"
        if answer is not None:
            await client.say(answer)
            await client.line()

    async with scripted(script) as port:
        connection = await connect(port, Timeouts(quit=SHORT_S))
        assert await send(connection) == (250, Stage.END_OF_DATA)
        await connection.quit()
        assert not connection.usable


@pytest.mark.parametrize(("reply", "code"), [(b"552 5.3.4 too large\r\n", 552), (b"421 4.3.2 bye\r\n", 421)])
async def test_content_that_is_refused_before_its_end_is_not_sent_to_the_end(reply: bytes, code: int) -> None:
    read = 0

    async def script(client: Caller) -> None:
        nonlocal read
        await as_far_as_content(client)
        await client.line()
        await client.say(reply)
        while octets := await client.transport.receive_some(1 << 20):
            read += len(octets)

    async with scripted(script) as port:
        connection = await connect(port)
        assert await send(connection, BLOCKS) == (code, Stage.DATA)
        assert not connection.usable
    assert read < BLOCKS * BLOCK_OCTETS


@pytest.mark.parametrize("reply", [b"250 2.0.0 taken\r\n", b"354 go on\r\n", b"\0\r\n"])
async def test_a_yes_before_the_end_of_content_is_no_promise(reply: bytes) -> None:
    """Nor is anything else that nobody has asked for: what is certain is that nothing was accepted."""

    async def script(client: Caller) -> None:
        await as_far_as_content(client)
        await client.line()
        await client.say(reply)
        while octets := await client.transport.receive_some(1 << 20):
            assert not octets.endswith(b"\r\n.\r\n")

    async with scripted(script) as port:
        with pytest.raises(Lost) as caught:
            await send(await connect(port), BLOCKS)
        assert caught.value.stage is Stage.DATA


async def test_a_yes_that_comes_with_354_is_no_promise() -> None:
    heard: list[str | None] = []
    left = trio.Event()

    async def script(client: Caller) -> None:
        await greet(client)
        while await client.line() != "DATA":
            pass
        await client.say(b"250 ok\r\n250 ok\r\n354 go\r\n250 2.0.0 taken\r\n")
        heard.append(await client.line())
        left.set()

    async with scripted(script) as port:
        with pytest.raises(Lost, match="without being asked for") as caught:
            await send(await connect(port))
        assert caught.value.stage is Stage.DATA
        await left.wait()
    assert heard == [None]


async def test_a_refusal_before_the_end_of_content_is_the_result() -> None:
    over = trio.Event()

    async def refuse(client: Caller) -> None:
        await as_far_as_content(client)
        await client.say(b"552 5.3.4 that is enough\r\n")
        await over.wait()

    async with scripted(refuse) as port:
        connection = await connect(port, Timeouts(block=SHORT_S))
        assert await send(connection, BLOCKS) == (552, Stage.DATA)
        assert not connection.usable
        over.set()


async def test_421_is_the_result_and_the_connection_is_over() -> None:
    async def part(client: Caller) -> None:
        await greet(client)
        while await client.line() != "DATA":
            pass
        await client.say(b"250 ok\r\n421 4.3.2 closing\r\n")

    async with scripted(part) as port:
        connection = await connect(port)
        assert await send(connection) == (421, Stage.RCPT)
        assert not connection.usable


async def test_a_server_that_takes_leave_between_messages() -> None:
    gone = trio.Event()

    async def one_message(client: Caller) -> None:
        await as_far_as_final_dot(client)
        await client.say(b"250 taken\r\n")
        await client.say(b"421 4.4.2 idle\r\n")
        await client.stream.aclose()
        gone.set()

    async with scripted(one_message) as port:
        connection = await connect(port)
        assert await send(connection) == (250, Stage.END_OF_DATA)
        await gone.wait()
        with pytest.raises(Lost) as caught:
            await send(connection)
        assert caught.value.stage is Stage.MAIL
        assert not connection.usable


async def test_quit_never_raises() -> None:
    async def silent(client: Caller) -> None:
        await greet(client)
        await client.line()
        await client.line()

    async def gone(client: Caller) -> None:
        await greet(client)

    for script in (silent, gone):
        async with scripted(script) as port:
            connection = await connect(port, Timeouts(quit=SHORT_S))
            await connection.quit()
            await connection.quit()
            assert not connection.usable


@pytest.mark.parametrize("code", [b"421", b"450", b"502"])
async def test_a_refused_reset_is_no_word_about_the_message(code: bytes) -> None:
    async def no_reset(client: Caller) -> None:
        await greet(client, b"250 odd.example\r\n")
        for said in (b"250 ok", b"550 no", code + b" what?"):
            await client.line()
            await client.say(said + b"\r\n")
        assert await client.line() is None

    async with scripted(no_reset) as port:
        connection = await connect(port)
        assert await send(connection) == (550, Stage.RCPT)
        with pytest.raises(Lost, match=f"rset: refused with {code.decode()} what") as caught:
            await send(connection)
        assert (caught.value.stage, caught.value.reply) == (Stage.RSET, Reply(int(code), "what?"))
        assert not connection.usable
