"""A connection to a host of a destination: encrypted where that can be had, or as REQUIRETLS wants it.

Opportunistic (RFC 7435): STARTTLS where it is offered, whoever answers. Where the handshake comes to nothing, the same
address is tried once more in clear; mail is not held back for what protects only against who listens.

Required (RFC 8689 §4.2.1): only hosts that are surely the destination's, only over TLS, only with a certificate in the
host's name, and only where the server then offers REQUIRETLS, by which it promises to go on like that.
"""

import ssl
from dataclasses import dataclass, field

from appliance.delivery.hosts import HostAddress, HostSettings
from smtp.client.trio_client import ClientTls, Connection, Refused, Stage, Timeouts, TlsFailed


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


class Unfit(Exception):
    """This host can't be given what requires TLS. The text says why, for people."""

    def __init__(self, enhanced_code: str, text: str) -> None:
        super().__init__(text)
        self.enhanced_code = enhanced_code
        """RFC 8689 §4.2.1: 5.7.10 where no connection can be trusted, 5.7.30 for a server without REQUIRETLS."""


def keeps_the_promise(connection: Connection) -> bool:
    """Whether what requires TLS can go over this connection."""
    return connection.tls is not None and connection.tls.verified and "REQUIRETLS" in connection.extensions


async def connect(settings: ConnectionSettings, candidate: HostAddress, *, chunking: bool) -> Connection:
    """Connect, encrypted where possible. `chunking`: content may go by BDAT. Raises ConnectError and Refused."""
    if settings.opportunistic is None:
        return await _open(settings, candidate, None, chunking)
    try:
        return await _open(settings, candidate, ClientTls(settings.opportunistic, _name(candidate)), chunking)
    except TlsFailed:
        return await _open(settings, candidate, None, chunking)


async def connect_as_required(settings: ConnectionSettings, candidate: HostAddress, *, chunking: bool) -> Connection:
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
    return connection


def _name(candidate: HostAddress) -> str:
    # An address literal has no name; a certificate may be for the address itself.
    return candidate.address if candidate.host.startswith("[") else candidate.host


async def _open(
    settings: ConnectionSettings, candidate: HostAddress, tls: ClientTls | None, chunking: bool
) -> Connection:
    return await Connection.open(
        candidate.address,
        settings.port,
        helo=settings.hosts.hostname,
        timeouts=settings.timeouts,
        expected_name=candidate.host,
        tls=tls,
        chunking=chunking,
    )
