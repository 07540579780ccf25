"""Certificates for tests: an authority of our own, and what it says about servers.

Made once and kept for as long as the tests run. P-256, because such a key is made in no time.
"""

import atexit
import ipaddress
import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from smtp.tls import opportunistic_context, server_context, verifying_context

HOST = "mx.example.org"
"""Who the usual certificate is for."""

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Files:
    """A certificate and its key, in PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    file: Path


def authority_file() -> Path:
    """The authority's own certificate, in PEM: for whoever is to believe it."""
    return _authority().file


@cache
def certificate_for(name: str = HOST, *, expired: bool = False, self_signed: bool = False) -> Files:
    """A certificate for this host, a name or an address, by the authority, or by nobody but itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    issuer_key = key if self_signed else _authority().key
    issuer = _name(name) if self_signed else _authority().certificate.subject
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 3 * _DAY)
        .not_valid_after(now - _DAY if expired else now + _DAY)
        .add_extension(x509.SubjectAlternativeName([_alternative(name)]), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    file = _directory() / f"{name}-{expired}-{self_signed}"
    files = Files(Path(f"{file}.certificate"), Path(f"{file}.key"))
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


@cache
def server_tls(name: str = HOST, *, expired: bool = False) -> ssl.SSLContext:
    """For a server that is who it says."""
    files = certificate_for(name, expired=expired)
    return server_context(files.certificate, files.key)


@cache
def verifying_tls() -> ssl.SSLContext:
    """For a client that believes the authority, and nobody else."""
    return verifying_context(authority_file())


@cache
def any_tls() -> ssl.SSLContext:
    """For a client that takes whoever answers."""
    return opportunistic_context()


def shown(context: ssl.SSLContext) -> x509.Certificate:
    """What a client gets to see of a server with this context."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    back, forth = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_end = context.wrap_bio(incoming, outgoing, server_side=True)
    client_end = any_tls().wrap_bio(back, forth, server_hostname=HOST)
    for _ in range(4):
        for end in (client_end, server_end):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
            incoming.write(forth.read())
            back.write(outgoing.read())
    der = client_end.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der)


@cache
def _authority() -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name("Authority of the tests"))
        .issuer_name(_name("Authority of the tests"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 3 * _DAY)
        .not_valid_after(now + 3 * _DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = _directory() / "authority.certificate"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return _Authority(certificate, key, file)


@cache
def _directory() -> Path:
    directory = tempfile.TemporaryDirectory()
    atexit.register(directory.cleanup)
    return Path(directory.name)


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
