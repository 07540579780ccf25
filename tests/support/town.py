"""home.test: a destination whose mail hosts are real servers at loopback addresses, all on one port, with the DNS that
leads to them; and a courier's errands there.

A test adds what is special to it: scripts for the hosts, further records, settings of its own.
"""

import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any, Self

import trio
from destination import Destination, on_one_port
from destination_scripts import Answer
from dns_server import DnsServer
from values import NOW, delivery

from appliance.delivery.connecting import ConnectionSettings
from appliance.delivery.courier import Courier
from appliance.delivery.hosts import HostSettings
from appliance.model.delivery import Delivery, Outcome
from appliance.model.time import Clock
from appliance.resolver import DnsResolver
from smtp.address import Address
from smtp.client.trio_client import Timeouts

FIRST, SECOND, THIRD = "127.0.0.2", "127.0.0.3", "127.0.0.4"
OURS = "mx.onward.test"
"""The name under which mail is handed over."""
PIECES = [b"Received: by us\r\nSub", b"ject: x\r\n\r\n", b".\r\nbody\r\n"]
"""Content as it comes from the spool: one border is within a line, another before a dot that has to be stuffed."""
CONTENT = b"".join(PIECES)
LATER = Answer(451, "4.7.1 Later")
NEVER = Answer(550, "5.1.1 No such user")
ENOUGH = Answer(421, "4.3.2 Enough for now", close=True)
QUICK = Timeouts(connect=2, greeting=0.3, ehlo=0.3, mail=0.3, rcpt=0.3, data=0.3, block=0.3, end_of_data=0.3, quit=0.3)
"""For servers that are waited for in vain."""
LIMIT_S = 20
"""For all errands of one courier."""


def mail_hosts(*addresses: str) -> dict[str, list[str]]:
    """The records of home.test with a mail host at each address, the preferred one first: mx1.home.test and so on."""
    hosts = {f"mx{number}.home.test": [f"A {address}"] for number, address in enumerate(addresses, start=1)}
    return {"home.test": [f"MX {10 * number} {name}." for number, name in enumerate(hosts, start=1)], **hosts}


def resolver(dns: DnsServer, timeout_s: float = 2.0) -> DnsResolver:
    """Asks this server, and waits so long for it."""
    return DnsResolver([(dns.address, dns.port)], timeout_s)


def connections(port: int, **changes: Any) -> ConnectionSettings:
    """For destinations at loopback addresses, in clear, with little patience for a goodbye."""
    hosts = HostSettings(OURS, loopback_destinations=True)
    return replace(ConnectionSettings(port, hosts, Timeouts(quit=0.5)), **changes)


def ticking() -> Clock:
    """A clock that goes on by 5 ms whenever it is read."""
    readings = itertools.count(NOW, 5)
    return lambda: next(readings)


@asynccontextmanager
async def on_errands(courier: Courier) -> AsyncIterator[Courier]:
    """For as long as the block, and no longer than the limit. The courier says goodbye at the end."""
    try:
        with trio.fail_after(LIMIT_S):
            yield courier
    finally:
        await courier.close()


class Town:
    """The mail hosts of home.test, and the DNS that leads to them."""

    def __init__(self, *addresses: str) -> None:
        """One host at each address, the preferred one first. Nothing is opened yet."""
        self.dns = DnsServer(mail_hosts(*addresses))
        self.servers = [
            Destination(address, name=f"mx{number}.home.test") for number, address in enumerate(addresses, start=1)
        ]
        self.port = 0

    @property
    def first(self) -> Destination:
        return self.servers[0]

    @property
    def second(self) -> Destination:
        return self.servers[1]

    @property
    def messages(self) -> int:
        """How many messages have been taken, by all hosts."""
        return sum(len(server.messages) for server in self.servers)

    @contextmanager
    def open(self) -> Iterator[Self]:
        """All serve inside the block. At its end none may have seen anything that could be held against us."""
        with self.dns:
            self.port = on_one_port(*self.servers)
            try:
                yield self
            finally:
                for server in self.servers:
                    server.stop()
        assert [violation for server in self.servers for violation in server.violations] == []

    def settings(self, **changes: Any) -> ConnectionSettings:
        return connections(self.port, **changes)

    def courier(self, domain: str = "home.test", **settings: Any) -> AbstractAsyncContextManager[Courier]:
        """A courier to this destination; `settings` are those of its connections."""
        return on_errands(Courier(domain, resolver(self.dns), self.settings(**settings), ticking()))


def to(
    *mailboxes: str, domain: str = "home.test", message_id: str = "m1", size: int = len(CONTENT), **changes: Any
) -> list[Delivery]:
    """Deliveries of one message to mailboxes of a domain; to alice where none is named."""
    return [
        delivery(f"d{number}", message_id, target=Address(name, domain), size=size, **changes)
        for number, name in enumerate(mailboxes or ("alice",))
    ]


async def carry(courier: Courier, *mailboxes: str, **changes: Any) -> list[Outcome]:
    """One errand. Raises what the courier raises."""
    return await courier.carry(to(*mailboxes, **changes), lambda: PIECES)


def kinds(outcomes: Sequence[Outcome]) -> list[type[Outcome]]:
    return [type(outcome) for outcome in outcomes]


def told(outcomes: Sequence[Outcome]) -> list[tuple[type[Outcome], str, str]]:
    """What each comes to: kind, enhanced status code and reason."""
    return [(type(outcome), outcome.answer.enhanced_code, outcome.answer.reason) for outcome in outcomes]


def answers(outcomes: Sequence[Outcome]) -> list[tuple[int, str, str]]:
    """What each is from: reply code (0 where there was none), enhanced status code and reason."""
    return [(outcome.answer.code, outcome.answer.enhanced_code, outcome.answer.reason) for outcome in outcomes]
