"""A relay that takes all mail that leaves: where it is, and who we are there.

It is the operator's word, and not a stranger's DNS: it may be in our own network, no MX record is asked for it, and
whatever is wrong with it is no reason to send anything back. The mail waits until it is put right.
"""

import ipaddress
from dataclasses import dataclass

from appliance.delivery.hosts import Found, HostAddress, HostSettings, NoHosts, addresses_of
from appliance.model.delivery import Answer, Deferred
from appliance.resolver import LookupFailed, Resolver
from smtp.client.authentication import Login

PASSWORD = "smarthost-password"
"""The name of the secret that has the password of our login there."""


@dataclass(frozen=True, slots=True)
class Smarthost:
    """A relay, and our login there."""

    host: str
    """A domain name, or an IP address."""
    port: int
    login: Login | None = None
    """None: it knows us without."""
    implicit_tls: bool = False
    """TLS begins with the connection (RFC 8314 §3.3), and not with STARTTLS."""

    @property
    def wants_proof(self) -> bool:
        """Whether it has to prove its name: a password is given to nobody else, and who asks for TLS gets all of it."""
        return self.login is not None or self.implicit_tls


async def find_smarthost(resolver: Resolver, smarthost: Smarthost, settings: HostSettings) -> Found:
    """Its addresses, best first. Raises NoHosts, and never for good."""
    host = smarthost.host
    try:
        # That it is known whose host it is (`known`) goes without saying: no MX record has led here.
        return Found([HostAddress(host, str(ipaddress.ip_address(host)), known=True)])
    except ValueError:
        pass  # It is a name.
    try:
        found = await addresses_of(resolver, host, settings)
    except LookupFailed as error:
        raise NoHosts(_deferred("dns-failed", f"DNS: {error}", "4.4.3")) from None
    if not found:
        raise NoHosts(_deferred("no-mail-host", f"the smarthost {host} has no address", "4.4.4"))
    usable = [address for address in found if settings.loopback_destinations or not _is_nowhere(address)]
    if not usable:
        # What a resolver says that blocks names. Whoever means this machine writes 127.0.0.1.
        text = f"the smarthost {host} is said to be at {found[0]}: write that address if it is meant"
        raise NoHosts(_deferred("private-address", text, "4.4.4"))
    return Found([HostAddress(host, address, known=True) for address in usable])


def _is_nowhere(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return parsed.is_loopback or parsed.is_unspecified


def _deferred(reason: str, text: str, enhanced_code: str) -> Deferred:
    return Deferred(Answer(0, enhanced_code, reason, text))
