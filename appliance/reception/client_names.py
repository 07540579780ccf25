"""The names of clients, for the log: looked up beside the session, never waited for.

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


class ClientNames:
    """Remembers the confirmed names of client addresses, and looks up those it does not know in the background."""

    def __init__(
        self, resolver: Resolver, nursery: trio.Nursery, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._resolver = resolver
        self._nursery = nursery
        self._monotonic = monotonic
        self._names: OrderedDict[str, tuple[float, str | None]] = OrderedDict()
        self._looking: set[str] = set()

    def name(self, address: str) -> str | None:
        """The confirmed name of an address as far as it is known by now; begins to look for it where it is not."""
        known = self._names.get(address)
        if known is not None and known[0] > self._monotonic():
            return known[1]
        if address not in self._looking and len(self._looking) < MAX_LOOKUPS:
            self._looking.add(address)
            self._nursery.start_soon(self._look_up, address)
        return None

    async def _look_up(self, address: str) -> None:
        try:
            name = await self._confirmed(address)
        except (NoSuchName, LookupFailed):
            name = None
        finally:
            self._looking.discard(address)
        self._names[address] = (self._monotonic() + REMEMBERED_S, name)
        self._names.move_to_end(address)
        if len(self._names) > MAX_NAMES:
            self._names.popitem(last=False)

    async def _confirmed(self, address: str) -> str | None:
        name = await self._resolver.name_of(address)
        if name is None:
            return None
        parsed = ipaddress.ip_address(address)
        found = await self._resolver.addresses(name, ipv6=parsed.version == 6)
        return name if any(ipaddress.ip_address(text) == parsed for text in found) else None
