"""What STARTTLS is offered with: the configured certificate, or else one of our own making.

A sender that encrypts mostly asks for no name (RFC 7435), so that any certificate will do for it; one that does ask
(REQUIRETLS, MTA-STS) needs one of an authority. The engine reads the files once, at its start; SIGHUP brings a new
engine. The supervisor looks at them before it lets the old one go, so nothing but the standard library is loaded here.
"""

import ssl
import stat
from collections.abc import Sequence
from pathlib import Path

from appliance.configuration import Configuration
from appliance.run import CannotStart
from smtp.tls import server_context, verifying_context

LARGEST_FILE = 1 << 20
"""Octets of a PEM file: whatever is larger is some other file."""

AUTHORITIES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/ca-bundle.pem"),
    Path("/etc/ssl/cert.pem"),
)
"""Where Debian, Fedora, SUSE and Alpine have all authorities in one file."""

_OTHERS = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP
"""Who must not get at a key. A group may read it: so it is handed over by systemd, and by Debian's ssl-cert."""


class CertificateUnfit(CannotStart):
    """The configured certificate, or our own, can't be used: why, and what to do."""


def server_tls(config: Configuration) -> ssl.SSLContext:
    """What STARTTLS is offered with. Makes a certificate where none is configured and none has been made yet.

    Raises CertificateUnfit, SecretRefused or OSError; and where nodes share a store, what opening it does.
    """
    if config.tls.certificate:
        return configured(config)
    # Imported here and not above: see the beginning.
    from appliance.run import own_certificate, shared_certificate
    from appliance.run.stores import is_shared

    if is_shared(config):
        return shared_certificate.context(config)
    path = own_certificate.present(config)
    # Asked to open such a key, OpenSSL would wait for somebody at the terminal.
    if b"ENCRYPTED" in path.read_bytes():
        raise _own_unfit(path, "its key needs a passphrase")
    try:
        return server_context(path, path)
    except ssl.SSLError as error:
        raise _own_unfit(path, _reason(error)) from None


def configured(config: Configuration) -> ssl.SSLContext:
    """The same for `tls.certificate` and `tls.key`, both of which are set. Raises CertificateUnfit."""
    certificate, key = Path(config.tls.certificate), Path(config.tls.key)
    if b"CERTIFICATE-----" not in _octets_of(certificate, "tls.certificate"):
        raise no_certificate(certificate)
    octets = _octets_of(key, "tls.key")
    if stat.S_IMODE(key.stat().st_mode) & _OTHERS:
        raise CertificateUnfit(f"tls.key: others can get at {key}: chmod 600 {key}")
    if b"PRIVATE KEY-----" not in octets:
        raise CertificateUnfit(f"tls.key: there is no key in {key}: write the path of the PEM file that has it")
    if b"ENCRYPTED" in octets:
        raise CertificateUnfit(
            f"tls.key: the key in {key} needs a passphrase, and nobody is there to type it: remove that (openssl pkey)"
        )
    try:
        return server_context(certificate, key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise CertificateUnfit(
                f"tls.key: the key in {key} is not that of the certificate in {certificate}: "
                "name two files that were made together, the server's own certificate first in its file"
            ) from None
        raise CertificateUnfit(
            f"tls.certificate: {certificate} with {key} can't be used ({_reason(error)}): have them made anew"
        ) from None


def authorities(known: Sequence[Path] = AUTHORITIES) -> Path | None:
    """Where those stand whose word for a certificate this machine takes; None where there are none.

    A frozen program looks where the machine had them that it was made on, so what other systems have is tried, too.
    """
    usual = ssl.get_default_verify_paths()
    return next(
        (path for path in (*map(Path, filter(None, (usual.cafile, usual.capath))), *known) if path.exists()), None
    )


def verifying() -> tuple[ssl.SSLContext | None, str]:
    """For hosts that have to prove their name; or None, and why there is nobody to prove it to, with what to do."""
    path = authorities()
    if path is None:
        return None, "this machine knows no certificate authorities: install ca-certificates"
    try:
        # A directory is one that OpenSSL finds by itself.
        return verifying_context(path if path.is_file() else None), ""
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
        return None, f"the certificate authorities in {path} can't be read ({reason}): reinstall ca-certificates"


def no_certificate(path: Path) -> CertificateUnfit:
    """For a file that has none."""
    return CertificateUnfit(
        f"tls.certificate: there is no certificate in {path}: write the path of a PEM file that begins with one"
    )


def _own_unfit(path: Path, reason: str) -> CertificateUnfit:
    return CertificateUnfit(f"our own certificate in {path} can't be used ({reason}): remove that file for a new one")


def _reason(error: ssl.SSLError) -> str:
    """Why, in the words of OpenSSL."""
    return (error.reason or "no reason given").lower().replace("_", " ")


def _octets_of(path: Path, key: str) -> bytes:
    try:
        with path.open("rb") as file:
            octets = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise CertificateUnfit(
            f"{key}: {path} can't be read: {error.strerror}; write the right path, or let the appliance's user read it"
        ) from None
    if len(octets) > LARGEST_FILE:
        raise CertificateUnfit(f"{key}: {path} is too large for a PEM file; was another file meant?")
    return octets
