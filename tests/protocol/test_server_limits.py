"""What one client may take of the server, in octets, in time, in errors and in patience, and what is given back."""

import contextlib
import socket

import pytest
import trio
from smtp_house import LIMIT_S, Caller, House, call, open_house, quick_settings
from smtp_memory import Mailbox, MemoryReceiver

from smtp.address import Address
from smtp.parameters import RecipientParameters
from smtp.reply import Reply
from smtp.server.conduct import ConductLimits
from smtp.server.serving import Peer, Statistics
from smtp.server.session import MAX_COMMAND_OCTETS, MAX_ERRORS, MAX_UNSENT_OCTETS, SMALL_CHUNK_OCTETS
from smtp.server.trio_session import House as SessionHouse
from smtp.server.trio_session import Session
from smtp.trio_socket import Socket

SHORT_S = 0.2
"""A time that a test waits for to the end."""
ENVELOPE = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n"


def bdat(content: bytes, last: bool = False) -> bytes:
    return b"BDAT %d%s\r\n" % (len(content), b" LAST" if last else b"") + content


async def ended(house: House) -> None:
    house.shutdown.set()
    await house.ended.wait()
    assert house.statistics.connections_open == 0


async def everything(caller: Caller) -> list[str]:
    """All lines until the connection has ended."""
    lines = []
    while (line := await caller.line()) is not None:
        lines.append(line)
    return lines


# ---------------------------------------------------------------------- octets


@pytest.mark.parametrize("with_chunks", [False, True], ids=["DATA", "BDAT"])
@pytest.mark.parametrize(
    ("content", "reply"),
    [
        (b"Subject: x\r\n\r\n" + b"y" * 998 + b"\r\n", "250 "),
        (b"Subject: x\r\n\r\n" + b"y" * 999 + b"\r\n", "554 5.6.0 "),
        (b"Subject: " + b"x" * 990 + b"\r\n\r\n", "554 5.6.0 "),
        (b"X: y\r\n" * 333 + b"\r\n" + b"text\r\n" * 1000, "250 "),
        (b"X: y\r\n" * 334 + b"\r\n", "552 5.3.4 "),
        (b"X: y\r\n" * 400, "552 5.3.4 "),
    ],
    ids=["long line", "too long line", "too long header line", "large header", "too large header", "only a header"],
)
async def test_lines_and_header_sections_have_a_limit(content: bytes, reply: str, with_chunks: bool) -> None:
    settings = quick_settings(max_line_octets=1000, max_header_octets=2000)
    async with open_house(settings) as house, call(house) as caller:
        await caller.greeted()
        await caller.say(ENVELOPE)
        assert await caller.codes(2) == ["250", "250"]
        if with_chunks:
            await caller.say(bdat(content, last=True))
        else:
            assert (await caller.ask("DATA") or "").startswith("354 ")
            await caller.say(content + b".\r\n")
        assert (await caller.line() or "").startswith(reply)
        refused = not reply.startswith("250")
        assert (len(house.mailbox.messages), house.mailbox.resets) == (not refused, refused)
        assert (await caller.send(b"better\r\n") or "").startswith("250 ")


async def test_a_command_has_a_limit_and_its_tail_is_not_executed() -> None:
    async with open_house() as house, call(house) as caller:
        await caller.greeted()
        assert (await caller.ask("NOOP".ljust(MAX_COMMAND_OCTETS - 2)) or "").startswith("250 ")
        assert (await caller.ask("NOOP".ljust(MAX_COMMAND_OCTETS - 1)) or "").startswith("500 5.5.2 ")
        assert (await caller.ask("NOOP".ljust(70_000) + "QUIT") or "").startswith("500 5.5.2 ")
        assert (await caller.ask("NOOP") or "").startswith("250 ")


# ---------------------------------------------------------------------- commands and errors


async def test_errors_are_borne_and_then_no_more() -> None:
    async with open_house() as house, call(house) as caller:
        await caller.greeted()
        await caller.say(b"NOPE\r\n" * (MAX_ERRORS + 5))
        lines = await everything(caller)
        assert [line[:9] for line in lines] == ["500 5.5.1"] * (MAX_ERRORS - 1) + ["421 4.7.0"]


async def test_what_comes_at_the_wrong_time_is_no_error() -> None:
    async with open_house() as house, call(house) as caller:
        await caller.greeted()
        await caller.say(b"MAIL FROM:<unwelcome@example.com>\r\n" + b"RCPT TO:<b@example.org>\r\n" * 100 + b"DATA\r\n")
        assert await caller.codes(102) == ["550"] + ["503"] * 101
        assert (await caller.ask("NOOP") or "").startswith("250 ")


@pytest.mark.parametrize("content", [b"DATA\r\n", b"BDAT 3 LAST\r\nx\r\n"], ids=["DATA", "BDAT"])
async def test_a_pipelined_message_that_nobody_here_wants_is_no_error(content: bytes) -> None:
    """RFC 2920 §3.1: DATA is under way before the client has heard that there is no recipient."""
    settings = quick_settings(conduct=ConductLimits(unknown_recipients_max=1000, tarpit_s=0))
    async with open_house(settings) as house, call(house) as caller:
        await caller.greeted()
        for _ in range(2 * MAX_ERRORS):
            await caller.say(ENVELOPE.replace(b"b@", b"unknown@") + content + b"RSET\r\n")
            assert await caller.codes(4) == ["250", "550", "554", "250"]


async def test_commands_without_a_message_have_a_limit() -> None:
    settings = quick_settings(max_recipients=5, max_commands=50)
    async with open_house(settings) as house, call(house) as caller:
        await caller.greeted()
        await caller.say(b"NOOP\r\n" * 60)
        lines = await everything(caller)
        # EHLO was the first.
        assert [line[:9] for line in lines] == ["250 2.0.0"] * 49 + ["421 4.7.0"]


async def test_a_message_makes_room_for_more_commands() -> None:
    async with open_house(quick_settings(max_recipients=5, max_commands=50)) as house, call(house) as caller:
        await caller.greeted()
        for _ in range(4):
            await caller.say(b"NOOP\r\n" * 40)
            assert await caller.codes(40) == ["250"] * 40
            assert (await caller.send(b"text\r\n") or "").startswith("250 ")
        assert (await caller.send(b"text\r\n", sender="no-end@example.com") or "").startswith("550 ")
        await caller.say(b"NOOP\r\n" * 60)
        assert [line[:3] for line in await everything(caller)] == ["250"] * 47 + ["421"]


async def test_chunks_of_one_message_are_not_counted_as_idle_commands() -> None:
    """There are clients that make each chunk of one buffer of theirs: some kilobytes, for messages of any size."""
    chunk = b"x" * (SMALL_CHUNK_OCTETS - 2) + b"\r\n"
    async with open_house(quick_settings(max_recipients=5, max_commands=50)) as house, call(house) as caller:
        await caller.greeted()
        await caller.say(ENVELOPE + bdat(chunk) * 200 + bdat(b"", last=True))
        assert await caller.codes(203) == ["250"] * 203
        assert house.mailbox.messages[0].content == chunk * 200


async def test_tiny_chunks_are_commands_like_others() -> None:
    async with open_house(quick_settings(max_recipients=5, max_commands=50)) as house, call(house) as caller:
        await caller.greeted()
        await caller.say(ENVELOPE + bdat(b"ab") * 200)
        assert [line[:3] for line in await everything(caller)] == ["250"] * 49 + ["421"]
        assert not house.mailbox.messages


async def test_a_refused_message_is_not_read_without_end() -> None:
    async with open_house(quick_settings(max_message_octets=1000)) as house, call(house) as caller:
        await caller.in_content()
        with contextlib.suppress(trio.BrokenResourceError):
            for _ in range(100):
                await caller.say(b"0123456789abcdef" * 4096)
        assert (await caller.line() or "552 5.3.4 ").startswith("552 5.3.4 ")
        house.shutdown.set()
        await house.ended.wait()
        assert house.mailbox.resets == 1


# ---------------------------------------------------------------------- time


async def drip(caller: Caller, octets: bytes) -> None:
    """Send without end, slowly: an octet for each time that the server has had a look at the clock, about."""
    try:
        while True:
            await caller.say(octets)
            await trio.sleep(SHORT_S / 10)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        # The server has had enough.
        pass


@pytest.mark.parametrize("beginning", [b"DATA\r\n", b"BDAT 1000000\r\n", b"BDAT 1000000 LAST\r\n"])
async def test_content_that_comes_too_slowly_is_not_waited_for(beginning: bytes) -> None:
    settings = quick_settings(min_octets_per_s=10_000, rate_window_s=SHORT_S)
    async with open_house(settings) as house, call(house) as caller, trio.open_nursery() as nursery:
        await caller.greeted()
        await caller.say(ENVELOPE + beginning)
        nursery.start_soon(drip, caller, b"x")
        assert (await everything(caller))[-1].startswith("421 4.4.2 mx.example.org Content comes too slowly")
        await ended(house)
        assert house.mailbox.messages == []
        assert house.mailbox.resets == 1


@pytest.mark.parametrize(
    "beginning",
    [b"DATA\r\na bare \r and more", b"BDAT 1000000\r\na bare \r and more", b"RSET\r\nBDAT 1000000\r\n"],
    ids=["DATA", "BDAT", "a chunk of no message"],
)
async def test_nor_is_content_that_is_refused_already(beginning: bytes) -> None:
    settings = quick_settings(min_octets_per_s=10_000, rate_window_s=SHORT_S)
    async with open_house(settings) as house, call(house) as caller, trio.open_nursery() as nursery:
        await caller.greeted()
        await caller.say(ENVELOPE + beginning)
        nursery.start_soon(drip, caller, b"x")
        assert (await everything(caller))[-1].startswith("421 4.4.2 ")
        await ended(house)
        assert house.mailbox.resets == 1


async def test_content_that_comes_fast_enough_has_its_time() -> None:
    settings = quick_settings(min_octets_per_s=100, rate_window_s=SHORT_S / 4)
    async with open_house(settings) as house, call(house) as caller:
        await caller.greeted()
        await caller.say(ENVELOPE + b"DATA\r\n")
        assert await caller.codes(3) == ["250", "250", "354"]
        with trio.move_on_after(2 * SHORT_S):
            await drip(caller, b"x" * 70 + b"\r\n")
        await caller.say(b"\r\n.\r\n")
        assert await caller.code() == "250"


async def test_the_time_between_two_chunks_is_not_slow_content() -> None:
    settings = quick_settings(min_octets_per_s=1 << 20, rate_window_s=SHORT_S / 4)
    async with open_house(settings) as house, call(house) as caller:
        await caller.greeted()
        for chunk in (ENVELOPE, bdat(b"one\r\n")):
            await caller.say(chunk)
        assert await caller.codes(3) == ["250"] * 3
        with trio.move_on_after(SHORT_S):
            await caller.line()
            raise AssertionError("something was said, or the connection has ended")
        await caller.say(bdat(b"two\r\n", last=True))
        assert await caller.code() == "250"


@pytest.mark.parametrize(
    "octets",
    [b"x" * 50, b"BDAT 10\r\n0123456789", b"\r"],
    ids=["in one chunk", "in many chunks", "in one that is refused"],
)
async def test_a_transaction_in_chunks_has_its_time_and_no_more(octets: bytes) -> None:
    settings = quick_settings(transaction_timeout_s=SHORT_S, max_commands=1 << 20)
    async with open_house(settings) as house, call(house) as caller, trio.open_nursery() as nursery:
        await caller.greeted()
        await caller.say(ENVELOPE + (b"" if octets.startswith(b"BDAT") else b"BDAT 100000000\r\n"))
        nursery.start_soon(drip, caller, octets)
        assert (await everything(caller))[-1].startswith("421 4.4.2 ")
        await ended(house)
        assert house.mailbox.messages == []
        assert house.mailbox.resets == 1


async def test_so_has_a_chunk_that_belongs_to_no_transaction() -> None:
    settings = quick_settings(transaction_timeout_s=SHORT_S)
    async with open_house(settings) as house, call(house) as caller, trio.open_nursery() as nursery:
        await caller.greeted()
        await caller.say(b"BDAT 99999999999999999999\r\n")
        nursery.start_soon(drip, caller, b"x" * 50)
        assert [line[:9] for line in await everything(caller)] == ["421 4.4.2"]


async def test_a_transaction_that_was_refused_long_ago_costs_the_next_nothing() -> None:
    settings = quick_settings(transaction_timeout_s=SHORT_S)
    async with open_house(settings) as house, call(house) as caller, call(house) as other:
        await caller.greeted()
        assert (await caller.send(b"\n") or "").startswith("550 5.6.11 ")
        await other.greeted()
        await other.say(ENVELOPE)
        assert (await everything(other))[-1].startswith("421 4.4.2 ")
        # It began later, and is over: so would be the time of the first.
        await caller.say(b"BDAT 100\r\n" + b"x" * 50)
        with trio.move_on_after(SHORT_S / 2):
            await caller.line()
            raise AssertionError("something was said, or the connection has ended")
        await caller.say(b"x" * 50)
        assert await caller.code() == "503"
        assert (await caller.send(b"text\r\n") or "").startswith("250 ")


class Thoughtful(MemoryReceiver):
    """Takes longer to promise than a transaction may take."""

    async def end_of_data(self) -> Reply:
        await trio.sleep(2 * SHORT_S)
        return await super().end_of_data()


async def test_the_time_of_the_promise_is_not_the_clients() -> None:
    mailbox = Mailbox()
    settings = quick_settings(transaction_timeout_s=SHORT_S)
    async with open_house(settings, new_receiver=lambda peer: Thoughtful(mailbox)) as house, call(house) as caller:
        await caller.greeted()
        for _ in range(2):
            assert (await caller.send(b"text\r\n") or "").startswith("250 ")
        assert (await caller.ask("QUIT") or "").startswith("221 ")


# ---------------------------------------------------------------------- replies that nobody reads


@pytest.mark.parametrize("count", range(-2, 3))
async def test_a_client_is_left_wherever_in_a_long_group_the_replies_are_sent(count: int) -> None:
    """Replies are sent when they are many. When that was after the last of a group, there is still a next command."""
    reply = len(b"250 2.1.5 Recipient OK\r\n")
    recipients = MAX_UNSENT_OCTETS // reply + count
    settings = quick_settings(command_timeout_s=SHORT_S, max_recipients=1000)
    async with open_house(settings) as house, call(house) as caller:
        await caller.greeted()
        assert (await caller.ask("MAIL FROM:<a@example.com>") or "").startswith("250 ")
        await caller.say(b"RCPT TO:<b@example.org>\r\n" * recipients)
        lines = await everything(caller)
        assert [line[:9] for line in lines] == ["250 2.1.5"] * recipients + ["421 4.4.2"]


async def test_what_is_said_is_never_torn() -> None:
    """Who has to leave in the middle of a reply does not find the 421 in the same line."""
    mailbox = Mailbox()
    house = SessionHouse(mailbox.new_receiver, quick_settings(max_commands=1 << 20), pytest.fail, Statistics())
    with socket.socket() as listener, socket.socket() as client, trio.fail_after(LIMIT_S):
        # The kernel keeps little, so that it soon is full.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client.connect(listener.getsockname())
        session = Session(Socket(listener.accept()[0]), Peer("127.0.0.1", 1), house)
        client.sendall(b"HELP\r\n" * 2000)
        read = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.run)
            while house.statistics.replies[2] < 50 or not session.may_leave:
                await trio.lowlevel.checkpoint()
            # All that the kernel has, and then the news, before the session can go on.
            client.setblocking(False)
            read += _what_has_come(client)
            session.make_room()
        client.setblocking(True)
        try:
            while more := client.recv(65536):
                read += more
        except ConnectionResetError:
            pass
    assert read.count(b"HELP") > 10
    # The last line may be cut off with the connection.
    for line in read.split(b"\r\n")[:-1]:
        assert line.count(b"421") == line.startswith(b"421"), line


def _what_has_come(client: socket.socket) -> bytes:
    read = b""
    try:
        while more := client.recv(65536):
            read += more
    except BlockingIOError:
        pass
    return read


# ---------------------------------------------------------------------- recipients that there are not

QUICK_CONDUCT = ConductLimits(
    tarpit_after=5, tarpit_s=SHORT_S, unknown_recipients_max=8, recipient_leak_s=LIMIT_S, errors_max=30
)


async def guess(house: House, source: str) -> tuple[str, float]:
    """One connection, one guess: the line that it was answered, and how many seconds that took."""
    async with call(house, source) as caller:
        greeting = await caller.reply() or ""
        if not greeting.startswith("220"):
            return greeting, 0.0
        await caller.hello()
        await caller.ask("MAIL FROM:<a@example.com>")
        began = trio.current_time()
        reply = await caller.ask("RCPT TO:<unknown@example.org>") or ""
        return reply, trio.current_time() - began


async def test_who_guesses_at_recipients_waits_longer_and_is_then_sent_away() -> None:
    async with open_house(quick_settings(conduct=QUICK_CONDUCT)) as house:
        guesses = [await guess(house, "127.0.0.1") for _ in range(10)]
        assert [reply[:9] for reply, _ in guesses] == ["550 5.1.1"] * 7 + ["421 4.7.0"] + ["421 mx.ex"] * 2
        took = [seconds for _, seconds in guesses]
        assert min(took[4:7]) >= SHORT_S
        assert max(took[:4]) < SHORT_S
        # Nobody else is meant.
        assert (await guess(house, "127.0.0.2"))[0].startswith("550 5.1.1 ")
        async with call(house, "127.0.0.2") as other:
            await other.greeted()
            assert (await other.send(b"text\r\n") or "").startswith("250 ")
        await ended(house)
        assert house.errors == []
        # The last guess was answered with 421 within its session; the two that came then were not let in.
        assert house.statistics.connections_turned_away == 2


async def test_who_is_sent_away_in_a_transaction_leaves_nothing_behind() -> None:
    async with open_house(quick_settings(conduct=QUICK_CONDUCT)) as house, call(house) as caller:
        await caller.greeted()
        await caller.say(ENVELOPE + b"RCPT TO:<unknown@example.org>\r\n" * 10)
        assert [line[:9] for line in await everything(caller)][-1] == "421 4.7.0"
        await ended(house)
        assert house.mailbox.resets == 1


async def test_who_writes_to_people_that_there_are_may_mistype_some() -> None:
    conduct = ConductLimits(tarpit_after=5, tarpit_s=LIMIT_S, unknown_recipients_max=8)
    async with open_house(quick_settings(conduct=conduct)) as house, call(house) as caller:
        await caller.greeted()
        for _ in range(20):
            await caller.say(ENVELOPE + b"RCPT TO:<unknown@example.org>\r\nRSET\r\n")
            assert await caller.codes(4) == ["250", "250", "550", "250"]


@pytest.mark.parametrize("shut_down", [False, True], ids=["the client goes", "we go"])
async def test_a_slow_answer_is_not_given_to_the_end_where_somebody_leaves(shut_down: bool) -> None:
    conduct = ConductLimits(tarpit_after=1, tarpit_s=10 * LIMIT_S)
    settings = quick_settings(conduct=conduct, shutdown_grace_s=SHORT_S)
    async with open_house(settings) as house, call(house) as caller:
        await caller.greeted()
        await caller.say(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<unknown@example.org>\r\n")
        if shut_down:
            house.shutdown.set()
            assert (await everything(caller))[-1].startswith("421 4.3.2 ")
        else:
            await caller.abort()
        await ended(house)
        assert house.mailbox.resets == 1


async def test_errors_are_remembered_from_one_connection_to_the_next() -> None:
    async with open_house(quick_settings(conduct=QUICK_CONDUCT)) as house:
        for _ in range(3):
            async with call(house) as caller:
                assert await caller.code() == "220"
                await caller.say(b"NOPE\r\n" * 10)
                assert await caller.codes(10) == ["500"] * 10
                assert (await caller.ask("QUIT") or "").startswith("221 ")
                assert await caller.line() is None
        async with call(house) as caller:
            assert (await caller.reply() or "").startswith("421 mx.example.org ")
        async with call(house, "127.0.0.2") as other:
            assert await other.code() == "220"


async def test_a_recipient_that_others_refuse_is_no_guess() -> None:
    class Asking(MemoryReceiver):
        holds_whole = False
        asked_elsewhere = False

        async def recipient(self, recipient: Address, parameters: RecipientParameters) -> Reply:
            self.asked_elsewhere = recipient.local_part == "departed"
            return Reply(550, "There is no such mailbox", "5.1.1")

    mailbox = Mailbox()
    settings = quick_settings(conduct=QUICK_CONDUCT)
    async with open_house(settings, new_receiver=lambda peer: Asking(mailbox)) as house, call(house) as caller:
        await caller.greeted()
        await caller.say(b"MAIL FROM:<a@example.com>\r\n" + b"RCPT TO:<departed@example.org>\r\n" * 20)
        began = trio.current_time()
        assert await caller.codes(21) == ["250"] + ["550"] * 20
        assert trio.current_time() - began >= SHORT_S, "but whoever is asked elsewhere must not be asked too often"
        await caller.say(b"RCPT TO:<guess@example.org>\r\n" * 10)
        assert (await everything(caller))[-1].startswith("421 4.7.0 ")


async def test_an_answer_that_took_its_time_does_not_wait_for_the_next_one() -> None:
    known = trio.Event()

    class Asking(MemoryReceiver):
        async def recipient(self, recipient: Address, parameters: RecipientParameters) -> Reply:
            if recipient.local_part == "next":
                await known.wait()
            else:
                await trio.sleep(SHORT_S)
            return Reply(250, "Recipient OK", "2.1.5")

    mailbox = Mailbox()
    async with open_house(new_receiver=lambda peer: Asking(mailbox)) as house, call(house) as caller:
        await caller.greeted()
        await caller.say(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nRCPT TO:<next@example.org>\r\n")
        assert await caller.codes(2) == ["250"] * 2
        known.set()
        assert await caller.code() == "250"


async def test_recipients_refused_for_another_reason_are_no_guesses() -> None:
    class Full(MemoryReceiver):
        async def recipient(self, recipient: object, parameters: object) -> Reply:
            return Reply(552, "Mailbox full", "5.2.2")

    mailbox = Mailbox()
    settings = quick_settings(conduct=QUICK_CONDUCT)
    async with open_house(settings, new_receiver=lambda peer: Full(mailbox)) as house, call(house) as caller:
        await caller.greeted()
        await caller.say(b"MAIL FROM:<a@example.com>\r\n" + b"RCPT TO:<b@example.org>\r\n" * 20)
        assert await caller.codes(21) == ["250"] + ["552"] * 20
