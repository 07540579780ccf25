"""A client that says who it is (AUTH, RFC 4954): to aiosmtpd over STARTTLS, and to servers that play games with it."""

import base64
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
import trio
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from certificates import HOST, any_tls, server_tls, verifying_tls
from peer_aiosmtpd import stop
from peer_programs import free_port
from smtp_house import Caller, open_house, quick_settings
from smtp_scripted import greet, scripted, under_tls

from smtp.client.sequence import Stage
from smtp.client.session import ClientSession
from smtp.client.trio_client import (
    ClientTls,
    ConnectError,
    Connection,
    Login,
    LoginFailed,
    Refused,
    Timeouts,
    TlsFailed,
)
from smtp.errors import SessionMisuse

SHORT_S = 0.2
LOGIN = Login("relay", "opensesame")
IN_CLEAR = Login("relay", "opensesame", allow_clear=True)
REQUIRED = ClientTls(verifying_tls(), HOST, required=True)
PLAIN_LINE = "AUTH PLAIN " + base64.b64encode(b"\0relay\0opensesame").decode("ascii")


def offer(mechanisms: bytes) -> bytes:
    return b"250-odd.example\r\n250-PIPELINING\r\n250 " + mechanisms + b"\r\n"


async def connect(port: int, login: Login | None = IN_CLEAR, tls: ClientTls | None = None) -> Connection:
    timeouts = Timeouts(greeting=SHORT_S, mail=SHORT_S, tls=SHORT_S)
    return await Connection.open("127.0.0.1", port, helo="client.example", timeouts=timeouts, tls=tls, login=login)


class Box:
    """Keeps who had said who they were with each message."""

    def __init__(self) -> None:
        self.users: list[bytes] = []

    def knows(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object) -> AuthResult:
        known = isinstance(data, LoginPassword) and (data.login, data.password) == (b"relay", b"opensesame")
        return AuthResult(success=known, handled=False, auth_data=data)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(session.auth_data, LoginPassword)
        self.users.append(session.auth_data.login)
        return "250 2.0.0 OK"


@contextmanager
def smarthost(*without: str) -> Iterator[tuple[Box, int]]:
    """Takes mail from whoever logs in under TLS, without these mechanisms."""
    box, port = Box(), free_port()
    controller = Controller(
        box,
        hostname="127.0.0.1",
        port=port,
        ready_timeout=20,
        tls_context=server_tls(),
        require_starttls=True,
        auth_required=True,
        authenticator=box.knows,
        auth_exclude_mechanism=without,
    )
    controller.start()
    try:
        yield box, port
    finally:
        stop(controller)


@pytest.mark.parametrize("without", [(), ("LOGIN",), ("PLAIN",)])
async def test_a_smarthost_takes_mail_from_whom_it_knows(without: tuple[str, ...]) -> None:
    lines: list[str] = []
    with smarthost(*without) as (box, port):
        connection = await Connection.open(
            "127.0.0.1",
            port,
            helo="client.example",
            tls=REQUIRED,
            login=LOGIN,
            trace=lambda mark, line: lines.append(f"{mark} {line}"),
        )
        [result] = await connection.send("a@example.com", ["b@example.org"], [b"x\r\n"], size=3, eight_bit=False)
        assert result.reply.code == 250
        await connection.quit()
    assert box.users == [b"relay"]
    secrets = ["relay", "opensesame", *(base64.b64encode(b).decode() for b in (b"relay", b"opensesame"))]
    assert not any(secret in line for line in lines for secret in [*secrets, PLAIN_LINE[11:]])
    assert "< 235 (about the login)" in lines


async def test_a_smarthost_that_does_not_know_us_is_left() -> None:
    with smarthost() as (box, port):
        with pytest.raises(Refused) as caught:
            await connect(port, Login("relay", "wrong"), REQUIRED)
        assert (caught.value.reply.code, caught.value.stage) == (535, Stage.AUTH)
        assert "wrong" not in repr(caught.value)
    assert box.users == []


def test_a_password_is_in_no_repr() -> None:
    assert repr(LOGIN) == "Login(user='relay', allow_clear=False)"


@pytest.mark.parametrize(("user", "password"), [("", "x"), ("x", ""), ("a\0b", "x"), ("x", "a\0b"), ("x", "y" * 9300)])
def test_no_login_holds_what_no_mechanism_can_carry(user: str, password: str) -> None:
    with pytest.raises(ValueError, match="a user and a password"):
        Login(user, password)


@pytest.mark.parametrize(
    ("ehlo", "reason"),
    [
        (b"SIZE 0", "auth: not offered"),
        (b"AUTH", "neither PLAIN nor LOGIN is offered, but nothing"),
        (b"AUTH CRAM-MD5 SCRAM-SHA-256", "but CRAM-MD5 SCRAM-SHA-256"),
        # From before RFC 2554: not a keyword that anybody has to know.
        (b"AUTH=PLAIN LOGIN", "auth: not offered"),
    ],
)
async def test_a_server_where_nobody_can_log_in(ehlo: bytes, reason: str) -> None:
    left = trio.Event()

    async def script(client: Caller) -> None:
        await greet(client, offer(ehlo))
        assert await client.line() is None
        left.set()

    async with scripted(script) as port:
        with pytest.raises(LoginFailed, match=reason):
            await connect(port)
        await left.wait()


async def test_a_password_does_not_go_over_a_connection_in_clear() -> None:
    left = trio.Semaphore(0)

    async def script(client: Caller) -> None:
        await greet(client, offer(b"AUTH PLAIN"))
        assert await client.line() is None
        left.release()

    async with scripted(script) as port:
        with pytest.raises(LoginFailed, match="auth: the connection is in clear"):
            await connect(port, LOGIN)
        # STARTTLS that is not offered is no reason to do without.
        with pytest.raises(LoginFailed, match="in clear"):
            await connect(port, LOGIN, ClientTls(any_tls(), HOST))
        for _ in range(2):
            await left.acquire()


def conversation(
    *lines: tuple[str, bytes], mechanisms: bytes = b"AUTH PLAIN LOGIN"
) -> Callable[[Caller], Awaitable[None]]:
    """What the client has to say, and what it gets for it; then it has to leave."""

    async def script(client: Caller) -> None:
        await greet(client, offer(mechanisms))
        for expected, reply in lines:
            assert await client.line() == expected
            await client.say(reply)
        if not lines[-1][1].startswith(b"235"):
            assert await client.line() is None

    return script


USER, PASSWORD = base64.b64encode(b"relay").decode(), base64.b64encode(b"opensesame").decode()


@pytest.mark.parametrize(
    "reply",
    [b"535 5.7.8 wrong\r\n", b"454 4.7.0 later\r\n", b"421 4.3.2 enough\r\n", b"504 what?\r\n", b"500 what?\r\n"],
)
async def test_a_refused_login_is_refused(reply: bytes) -> None:
    async with scripted(conversation((PLAIN_LINE, reply))) as port:
        with pytest.raises(Refused) as caught:
            await connect(port)
        assert (caught.value.reply.code, caught.value.stage) == (int(reply[:3]), Stage.AUTH)


@pytest.mark.parametrize("second", [b"535 5.7.8 wrong\r\n", b"454 later\r\n"])
async def test_a_login_is_refused_between_two_lines(second: bytes) -> None:
    lines = [("AUTH LOGIN", b"334 VXNlcm5hbWU6\r\n"), (USER, second)]
    async with scripted(conversation(*lines, mechanisms=b"AUTH LOGIN")) as port:
        with pytest.raises(Refused):
            await connect(port)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([(PLAIN_LINE, b"334 \r\n")], "asks for more than a login has"),
        ([(PLAIN_LINE, b"354 go\r\n")], "asks for more than a login has"),
        ([(PLAIN_LINE, b"199 x\r\n")], "auth: 199 is no reply|not an SMTP reply"),
        ([(PLAIN_LINE, b"\0\0\r\n")], "not an SMTP reply"),
        ([(PLAIN_LINE, b"235 ok\r\n235 ok\r\n")], None),
        ([(PLAIN_LINE, b"")], "auth: timed out"),
        ([("AUTH LOGIN", b"334 \r\n334 \r\n")], "came without being asked for"),
        ([("AUTH LOGIN", b"334 \r\n"), (USER, b"334 \r\n235 ok\r\n")], "came without being asked for"),
        ([("AUTH LOGIN", b"334 \r\n"), (USER, b"334 \r\n"), (PASSWORD, b"334 \r\n")], "more than a login has"),
    ],
)
async def test_games_with_a_login(lines: list[tuple[str, bytes]], reason: str | None) -> None:
    mechanisms = b"AUTH LOGIN" if lines[0][0] == "AUTH LOGIN" else b"AUTH PLAIN"
    async with scripted(conversation(*lines, mechanisms=mechanisms)) as port:
        if reason is None:
            # What comes behind a yes can't be the answer to a message.
            connection = await connect(port)
            assert not connection.usable
            connection.aclose()
        else:
            with pytest.raises(ConnectError, match=reason):
                await connect(port)


async def test_a_server_that_hangs_up_on_a_login() -> None:
    async def script(client: Caller) -> None:
        await greet(client, offer(b"AUTH PLAIN"))
        await client.line()

    async with scripted(script) as port:
        with pytest.raises(ConnectError, match="auth: closed by the server"):
            await connect(port)


@pytest.mark.parametrize("length", [300, 9000])
async def test_a_login_too_long_for_a_command_goes_behind_an_empty_challenge(length: int) -> None:
    login = Login("relay", "ä" * (length // 2), allow_clear=True)
    response = base64.b64encode(f"\0relay\0{login.password}".encode()).decode()
    lines = [(f"AUTH PLAIN {response}", b"235 ok\r\n")]
    if length == 9000:
        lines = [("AUTH PLAIN", b"334 \r\n"), (response, b"235 ok\r\n")]
    async with scripted(conversation(*lines)) as port:
        connection = await connect(port, login)
        assert connection.usable
        connection.aclose()


async def test_mail_goes_on_behind_a_login_as_ehlo_said() -> None:
    async def script(client: Caller) -> None:
        await conversation((PLAIN_LINE, b"235 2.7.0 ok\r\n"))(client)
        for _ in range(3):
            await client.line()
        await client.say(b"250 ok\r\n250 ok\r\n354 go\r\n")
        while await client.line() != ".":
            pass
        await client.say(b"250 ok\r\n")

    async with scripted(script) as port:
        connection = await connect(port)
        assert "AUTH" in connection.extensions
        [result] = await connection.send("a@example.com", ["b@example.org"], [b"x\r\n"], size=3, eight_bit=False)
        assert result.reply.code == 250
        connection.aclose()


def test_a_session_does_not_log_in_where_it_cannot() -> None:
    session = ClientSession("client.example")
    with pytest.raises(SessionMisuse):
        session.log_in(IN_CLEAR)
    session.receive(b"220 x\r\n")
    session.next_event()
    session.octets_to_send()
    session.receive(offer(b"AUTH PLAIN"))
    session.next_event()
    with pytest.raises(SessionMisuse, match="in clear"):
        session.log_in(LOGIN)
    session.log_in(IN_CLEAR)
    with pytest.raises(SessionMisuse):
        session.log_in(IN_CLEAR)


# ---------------------------------------------------------------- implicit TLS (RFC 8314 §3.3)


async def open_under_tls(port: int, tls: ClientTls | None = REQUIRED, login: Login | None = None) -> Connection:
    timeouts = Timeouts(greeting=SHORT_S, tls=SHORT_S)
    return await Connection.open(
        "127.0.0.1", port, helo="client.example", timeouts=timeouts, tls=tls, implicit_tls=True, login=login
    )


async def test_tls_before_the_greeting() -> None:
    async def script(client: Caller) -> None:
        await under_tls(client, server_tls())
        # STARTTLS is not asked for, whatever is offered.
        await greet(client, b"250-inner.example\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n")
        assert await client.line() == PLAIN_LINE
        await client.say(b"235 ok\r\n")
        await client.line()

    async with scripted(script) as port:
        connection = await open_under_tls(port, login=LOGIN)
        assert connection.tls is not None
        assert connection.tls.verified
        assert connection.server_name == "inner.example"
        connection.aclose()


async def test_no_tls_before_the_greeting() -> None:
    async with open_house(quick_settings()) as house:
        with pytest.raises(TlsFailed, match="tls: "):
            await open_under_tls(house.port)
    with pytest.raises(ValueError, match="needs a context"):
        await open_under_tls(1, None)


@pytest.mark.parametrize(
    ("greeting", "kind", "words"),
    [(b"554 no\r\n", Refused, "554 no"), (b"", ConnectError, "greeting: "), (b"x\r\n", ConnectError, "greeting: ")],
)
async def test_no_welcome_under_tls(greeting: bytes, kind: type[Exception], words: str) -> None:
    async def script(client: Caller) -> None:
        await under_tls(client, server_tls())
        await client.say(greeting)
        await client.line()

    async with scripted(script) as port:
        with pytest.raises(kind, match=words):
            await open_under_tls(port)


async def test_a_handshake_that_is_never_answered() -> None:
    async with scripted(_wait) as port:
        with pytest.raises(TlsFailed, match="tls: timed out"):
            await open_under_tls(port)


async def _wait(client: Caller) -> None:
    with trio.move_on_after(5):
        while await client.transport.receive_some():
            pass
