"""The client's driver sending chunks, to servers that refuse one, wait, or leave in between."""

from collections.abc import AsyncIterator

import pytest
import trio
from smtp_house import Caller
from smtp_scripted import greet, scripted

from smtp.client.chunks import CHUNK_OCTETS
from smtp.client.trio_client import ChunkingRefused, Connection, Lost, Stage, Timeouts
from smtp.reply import Reply

SHORT_S = 0.2
"""A timeout that a test waits for to the end."""

CHUNKING = b"250-odd.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
STEP_BY_STEP = b"250-odd.example\r\n250 CHUNKING\r\n"
CHUNK = b"0123456789abcd\r\n" * (CHUNK_OCTETS // 16)


async def connect(port: int, timeouts: Timeouts | None = None) -> Connection:
    return await Connection.open("127.0.0.1", port, helo="client.example", timeouts=timeouts or Timeouts())


async def as_far_as_chunks(client: Caller, ehlo: bytes = CHUNKING) -> None:
    await greet(client, ehlo)
    for _ in range(2):
        await client.line()
        await client.say(b"250 ok\r\n")


async def read_chunk(client: Caller) -> str:
    """Its command."""
    command = await client.line()
    assert command is not None
    left = int(command.split(" ")[1])
    while left > 0:
        line = await client.line()
        assert line is not None
        left -= len(line) + 2
    return command


async def test_chunks_end_with_the_first_one_that_is_refused() -> None:
    given = 0
    closed = False

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given, closed
        try:
            while True:
                given += 1
                yield CHUNK
                # Like a spool that is read: others run in between.
                await trio.lowlevel.checkpoint()
        finally:
            closed = True

    async def refuse(client: Caller) -> None:
        await as_far_as_chunks(client)
        await read_chunk(client)
        await client.say(b"552 5.3.4 that is enough\r\n")
        while await read_chunk(client):
            await client.say(b"503 5.5.1 no\r\n")

    async with scripted(refuse) as port:
        connection = await connect(port, Timeouts(block=SHORT_S))
        results = await connection.send("", ["b@example.org"], endless(), size=5, eight_bit=False)
        assert [(result.reply.code, result.stage) for result in results] == [(552, Stage.BDAT)]
        assert closed
        # As many as were under way, not as many as there are.
        assert given < 300
        connection.aclose()


async def test_a_refused_chunk_is_the_result_even_where_the_server_leaves() -> None:
    async def refuse_and_leave(client: Caller) -> None:
        await as_far_as_chunks(client)
        await read_chunk(client)
        await client.say(b"552 5.3.4 that is enough\r\n")

    async with scripted(refuse_and_leave) as port:
        connection = await connect(port)
        results = await connection.send("", ["b@example.org"], [CHUNK] * 300, size=5, eight_bit=False)
        assert [(result.reply.code, result.stage) for result in results] == [(552, Stage.BDAT)]


@pytest.mark.parametrize("code", [b"500", b"502"])
@pytest.mark.parametrize("chunks", [1, 3, 300])
async def test_a_server_that_does_not_know_its_own_bdat_has_taken_nothing(code: bytes, chunks: int) -> None:
    async def middlebox(client: Caller) -> None:
        await as_far_as_chunks(client)
        await client.line()
        await client.say(code + b" 5.5.1 what?\r\n")
        if chunks == 1:
            while await client.line():
                pass

    async with scripted(middlebox) as port:
        connection = await connect(port)
        with pytest.raises(ChunkingRefused, match=r"refused with 50[02] 5.5.1 what") as caught:
            await connection.send("", ["b@example.org"], [CHUNK] * chunks, size=5, eight_bit=False)
        assert caught.value.stage is Stage.BDAT
        assert caught.value.reply == Reply(int(code), "what?", "5.5.1")
        assert not connection.usable


async def test_replies_to_earlier_chunks_make_the_final_one_no_later() -> None:
    async def dribble(client: Caller) -> None:
        await as_far_as_chunks(client)
        for _ in range(21):
            await read_chunk(client)
        while True:
            await trio.sleep(SHORT_S / 2)
            await client.say(b"250 ok\r\n")

    async with scripted(dribble) as port:
        connection = await connect(port, Timeouts(end_of_data=SHORT_S))
        with pytest.raises(Lost, match="end of data: timed out"):
            await connection.send("", ["b@example.org"], [CHUNK] * 21, size=5, eight_bit=False)


async def test_without_pipelining_each_chunk_waits_for_its_reply() -> None:
    commands = []
    early = []

    async def one_by_one(client: Caller) -> None:
        await as_far_as_chunks(client, STEP_BY_STEP)
        for _ in range(3):
            commands.append(await read_chunk(client))
            with trio.move_on_after(0.02):
                early.append(await client.line())
            await client.say(b"250 ok\r\n")
        await client.line()

    async with scripted(one_by_one) as port:
        connection = await connect(port)
        results = await connection.send("", ["b@example.org"], [CHUNK] * 3, size=5, eight_bit=False)
        assert [(result.reply.code, result.stage) for result in results] == [(250, Stage.END_OF_DATA)]
        connection.aclose()
    assert commands == [f"BDAT {len(CHUNK)}"] * 2 + [f"BDAT {len(CHUNK)} LAST"]
    assert early == []


async def test_a_server_that_reads_chunks_and_says_nothing() -> None:
    async def silent(client: Caller) -> None:
        await as_far_as_chunks(client)
        while await read_chunk(client):
            pass

    async with scripted(silent) as port:
        connection = await connect(port, Timeouts(block=SHORT_S))
        with pytest.raises(Lost, match="bdat: timed out"):
            await connection.send("", ["b@example.org"], [CHUNK] * 300, size=5, eight_bit=False)


@pytest.mark.parametrize(("chunks", "stage"), [(1, Stage.END_OF_DATA), (3, Stage.END_OF_DATA), (300, Stage.BDAT)])
async def test_lost_behind_the_last_chunk_is_a_doubt_and_before_it_is_none(chunks: int, stage: Stage) -> None:
    async def leave(client: Caller) -> None:
        await as_far_as_chunks(client)
        for _ in range(min(chunks, 3)):
            await read_chunk(client)

    async with scripted(leave) as port:
        connection = await connect(port)
        with pytest.raises(Lost, match=r"closed|reset|pipe") as caught:
            await connection.send("", ["b@example.org"], [CHUNK] * chunks, size=5, eight_bit=False)
        assert caught.value.stage is stage
