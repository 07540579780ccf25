"""A receiver that keeps its mail in memory and does what an address tells it to, for conversations with the server.

It speaks by local part, so that a conversation in a text file can have every answer it wants:

    unknown@      550 5.1.1        later@       451 4.2.1       crash@        raises
    MAIL FROM:<unwelcome@...>      550 5.7.1 at MAIL
    MAIL FROM:<no-data@...>        554 5.7.1 at DATA
    MAIL FROM:<no-content@...>     raises while content comes
    MAIL FROM:<no-end@...>         550 5.7.1 at the end of data
    MAIL FROM:<crash-mail@...>, <crash-data@...>, <crash-end@...>   raise there
    MAIL FROM:<parting@...>        421 4.3.2 at MAIL
"""

from dataclasses import dataclass, field

from smtp.address import Address
from smtp.parameters import MailParameters, RecipientParameters
from smtp.reply import Reply
from smtp.server.serving import Peer


class Crash(Exception):
    """What a faulty receiver raises."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message that was promised."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    parameters: MailParameters
    recipient_parameters: tuple[RecipientParameters, ...]
    """In the order of the recipients."""


@dataclass(slots=True)
class Mailbox:
    """What all receivers of one server have in common."""

    messages: list[Received] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)
    resets: int = 0

    def new_receiver(self, peer: Peer) -> "MemoryReceiver":
        """One for each session."""
        self.peers.append(peer)
        return MemoryReceiver(self)


class MemoryReceiver:
    """One session's receiver."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox
        self._begin(None, MailParameters())

    def _begin(self, sender: Address | None, parameters: MailParameters) -> None:
        self.sender = sender
        self.parameters = parameters
        self.recipients: list[str] = []
        self.recipient_parameters: list[RecipientParameters] = []
        self.content_so_far = b""

    def _is(self, local_part: str) -> bool:
        return self.sender is not None and self.sender.local_part == local_part

    async def mail(self, sender: Address | None, parameters: MailParameters) -> Reply:
        self._begin(sender, parameters)
        if self._is("crash-mail"):
            raise Crash
        if self._is("unwelcome"):
            return Reply(550, "Not from you", "5.7.1")
        if self._is("parting"):
            return Reply(421, "No more today", "4.3.2")
        return Reply(250, "Sender OK", "2.1.0")

    async def recipient(self, recipient: Address, parameters: RecipientParameters) -> Reply:
        match recipient.local_part:
            case "unknown":
                return Reply(550, "No such user", "5.1.1")
            case "later":
                return Reply(451, "Try again later", "4.2.1")
            case "crash":
                raise Crash
        self.recipients.append(str(recipient))
        self.recipient_parameters.append(parameters)
        return Reply(250, "Recipient OK", "2.1.5")

    async def data(self) -> Reply | None:
        if self._is("crash-data"):
            raise Crash
        return Reply(554, "No content from you", "5.7.1") if self._is("no-data") else None

    async def content(self, octets: bytes) -> None:
        if self._is("no-content"):
            raise Crash
        self.content_so_far += octets

    async def end_of_data(self) -> Reply:
        if self._is("crash-end"):
            raise Crash
        if self._is("no-end"):
            return Reply(550, "Not this message", "5.7.1")
        sender = "" if self.sender is None else str(self.sender)
        self.mailbox.messages.append(
            Received(
                sender,
                tuple(self.recipients),
                self.content_so_far,
                self.parameters,
                tuple(self.recipient_parameters),
            ),
        )
        return Reply(250, "Message accepted", "2.0.0")

    async def reset(self) -> None:
        self.mailbox.resets += 1
        self._begin(None, MailParameters())
