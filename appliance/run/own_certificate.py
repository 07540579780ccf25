"""A certificate that is signed by itself, made where none is configured; and what a certificate says, ours or not.

It is for the hostname, and made again when that changes. It is kept in `secrets/` together with its key in one file, so
that there is no instant with one of them new. Nodes that share a store have it there, and one for all of them
(`shared_certificate.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.configuration import Configuration
from appliance.run.certificates import configured, no_certificate
from appliance.run.stores import is_shared, secrets

OWN_CERTIFICATE = "tls.pem"
"""In `secrets/`: the certificate that we have made, and its key."""

LIVES = timedelta(days=3653)
"""Ten years. Nobody who takes one that is signed by itself asks how old it is."""

BEGAN = timedelta(days=1)
"""How long ago it has begun to be valid, for those whose clock is behind ours."""

RENEWED_BEFORE = timedelta(days=30)
"""It is made anew at a start with less than this left."""

LONGEST_COMMON_NAME = 64
"""Characters (RFC 5280 appendix A.1). A longer hostname stands in subjectAltName alone, where it counts anyway."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says."""

    own: bool
    """Whether we have made it."""
    names: tuple[str, ...]
    """The DNS names that it is for, in lower case."""
    expires_at: datetime

    def covers(self, hostname: str) -> bool:
        """Whether it is for this name. A wildcard stands for the whole first label (RFC 6125 §6.4.3)."""
        _, _, parent = hostname.partition(".")
        return hostname in self.names or f"*.{parent}" in self.names


def present(config: Configuration) -> Path:
    """The file of our own certificate, which is made at the first use. Raises SecretRefused or OSError."""
    now = datetime.now(UTC)
    return secrets(config).renewed(OWN_CERTIFICATE, lambda found: _renewed(found, config.hostname, now))


def describe(config: Configuration) -> Certificate | None:
    """The certificate that is shown to others; None for one of our own that is not made yet.

    Raises CertificateUnfit, SecretRefused or OSError.
    """
    if config.tls.certificate:
        configured(config)
        path = Path(config.tls.certificate)
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except ValueError:
            raise no_certificate(path) from None
    else:
        # Imported here: it is made of what stands below.
        from appliance.run import shared_certificate

        own = shared_certificate.stored(config) if is_shared(config) else secrets(config).load(OWN_CERTIFICATE)
        kept = usable((own or "").encode())
        if kept is None:
            return None  # The next start makes another.
        certificate = kept
    return Certificate(not config.tls.certificate, names_of(certificate), certificate.not_valid_after_utc)


def self_signed(hostname: str, now: datetime, others: Sequence[str] = ()) -> bytes:
    """A certificate for this name, and for the others, and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, hostname)] if len(hostname) <= LONGEST_COMMON_NAME else []
    name = x509.Name(attributes)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BEGAN)
        .not_valid_after(now + LIVES)
        # RFC 5280 §4.2.1.6: critical where the subject says nothing.
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in (hostname, *others)]), critical=not attributes
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def is_due(certificate: x509.Certificate, hostname: str, now: datetime) -> bool:
    """Whether another is to be made in its place."""
    return certificate.not_valid_after_utc - now < RENEWED_BEFORE or hostname not in names_of(certificate)


def _renewed(found: bytes | None, hostname: str, now: datetime) -> bytes | None:
    """What is to stand there in place of what was found; None to leave it."""
    certificate = usable(found or b"")
    if certificate is None or is_due(certificate, hostname, now):
        return self_signed(hostname, now)
    return None


def usable(pem: bytes) -> x509.Certificate | None:
    """The certificate in this file; None without one, or without a key that belongs to it and needs no passphrase."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = serialization.load_pem_private_key(pem, None)
        return certificate if key.public_key() == certificate.public_key() else None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None  # TypeError is for the passphrase.


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The DNS names that a certificate is for, in lower case."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(name.lower() for name in names.get_values_for_type(x509.DNSName))
