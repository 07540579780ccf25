"""A connection to a host of a destination: encrypted where that can be had, or as REQUIRETLS wants it.

Opportunistic (RFC 7435): STARTTLS where it is offered, whoever answers. Where the handshake comes to nothing, the same
address is tried once more in clear; mail is not held back for what protects only against who listens.

Required (RFC 8689 §4.2.1): only hosts that are surely the destination's, only over TLS, only with a certificate in the
host's name, and only where the server then offers REQUIRETLS, by which it promises to go on like that.

With a login, which only a smarthost has: only over TLS, and only to who proves to be the relay. No password goes out in
clear, but for one that stays on this machine in a test.
"""

import random
import ssl
from dataclasses import dataclass, field, replace

from appliance.delivery.hosts import HostAddress, HostSettings
from appliance.delivery.smarthost import Smarthost
from appliance.network import why_not_a_source
from appliance.resolver import is_loopback
from smtp.client.trio_client import ClientTls, ConnectError, Connection, Refused, Stage, Timeouts, TlsFailed


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """What the configuration has to say about connections."""

    port: int
    hosts: HostSettings
    timeouts: Timeouts = field(default_factory=Timeouts)
    opportunistic: ssl.SSLContext | None = None
    """For encryption with whoever answers; None for none at all."""
    verifying: ssl.SSLContext | None = None
    """For a host that has to prove its name; without it, nothing that requires TLS can be sent."""
    smarthost: Smarthost | None = None
    """Where all mail goes; None for the hosts of each destination."""
    source_addresses: tuple[str, ...] = ()
    """Ours to send from, one of them for each connection by chance; empty: the kernel chooses."""


class Unfit(Exception):
    """This host can't be given what requires TLS. The text says why, for people."""

    def __init__(self, enhanced_code: str, text: str) -> None:
        super().__init__(text)
        self.enhanced_code = enhanced_code
        """RFC 8689 §4.2.1: 5.7.10 where no connection can be trusted, 5.7.30 for a server without REQUIRETLS."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A connection, and whom it leads to."""

    connection: Connection
    at: HostAddress
    in_clear: str = ""
    """Why it is in clear although the host offers TLS; empty where that is not so."""

    @property
    def tls(self) -> str | None:
        """How it is encrypted, for the log: `TLSv1.3 TLS_AES_256_GCM_SHA384 verified`, or `none: ` and the reason of a
        connection that fell back to clear; None where there was no TLS to be had."""
        facts = self.connection.tls
        if facts is not None:
            return f"{facts.version} {facts.cipher}{' verified' if facts.verified else ''}"
        return f"none: {self.in_clear}" if self.in_clear else None


def keeps_the_promise(connection: Connection) -> bool:
    """Whether what requires TLS can go over this connection."""
    return connection.tls is not None and connection.tls.verified and "REQUIRETLS" in connection.extensions


async def connect(settings: ConnectionSettings, candidate: HostAddress, *, chunking: bool) -> Reached:
    """Connect, encrypted where possible. `chunking`: content may go by BDAT. Raises ConnectError and Refused."""
    relay = settings.smarthost
    if relay is not None and relay.wants_proof and not _stays_here(settings, candidate):
        return await _connect_to_proven(settings, candidate, chunking)
    if settings.opportunistic is None:
        return Reached(await _open(settings, candidate, None, chunking), candidate)
    try:
        tls = ClientTls(settings.opportunistic, _name(candidate))
        connection = await _open(settings, candidate, tls, chunking)
    except TlsFailed as error:
        connection = await _open(settings, candidate, None, chunking)
        return Reached(connection, candidate, _why_in_clear(error))
    refused = connection.tls is None and "STARTTLS" in connection.extensions
    return Reached(connection, candidate, "STARTTLS was offered and refused" if refused else "")


async def connect_as_required(settings: ConnectionSettings, candidate: HostAddress, *, chunking: bool) -> Reached:
    """Connect so that what requires TLS can be sent; `chunking` as above. Raises Unfit, ConnectError and Refused."""
    if settings.verifying is None:
        raise Unfit("5.7.10", "there is nobody here whose word for a certificate is taken")
    if not candidate.known:
        raise Unfit("5.7.10", f"nothing proves that {candidate.host} is its mail server (no DNSSEC)")
    try:
        tls = ClientTls(settings.verifying, _name(candidate), required=True)
        connection = await _open(settings, candidate, tls, chunking)
    except TlsFailed as error:
        if not error.final:
            raise
        raise Unfit("5.7.10", f"no TLS with {candidate.host} that proves its name: {error}") from None
    except Refused as refused:
        if refused.stage is Stage.STARTTLS and refused.reply.permanent:
            raise Unfit("5.7.10", f"{candidate.host} refuses TLS: {refused.reply.text}") from None
        raise
    if not keeps_the_promise(connection):
        await connection.quit()
        raise Unfit("5.7.30", f"{candidate.host} does not offer REQUIRETLS")
    return Reached(connection, candidate)


async def _connect_to_proven(settings: ConnectionSettings, candidate: HostAddress, chunking: bool) -> Reached:
    if settings.verifying is None:
        raise ConnectError("there is nobody here whose word for its certificate is taken")
    try:
        tls = ClientTls(settings.verifying, _name(candidate), required=True)
        return Reached(await _open(settings, candidate, tls, chunking), candidate)
    except TlsFailed as error:
        raise ConnectError(f"no TLS that proves its name: {error}") from None


def _stays_here(settings: ConnectionSettings, candidate: HostAddress) -> bool:
    """Whether it is a test on this very machine, where nobody listens to a password in clear."""
    relay = settings.smarthost
    implicit = relay is not None and relay.implicit_tls
    return settings.hosts.loopback_destinations and is_loopback(candidate.address) and not implicit


def _why_in_clear(error: TlsFailed) -> str:
    # The reply of a server that says no only under TLS is its own text, and not for this field of the log.
    stage, under_tls, _ = str(error).partition(" under TLS: ")
    return f"TLS failed at {stage}: refused" if under_tls else f"TLS failed at {error}"


def _name(candidate: HostAddress) -> str:
    # An address literal has no name; a certificate may be for the address itself.
    return candidate.address if candidate.host.startswith("[") else candidate.host


async def _open(
    settings: ConnectionSettings, candidate: HostAddress, tls: ClientTls | None, chunking: bool
) -> Connection:
    relay = settings.smarthost
    login = relay.login if relay else None
    if login is not None and _stays_here(settings, candidate):
        login = replace(login, allow_clear=True)
    source = _source_for(candidate.address, settings.source_addresses)
    try:
        return await Connection.open(
            candidate.address,
            relay.port if relay else settings.port,
            helo=settings.hosts.hostname,
            timeouts=settings.timeouts,
            source_address=source,
            expected_name=candidate.host,
            tls=tls,
            implicit_tls=relay is not None and relay.implicit_tls,
            login=login,
            chunking=chunking,
        )
    except ConnectError:
        why = why_not_a_source(source) if source else ""
        if why:
            raise ConnectError(f"nothing can be sent from {source} (delivery.source_addresses): {why}") from None
        raise


def _source_for(address: str, sources: tuple[str, ...]) -> str | None:
    """One of ours that speaks the address's version of IP, by chance."""
    fitting = [source for source in sources if (":" in source) == (":" in address)]
    return random.choice(fitting) if fitting else None
