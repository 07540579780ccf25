"""The content that all sessions of a server hold at once: who is put off, and that all of it is given back."""

import socket
from collections.abc import Awaitable, Callable

import pytest
import trio
from smtp_house import LIMIT_S, Caller, House, call, open_house, quick_settings
from smtp_memory import Mailbox, MemoryReceiver

from smtp.server import intake
from smtp.server.serving import Peer, Statistics
from smtp.server.trio_session import House as SessionHouse
from smtp.server.trio_session import Session
from smtp.trio_socket import Socket

SHORT_S = 0.2
"""A time that a test waits for to the end."""
ENVELOPE = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n"


def bdat(content: bytes, last: bool = False) -> bytes:
    return b"BDAT %d%s\r\n" % (len(content), b" LAST" if last else b"") + content


async def everything(caller: Caller) -> list[str]:
    """All lines until the connection has ended."""
    lines = []
    while (line := await caller.line()) is not None:
        lines.append(line)
    return lines


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Content is counted when it is passed on: here however little it is."""
    monkeypatch.setattr(intake, "PIECE_OCTETS", 1)


ROOM = 1000
"""What all sessions may hold in these tests."""
Way = Callable[[Caller, House], Awaitable[None]]


async def begin(caller: Caller, octets: int, sender: str = "a") -> None:
    """Have so many octets in flight."""
    await caller.greeted()
    await caller.say(ENVELOPE.replace(b"a@", sender.encode("ascii") + b"@") + bdat(b"x" * octets))


async def test_a_second_message_is_put_off_until_there_is_room() -> None:
    async with open_house(quick_settings(max_in_flight_octets=ROOM)) as house, call(house) as one, call(house) as two:
        await begin(one, ROOM)
        assert await one.codes(3) == ["250"] * 3
        await two.greeted()
        assert await two.ask("MAIL FROM:<a@example.com>") == "452 4.3.1 Too much mail at once, try again later"
        await one.say(bdat(b"", last=True))
        assert await one.code() == "250"
        assert (await two.send(b"x" * ROOM) or "").startswith("250 ")
        assert [len(message.content) for message in house.mailbox.messages] == [ROOM, ROOM]


@pytest.mark.parametrize("with_chunks", [False, True], ids=["DATA", "BDAT"])
async def test_one_for_which_there_is_no_room_is_read_to_its_end_and_put_off(with_chunks: bool) -> None:
    async with open_house(quick_settings(max_in_flight_octets=ROOM)) as house, call(house) as one, call(house) as two:
        await begin(one, 600)
        assert await one.codes(3) == ["250"] * 3
        await two.greeted()
        await two.say(ENVELOPE)
        assert await two.codes(2) == ["250", "250"]
        if with_chunks:
            await two.say(bdat(b"x" * 498 + b"\r\n", last=True))
        else:
            assert (await two.ask("DATA") or "").startswith("354 ")
            await two.say(b"x" * 498 + b"\r\n.\r\n")
        assert await two.line() == "452 4.3.1 Too much mail at once, try again later"
        assert house.mailbox.resets == 1
        await one.say(bdat(b"", last=True))
        assert await one.code() == "250"
        assert (await two.send(b"x" * ROOM) or "").startswith("250 ")


async def test_what_the_receiver_does_not_keep_in_memory_takes_no_room() -> None:
    settings = quick_settings(max_in_flight_octets=ROOM, max_held_octets=ROOM // 2)
    async with open_house(settings) as house, call(house) as one, call(house) as two, call(house) as three:
        for caller in (one, two):
            await begin(caller, 50 * ROOM)
            assert await caller.codes(3) == ["250"] * 3
        await three.greeted()
        assert (await three.send(b"x") or "").startswith("452 4.3.1 ")
        for caller in (one, two):
            await caller.say(bdat(b"", last=True))
            assert await caller.code() == "250"
        assert (await three.send(b"x") or "").startswith("250 ")


class Whole(MemoryReceiver):
    """Keeps some messages whole: those of `whole@`."""

    asked_elsewhere = False

    @property
    def holds_whole(self) -> bool:
        return self.sender is not None and self.sender.local_part == "whole"


async def test_what_a_receiver_keeps_whole_counts_as_a_whole() -> None:
    settings = quick_settings(max_in_flight_octets=ROOM, max_held_octets=ROOM // 10)
    mailbox = Mailbox()

    def new_receiver(_: Peer) -> Whole:
        return Whole(mailbox)

    async with open_house(settings, new_receiver=new_receiver) as house, call(house) as one, call(house) as two:
        await begin(one, ROOM // 2, "whole")
        assert await one.codes(3) == ["250"] * 3
        await two.greeted()
        assert (await two.send(b"x" * 3 * ROOM) or "").startswith("250 "), "of this one only a tenth is kept"
        await two.say(ENVELOPE.replace(b"a@", b"whole@") + bdat(b"x" * (ROOM // 2 + 1), last=True))
        assert await two.codes(3) == ["250", "250", "452"]
        await one.say(bdat(b"", last=True))
        assert await one.code() == "250"
        # The next message on the same connection is counted anew.
        assert (await one.send(b"x" * 3 * ROOM) or "").startswith("250 ")


async def test_no_client_keeps_so_much_whole_that_others_find_no_room() -> None:
    settings = quick_settings(max_in_flight_octets=ROOM, max_held_octets=ROOM // 10)
    mailbox = Mailbox()

    def new_receiver(_: Peer) -> Whole:
        return Whole(mailbox)

    async with open_house(settings, new_receiver=new_receiver) as house, call(house) as one, call(house) as two:
        # A single message may be as large as it likes.
        await begin(one, ROOM // 2, "whole")
        assert await one.codes(3) == ["250"] * 3
        await two.greeted()
        await two.say(ENVELOPE.replace(b"a@", b"whole@") + bdat(b"x" * (ROOM // 10), last=True))
        assert await two.codes(3) == ["250", "250", "452"]
        assert (await two.send(b"x" * 3 * ROOM) or "").startswith("250 "), "this one is not kept whole"
        async with call(house, "127.0.0.2") as other, call(house, "127.0.0.3") as third:
            await begin(other, ROOM // 5, "whole")
            assert await other.codes(3) == ["250"] * 3
            await third.greeted()
            await third.say(ENVELOPE.replace(b"a@", b"whole@") + bdat(b"x" * (ROOM // 10), last=True))
            assert await third.codes(3) == ["250", "250", "452"], "there must be room for the others"
            assert (await third.send(b"x" * 3 * ROOM) or "").startswith("250 ")
            for caller in (one, other):
                await caller.say(bdat(b"", last=True))
                assert await caller.code() == "250"
            await third.say(ENVELOPE.replace(b"a@", b"whole@") + bdat(b"x" * (ROOM // 2), last=True))
            assert await third.codes(3) == ["250"] * 3


async def _accepted(caller: Caller, house: House) -> None:
    await begin(caller, ROOM)
    await caller.say(bdat(b"", last=True))
    assert await caller.codes(4) == ["250"] * 4


def _refused_or_crashed(sender: str, codes: list[str]) -> Way:
    async def way(caller: Caller, house: House) -> None:
        await begin(caller, ROOM, sender)
        await caller.say(bdat(b"", last=True))
        assert await caller.codes(len(codes)) == codes

    return way


def _given_up(line: bytes, code: str) -> Way:
    async def way(caller: Caller, house: House) -> None:
        await begin(caller, ROOM)
        await caller.say(line)
        assert await caller.codes(4) == ["250"] * 3 + [code]

    return way


async def _fault(caller: Caller, house: House) -> None:
    await begin(caller, ROOM)
    await caller.say(bdat(b"a\nb", last=True))
    assert await caller.codes(4) == ["250"] * 3 + ["550"]


async def _too_much(caller: Caller, house: House) -> None:
    await begin(caller, ROOM)
    await caller.say(bdat(b"x", last=True))
    assert await caller.codes(4) == ["250"] * 3 + ["452"]


async def _vanished(caller: Caller, house: House) -> None:
    await begin(caller, ROOM)
    assert await caller.codes(3) == ["250"] * 3
    await caller.close_bare()


async def _reset_by_peer(caller: Caller, house: House) -> None:
    await begin(caller, ROOM)
    assert await caller.codes(3) == ["250"] * 3
    await caller.abort()


async def _timed_out(caller: Caller, house: House) -> None:
    await begin(caller, ROOM)
    assert (await everything(caller))[-1].startswith("421 4.4.2 ")


WAYS: dict[str, Way] = {
    "accepted": _accepted,
    "refused at the end": _refused_or_crashed("no-end", ["250", "250", "250", "550"]),
    "refused before content": _refused_or_crashed("no-data", ["250", "250", "554", "503"]),
    "the receiver raises at MAIL": _refused_or_crashed("crash-mail", ["451", "503", "503", "503"]),
    "the receiver raises before content": _refused_or_crashed("crash-data", ["250", "250", "451", "503"]),
    "the receiver raises in content": _refused_or_crashed("no-content", ["250", "250", "451", "503"]),
    "the receiver raises at the end": _refused_or_crashed("crash-end", ["250", "250", "250", "451"]),
    "RSET": _given_up(b"RSET\r\n", "250"),
    "EHLO": _given_up(b"EHLO client.example\r\n", "250"),
    "QUIT": _given_up(b"QUIT\r\n", "221"),
    "no chunk": _given_up(b"BDAT x\r\n", "501"),
    "a fault in the content": _fault,
    "no room for the rest": _too_much,
    "the connection has ended": _vanished,
    "the connection was reset": _reset_by_peer,
    "timed out": _timed_out,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
async def test_whatever_becomes_of_a_transaction_its_room_is_given_back(way: Way) -> None:
    timeout_s = SHORT_S if way is _timed_out else LIMIT_S
    settings = quick_settings(max_in_flight_octets=ROOM, command_timeout_s=timeout_s)
    async with open_house(settings) as house:
        # As often as would show a part of it that stays, and one that is given back twice.
        for _ in range(2):
            async with call(house) as caller:
                await way(caller, house)
        resets = house.mailbox.resets
        if way in (_vanished, _reset_by_peer):
            while house.mailbox.resets < 2:
                await trio.lowlevel.checkpoint()
        else:
            assert resets in (0, 2)
        async with call(house) as one, call(house) as two:
            await begin(one, ROOM)
            assert await one.codes(3) == ["250"] * 3
            await two.greeted()
            assert (await two.ask("MAIL FROM:<a@example.com>") or "").startswith("452 4.3.1 ")


@pytest.mark.parametrize("cancelled", [False, True], ids=["its time is over", "cancelled"])
async def test_shutdown_gives_the_room_back_too(cancelled: bool) -> None:
    mailbox = Mailbox()
    house = SessionHouse(mailbox.new_receiver, quick_settings(max_in_flight_octets=ROOM), pytest.fail, Statistics())
    with socket.socket() as listener, trio.fail_after(LIMIT_S):
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        stream = await trio.open_tcp_stream("127.0.0.1", listener.getsockname()[1])
        session = Session(Socket(listener.accept()[0]), Peer("127.0.0.1", 1), house)
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(session.run)
            caller = Caller(stream)
            await begin(caller, ROOM)
            assert await caller.codes(3) == ["250"] * 3
            assert house.in_flight_octets == ROOM
            if cancelled:
                nursery.cancel_scope.cancel()
            else:
                session.drain(trio.current_time())
                session.look_at_the_clock(trio.current_time())
                assert (await caller.line() or "").startswith("421 4.3.2 ")
    assert house.in_flight_octets == 0
    assert mailbox.resets == 1
