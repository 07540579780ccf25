"""Messages inside messages: whatever looks like the end of data and is not, wherever the stream is cut, in the clear,
under TLS and in chunks, is one message that is refused, and what stands in it is never taken for commands.

And the reverse: what we send of such a content is read as exactly one message.
"""

import re
from collections.abc import Iterator
from itertools import product

import pytest
import trio
import trio.testing
from certificates import server_tls, verifying_tls
from smtp_house import Caller, InMemory, call, open_house, quick_settings
from smtp_memory import Mailbox, MemoryReceiver

from smtp.client.chunks import ChunkWriter
from smtp.data import ContentWriter
from smtp.server import intake

END = b"\r\n.\r\n"

# What servers have been found to take for the end of data, or to turn into one when they pass it on: line ends of one
# octet on either side of the dot, a CR too many, and a NUL that some throw away.
LOOK_ALIKES = (
    *(b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\n.\r", b"\r.\n"),
    *(b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r\n.\rx\n"),
    *(b"\r\r\n.\r\r\n", b"\r\r\n.\r", b"\r\r\n.\n", b"\r\n.\r\r\n", b"\r\r.\r\r", b"\r\r\n\r\n.\r", b"\r\n\r.\r\n"),
    *(b"\n\n.\n\n", b"\n\n.\r\n", b"\r\n.\n\r\n", b"\r\n\n.\n\r\n", b"\r\n\n.\r\n", b"\n\r\n.\n", b"\r\n.\n\n"),
    *(b"\n\r.\n\r", b"\n\r.\r\n", b"\r\n.\n\r"),
    *(b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\0\n.\r\n", b"\r\n.\r\0\n", b"\0\r\n.\n", b"\0\n.\r\n", b"\r\n\0.\0\r\n"),
    # Dots that are stuffed, or look it, before something that is no line end.
    *(b"\r\n..\n", b"\n..\r\n", b"\r\n..\r", b"\r\n.\n.\r\n", b"\n.\r\n..\r\n"),
    # A dot that is stuffed on its way in could become one that ends, on its way out.
    *(b"\n..\n", b"\r..\r\n", b"\r\n..\0\r\n"),
)


def every_look_alike() -> Iterator[bytes]:
    """A dot with up to three octets of CR, LF and NUL on either side, the true end left out."""
    sides = [bytes(octets) for length in (1, 2, 3) for octets in product(b"\r\n\0", repeat=length)]
    for before, behind in product(sides, sides):
        if END not in before + b"." + behind:
            yield before + b"." + behind


BEFORE = b"Subject: first\r\n\r\nfirst"
HIDDEN = b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nevil"
ENVELOPE = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n"
# No other command is answered with 252: it marks where the true commands go on.
BEHIND = b"VRFY b\r\n" + ENVELOPE + b"BDAT 8 LAST\r\nhonest\r\nQUIT\r\n"

REFUSED = "550 5.6.11"
AND_ON = ["252 2.5.0", "250 2.1.0", "250 2.1.5", "250 2.0.0", "221 2.0.0"]


def by_data(content: bytes) -> bytes:
    """As a client sends it that is not careful, or not honest: no dot is doubled."""
    return ENVELOPE + b"DATA\r\n" + content + END


def by_bdat(content: bytes) -> bytes:
    return ENVELOPE + b"BDAT %d LAST\r\n" % len(content) + content


WAYS = {"DATA": (by_data, ["250 2.1.0", "250 2.1.5", "354 Go"]), "BDAT": (by_bdat, ["250 2.1.0", "250 2.1.5"])}


async def _converse(pieces: list[bytes]) -> tuple[bytes, Mailbox]:
    mailbox = Mailbox()
    server = InMemory(mailbox)
    await server.exchange(b"EHLO client.example\r\n")
    said = b"".join([await server.exchange(piece) for piece in pieces])
    return said, mailbox


def converse(pieces: list[bytes]) -> tuple[list[str], list[bytes]]:
    """The replies behind that to EHLO, as code and enhanced code, and the content of what was taken in."""
    coroutine = _converse(pieces)
    # Nothing waits here, and there are many of these: an event loop would be most of the time.
    try:
        coroutine.send(None)
    except StopIteration as stop:
        said, mailbox = stop.value
    else:
        raise AssertionError("the receiver has waited for something")
    return replies(said), [message.content for message in mailbox.messages]


def replies(said: bytes) -> list[str]:
    return [" ".join(line.split()[:2]) for line in said.decode("ascii").split("\r\n")[:-1]]


def octet_by_octet(octets: bytes) -> list[bytes]:
    return [octets[place : place + 1] for place in range(len(octets))]


def name(octets: bytes) -> str:
    return "".join({13: "CR", 10: "LF", 0: "NUL"}.get(octet, chr(octet)) for octet in octets)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("look_alike", LOOK_ALIKES, ids=name)
def test_at_every_cut_one_message_is_refused_and_what_follows_is_in_step(look_alike: bytes, way: str) -> None:
    send, begun = WAYS[way]
    stream = send(BEFORE + look_alike + HIDDEN) + BEHIND
    expected = ([*begun, REFUSED, *AND_ON], [b"honest\r\n"])
    for cut in range(len(stream)):
        assert converse([stream[:cut], stream[cut:]]) == expected, f"cut at {cut}"
    assert converse(octet_by_octet(stream)) == expected


# What may stand around a look-alike: nothing on one side or the other, a line that has ended, an empty line.
SURROUNDINGS = {
    "at the very beginning": (b"", HIDDEN),
    "behind a whole line": (b"first\r\n", HIDDEN),
    "behind the header section": (b"Subject: first\r\n\r\n", HIDDEN),
    "behind a line of two dots": (b"first\r\n..\r\n", HIDDEN),
    "before a whole line": (BEFORE, b"\r\n" + HIDDEN),
    "at the very end": (BEFORE, b""),
    "before an empty line at the end": (BEFORE, b"\r\n"),
    "behind another": (BEFORE + b"\n.\n" + HIDDEN, HIDDEN),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("where", SURROUNDINGS)
def test_wherever_in_the_message_it_stands(where: str, way: str) -> None:
    send, begun = WAYS[way]
    before, behind = SURROUNDINGS[where]
    expected = ([*begun, REFUSED, *AND_ON], [b"honest\r\n"])
    for look_alike in LOOK_ALIKES:
        message = before + look_alike + behind
        stream = send(message) + BEHIND
        place = stream.index(message) + len(before)
        for cut in range(max(0, place - 4), place + len(look_alike) + 4):
            assert converse([stream[:cut], stream[cut:]]) == expected, f"{name(look_alike)} cut at {cut}"
        assert converse(octet_by_octet(stream)) == expected, name(look_alike)


@pytest.mark.parametrize("way", WAYS)
def test_every_look_alike_there_can_be(way: str) -> None:
    send, begun = WAYS[way]
    expected = ([*begun, REFUSED, *AND_ON], [b"honest\r\n"])
    count = 0
    for look_alike in every_look_alike():
        stream = send(b"first" + look_alike + HIDDEN) + BEHIND
        assert converse([stream]) == expected, name(look_alike)
        assert converse(octet_by_octet(stream)) == expected, name(look_alike)
        count += 1
    # (3 + 9 + 27) squared, without those that have the true end in them: four endings on either side.
    assert count == 39 * 39 - 4 * 4


def test_the_true_end_is_one_wherever_it_is_cut() -> None:
    # Otherwise all of the above would say little.
    stream = by_data(BEFORE) + BEHIND
    expected = (["250 2.1.0", "250 2.1.5", "354 Go", "250 2.0.0", *AND_ON], [BEFORE + b"\r\n", b"honest\r\n"])
    for cut in range(len(stream)):
        assert converse([stream[:cut], stream[cut:]]) == expected
    hidden = by_data(BEFORE + END + HIDDEN) + BEHIND
    assert converse([hidden])[1] == [BEFORE + b"\r\n", b"evil\r\n", b"honest\r\n"]


@pytest.mark.parametrize("look_alike", LOOK_ALIKES, ids=name)
def test_a_border_of_chunks_within_it_changes_nothing(look_alike: bytes) -> None:
    content = BEFORE + look_alike + HIDDEN
    for border in range(len(BEFORE) - 1, len(BEFORE + look_alike) + 2):
        first, second = content[:border], content[border:]
        chunks = b"BDAT %d\r\n" % len(first) + first + b"BDAT %d LAST\r\n" % len(second) + second
        said, messages = converse(octet_by_octet(ENVELOPE + chunks + BEHIND))
        assert said[2:] in (["250 2.0.0", REFUSED, *AND_ON], [REFUSED, "503 5.5.1", *AND_ON]), f"border at {border}"
        assert messages == [b"honest\r\n"]


# ------------------------------------------------------------------ over sockets


def cut_around(stream: bytes, look_alike: bytes) -> list[list[bytes]]:
    """The stream in pieces: a cut at each place in and around the look-alike, and all of these at once."""
    place = stream.index(BEFORE) + len(BEFORE)
    cuts = range(place - 1, place + len(look_alike) + 2)
    around = octet_by_octet(stream[cuts.start : cuts.stop])
    return [
        *([stream[:cut], stream[cut:]] for cut in cuts),
        [stream[: cuts.start], *around, stream[cuts.stop :]],
    ]


async def say_apart(caller: Caller, pieces: list[bytes]) -> None:
    """Each in a segment, and under TLS a record, of its own; and the server has read each before the next is sent."""
    for piece in pieces:
        await caller.say(piece)
        await trio.testing.wait_all_tasks_blocked()


async def opened(caller: Caller, tls: bool) -> None:
    await caller.greeted()
    if tls:
        await caller.secure(verifying_tls())
        await caller.hello()


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "TLS"])
async def test_what_is_said_apart_is_read_apart(tls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the test below is worth hangs on this.
    monkeypatch.setattr(intake, "PIECE_OCTETS", 1)
    pieces: list[bytes] = []

    class Listener(MemoryReceiver):
        async def content(self, octets: bytes) -> None:
            pieces.append(octets)
            await super().content(octets)

    receiver = Listener(Mailbox())
    async with (
        open_house(quick_settings(tls=server_tls()), new_receiver=lambda peer: receiver) as house,
        call(house) as caller,
    ):
        await opened(caller, tls)
        await say_apart(caller, [ENVELOPE + b"DATA\r\n", *octet_by_octet(b"first"), END])
        assert await caller.codes(4) == ["250", "250", "354", "250"]
    assert pieces == [b"f", b"i", b"r", b"s", b"t", b"\r\n"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tls", [False, True], ids=["clear", "TLS"])
@pytest.mark.parametrize("look_alike", LOOK_ALIKES, ids=name)
async def test_over_sockets_cut_in_and_around_it(look_alike: bytes, tls: bool, way: str) -> None:
    send, begun = WAYS[way]
    stream = send(BEFORE + look_alike + HIDDEN) + b"VRFY b\r\n"
    async with open_house(quick_settings(tls=server_tls())) as house, call(house) as caller:
        await opened(caller, tls)
        for pieces in cut_around(stream, look_alike):
            assert b"".join(pieces) == stream
            await say_apart(caller, pieces)
            said = [" ".join((await caller.reply() or "").split()[:2]) for _ in range(len(begun) + 2)]
            assert said == [*begun, REFUSED, "252 2.5.0"], pieces
        assert not house.mailbox.messages
        assert await caller.send(b"honest\r\n") == "250 2.0.0 Message accepted"
        assert await caller.ask("QUIT") == "221 2.0.0 mx.example.org Goodbye"
        assert await caller.line() is None
        assert [message.content for message in house.mailbox.messages] == [b"honest\r\n"]
        assert house.statistics.messages == 1


# ------------------------------------------------------------------ what we send


def written_as_data(pieces: list[bytes]) -> bytes:
    writer = ContentWriter()
    return b"DATA\r\n" + b"".join([*map(writer.write, pieces), writer.end()])


def written_as_chunks(pieces: list[bytes]) -> bytes:
    writer = ChunkWriter()
    return b"".join([*map(writer.write, pieces), writer.end()])


WRITERS = {"DATA": (written_as_data, ["354 Go"]), "BDAT": (written_as_chunks, [])}


@pytest.mark.parametrize("way", WRITERS)
@pytest.mark.parametrize("look_alike", [*LOOK_ALIKES, END, b"\r\n.\r\n.\r\n", b"\r\n..\r\n", b"\r\n. \r\n"], ids=name)
def test_what_we_send_is_read_as_one_message(look_alike: bytes, way: str) -> None:
    write, begun = WRITERS[way]
    content = BEFORE + look_alike + HIDDEN
    # Bare ones become the line ends that they must have been. A NUL stays: it is no line end, and is refused.
    repaired = re.sub(rb"\r\n|\r|\n", b"\r\n", content) + b"\r\n"
    refused = b"\0" in content
    said_expected = ["250 2.1.0", "250 2.1.5", *begun, REFUSED if refused else "250 2.0.0", *AND_ON]
    expected = (said_expected, [b"honest\r\n"] if refused else [repaired, b"honest\r\n"])
    whole = write([content])
    for cut in range(len(content)):
        assert write([content[:cut], content[cut:]]) == whole, f"written in pieces cut at {cut}"
    assert write(octet_by_octet(content)) == whole
    assert converse([ENVELOPE + whole + BEHIND]) == expected
    assert converse(octet_by_octet(ENVELOPE + whole + BEHIND)) == expected


@pytest.mark.parametrize("way", WRITERS)
def test_every_look_alike_we_could_be_made_to_send(way: str) -> None:
    write, begun = WRITERS[way]
    for look_alike in every_look_alike():
        if b"\0" in look_alike:
            continue
        said, messages = converse([ENVELOPE + write([b"first" + look_alike + HIDDEN]) + BEHIND])
        assert said == ["250 2.1.0", "250 2.1.5", *begun, "250 2.0.0", *AND_ON], name(look_alike)
        assert len(messages) == 2, name(look_alike)
        assert messages[0].endswith(b"\r\nevil\r\n"), name(look_alike)
