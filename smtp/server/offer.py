"""What a server's session is given, and what EHLO is told of it."""

from dataclasses import dataclass
from functools import lru_cache

from smtp.data import ContentLimits


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What a session has to know of the server it belongs to."""

    hostname: str
    max_message_octets: int = 50 << 20
    max_recipients: int = 100
    """RFC 5321 §4.5.3.1.8 asks for at least 100."""
    max_header_octets: int = 512 << 10
    max_line_octets: int = 64 << 10
    """See `smtp.data.ContentLimits`, as for the header section."""
    max_commands: int = 1000
    """Commands without a message accepted between them. A transaction has as many as it has recipients, and three more;
    a connection that is kept by NOOP has one or two a minute. Beyond it somebody is counting our addresses or trying
    our patience. Ten full transactions always fit."""
    starttls: bool = False
    """Whether STARTTLS is offered."""

    def __post_init__(self) -> None:
        if self.max_commands < 10 * self.max_recipients:
            object.__setattr__(self, "max_commands", 10 * self.max_recipients)

    @property
    def max_thrown_away(self) -> int:
        """Octets of content that was refused, before the connection is closed: a message that is somewhat too large is
        read to its end, so that its sender hears why; nobody has to be heard out for ever."""
        return 2 * self.max_message_octets + (1 << 20)

    @property
    def content(self) -> ContentLimits:
        """The part that is about content."""
        return ContentLimits(self.max_message_octets, self.max_header_octets, self.max_line_octets)


@lru_cache(maxsize=16)
def offer(settings: SessionSettings, secure: bool) -> str:
    """What EHLO is answered: who we are, and an extension a line."""
    keywords = [
        settings.hostname,
        "PIPELINING",
        f"SIZE {settings.max_message_octets}",
        "8BITMIME",
        "SMTPUTF8",
        "CHUNKING",
        "ENHANCEDSTATUSCODES",
        "DSN",
        # RFC 9422 §3: what would be refused may as well be known before.
        f"LIMITS RCPTMAX={settings.max_recipients}",
    ]
    if secure:
        # RFC 8689 §2: offered under TLS alone. RFC 3207 §4.2: STARTTLS is not offered there.
        keywords.append("REQUIRETLS")
    elif settings.starttls:
        keywords.append("STARTTLS")
    return "\n".join(keywords)
