"""Who is at the other end, as far as that matters for letting them in."""

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Client:
    """What a request says of where it comes from."""

    address: str = ""
    """As text; empty for the socket of the machine."""
    user_agent: str = ""
    device: str = ""
    """What the browser was given at an earlier sign-in (`devices.py`); empty without."""


HOST_BITS_OF_ONE = 64
"""Of an IPv6 address: each customer, and each machine where providers are generous, has a /64 at least."""

NETWORK_BITS_OF_SOME = 48
"""What a customer of a hoster may get: 65536 networks of the first kind."""

WIDER = 5
"""A network of that kind has so many times the limit of a single one."""


def networks(address: str) -> tuple[str, ...]:
    """What a client is counted as, the closest first: an IPv4 address by itself, an IPv6 one by its /64 and its /48."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return (address,)
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            lengths = (HOST_BITS_OF_ONE, NETWORK_BITS_OF_SOME)
            return tuple(str(ipaddress.ip_network((parsed, length), strict=False)) for length in lengths)
        parsed = parsed.ipv4_mapped
    return (str(parsed),)
