"""Plays every text file of this folder with the server: the pure session, fed whole lines and octet by octet, and the
real driver on loopback.
"""

from collections import deque
from pathlib import Path

import pytest
from smtp_conversation import Conversation, play, read_conversation
from smtp_house import InMemory, call, open_house, quick_settings
from smtp_memory import Mailbox

CONVERSATIONS = [read_conversation(path) for path in sorted(Path(__file__).parent.glob("*.txt"))]


def _names(conversation: Conversation) -> str:
    return conversation.name


def test_the_files_are_there() -> None:
    assert len(CONVERSATIONS) >= 60


@pytest.mark.parametrize("octets_at_once", [1 << 16, 1], ids=["whole", "octet-by-octet"])
@pytest.mark.parametrize("conversation", [c for c in CONVERSATIONS if not c.needs_driver], ids=_names)
async def test_with_the_pure_session(conversation: Conversation, octets_at_once: int) -> None:
    mailbox = Mailbox()
    server = InMemory(mailbox, **conversation.settings)
    heard: deque[str] = deque()

    def listen(octets: bytes) -> None:
        assert octets.endswith(b"\r\n") or not octets
        heard.extend(octets.decode("ascii").split("\r\n")[:-1])

    async def say(octets: bytes) -> None:
        for start in range(0, len(octets), octets_at_once):
            listen(await server.exchange(octets[start : start + octets_at_once]))

    async def hear() -> str | None:
        if heard:
            return heard.popleft()
        assert server.closed, "the server says nothing and waits"
        return None

    listen(await server.exchange(b""))
    await play(conversation, mailbox, say, hear)
    assert not heard, f"the server said more than was expected: {heard}"


@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=_names)
async def test_with_the_driver(conversation: Conversation) -> None:
    async with (
        open_house(quick_settings(**conversation.settings, shutdown_grace_s=0.0)) as house,
        call(house) as caller,
    ):
        await play(conversation, house.mailbox, caller.say, caller.line)
        # At the shutdown a session is told 421; whatever comes before that was said without being asked for.
        house.shutdown.set()
        rest = await caller.line()
        assert rest is None or rest.startswith("421 4.3.2 "), f"the server said more than was expected: {rest}"
        assert bool(house.errors) is conversation.needs_driver
