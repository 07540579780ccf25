"""What the client writes into MAIL and RCPT for which server, and what it does not even try."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp.client.events import Done, Event, GoAhead, HandshakeDue, Ready
from smtp.client.extensions import Limits
from smtp.client.sequence import Stage
from smtp.client.session import ClientSession
from smtp.errors import SessionMisuse
from smtp.parameters import MailParameters, Notify, OriginalRecipient, RecipientParameters
from smtp.tls import TlsFacts

ALL = ("PIPELINING", "SIZE 1000", "8BITMIME", "SMTPUTF8", "DSN")


def hear(session: ClientSession, octets: bytes) -> list[Event]:
    """The server's answer to all that was written."""
    session.octets_to_send()
    session.receive(octets)
    events = []
    while (event := session.next_event()) is not None:
        events.append(event)
    return events


def offered(*keywords: str) -> ClientSession:
    session = ClientSession("client.example")
    hear(session, b"220 mx.example.org\r\n")
    hear(session, ehlo(*keywords))
    session.octets_to_send()
    return session


def ehlo(*keywords: str) -> bytes:
    *first, last = ["mx.example.org", *keywords]
    return "".join([*(f"250-{line}\r\n" for line in first), f"250 {last}\r\n"]).encode("ascii")


def secured(verified: bool, *keywords: str) -> ClientSession:
    session = offered("STARTTLS")
    session.start_tls()
    assert hear(session, b"220 go\r\n") == [HandshakeDue()]
    session.secured(TlsFacts("TLSv1.3", "x", verified))
    assert hear(session, ehlo(*keywords)) == [Ready()]
    session.octets_to_send()
    return session


def local(session: ClientSession) -> list[str | None]:
    """The enhanced codes of a message that was not sent."""
    event = session.next_event()
    assert isinstance(event, Done)
    assert session.octets_to_send() == b""
    assert all(result.stage is Stage.LOCAL for result in event.results)
    return [result.reply.enhanced for result in event.results]


def lines(session: ClientSession) -> list[str]:
    return session.octets_to_send().decode("utf-8").split("\r\n")[:-1]


DSN = MailParameters(7, ret="HDRS", envid="QQ+314=159")
DSN_RECIPIENT = RecipientParameters(
    frozenset({Notify.SUCCESS, Notify.DELAY}), OriginalRecipient("rfc822", "a+b@example.org")
)


def test_dsn_parameters_go_to_servers_that_know_them() -> None:
    session = offered(*ALL)
    recipients = ["a@example.org", "b@example.org"]
    session.begin("s@example.com", recipients, DSN, [DSN_RECIPIENT, RecipientParameters()])
    assert lines(session) == [
        "MAIL FROM:<s@example.com> SIZE=7 RET=HDRS ENVID=QQ+2B314+3D159",
        "RCPT TO:<a@example.org> NOTIFY=DELAY,SUCCESS ORCPT=rfc822;a+2Bb@example.org",
        "RCPT TO:<b@example.org>",
        "DATA",
    ]


def test_dsn_parameters_are_left_out_elsewhere() -> None:
    session = offered("PIPELINING")
    session.begin("s@example.com", ["a@example.org"], DSN, [DSN_RECIPIENT])
    assert lines(session) == ["MAIL FROM:<s@example.com>", "RCPT TO:<a@example.org>", "DATA"]


def test_an_original_recipient_that_grows_too_long_in_ascii_is_left_out() -> None:
    session = offered(*ALL)
    parameters = RecipientParameters(orcpt=OriginalRecipient("utf-8", "é" * 100 + "@example.org"))
    session.begin("", ["a@example.org"], MailParameters(1), [parameters])
    assert lines(session)[1] == "RCPT TO:<a@example.org>"


def test_utf8_addresses_go_to_servers_that_know_them() -> None:
    session = offered(*ALL)
    session.begin("jörg@müller.example", ["用户@例子.example"], MailParameters(9, "8BITMIME", smtputf8=True))
    assert lines(session)[:2] == [
        "MAIL FROM:<jörg@müller.example> SIZE=9 BODY=8BITMIME SMTPUTF8",
        "RCPT TO:<用户@例子.example>",
    ]


@pytest.mark.parametrize(("recipient", "enhanced"), [("用户@example.org", "5.6.7"), ("a@example.org", "5.6.9")])
def test_a_message_that_needs_smtputf8_is_not_sent_elsewhere(recipient: str, enhanced: str) -> None:
    session = offered("PIPELINING", "8BITMIME")
    session.begin("a@example.com", [recipient, "b@example.org"], MailParameters(9, "8BITMIME", smtputf8=True))
    assert local(session) == [enhanced, enhanced]


def test_an_international_domain_alone_needs_no_smtputf8() -> None:
    for session in (offered(*ALL), offered("PIPELINING")):
        session.begin("a@müller.example", ["b@例子.example"], MailParameters())
        assert lines(session) == ["MAIL FROM:<a@xn--mller-kva.example>", "RCPT TO:<b@xn--fsqu00a.example>", "DATA"]


@pytest.mark.parametrize("tls", [None, False, True])
@pytest.mark.parametrize("keyword", ["REQUIRETLS", "8BITMIME"])
def test_requiretls_needs_a_verified_server_that_offers_it(tls: bool | None, keyword: str) -> None:
    session = offered(keyword) if tls is None else secured(tls, keyword)
    session.begin("", ["a@example.org"], MailParameters(require_tls=True))
    if tls and keyword == "REQUIRETLS":
        assert lines(session) == ["MAIL FROM:<> REQUIRETLS"]
    else:
        assert local(session) == ["5.7.30"]


@pytest.mark.parametrize(
    ("said", "fits"),
    [
        ("SIZE 1000", True),
        ("SIZE 999", False),
        ("SIZE 0", True),
        ("SIZE", True),
        ("SIZE many", True),
        ("SIZE -1", True),
    ],
)
def test_a_message_larger_than_the_server_takes_is_not_sent(said: str, fits: bool) -> None:
    session = offered(said)
    session.begin("", ["a@example.org", "b@example.org"], MailParameters(1000))
    if fits:
        assert lines(session) == ["MAIL FROM:<> SIZE=1000"]
    else:
        assert local(session) == ["5.3.4", "5.3.4"]


def test_a_message_of_unknown_size_is_tried() -> None:
    session = offered("SIZE 10")
    session.begin("", ["a@example.org"], MailParameters())
    assert lines(session) == ["MAIL FROM:<>"]


@pytest.mark.parametrize(
    ("said", "limits"),
    [
        ("RCPTMAX=20 MAILMAX=5 RCPTDOMAINMAX=1", Limits(5, 20, 1)),
        ("rcptmax=2 NEWMAX=7", Limits(None, 2, None)),
        ("RCPTMAX=0 MAILMAX=-1 RCPTDOMAINMAX=1234567", Limits()),
        ("RCPTMAX MAILMAX= =3 RCPTDOMAINMAX=٣", Limits()),
        ("", Limits()),
    ],
)
def test_limits_are_read_and_what_is_malformed_is_ignored(said: str, limits: Limits) -> None:
    session = ClientSession("client.example")
    assert hear(session, b"220 x\r\n") == []
    assert hear(session, b"250-x\r\n250 LIMITS " + said.encode("utf-8") + b"\r\n") == [Ready()]
    assert session.server.limits == limits


def test_recipients_beyond_the_limit_belong_into_another_transaction() -> None:
    session = offered("PIPELINING", "LIMITS RCPTMAX=2")
    session.begin("", [f"{name}@example.org" for name in "abcd"], MailParameters())
    assert lines(session) == ["MAIL FROM:<>", "RCPT TO:<a@example.org>", "RCPT TO:<b@example.org>", "DATA"]
    assert hear(session, b"250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n") == [GoAhead()]
    session.end_content()
    (done,) = hear(session, b"250 taken\r\n")
    assert isinstance(done, Done)
    assert [(result.reply.code, result.stage) for result in done.results] == [
        (550, Stage.RCPT),
        (250, Stage.END_OF_DATA),
        (452, Stage.LOCAL),
        (452, Stage.LOCAL),
    ]


def test_so_do_recipients_of_a_domain_too_many() -> None:
    session = offered("PIPELINING", "LIMITS RCPTDOMAINMAX=1")
    session.begin("", ["a@one.example", "b@two.example", "c@ONE.example"], MailParameters())
    assert lines(session)[1:3] == ["RCPT TO:<a@one.example>", "RCPT TO:<c@ONE.example>"]
    (done,) = hear(session, b"450 later\r\n503 no\r\n503 no\r\n503 no\r\n")
    assert isinstance(done, Done)
    # Who was not asked about was not refused.
    assert [(result.reply.code, result.stage) for result in done.results] == [
        (450, Stage.MAIL),
        (452, Stage.LOCAL),
        (450, Stage.MAIL),
    ]


def test_a_session_ends_with_the_messages_that_the_server_takes() -> None:
    session = offered("PIPELINING", "LIMITS MAILMAX=2")
    for _ in range(2):
        assert not session.exhausted
        session.begin("", ["a@example.org"], MailParameters())
        session.octets_to_send()
        hear(session, b"550 no\r\n503 no\r\n503 no\r\n")
    assert session.exhausted
    with pytest.raises(SessionMisuse):
        session.begin("", ["a@example.org"], MailParameters())
    session.quit()


@pytest.mark.parametrize(
    "address",
    [
        "a@example.org> SIZE=1",
        "a b@example.org",
        "<a@example.org",
        '"a@example.org',
        "a@example.org\\",
        'a@"> NOTIFY=NEVER x"',
        'a"b"@example.org',
        "a@b@example.org",
        "@one.example:a@example.org",
        "a",
        "@example.org",
        "a@",
        f"a@{'b' * 253}",
        f"ä@{'b' * 252}",
        "a\u2028b@x.org",
    ],
)
def test_no_address_can_hold_a_parameter(address: str) -> None:
    session = offered(*ALL)
    with pytest.raises(ValueError, match="address"):
        session.begin(address, ["a@example.org"], MailParameters(smtputf8=True))
    with pytest.raises(ValueError, match="address"):
        session.begin("", [address], MailParameters(smtputf8=True))
    assert session.octets_to_send() == b""


@pytest.mark.parametrize(
    "address",
    [
        '"a b"@example.org',
        '"a>b"@example.org',
        '"a\\"b"@example.org',
        '"a@b"@example.org',
        "a@[192.0.2.1]",
        "Postmaster",
        f"a@{'b' * 252}",
    ],
)
def test_quoted_and_literal_addresses_go_out_as_they_are(address: str) -> None:
    session = offered(*ALL)
    session.begin(address, [address], MailParameters())
    assert lines(session)[:2] == [f"MAIL FROM:<{address}>", f"RCPT TO:<{address}>"]


@pytest.mark.parametrize("name", ["", "a b", "a\r\nRSET", "ä.example"])
def test_no_name_of_ours_can_hold_a_command(name: str) -> None:
    with pytest.raises(ValueError, match="EHLO"):
        ClientSession(name)


def test_values_that_do_not_fit_together() -> None:
    session = offered(*ALL)
    with pytest.raises(ValueError, match="for each recipient"):
        session.begin("", ["a@example.org", "b@example.org"], MailParameters(), [RecipientParameters()])
    with pytest.raises(ValueError, match="needs an address"):
        session.begin("", [""], MailParameters())
    with pytest.raises(ValueError, match="ENVID"):
        session.begin("", ["a@example.org"], MailParameters(envid="x" * 101))
    session.begin("", ["a@example.org"], MailParameters())


TEXTS = st.text(max_size=20) | st.text('a@.<>" \\\r\n\tü例=+;', max_size=20)
WORD = r'<(?:(?:[^\s<>"\\@]+|"(?:[^"\\]|\\.)*")@[^\s<>"\\@]+|(?i:postmaster))?>'
MAIL_RE = re.compile(rf"MAIL FROM:{WORD}(?: [!-~]+)*")
RCPT_RE = re.compile(rf"RCPT TO:{WORD}(?: [!-~]+)*")


@given(TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, st.booleans())
def test_whatever_a_caller_has_got_from_somewhere_is_no_command(
    sender: str, recipient: str, envid: str, address_type: str, original: str, utf8: bool
) -> None:
    session = offered(*ALL)
    parameters = MailParameters(1, smtputf8=utf8, envid=envid)
    for_recipients = [RecipientParameters(orcpt=OriginalRecipient(address_type, original))]
    try:
        session.begin(sender, [recipient], parameters, for_recipients)
    except ValueError:
        assert session.octets_to_send() == b""
        return
    octets = session.octets_to_send()
    assert octets.endswith(b"\r\nDATA\r\n")
    mail, rcpt, data = octets.decode("utf-8" if utf8 else "ascii").removesuffix("\r\n").split("\r\n")
    assert MAIL_RE.fullmatch(mail)
    assert RCPT_RE.fullmatch(rcpt)
    assert data == "DATA"
    assert (mail + rcpt).isprintable()
