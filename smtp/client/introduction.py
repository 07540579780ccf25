"""How client and server come to know each other: greeting, EHLO or HELO, STARTTLS, AUTH; and what is known then.

What is said under TLS takes the place of all that was said before it (RFC 3207 §4.2). A login changes nothing of that:
the mechanisms here bring no security layer of their own (RFC 4954 §4).
"""

from collections import deque
from collections.abc import Iterable

from smtp.client.authentication import Login, exchange, obstacle_to_login, offered_mechanism
from smtp.client.envelope import find_obstacle
from smtp.client.events import Event, HandshakeDue, Ready, TlsRefused
from smtp.client.extensions import NO_LIMITS, Limits, read_extensions, read_limits, read_max_octets, read_server_name
from smtp.client.sequence import ClientState, Stage
from smtp.errors import ProtocolError, SessionMisuse
from smtp.parameters import MailParameters
from smtp.reply import Reply
from smtp.tls import TlsFacts

Command = tuple[Stage, bytes]
"""What is said next, without its CRLF, and the stage of the reply to it."""


class Introduction:
    """What one client and one server have told each other."""

    __slots__ = ("_helo", "_login", "extensions", "limits", "max_octets", "server_name", "tls")

    def __init__(self, helo: str) -> None:
        """`helo` is what we call ourselves. Raises ValueError for a name that no command can hold."""
        if not (helo.isascii() and helo.isprintable() and helo and " " not in helo):
            raise ValueError("this is no name for EHLO")
        self._helo = helo
        # What is still to be said of a login.
        self._login: deque[bytes] = deque()
        self.tls: TlsFacts | None = None
        """What was negotiated, where the connection is encrypted. Set where that came before the greeting (RFC 8314
        §3.3); else by `secured`."""
        self._forget()

    def _forget(self) -> None:
        self.extensions: dict[str, str] = {}
        """What EHLO offered: keyword in upper case, and its parameters."""
        self.limits: Limits = NO_LIMITS
        """How much the server takes (RFC 9422)."""
        self.max_octets: int | None = None
        """The size of the largest message it takes (RFC 1870), where it has said so."""
        self.server_name = ""
        """What the server calls itself in its greeting; under TLS, in its reply to EHLO."""

    def secured(self, facts: TlsFacts) -> Command:
        """Begin anew under TLS."""
        self.tls = facts
        self._forget()
        return self._ehlo()

    def find_obstacle(self, addresses: Iterable[str], parameters: MailParameters) -> Reply | None:
        """Why the server cannot be given a message, whoever it is for; None where nothing speaks against trying."""
        return find_obstacle(addresses, parameters, self.extensions, self.max_octets, self.tls)

    def log_in(self, login: Login) -> Command:
        """Begin to say who we are. Raises SessionMisuse where that cannot be (`obstacle_to_login`)."""
        mechanism = offered_mechanism(self.extensions)
        if mechanism is None or (obstacle := obstacle_to_login(login, self.extensions, self.tls)):
            raise SessionMisuse(f"there can be no login: {obstacle if mechanism else 'not offered'}")
        self._login = deque(exchange(login, mechanism))
        return Stage.AUTH, self._login.popleft()

    def take(self, reply: Reply, stage: Stage, state: ClientState) -> Command | Event:
        """What follows from a reply that has led to this state. Raises ProtocolError."""
        match state:
            case ClientState.OPENING if stage is Stage.GREETING:
                self.server_name = read_server_name(reply)
                return self._ehlo()
            case ClientState.OPENING if stage is Stage.EHLO:
                # RFC 5321 §3.2: a server that refuses EHLO may still know HELO.
                return Stage.HELO, f"HELO {self._helo}".encode("ascii")
            case ClientState.AUTHENTICATING:
                if not self._login:
                    raise ProtocolError("the server asks for more than a login has")
                return Stage.AUTH, self._login.popleft()
            case ClientState.HANDSHAKE:
                return HandshakeDue()
            case ClientState.READY if stage is Stage.STARTTLS:
                return TlsRefused(reply)
            case ClientState.READY if stage is Stage.AUTH:
                self._login.clear()
                return Ready()
            case ClientState.READY:
                if self.tls is not None:
                    self.server_name = read_server_name(reply)
                if stage is Stage.EHLO:
                    self.extensions = read_extensions(reply)
                    self.limits = read_limits(self.extensions)
                    self.max_octets = read_max_octets(self.extensions)
                return Ready()
            case _:
                raise ProtocolError(f"{reply.code} leads nowhere behind {stage.value}")

    def _ehlo(self) -> Command:
        return Stage.EHLO, f"EHLO {self._helo}".encode("ascii")
