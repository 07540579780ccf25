"""TLS on the socket that both drivers use, with another driver of it (Trio's own) at the other end."""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from certificates import HOST, any_tls, certificate_for, server_tls, verifying_tls
from smtp_house import LIMIT_S

from smtp.tls import server_context
from smtp.trio_socket import Socket


@asynccontextmanager
async def in_clear() -> AsyncIterator[tuple[Socket, trio.SocketStream]]:
    """Ours, and the other side."""
    with socket.socket() as listener, trio.fail_after(LIMIT_S):
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        one = socket.create_connection(listener.getsockname())
        ours = Socket(one)
        theirs = trio.SocketStream(trio.socket.from_stdlib_socket(listener.accept()[0]))
        try:
            yield ours, theirs
        finally:
            ours.close()
            await trio.aclose_forcefully(theirs)


Theirs = trio.SSLStream[trio.SocketStream]


@asynccontextmanager
async def secured(
    *, server_side: bool = False, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> AsyncIterator[tuple[Socket, Theirs]]:
    """The same, hands shaken."""
    async with in_clear() as (ours, clear):
        context = any_tls() if server_side else server_tls()
        before, context.maximum_version = context.maximum_version, version
        try:
            theirs = Theirs(clear, context, server_hostname=HOST, server_side=not server_side)
        finally:
            context.maximum_version = before
        async with trio.open_nursery() as nursery:
            nursery.start_soon(theirs.do_handshake)
            if server_side:
                facts = await ours.start_tls(server_tls(), server_side=True)
            else:
                facts = await ours.start_tls(verifying_tls(), server_side=False, server_name=HOST)
        assert facts is ours.tls
        assert facts.version == ("TLSv1.3" if version is ssl.TLSVersion.TLSv1_3 else "TLSv1.2")
        assert facts.cipher
        assert facts.verified is not server_side
        yield ours, theirs


async def receive(ours: Socket, count: int) -> bytes:
    """So many octets, or all that come."""
    received = b""
    while len(received) < count:
        octets = ours.receive_now()
        if octets is None:
            await ours.readable()
        elif octets:
            received += octets
        else:
            break
    return received


MORE_THAN_FITS = b"0123456789abcdef" * (1 << 20)
"""16 MiB: more than any kernel holds for one connection."""


@pytest.mark.parametrize("server_side", [False, True])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_octets_go_both_ways_in_either_role_and_version(server_side: bool, version: ssl.TLSVersion) -> None:
    async with secured(server_side=server_side, version=version) as (ours, theirs):
        assert ours.receive_now() is None
        assert ours.send_now(b"one") == b""
        assert await theirs.receive_some() == b"one"
        await theirs.send_all(b"two")
        assert await receive(ours, 3) == b"two"


async def test_what_openssl_has_decrypted_already_is_readable_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with secured() as (ours, theirs):
        monkeypatch.setattr("smtp.trio_socket.RECEIVE_OCTETS", 10)
        await theirs.send_all(b"x" * 100)
        assert await receive(ours, 100) == b"x" * 100


async def test_what_does_not_fit_is_offered_again_until_it_does() -> None:
    async with secured() as (ours, theirs), trio.open_nursery() as nursery:
        received = bytearray()

        async def read() -> None:
            while len(received) < len(MORE_THAN_FITS):
                received.extend(await theirs.receive_some())

        rest = ours.send_now(MORE_THAN_FITS)
        assert rest
        nursery.start_soon(read)
        while rest:
            await ours.writable()
            rest = ours.send_now(rest)
    assert received == MORE_THAN_FITS


async def test_nothing_else_can_be_said_before_it_is_sent_whole() -> None:
    async with secured() as (ours, _theirs):
        assert ours.send_now(MORE_THAN_FITS)
        with pytest.raises(OSError, match="something else was being sent"):
            ours.send_now(b"421 farewell")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_quiet_until_something_is_said(version: ssl.TLSVersion) -> None:
    # With TLS 1.3 tickets lie about on the client's side: they are no news.
    async with secured(version=version) as (ours, theirs):
        assert ours.quiet()
        assert ours.quiet()
        await theirs.send_all(b"421 bye")
        await ours.readable()
        while ours.quiet():
            await ours.readable()


async def test_not_quiet_once_the_other_side_has_closed() -> None:
    async with secured() as (ours, theirs):
        await theirs.aclose()
        await ours.readable()
        while ours.quiet():
            await ours.readable()


async def test_close_notify_is_the_end() -> None:
    async with secured() as (ours, theirs), trio.open_nursery() as nursery:
        nursery.start_soon(theirs.aclose)
        assert await receive(ours, 1) == b""


async def test_an_end_without_close_notify_is_an_end_too() -> None:
    async with secured() as (ours, theirs):
        await theirs.transport_stream.send_eof()
        assert await receive(ours, 1) == b""


async def test_close_says_close_notify_and_may_be_called_again() -> None:
    async with secured() as (ours, theirs):
        assert ours.send_now(b"last words") == b""
        ours.close()
        ours.close()
        # Without close_notify Trio would call this a truncated stream.
        assert await theirs.receive_some() == b"last words"
        assert await theirs.receive_some() == b""


@pytest.mark.parametrize(
    ("name", "presented", "expired", "reason"),
    [
        (HOST, "other.example.org", False, "Hostname mismatch"),
        (HOST, HOST, True, "certificate has expired"),
    ],
)
async def test_a_certificate_that_does_not_hold(name: str, presented: str, expired: bool, reason: str) -> None:
    async with in_clear() as (ours, clear):
        theirs = Theirs(clear, server_tls(presented, expired=expired), server_side=True)

        async def fail() -> None:
            with pytest.raises(trio.BrokenResourceError):
                # Hands are shaken first. With TLS 1.3 the server hears of it only with the first octets that it reads.
                await theirs.receive_some()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            with pytest.raises(ssl.SSLCertVerificationError, match=reason):
                await ours.start_tls(verifying_tls(), server_side=False, server_name=name)
        assert ours.tls is None


async def test_a_certificate_by_nobody_is_good_enough_for_whoever_does_not_ask() -> None:
    files = certificate_for(self_signed=True)
    async with in_clear() as (ours, clear):
        theirs = Theirs(clear, server_context(files.certificate, files.key), server_side=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(theirs.do_handshake)
            facts = await ours.start_tls(any_tls(), server_side=False, server_name="whoever.example.org")
        assert not facts.verified


@pytest.mark.parametrize("server_side", [False, True])
async def test_what_is_no_tls_is_an_oserror(server_side: bool) -> None:
    async with in_clear() as (ours, clear):
        await clear.send_all(b"250 what are you talking about?\r\n")
        with pytest.raises(OSError, match=r"WRONG_VERSION_NUMBER|HTTP_REQUEST|UNKNOWN_PROTOCOL"):
            await ours.start_tls(
                server_tls() if server_side else any_tls(),
                server_side=server_side,
                server_name=None if server_side else HOST,
            )
        ours.close()


async def test_a_peer_that_leaves_instead_of_shaking_hands() -> None:
    async with in_clear() as (ours, clear):
        await clear.aclose()
        with pytest.raises(OSError, match=r"EOF|reset|Broken pipe|not connected"):
            await ours.start_tls(any_tls(), server_side=False, server_name=HOST)


@pytest.mark.parametrize("name", ["", ".", ".a", "a..b", "a\0b", "x" * 64 + ".example.org", "x." * 126 + "xx"])
async def test_a_name_that_no_server_can_have(name: str) -> None:
    async with in_clear() as (ours, _clear):
        with pytest.raises(OSError, match="no server can have this name"):
            await ours.start_tls(any_tls(), server_side=False, server_name=name)


async def test_a_handshake_that_is_given_up_can_be_closed() -> None:
    async with in_clear() as (ours, _clear):
        with trio.move_on_after(0.05) as scope:
            await ours.start_tls(any_tls(), server_side=False, server_name=HOST)
        assert scope.cancelled_caught
        ours.close()
