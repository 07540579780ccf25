"""Somebody's mail server for the demo: takes every message, and tells what it got."""

from dataclasses import dataclass

import trio

from smtp.address import Address
from smtp.reply import Reply
from smtp.server.trio_server import MailParameters, Peer, RecipientParameters


@dataclass(frozen=True, slots=True)
class Arrived:
    """One message as the mailbox's server got it."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes


class Mailbox:
    """A receiver that hands each message to a channel."""

    def __init__(self, arrived: trio.MemorySendChannel[Arrived], peer: Peer) -> None:
        self._arrived = arrived
        self._sender = ""
        self._recipients: list[str] = []
        self._content = bytearray()

    async def mail(self, sender: Address | None, parameters: MailParameters) -> Reply:
        """See smtp.server.trio_server.Receiver; so for the others."""
        self._sender = str(sender) if sender else ""
        self._recipients = []
        self._content = bytearray()
        return Reply(250, "Sender accepted", "2.1.0")

    async def recipient(self, recipient: Address, parameters: RecipientParameters) -> Reply:
        self._recipients.append(str(recipient))
        return Reply(250, "Recipient accepted", "2.1.5")

    async def data(self) -> Reply | None:
        return None

    async def content(self, octets: bytes) -> None:
        self._content += octets

    async def end_of_data(self) -> Reply:
        await self._arrived.send(Arrived(self._sender, tuple(self._recipients), bytes(self._content)))
        return Reply(250, "Delivered to the mailbox", "2.0.0")

    async def reset(self) -> None:
        self._content = bytearray()
