"""What strangers could send, thrown at everything that reads it: the targets of the fuzzers, each a function of octets.

A target raises where something is wrong: an exception of our own that nobody has announced, a reply that is none, a
session that holds more than it may. The seeds are what the clients of `tests/conversations` say, and a few lines more.
"""

import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from smtp_conversation import read_conversation, spoken
from smtp_house import InMemory
from smtp_memory import Mailbox

from smtp.address import Address, AddressError, parse_forward_path, parse_reverse_path
from smtp.client.session import ClientSession, ClientState, GoAhead
from smtp.errors import ProtocolError
from smtp.parameters import MAX_ORCPT_OCTETS, MailParameters, format_original_recipient, parse_original_recipient
from smtp.server.proxy import ProxyReader
from smtp.server.session import MAX_COMMAND_OCTETS, MAX_UNSENT_OCTETS

CONVERSATIONS = Path(__file__).parents[1] / "conversations"

GREETINGS = [
    b"220 mx.example.org ESMTP\r\n250-mx.example.org\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-CHUNKING\r\n"
    b"250-SMTPUTF8\r\n250-8BITMIME\r\n250-DSN\r\n250-LIMITS RCPTMAX=2 MAILMAX=3\r\n250 ENHANCEDSTATUSCODES\r\n",
    b"220-two\r\n220 lines\r\n502 what?\r\n250 old.example\r\n",
]
REPLIES = [
    b"250 2.1.0 ok\r\n250 2.1.5 ok\r\n250 ok\r\n354 go\r\n250 2.0.0 queued\r\n221 bye\r\n",
    b"550 5.1.8 no\r\n503 bad\r\n503 bad\r\n503 bad\r\n",
    b"421 4.3.2 closing\r\n",
    b"250-first\r\n250 second\r\n99 short\r\n",
]
PATHS = [
    b"<a@example.com> SIZE=1 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb",
    b"<@a.example,@b.example:c@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;c+40example.org",
    b'<"a@b\\"c"@[IPv6:2001:db8::1]>',
    "<jörg@bücher.example> ORCPT=utf-8;j\\x{F6}rg@example.org".encode(),
]
PROXIES = [
    b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 25\r\nEHLO x\r\n",
    b"PROXY UNKNOWN anything\r\n",
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\xdc\x04\x00\x19",
]


def pieces_of(octets: bytes) -> list[bytes]:
    """The input in pieces: its first octets say where it is cut, so that a fuzzer finds that out too."""
    cuts, body = octets[:3], octets[3:]
    places = sorted({0, len(body), *(cut * len(body) // 255 for cut in cuts)})
    return [body[start:end] for start, end in pairwise(places)]


def server(octets: bytes) -> None:
    """A client's octets, for the server's session with a receiver in memory."""
    house = InMemory(
        Mailbox(),
        max_message_octets=2000,
        max_recipients=5,
        max_header_octets=600,
        max_line_octets=300,
        max_commands=60,
    )
    said = b""
    for piece in [b"", *pieces_of(octets)]:
        # The memory receiver waits for nothing, so that its coroutines need no event loop.
        coroutine = house.exchange(piece)
        try:
            coroutine.send(None)
        except StopIteration as stop:
            said += stop.value
        session = house.session
        assert session.unsent == 0
        assert house.closed or len(session._incoming) - session._position <= MAX_COMMAND_OCTETS
    for line in said.split(b"\r\n")[:-1]:
        assert len(line) <= 510, line
        assert line[:1] in b"2345", line
        assert line[:3].isdigit(), line
        assert all(32 <= octet < 127 for octet in line), line
    assert said.endswith(b"\r\n")
    assert len(said) < 100 * MAX_UNSENT_OCTETS


def client(octets: bytes) -> None:
    """A server's octets, for the client's session with a message to send."""
    session = ClientSession("client.example")
    # Some servers take so little that each message is done before it is sent.
    messages = 5
    # Line by line: what comes before it has been asked for is refused, and would end most conversations at once.
    for line in b"".join(pieces_of(octets)).splitlines(keepends=True):
        session.receive(line)
        try:
            while (event := session.next_event()) is not None:
                if isinstance(event, GoAhead):
                    session.content(b"text\r\n.text\r\n")
                    session.end_content()
                elif session.state is ClientState.READY and not session.exhausted and messages:
                    messages -= 1
                    session.begin("a@example.com", ["b@example.org", "c@example.org"], MailParameters(size=13))
        except ProtocolError:
            return
        wire = session.octets_to_send()
        assert wire.count(b"\r") == wire.count(b"\n") == wire.count(b"\r\n")


def address(octets: bytes) -> None:
    """The argument of MAIL or RCPT, and of ORCPT."""
    text = octets.decode("utf-8", "surrogateescape")
    for parse in (parse_reverse_path, parse_forward_path):
        try:
            found, _ = parse(text)
        except AddressError:
            continue
        if found is not None and found.domain:
            assert Address.parse(str(found)) == found
            assert found.key == Address.parse(str(found)).key
            str(found).encode("utf-8")
    try:
        recipient = parse_original_recipient(text.partition("ORCPT=")[2].split(" ")[0])
    except ValueError:
        return
    written = format_original_recipient(recipient)
    # In ASCII it takes more room, and may be too long for what it came in.
    if len(written) <= MAX_ORCPT_OCTETS:
        assert parse_original_recipient(written) == recipient


def proxy(octets: bytes) -> None:
    """What a proxy sends ahead of a connection."""
    reader = ProxyReader()
    for piece in pieces_of(octets):
        try:
            if reader.receive(piece) is not None:
                return
        except ProtocolError:
            return


Target = Callable[[bytes], None]


def seeds() -> dict[Target, list[bytes]]:
    """By target what to begin with."""
    said = []
    for path in sorted(CONVERSATIONS.glob("*.txt")):
        conversation = read_conversation(path)
        if conversation.needs_driver:
            # There the receiver raises, which only the driver makes a 451 of.
            continue
        steps = conversation.steps
        octets = b"".join(spoken(step) for step in steps if step.mark in ("C:", "C|", "C*"))
        said.append(b"\x20\x80\xc0" + octets[:4000])
    replies = [b"\x20\x80\xc0" + greeting + reply for greeting in GREETINGS for reply in REPLIES]
    return {server: said, client: replies, address: PATHS, proxy: [b"\x10\x20\x30" + octets for octets in PROXIES]}


def mutants(corpus: list[bytes], generator: random.Random) -> bytes:
    """One input made from the corpus: two of it spliced, octets changed, lines dropped, doubled and exchanged."""
    octets = generator.choice(corpus)
    for _ in range(generator.randint(1, 4)):
        place = generator.randint(0, len(octets))
        other = generator.choice(corpus)
        end = generator.randint(0, len(other))
        match generator.randint(0, 6):
            case 0:
                octets = octets[:place] + other[max(0, end - 40) : end] + octets[place:]
            case 1:
                octets = octets[:place] + other[end:]
            case 2:
                octets = octets[:place] + bytes([generator.randint(0, 255)]) + octets[place + 1 :]
            case 3:
                octets = octets[:place] + generator.choice(TOKENS) + octets[place:]
            case 4:
                octets = octets[:place] + octets[place + generator.randint(1, 20) :]
            case 5:
                lines = octets.split(b"\r\n")
                generator.shuffle(lines)
                octets = b"\r\n".join(lines)
            case _:
                octets = octets[:place] + octets[place : place + 30] * generator.randint(2, 20) + octets[place:]
    return octets[:8000]


TOKENS = [
    *(b"\r", b"\n", b"\r\n", b".\r\n", b"\r\n.\r\n", b"\0", b"\xff", b" ", b"<", b">", b"@", b'"', b"\\", b"=", b"+"),
    *(b"BDAT 5\r\n", b"BDAT 5 LAST\r\n", b"BDAT 99999999999999999999\r\n", b"DATA\r\n", b"RSET\r\n", b"STARTTLS\r\n"),
    *(b"MAIL FROM:<a@example.com>\r\n", b"RCPT TO:<b@example.org>\r\n", b"EHLO x\r\n", b"\xc3\xbc", b"\xe2\x80\xae"),
    *(
        b" SMTPUTF8",
        b" NOTIFY=NEVER",
        b" ORCPT=utf-8;\\x{10FFFF}",
        b"\xed\xa0\x80",
        b"250-",
        b"250 ",
        b"354 \r\n",
        b"421 \r\n",
    ),
    b"PROXY TCP6 ::1 ::1 1 2\r\n",
]
