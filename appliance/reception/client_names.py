"""The names of clients, for the log: looked up beside the session, and waited for only where names are blocked.

A name counts only where it leads back to the address (forward-confirmed): anybody can write any name into the reverse
zone of an own address.
"""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

import trio

from appliance.resolver import LookupFailed, NoSuchName, Resolver

MAX_NAMES = 10_000
"""Clients whose names are remembered."""

REMEMBERED_S = 600.0
"""For how long."""

MAX_LOOKUPS = 50
"""Lookups at once; a client that comes while as many are under way has no name in the log."""

PATIENCE_S = 10.0
"""How long a client waits for its name where it matters what that is. A client gives MAIL five minutes (RFC 5321
§4.5.3.2.2); a name that nobody tells by then keeps nobody out."""


class ClientNames:
    """Remembers the confirmed names of client addresses, and looks up those it does not know in the background."""

    def __init__(
        self, resolver: Resolver, nursery: trio.Nursery, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._resolver = resolver
        self._nursery = nursery
        self._monotonic = monotonic
        self._names: OrderedDict[str, tuple[float, str | None]] = OrderedDict()
        self._looking: dict[str, trio.Event] = {}
        """The look-ups under way, each with what is set at its end."""

    def name(self, address: str) -> str | None:
        """The confirmed name of an address as far as it is known by now; begins to look for it where it is not."""
        known = self._names.get(address)
        if known is not None and known[0] > self._monotonic():
            return known[1]
        if address not in self._looking and len(self._looking) < MAX_LOOKUPS:
            self._looking[address] = trio.Event()
            self._nursery.start_soon(self._look_up, address)
        return None

    async def settled(self, address: str) -> str | None:
        """The confirmed name once the look-up has ended; None where there is none, or where that takes too long."""
        name = self.name(address)
        looking = self._looking.get(address)
        if looking is None:
            return name
        with trio.move_on_after(PATIENCE_S):
            await looking.wait()
        return self.name(address)

    async def _look_up(self, address: str) -> None:
        try:
            name = await confirmed_name(self._resolver, address)
        except (NoSuchName, LookupFailed):
            name = None
        finally:
            self._looking.pop(address).set()
        self._names[address] = (self._monotonic() + REMEMBERED_S, name)
        self._names.move_to_end(address)
        if len(self._names) > MAX_NAMES:
            self._names.popitem(last=False)


async def confirmed_name(resolver: Resolver, address: str) -> str | None:
    """The name of an address where that leads back to it; None without one. Raises NoSuchName, LookupFailed."""
    name = await resolver.name_of(address)
    if name is None:
        return None
    parsed = ipaddress.ip_address(address)
    found = await resolver.addresses(name, ipv6=parsed.version == 6)
    return name if any(ipaddress.ip_address(text) == parsed for text in found) else None
