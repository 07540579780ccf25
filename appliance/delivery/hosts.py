"""The hosts that take mail for a destination (RFC 5321 §5.1, RFC 7505), and their addresses.

What the DNS says is final, what it fails to say is not: a lookup that fails defers (`Deferred`), a name that does not
exist or takes no mail fails (`Failed`).
"""

import itertools
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from appliance.model.delivery import Answer, Deferred, Failed
from appliance.network import is_public
from appliance.resolver import LookupFailed, NoSuchName, Resolver

MAX_HOSTS = 10
"""Hosts of one destination that are considered, the most preferred first."""

MAX_ADDRESSES = 20
"""Addresses of one destination that are tried in one attempt."""


class NoHosts(Exception):
    """There is nobody to hand the mail to, now or ever: the outcome says which."""

    def __init__(self, outcome: Deferred | Failed) -> None:
        super().__init__(outcome.answer.text)
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class HostSettings:
    """What the configuration has to say about finding hosts."""

    hostname: str
    """Our own name: hosts at or behind its preference are not asked."""
    ipv4: bool = True
    ipv6: bool = True
    loopback_destinations: bool = False
    is_ours: Callable[[str], bool] = lambda _: False
    """Whether it is this appliance that listens at an address, where destinations listen."""


@dataclass(frozen=True, slots=True)
class HostAddress:
    """One address to try."""

    host: str
    address: str
    known: bool = False
    """Whether it is sure that the host is one of the destination's: DNSSEC says so, or it is the destination itself."""


Shuffle = Callable[[list[str]], None]


@dataclass(frozen=True, slots=True)
class Found:
    """Where a destination's mail goes."""

    addresses: list[HostAddress]
    """Every one to try, best first; never empty."""
    passed_over: str = ""
    """Why there may be more hosts than these addresses are of; empty where there are not."""


async def find_addresses(
    resolver: Resolver, domain: str, settings: HostSettings, shuffle: Shuffle = random.shuffle
) -> list[HostAddress]:
    """Every address to try for a destination, best first. Raises NoHosts; never returns an empty list."""
    return (await find_hosts(resolver, domain, settings, shuffle)).addresses


async def find_hosts(
    resolver: Resolver, domain: str, settings: HostSettings, shuffle: Shuffle = random.shuffle
) -> Found:
    """The addresses, and whether these are all. Raises NoHosts."""
    if domain.startswith("["):
        literal = [HostAddress(domain, re.sub(r"(?i)\AIPv6:", "", domain[1:-1]), known=True)]
        if not _allowed(literal, settings):
            raise NoHosts(_failed(550, "private-address", f"{domain} is no public address", "5.4.4"))
        if settings.is_ours(literal[0].address):
            raise _loop(domain)
        return Found(literal)
    ranks, authenticated = await _hosts(resolver, domain, settings, shuffle)
    hosts = [(rank, host) for rank, same in enumerate(ranks) for host in same]
    found: list[HostAddress] = []
    failed = ""
    ours: int | None = None
    for rank, host in hosts[:MAX_HOSTS]:
        if len(found) >= MAX_ADDRESSES or (ours is not None and rank >= ours):
            break
        try:
            addresses = await addresses_of(resolver, host, settings)
        except LookupFailed as error:
            failed = str(error)
            continue
        if any(map(settings.is_ours, addresses)):
            ours = rank
        # RFC 8689 §4.2.1 wants proof where the name comes from an MX record. Where the certificate has to be in the
        # name of the recipient's own domain, a forged answer leads nowhere.
        known = authenticated or host == domain
        found += [HostAddress(host, address, known) for address in addresses]
    if ours is not None:
        # RFC 5321 §5.1 again: here it is by its address that we know ourselves, under another name.
        before = [host for rank, host in hosts if rank < ours]
        found = [each for each in found if each.host in before]
        hosts = [(rank, host) for rank, host in hosts if rank < ours]
    if not found and failed:
        raise NoHosts(_deferred("dns-failed", f"DNS: {failed}", "4.4.3"))
    if not hosts:
        raise _loop(domain)
    if not found and ranks == [[domain]]:
        raise NoHosts(_failed(550, "no-mail-host", f"{domain} has no mail server and no address", "5.1.2"))
    if not found:
        # The owner has named hosts that do not exist: a mistake that gets mended, not a wish to have no mail.
        raise NoHosts(_deferred("no-mail-host", f"none of the mail servers of {domain} has an address", "4.4.4"))
    allowed = _allowed(found[:MAX_ADDRESSES], settings)
    if not allowed:
        # Not final: a resolver that blocks names answers 0.0.0.0 or 127.0.0.1 for all of them, and nobody's mail should
        # bounce for that. The schedule ends it.
        text = f"the mail server {found[0].host} has no public address"
        raise NoHosts(_deferred("private-address", text, "4.4.4"))
    if not failed and (len(hosts) > MAX_HOSTS or len(found) > MAX_ADDRESSES):
        failed = "there are more hosts than are asked"
    return Found(allowed, failed)


async def _hosts(
    resolver: Resolver, domain: str, settings: HostSettings, shuffle: Shuffle
) -> tuple[list[list[str]], bool]:
    """The hosts by preference, best first, and whether it is proven that they are the destination's."""
    try:
        answer = await resolver.mx(domain)
    except NoSuchName:
        raise NoHosts(_failed(550, "no-such-domain", f"the domain {domain} does not exist", "5.1.2")) from None
    except LookupFailed as error:
        # RFC 5321 §5.1: never fall back to an A record because the MX lookup failed.
        raise NoHosts(_deferred("dns-failed", f"DNS: {error}", "4.4.3")) from None
    records = answer.records
    if not records:
        return [[domain]], False  # RFC 5321 §5.1: the implicit MX
    if all(not host for _, host in records):
        # RFC 7505 §3: a null MX; 556 and 5.1.10 are what a sender would have been told at RCPT (§4.1).
        raise NoHosts(_failed(556, "null-mx", f"{domain} takes no mail", "5.1.10"))
    ordered: list[list[str]] = []
    # RFC 5321 §5.1: by preference; hosts of the same preference in random order, to spread the load.
    for _, group in itertools.groupby(sorted(records), key=lambda record: record[0]):
        hosts = [host for _, host in group if host]
        if settings.hostname in hosts:
            # RFC 5321 §5.1: we are one of them; from our own preference on the mail would come back to us.
            break
        shuffle(hosts)
        if hosts:
            ordered.append(hosts)
    if not ordered:
        raise _loop(domain)
    return ordered, answer.authenticated


async def addresses_of(resolver: Resolver, host: str, settings: HostSettings) -> list[str]:
    """The addresses of one host, IPv6 before IPv4, as far as we use these; [] for none.

    Raises LookupFailed only where nothing was found and something may be there.
    """
    found: list[str] = []
    failure: LookupFailed | None = None
    for wanted, ipv6 in ((settings.ipv6, True), (settings.ipv4, False)):
        if not wanted:
            continue
        try:
            found += await resolver.addresses(host, ipv6=ipv6)
        except NoSuchName:
            continue
        except LookupFailed as error:
            failure = error
    if not found and failure is not None:
        raise failure
    return found


def _loop(domain: str) -> NoHosts:
    return NoHosts(_failed(550, "mx-loop", f"the mail server of {domain} is this one", "5.4.6"))


def _allowed(candidates: Sequence[HostAddress], settings: HostSettings) -> list[HostAddress]:
    return [each for each in candidates if settings.loopback_destinations or is_public(each.address)]


def _deferred(reason: str, text: str, enhanced_code: str) -> Deferred:
    return Deferred(Answer(0, enhanced_code, reason, text))


def _failed(code: int, reason: str, text: str, enhanced_code: str) -> Failed:
    return Failed(Answer(code, enhanced_code, reason, text))
