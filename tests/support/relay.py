"""A smarthost on loopback: an aiosmtpd that takes mail for anybody, from those only who log in where it wants that."""

import ssl
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from peer_programs import free_port


@dataclass(frozen=True, slots=True)
class Relayed:
    """A message that it has taken."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    user: str
    """Who had logged in; empty for nobody."""
    encrypted: bool


class Relay:
    """Runs inside a `with`. What it is told to do may be changed meanwhile."""

    def __init__(
        self,
        tls: ssl.SSLContext | None = None,
        *,
        user: str = "",
        password: str = "",
        implicit_tls: bool = False,
        address: str = "127.0.0.1",
        name: str = "relay.test",
    ) -> None:
        """With a `user` it takes mail from nobody else. `tls` is for STARTTLS, or for TLS from the first octet on."""
        self.user = user
        self.password = password
        self.address = address
        self.port = free_port()
        self.messages: list[Relayed] = []
        self.logins = 0
        """Attempts."""
        self.connections = 0
        self.most_at_once = 0
        self._open = 0
        self._controller = _Controller(
            self,
            hostname=address,
            port=self.port,
            ready_timeout=20,
            ssl_context=tls if implicit_tls else None,
            tls_context=None if implicit_tls else tls,
            authenticator=self._authenticate if user else None,
            auth_required=bool(user),
            # Under TLS from the first octet on it does not know that it is.
            auth_require_tls=tls is not None and not implicit_tls,
            server_hostname=name,
        )

    def __enter__(self) -> Self:
        """Returns once it listens."""
        self._controller.start()
        # The controller looks by itself whether anybody answers.
        self.connections = self.most_at_once = 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._controller.stop(no_assert=True)

    def came(self) -> None:
        """A connection was made."""
        self.connections += 1
        self._open += 1
        self.most_at_once = max(self.most_at_once, self._open)

    def went(self) -> None:
        """One ended."""
        self._open -= 1

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """What aiosmtpd asks at the final dot."""
        user = session.auth_data.login.decode() if isinstance(session.auth_data, LoginPassword) else ""
        # Under TLS from the first octet on, the session does not know of it.
        transport = server.transport
        encrypted = session.ssl is not None or (
            transport is not None and transport.get_extra_info("ssl_object") is not None
        )
        self.messages.append(
            Relayed(
                envelope.mail_from or "",
                tuple(envelope.rcpt_tos),
                bytes(envelope.original_content or b""),
                user,
                encrypted,
            )
        )
        return "250 2.0.0 Relayed"

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        self.logins += 1
        right = isinstance(data, LoginPassword) and data == LoginPassword(self.user.encode(), self.password.encode())
        return AuthResult(success=right, handled=False, auth_data=data)


class _Counted(SMTP):
    def connection_made(self, transport: Any) -> None:
        if self.session is None:
            # After STARTTLS it is made once more.
            self.event_handler.came()
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.event_handler.went()
        super().connection_lost(error)


class _Controller(Controller):
    def factory(self) -> SMTP:
        return _Counted(self.handler, **self.SMTP_kwargs)
