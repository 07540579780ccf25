"""`onward check`: each fault is found, says what to do, and counts where mail would not flow."""

import importlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from certificates import authority_file, certificate_for, server_tls
from command_line_desk import OWNER, Desk
from relay import Relay

from appliance.configuration import ENGINE_SOCKET
from appliance.run.own_certificate import self_signed

check = importlib.import_module("appliance.command_line.check")


@pytest.fixture(autouse=True)
def authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the tests, whatever the machine has."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority_file()))


@pytest.fixture
def ports(desk: Desk) -> Desk:
    """A desk whose appliance would listen wherever the kernel likes."""
    desk.configure('[smtp]\nlisten = ["127.0.0.1:0"]\n[http]\nlisten = ["127.0.0.1:0"]')
    return desk


def findings(desk: Desk, status: int = 0) -> dict[str, dict[str, object]]:
    """What it finds, by the name of the check."""
    result = desk.type("check", "--json")
    assert result.exit_code == status, result.output
    found = [json.loads(line) for line in result.stdout.splitlines()]
    return {each["check"]: each for each in found}


def test_a_new_appliance_could_run_and_lacks_an_operator(ports: Desk) -> None:
    found = findings(ports)
    assert {check for check, each in found.items() if not each["ok"]} == {"postmaster"}
    assert "--operator" in str(found["postmaster"]["advice"])
    assert not ports.data_dir.exists()


def test_a_settled_appliance_has_no_fault(ports: Desk) -> None:
    ports.settle()
    found = findings(ports)
    assert all(each["ok"] for each in found.values())
    assert OWNER in str(found["postmaster"]["detail"])
    people = ports.done("check").stdout
    assert len(people.splitlines()) == len(found)
    assert all(line.startswith("ok ") for line in people.splitlines())


def test_postmaster_of_the_configuration_needs_no_operator(desk: Desk) -> None:
    desk.configure('[smtp]\nlisten = ["127.0.0.1:0"]\n[http]\nlisten = []\n[mail]\npostmaster = "post@home.test"')
    assert "post@home.test" in str(findings(desk)["postmaster"]["detail"])


def test_letters_by_way_of_postmark_need_its_token(desk: Desk) -> None:
    desk.configure('[smtp]\nlisten = ["127.0.0.1:0"]\n[http]\nlisten = []\n[mail]\nprovider = "postmark"')
    found = findings(desk, status=1)["own mail"]
    assert found["grade"] == "fault"
    token = desk.data_dir / "secrets" / "postmark-token"
    assert str(token) in str(found["detail"])
    token.parent.mkdir(mode=0o700, parents=True)
    token.parent.parent.chmod(0o700)
    token.touch(mode=0o600)
    token.write_text("a-token\n")
    found = findings(desk)["own mail"]
    assert found["ok"]
    assert "a-token" not in str(found)


def test_a_port_in_use_is_a_fault(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        where = f"127.0.0.1:{somebody.getsockname()[1]}"
        desk.configure(f'[smtp]\nlisten = ["{where}"]\n[http]\nlisten = ["127.0.0.1:0"]')
        found = findings(desk, status=1)
        assert found["SMTP ports"]["grade"] == "fault"
        assert where in str(found["SMTP ports"]["detail"])
        assert found["HTTP ports"]["ok"]
        assert "Mail would not flow: 1 fault." in desk.type("check").stderr


@contextmanager
def running(desk: Desk, answer: bytes | None) -> Iterator[None]:
    """An appliance that listens on the desk's SMTP port, and says this when it is asked how it is; None: nothing."""
    with socket.create_server(("127.0.0.1", 0)) as ours, socket.socket(socket.AF_UNIX) as control:
        desk.configure(f'[smtp]\nlisten = ["127.0.0.1:{ours.getsockname()[1]}"]\n[http]\nlisten = []')
        desk.data_dir.mkdir(mode=0o700)
        control.bind(str(desk.data_dir / ENGINE_SOCKET))
        control.listen()

        def tell() -> None:
            with suppress(OSError):
                while True:
                    asking, _ = control.accept()
                    with asking:
                        assert json.loads(asking.recv(1000)) == {"verb": "status"}
                        asking.sendall(answer or b"")

        answering = threading.Thread(target=tell)
        if answer is not None:
            answering.start()
        try:
            yield
        finally:
            control.shutdown(socket.SHUT_RDWR)
            if answer is not None:
                answering.join(10)


def test_a_port_in_use_by_the_running_appliance_is_none(desk: Desk) -> None:
    with running(desk, b'{"result": {"healthy": true}}\n'):
        found = findings(desk)
    assert "running appliance" in str(found["SMTP ports"]["detail"])
    assert found["appliance"]["detail"] == "running"


def test_a_running_appliance_that_takes_no_mail_is_a_fault(desk: Desk) -> None:
    with running(desk, b'{"result": {"healthy": false, "trouble": "the disk is full"}}\n'):
        found = findings(desk, status=1)["appliance"]
    assert found["grade"] == "fault"
    assert "the disk is full" in str(found["detail"])


def test_a_running_appliance_that_does_not_answer_is_a_fault(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "STATUS_S", 0.05)
    with running(desk, None):
        found = findings(desk, status=1)
    assert found["appliance"]["grade"] == "fault"
    assert "did not answer" in str(found["appliance"]["detail"])
    # It does hold its ports.
    assert found["SMTP ports"]["ok"]


def test_a_data_directory_open_to_others_is_a_warning(ports: Desk) -> None:
    ports.settle()
    ports.data_dir.chmod(0o755)
    found = findings(ports)["data directory"]
    assert (found["grade"], found["advice"]) == ("warning", f"chmod 700 {ports.data_dir}")


def test_a_file_in_the_place_of_the_data_directory_is_a_fault(ports: Desk) -> None:
    ports.data_dir.write_text("in the way")
    assert findings(ports, status=1)["data directory"]["grade"] == "fault"


def test_a_secret_that_others_can_read_is_a_fault(ports: Desk) -> None:
    ports.settle()
    (ports.data_dir / "secrets" / "log.key").chmod(0o640)
    found = findings(ports, status=1)["secrets"]
    assert found["grade"] == "fault"
    assert "chmod 600" in str(found["detail"])


def test_a_store_that_does_not_open_is_a_fault(ports: Desk) -> None:
    ports.settle()
    (ports.data_dir / "records.sqlite").write_bytes(b"this is no database, and it is longer than a header " * 40)
    for leftover in ports.data_dir.glob("records.sqlite-*"):
        leftover.unlink()
    assert findings(ports, status=1)["record store"]["grade"] == "fault"


@pytest.mark.parametrize("hostname", ["vm", "box.local", "mail.lan"])
def test_a_name_that_means_nothing_outside_is_a_warning(ports: Desk, hostname: str) -> None:
    ports.config.write_text(ports.config.read_text().replace("mx.onward.test", hostname))
    assert findings(ports)["hostname"]["grade"] == "warning"


def test_a_wrong_configuration_is_status_2(desk: Desk) -> None:
    desk.configure("[smtp]\nlisten = 25")
    result = desk.type("check")
    assert result.exit_code == 2
    assert "smtp.listen" in result.stderr


# ---------------------------------------------------------------------- the certificate


def configure_tls(desk: Desk, certificate: Path, key: Path) -> None:
    tls = f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"'
    desk.configure(f'[smtp]\nlisten = ["127.0.0.1:0"]\n[http]\nlisten = []\n{tls}')
    key.chmod(0o600)


def test_without_a_certificate_there_is_one_of_our_own(ports: Desk) -> None:
    found = findings(ports)["certificate"]
    assert (found["grade"], found["advice"]) == ("ok", None)
    assert "self-signed one for mx.onward.test will be made" in str(found["detail"])
    (ports.data_dir / "secrets").mkdir(parents=True, mode=0o700)
    ports.data_dir.chmod(0o700)
    (ports.data_dir / "secrets" / "tls.pem").write_bytes(self_signed("mx.onward.test", datetime.now(UTC)))
    (ports.data_dir / "secrets" / "tls.pem").chmod(0o600)
    assert "is there" in str(findings(ports)["certificate"]["detail"])


def test_a_certificate_that_is_soon_over_is_a_warning(desk: Desk) -> None:
    files = certificate_for("mx.onward.test")
    configure_tls(desk, files.certificate, files.key)
    found = findings(desk)["certificate"]
    assert found["grade"] == "warning"
    assert "expires on" in str(found["detail"])


@pytest.mark.parametrize(
    ("name", "expired", "detail", "advice"),
    [
        ("mx.onward.test", True, "it has expired, on", "reload"),
        ("other.test", False, "it is for other.test, not for mx.onward.test", "get one for mx.onward.test"),
    ],
)
def test_a_certificate_that_nobody_believes_is_a_warning(
    desk: Desk, name: str, expired: bool, detail: str, advice: str
) -> None:
    """Mail flows: most senders ask for no name (RFC 7435)."""
    files = certificate_for(name, expired=expired)
    configure_tls(desk, files.certificate, files.key)
    found = findings(desk)["certificate"]
    assert found["grade"] == "warning"
    assert detail in str(found["detail"])
    assert advice in str(found["advice"])


def test_a_certificate_without_its_key_is_a_fault(desk: Desk) -> None:
    certificate, key = certificate_for("mx.onward.test").certificate, certificate_for("other.test").key
    configure_tls(desk, certificate, key)
    found = findings(desk, status=1)["certificate"]
    assert found["grade"] == "fault"
    assert "is not that of the certificate" in str(found["detail"])


def test_a_certificate_that_is_not_there_is_a_fault(desk: Desk, tmp_path: Path) -> None:
    key = tmp_path / "mx.key"
    key.touch()
    configure_tls(desk, tmp_path / "nowhere.pem", key)
    found = findings(desk, status=1)["certificate"]
    assert "can't be read: No such file" in str(found["detail"])


def test_authorities_that_can_not_be_loaded_are_a_warning(
    ports: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mail flows: only what requires TLS needs them."""
    assert findings(ports)["authorities"]["grade"] == "ok"
    empty = tmp_path / "empty.pem"
    empty.touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(empty))
    found = findings(ports)["authorities"]
    assert (found["grade"], found["advice"]) == ("warning", "reinstall ca-certificates")
    assert str(empty) in str(found["detail"])


def test_a_certificate_that_lives_on_is_fine(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "mx.pem"
    file.write_bytes(self_signed("mx.onward.test", datetime.now(UTC)))
    configure_tls(desk, file, file)
    found = findings(desk)["certificate"]
    assert (found["grade"], found["advice"]) == ("ok", None)
    assert "is for mx.onward.test, until 20" in str(found["detail"])


# ---------------------------------------------------------------------- the way out


def test_a_source_address_that_is_not_ours_is_a_fault(ports: Desk) -> None:
    ports.configure('[delivery]\nsource_addresses = ["127.0.0.1", "192.0.2.1"]')
    found = findings(ports, status=1)["source addresses"]
    assert found["grade"] == "fault"
    assert str(found["detail"]).startswith("nothing can be sent from 192.0.2.1: ")
    ports.configure('[delivery]\nsource_addresses = ["127.0.0.1"]')
    assert findings(ports)["source addresses"]["detail"] == "mail can leave from 127.0.0.1"


def test_a_smarthost_that_believes_us_is_fine(desk: Desk) -> None:
    with Relay(server_tls("127.0.0.1"), user="onward", password="right") as relay:
        _smarthost(desk, f"smtp://onward@127.0.0.1:{relay.port}", "right\n")
        found = findings(desk)["smarthost"]
        assert found["ok"]
        assert str(found["detail"]).endswith(" verified")
    assert (relay.logins, relay.messages) == (1, [])


def test_a_smarthost_that_does_not_believe_us_is_a_fault(desk: Desk) -> None:
    with Relay(server_tls("127.0.0.1"), user="onward", password="right") as relay:
        _smarthost(desk, f"smtp://onward@127.0.0.1:{relay.port}", "wrong")
        found = findings(desk, status=1)["smarthost"]
    assert "5.7.8" in str(found["detail"])
    assert "smarthost-password" in str(found["advice"])
    assert "wrong" not in str(found)


def test_a_smarthost_that_is_not_there_is_a_fault(desk: Desk) -> None:
    with Relay() as relay:
        pass
    _smarthost(desk, f"smtp://127.0.0.1:{relay.port}")
    assert "no connection to 127.0.0.1" in str(findings(desk, status=1)["smarthost"]["detail"])


def test_a_smarthost_without_its_password_is_a_fault_and_stops_the_start(desk: Desk) -> None:
    _smarthost(desk, "smtp://onward@127.0.0.1:9")
    found = findings(desk, status=1)["smarthost"]
    assert str(desk.data_dir / "secrets" / "smarthost-password") in str(found["detail"])
    started = desk.shell("run")
    assert started.returncode == 1
    assert "there is no password" in started.stderr


def test_a_password_that_others_can_read_is_a_fault(desk: Desk) -> None:
    _smarthost(desk, "smtp://onward@127.0.0.1:9", "right")
    (desk.data_dir / "secrets" / "smarthost-password").chmod(0o644)
    assert "chmod 600" in str(findings(desk, status=1)["smarthost"]["detail"])


def _smarthost(desk: Desk, url: str, password: str = "") -> None:
    desk.configure(
        f'[smtp]\nlisten = ["127.0.0.1:0"]\n[http]\nlisten = ["127.0.0.1:0"]\n[delivery]\nsmarthost = "{url}"'
    )
    if password:
        secrets = desk.data_dir / "secrets"
        secrets.mkdir(mode=0o700, parents=True)
        desk.data_dir.chmod(0o700)
        (secrets / "smarthost-password").touch(mode=0o600)
        (secrets / "smarthost-password").write_text(password)
