"""The certificate that others get to see: one of our own, or the configured one; and why that can't be used."""

import stat
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from appliance_process import Appliance
from certificates import certificate_for, shown
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from appliance.configuration import Configuration
from appliance.configuration.settings import Tls
from appliance.privacy.secrets import SecretRefused
from appliance.run import certificates, doubts, own_certificate
from appliance.run.certificates import CertificateUnfit, authorities, server_tls, verifying
from appliance.run.own_certificate import LIVES, RENEWED_BEFORE, describe, present, self_signed

HOSTNAME = "mx.onward.test"


@pytest.fixture
def config(tmp_path: Path) -> Configuration:
    return Configuration(hostname=HOSTNAME, data_dir=tmp_path / "var")


@pytest.fixture(autouse=True)
def nothing_from_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


def with_files(config: Configuration, certificate: Path, key: Path) -> Configuration:
    return replace(config, tls=Tls(certificate=str(certificate), key=str(key)))


def given(config: Configuration, tmp_path: Path, name: str = HOSTNAME) -> tuple[Configuration, Path, Path]:
    """A configuration with files of its own that may be spoilt."""
    files = certificate_for(name)
    certificate, key = tmp_path / "mx.pem", tmp_path / "mx.key"
    certificate.write_bytes(files.certificate.read_bytes())
    key.write_bytes(files.key.read_bytes())
    key.chmod(0o600)
    return with_files(config, certificate, key), certificate, key


# ---------------------------------------------------------------------- of our own


def test_without_a_certificate_one_is_made_for_the_hostname(config: Configuration) -> None:
    certificate = shown(server_tls(config))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [HOSTNAME]
    assert certificate.issuer == certificate.subject
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    assert LIVES - timedelta(minutes=5) < left <= LIVES
    assert certificate.not_valid_before_utc < datetime.now(UTC) - timedelta(hours=12)
    file = config.data_dir / "secrets" / "tls.pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_the_same_one_is_shown_until_the_hostname_changes(config: Configuration) -> None:
    first, second = shown(server_tls(config)), shown(server_tls(config))
    assert first == second
    other = shown(server_tls(replace(config, hostname="mx2.onward.test")))
    assert other != first
    assert other.subject.rfc4514_string() == "CN=mx2.onward.test"


@pytest.mark.parametrize("found", [b"", b"nonsense", b"half"])
def test_one_that_can_not_be_used_is_made_again(config: Configuration, found: bytes) -> None:
    path = present(config)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"-----BEGIN PRIVATE")] if found == b"half" else found)
    assert shown(server_tls(config)).subject.rfc4514_string() == f"CN={HOSTNAME}"


def parts(pem: bytes) -> tuple[bytes, bytes]:
    """The certificate and the key of a file of ours."""
    begin = pem.index(b"-----BEGIN PRIVATE")
    return pem[:begin], pem[begin:]


def under_a_passphrase(pem: bytes) -> bytes:
    certificate, key = parts(pem)
    return certificate + serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"open sesame"),
    )


@pytest.mark.parametrize("found", ["another's key", "passphrase"])
def test_one_whose_key_is_of_no_use_is_made_again(config: Configuration, found: str) -> None:
    path = present(config)
    first = path.read_bytes()
    if found == "another's key":
        path.write_bytes(parts(first)[0] + parts(self_signed(HOSTNAME, datetime.now(UTC)))[1])
    else:
        path.write_bytes(under_a_passphrase(first))
    assert describe(config) is None
    certificate = shown(server_tls(config))
    assert certificate.subject.rfc4514_string() == f"CN={HOSTNAME}"
    assert certificate != x509.load_pem_x509_certificate(first)


def too_weak() -> bytes:
    """A certificate in our name with a key that OpenSSL takes from nobody."""
    key = rsa.generate_private_key(65537, 1024)
    name, now = x509.Name([]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + LIVES)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOSTNAME)]), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def test_one_that_does_not_load_all_the_same_is_named_with_what_to_do(config: Configuration) -> None:
    path = present(config)
    path.write_bytes(too_weak())
    with pytest.raises(CertificateUnfit, match=rf"{path} can't be used \(ee key too small\): remove that file"):
        server_tls(config)
    path.unlink()
    server_tls(config)


def test_one_under_a_passphrase_that_systemd_hands_over_is_named(
    config: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is handed over is not made again; nobody is there to be asked for the passphrase."""
    handed_over = tmp_path / "credentials"
    handed_over.mkdir(mode=0o700)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(handed_over))
    path = handed_over / "tls.pem"
    path.write_bytes(under_a_passphrase(self_signed(HOSTNAME, datetime.now(UTC))))
    path.chmod(0o400)
    with pytest.raises(CertificateUnfit, match=rf"{path} can't be used \(its key needs a passphrase\): remove"):
        server_tls(config)


def test_one_that_is_nearly_over_is_made_again(config: Configuration) -> None:
    path = present(config)
    for left, stays in ((RENEWED_BEFORE + timedelta(days=1), True), (RENEWED_BEFORE - timedelta(days=1), False)):
        old = self_signed(HOSTNAME, datetime.now(UTC) - LIVES + left)
        path.write_bytes(old)
        assert (present(config).read_bytes() == old) is stays


def test_a_hostname_that_is_too_long_for_a_common_name(config: Configuration) -> None:
    """RFC 5280 appendix A.1: 64 characters."""
    hostname = f"{'a' * 60}.onward.test"
    certificate = shown(server_tls(replace(config, hostname=hostname)))
    assert certificate.subject.rfc4514_string() == ""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert (names.critical, names.value.get_values_for_type(x509.DNSName)) == (True, [hostname])


def test_one_that_others_can_read_stops_the_start(config: Configuration) -> None:
    present(config).chmod(0o644)
    with pytest.raises(SecretRefused, match="chmod 600"):
        server_tls(config)


def test_openssl_finds_no_fault_with_it(config: Configuration) -> None:
    path = present(config)
    command = ["openssl", "verify", "-x509_strict", "-partial_chain", "-CAfile", str(path), str(path)]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except FileNotFoundError:
        pytest.skip("there is no openssl here")
    assert found.returncode == 0, found.stderr


# ---------------------------------------------------------------------- the configured one


def test_the_configured_certificate_is_shown_and_none_is_made(config: Configuration, tmp_path: Path) -> None:
    config, certificate, _ = given(config, tmp_path)
    assert shown(server_tls(config)) == x509.load_pem_x509_certificate(certificate.read_bytes())
    assert not config.data_dir.exists()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("no certificate", r"tls\.certificate: .*mx\.pem can't be read: No such file or directory; "),
        ("no key", r"tls\.key: .*mx\.key can't be read: No such file or directory; "),
        ("key for all", r"tls\.key: others can get at .*: chmod 600 "),
        ("another's key", r"tls\.key: the key in .* is not that of the certificate in "),
        ("no PEM", r"tls\.certificate: there is no certificate in .*: write the path"),
        ("no PEM key", r"tls\.key: there is no key in .*: write the path"),
        ("passphrase", r"tls\.key: the key in .* needs a passphrase"),
        ("half", r"tls\.certificate: .* can't be used \(.*\): have them made anew"),
        ("too large", r"tls\.certificate: .* is too large for a PEM file"),
    ],
)
def test_what_can_not_be_used_says_what_to_do(config: Configuration, tmp_path: Path, spoil: str, says: str) -> None:
    config, certificate, key = given(config, tmp_path)
    match spoil:
        case "no certificate":
            certificate.unlink()
        case "no key":
            key.unlink()
        case "key for all":
            key.chmod(0o604)
        case "another's key":
            key.write_bytes(certificate_for("other.test").key.read_bytes())
        case "no PEM":
            certificate.write_bytes(key.read_bytes())
        case "no PEM key":
            key.write_bytes(certificate.read_bytes())
        case "passphrase":
            key.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n")
        case "half":
            certificate.write_bytes(certificate.read_bytes()[:200] + b"\n-----END CERTIFICATE-----\n")
        case "too large":
            certificate.write_bytes(certificate.read_bytes() + bytes(1 << 20))
    for look in (server_tls, describe):
        with pytest.raises(CertificateUnfit, match=says):
            look(config)


def test_a_key_that_a_group_may_read_is_taken(config: Configuration, tmp_path: Path) -> None:
    """So it is handed over by systemd, and by Debian's ssl-cert."""
    config, _, key = given(config, tmp_path)
    key.chmod(0o640)
    server_tls(config)


# ---------------------------------------------------------------------- what it says


def test_what_a_certificate_says(config: Configuration, tmp_path: Path) -> None:
    assert describe(config) is None
    assert not config.data_dir.exists()
    present(config)
    own = describe(config)
    assert own is not None
    assert (own.own, own.names) == (True, (HOSTNAME,))
    config, _, _ = given(config, tmp_path)
    other = describe(config)
    assert other is not None
    assert (other.own, other.names) == (False, (HOSTNAME,))


@pytest.mark.parametrize(
    ("names", "hostname", "covered"),
    [
        (("mx.a.test",), "mx.a.test", True),
        (("mx.a.test",), "mx.b.test", False),
        (("*.a.test",), "mx.a.test", True),
        (("*.a.test",), "mx.b.a.test", False),
        (("*.a.test",), "a.test", False),
        ((), "mx.a.test", False),
    ],
)
def test_which_names_a_certificate_covers(names: tuple[str, ...], hostname: str, covered: bool) -> None:
    """RFC 6125 §6.4.3."""
    assert own_certificate.Certificate(False, names, datetime.now(UTC)).covers(hostname) is covered


# ---------------------------------------------------------------------- whom we believe


def test_authorities_are_looked_for_where_other_systems_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen program looks where the machine had them that it was made on."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    elsewhere = tmp_path / "bundle.pem"
    assert authorities([elsewhere]) is None
    elsewhere.touch()
    assert authorities([elsewhere]) == elsewhere
    usual = tmp_path / "usual.pem"
    usual.touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(usual))
    assert authorities([elsewhere]) == usual


def test_a_machine_without_authorities_is_told_so(
    tmp_path: Path, config: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "authorities", lambda: None)
    assert [line for line in doubts.doubts(config, 65536) if "install ca-certificates" in line]
    monkeypatch.setattr(certificates, "authorities", lambda: tmp_path)
    assert doubts.doubts(config, 65536) == []


def test_authorities_that_cannot_be_read_are_a_doubt_and_no_reason_to_stand_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "ca-certificates.crt"
    broken.write_text("this is no certificate\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(broken))
    context, why = verifying()
    assert context is None
    assert str(broken) in why
    assert "reinstall ca-certificates" in why


def test_an_appliance_starts_without_authorities_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only mail that requires TLS needs them."""
    empty = tmp_path / "empty.pem"
    empty.touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(empty))
    with Appliance(tmp_path, nameserver="127.0.0.1:9", delivery_port=9) as appliance:
        assert appliance.http("/health/ready") == (200, {"ready": True, "engine": "ready"})
