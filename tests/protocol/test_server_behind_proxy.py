"""The driver behind proxies: whose address counts, and what becomes of a connection that does not begin as it must."""

import socket
from ipaddress import ip_network

import pytest
import trio
from smtp_house import LIMIT_S, Caller, House, call, open_house, quick_settings
from smtp_memory import Mailbox

from smtp.server.serving import ServerSettings, Statistics
from smtp.server.trio_server import serve

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
V1 = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 25\r\n"
V1_OTHER = b"PROXY TCP4 192.0.2.2 198.51.100.7 56324 25\r\n"
V1_IPV6 = b"PROXY TCP6 2001:db8::1 2001:db8::25 56324 25\r\n"
V2 = SIGNATURE + b"\x21\x11\x00\x0c" + bytes([192, 0, 2, 1, 198, 51, 100, 7]) + bytes([0xDC, 0x04, 0, 25])
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
UNKNOWN = b"PROXY UNKNOWN\r\n"
PROXY = "127.0.0.9"
SHORT_S = 0.2


def behind_proxy(
    *, max_connections: int = 1000, max_connections_per_client: int = 1000, handshake_timeout_s: float = LIMIT_S
) -> ServerSettings:
    return quick_settings(
        trusted_proxies=(ip_network("127.0.0.9/32"), ip_network("2001:db8::/32")),
        max_connections=max_connections,
        max_connections_per_client=max_connections_per_client,
        handshake_timeout_s=handshake_timeout_s,
    )


async def gone(house: House) -> None:
    """Wait until every session has ended."""
    house.shutdown.set()
    await house.ended.wait()


@pytest.mark.parametrize(
    ("header", "address", "port"),
    [
        (V1, "192.0.2.1", 56324),
        (V2, "192.0.2.1", 56324),
        (V1_IPV6, "2001:db8::1", 56324),
        (LOCAL, PROXY, None),
        (UNKNOWN, PROXY, None),
    ],
    ids=["version 1", "version 2", "IPv6", "LOCAL", "UNKNOWN"],
)
async def test_the_receiver_sees_the_client_and_not_the_proxy(header: bytes, address: str, port: int | None) -> None:
    async with open_house(behind_proxy()) as house, call(house, PROXY) as caller:
        await caller.say(header)
        await caller.greeted()
        assert (await caller.send(b"text\r\n") or "").startswith("250 ")
        [peer] = house.mailbox.peers
        own_port = caller.transport.socket.getsockname()[1]
        assert (peer.address, peer.port) == (address, port or own_port)
        assert len(house.mailbox.messages) == 1
        assert house.errors == []


@pytest.mark.parametrize("header", [V1, V2], ids=["version 1", "version 2"])
async def test_a_header_may_come_in_any_two_pieces_and_nothing_is_said_before_it(header: bytes) -> None:
    async with open_house(behind_proxy()) as house:
        for place in range(1, len(header)):
            async with call(house, PROXY) as caller:
                await caller.say(header[:place])
                # The first piece has been read, or will be with the second: both must do.
                await caller.say(header[place:])
                assert (await caller.line() or "").startswith("220 ")
        assert {peer.address for peer in house.mailbox.peers} == {"192.0.2.1"}


async def test_a_client_that_talks_early_is_heard_behind_the_header() -> None:
    async with open_house(behind_proxy()) as house, call(house, PROXY) as caller:
        await caller.say(V1 + b"EHLO client.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@exam")
        assert await caller.codes(3) == ["220", "250", "250"]
        assert await caller.ask("ple.org>") == "250 2.1.5 Recipient OK"


@pytest.mark.parametrize("second", [V1, V2], ids=["version 1", "version 2"])
async def test_one_header_only(second: bytes) -> None:
    async with open_house(behind_proxy()) as house, call(house, PROXY) as caller:
        await caller.say(V1)
        assert await caller.code() == "220"
        await caller.say(second)
        assert await caller.code() == "500"
        assert [peer.address for peer in house.mailbox.peers] == ["192.0.2.1"]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.8", "127.0.0.10"])
async def test_whoever_is_not_trusted_says_nothing_that_counts(address: str) -> None:
    async with open_house(behind_proxy()) as house, call(house, address) as caller:
        assert await caller.code() == "220"
        assert await caller.ask(V1.decode("ascii").strip()) == "500 5.5.1 Command not known"
        assert [peer.address for peer in house.mailbox.peers] == [address]


async def everything(caller: Caller) -> bytes:
    """All that comes until the connection has ended."""
    octets = b""
    try:
        while more := await caller.stream.receive_some():
            octets += more
    except trio.BrokenResourceError:
        pass
    return octets


@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO client.example\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 99999\r\n",
        b"PROXY TCP4 192.0.2.256 198.51.100.7 1 2\r\n",
        SIGNATURE + b"\x31",
    ],
    ids=["no header", "no port", "no address", "no version"],
)
async def test_a_bad_header_ends_the_connection_without_a_word(octets: bytes) -> None:
    async with open_house(behind_proxy()) as house, call(house, PROXY) as caller:
        await caller.say(octets)
        assert await everything(caller) == b""
        await gone(house)
        [error] = house.errors
        assert PROXY in error
        assert "192.0.2" not in error
        assert house.mailbox.peers == []


async def test_what_is_not_said_is_not_counted() -> None:
    async with open_house(behind_proxy()) as house, call(house, PROXY) as caller:
        await caller.say(b"EHLO client.example\r\n")
        assert await everything(caller) == b""
        await gone(house)
        assert house.statistics.replies == {2: 0, 3: 0, 4: 0, 5: 0}


@pytest.mark.parametrize(
    "octets", [b"", b"PROXY TCP4 192.0", V2[:-1]], ids=["nothing", "part of a line", "all but one"]
)
async def test_a_header_that_does_not_come_ends_the_connection_without_a_word(octets: bytes) -> None:
    async with open_house(behind_proxy(handshake_timeout_s=SHORT_S)) as house, call(house, PROXY) as caller:
        await caller.say(octets)
        assert await everything(caller) == b""
        assert house.mailbox.peers == []


async def test_shutdown_says_nothing_to_a_proxy_that_has_not_begun() -> None:
    async with open_house(behind_proxy()) as house, call(house, PROXY) as caller, call(house) as other:
        await caller.say(b"PROXY ")
        assert await other.code() == "220"
        house.shutdown.set()
        assert await everything(caller) == b""
        await house.ended.wait()


async def test_a_proxy_that_hangs_up_before_its_header_is_no_fault_of_anybody() -> None:
    async with open_house(behind_proxy()) as house:
        async with call(house, PROXY) as caller:
            await caller.say(b"PROXY TCP4 ")
        async with call(house, PROXY) as caller:
            await caller.abort()
        await gone(house)
        assert house.errors == []
        assert house.mailbox.peers == []
        assert house.statistics.connections_open == 0


async def test_connections_are_counted_for_the_client_and_not_for_the_proxy() -> None:
    async with open_house(behind_proxy(max_connections_per_client=2)) as house:
        async with call(house, PROXY) as one, call(house, PROXY) as two, call(house, PROXY) as three:
            for caller in (one, two):
                await caller.say(V1)
                assert await caller.code() == "220"
            await three.say(V1)
            assert (await everything(three)).startswith(b"421 mx.example.org ")
            async with call(house, PROXY) as other, call(house, PROXY) as itself:
                await other.say(V1_OTHER)
                assert await other.code() == "220"
                await itself.say(LOCAL)
                assert await itself.code() == "220"
            assert house.statistics.connections_turned_away == 1
            # A place that is given back is the client's again.
            assert (await one.ask("QUIT") or "").startswith("221 ")
            assert await one.line() is None
            async with call(house, PROXY) as again:
                await again.say(V1)
                assert await again.code() == "220"
        await gone(house)
        assert house.statistics.connections_open == 0


async def test_the_house_is_full_for_clients_behind_a_proxy_too() -> None:
    async with open_house(behind_proxy(max_connections=1)) as house, call(house) as guest, call(house, PROXY) as late:
        assert await guest.code() == "220"
        await late.say(V2)
        assert (await everything(late)).startswith(b"421 mx.example.org ")
        assert (await guest.ask("NOOP") or "").startswith("250 ")


async def test_a_proxy_over_an_ipv6_socket_is_known_by_its_ipv4_address() -> None:
    mailbox, shutdown = Mailbox(), trio.Event()
    with socket.socket(socket.AF_INET6) as listener, trio.fail_after(LIMIT_S):
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::ffff:127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)

        async def visit() -> None:
            stream = await trio.open_tcp_stream("127.0.0.1", listener.getsockname()[1], local_address=PROXY)
            async with stream:
                caller = Caller(stream)
                await caller.say(V1)
                assert await caller.code() == "220"
            shutdown.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(visit)
            await serve(
                [listener],
                mailbox.new_receiver,
                behind_proxy(),
                shutdown=shutdown,
                on_error=pytest.fail,
                statistics=Statistics(),
            )
    assert [peer.address for peer in mailbox.peers] == ["192.0.2.1"]
