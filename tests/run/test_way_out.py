"""What the configuration says about the way out: versions of IP, which addresses are ours, and the smarthost."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.configuration import Configuration, ListenAddress, load
from appliance.run import CannotStart
from appliance.run.hosts import connection_settings, host_settings, smarthost


def configured(tmp_path: Path, text: str) -> Configuration:
    file = tmp_path / "onward.toml"
    file.write_text(f'hostname = "mx.example.org"\ndata_dir = "{tmp_path}/var"\n{text}')
    return load(file)


@pytest.mark.parametrize(
    ("ip", "sources", "ipv4", "ipv6"),
    [
        ("both", [], True, True),
        ("4", [], True, False),
        ("6", [], False, True),
        ("both", ["192.0.2.1"], True, False),
        ("both", ["2001:db8::1"], False, True),
        ("both", ["192.0.2.1", "2001:db8::1"], True, True),
        ("4", ["192.0.2.1", "2001:db8::1"], True, False),
    ],
)
def test_a_version_of_ip_without_an_address_to_send_from_is_not_used(
    tmp_path: Path, ip: str, sources: list[str], ipv4: bool, ipv6: bool
) -> None:
    written = ", ".join(f'"{source}"' for source in sources)
    config = configured(tmp_path, f'[delivery]\nip = "{ip}"\nsource_addresses = [{written}]')
    settings = host_settings(config)
    assert (settings.ipv4, settings.ipv6) == (ipv4, ipv6)
    assert connection_settings(config).source_addresses == tuple(sources)


@pytest.mark.parametrize(
    ("listen", "port", "address", "ours"),
    [
        ("8.8.8.8:25", 25, "8.8.8.8", True),
        ("8.8.8.8:25", 25, "8.8.4.4", False),
        ("8.8.8.8:2525", 25, "8.8.8.8", False),
        ("0.0.0.0:25", 25, "8.8.8.8", False),
        # What a resolver says that blocks names is no reason to believe that it is us.
        ("0.0.0.0:25", 25, "127.0.0.1", False),
        ("127.0.0.1:25", 25, "127.0.0.1", False),
        ("fd", 25, "8.8.8.8", False),
    ],
)
def test_an_address_is_ours_where_we_listen_at_it_as_destinations_do(
    tmp_path: Path, listen: str, port: int, address: str, ours: bool
) -> None:
    config = configured(tmp_path, f'[smtp]\nlisten = ["{listen}"]\n[delivery]\nport = {port}')
    assert host_settings(config).is_ours(address) is ours


def test_who_listens_at_every_address_listens_at_those_of_the_machine(tmp_path: Path) -> None:
    config = configured(tmp_path, '[smtp]\nlisten = ["0.0.0.0:25"]\n[delivery]\nloopback_destinations = true')
    assert host_settings(config).is_ours("127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            # Nothing is sent: the kernel only says from where it would.
            asking.connect(("8.8.8.8", 9))
        except OSError:
            return  # A machine without a way out has no address to be known by.
        own = asking.getsockname()[0]
    assert host_settings(config).is_ours(own)
    elsewhere = replace(config.smtp, listen=(ListenAddress("0.0.0.0", 2525),))
    assert not host_settings(replace(config, smtp=elsewhere)).is_ours(own)


def test_without_a_user_a_smarthost_needs_no_password(tmp_path: Path) -> None:
    relay = smarthost(configured(tmp_path, 'delivery.smarthost = "smtp://relay.example"'))
    assert relay is not None
    assert (relay.host, relay.port, relay.login) == ("relay.example", 25, None)
    assert smarthost(configured(tmp_path, "")) is None


@pytest.mark.parametrize("written", [None, "", "\n", "p\0w", "x" * 20_000])
def test_a_password_that_is_none_stops_the_start_and_is_not_shown(tmp_path: Path, written: str | None) -> None:
    config = configured(tmp_path, 'delivery.smarthost = "smtp://me@relay.example"')
    secrets = tmp_path / "var" / "secrets"
    secrets.mkdir(mode=0o700, parents=True)
    if written is not None:
        (secrets / "smarthost-password").touch(mode=0o600)
        (secrets / "smarthost-password").write_text(written)
    with pytest.raises(CannotStart) as raised:
        smarthost(config)
    assert str(secrets / "smarthost-password") in str(raised.value)
    assert "xxx" not in str(raised.value)


def test_systemd_hands_a_password_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed_over = tmp_path / "credentials"
    handed_over.mkdir()
    (handed_over / "smarthost-password").touch(mode=0o600)
    (handed_over / "smarthost-password").write_text("right\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(handed_over))
    relay = smarthost(configured(tmp_path, 'delivery.smarthost = "smtps://me@relay.example"'))
    assert relay is not None
    assert relay.login is not None
    assert (relay.login.user, relay.login.password) == ("me", "right")
    assert (relay.port, relay.implicit_tls) == (465, True)
