"""STARTTLS on the server's side (RFC 3207): what counts under TLS, what does not, and that nothing is in between."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from certificates import any_tls, server_tls, verifying_tls
from smtp_house import LIMIT_S, Caller, House, call, open_house, quick_settings
from smtp_memory import Mailbox, MemoryReceiver

from smtp.reply import Reply
from smtp.server.serving import ServerSettings
from smtp.tls import opportunistic_context

SHORT_S = 0.2
"""A timeout that a test waits for to the end."""
RECORD_OCTETS = 16384
"""The most that one record carries (RFC 8446 §5.1)."""
ENVELOPE = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n"


def with_tls(
    *,
    max_message_octets: int = 1 << 20,
    command_timeout_s: float = LIMIT_S,
    transaction_timeout_s: float = LIMIT_S,
    handshake_timeout_s: float = LIMIT_S,
    max_commands: int = 1000,
) -> ServerSettings:
    return quick_settings(
        tls=server_tls(),
        max_message_octets=max_message_octets,
        command_timeout_s=command_timeout_s,
        transaction_timeout_s=transaction_timeout_s,
        handshake_timeout_s=handshake_timeout_s,
        max_commands=max_commands,
    )


@asynccontextmanager
async def secured(settings: ServerSettings | None = None) -> AsyncIterator[tuple[House, Caller]]:
    """A house, and a client of it that has said EHLO under TLS."""
    async with open_house(settings or with_tls()) as house, call(house) as caller:
        await caller.greeted()
        await caller.secure(verifying_tls())
        await caller.hello()
        yield house, caller


async def everything(stream: trio.abc.ReceiveStream) -> bytes:
    """All that comes until the connection has ended."""
    octets = b""
    try:
        while more := await stream.receive_some():
            octets += more
    except trio.BrokenResourceError:
        pass
    return octets


async def ended(house: House) -> None:
    house.shutdown.set()
    await house.ended.wait()
    assert house.statistics.connections_open == 0


# ---------------------------------------------------------------------- what is offered, and when


async def test_what_is_offered_in_clear_and_under_tls() -> None:
    async with open_house(with_tls()) as house, call(house) as caller:
        assert await caller.code() == "220"
        offered = await caller.hello()
        assert "STARTTLS" in offered
        assert "REQUIRETLS" not in offered
        await caller.secure(verifying_tls())
        secure = await caller.hello()
        assert sorted(set(secure) ^ set(offered)) == ["REQUIRETLS", "STARTTLS"]


async def test_without_a_certificate_it_is_not_offered_and_not_done() -> None:
    async with open_house() as house, call(house) as caller:
        assert await caller.code() == "220"
        offered = await caller.hello()
        assert not {"STARTTLS", "REQUIRETLS"} & set(offered)
        assert (await caller.ask("STARTTLS") or "").startswith("502 5.5.1 ")
        assert (await caller.ask("MAIL FROM:<a@example.com> REQUIRETLS") or "").startswith("555 5.5.4 ")


async def test_nothing_that_was_said_in_clear_counts_under_tls() -> None:
    async with open_house(with_tls()) as house, call(house) as caller:
        await caller.greeted()
        await caller.secure(verifying_tls())
        assert (await caller.ask("MAIL FROM:<a@example.com>") or "").startswith("503 5.5.1 ")
        [peer] = house.mailbox.peers
        assert (peer.helo, peer.extended) == ("", False)
        await caller.say(b"EHLO other.example\r\n")
        assert await caller.code() == "250"
        assert (peer.helo, peer.extended) == ("other.example", True)
        assert (await caller.send(b"text\r\n") or "").startswith("250 ")


async def test_starttls_is_once() -> None:
    async with secured() as (_, caller):
        assert (await caller.ask("STARTTLS") or "").startswith("503 5.5.1 ")
        assert (await caller.ask("NOOP") or "").startswith("250 ")
        await caller.say(ENVELOPE)
        assert await caller.codes(2) == ["250", "250"]
        assert (await caller.ask("STARTTLS") or "").startswith("503 5.5.1 ")


@pytest.mark.parametrize(
    ("before", "reply"),
    [("NOOP", "503 5.5.1"), ("EHLO client.example\r\nMAIL FROM:<a@example.com>", "503 5.5.1")],
    ids=["before EHLO", "in a transaction"],
)
async def test_starttls_has_its_time(before: str, reply: str) -> None:
    async with open_house(with_tls()) as house, call(house) as caller:
        assert await caller.code() == "220"
        await caller.say(before.encode("ascii") + b"\r\n")
        for _ in before.split("\r\n"):
            assert await caller.code() == "250"
        assert (await caller.ask("STARTTLS") or "").startswith(reply)
        assert (await caller.ask("NOOP") or "").startswith("250 ")


async def test_starttls_has_no_argument() -> None:
    async with open_house(with_tls()) as house, call(house) as caller:
        await caller.greeted()
        assert (await caller.ask("STARTTLS now") or "").startswith("501 5.5.4 ")
        await caller.secure(verifying_tls())


async def test_requiretls_is_taken_under_tls_only() -> None:
    async with open_house(with_tls()) as house, call(house) as caller:
        await caller.greeted()
        assert (await caller.ask("MAIL FROM:<a@example.com> REQUIRETLS") or "").startswith("530 5.7.0 ")
        await caller.secure(verifying_tls())
        await caller.hello()
        assert (await caller.ask("MAIL FROM:<a@example.com> REQUIRETLS") or "").startswith("250 ")


# ---------------------------------------------------------------------- the handshake


@pytest.mark.parametrize(
    ("version", "name"), [(ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")]
)
async def test_both_versions_of_tls_and_what_the_receiver_sees_of_them(version: ssl.TLSVersion, name: str) -> None:
    context = opportunistic_context()
    context.minimum_version = context.maximum_version = version
    async with open_house(with_tls()) as house, call(house) as caller:
        await caller.greeted()
        [peer] = house.mailbox.peers
        assert peer.tls is None
        connection = await caller.secure(context)
        await caller.hello()
        cipher = connection.cipher()
        assert cipher is not None
        assert peer.tls is not None
        assert (peer.tls.version, peer.tls.cipher) == (name, cipher[0])
        assert (await caller.send(b"text\r\n") or "").startswith("250 ")
        assert (house.statistics.handshakes, house.statistics.handshakes_failed) == (1, 0)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_what_came_before_is_refused() -> None:
    context = opportunistic_context()
    # Otherwise the client's own library would not even try.
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with open_house(with_tls()) as house, call(house) as caller:
        await caller.greeted()
        with pytest.raises(trio.BrokenResourceError) as refused:
            await caller.secure(context)
        assert "ALERT_PROTOCOL_VERSION" in str(refused.value.__cause__)
        assert await everything(caller.transport) == b""
        await ended(house)
        assert house.statistics.handshakes_failed == 1


@pytest.mark.parametrize(
    ("parameters", "content", "protocol"),
    [("", b"text\r\n", "ESMTPS"), (" SMTPUTF8", b"Subject: \xc3\xa4\r\n", "UTF8SMTPS")],
)
async def test_the_protocol_for_the_received_line(parameters: str, content: bytes, protocol: str) -> None:
    async with secured() as (house, caller):
        await caller.ask(f"MAIL FROM:<a@example.com>{parameters}")
        await caller.ask("RCPT TO:<b@example.org>")
        await caller.say(b"BDAT %d LAST\r\n" % len(content) + content)
        assert await caller.code() == "250"
        [peer] = house.mailbox.peers
        assert peer.protocol(house.mailbox.messages[0].parameters) == protocol


@pytest.mark.parametrize("behind", [b"EHLO evil.example\r\n", b"\r\n", b"x", b"\x16\x03\x01\x00\x05"])
async def test_octets_in_the_segment_of_starttls_end_the_connection_unread(behind: bytes) -> None:
    async with open_house(with_tls()) as house, call(house) as caller:
        await caller.greeted()
        await caller.say(b"STARTTLS\r\n" + behind)
        assert (await caller.line() or "").startswith("554 5.5.1 ")
        assert await caller.line() is None
        [peer] = house.mailbox.peers
        assert peer.helo == "client.example"
        assert house.statistics.handshakes == 0


@pytest.mark.parametrize("behind", [b"EHLO evil.example\r\n" + ENVELOPE, b"GET / HTTP/1.1\r\n\r\n", b"\0" * 600])
async def test_octets_in_place_of_a_handshake_end_the_connection_unread(behind: bytes) -> None:
    async with open_house(with_tls()) as house, call(house) as caller:
        await caller.greeted()
        said = sum(house.statistics.replies.values())
        assert (await caller.ask("STARTTLS") or "").startswith("220 ")
        await caller.say(behind)
        octets = await everything(caller.transport)
        # An alert of TLS is all there may be (RFC 8446 §6).
        assert octets == b"" or octets[:2] == b"\x15\x03"
        await ended(house)
        [peer] = house.mailbox.peers
        assert (peer.helo, peer.tls) == ("client.example", None)
        assert sum(house.statistics.replies.values()) == said + 1
        assert house.statistics.handshakes_failed == 1
        assert house.errors == []


@pytest.mark.parametrize("octets", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["nothing", "the beginning of a hello"])
async def test_a_client_that_stalls_in_the_handshake_is_left_without_a_word_in_clear(octets: bytes) -> None:
    async with open_house(with_tls(handshake_timeout_s=SHORT_S)) as house, call(house) as caller:
        await caller.greeted()
        assert (await caller.ask("STARTTLS") or "").startswith("220 ")
        await caller.say(octets)
        assert await everything(caller.transport) == b""
        await ended(house)
        assert (house.statistics.handshakes, house.statistics.handshakes_failed) == (1, 1)


async def test_the_time_of_the_handshake_is_not_that_of_the_next_command() -> None:
    """RFC 5321 §4.5.3.2.7: five minutes for a command, also for the one after the handshake."""
    async with (
        open_house(with_tls(handshake_timeout_s=SHORT_S)) as house,
        call(house) as thoughtful,
        call(house) as stalling,
    ):
        await thoughtful.greeted()
        await thoughtful.secure(verifying_tls())
        await stalling.greeted()
        await stalling.ask("STARTTLS")
        # It began later: once it has been left, the other would have been, too.
        assert await everything(stalling.transport) == b""
        await thoughtful.hello()


async def test_a_client_that_hangs_up_in_the_handshake_is_nobodys_trouble() -> None:
    async with open_house(with_tls()) as house:
        for end in (Caller.close_bare, Caller.abort):
            async with call(house) as caller:
                await caller.greeted()
                assert (await caller.ask("STARTTLS") or "").startswith("220 ")
                await caller.say(b"\x16\x03\x01")
                await end(caller)
        await ended(house)
        assert house.errors == []
        assert house.statistics.handshakes_failed == 2


# ---------------------------------------------------------------------- the end in the middle


async def close_properly(caller: Caller) -> None:
    """close_notify, then FIN."""
    await caller.stream.aclose()


@pytest.mark.parametrize("end", [close_properly, Caller.close_bare, Caller.abort], ids=["close_notify", "FIN", "RST"])
@pytest.mark.parametrize(
    "beginning",
    [
        b"DATA\r\nhalf a mess",
        b"DATA\r\nall but the end\r\n.\r",
        b"BDAT 100\r\nhalf a chunk",
        b"BDAT 3\r\nxyz",
        b"NOOP\r\n",
    ],
    ids=["DATA", "DATA before its last octet", "BDAT", "between chunks", "envelope"],
)
async def test_a_connection_that_ends_in_the_middle_queues_nothing(beginning: bytes, end: object) -> None:
    assert callable(end)
    async with secured() as (house, caller):
        await caller.say(ENVELOPE + beginning)
        assert await caller.codes(2) == ["250", "250"]
        await end(caller)
        await ended(house)
        assert house.mailbox.messages == []
        assert house.mailbox.resets == 1
        assert house.errors == []


# ---------------------------------------------------------------------- octets in records


@pytest.mark.parametrize("size", [700, RECORD_OCTETS - 1, RECORD_OCTETS, RECORD_OCTETS + 1, 65536, 65537, 1 << 22])
@pytest.mark.parametrize("with_chunks", [False, True], ids=["DATA", "BDAT"])
async def test_a_message_of_some_megabytes_in_records_of_any_size(size: int, with_chunks: bool) -> None:
    content = b"\r\n" + b"".join(b"line %d\r\n" % number for number in range(220_000))
    assert len(content) > 2_500_000
    async with secured(with_tls(max_message_octets=1 << 22)) as (house, caller):
        await caller.say(ENVELOPE + (b"BDAT %d LAST\r\n" % len(content) if with_chunks else b"DATA\r\n"))
        assert await caller.codes(2 if with_chunks else 3) == ["250", "250", "354"][: 2 if with_chunks else 3]
        wire = content if with_chunks else content + b".\r\n"
        for place in range(0, len(wire), size):
            await caller.say(wire[place : place + size])
        assert await caller.code() == "250"
        assert house.mailbox.messages[0].content == content


@pytest.mark.parametrize("octets", [RECORD_OCTETS, 65536, 65537, 3 * 65536 + 1])
async def test_what_has_been_decrypted_already_is_not_waited_for(octets: int) -> None:
    """The kernel's socket is quiet when the last record has been read; what OpenSSL still has must not be forgotten."""
    count = octets // 6
    async with secured(with_tls(max_commands=1 << 20)) as (_, caller), trio.open_nursery() as nursery:
        # All but the last command is in the records; the rest of it makes up the number.
        nursery.start_soon(caller.say, b"NOOP\r\n" * (count - 1) + b"NOOP".ljust(octets - 6 * count + 4) + b"\r\n")
        assert await caller.codes(count) == ["250"] * count


@pytest.mark.parametrize("size", [1, 5, 6, 7, 1000])
async def test_commands_divided_among_records(size: int) -> None:
    wire = ENVELOPE + b"NOOP\r\n" * 30 + b"DATA\r\n..text\r\n.\r\n"
    async with secured() as (house, caller):
        for place in range(0, len(wire), size):
            await caller.say(wire[place : place + size])
        assert await caller.codes(34) == ["250"] * 32 + ["354", "250"]
        assert house.mailbox.messages[0].content == b".text\r\n"


# ---------------------------------------------------------------------- our end


async def test_the_last_words_are_encrypted_and_the_end_is_in_good_order() -> None:
    async with secured() as (_, caller):
        assert (await caller.ask("QUIT") or "").startswith("221 ")
        # b"" is close_notify: without it the stream would raise.
        assert await caller.stream.receive_some() == b""


async def test_shutdown_says_421_under_tls() -> None:
    async with secured() as (house, caller):
        house.shutdown.set()
        assert (await caller.line() or "").startswith("421 4.3.2 mx.example.org ")
        assert await caller.stream.receive_some() == b""
        await house.ended.wait()


@pytest.mark.parametrize("octets", [b"", b"NOOP", ENVELOPE + b"BDAT 10\r\nx"], ids=["idle", "in a line", "in a chunk"])
async def test_a_timeout_says_421_under_tls(octets: bytes) -> None:
    async with secured(with_tls(command_timeout_s=SHORT_S)) as (house, caller):
        if octets:
            await caller.say(octets)
        lines = []
        while (line := await caller.line()) is not None:
            lines.append(line)
        assert lines[-1].startswith("421 4.4.2 mx.example.org ")
        await ended(house)
        assert house.mailbox.resets == octets.startswith(b"MAIL")


async def test_too_many_errors_say_421_under_tls() -> None:
    async with secured() as (_, caller):
        await caller.say(b"NOPE\r\n" * 30)
        assert await caller.codes(21) == ["500"] * 19 + ["421", ""]


async def test_an_oversize_message_under_tls_costs_the_message_only() -> None:
    async with secured(with_tls(max_message_octets=100_000)) as (house, caller):
        assert await caller.send(b"x" * 400_000) == "552 5.3.4 Message too large"
        assert (await caller.send(b"better\r\n") or "").startswith("250 ")
        assert [message.content for message in house.mailbox.messages] == [b"better\r\n"]


class Slow(MemoryReceiver):
    """Says that it is asked, and waits for a sign before it promises."""

    def __init__(self, mailbox: Mailbox, asked: trio.Event, sign: trio.Event) -> None:
        super().__init__(mailbox)
        self.asked = asked
        self.sign = sign

    async def end_of_data(self) -> Reply:
        self.asked.set()
        await self.sign.wait()
        return await super().end_of_data()


async def test_a_promise_to_a_client_that_has_gone_is_kept() -> None:
    """RFC 5321 §6.1: what was accepted is ours, whether or not the client has heard of it."""
    mailbox, asked, sign = Mailbox(), trio.Event(), trio.Event()
    async with (
        open_house(with_tls(), new_receiver=lambda peer: Slow(mailbox, asked, sign)) as house,
        call(house) as caller,
    ):
        await caller.greeted()
        await caller.secure(any_tls())
        await caller.hello()
        await caller.say(ENVELOPE + b"BDAT 6 LAST\r\ntext\r\n")
        await asked.wait()
        await caller.abort()
        sign.set()
        await ended(house)
        assert len(mailbox.messages) == 1
        assert mailbox.resets == 0
        assert house.errors == []
