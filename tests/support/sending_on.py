"""A server behind the appliance that sends on what comes for some of its mailboxes, as servers with forwarding do.

The message goes out again as it came, under the same envelope sender and with the server's own Received line in front.
What is refused comes back to the envelope sender in a report of the server's own.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from destination import ReceivedMessage
from smtp_client import Reply
from world import World

Way = Callable[[str], str | None]
"""Where mail for a mailbox is sent on to; None where it stays."""


class SendingOn:
    """Lets the first server of a world send on, inside a `with`. What it receives is kept all the same."""

    def __init__(self, world: World, way: Way) -> None:
        self._world = world
        self._way = way
        self._before = world.main.take
        self._waiting: SimpleQueue[ReceivedMessage | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._send_on, daemon=True)
        self.replies: list[Reply] = []
        """What the appliance said to each message that was sent on."""

    def __enter__(self) -> Self:
        def take(message: ReceivedMessage) -> None:
            self._before(message)
            self._waiting.put(message)

        self._world.main.take = take
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._world.main.take = self._before
        self._waiting.put(None)
        self._thread.join(timeout=30)

    def _send_on(self) -> None:
        while (message := self._waiting.get()) is not None:
            for mailbox in message.recipients:
                onward = self._way(mailbox)
                if onward is None:
                    continue
                trace = b"Received: from mx.onward.test by mx1.dest.test; Fri, 20 Nov 2026 10:00:00 +0000\r\n"
                reply = self._world.send(onward, message.sender, trace + message.content)
                self.replies.append(reply)
                if reply.code >= 500 and message.sender:
                    self._world.send(message.sender, "", report(message.sender, mailbox, reply))


def report(to: str, mailbox: str, reply: Reply) -> bytes:
    """What the server writes about a reply to what it has sent on, naming its own mailbox."""
    status = reply.text.split()[0]
    return (
        f"From: MAILER-DAEMON@mx1.dest.test\r\nTo: {to}\r\nSubject: Undelivered\r\nAuto-Submitted: auto-replied\r\n"
        "MIME-Version: 1.0\r\n"
        'Content-Type: multipart/report; report-type=delivery-status; boundary="=cut"\r\n\r\n'
        f"--=cut\r\nContent-Type: text/plain\r\n\r\nMail for {mailbox} could not be sent on.\r\n"
        "--=cut\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx1.dest.test\r\n\r\n"
        f"Final-Recipient: rfc822; {mailbox}\r\nAction: failed\r\nStatus: {status}\r\n"
        f"Diagnostic-Code: smtp; {reply.code} {reply.text}\r\n\r\n--=cut--\r\n"
    ).encode()
