"""A small world round one appliance: names in a DNS, servers that take mail, domains and aliases, people who write.

    dest.test      the mailboxes, at 127.0.0.2 and, less preferred, at 127.0.0.3
    sender.test    where the people who write have their mail: bounces go to 127.0.0.4
    forward.test   hosted, with its log at `events`; aliases are the test's own

Tests of one module share a world. Each uses recipients, mailboxes and senders that no other test uses, so that what
one does to a mailbox is nothing to another.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from appliance_process import HOSTNAME, SRS_DOMAIN, Appliance, Settings, eventually
from destination import Destination, ReceivedMessage, on_one_port
from destination_scripts import Answer, Moment, Script
from dns_server import DnsServer
from smtp_client import Reply

MAIN_ADDRESS = "127.0.0.2"
SECOND_ADDRESS = "127.0.0.3"
SENDERS_ADDRESS = "127.0.0.4"

RECORDS = {
    "dest.test": ["MX 10 mx1.dest.test.", "MX 20 mx2.dest.test."],
    "mx1.dest.test": [f"A {MAIN_ADDRESS}"],
    "mx2.dest.test": [f"A {SECOND_ADDRESS}"],
    "sender.test": ["MX 10 mx.sender.test."],
    "mx.sender.test": [f"A {SENDERS_ADDRESS}"],
    "1.0.0.127.in-addr.arpa": ["PTR client.example.net."],
    "client.example.net": ["A 127.0.0.1"],
}

Town = Mapping[str, Sequence[str]]
"""Aliases and where they lead: `{"info@forward.test": ["owner@dest.test"]}`."""

_RECEIVED = re.compile(rb"Received: from \S+ \(.*\[127\.0\.0\.1\]\)\r\n(?:[ \t][^\r\n]*\r\n)+", re.IGNORECASE)
"""The one header line that is put in front, however it is folded."""


class World:
    """Runs inside a `with`; every server and process is its own."""

    def __init__(
        self,
        directory: Path,
        town: Town,
        settings: Settings | None = None,
        domains: Mapping[str, Sequence[str]] = {},
        environment: Mapping[str, str] = {},
    ) -> None:
        """`domains`: hosted domains beside those that the aliases name, with options for `domain set`."""
        self.dns = DnsServer(RECORDS)
        self.main = Destination(MAIN_ADDRESS, name="mx1.dest.test")
        self.second = Destination(SECOND_ADDRESS, name="mx2.dest.test")
        self.senders = Destination(SENDERS_ADDRESS, name="mx.sender.test")
        self._scripts: list[Script] = []
        self.main.script = self._scripted
        self._directory = directory
        self._town = town
        self._settings = settings
        self._environment = environment
        self._domains = {alias.rpartition("@")[2]: () for alias in town} | dict(domains)
        self.appliance: Appliance

    def __enter__(self) -> Self:
        self.dns.start()
        port = on_one_port(self.main, self.second, self.senders)
        self.appliance = Appliance(
            self._directory,
            nameserver=self.dns.nameserver,
            delivery_port=port,
            settings=self._settings,
            environment=self._environment,
        )
        try:
            self.appliance.settle("account", "add", "owner@people.test")
            for name, options in self._domains.items():
                self.appliance.settle("domain", "add", name, "--account", "owner@people.test", "--verified")
                if options:
                    self.appliance.settle("domain", "set", name, *options)
            for alias, targets in self._town.items():
                self.appliance.settle("alias", "add", alias, *targets, "--confirmed")
            self.appliance.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.appliance.close()
        for server in (self.main, self.second, self.senders):
            server.stop()
        self.dns.stop()

    # ------------------------------------------------------------------ what people do

    def send(
        self, recipient: str | Sequence[str], sender: str = "ann@sender.test", content: bytes | None = None
    ) -> Reply:
        """Somebody writes. The reply to the final dot, or the first one that is not positive."""
        recipients = [recipient] if isinstance(recipient, str) else recipient
        with self.appliance.client() as client:
            reply = client.message(sender, recipients, letter(recipients[0]) if content is None else content)
            client.quit()
        return reply

    def ask(self, recipient: str, sender: str = "ann@sender.test") -> Reply:
        """What RCPT is answered; nothing is sent."""
        with self.appliance.client() as client:
            return client.envelope(sender, [recipient])[-1]

    def arrived(self, mailbox: str, count: int = 1, within: float = 10) -> list[ReceivedMessage]:
        """What has come to the first server for a mailbox, once there is as much as that."""

        def look() -> list[ReceivedMessage] | None:
            found = self.main.for_recipient(mailbox)
            return found if len(found) >= count else None

        return eventually(look, within, f"mail for {mailbox}")

    def report_to(self, sender: str, within: float = 10) -> ReceivedMessage:
        """The report that has come to a sender."""
        return eventually(lambda: self.senders.for_recipient(sender), within, f"a report to {sender}")[0]

    def mailbox_says(self, script: Script) -> None:
        """From now on the first server also does this."""
        self._scripts.append(script)

    def queue_is_empty(self, within: float = 10) -> None:
        """Wait until nothing is under way any more."""
        eventually(lambda: not self.appliance.queue(), within, "an empty queue")

    def objections(self) -> list[str]:
        """What could be held against the appliance: by the servers, and by those whose addresses it may not log."""
        leaked = [line for line in self.appliance.said().splitlines() if re.search(r"@\w+\.test", line)]
        return leaked + [words for server in (self.main, self.second, self.senders) for words in server.violations]

    def _scripted(self, moment: Moment) -> Answer | None:
        for script in list(self._scripts):
            if (answer := script(moment)) is not None:
                return answer
        return None


def letter(to: str, subject: str = "A letter", body: str = "Good morning.\r\n") -> bytes:
    """A plain message."""
    header = (
        f"From: Ann <ann@sender.test>\r\nTo: {to}\r\nSubject: {subject}\r\nMessage-ID: <{abs(hash(to))}@sender.test>"
    )
    return f"{header}\r\n\r\n{body}".encode()


def put_in_front(received: bytes, original: bytes) -> bytes:
    """What stands in front of the original octets. Fails where they are not the end of what was received."""
    assert received.endswith(original), "the message was changed"
    return received[: len(received) - len(original)]


def is_one_received_line(octets: bytes) -> bool:
    """Whether this is one Received header field, with nothing before or behind it."""
    return _RECEIVED.fullmatch(octets) is not None


__all__ = [
    "HOSTNAME",
    "MAIN_ADDRESS",
    "SECOND_ADDRESS",
    "SENDERS_ADDRESS",
    "SRS_DOMAIN",
    "World",
    "is_one_received_line",
    "letter",
    "put_in_front",
]
