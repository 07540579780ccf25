"""The server's driver on real sockets: time, many clients, shutdown, and receivers that fail."""

import os
import resource
import socket

import pytest
import trio
from smtp_house import LIMIT_S, Caller, call, open_house, quick_settings
from smtp_memory import Mailbox, MemoryReceiver

from smtp.address import Address
from smtp.parameters import MailParameters
from smtp.reply import Reply
from smtp.server.serving import Peer, Statistics, client_key
from smtp.server.trio_server import serve

SHORT_S = 0.2
"""A timeout that a test waits for to the end."""


async def test_a_message_and_what_is_counted() -> None:
    async with open_house() as house, call(house) as caller:
        await caller.in_content()
        assert house.statistics.connections_open == 1
        assert (await caller.ask("x\r\n.") or "").startswith("250 ")
        assert (await caller.ask("NOPE") or "").startswith("500 ")
        assert (await caller.ask("QUIT") or "").startswith("221 ")
        assert await caller.line() is None
        house.shutdown.set()
        await house.ended.wait()
    [peer] = house.mailbox.peers
    assert (peer.address, peer.helo, peer.extended) == ("127.0.0.1", "client.example", True)
    statistics = house.statistics
    assert (statistics.connections_open, statistics.connections_accepted, statistics.messages) == (0, 1, 1)
    # The greeting, EHLO, MAIL, RCPT, the message, QUIT; 354; NOPE.
    assert statistics.replies == {2: 6, 3: 1, 4: 0, 5: 1}
    assert house.errors == []


async def test_replies_to_a_group_come_in_one_piece() -> None:
    async with open_house() as house, call(house) as caller:
        await caller.reply()
        await caller.ask("EHLO client.example")
        await caller.say(
            b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nRCPT TO:<unknown@example.org>\r\nDATA\r\n"
        )
        assert (await caller.stream.receive_some()).count(b"\r\n") == 4


async def test_a_silent_client_is_told_and_left() -> None:
    async with open_house(quick_settings(command_timeout_s=SHORT_S)) as house, call(house) as caller:
        await caller.reply()
        assert (await caller.line() or "").startswith("421 4.4.2 mx.example.org ")
        assert await caller.line() is None
        assert house.mailbox.resets == 0


async def test_a_client_that_falls_silent_in_a_transaction() -> None:
    async with open_house(quick_settings(command_timeout_s=SHORT_S)) as house, call(house) as caller:
        await caller.in_content()
        await caller.say(b"half a mess")
        assert (await caller.line() or "").startswith("421 4.4.2 ")
        assert await caller.line() is None
        assert house.mailbox.resets == 1
        assert not house.mailbox.messages


async def send_on_and_on(caller: Caller, octets: bytes) -> None:
    try:
        while True:
            await caller.say(octets)
    except trio.BrokenResourceError:
        # The server has had enough.
        pass


async def test_octets_without_a_line_end_win_no_time() -> None:
    async with (
        open_house(quick_settings(command_timeout_s=SHORT_S)) as house,
        call(house) as caller,
        trio.open_nursery() as nursery,
    ):
        await caller.reply()
        nursery.start_soon(send_on_and_on, caller, b"x")
        assert (await caller.line() or "421").startswith("421")


async def test_a_transaction_ends_however_busy_the_client_is() -> None:
    async with (
        open_house(quick_settings(transaction_timeout_s=SHORT_S)) as house,
        call(house) as caller,
        trio.open_nursery() as nursery,
    ):
        await caller.in_content()
        nursery.start_soon(send_on_and_on, caller, b"line after line\r\n" * 10)
        # The last words may be lost with a connection that is closed while the client sends.
        assert (await caller.line() or "421").startswith("421")
        house.shutdown.set()
        await house.ended.wait()
        assert house.mailbox.resets == 1
        assert not house.mailbox.messages


async def test_a_client_that_never_reads_is_left() -> None:
    async with (
        open_house(quick_settings(command_timeout_s=SHORT_S, max_commands=1 << 30)) as house,
        call(house) as caller,
    ):
        # Ends because the server closes; it would wait for ever where the server kept on collecting replies.
        await send_on_and_on(caller, b"HELP\r\n" * 10_000)
        house.shutdown.set()
        await house.ended.wait()


async def test_a_client_that_vanishes() -> None:
    async with open_house() as house:
        async with call(house) as caller:
            await caller.in_content()
            await caller.say(b"half a mess")
        house.shutdown.set()
        await house.ended.wait()
        assert house.mailbox.resets == 1
        assert not house.mailbox.messages
        assert house.errors == []


async def test_an_oversize_message_costs_the_message_only() -> None:
    async with open_house(quick_settings(max_message_octets=100_000)) as house, call(house) as caller:
        await caller.in_content()
        await caller.say(b"0123456789abcde\r\n" * 60_000 + b".\r\n")
        assert (await caller.line() or "").startswith("552 5.3.4 ")
        assert (await caller.ask("NOOP") or "").startswith("250 ")
        assert not house.mailbox.messages


async def test_a_large_message_arrives_whole() -> None:
    content = b"\r\n" + b"".join(b"line %d\r\n" % number for number in range(200_000))
    async with open_house(quick_settings(max_message_octets=1 << 22)) as house, call(house) as caller:
        await caller.in_content()
        await caller.say(content + b".\r\n")
        assert (await caller.line() or "").startswith("250 ")
        assert house.mailbox.messages[0].content == content


async def test_too_many_clients() -> None:
    async with open_house(quick_settings(max_connections=2)) as house:
        async with call(house) as one, call(house) as two:
            assert (await one.line() or "").startswith("220 ")
            assert (await two.line() or "").startswith("220 ")
            async with call(house) as three:
                assert (await three.line() or "").startswith("421 mx.example.org ")
                assert await three.line() is None
            await one.ask("QUIT")
            assert await one.line() is None
        house.shutdown.set()
        await house.ended.wait()
        assert house.statistics.connections_accepted == 3
        assert house.statistics.connections_turned_away == 1


async def test_too_many_connections_of_one_client() -> None:
    async with (
        open_house(quick_settings(max_connections_per_client=1)) as house,
        call(house) as one,
        call(house) as two,
    ):
        assert (await one.line() or "").startswith("220 ")
        assert (await two.line() or "").startswith("421 mx.example.org ")
        # Another address is another client.
        with trio.socket.socket() as other:
            await other.bind(("127.0.0.2", 0))
            await other.connect(("127.0.0.1", house.port))
            assert (await other.recv(100)).startswith(b"220 ")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
    ],
)
def test_who_is_counted_as_one_client(one: str, other: str, same: bool) -> None:
    assert (client_key(one) == client_key(other)) is same


async def test_an_ipv4_client_of_an_ipv6_socket_has_an_ipv4_address() -> None:
    mailbox = Mailbox()
    shutdown = trio.Event()
    with socket.socket(socket.AF_INET6) as listener, trio.fail_after(LIMIT_S):
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::ffff:127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)

        async def visit() -> None:
            stream = await trio.open_tcp_stream("127.0.0.1", listener.getsockname()[1])
            async with stream:
                await Caller(stream).line()
            shutdown.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(visit)
            await serve(
                [listener],
                mailbox.new_receiver,
                quick_settings(),
                shutdown=shutdown,
                on_error=pytest.fail,
                statistics=Statistics(),
            )
    assert mailbox.peers[0].address == "127.0.0.1"


async def test_shutdown_ends_idle_sessions_with_421() -> None:
    async with open_house() as house, call(house) as caller:
        await caller.reply()
        await caller.ask("EHLO client.example")
        house.shutdown.set()
        assert (await caller.line() or "").startswith("421 4.3.2 mx.example.org ")
        assert await caller.line() is None
        await house.ended.wait()


async def test_shutdown_lets_a_transaction_finish() -> None:
    async with open_house() as house, call(house) as caller, call(house) as idle:
        await idle.reply()
        await caller.in_content()
        house.shutdown.set()
        # Once the idle one is sent away, the shutdown has reached everybody.
        assert (await idle.line() or "").startswith("421 ")
        assert not house.ended.is_set()
        assert (await caller.ask("x\r\n.") or "").startswith("250 ")
        assert (await caller.line() or "").startswith("421 4.3.2 ")
        assert await caller.line() is None
        await house.ended.wait()
        assert len(house.mailbox.messages) == 1


async def test_shutdown_does_not_wait_for_ever() -> None:
    async with open_house(quick_settings(shutdown_grace_s=SHORT_S)) as house, call(house) as caller:
        await caller.in_content()
        house.shutdown.set()
        assert (await caller.line() or "").startswith("421 4.3.2 ")
        await house.ended.wait()
        assert house.mailbox.resets == 1
        assert not house.mailbox.messages


class Thoughtful(MemoryReceiver):
    """Takes long to promise: longer than every timeout."""

    async def end_of_data(self) -> Reply:
        await trio.sleep(4 * SHORT_S)
        return await super().end_of_data()


async def test_a_promise_is_never_cut_short() -> None:
    mailbox = Mailbox()
    settings = quick_settings(
        command_timeout_s=SHORT_S, transaction_timeout_s=2 * SHORT_S, shutdown_grace_s=SHORT_S / 2
    )
    async with (
        open_house(settings, new_receiver=lambda peer: Thoughtful(mailbox)) as house,
        call(house) as caller,
    ):
        await caller.in_content()
        await caller.say(b"x\r\n.\r\n")
        house.shutdown.set()
        assert (await caller.line() or "").startswith("250 ")
        assert (await caller.line() or "").startswith("421 ")
        assert len(mailbox.messages) == 1
        assert mailbox.resets == 0


class Hesitant(MemoryReceiver):
    """Takes longer to look at a sender than a client may take for a command."""

    async def mail(self, sender: Address | None, parameters: MailParameters) -> Reply:
        await trio.sleep(4 * SHORT_S)
        return await super().mail(sender, parameters)


async def test_the_time_that_the_receiver_takes_is_not_the_clients() -> None:
    mailbox = Mailbox()
    settings = quick_settings(command_timeout_s=2 * SHORT_S)
    async with (
        open_house(settings, new_receiver=lambda peer: Hesitant(mailbox)) as house,
        call(house) as caller,
    ):
        await caller.in_content()
        assert (await caller.ask("x\r\n.") or "").startswith("250 ")


async def test_nothing_holds_the_answer_to_a_message_back() -> None:
    """RFC 5321 §6.1: once it is ours, every moment in which its sender does not know that can make a second copy."""
    mailbox = Mailbox()
    asked, sign = trio.Event(), trio.Event()

    class Pensive(MemoryReceiver):
        async def mail(self, sender: Address | None, parameters: MailParameters) -> Reply:
            if sender is not None and sender.local_part == "second":
                asked.set()
                await sign.wait()
            return await super().mail(sender, parameters)

    async with open_house(new_receiver=lambda peer: Pensive(mailbox)) as house, call(house) as caller:
        await caller.reply()
        await caller.say(
            b"EHLO client.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n"
            b"BDAT 3 LAST\r\nx\r\nMAIL FROM:<second@example.com>\r\n"
        )
        await asked.wait()
        assert [(await caller.reply() or "")[:3] for _ in range(4)] == ["250"] * 4
        sign.set()
        assert (await caller.reply() or "").startswith("250 ")


async def test_cancelling_ends_sessions_and_lets_receivers_go() -> None:
    mailbox = Mailbox()
    with socket.socket() as listener, trio.fail_after(LIMIT_S):
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                await serve(
                    [listener],
                    mailbox.new_receiver,
                    quick_settings(),
                    shutdown=trio.Event(),
                    on_error=pytest.fail,
                    statistics=Statistics(),
                )

            nursery.start_soon(run)
            stream = await trio.open_tcp_stream("127.0.0.1", listener.getsockname()[1])
            caller = Caller(stream)
            await caller.in_content()
            nursery.cancel_scope.cancel()
        async with stream:
            assert (await caller.line() or "").startswith("421 4.3.2 ")
    assert mailbox.resets == 1


async def test_a_receiver_that_raises_costs_its_client_a_451_and_nobody_else_anything() -> None:
    async with open_house() as house, call(house) as one, call(house) as two:
        await two.in_content()
        await one.reply()
        await one.ask("EHLO client.example")
        assert (await one.ask("MAIL FROM:<crash-mail@example.com>") or "").startswith("451 4.3.0 ")
        assert (await one.ask("MAIL FROM:<a@example.com>") or "").startswith("250 ")
        assert (await one.ask("RCPT TO:<crash@example.org>") or "").startswith("451 4.3.0 ")
        assert (await one.ask("QUIT") or "").startswith("221 ")
        assert (await two.ask("x\r\n.") or "").startswith("250 ")
        assert len(house.errors) == 2
        for error in house.errors:
            assert "Crash" in error
            assert "smtp_memory.py" in error
            assert "@" not in error


async def test_a_receiver_that_cannot_even_begin() -> None:
    def no_receiver(peer: Peer) -> MemoryReceiver:
        raise LookupError(peer.address)

    async with open_house(new_receiver=no_receiver) as house, call(house) as caller:
        assert (await caller.line() or "").startswith("220 ")
        assert (await caller.line() or "").startswith("421 4.3.0 ")
        assert await caller.line() is None
        assert len(house.errors) == 1
        assert "127.0.0.1" not in house.errors[0]


async def test_no_file_descriptors_left_is_no_end() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    async with open_house() as house:
        said = trio.Event()
        house.errors = _Telling(said, house.errors)
        with trio.socket.socket() as client:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
                _take_every_descriptor(taken)
                await client.connect(("127.0.0.1", house.port))
                await said.wait()
            finally:
                for descriptor in taken:
                    os.close(descriptor)
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert (await client.recv(100)).startswith(b"220 ")
        assert len(house.errors) == 1
        assert "Too many open files" in house.errors[0]


def _take_every_descriptor(taken: list[int]) -> None:
    while True:
        try:
            taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            return


class _Telling(list[str]):
    """A list of errors that tells when the first comes."""

    def __init__(self, said: trio.Event, before: list[str]) -> None:
        super().__init__(before)
        self._said = said

    def append(self, error: str) -> None:
        super().append(error)
        self._said.set()
