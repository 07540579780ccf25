"""A message step by step: what is said to each recipient is heard before there is another, as transit needs it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from smtp_house import Caller, open_house, quick_settings
from smtp_scripted import EHLO, greet, scripted

from smtp.client.envelope import (
    NO_EIGHT_BIT,
    NO_REQUIRED_TLS,
    NO_UTF8_ADDRESS,
    NO_UTF8_HEADER,
    TOO_LARGE,
    TOO_MANY_RECIPIENTS,
)
from smtp.client.events import Answered, Done, Event, GoAhead
from smtp.client.session import ClientSession
from smtp.client.trio_client import ChunkingRefused, Connection, Lost, Stage, Timeouts
from smtp.errors import SessionMisuse
from smtp.parameters import MailParameters, Notify, RecipientParameters
from smtp.reply import Reply

SHORT_S = 0.2
PLAIN_EHLO = b"250 odd.example\r\n"
CHUNKING_EHLO = b"250-odd.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
Script = Callable[[Caller], Awaitable[None]]


async def connect(port: int, timeouts: Timeouts | None = None, *, chunking: bool = True) -> Connection:
    return await Connection.open(
        "127.0.0.1", port, helo="client.example", timeouts=timeouts or Timeouts(), chunking=chunking
    )


async def begin(connection: Connection, sender: str = "a@example.com", **needs: Any) -> Reply:
    return await connection.begin(
        sender, **({"size": None, "eight_bit": False, "utf8": False, "require_tls": False} | needs)
    )


def answers(*replies: bytes, ehlo: bytes = EHLO, said: list[str] | None = None) -> Script:
    """Greet, and give each command one of these."""

    async def script(client: Caller) -> None:
        await greet(client, ehlo)
        for reply in replies:
            line = await client.line()
            if said is not None and line is not None:
                said.append(line)
            await client.say(reply)
        while (line := await client.line()) is not None:
            if said is not None:
                said.append(line)

    return script


@pytest.mark.parametrize("chunking", [False, True])
async def test_each_recipient_is_answered_before_the_next_one(chunking: bool) -> None:
    async with open_house(quick_settings()) as house:
        connection = await connect(house.port, chunking=chunking)
        for number in range(2):
            assert (await begin(connection, size=20)).code == 250
            assert (await connection.ask_recipient("b@example.org")).code == 250
            refused = await connection.ask_recipient("unknown@example.org")
            assert (refused.code, refused.enhanced) == (550, "5.1.1")
            assert (await connection.ask_recipient("c@example.org")).code == 250
            assert (await connection.send_content([b"Subject: %d\r\n" % number, b"\r\n.text \xff\r\n"])).code == 250
        await connection.quit()
        assert [message.content for message in house.mailbox.messages] == [
            b"Subject: 0\r\n\r\n.text \xff\r\n",
            b"Subject: 1\r\n\r\n.text \xff\r\n",
        ]
        assert [str(recipient) for recipient in house.mailbox.messages[0].recipients] == [
            "b@example.org",
            "c@example.org",
        ]


async def test_steps_and_whole_messages_share_a_connection() -> None:
    async with open_house(quick_settings()) as house:
        connection = await connect(house.port)
        assert (await begin(connection)).code == 250
        assert (await connection.ask_recipient("b@example.org")).code == 250
        await connection.reset()
        assert connection.usable
        [result] = await connection.send("a@example.com", ["c@example.org"], [b"x\r\n"], size=3, eight_bit=False)
        assert (result.reply.code, result.stage) == (250, Stage.END_OF_DATA)
        connection.aclose()
        [message] = house.mailbox.messages
        assert [str(recipient) for recipient in message.recipients] == ["c@example.org"]


async def test_the_commands_and_their_parameters() -> None:
    said: list[str] = []
    ehlo = b"250-odd.example\r\n250-SIZE 100\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 DSN\r\n"
    script = answers(*[b"250 ok\r\n"] * 2, b"354 go\r\n", ehlo=ehlo, said=said)
    async with scripted(script) as port:
        connection = await connect(port)
        await begin(connection, size=7, utf8=True)
        await connection.ask_recipient("b@example.org", RecipientParameters(frozenset({Notify.NEVER})))
        with trio.move_on_after(SHORT_S):
            await connection.send_content([b"x\r\n"])
    # RFC 6152 §3: BODY is a word about what may come, and what will is not known yet.
    assert said[0] == "MAIL FROM:<a@example.com> SIZE=7 BODY=8BITMIME SMTPUTF8"
    assert said[1:3] == ["RCPT TO:<b@example.org> NOTIFY=NEVER", "DATA"]


async def test_a_refused_sender_leaves_no_transaction() -> None:
    said: list[str] = []
    async with scripted(answers(b"550 5.7.1 not you\r\n", b"250 ok\r\n", said=said)) as port:
        connection = await connect(port)
        assert str(await begin(connection)) == "550 5.7.1 not you"
        with pytest.raises(SessionMisuse):
            await connection.ask_recipient("b@example.org")
        assert connection.usable
        assert (await begin(connection, "")).code == 250
        connection.aclose()
    assert said == ["MAIL FROM:<a@example.com> BODY=8BITMIME", "MAIL FROM:<> BODY=8BITMIME"]


async def test_what_is_left_open_is_reset_before_the_next_message() -> None:
    said: list[str] = []
    replies = (b"250 ok\r\n", b"452 4.2.2 full\r\n", b"250 reset\r\n", b"250 ok\r\n")
    async with scripted(answers(*replies, ehlo=PLAIN_EHLO, said=said)) as port:
        connection = await connect(port)
        await begin(connection)
        assert (await connection.ask_recipient("b@example.org")).code == 452
        with pytest.raises(SessionMisuse):
            await connection.send_content([b"x\r\n"])
        await connection.reset()
        assert connection.usable
        await connection.reset()
        assert (await begin(connection)).code == 250
        connection.aclose()
    assert said[2:] == ["RSET", "MAIL FROM:<a@example.com>"]


@pytest.mark.parametrize(
    ("needs", "ehlo", "reply"),
    [
        ({"eight_bit": True}, PLAIN_EHLO, NO_EIGHT_BIT),
        ({"utf8": True}, EHLO, NO_UTF8_HEADER),
        ({"utf8": True, "sender": "ä@example.com"}, EHLO, NO_UTF8_ADDRESS),
        ({"require_tls": True}, EHLO, NO_REQUIRED_TLS),
        ({"size": 101}, b"250-odd.example\r\n250 SIZE 100\r\n", TOO_LARGE),
    ],
)
async def test_what_the_server_lacks_it_is_not_asked_for(needs: dict[str, Any], ehlo: bytes, reply: Reply) -> None:
    said: list[str] = []
    async with scripted(answers(ehlo=ehlo, said=said)) as port:
        connection = await connect(port)
        assert await begin(connection, **needs) == reply
        assert connection.usable
        connection.aclose()
    assert said == []


async def test_an_address_in_utf8_for_a_message_that_did_not_say_so() -> None:
    said: list[str] = []
    async with scripted(answers(b"250 ok\r\n", b"250 ok\r\n", said=said)) as port:
        connection = await connect(port)
        await begin(connection)
        assert await connection.ask_recipient("ü@example.org") == NO_UTF8_ADDRESS
        assert (await connection.ask_recipient("b@exämple.org")).code == 250
        with pytest.raises(ValueError, match="printable"):
            await connection.ask_recipient("b@example.org>\r\nDATA")
        connection.aclose()
    assert said[1:] == ["RCPT TO:<b@xn--exmple-cua.org>"]


async def test_more_recipients_than_the_server_takes_are_not_asked_for() -> None:
    ehlo = b"250-odd.example\r\n250-PIPELINING\r\n250 LIMITS RCPTMAX=2 RCPTDOMAINMAX=1\r\n"
    said: list[str] = []
    async with scripted(answers(*[b"250 ok\r\n"] * 5, ehlo=ehlo, said=said)) as port:
        connection = await connect(port)
        await begin(connection)
        addresses = ["a@example.org", "b@example.com", "c@example.org", "d@example.org"]
        replies = [await connection.ask_recipient(address) for address in addresses]
        assert [reply == TOO_MANY_RECIPIENTS for reply in replies] == [False, True, False, True]
        connection.aclose()
    assert said[1:] == ["RCPT TO:<a@example.org>", "RCPT TO:<c@example.org>"]


async def pieces(*octets: bytes) -> AsyncIterator[bytes]:
    for piece in octets:
        yield piece


@pytest.mark.parametrize("streamed", [False, True])
async def test_eight_bit_content_for_a_server_that_takes_none(streamed: bool) -> None:
    said: list[str] = []
    replies = (b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n" if streamed else b"250 reset\r\n")
    async with scripted(answers(*replies, ehlo=PLAIN_EHLO, said=said)) as port:
        connection = await connect(port)
        await begin(connection)
        await connection.ask_recipient("b@example.org")
        content: AsyncIterator[bytes] | Iterable[bytes] = [b"Subject: x\r\n", b"\xff\r\n"]
        if streamed:
            content = pieces(*content)  # type: ignore[misc]
        assert await connection.send_content(content) == NO_EIGHT_BIT
        await connection.reset()
        assert connection.usable is not streamed
        connection.aclose()
    # Half a message has no final dot.
    assert said[2:] in (["RSET"], ["DATA"], ["DATA", "Subject: x"])


@pytest.mark.parametrize("ehlo", [EHLO, PLAIN_EHLO, CHUNKING_EHLO])
async def test_one_reply_for_all_who_were_accepted(ehlo: bytes) -> None:
    async def script(client: Caller) -> None:
        await greet(client, ehlo)
        for reply in (b"250 ok\r\n", b"250 ok\r\n", b"450 later\r\n", b"250 ok\r\n"):
            await client.line()
            await client.say(reply)
        if ehlo is CHUNKING_EHLO:
            assert await client.line() == "BDAT 3 LAST"
            assert await client.line() == "x"
        else:
            assert await client.line() == "DATA"
            await client.say(b"354 go\r\n")
            assert await client.line() == "x"
            assert await client.line() == "."
        await client.say(b"554 5.6.0 not this\r\n")
        await client.line()

    async with scripted(script) as port:
        connection = await connect(port)
        await begin(connection)
        codes = [(await connection.ask_recipient(f"{name}@example.org")).code for name in "bcd"]
        assert codes == [250, 450, 250]
        assert str(await connection.send_content([b"x\r\n"])) == "554 5.6.0 not this"
        assert connection.usable
        connection.aclose()


async def take_step(connection: Connection, at: Stage) -> Reply | None:
    match at:
        case Stage.MAIL:
            return await begin(connection)
        case Stage.RCPT:
            return await connection.ask_recipient("b@example.org")
        case Stage.DATA:
            return await connection.send_content([b"x\r\n"])
        case _:
            await connection.reset()
            return None


STEPS = [Stage.MAIL, Stage.RCPT, Stage.DATA]
BREAKS = {"421": b"421 4.3.2 going down\r\n", "rubbish": b"\0\r\n", "wrong code": b"199 x\r\n"}


@pytest.mark.parametrize("at", [*STEPS, Stage.RSET])
@pytest.mark.parametrize("how", ["close", "silence", *BREAKS])
async def test_a_server_that_breaks_off_at_a_step(at: Stage, how: str) -> None:
    async def script(client: Caller) -> None:
        await greet(client)
        while (line := await client.line()) is not None:
            if not line.startswith(at.value.upper()):
                await client.say(b"250 ok\r\n")
            elif how == "close":
                return
            else:
                await client.say(BREAKS.get(how, b""))

    async with scripted(script) as port:
        connection = await connect(port, Timeouts(mail=SHORT_S, rcpt=SHORT_S, data=SHORT_S))
        for step in STEPS[: STEPS.index(at)] if at in STEPS else STEPS[:2]:
            reply = await take_step(connection, step)
            assert reply is not None
            assert reply.positive
        if at is Stage.RSET:
            await connection.reset()
        elif how == "421":
            reply = await take_step(connection, at)
            assert reply is not None
            assert reply.code == 421
        else:
            with pytest.raises(Lost) as caught:
                await take_step(connection, at)
            assert caught.value.stage is at
        assert not connection.usable
        for step in STEPS:
            with pytest.raises(Lost, match="had ended before"):
                await take_step(connection, step)
        await connection.reset()


@pytest.mark.parametrize("how", ["421", "close"])
@pytest.mark.parametrize("at", [Stage.RCPT, Stage.DATA])
async def test_what_a_server_says_while_its_client_waits_is_the_answer_to_the_next_step(at: Stage, how: str) -> None:
    """Transit waits for its own client between two steps, and a server may have enough of that."""
    gone = trio.Event()

    async def script(client: Caller) -> None:
        await greet(client)
        for _ in range(STEPS.index(at)):
            await client.line()
            await client.say(b"250 ok\r\n")
        if how == "421":
            await client.say(b"421 4.4.2 idle for too long\r\n")
        await client.transport.send_eof()
        gone.set()
        await client.line()

    async with scripted(script) as port:
        connection = await connect(port)
        for step in STEPS[: STEPS.index(at)]:
            await take_step(connection, step)
        await gone.wait()
        if how == "421":
            reply = await take_step(connection, at)
            assert reply is not None
            assert reply.code == 421
        else:
            with pytest.raises(Lost) as caught:
                await take_step(connection, at)
            assert caught.value.stage is at
        assert not connection.usable


@pytest.mark.parametrize("how", ["close", "silence"])
async def test_no_reply_to_the_final_dot_leaves_a_doubt(how: str) -> None:
    async def script(client: Caller) -> None:
        await greet(client)
        for reply in (b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
            await client.line()
            await client.say(reply)
        while await client.line() != ".":
            pass
        if how == "silence":
            await client.line()

    async with scripted(script) as port:
        connection = await connect(port, Timeouts(end_of_data=SHORT_S))
        for step in STEPS[:2]:
            await take_step(connection, step)
        with pytest.raises(Lost) as caught:
            await connection.send_content([b"x\r\n"])
        assert caught.value.stage is Stage.END_OF_DATA


async def test_chunking_that_is_not_known_after_all() -> None:
    said: list[str] = []
    replies = (b"250 ok\r\n", b"250 ok\r\n", b"502 what?\r\n")
    async with scripted(answers(*replies, ehlo=CHUNKING_EHLO, said=said)) as port:
        connection = await connect(port)
        for step in STEPS[:2]:
            await take_step(connection, step)
        with pytest.raises(ChunkingRefused):
            await connection.send_content([b"x\r\n"])
        assert not connection.usable


async def test_cancelling_a_step_closes_the_connection() -> None:
    async with scripted(answers(b"250 ok\r\n")) as port:
        connection = await connect(port)
        await begin(connection)
        with trio.move_on_after(SHORT_S):
            await connection.ask_recipient("b@example.org")
        assert not connection.usable


def test_steps_have_their_order() -> None:
    session = ClientSession("client.example")
    for misuse in (
        session.ask_for_content,
        session.reset,
        lambda: session.ask_recipient("b@example.org"),
        lambda: session.begin_by_steps("", MailParameters()),
    ):
        with pytest.raises(SessionMisuse):
            misuse()


def opened() -> ClientSession:
    session = ClientSession("client.example")
    for octets in (b"220 x\r\n", PLAIN_EHLO):
        session.octets_to_send()
        session.receive(octets)
        session.next_event()
    session.octets_to_send()
    return session


def told(session: ClientSession, code: int) -> Event | None:
    """What comes of a reply."""
    session.octets_to_send()
    session.receive(b"%d x\r\n" % code)
    return session.next_event()


def whole(count: int, codes: Iterator[int]) -> list[int]:
    """The codes of each recipient's result, where the message is begun as a whole."""
    session = opened()
    session.begin("a@example.com", [f"r{number}@example.org" for number in range(count)], MailParameters())
    while True:
        event = told(session, next(codes))
        if isinstance(event, GoAhead):
            session.content(b"x\r\n")
            session.end_content()
        elif isinstance(event, Done):
            return [result.reply.code for result in event.results]


def by_steps(count: int, codes: Iterator[int]) -> list[int]:
    """The same step by step."""
    session = opened()
    session.begin_by_steps("a@example.com", MailParameters())
    event = told(session, next(codes))
    if isinstance(event, Done):
        return [event.results[0].reply.code] * count
    found: list[int] = []
    for number in range(count):
        session.ask_recipient(f"r{number}@example.org")
        event = told(session, next(codes))
        if isinstance(event, Done):
            code = event.results[0].reply.code
            return [each if each >= 400 else code for each in found] + [code] * (count - number)
        assert isinstance(event, Answered)
        found.append(event.reply.code)
    if all(code >= 400 for code in found):
        return found
    session.ask_for_content()
    event = told(session, next(codes))
    if isinstance(event, GoAhead):
        session.content(b"x\r\n")
        session.end_content()
        event = told(session, next(codes))
    assert isinstance(event, Done)
    return [each if each >= 400 else event.results[0].reply.code for each in found]


ENVELOPE_CODES = st.sampled_from([250, 250, 250, 251, 421, 450, 550])


@given(
    st.integers(1, 5).flatmap(lambda count: st.lists(ENVELOPE_CODES, min_size=count + 1, max_size=count + 1)),
    st.sampled_from([354, 354, 421, 451, 554]),
    st.sampled_from([250, 421, 451, 554]),
)
def test_steps_come_to_the_same_as_a_message_as_a_whole(envelope: list[int], data: int, end: int) -> None:
    codes = [*envelope, data, end]
    count = len(envelope) - 1
    assert by_steps(count, iter(codes)) == whole(count, iter(codes))
