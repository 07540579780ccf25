"""What the log remembers: the five events with their data points, as far as a domain allows, and not for ever."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from appliance_process import Settings, eventually
from destination_scripts import Answer, Stage, always
from world import World, letter

LEVELS = ("events", "errors", "none")
TOWN = {f"{name}@{level}.test": [f"{name}.{level}@dest.test"] for level in LEVELS for name in ("ok", "later", "never")}
OPTIONS = {f"{level}.test": ("--log", level) for level in LEVELS}


def make_every_event(world: World, level: str) -> None:
    """One message for each way that a message can go, at a domain of this level."""
    later, never = f"later.{level}@dest.test", f"never.{level}@dest.test"
    world.mailbox_says(always(Stage.RCPT, Answer(450, f"4.2.1 <{later}> is busy"), recipient=later, times=1))
    world.mailbox_says(always(Stage.RCPT, Answer(550, f"5.1.1 <{never}> is unknown"), recipient=never))
    for name in ("ok", "later", "never"):
        alias = f"{name}@{level}.test"
        assert world.send(alias, f"{name}@sender.test", letter(alias, f"Subject of {name}")).code == 250
    assert world.ask(f"nobody@{level}.test", "refused@sender.test").code == 550
    world.arrived(f"ok.{level}@dest.test")
    world.arrived(later)
    world.queue_is_empty()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings: Settings = {"delivery": {"retry": ["500ms"]}}
    with World(tmp_path_factory.mktemp("log"), TOWN, settings, OPTIONS) as world:
        # A client's name is looked up beside its session, which does not wait: it is there for who comes again.
        world.ask("ok@events.test")
        eventually(lambda: world.dns.queries["client.example.net", "A"])
        for level in LEVELS:
            make_every_event(world, level)
        yield world
        assert world.objections() == []


def events(world: World, level: str, count: int) -> dict[tuple[str, str], dict[str, Any]]:
    """The events of a domain by recipient's name and type, once there are so many."""

    def look() -> list[dict[str, Any]] | None:
        found = world.appliance.log_events("--domain", f"{level}.test")
        return found if len(found) >= count else None

    found = eventually(look, what=f"{count} events")
    assert len(found) == count
    return {(event["message"]["recipient"].partition("@")[0], event["type"]): event for event in found}


def test_level_events_keeps_every_event(world: World) -> None:
    found = events(world, "events", 8)
    assert set(found) == {
        ("ok", "RECEIVED"),
        ("ok", "DELIVERED"),
        ("later", "RECEIVED"),
        ("later", "SOFT_BOUNCED"),
        ("later", "DELIVERED"),
        ("never", "RECEIVED"),
        ("never", "HARD_BOUNCED"),
        ("nobody", "REFUSED"),
    }
    assert len({event["message"]["id"] for (name, _), event in found.items() if name == "later"}) == 1


def test_data_points(world: World) -> None:
    found = events(world, "events", 8)
    received = found["never", "RECEIVED"]
    message = received["message"]
    assert message["sender"] == "never@sender.test"
    assert message["recipient"] == "never@events.test"
    assert message["subject"] == "Subject of never"
    assert message["clientAddress"] == "127.0.0.1"
    assert message["clientName"] == "client.example.net"
    assert message["sizeBytes"] == len(letter("never@events.test", "Subject of never"))
    assert received["code"] == 250
    delivered = found["ok", "DELIVERED"]
    assert (delivered["code"], delivered["enhancedCode"], delivered["attempt"]) == (250, "2.0.0", 1)
    assert delivered["serverName"] == "mx1.dest.test"
    assert delivered["serverAddress"] == "127.0.0.2"
    assert delivered["response"].endswith("Taken")
    assert 0 <= delivered["durationMs"] < 10_000
    soft = found["later", "SOFT_BOUNCED"]
    assert (soft["code"], soft["enhancedCode"], soft["attempt"]) == (450, "4.2.1", 1)
    hard = found["never", "HARD_BOUNCED"]
    assert (hard["code"], hard["enhancedCode"]) == (550, "5.1.1")
    refused = found["nobody", "REFUSED"]
    assert (refused["code"], refused["enhancedCode"], refused["reason"]) == (550, "5.1.1", "alias-unknown")
    assert refused["message"]["sender"] == "refused@sender.test"


def test_no_event_names_a_destination(world: World) -> None:
    for level, count in (("events", 8), ("errors", 3)):
        for event in events(world, level, count).values():
            assert "@dest.test" not in str(event)


def test_level_errors_keeps_errors_without_client_and_subject(world: World) -> None:
    found = events(world, "errors", 3)
    assert set(found) == {("later", "SOFT_BOUNCED"), ("never", "HARD_BOUNCED"), ("nobody", "REFUSED")}
    for event in found.values():
        for point in ("clientAddress", "clientName", "subject"):
            assert event["message"][point] is None
    assert found["never", "HARD_BOUNCED"]["message"]["sender"] == "never@sender.test"


def test_level_none_keeps_nothing(world: World) -> None:
    events(world, "events", 8)
    assert world.appliance.log_events("--domain", "none.test") == []


def test_filters(world: World) -> None:
    events(world, "events", 8)
    by_recipient = world.appliance.log_events("--recipient", "later@events.test")
    assert [event["type"] for event in by_recipient] == ["RECEIVED", "SOFT_BOUNCED", "DELIVERED"]
    assert world.appliance.log_events("--recipient", "nowhere@events.test") == []
    assert len(world.appliance.log_events("--since", "1h")) == 11
    assert world.appliance.log_events("--since", "2100-01-01T00:00:00Z") == []


def test_nothing_of_the_log_stands_on_the_disk_in_clear(world: World) -> None:
    events(world, "events", 8)
    stored = b"".join(path.read_bytes() for path in world.appliance.data_dir.rglob("*") if path.is_file())
    for secret in (b"ok@sender.test", b"refused@sender.test", b"Subject of", b"client.example.net", b"ok@events.test"):
        assert secret not in stored


def test_events_are_erased_at_the_end_of_their_retention(tmp_path: Path) -> None:
    settings: Settings = {
        "delivery": {"retry": ["300ms"]},
        "log": {"delivery_retention": "2s", "error_retention": "6s"},
    }
    with World(tmp_path / "kept", TOWN, settings, OPTIONS) as world:
        make_every_event(world, "events")
        kept = {"SOFT_BOUNCED", "HARD_BOUNCED", "REFUSED"}

        def types() -> set[str]:
            return {event["type"] for event in world.appliance.log_events()}

        eventually(lambda: types() == kept, what="only errors are left")
        eventually(lambda: not types(), what="nothing is left", within=15)
