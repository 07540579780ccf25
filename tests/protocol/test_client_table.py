"""The client's table of transitions is the one truth: whatever state is changed in it, some conversation goes another
way. A few conversations by script reach every row.
"""

import itertools
from collections.abc import Sequence

import pytest

from smtp.client.authentication import Login
from smtp.client.chunks import CHUNK_OCTETS
from smtp.client.events import CommandRefused, Done, GoAhead, HandshakeDue, Parted, Ready, Rejected, TlsRefused
from smtp.client.sequence import TRANSITIONS, ClientState, Stage
from smtp.client.session import ClientSession
from smtp.errors import ProtocolError, SessionMisuse
from smtp.parameters import MailParameters
from smtp.tls import TlsFacts

PLAIN = b"250 mx.example.org"
PIPELINING = b"250-mx.example.org\r\n250 PIPELINING"
CHUNKING = b"250-mx.example.org\r\n250-PIPELINING\r\n250 CHUNKING"
STARTTLS = b"250-mx.example.org\r\n250 STARTTLS"
AUTH = b"250-mx.example.org\r\n250 AUTH LOGIN"
KNOWN = b"235 welcome"
WHO = b"334 who?"
OK = b"250 ok"
LATER = b"450 later"
NO = b"550 no"
GO = b"354 go"
HELLO = b"220 mx.example.org"

CONVERSATIONS: list[tuple[bytes, ...]] = [
    (LATER,),
    (NO,),
    (HELLO, LATER),
    (HELLO, NO, LATER),
    (HELLO, NO, NO),
    # One by one: a whole message, one for nobody, RSET and what may be said to it, and QUIT.
    (HELLO, NO, OK, OK, OK, GO, OK, OK, LATER, OK, OK, OK, GO, OK),
    *((HELLO, PLAIN, OK, NO, reply) for reply in (LATER, NO)),
    *((HELLO, PLAIN, reply, OK, OK, GO, OK) for reply in (LATER, NO)),
    *((HELLO, PLAIN, OK, OK, reply, OK, OK, OK, GO, OK) for reply in (LATER, NO)),
    # In a group, with every reply to the final dot.
    *((HELLO, PIPELINING, OK, OK, GO, reply, OK, OK, GO, OK) for reply in (OK, LATER, NO)),
    *((HELLO, CHUNKING, OK, OK, reply, reply, reply, OK, OK, OK, OK) for reply in (OK, LATER, NO)),
    *((HELLO, STARTTLS, reply, PLAIN, OK, OK, GO, OK) for reply in (HELLO, LATER, NO)),
    (HELLO, AUTH, WHO, WHO, WHO),
    *((HELLO, AUTH, WHO, WHO, reply, OK, OK, GO, OK) for reply in (KNOWN, LATER, NO)),
]


def told(conversation: Sequence[bytes], farewell: bytes) -> list[str]:
    """What a caller comes to see who sends message after message, and takes leave when the server has nothing more to
    say. What the session calls its state is none of it.
    """
    session = ClientSession("client.example")
    seen: list[str] = []
    replies = [*conversation, farewell]
    between_chunks = False
    known = False
    try:
        for number, reply in enumerate(replies):
            seen.append(repr(session.octets_to_send()))
            session.receive(reply + b"\r\n")
            ends_content = between_chunks
            between_chunks = False
            while (event := session.next_event()) is not None:
                seen.append(repr(event))
                ends_content = False
                last = number == len(replies) - 2
                match event:
                    case GoAhead():
                        # Two chunks, where it goes in chunks.
                        session.content(b"x" * CHUNK_OCTETS)
                        session.content(b"x\r\n")
                        seen.append(repr(session.octets_to_send()[-20:]))
                        between_chunks = session.in_chunks
                        if not between_chunks:
                            session.end_content()
                    case Ready() if "STARTTLS" in session.server.extensions:
                        session.start_tls()
                    case Ready() if "AUTH" in session.server.extensions and not known:
                        known = True
                        session.log_in(Login("user", "secret", allow_clear=True))
                    case HandshakeDue():
                        session.secured(TlsFacts("TLSv1.3", "x", verified=True))
                    case Ready() | Done() | TlsRefused() if last:
                        session.quit()
                    case Ready() | Done() | TlsRefused():
                        session.begin("", ["a@example.org"], MailParameters(7))
                    case Rejected() | CommandRefused() | Parted():
                        seen.append("the end")
            if ends_content:
                session.content(b"y\r\n")
                session.end_content()
    except (ProtocolError, SessionMisuse) as error:
        seen.append(type(error).__name__)
    return seen


FAREWELLS = (b"221 bye", b"421 bye", b"450 later", b"500 what?")


def all_told() -> list[list[str]]:
    return [told(conversation, farewell) for conversation in CONVERSATIONS for farewell in FAREWELLS]


USUAL = all_told()
ROWS = [(stage, digit, state) for stage, row in TRANSITIONS.items() for digit, state in row.items()]


@pytest.mark.parametrize(("stage", "digit", "right"), ROWS)
def test_no_state_in_the_table_could_be_another(
    monkeypatch: pytest.MonkeyPatch, stage: Stage, digit: int, right: ClientState
) -> None:
    for wrong in ClientState:
        if wrong is not right:
            monkeypatch.setitem(TRANSITIONS[stage], digit, wrong)
            assert all_told() != USUAL, f"{wrong} would do as well"
    monkeypatch.setitem(TRANSITIONS[stage], digit, right)
    assert all_told() == USUAL


def test_the_conversations_are_the_usual_ones() -> None:
    flat = list(itertools.chain.from_iterable(USUAL))
    for word in ("Ready()", "Parted()", "GoAhead()", "HandshakeDue()", "TlsRefused", "Rejected", "CommandRefused"):
        assert any(word in line for line in flat), word
