"""Content by BDAT (RFC 3030): what arrives, what is refused, and that both ends stay in step whatever is refused.

Most of it is about octets, and told to the pure session; what a receiver can do wrong is on the driver's side.
"""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from smtp_house import InMemory, call, open_house, quick_settings
from smtp_memory import Mailbox

MAX_OCTETS = 1000
HELLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<a@example.com>\r\n"
RCPT = b"RCPT TO:<b@example.org>\r\n"
ENVELOPE = MAIL + RCPT


def bdat(content: bytes, last: bool = False) -> bytes:
    return b"BDAT %d%s\r\n" % (len(content), b" LAST" if last else b"") + content


async def _converse(pieces: list[bytes]) -> tuple[bytes, Mailbox, bool]:
    mailbox = Mailbox()
    server = InMemory(mailbox, max_message_octets=MAX_OCTETS)
    said = await server.exchange(b"")
    for piece in pieces:
        said += await server.exchange(piece)
    return said, mailbox, server.closed


def converse(*pieces: bytes) -> tuple[list[str], Mailbox, bool]:
    """The replies, but those to the connection and EHLO, as code and enhanced code; the mail; whether it is over."""
    coroutine = _converse([HELLO, *pieces])
    try:
        coroutine.send(None)
    except StopIteration as stop:
        said, mailbox, closed = stop.value
    else:
        raise AssertionError("the receiver has waited for something")
    lines = [line.decode("ascii") for line in said.split(b"\r\n")[:-1]]
    replies = [" ".join(line.split()[:2]) for line in lines if line[3] == " "]
    return replies[2:], mailbox, closed


def arrives(*chunks: bytes) -> bytes:
    """What the receiver is promised of a message in these chunks."""
    pieces = [bdat(chunk) for chunk in chunks[:-1]] + [bdat(chunks[-1], last=True)]
    replies, mailbox, _ = converse(ENVELOPE, *pieces)
    assert replies == ["250 2.1.0", "250 2.1.5"] + ["250 2.0.0"] * len(chunks)
    [message] = mailbox.messages
    assert mailbox.resets == 0
    return message.content


@pytest.mark.parametrize(
    "chunks",
    [
        [b"Subject: one\r\n\r\ntext\r\n"],
        [b"Subject: two\r\n", b"\r\ntext\r\n"],
        [b"Subject: empty last\r\n\r\ntext\r\n", b""],
        [b"", b"", b"Subject: empty first\r\n\r\ntext\r\n"],
        [b"Subject: halves of a pair\r", b"\n", b"\r", b"", b"\n", b"text\r", b"\n"],
        [b".\r\n", b".\r\n.\r\n..\r\n", b"\r\n", b".\r\n"],
        [b"\r\n.\r\nQUIT\r\n"],
        [b"Subject: eight bit\r\n\r\n\xff\xfe\x80\xc3\xa4\r\n"],
        [b"no line end at all"],
        [b""],
        [b"x" * MAX_OCTETS],
        [b"x" * (MAX_OCTETS // 2)] * 2,
    ],
)
def test_chunks_arrive_as_they_were_sent(chunks: list[bytes]) -> None:
    assert arrives(*chunks) == b"".join(chunks)


@given(st.lists(st.lists(st.sampled_from([b"\r\n", b".", b"a", b"\xff", b"BDAT 1"]), max_size=6).map(b"".join)))
def test_any_chunks_arrive_as_they_were_sent(chunks: list[bytes]) -> None:
    assert arrives(*chunks, b"") == b"".join(chunks)


@given(st.lists(st.integers(0, 24), max_size=6))
def test_where_a_message_is_cut_into_chunks_changes_nothing(cuts: list[int]) -> None:
    content = b"Subject: x\r\n\r\n.\r\n..y\r\n\r\n"
    places = [0, *sorted(cuts), len(content)]
    assert arrives(*(content[start:end] for start, end in pairwise(places))) == content


OK = ["250 2.1.0", "250 2.1.5"]
# What follows the envelope, the replies to it, and the content of the one message that comes of it, if one does: the
# receiver has to forget where none does. Behind all of it NOOP is asked: whoever answers that is still in step.
REFUSED: list[tuple[str, list[bytes], list[str], bytes | None]] = [
    ("a bare CR within", [bdat(b"a\rb\r\n", True)], ["550 5.6.11"], None),
    ("a bare LF within", [bdat(b"a\nb\r\n", True)], ["550 5.6.11"], None),
    ("a bare LF at the very beginning", [bdat(b"\n", True)], ["550 5.6.11"], None),
    ("a bare CR at the very end", [bdat(b"a\r", True)], ["550 5.6.11"], None),
    (
        "a bare CR at the end, and an empty last chunk",
        [bdat(b"a\r"), bdat(b"", True)],
        ["250 2.0.0", "550 5.6.11"],
        None,
    ),
    ("a CR and something else in the next chunk", [bdat(b"a\r"), bdat(b"b", True)], ["250 2.0.0", "550 5.6.11"], None),
    ("a CR and its LF twice", [bdat(b"a\r"), bdat(b"\n\n", True)], ["250 2.0.0", "550 5.6.11"], None),
    ("a NUL", [bdat(b"a\0b\r\n", True)], ["550 5.6.11"], None),
    ("a NUL in the first of two chunks", [bdat(b"\0"), bdat(b"b", True)], ["550 5.6.11", "503 5.5.1"], None),
    ("too large in one chunk", [bdat(b"x" * (MAX_OCTETS + 1), True)], ["552 5.3.4"], None),
    ("far too large in one chunk", [bdat(b"x" * (MAX_OCTETS * 200), True)], ["552 5.3.4"], None),
    ("too large in all", [bdat(b"x" * MAX_OCTETS), bdat(b"y", True)], ["250 2.0.0", "552 5.3.4"], None),
    (
        "too large before the last chunk",
        [bdat(b"x" * MAX_OCTETS), bdat(b"y"), bdat(b"z"), bdat(b"", True)],
        ["250 2.0.0", "552 5.3.4", "503 5.5.1", "503 5.5.1"],
        None,
    ),
    ("MAIL between chunks", [bdat(b"a"), MAIL, bdat(b"b", True)], ["250 2.0.0", "503 5.5.1", "250 2.0.0"], b"ab"),
    ("RCPT between chunks", [bdat(b"a"), RCPT, bdat(b"b", True)], ["250 2.0.0", "503 5.5.1", "250 2.0.0"], b"ab"),
    (
        "DATA between chunks",
        [bdat(b"a"), b"DATA\r\n", bdat(b"b", True)],
        ["250 2.0.0", "503 5.5.1", "250 2.0.0"],
        b"ab",
    ),
    ("NOOP between chunks", [bdat(b"a"), b"NOOP\r\n", bdat(b"b", True)], ["250 2.0.0"] * 3, b"ab"),
    ("a chunk behind the last", [bdat(b"a", True), bdat(b"QUIT\r\n", True)], ["250 2.0.0", "503 5.5.1"], b"a"),
    ("RSET between chunks", [bdat(b"a"), b"RSET\r\n", bdat(b"b", True)], ["250 2.0.0"] * 2 + ["503 5.5.1"], None),
    (
        "EHLO between chunks",
        [bdat(b"a"), HELLO, bdat(b"b", True)],
        ["250 2.0.0", "250 LIMITS", "503 5.5.1"],
        None,
    ),
]


@pytest.mark.parametrize(
    ("chunks", "replies", "content"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_what_is_refused_is_read_to_its_end(chunks: list[bytes], replies: list[str], content: bytes | None) -> None:
    said, mailbox, closed = converse(ENVELOPE, *chunks, b"NOOP\r\n")
    assert said == [*OK, *replies, "250 2.0.0"]
    assert not closed
    assert [message.content for message in mailbox.messages] == ([] if content is None else [content])
    assert mailbox.resets == (content is None)


def test_a_message_that_was_given_up_leaves_nothing_in_the_next() -> None:
    said, mailbox, _ = converse(ENVELOPE, bdat(b"a\r"), b"RSET\r\n", ENVELOPE, bdat(b"b", True))
    assert said == [*OK, "250 2.0.0", "250 2.0.0", *OK, "250 2.0.0"]
    assert [message.content for message in mailbox.messages] == [b"b"]
    assert mailbox.resets == 1


@pytest.mark.parametrize(
    ("before", "replies"),
    [
        ([], []),
        ([MAIL.replace(b"a@", b"unwelcome@")], ["550 5.7.1"]),
    ],
    ids=["no MAIL", "MAIL refused"],
)
def test_a_chunk_outside_a_transaction_is_swallowed(before: list[bytes], replies: list[str]) -> None:
    said, mailbox, closed = converse(*before, bdat(b"QUIT\r\n"), bdat(b"QUIT\r\n", True), b"NOOP\r\n")
    assert said == [*replies, "503 5.5.1", "503 5.5.1", "250 2.0.0"]
    assert not closed
    assert not mailbox.messages


@pytest.mark.parametrize(
    ("before", "replies"),
    [([], []), ([RCPT.replace(b"b@", b"unknown@")] * 2, ["550 5.1.1"] * 2)],
    ids=["no RCPT", "all RCPT refused"],
)
def test_a_chunk_for_nobody_is_swallowed_and_the_transaction_stays_open(
    before: list[bytes], replies: list[str]
) -> None:
    said, mailbox, _ = converse(MAIL, *before, bdat(b"QUIT\r\n", True), RCPT, bdat(b"text\r\n", True))
    assert said == ["250 2.1.0", *replies, "554 5.5.1", "250 2.1.5", "250 2.0.0"]
    assert [message.content for message in mailbox.messages] == [b"text\r\n"]


def test_a_chunk_before_the_client_has_told_its_name_is_swallowed() -> None:
    coroutine = _converse([bdat(b"QUIT\r\n", True) + b"NOOP\r\n"])
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    assert stop.value.value[0].endswith(b"\r\n503 5.5.1 Say EHLO first\r\n250 2.0.0 OK\r\n")


@pytest.mark.parametrize(
    "line",
    [
        *(b"BDAT", b"BDAT ", b"BDAT LAST", b"BDAT x", b"BDAT -1", b"BDAT +1", b"BDAT 1x", b"BDAT 0x10", b"BDAT 1_0"),
        *(b"BDAT 1 2", b"BDAT 1 LAST LAST", b"BDAT 1LAST", b"BDAT 1 FIRST", b"BDAT 1,LAST", b"BDAT \xb2"),
        b"BDAT 100000000000000000000",
    ],
)
@pytest.mark.parametrize("before", [b"", ENVELOPE, ENVELOPE + bdat(b"first")], ids=["idle", "envelope", "chunks"])
def test_a_chunk_of_unknown_size_ends_the_conversation(line: bytes, before: bytes) -> None:
    said, mailbox, closed = converse(before, line + b"\r\nNOOP\r\n" + bdat(b"x", True))
    assert said[-1].split()[0] in ("500", "501")
    assert said[-2:-1] != ["250 2.0.0"] or before.endswith(b"first")
    assert closed
    assert not mailbox.messages
    assert mailbox.resets == bool(before)


@pytest.mark.parametrize("line", [b"bdat 6 last", b"Bdat 6  LAST", b"BDAT 06 Last", b"BDAT 6 LAST  "])
def test_how_a_chunk_may_be_written(line: bytes) -> None:
    said, mailbox, _ = converse(ENVELOPE, line + b"\r\ntext\r\n")
    assert said == [*OK, "250 2.0.0"]
    assert [message.content for message in mailbox.messages] == [b"text\r\n"]


FAULTY = [
    ("no-data", ["554 5.7.1", "503 5.5.1", "503 5.5.1"]),
    ("no-end", ["250 2.0.0", "250 2.0.0", "550 5.7.1"]),
    ("crash-data", ["451 4.3.0", "503 5.5.1", "503 5.5.1"]),
    ("no-content", ["250 2.0.0", "250 2.0.0", "451 4.3.0"]),
    ("crash-end", ["250 2.0.0", "250 2.0.0", "451 4.3.0"]),
]


@pytest.mark.parametrize(("sender", "replies"), FAULTY)
async def test_a_receiver_that_refuses_or_raises_leaves_the_connection_in_step(sender: str, replies: list[str]) -> None:
    async with open_house() as house, call(house) as caller:
        await caller.greeted()
        chunks = bdat(b"QUIT\r\n") + bdat(b"RSET\r\n") + bdat(b"QUIT\r\n", True)
        await caller.say(ENVELOPE.replace(b"a@", sender.encode("ascii") + b"@") + chunks + b"NOOP\r\n")
        said = [" ".join((await caller.reply() or "").split()[:2]) for _ in range(6)]
        assert said == [*OK, *replies, "250 2.0.0"]
        # A refusal at the end of data is the receiver's own: it knows.
        assert house.mailbox.resets == (sender != "no-end")
        assert (await caller.send(b"better\r\n") or "")[:3] == "250"
        assert [message.content for message in house.mailbox.messages] == [b"better\r\n"]
        assert len(house.errors) == (sender not in ("no-data", "no-end"))


GROUP = ENVELOPE + bdat(b"one\r\nMAIL\r") + bdat(b"\n") + bdat(b".\r\n", True) + bdat(b"late") + b"NOOP\r\n"


def test_a_whole_message_in_one_group() -> None:
    said, mailbox, _ = converse(GROUP)
    assert said == [*OK, "250 2.0.0", "250 2.0.0", "250 2.0.0", "503 5.5.1", "250 2.0.0"]
    assert [message.content for message in mailbox.messages] == [b"one\r\nMAIL\r\n.\r\n"]


@pytest.mark.parametrize("sender", [b"a@", b"no-data@", b"no-end@", b"unwelcome@"])
@pytest.mark.parametrize("middle", [b"\n", b"x", b"\0"])
def test_every_split_of_a_group_gives_the_same_replies(sender: bytes, middle: bytes) -> None:
    group = GROUP.replace(b"a@", sender).replace(b"BDAT 1\r\n\n", b"BDAT 1\r\n" + middle)
    whole = converse(group)
    assert len(whole[0]) == 7
    for place in range(len(group) + 1):
        assert converse(group[:place], group[place:]) == whole
    assert converse(*(group[place : place + 1] for place in range(len(group)))) == whole


async def test_a_large_message_in_chunks_of_every_size_arrives_whole() -> None:
    content = b"\r\n" + b"".join(b"line %d\r\n" % number for number in range(100_000))
    async with open_house(quick_settings(max_message_octets=1 << 21)) as house, call(house) as caller:
        await caller.greeted()
        await caller.say(ENVELOPE)
        assert await caller.codes(2) == ["250", "250"]
        place, size = 0, 1
        while place < len(content):
            chunk = content[place : place + size]
            place, size = place + size, size * 2 + 1
            await caller.say(bdat(chunk, last=place >= len(content)))
            assert await caller.code() == "250"
        assert house.mailbox.messages[0].content == content
