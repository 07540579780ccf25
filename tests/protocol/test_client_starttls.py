"""STARTTLS in the client's session: when it is said, what is forgotten, and what nobody may slip in."""

from collections.abc import Callable

import pytest

from smtp.client.events import Event, HandshakeDue, Ready, Rejected, TlsRefused
from smtp.client.sequence import ClientState, Stage
from smtp.client.session import ClientSession
from smtp.errors import ProtocolError, SessionMisuse
from smtp.parameters import MailParameters
from smtp.tls import TlsFacts

EHLO = b"250-mx.example.org\r\n250-PIPELINING\r\n250-SIZE 7\r\n250-LIMITS RCPTMAX=1\r\n250 STARTTLS\r\n"
FACTS = TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", verified=True)


def hear(session: ClientSession, octets: bytes) -> list[Event]:
    """The server's answer to all that was written."""
    session.octets_to_send()
    session.receive(octets)
    events = []
    while (event := session.next_event()) is not None:
        events.append(event)
    return events


def opened(ehlo: bytes = EHLO) -> ClientSession:
    session = ClientSession("client.example")
    assert hear(session, b"220 mx.example.org ESMTP\r\n") == []
    assert hear(session, ehlo) == [Ready()]
    session.octets_to_send()
    return session


def asked() -> ClientSession:
    session = opened()
    session.start_tls()
    assert session.octets_to_send() == b"STARTTLS\r\n"
    assert session.stage is Stage.STARTTLS
    return session


def test_all_that_was_said_in_clear_is_forgotten() -> None:
    session = asked()
    assert hear(session, b"220 go ahead\r\n") == [HandshakeDue()]
    assert session.stage is Stage.TLS
    assert session.state is ClientState.HANDSHAKE
    assert session.server.tls is None
    session.secured(FACTS)
    assert session.server.tls is FACTS
    assert session.octets_to_send() == b"EHLO client.example\r\n"
    assert (
        session.server.extensions,
        session.server.max_octets,
        session.server.limits.recipients,
        session.server.server_name,
    ) == (
        {},
        None,
        None,
        "",
    )
    assert hear(session, b"250-inner.example.org hello\r\n250 8BITMIME\r\n") == [Ready()]
    assert session.server.extensions == {"8BITMIME": ""}
    assert session.server.server_name == "inner.example.org"
    session.begin("", ["a@example.org"], MailParameters(1000))
    assert session.octets_to_send() == b"MAIL FROM:<>\r\n"


def test_helo_under_tls_too() -> None:
    session = asked()
    hear(session, b"220 go\r\n")
    session.secured(FACTS)
    session.octets_to_send()
    assert hear(session, b"502 what?\r\n") == []
    assert session.octets_to_send() == b"HELO client.example\r\n"
    assert hear(session, b"250 hi\r\n") == [Ready()]


@pytest.mark.parametrize("code", [454, 501, 502, 554])
def test_a_refusal_is_told_and_the_conversation_can_go_on(code: int) -> None:
    session = asked()
    events = hear(session, b"%d not now\r\n" % code)
    assert [event.reply.code for event in events if isinstance(event, TlsRefused)] == [code]
    session.begin("", ["a@example.org"], MailParameters(1))
    assert session.octets_to_send().startswith(b"MAIL ")


def test_421_ends_it() -> None:
    session = asked()
    events = hear(session, b"421 bye\r\n")
    assert [(event.reply.code, event.stage) for event in events if isinstance(event, Rejected)] == [
        (421, Stage.STARTTLS)
    ]
    assert session.state is ClientState.CLOSED


def test_a_refusal_of_ehlo_under_tls_is_a_rejection() -> None:
    session = asked()
    hear(session, b"220 go\r\n")
    session.secured(FACTS)
    assert isinstance(hear(session, b"421 not you\r\n")[0], Rejected)


@pytest.mark.parametrize("injected", [b"250-evil.example\r\n250 AUTH\r\n", b"2", b"\x16\x03\x01"])
def test_octets_behind_the_220_are_not_taken_into_the_secured_conversation(injected: bytes) -> None:
    session = asked()
    session.receive(b"220 go\r\n" + injected)
    with pytest.raises(ProtocolError, match="in clear"):
        session.next_event()
    assert session.state is ClientState.CLOSED
    assert session.stage is Stage.STARTTLS
    assert session.octets_to_send() == b""


@pytest.mark.parametrize("ask", [ClientSession.next_event, lambda session: session.secured(FACTS)])
def test_nor_are_those_that_come_after_it(ask: Callable[[ClientSession], object]) -> None:
    session = asked()
    assert hear(session, b"220 go\r\n") == [HandshakeDue()]
    session.receive(b"250-evil.example\r\n250 AUTH\r\n")
    with pytest.raises(ProtocolError, match=r"in clear|without being asked"):
        ask(session)
    assert session.state is ClientState.CLOSED
    assert session.octets_to_send() == b""


def test_a_reply_that_comes_before_the_question_is_no_answer() -> None:
    session = opened()
    session.receive(b"220 go\r\n")
    with pytest.raises(ProtocolError, match="no command asked"):
        session.start_tls()
    assert session.octets_to_send() == b""


def test_354_is_no_reply() -> None:
    session = asked()
    session.receive(b"354 go\r\n")
    with pytest.raises(ProtocolError):
        session.next_event()


def test_misuse() -> None:
    session = opened(b"250 mx.example.org\r\n")
    with pytest.raises(SessionMisuse):
        session.start_tls()
    with pytest.raises(SessionMisuse):
        session.secured(FACTS)
    session = asked()
    with pytest.raises(SessionMisuse):
        session.start_tls()
    with pytest.raises(SessionMisuse):
        session.begin("", ["a@example.org"], MailParameters(1))
    hear(session, b"220 go\r\n")
    session.secured(FACTS)
    hear(session, EHLO)
    # Offered again under TLS: once is enough.
    with pytest.raises(SessionMisuse):
        session.start_tls()
