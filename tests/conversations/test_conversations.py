"""Plays every text file of this folder with the server: the pure session, fed whole lines and octet by octet, and the
real driver on loopback.
"""

from collections import deque
from pathlib import Path

import pytest
from certificates import server_tls, verifying_tls
from smtp_conversation import Conversation, play, read_conversation
from smtp_house import InMemory, call, open_house, quick_settings
from smtp_memory import Mailbox

from smtp.server.serving import ServerSettings
from smtp.server.session import ServerSession

CONVERSATIONS = [read_conversation(path) for path in sorted(Path(__file__).parent.glob("*.txt"))]

# How many octets the pure session is given at once.
PLAYS = [
    pytest.param(conversation, octets, id=f"{conversation.name}-{name}")
    for conversation in CONVERSATIONS
    for octets, name in ((1 << 16, "whole"), (1, "octet-by-octet"))
    if not conversation.needs_driver and not (conversation.needs_whole and octets == 1)
]


def _names(conversation: Conversation) -> str:
    return conversation.name


def _settings(conversation: Conversation) -> ServerSettings:
    limits = {key: value for key, value in conversation.settings.items() if key != "starttls"}
    tls = server_tls() if conversation.settings.get("starttls") else None
    return quick_settings(**limits, shutdown_grace_s=0.0, tls=tls)  # type: ignore[arg-type]  # All limits are numbers.


def test_the_files_are_there() -> None:
    assert len(CONVERSATIONS) >= 200


def test_no_file_forgets_to_listen() -> None:
    for conversation in CONVERSATIONS:
        assert any(step.mark.startswith("S") for step in conversation.steps), conversation.name


@pytest.mark.parametrize(("conversation", "octets_at_once"), PLAYS)
async def test_with_the_pure_session(conversation: Conversation, octets_at_once: int) -> None:
    mailbox = Mailbox()
    server = InMemory(mailbox)
    server.session = ServerSession(_settings(conversation).session)
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

    async def shake_hands() -> None:
        # Nothing is left to do: who drives the session has called it secured when that was asked for.
        assert server.session.secure
        assert not heard, f"the server spoke before the handshake: {heard}"

    listen(await server.exchange(b""))
    await play(conversation, mailbox, say, hear, shake_hands)
    assert not heard, f"the server said more than was expected: {heard}"


@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=_names)
async def test_with_the_driver(conversation: Conversation) -> None:
    async with open_house(_settings(conversation)) as house, call(house) as caller:

        async def shake_hands() -> None:
            await caller.shake_hands(verifying_tls())

        await play(conversation, house.mailbox, caller.say, caller.line, shake_hands)
        # At the shutdown a session is told 421; whatever comes before that was said without being asked for.
        house.shutdown.set()
        rest = await caller.line()
        assert rest is None or rest.startswith("421 4.3.2 "), f"the server said more than was expected: {rest}"
        assert bool(house.errors) is conversation.needs_driver
