"""What a client's session tells its caller, as values."""

from dataclasses import dataclass

from smtp.client.sequence import Stage
from smtp.reply import Reply


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a message for one recipient."""

    reply: Reply
    stage: Stage


@dataclass(frozen=True, slots=True)
class Ready:
    """Greeting and EHLO are through; after `secured`, EHLO is through once more; after `log_in`, the login is."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The server does not want to talk: its greeting, the reply to EHLO or HELO, to the login, or a 421 to STARTTLS."""

    reply: Reply
    stage: Stage


@dataclass(frozen=True, slots=True)
class HandshakeDue:
    """220 to STARTTLS: the next octets on the wire belong to TLS. `secured` tells the session when it is done."""


@dataclass(frozen=True, slots=True)
class TlsRefused:
    """The server offered STARTTLS and does not do it now. The conversation can go on in clear, if one wants that."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Answered:
    """Step by step: what was said to MAIL or RCPT, or would have been. The transaction goes on."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class GoAhead:
    """The content is awaited: 354, or recipients that may be sent chunks."""


@dataclass(frozen=True, slots=True)
class Done:
    """The message is through; one result for each recipient, in order. Step by step there is one for all who were
    accepted, or for whom it could have been. After `reset` there is none.
    """

    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class CommandRefused:
    """The conversation is over because of a command, not of a message: RSET was refused, or BDAT is not known to a
    server that offers CHUNKING (Stage.BDAT). Nothing of the message was accepted, for anybody.
    """

    reply: Reply
    stage: Stage


@dataclass(frozen=True, slots=True)
class Parted:
    """QUIT is answered."""


Event = Ready | Rejected | HandshakeDue | TlsRefused | Answered | GoAhead | Done | CommandRefused | Parted
