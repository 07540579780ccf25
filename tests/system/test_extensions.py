"""STARTTLS, DSN and REQUIRETLS from one end of the appliance to the other, with servers that know them all."""

import os
import re
import signal
import smtplib
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from appliance_process import HOSTNAME, Appliance, Settings, eventually
from certificates import any_tls, authority_file, certificate_for, server_tls
from destination import ReceivedMessage
from destination_scripts import Answer, Stage, always
from dns_server import DnsServer
from read_report import read_report
from world import MAIN_ADDRESS, World, letter

NAMES = ["plain", "success", "never", "gone", "secret", "unproven", "again"]
TOWN = {f"{name}@forward.test": [f"{name}.box@dest.test"] for name in NAMES}
TOWN["unproven@forward.test"] = ["unproven.box@other.test"]
EXTENSIONS = ("PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "REQUIRETLS")
GONE = Answer(550, "5.1.1 No such user")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The certificate and the key of the appliance, which may be replaced."""
    directory = tmp_path_factory.mktemp("certificate")
    made = certificate_for(HOSTNAME)
    certificate, key = directory / "mx.pem", directory / "mx.key"
    certificate.write_bytes(made.certificate.read_bytes())
    key.write_bytes(made.key.read_bytes())
    key.chmod(0o600)
    return certificate, key


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, files: tuple[Path, Path]) -> Iterator[World]:
    settings: Settings = {"tls": {"certificate": str(files[0]), "key": str(files[1])}}
    before = os.environ.get("SSL_CERT_FILE")
    # The authorities that the system believes, as OpenSSL looks for them.
    os.environ["SSL_CERT_FILE"] = str(authority_file())
    try:
        made = World(tmp_path_factory.mktemp("extensions"), TOWN, settings)
        made.dns.authenticated = True
        # The same server, which has no certificate in this name.
        made.dns.set("other.test", "MX 10 mx.other.test.")
        made.dns.set("mx.other.test", f"A {MAIN_ADDRESS}")
        for server in (made.main, made.second, made.senders):
            server.extensions = EXTENSIONS
            server.tls = server_tls(server.name)
        with made as world:
            yield world
            assert world.objections() == []
    finally:
        os.environ.pop("SSL_CERT_FILE")
        if before is not None:
            os.environ["SSL_CERT_FILE"] = before


@contextmanager
def encrypted(world: World) -> Iterator[smtplib.SMTP]:
    """A conversation of another's making, under TLS."""
    with smtplib.SMTP("127.0.0.1", world.appliance.smtp_port, "client.example.net", timeout=20) as client:
        client.starttls(context=any_tls())
        client.ehlo()
        yield client


def send(
    world: World, name: str, options: Sequence[str] = (), wishes: Sequence[str] = (), body: str = "Hi.\r\n"
) -> None:
    with encrypted(world) as client:
        assert client.mail(f"{name}@sender.test", list(options))[0] == 250
        assert client.rcpt(f"{name}@forward.test", list(wishes))[0] == 250
        code, reply = client.data(letter(f"{name}@forward.test", body=body))
        assert code == 250, reply


def arrived(world: World, name: str) -> ReceivedMessage:
    return world.arrived(f"{name}.box@dest.test")[0]


def shown(world: World) -> bytes:
    """The certificate that the appliance shows."""
    with encrypted(world) as client:
        assert isinstance(client.sock, ssl.SSLSocket)
        der = client.sock.getpeercert(binary_form=True)
        assert der is not None
        return der


def test_mail_comes_and_goes_encrypted(world: World) -> None:
    send(world, "plain")
    message = arrived(world, "plain")
    assert message.encrypted
    front = message.content[: message.content.index(b"From:")]
    assert b" with ESMTPS id " in front
    assert re.search(rb"\r\n\tfor <plain@forward\.test>\r\n\ttls TLS_[A-Z0-9_]+;\r\n", front)


def test_a_success_is_told_by_us_and_the_next_hop_is_not_asked(world: World) -> None:
    send(
        world,
        "success",
        ["RET=FULL", "ENVID=QQ+20314"],
        ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;first+2Bone@sender.test"],
    )
    message = arrived(world, "success")
    assert message.wishes == ("NOTIFY=FAILURE",)
    assert [word for word in message.parameters if "=" in word and not word.startswith("SIZE")] == ["RET=HDRS"]
    octets = world.report_to("success@sender.test").content
    report = read_report(octets)
    assert report.of_message["Original-Envelope-Id"] == "QQ 314"
    (of_recipient,) = report.of_recipients
    assert of_recipient["Action"] == "relayed"
    assert of_recipient["Original-Recipient"] == "rfc822; first+one@sender.test"
    assert of_recipient["Final-Recipient"] == "rfc822; success@forward.test"
    assert b"dest.test" not in octets


def test_who_wants_to_hear_nothing_hears_nothing(world: World) -> None:
    world.mailbox_says(always(Stage.RCPT, GONE, recipient="never.box@dest.test"))
    world.mailbox_says(always(Stage.RCPT, GONE, recipient="gone.box@dest.test"))
    send(world, "never", wishes=["NOTIFY=NEVER"])
    send(world, "gone", options=["RET=FULL"], body="The whole of it.\r\n")
    report = world.report_to("gone@sender.test")
    assert b"The whole of it." in report.content
    world.queue_is_empty()
    assert world.senders.for_recipient("never@sender.test") == []


def test_what_requires_tls_gets_it_all_the_way(world: World) -> None:
    send(world, "secret", ["REQUIRETLS"])
    message = arrived(world, "secret")
    assert message.encrypted
    assert "REQUIRETLS" in message.parameters


def test_what_requires_tls_and_can_not_have_it_comes_back_over_tls(world: World) -> None:
    """RFC 8689 §4.2.1 and §5."""
    send(world, "unproven", ["REQUIRETLS", "RET=FULL"], body="Nobody may read this.\r\n")
    report = world.report_to("unproven@sender.test")
    assert report.encrypted
    assert "REQUIRETLS" in report.parameters
    assert read_report(report.content).of_recipients[0]["Status"] == "5.7.10"
    assert b"Nobody may read this." not in report.content
    assert world.main.for_recipient("unproven.box@other.test") == []


def test_a_new_certificate_is_shown_after_a_reload_and_a_wrong_one_is_not_taken(
    world: World, files: tuple[Path, Path]
) -> None:
    certificate, key = files
    before = shown(world)

    def reload(expected: str) -> None:
        heard = len(world.appliance.said())
        os.kill(world.appliance.pid, signal.SIGHUP)
        eventually(lambda: expected in world.appliance.said()[heard:], 30, expected)

    certificate.write_bytes(certificate_for("other.test").certificate.read_bytes())
    reload("the one before stays in force")
    assert "is not that of the certificate" in world.appliance.said()
    assert shown(world) == before
    send(world, "again")
    key.write_bytes(certificate_for("other.test").key.read_bytes())
    reload("the configuration was read again and is in force")
    assert shown(world) == ssl.PEM_cert_to_DER_cert(certificate.read_text())
    assert shown(world) != before


def test_behind_a_proxy_the_client_is_whom_it_names(tmp_path: Path) -> None:
    """The header of the PROXY protocol, from an address that the configuration trusts."""
    settings: Settings = {"smtp": {"trusted_proxies": ["127.0.0.0/8"]}}
    with World(tmp_path, {"plain@forward.test": ["plain.box@dest.test"]}, settings) as world:
        with world.appliance.client(helo=None) as client:
            client.send(b"PROXY TCP4 192.0.2.77 127.0.0.1 4711 25\r\n")
            assert client.reply().code == 220
            client.command("EHLO client.example.net")
            assert client.message("ann@sender.test", ["plain@forward.test"], letter("plain@forward.test")).code == 250
        message = arrived(world, "plain")
        assert message.content.startswith(b"Received: from client.example.net ([192.0.2.77])")


def test_a_certificate_that_can_not_be_used_stops_the_start_with_what_to_do(tmp_path: Path) -> None:
    missing = {"certificate": str(tmp_path / "mx.pem"), "key": str(tmp_path / "mx.key")}
    with DnsServer({}) as dns:
        appliance = Appliance(tmp_path, nameserver=dns.nameserver, delivery_port=25, settings={"tls": missing})
        process = appliance.spawn("run")
        try:
            assert process.wait(timeout=30) == 1
        finally:
            process.kill()
            process.wait()
        assert f"tls.certificate: {tmp_path / 'mx.pem'} can't be read: No such file or directory" in appliance.said()
        assert "ready" not in appliance.said().splitlines()
