"""Questions to the DNS, as few kinds as the appliance asks, with the failures told apart.

The one thing a forwarder must never do is take "I could not find out" for "there is no such thing" (RFC 5321 §5.1: a
lookup that fails is tried again later). So an answer is an answer, even an empty one; `NoSuchName` is the authority's
word that there is nothing of that name; everything else is `LookupFailed`.
"""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.nameserver
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.resolver
import dns.reversename

MAX_CACHED_ANSWERS = 10_000
"""Answers kept in memory; the one unused for longest goes first. Strangers choose the names we ask for."""

MAX_CACHED_CHARACTERS = 2000
"""An answer longer than this is given and not kept, so that the cache has an end in megabytes too (about 50)."""

MAX_ANSWER_OCTETS = 8192
"""The longest message that a name server may send us. Reading one takes time in which nothing else happens (0.1 s for
the 64 kB that TCP allows), and what is asked here is answered in a few hundred octets."""

MAX_RECORDS = 50
"""Records of one answer that are looked at; the most preferred of an MX. Nobody is tried for longer than that."""

MAX_CACHED_S = 3600.0
"""However long a record says it lives: a destination that moves is found within the hour."""

NEGATIVE_CACHED_S = 15.0
"""How long "no such name" is believed: short, because a person is often just about to publish the record."""


class NoSuchName(Exception):
    """NXDOMAIN: the authority says that the name does not exist. A permanent answer."""


class LookupFailed(Exception):
    """No answer could be had: a server failure, a timeout, or nonsense. Never a reason to refuse or bounce mail."""


@dataclass(frozen=True, slots=True)
class MailHosts:
    """The MX records of a domain."""

    records: tuple[tuple[int, str], ...]
    """(preference, host) of each; the host of a null MX (RFC 7505) is empty. None for none."""
    authenticated: bool = False
    """Whether a name server on this very machine has proven them by DNSSEC (RFC 4035 §3.2.3: the AD bit). Nobody
    else's word for it is believed: between here and there anybody could have set the bit."""


class Resolver(Protocol):
    """What the appliance asks of the DNS. Every method raises NoSuchName or LookupFailed."""

    async def mx(self, domain: str) -> MailHosts:
        """The MX records of a domain."""

    async def addresses(self, host: str, *, ipv6: bool) -> list[str]:
        """The AAAA (or A) records of a host as text. [] for none."""

    async def name_of(self, address: str) -> str | None:
        """The first PTR record of an IP address, without the final dot; None for none."""


Answer = TypeVar("Answer")


class DnsResolver:
    """A Resolver on dnspython, over Trio, with a bounded cache that honours the records' time to live."""

    def __init__(
        self,
        nameservers: Sequence[tuple[str, int]] = (),
        timeout_s: float = 5.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """With no nameservers, those of /etc/resolv.conf are asked; without that file every lookup fails."""
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        if nameservers:
            self._resolver.nameservers = [dns.nameserver.Do53Nameserver(host, port) for host, port in nameservers]
        else:
            try:
                self._resolver.read_resolv_conf("/etc/resolv.conf")
            except dns.resolver.NoResolverConfiguration:
                pass
        # RFC 6840 §5.7: AD in a question asks for AD in the answer, without the signatures that DO would bring along.
        self._resolver.set_flags(dns.flags.RD | dns.flags.AD)
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._backend = _BoundedBackend()
        self._cache: OrderedDict[tuple[str, str], tuple[float, _Records | None]] = OrderedDict()

    async def mx(self, domain: str) -> MailHosts:
        """See Resolver."""
        found = await self._ask(domain, "MX")
        records = []
        for text in found.texts:
            preference, host = text.split(" ", 1)
            records.append((int(preference), host.rstrip(".").lower()))
        return MailHosts(tuple(records), found.authenticated)

    async def addresses(self, host: str, *, ipv6: bool) -> list[str]:
        """See Resolver."""
        return list((await self._ask(host, "AAAA" if ipv6 else "A")).texts)

    async def name_of(self, address: str) -> str | None:
        """See Resolver."""
        try:
            name = dns.reversename.from_address(address).to_text()
        except dns.exception.DNSException as error:
            # A link-local client comes as fe80::1%eth0: an address, but not one that the DNS knows.
            raise LookupFailed(f"PTR of {address}: {_cause(error)}") from error
        names = (await self._ask(name, "PTR")).texts
        return names[0].rstrip(".").lower() if names else None

    async def texts(self, name: str) -> list[str]:
        """The TXT records of a name, the strings of each joined (RFC 7208 §3.3); [] for none. What is not UTF-8 is
        replaced. Raises NoSuchName or LookupFailed."""
        return [_joined(text) for text in (await self._ask(name, "TXT")).texts]

    async def _ask(self, name: str, record_type: str) -> "_Records":
        key = (name, record_type)
        cached = self._cache.get(key)
        if cached is not None and cached[0] > self._monotonic():
            self._cache.move_to_end(key)
            if cached[1] is None:
                raise NoSuchName(name)
            return cached[1]
        answer, lives_s = await self._query(name, record_type)
        if sum(map(len, answer.texts if answer else ())) <= MAX_CACHED_CHARACTERS:
            self._cache[key] = (self._monotonic() + min(lives_s, MAX_CACHED_S), answer)
            self._cache.move_to_end(key)
            if len(self._cache) > MAX_CACHED_ANSWERS:
                self._cache.popitem(last=False)
        else:
            self._cache.pop(key, None)
        if answer is None:
            raise NoSuchName(name)
        return answer

    async def _query(self, name: str, record_type: str) -> tuple["_Records | None", float]:
        """The records (None for NXDOMAIN), and for how many seconds they hold."""
        try:
            reply = await self._resolver.resolve(
                dns.name.from_text(name),  # absolute: no search list is ever applied to a stranger's domain
                record_type,
                raise_on_no_answer=False,
                lifetime=self._timeout_s,
                backend=self._backend,
            )
        except dns.resolver.NXDOMAIN:
            return None, NEGATIVE_CACHED_S
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise LookupFailed(f"{record_type} of {name}: {_cause(error)}") from error
        authenticated = bool(reply.response.flags & dns.flags.AD) and is_loopback(reply.nameserver)
        if reply.rrset is None:
            if _is_referral(reply.response):
                raise LookupFailed(f"{record_type} of {name}: the server names others, and asks none of them")
            return _Records((), authenticated), NEGATIVE_CACHED_S
        records = list(reply.rrset)
        if record_type == "MX":
            records.sort(key=lambda record: record.preference)
        wanted = 1 if record_type == "PTR" else MAX_RECORDS
        texts = tuple(record.to_text() for record in records[:wanted])
        return _Records(texts, authenticated), float(reply.rrset.ttl)


class _Records(NamedTuple):
    texts: tuple[str, ...]
    authenticated: bool


class _BoundedBackend:
    """dnspython's sockets for Trio, each with a bound on what it takes. (It has no setting for that.)"""

    def __init__(self) -> None:
        self._trio: Any = dns.asyncbackend.get_backend("trio")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trio, name)

    async def make_socket(self, *arguments: Any, **named: Any) -> "_BoundedSocket":
        """A connected stream, or a datagram socket."""
        return _BoundedSocket(await self._trio.make_socket(*arguments, **named))


class _BoundedSocket:
    """A socket that takes no message longer than MAX_ANSWER_OCTETS."""

    def __init__(self, plain: Any) -> None:
        self._plain = plain

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._plain.close()

    async def recv(self, size: int, timeout: float | None) -> Any:
        """Read from a stream. Who has read the length of a message asks for all of it: refused before it comes."""
        if size > MAX_ANSWER_OCTETS:
            raise dns.exception.FormError
        return await self._plain.recv(size, timeout)

    async def recvfrom(self, size: int, timeout: float | None) -> Any:
        """The next datagram, and where it came from. One that is cut off here is no answer, and is waited on."""
        return await self._plain.recvfrom(min(size, MAX_ANSWER_OCTETS), timeout)


def _joined(text: str) -> str:
    """A TXT record as one text, from the form of a zone file: `"v=spf1 " "-all"` is `v=spf1 -all`."""
    strings = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.TXT, text).strings  # type: ignore[attr-defined]
    return b"".join(strings).decode("utf-8", "replace")


def _is_referral(response: dns.message.Message) -> bool:
    """Whether an answer without records says only who may have some (RFC 2308 §2.2): nobody was asked then.

    That there are none is said with an SOA record, or with nothing at all.
    """
    kinds = {rrset.rdtype for rrset in response.authority}
    return dns.rdatatype.NS in kinds and dns.rdatatype.SOA not in kinds


def is_loopback(nameserver: str | None) -> bool:
    """Whether what this name server says reaches us without leaving the machine."""
    try:
        return ipaddress.ip_address(nameserver or "").is_loopback
    except ValueError:
        return False


def _cause(error: Exception) -> str:
    if isinstance(error, dns.resolver.LifetimeTimeout):
        return "no answer in time"
    if isinstance(error, dns.resolver.NoNameservers):
        return "every name server failed"
    return type(error).__name__
