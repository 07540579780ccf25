"""An account's plan at the door: the real process, with a plan for small messages and few of them a day."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from appliance_process import eventually
from world import World, letter

MOST = 4096
"""Octets of a message."""
PLAN = {"max_message_size": "4 KiB", "max_messages_per_day": 2}
SMTP = {"max_message_size": "200 KiB"}

SMALL_BOX, LARGE_BOX = "small.box@dest.test", "large.box@dest.test"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A domain with that plan, and one of another account with a plan that allows as much as SMTP does."""
    town = {"info@small.test": [SMALL_BOX], "team@small.test": [SMALL_BOX]}
    with World(tmp_path, town, {"plans.free": PLAN, "smtp": SMTP}) as world:
        world.appliance.settle("account", "add", "other@people.test", "--plan", "premium")
        world.appliance.settle("domain", "add", "large.test", "--account", "other@people.test", "--verified")
        world.appliance.settle("alias", "add", "info@large.test", LARGE_BOX, "--confirmed")
        eventually(lambda: world.ask("info@large.test").code == 250, what="the other account's domain")
        yield world
        assert world.objections() == []


def refused(world: World) -> list[tuple[str, int, str]]:
    """What the log says was refused, but for addresses that there are not, or not yet."""
    events = [each for each in world.appliance.log_events() if each["type"] == "REFUSED" and each["code"] != 550]
    return [(each["message"]["recipient"], each["code"], each["reason"]) for each in events]


def test_a_message_has_the_size_that_the_plans_of_its_recipients_allow(world: World) -> None:
    content = letter("info@large.test", body="x" * 70 + "\r\n")
    larger = content + (b"y" * 70 + b"\r\n") * (MOST // 72)
    with world.appliance.client() as client:
        assert f"SIZE={200 << 10}" in {extension.replace(" ", "=") for extension in client.extensions}
        replies = client.envelope(
            "ann@sender.test", ["info@small.test", "info@large.test"], parameters=f"SIZE={len(larger)}"
        )
        assert [reply.code for reply in replies] == [250, 552, 250]
        assert replies[1].text.startswith("5.3.4 ")
        assert client.data(larger).code == 250
        # The same without a word about its size: then only the end can tell, and it tells all of them.
        reply = client.message("ann@sender.test", ["info@small.test", "info@large.test"], larger)
        assert (reply.code, reply.text[:6]) == (552, "5.3.4 ")
        assert client.message("ann@sender.test", ["info@small.test"], content).code == 250
        client.quit()
    world.arrived(LARGE_BOX)
    world.arrived(SMALL_BOX)
    world.queue_is_empty()
    assert [len(world.main.for_recipient(box)) for box in (SMALL_BOX, LARGE_BOX)] == [1, 1]
    assert refused(world) == [
        ("info@small.test", 552, "message-too-large"),
        ("info@small.test", 552, "message-too-large"),
        ("info@large.test", 552, "message-too-large"),
    ]


def test_an_account_gets_its_messages_of_a_day_and_no_restart_gives_it_more(world: World) -> None:
    assert world.send(["info@small.test", "team@small.test"]).code == 250
    world.appliance.restart()
    assert world.send("team@small.test").code == 250
    reply = world.ask("info@small.test")
    assert (reply.code, reply.text[:6]) == (452, "4.2.2 ")
    assert world.ask("info@large.test").code == 250
    assert refused(world) == [("info@small.test", 452, "plan-exhausted")]
    world.appliance.restart()
    assert world.ask("team@small.test").code == 452
    explained = world.appliance.done("explain", "info@small.test", "--json").json
    assert (explained["code"], explained["enhancedCode"], explained["reason"]) == (452, "4.2.2", "plan-exhausted")
    assert explained["steps"][-1]["check"] == "plan"
