"""The client's driver on real sockets: with our own server, and with servers that fall silent or talk rubbish."""

import errno
import itertools
import math
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
import trio
from smtp_house import Caller, open_house, quick_settings
from smtp_scripted import as_far_as_content, as_far_as_final_dot, greet, scripted

from smtp.address import Address
from smtp.client.trio_client import ConnectError, Connection, Lost, Refused, Stage, Timeouts
from smtp.errors import ProtocolError

SHORT_S = 0.2
"""A timeout that a test waits for to the end."""

Script = Callable[[Caller], Awaitable[None]]


async def connect(port: int, timeouts: Timeouts | None = None) -> Connection:
    timeouts = timeouts or Timeouts()
    return await Connection.open("127.0.0.1", port, helo="client.example", timeouts=timeouts)


async def send(connection: Connection, content: bytes = b"x\r\n") -> list[tuple[int, Stage]]:
    results = await connection.send("a@example.com", ["b@example.org"], [content], size=len(content), eight_bit=False)
    return [(result.reply.code, result.stage) for result in results]


async def test_messages_to_our_own_server() -> None:
    lines: list[str] = []

    async def content() -> AsyncIterator[bytes]:
        yield b"Subject: x\r"
        yield b"\n\r\n."
        yield b"text \xff"

    async with open_house() as house:
        connection = await Connection.open(
            "127.0.0.1",
            house.port,
            helo="client.example",
            source_address="127.0.0.3",
            trace=lambda mark, line: lines.append(f"{mark} {line}"),
        )
        assert connection.server_name == "mx.example.org"
        assert connection.extensions["SIZE"] == str(1 << 20)
        recipients = ["b@example.org", "unknown@example.org"]
        results = await connection.send(Address("a", "example.com"), recipients, content(), size=22, eight_bit=True)
        assert [(result.reply.code, result.stage) for result in results] == [
            (250, Stage.END_OF_DATA),
            (550, Stage.RCPT),
        ]
        assert connection.usable
        assert await send(connection) == [(250, Stage.END_OF_DATA)]
        await connection.quit()
        assert not connection.usable
        one, two = house.mailbox.messages
        assert one.content == b"Subject: x\r\n\r\n.text \xff\r\n"
        assert (one.parameters.size, one.parameters.body) == (22, "8BITMIME")
        assert two.content == b"x\r\n"
        assert house.mailbox.peers[0].address == "127.0.0.3"
    assert "> MAIL FROM:<a@example.com> SIZE=22 BODY=8BITMIME" in lines
    assert "< 550 5.1.1 No such user" in lines
    assert not any("text" in line for line in lines)


async def test_a_large_message_to_our_own_server() -> None:
    content = b"\r\n" + b"".join(b".line %d\r\n" % number for number in range(300_000))
    async with open_house(quick_settings(max_message_octets=1 << 23)) as house:
        connection = await connect(house.port)
        assert await send(connection, content) == [(250, Stage.END_OF_DATA)]
        connection.aclose()
        assert house.mailbox.messages[0].content == content


async def test_nobody_listens() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectError, match="connection refused"):
            await connect(reserved.getsockname()[1])


@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EMFILE])
async def test_no_socket_can_be_had(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A kernel without IPv6, and too many open files: whoever has more addresses goes on to the next."""

    class NoSocketForIpv6(socket.socket):
        def __init__(self, family: int = -1, kind: int = -1, proto: int = -1, fileno: int | None = None) -> None:
            if family == socket.AF_INET6:
                raise OSError(number, os.strerror(number))
            super().__init__(family, kind, proto, fileno)

    async with open_house(quick_settings()) as house:
        monkeypatch.setattr(socket, "socket", NoSocketForIpv6)
        with pytest.raises(ConnectError, match=f"connect: {os.strerror(number).lower()}"):
            await Connection.open("::1", house.port, helo="client.example")
        connection = await connect(house.port)
        assert connection.usable
        connection.aclose()


async def test_nobody_answers() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        # Fill the queue of connections that nobody accepts: the kernel lets the next one wait.
        waiting = []
        try:
            for _ in range(3):
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex(deaf.getsockname())
            with pytest.raises(ConnectError, match="connect: timed out"):
                await connect(deaf.getsockname()[1], Timeouts(connect=SHORT_S))
        finally:
            for one in waiting:
                one.close()


async def say_nothing(client: Caller) -> None:
    await client.line()


async def close_at_once(client: Caller) -> None:
    pass


async def talk_rubbish(client: Caller) -> None:
    await client.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await client.line()


async def greet_and_fall_silent(client: Caller) -> None:
    await client.say(b"220 odd.example\r\n")
    await client.line()
    await client.line()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (say_nothing, "greeting: timed out"),
        (close_at_once, "greeting: closed by the server"),
        (talk_rubbish, "greeting: this is not an SMTP reply"),
        (greet_and_fall_silent, "ehlo: timed out"),
    ],
)
async def test_no_conversation_comes_about(script: Script, reason: str) -> None:
    async with scripted(script) as port:
        with pytest.raises(ConnectError, match=reason):
            await connect(port, Timeouts(greeting=SHORT_S, ehlo=SHORT_S))


@pytest.mark.parametrize(
    ("says", "code", "stage"),
    [
        (b"554 no\r\n", 554, Stage.GREETING),
        (b"421 4.3.2 busy\r\n", 421, Stage.GREETING),
        (b"220 x\r\n450 later\r\n", 450, Stage.EHLO),
        (b"220 x\r\n500 what\r\n550 no\r\n", 550, Stage.HELO),
    ],
)
async def test_refused(says: bytes, code: int, stage: Stage) -> None:
    async def refuse(client: Caller) -> None:
        for line in says.splitlines(keepends=True):
            await client.say(line)
            await client.line()

    async with scripted(refuse) as port:
        with pytest.raises(Refused) as caught:
            await connect(port)
        assert (caught.value.reply.code, caught.value.stage) == (code, stage)


async def test_a_server_of_the_old_school() -> None:
    said = []

    async def old(client: Caller) -> None:
        await client.say(b"220 \r\n")
        assert await client.line() == "EHLO client.example"
        await client.say(b"500 what?\r\n")
        for answer in (b"250 hi\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
            said.append(await client.line())
            await client.say(answer)
        said.append(await client.line())
        assert await client.line() == "."
        await client.say(b"250 taken\r\n")
        assert await client.line() == "QUIT"
        await client.say(b"221 bye\r\n")

    async with scripted(old) as port:
        connection = await Connection.open("127.0.0.1", port, helo="client.example", expected_name="old.example")
        assert connection.extensions == {}
        assert connection.server_name == "old.example"
        assert await send(connection) == [(250, Stage.END_OF_DATA)]
        await connection.quit()
    assert said == ["HELO client.example", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "DATA", "x"]


async def end_behind_mail(client: Caller) -> None:
    await greet(client)
    await client.line()


async def end_behind_first_reply(client: Caller) -> None:
    await greet(client)
    while await client.line() != "DATA":
        pass
    await client.say(b"250 ok\r\n")


async def end_behind_354(client: Caller) -> None:
    await as_far_as_content(client)
    # Not a word of the content is read: what was written is thrown away with the connection.


async def rubbish_behind_final_dot(client: Caller) -> None:
    await as_far_as_final_dot(client)
    await client.say(b"thank you\r\n")
    await client.line()


async def break_off_behind_354(client: Caller) -> None:
    await greet(client)
    await client.stream.receive_some(1)
    # In one breath, so that the client learns of both at once. The rest of the envelope was never read: the kernel
    # makes the close a reset.
    os.write(client.transport.socket.fileno(), b"250 ok\r\n250 ok\r\n354 go\r\n")
    client.transport.socket.close()


async def dribble_behind_final_dot(client: Caller) -> None:
    await as_far_as_final_dot(client)
    await client.say(b"250 ")
    while True:
        await client.say(b".")
        await trio.sleep(SHORT_S / 2)


async def silent_behind_final_dot(client: Caller) -> None:
    await as_far_as_final_dot(client)
    await client.line()


@pytest.mark.parametrize(
    ("script", "stage", "reason"),
    [
        (end_behind_mail, Stage.MAIL, "closed|reset|pipe"),
        (end_behind_first_reply, Stage.RCPT, "closed|reset|pipe"),
        (as_far_as_final_dot, Stage.END_OF_DATA, "closed|reset"),
        (rubbish_behind_final_dot, Stage.END_OF_DATA, "not an SMTP reply"),
        (break_off_behind_354, Stage.DATA, "reset|pipe"),
        (dribble_behind_final_dot, Stage.END_OF_DATA, "timed out"),
        (silent_behind_final_dot, Stage.END_OF_DATA, "timed out"),
    ],
)
async def test_lost(script: Script, stage: Stage, reason: str) -> None:
    async with scripted(script) as port:
        connection = await connect(port, Timeouts(end_of_data=SHORT_S))
        with pytest.raises(Lost, match=reason) as caught:
            await send(connection)
        assert caught.value.stage is stage
        assert not connection.usable


async def test_lost_in_the_middle_of_content_is_not_delivered() -> None:
    async with scripted(end_behind_354) as port:
        connection = await connect(port)
        with pytest.raises(Lost) as caught:
            await send(connection, b"0123456789abcdef\r\n" * 1_000_000)
        assert caught.value.stage is Stage.DATA


async def test_a_server_that_stops_reading_content() -> None:
    over = trio.Event()

    async def stop(client: Caller) -> None:
        await as_far_as_content(client)
        await over.wait()

    async with scripted(stop) as port:
        connection = await connect(port, Timeouts(block=SHORT_S))
        with pytest.raises(Lost, match="timed out") as caught:
            await send(connection, b"0123456789abcdef\r\n" * 1_000_000)
        assert caught.value.stage is Stage.DATA
        over.set()


async def test_a_session_that_is_exhausted_is_not_used_again() -> None:
    async def one_only(client: Caller) -> None:
        await greet(client, b"250-odd.example\r\n250-PIPELINING\r\n250 LIMITS MAILMAX=1 RCPTMAX=1\r\n")
        while await client.line() != "DATA":
            pass
        await client.say(b"250 ok\r\n250 ok\r\n354 go\r\n")
        while await client.line() != ".":
            pass
        await client.say(b"250 taken\r\n")
        assert await client.line() == "QUIT"
        await client.say(b"221 bye\r\n")

    async with scripted(one_only) as port:
        connection = await connect(port)
        assert connection.limits.recipients == 1
        assert connection.usable
        recipients = ["b@example.org", "c@example.org"]
        results = await connection.send("", recipients, [b"x\r\n"], size=3, eight_bit=False)
        assert [(result.reply.code, result.stage) for result in results] == [
            (250, Stage.END_OF_DATA),
            (452, Stage.LOCAL),
        ]
        assert not connection.usable
        await connection.quit()


async def test_content_that_cannot_be_read_ends_without_a_dot() -> None:
    heard: list[str | None] = []
    ended = trio.Event()

    async def listen(client: Caller) -> None:
        await as_far_as_content(client)
        try:
            while (line := await client.line()) is not None:
                heard.append(line)
        except AssertionError:
            heard.append("broken off")
        ended.set()

    async def content() -> AsyncIterator[bytes]:
        yield b"x" * 100_000 + b"\r\n"
        raise LookupError("the spool is gone")

    async with scripted(listen) as port:
        connection = await connect(port)
        with pytest.raises(LookupError):
            await connection.send("", ["b@example.org"], content(), size=5, eight_bit=False)
        assert not connection.usable
        await ended.wait()
    assert "." not in heard


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "input/output error"),
        ProtocolError("not a server's"),
        trio.ClosedResourceError("nor a wait's"),
    ],
)
@pytest.mark.parametrize("before", [b"", b"x" * 100_000])
async def test_what_the_content_raises_is_not_blamed_on_the_server(error: Exception, before: bytes) -> None:
    def content() -> Iterator[bytes]:
        yield before
        raise error

    async def content_that_waits() -> AsyncIterator[bytes]:
        for octets in content():
            yield octets

    for what in (content, content_that_waits):
        async with scripted(as_far_as_final_dot) as port:
            connection = await connect(port)
            with pytest.raises(type(error)) as caught:
                await connection.send("", ["b@example.org"], what(), size=5, eight_bit=False)
            assert caught.value is error
            assert not connection.usable


async def test_content_that_is_slow_to_come_has_the_time_that_a_message_has() -> None:
    async def content() -> AsyncIterator[bytes]:
        await trio.sleep(2 * SHORT_S)
        yield b"x\r\n"

    async with open_house() as house:
        connection = await connect(house.port, Timeouts(mail=SHORT_S, rcpt=SHORT_S, data=SHORT_S, block=SHORT_S))
        results = await connection.send("", ["b@example.org"], content(), size=3, eight_bit=False)
        assert [result.reply.code for result in results] == [250]
        connection.aclose()


async def test_replies_to_commands_that_have_not_left_are_no_answers() -> None:
    """A server that answers a large envelope in advance, and is gone before it could have read all of it."""

    async def guess(client: Caller) -> None:
        await greet(client)
        # The rest of the envelope is never read: the kernel makes the close a reset.
        await client.stream.receive_some(1)
        text = b"x" * 430
        os.write(client.transport.socket.fileno(), (b"250 " + text + b"\r\n") * 151 + b"354 " + text + b"\r\n")
        client.transport.socket.close()

    for _ in range(10):
        async with scripted(guess) as port:
            connection = await connect(port)
            recipients = [f"r{number}@example.org" for number in range(150)]
            with pytest.raises(Lost) as caught:
                await connection.send("", recipients, [b"x\r\n"], size=3, eight_bit=False)
            assert caught.value.stage in (Stage.RCPT, Stage.DATA)


async def test_a_message_ends_after_its_time_however_steadily_the_server_goes_on() -> None:
    async def dribble(client: Caller) -> None:
        await greet(client)
        while True:
            await client.line()
            await trio.sleep(SHORT_S / 2)
            await client.say(b"250 ok\r\n")

    async with scripted(dribble) as port:
        connection = await connect(port, Timeouts(rcpt=SHORT_S, mail=SHORT_S, message=3 * SHORT_S))
        with pytest.raises(Lost, match=r"rcpt: timed out: 0\.6 s are the most for a message") as caught:
            await connection.send("", ["b@example.org"] * 90, [b"x\r\n"], size=3, eight_bit=False)
        assert caught.value.stage is Stage.RCPT


async def test_content_that_is_read_block_by_block_ends_after_that_time_too() -> None:
    async def sip(client: Caller) -> None:
        await as_far_as_content(client)
        while True:
            await client.transport.receive_some(65536)
            await trio.sleep(SHORT_S / 40)

    async with scripted(sip) as port:
        connection = await connect(port, Timeouts(block=2 * SHORT_S, message=3 * SHORT_S))
        endless = itertools.repeat(b"0123456789abcdef\r\n" * 4096)
        with pytest.raises(Lost, match="the most for a message") as caught:
            await connection.send("", ["b@example.org"], endless, size=5, eight_bit=False)
        assert caught.value.stage is Stage.DATA


async def test_content_that_never_comes_ends_after_that_time_too() -> None:
    async def content() -> AsyncIterator[bytes]:
        yield b"x\r\n"
        await trio.sleep_forever()

    async with scripted(as_far_as_final_dot) as port:
        connection = await connect(port, Timeouts(message=SHORT_S))
        with pytest.raises(Lost, match=r"data: timed out: 0\.2 s are the most for a message"):
            await connection.send("", ["b@example.org"], content(), size=3, eight_bit=False)
        assert not connection.usable


async def test_the_wait_for_the_final_reply_does_not_count() -> None:
    async def think(client: Caller) -> None:
        await as_far_as_final_dot(client)
        await trio.sleep(2 * SHORT_S)
        await client.say(b"250 taken\r\n")

    async with scripted(think) as port:
        connection = await connect(port, Timeouts(message=SHORT_S))
        assert await send(connection) == [(250, Stage.END_OF_DATA)]
        connection.aclose()


async def test_cancelling_ends_without_a_dot() -> None:
    ended = trio.Event()
    begun = trio.Event()
    heard: list[str | None] = []

    async def listen(client: Caller) -> None:
        await as_far_as_content(client)
        begun.set()
        try:
            while (line := await client.line()) is not None:
                heard.append(line)
        except AssertionError:
            heard.append("broken off")
        ended.set()

    async def content() -> AsyncIterator[bytes]:
        yield b"x" * 100_000 + b"\r\n"
        await trio.sleep(math.inf)

    async with scripted(listen) as port:
        connection = await connect(port)
        async with trio.open_nursery() as nursery:

            async def deliver() -> None:
                await connection.send("", ["b@example.org"], content(), size=5, eight_bit=False)

            nursery.start_soon(deliver)
            await begun.wait()
            nursery.cancel_scope.cancel()
        assert not connection.usable
        await ended.wait()
    assert "." not in heard


def test_the_least_that_the_standard_asks_for() -> None:
    """RFC 5321 §4.5.3.2, in seconds."""
    timeouts = Timeouts()
    assert timeouts.greeting >= 300
    assert timeouts.of(Stage.MAIL) >= 300
    assert timeouts.of(Stage.RCPT) >= 300
    assert timeouts.of(Stage.DATA) >= 120
    assert timeouts.block >= 180
    assert timeouts.of(Stage.END_OF_DATA) >= 600
    # RSET, MAIL and DATA as slow as they may be, a hundred recipients at 20 s, and 50 MiB at 128 kbit/s.
    assert timeouts.message >= 300 + 300 + 120 + 100 * 20 + (50 << 20) / 16_000
