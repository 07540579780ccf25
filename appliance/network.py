"""Which addresses are out in the world, and which are ours to keep away from.

Mail servers are told by strangers' DNS where to connect. An address inside (loopback, private networks, the metadata
service of a cloud) must not be reached that way, in whatever form it is written.
"""

import ipaddress
import socket

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052 §2.1: the last 32 bits are an IPv4 address. (`ipaddress` calls all of it global.)"""

_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")
"""RFC 8215: translation inside somebody's network; never out in the world."""


def is_public(address: str) -> bool:
    """Whether an IP address is one that a server on the Internet can have."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = _embedded(parsed)
        if inner is not None:
            return is_public(str(inner))
        if parsed in _NAT64_LOCAL or parsed.is_site_local:
            return False
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved


def is_loopback(address: str) -> bool:
    """Whether an address is one that leads to no other machine; False for a name."""
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for: mapped, 6to4, Teredo or NAT64."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def is_of_this_machine(address: str) -> bool:
    """Whether an address is one of this machine's own. Nothing is sent; loopback addresses are not told apart."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            # The kernel speaks to an address of its own from that very address. (To bind it says less: there is a
            # setting that lets one bind what others have.)
            asking.connect((address, 9))
            return str(asking.getsockname()[0]) == address
    except OSError:
        return False  # No route leads there, and so it is not here.


def why_not_a_source(address: str) -> str:
    """Why no connection can leave from an address, in the kernel's words; empty where one can."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as bound:
            bound.bind((address, 0))
    except OSError as error:
        return (error.strerror or type(error).__name__).lower()
    return ""
