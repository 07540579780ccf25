"""TLS as mail uses it: contexts for both ends, and what a connection came to.

TLS 1.2 and up (RFC 8996 has ended what was before). The standard library's `ssl` does the rest.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path

OLDEST_VERSION = ssl.TLSVersion.TLSv1_2


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """What was negotiated."""

    version: str
    """As OpenSSL names it: `TLSv1.3`."""
    cipher: str
    """The cipher suite as RFC 8446 or OpenSSL name it: `TLS_AES_256_GCM_SHA384`."""
    verified: bool = False
    """On the client's side: whether the certificate was asked for, valid, and in the name of the host."""


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """For a server with this certificate chain and key, in PEM. Raises OSError (ssl.SSLError among them)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = OLDEST_VERSION
    # A client that could make us negotiate anew could make us do so all day.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.load_cert_chain(certificate, key)
    return context


def opportunistic_context() -> ssl.SSLContext:
    """For a client that takes encryption where it can get it, from whoever answers (RFC 7435)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = OLDEST_VERSION
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def verifying_context(authorities: Path | None = None) -> ssl.SSLContext:
    """For a client that speaks only to the named host itself: by the system's authorities, or by those of a PEM file.

    Raises OSError.
    """
    context = ssl.create_default_context(cafile=None if authorities is None else str(authorities))
    context.minimum_version = OLDEST_VERSION
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def facts(connection: ssl.SSLSocket | ssl.SSLObject) -> TlsFacts:
    """What a finished handshake has come to."""
    cipher = connection.cipher()
    return TlsFacts(
        version=connection.version() or "",
        cipher=cipher[0] if cipher else "",
        verified=connection.context.verify_mode is ssl.CERT_REQUIRED and connection.context.check_hostname,
    )
