"""What a server is given, and what it gives: settings, a client as it is known, who decides about mail, counters."""

import ssl
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import Protocol, runtime_checkable

from smtp.address import Address
from smtp.histogram import Histogram
from smtp.parameters import MailParameters, RecipientParameters
from smtp.reply import REPLY_CODES, Reply
from smtp.server.conduct import ConductLimits
from smtp.server.offer import SessionSettings
from smtp.tls import TlsFacts
from smtp.trace import Trace

UNTIL_ACCEPTED_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""From what a good disk takes, over a busy one, to a next hop that is asked while the sender waits."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How to serve. Times in seconds."""

    hostname: str
    max_message_octets: int = 50 << 20
    max_recipients: int = 100
    """RFC 5321 §4.5.3.1.8 asks for at least 100."""
    max_header_octets: int = 512 << 10
    max_line_octets: int = 64 << 10
    """These two: see `smtp.data.ContentLimits`."""
    max_commands: int = 1000
    """Without a message accepted between them: see `smtp.server.offer.SessionSettings`."""
    max_connections: int = 1000
    """Beyond it somebody has to make room: see `smtp.server.admission`."""
    max_connections_per_client: int = 20
    """IPv6 clients are counted by /64: one machine has that many addresses."""
    max_in_flight_octets: int = 256 << 20
    """Content that all sessions hold at once. Beyond it messages get 452 until some are done."""
    max_held_octets: int = 1 << 20
    """How much of one message its receiver keeps in memory at most: what counts as in flight. One client can hold so
    much for each of its connections, which must not be all there is: a receiver that keeps whole messages says so here,
    and allows for it above."""
    command_timeout_s: float = 300.0
    """RFC 5321 §4.5.3.2.7: at least five minutes. Also the longest silence within content."""
    transaction_timeout_s: float = 1800.0
    """From MAIL to the end of data, so that nobody holds a transaction by sending an octet now and then."""
    min_octets_per_s: int = 256
    """Content that comes more slowly is not waited for: a tenth of what the slowest telephone line carries."""
    rate_window_s: float = 60.0
    """Over how much of our waiting that is reckoned. A line that stalls for a moment is not held against anybody."""
    handshake_timeout_s: float = 30.0
    """For the handshake of TLS, and for the header of a proxy: machines talk to each other there, and none thinks."""
    shutdown_grace_s: float = 10.0
    """How long a transaction may still take once shutdown has begun."""
    sweep_interval_s: float = 1.0
    """How exactly the times above are kept."""
    conduct: ConductLimits = field(default_factory=ConductLimits)
    """How much a client may get wrong."""
    tls: ssl.SSLContext | None = None
    """For STARTTLS, which is offered where this is given."""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    """Who has to begin every connection with a header of the PROXY protocol, and is believed."""
    trace: Trace | None = None

    @property
    def session(self) -> SessionSettings:
        """What a session has to know of this."""
        return SessionSettings(
            self.hostname,
            self.max_message_octets,
            self.max_recipients,
            self.max_header_octets,
            self.max_line_octets,
            self.max_commands,
            starttls=self.tls is not None,
        )


@dataclass(slots=True)
class Peer:
    """What is known of a client. The session fills in what it learns."""

    address: str
    """An IPv4 address in its own form, however the socket shows it."""
    port: int
    helo: str = ""
    """What it calls itself; empty before EHLO or HELO."""
    extended: bool = False
    """Whether it has said EHLO."""
    tls: TlsFacts | None = None
    """What was negotiated, where the connection is encrypted."""

    def protocol(self, parameters: MailParameters) -> str:
        """The `with` keyword for a message's Received line (RFC 3848; RFC 6531 §4.3)."""
        if not self.extended:
            return "SMTP"
        return ("UTF8SMTP" if parameters.smtputf8 else "ESMTP") + ("S" if self.tls else "")


class Receiver(Protocol):
    """Decides, for one session, what becomes of its mail. An exception is answered with 451 4.3.0."""

    async def mail(self, sender: Address | None, parameters: MailParameters) -> Reply:
        """A transaction begins where the reply is positive. None is the null reverse-path."""

    async def recipient(self, recipient: Address, parameters: RecipientParameters) -> Reply:
        """One more recipient of this transaction, where the reply is positive."""

    async def data(self) -> Reply | None:
        """None lets the content come (354); a reply refuses it."""

    async def content(self, octets: bytes) -> None:
        """The next octets of the message: dots unstuffed, lines ending in CRLF."""

    async def end_of_data(self) -> Reply:
        """The message is whole. A positive reply is the promise; whatever it is, the transaction is over."""

    async def reset(self) -> None:
        """The transaction is over without `end_of_data`, or that has raised: nothing may come of the message."""


@runtime_checkable
class PassesOn(Protocol):
    """A receiver that may pass a message on while its sender waits, instead of keeping it."""

    @property
    def holds_whole(self) -> bool:
        """Whether it keeps this message in memory whole, whatever `max_held_octets` says of the others. Asked when the
        content begins."""

    @property
    def asked_elsewhere(self) -> bool:
        """Whether its last answer about a recipient was that of another server. Such a refusal tells nothing of who
        exists here, and makes no client unwelcome."""


class Statistics:
    """Counters that may be read at any time."""

    def __init__(self) -> None:
        self.connections_open = 0
        self.connections_accepted = 0
        self.connections_turned_away = 0
        self.connections_given_up = 0
        """Ended so that others find room."""
        self.handshakes = 0
        self.handshakes_failed = 0
        self.messages = 0
        """Accepted: a positive reply to the end of data."""
        self.replies_by_code = [0] * REPLY_CODES
        self.until_accepted_s = Histogram(UNTIL_ACCEPTED_S)
        """From the end of data to that reply."""

    @property
    def replies(self) -> dict[int, int]:
        """How many replies of each class have been given: 2, 3, 4 and 5."""
        return {digit: sum(self.replies_by_code[digit * 100 : digit * 100 + 100]) for digit in (2, 3, 4, 5)}


def plain_address(address: str) -> str:
    """An IP address as people write it: an IPv4 client of an IPv6 socket is an IPv4 client."""
    if ":" in address:
        mapped = IPv6Address(address).ipv4_mapped
        if mapped is not None:
            return str(mapped)
    return address


def client_key(address: str) -> str:
    """Whom a client is counted as. An IPv6 client is its /64: one machine has that many addresses."""
    if ":" in address:
        return IPv6Address(address).packed[:8].hex()
    return address
