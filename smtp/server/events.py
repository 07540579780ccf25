"""What a server's session tells its caller, as values. Some ask for an answer: they are the questions."""

from dataclasses import dataclass

from smtp.address import Address
from smtp.parameters import MailParameters, RecipientParameters


@dataclass(frozen=True, slots=True)
class Hello:
    """The client has said who it is. Already answered."""

    name: str
    extended: bool
    """Whether it was EHLO."""


@dataclass(frozen=True, slots=True)
class Mail:
    """MAIL: asks for an answer."""

    sender: Address | None
    parameters: MailParameters


@dataclass(frozen=True, slots=True)
class Recipient:
    """RCPT: asks for an answer."""

    address: Address
    parameters: RecipientParameters


@dataclass(frozen=True, slots=True)
class StartTls:
    """STARTTLS has been answered with 220: send that, do the handshake, and say `secured`. Or close."""


@dataclass(frozen=True, slots=True)
class Data:
    """DATA, or the first BDAT of a message: asks for an answer; None lets the content come."""


@dataclass(frozen=True, slots=True)
class Content:
    """The next octets of the message, lines ending in CRLF."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class EndOfData:
    """The message is whole: asks for an answer, which ends the transaction."""


@dataclass(frozen=True, slots=True)
class Reset:
    """The transaction is over and no message came of it. Already answered, or will be."""


@dataclass(frozen=True, slots=True)
class Paused:
    """Many replies are waiting: send them before asking for the next event."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The conversation is over: send what is left to send, and close."""


Question = Mail | Recipient | Data | EndOfData
Event = Question | Hello | StartTls | Content | Reset | Paused | Closed
