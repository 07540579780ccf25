"""All mail through a relay, with a login under TLS: the whole appliance, from the secret's file to the log."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from appliance_process import Settings, eventually
from certificates import authority_file, server_tls
from relay import Relay
from world import World, letter

PASSWORD = "a pass phrase with spaces"


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay(server_tls("127.0.0.1"), user="onward@relay.test", password=PASSWORD) as running:
        yield running


def put_password(directory: Path, password: str) -> None:
    file = directory / "var/secrets/smarthost-password"
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(f"{password}\n")


def test_mail_waits_for_the_right_password_and_then_goes_through_the_relay(tmp_path: Path, relay: Relay) -> None:
    (tmp_path / "var").mkdir(mode=0o700)
    put_password(tmp_path, "a wrong one")
    settings: Settings = {
        "delivery": {
            "smarthost": f"smtp://onward@relay.test@127.0.0.1:{relay.port}",
            "retry": ["300ms"],
            "loopback_destinations": False,
        }
    }
    environment = {"SSL_CERT_FILE": str(authority_file())}
    town = {"sales@forward.test": ["ann@dest.test"]}
    with World(tmp_path, town, settings, environment=environment) as world:
        content = letter("sales@forward.test")
        assert world.send("sales@forward.test", content=content).code == 250
        eventually(lambda: "the secret smarthost-password" in world.appliance.said(), what="a word in the log")
        [waiting] = world.appliance.queue()
        assert "535" in waiting["lastResponse"]
        assert relay.messages == []

        put_password(tmp_path, PASSWORD)
        world.appliance.restart()
        eventually(lambda: relay.messages, what="mail at the relay")
        [message] = relay.messages
        assert message.recipients == ("ann@dest.test",)
        assert message.sender.endswith("@srs.mx.onward.test")
        assert message.content.endswith(content)
        assert (message.user, message.encrypted) == ("onward@relay.test", True)
        world.queue_is_empty()
        types = {event["type"]: event for event in world.appliance.log_events()}
        assert set(types) == {"RECEIVED", "SOFT_BOUNCED", "DELIVERED"}
        assert types["DELIVERED"]["tls"].endswith(" verified")
        assert types["DELIVERED"]["serverName"] == "127.0.0.1"
        assert types["SOFT_BOUNCED"]["reason"] == "login-refused"

        assert PASSWORD not in world.appliance.said()
        assert world.objections() == []
        assert not any(name.endswith("dest.test") for name, _ in world.dns.queries), "no mail host was looked for"
        assert world.main.connections == 0
