"""Our client hands mail to mail servers that nobody here wrote, in clear and under TLS; they get it octet for octet.

What a server has got is read in its mailbox: a maildir of Postfix and of Exim, the queue of OpenSMTPD, the memory of
aiosmtpd.
"""

import itertools
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import private_exim
import private_opensmtpd
import private_postfix
import pytest
import trio
from appliance_process import eventually
from certificates import HOST, authority_file, certificate_for, server_tls
from peer_aiosmtpd import PrivateAiosmtpd
from peer_letters import LETTERS, UTF8_LETTER, behind_trace, with_crlf
from peer_programs import (
    DELIVERED_DOMAIN,
    HOW_TO_GET_THEM,
    UNWELCOME_DOMAIN,
    free_port,
    public_directory,
)
from private_exim import PrivateExim
from private_opensmtpd import PrivateOpenSmtpd
from private_postfix import PrivatePostfix

from smtp.client.session import Stage
from smtp.client.trio_client import ClientTls, Connection
from smtp.parameters import Notify, OriginalRecipient, RecipientParameters, to_xtext
from smtp.tls import verifying_context

LIMIT_S = 30.0

BOX = f"box@{DELIVERED_DOMAIN}"
REPORT = b"multipart/report"
CLEAR = "clear"
TLS_VERSIONS = ("TLSv1.2", "TLSv1.3")

PEERS = ("postfix", "exim", "opensmtpd", "aiosmtpd")
# Debian 12's OpenSMTPD can't be a server with TLS; see private_opensmtpd.
PAIRS = [
    (name, security)
    for name in PEERS
    for security in (CLEAR, *TLS_VERSIONS)
    if name != "opensmtpd" or security == CLEAR
]
WITH_CHUNKING = ("postfix", "exim")

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that runs."""

    port: int
    delivered: Callable[[], list[bytes]]
    """What is in its mailbox, with the line ends that it keeps."""
    log: Callable[[], str] = str
    crlf: bool = False
    """Whether it keeps those of the wire."""

    def received(self, letter: bytes) -> bytes:
        """What it has got of a letter, as it was on the wire."""
        mark = letter.partition(b"Message-ID: ")[2].partition(b"\r\n")[0]

        def look() -> bytes | None:
            # A report about it has its mark, too.
            found = (content for content in self.delivered() if mark in content and REPORT not in content)
            return next(found, None)

        found = eventually(look, within=20, what=f"{mark!r} in the mailbox")
        return found if self.crlf else with_crlf(found)


@pytest.fixture(scope="module")
def peers() -> Iterator[dict[str, Peer]]:
    """Those that are to be had here."""
    certificate = certificate_for()
    with ExitStack() as stack:

        def directory() -> Path:
            return stack.enter_context(public_directory())

        aiosmtpd = stack.enter_context(PrivateAiosmtpd(server_tls()))
        found = {"aiosmtpd": Peer(aiosmtpd.port, aiosmtpd.delivered, crlf=True)}
        if private_postfix.is_installed():
            place = directory()
            settings = private_postfix.peer_settings(place, certificate=certificate)
            postfix = PrivatePostfix(place, free_port(), "a@b.test", "a@b.test", "127.0.0.1", 1, settings)
            found["postfix"] = Peer(stack.enter_context(postfix).port, postfix.delivered, postfix.log)
        if private_exim.is_installed():
            exim = stack.enter_context(PrivateExim(directory(), certificate=certificate))
            found["exim"] = Peer(exim.port, exim.delivered, exim.log, crlf=True)
        if not private_opensmtpd.obstacle():
            opensmtpd = stack.enter_context(PrivateOpenSmtpd(directory()))
            found["opensmtpd"] = Peer(opensmtpd.port, opensmtpd.delivered, opensmtpd.log)
        yield found


def the(peers: dict[str, Peer], name: str) -> Peer:
    """This server; the test is skipped where it is missing."""
    if name not in peers:
        obstacle = private_opensmtpd.obstacle() if name == "opensmtpd" else f"{name} is missing"
        pytest.skip(f"{obstacle}: {HOW_TO_GET_THEM}")
    return peers[name]


def new_letter(kind: str) -> bytes:
    """One with a mark of its own."""
    return (UTF8_LETTER if kind == "utf8" else LETTERS[kind]).replace(
        b"Message-ID: <", b"Message-ID: <%d-" % next(_numbers), 1
    )


@asynccontextmanager
async def connected(
    peer: Peer, security: str = CLEAR, *, chunking: bool = True
) -> AsyncIterator[tuple[Connection, list[str]]]:
    """A connection, and the lines we said on it. It ends with QUIT."""
    said: list[str] = []

    def trace(direction: str, line: str) -> None:
        if direction == ">":
            said.append(line)

    tls = None
    if security != CLEAR:
        context = verifying_context(authority_file())
        context.minimum_version = context.maximum_version = ssl.TLSVersion[security.replace(".", "_")]
        tls = ClientTls(context, HOST, required=True)
    connection = await Connection.open(
        "127.0.0.1", peer.port, helo="client.example", tls=tls, chunking=chunking, trace=trace
    )
    try:
        yield connection, said
        await connection.quit()
    finally:
        connection.aclose()


def pieces_of(letter: bytes) -> Iterator[bytes]:
    """A letter as content comes: in pieces that end anywhere."""
    for start in range(0, len(letter), 10007):
        yield letter[start : start + 10007]


async def deliver(connection: Connection, letter: bytes) -> None:
    """Have this letter delivered to the mailbox."""
    eight_bit = not letter.isascii()
    (result,) = await connection.send(
        "ann@sender.test", [BOX], pieces_of(letter), size=len(letter), eight_bit=eight_bit
    )
    assert (result.stage, result.reply.code) == (Stage.END_OF_DATA, 250)


async def received(peer: Peer, letter: bytes) -> bytes:
    """What stands behind the trace in the mailbox."""
    content = await trio.to_thread.run_sync(peer.received, letter)
    return behind_trace(content, letter)


@pytest.mark.parametrize("kind", LETTERS)
@pytest.mark.parametrize(("name", "security"), PAIRS)
async def test_what_is_received_is_what_was_sent(peers: dict[str, Peer], name: str, security: str, kind: str) -> None:
    peer, letter = the(peers, name), new_letter(kind)
    with trio.fail_after(LIMIT_S):
        async with connected(peer, security) as (connection, said):
            await deliver(connection, letter)
        assert await received(peer, letter) == letter

    facts = connection.tls
    assert (facts.version, facts.verified) == (security, True) if facts else security == CLEAR
    assert any(line.startswith("BDAT") for line in said) is (name in WITH_CHUNKING)


@pytest.mark.parametrize("kind", LETTERS)
@pytest.mark.parametrize("name", WITH_CHUNKING)
async def test_servers_with_chunking_get_data_where_that_is_wanted(
    peers: dict[str, Peer], name: str, kind: str
) -> None:
    peer, letter = the(peers, name), new_letter(kind)
    with trio.fail_after(LIMIT_S):
        async with connected(peer, chunking=False) as (connection, said):
            await deliver(connection, letter)
        assert await received(peer, letter) == letter

    assert "DATA" in said
    assert not any(line.startswith("BDAT") for line in said)


@pytest.mark.parametrize(("name", "security"), PAIRS)
async def test_messages_share_a_connection(peers: dict[str, Peer], name: str, security: str) -> None:
    peer, letters = the(peers, name), [new_letter("dots") for _ in range(5)]
    with trio.fail_after(LIMIT_S):
        async with connected(peer, security) as (connection, said):
            for letter in letters:
                await deliver(connection, letter)
        assert [await received(peer, letter) for letter in letters] == letters
    assert said.count("QUIT") == 1


@pytest.mark.parametrize("name", PEERS)
async def test_each_recipient_has_a_result_of_its_own(peers: dict[str, Peer], name: str) -> None:
    peer, letter = the(peers, name), new_letter("plain")
    boxes = [f"box{number}@{DELIVERED_DOMAIN}" for number in range(25)]
    unwelcome = [f"box{number}@{UNWELCOME_DOMAIN}" for number in range(3)]
    recipients = [unwelcome[0], *boxes[:20], unwelcome[1], *boxes[20:], unwelcome[2]]
    with trio.fail_after(LIMIT_S):
        async with connected(peer) as (connection, _):
            results = await connection.send("ann@sender.test", recipients, [letter], size=len(letter), eight_bit=False)
        assert await received(peer, letter) == letter

    refused = [recipient for recipient, result in zip(recipients, results, strict=True) if not result.reply.positive]
    assert refused == unwelcome
    assert {(result.stage, result.reply.code // 100) for result in results if result.reply.positive} == {
        (Stage.END_OF_DATA, 2)
    }
    assert {(result.stage, result.reply.code // 100) for result in results if not result.reply.positive} == {
        (Stage.RCPT, 5)
    }


@pytest.mark.parametrize("chunking", [True, False], ids=["BDAT", "DATA"])
@pytest.mark.parametrize("name", PEERS)
async def test_a_message_for_nobody_is_not_sent_and_the_next_one_is(
    peers: dict[str, Peer], name: str, chunking: bool
) -> None:
    peer, letter, unsent = the(peers, name), new_letter("plain"), new_letter("plain")
    with trio.fail_after(LIMIT_S):
        async with connected(peer, chunking=chunking) as (connection, _):
            (result,) = await connection.send(
                "ann@sender.test", [f"box@{UNWELCOME_DOMAIN}"], [unsent], size=len(unsent), eight_bit=False
            )
            assert (result.stage, result.reply.code // 100) == (Stage.RCPT, 5)
            await deliver(connection, letter)
        assert await received(peer, letter) == letter
    assert not any(unsent.splitlines()[3] in content for content in peer.delivered())


@pytest.mark.parametrize("name", PEERS)
async def test_addresses_and_fields_in_utf8_go_to_those_who_take_them(peers: dict[str, Peer], name: str) -> None:
    peer, letter = the(peers, name), new_letter("utf8")
    with trio.fail_after(LIMIT_S):
        async with connected(peer) as (connection, _):
            takes_them = "SMTPUTF8" in connection.extensions
            (result,) = await connection.send(
                "jürg@sender.test",
                [f"käthe@{DELIVERED_DOMAIN}"],
                [letter],
                size=len(letter),
                eight_bit=True,
                utf8=True,
            )
        if takes_them:
            assert (result.stage, result.reply.code) == (Stage.END_OF_DATA, 250)
            assert await received(peer, letter) == letter
        else:
            assert (result.stage, result.reply.enhanced) == (Stage.LOCAL, "5.6.7")
    # OpenSMTPD 6.8 is the one that does not.
    assert takes_them is (name != "opensmtpd")


@pytest.mark.parametrize("name", ["postfix", "exim"])
async def test_a_report_of_success_names_what_we_passed_on(peers: dict[str, Peer], name: str) -> None:
    """RFC 3461: ENVID, ORCPT and NOTIFY come back in the report that they ask for."""
    peer, letter, envid = the(peers, name), new_letter("plain"), f"envelope+{next(_numbers)}="
    # Exim gives back the xtext as it came.
    either = "|".join(re.escape(text) for text in (envid, to_xtext(envid)))
    named = re.compile(rf"\nOriginal-Envelope-Id: ({either})\r?\n".encode(), re.IGNORECASE)
    parameters = RecipientParameters(
        frozenset({Notify.SUCCESS, Notify.FAILURE}), OriginalRecipient("rfc822", "first+place@elsewhere.test")
    )
    with trio.fail_after(LIMIT_S):
        async with connected(peer) as (connection, _):
            (result,) = await connection.send(
                f"ann@{DELIVERED_DOMAIN}",
                [BOX],
                [letter],
                size=len(letter),
                eight_bit=False,
                ret="HDRS",
                envid=envid,
                for_recipients=[parameters],
            )
        assert result.reply.code == 250
        assert await received(peer, letter) == letter

        def report() -> bytes | None:
            return next((each for each in peer.delivered() if REPORT in each and named.search(each)), None)

        text = await trio.to_thread.run_sync(eventually, report)
    assert re.search(rb"\nOriginal-Recipient: rfc822; ?first(\+|\+2B)place@elsewhere\.test\r?\n", text)
    assert b"Good morning" not in text


@pytest.mark.parametrize("name", ["opensmtpd", "aiosmtpd"])
async def test_reports_are_asked_for_where_the_server_knows_them(peers: dict[str, Peer], name: str) -> None:
    peer, letter = the(peers, name), new_letter("plain")
    with trio.fail_after(LIMIT_S):
        async with connected(peer) as (connection, said):
            never = RecipientParameters(frozenset({Notify.NEVER}))
            (result,) = await connection.send(
                "ann@sender.test",
                [BOX],
                [letter],
                size=len(letter),
                eight_bit=False,
                ret="FULL",
                envid="q",
                for_recipients=[never],
            )
        assert result.reply.code == 250
        assert await received(peer, letter) == letter
    knows_them = "DSN" in connection.extensions
    assert knows_them is (name == "opensmtpd")
    assert any("NOTIFY=NEVER" in line for line in said) is knows_them
