"""The operator keeps mail back, lets it go, and gives it up, with the appliance running."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from appliance_process import Settings, eventually
from destination_scripts import Answer, Stage, always
from read_report import read_report
from world import World, letter

from appliance.configuration import ENGINE_SOCKET
from appliance.wire import call

NAMES = ["far", "owned", "sent", "one", "given-up", "lasting", "traffic", "many"]
TOWN = {f"{name}@forward.test": [f"{name}.box@dest.test"] for name in NAMES} | {
    "info@other.test": ["other.box@dest.test"]
}
LATER = Answer(450, "4.2.1 Later")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings: Settings = {"delivery": {"retry": ["1h"]}}
    with World(tmp_path_factory.mktemp("queue_holds"), TOWN, settings) as world:
        yield world
        assert world.objections() == []


def held(world: World, *filters: str) -> dict[str, Any]:
    """The one delivery that is held."""

    def look() -> list[dict[str, Any]] | None:
        found = world.appliance.queue("--state", "held", *filters)
        return found if len(found) == 1 else None

    return eventually(look, what=f"one held delivery of {filters}")[0]


def asked(world: World, verb: str) -> Any:
    """What the engine answers on its socket."""
    (answer,) = call(world.appliance.data_dir / ENGINE_SOCKET, verb)
    return answer


def test_what_arrives_for_a_held_destination_waits_until_it_is_released(world: World) -> None:
    appliance = world.appliance
    answered = appliance.done("queue", "hold", "--destination", "Dest.TEST", "--json").json
    assert answered["affected"] == 0
    assert (answered["hold"]["domain"], answered["hold"]["destinationDomain"]) == (None, "dest.test")
    assert appliance.done("queue", "holds", "--json").rows == [answered["hold"]]
    assert world.send("far@forward.test").code == 250
    delivery = held(world, "--destination", "dest.test")
    status = asked(world, "status")
    assert (status["queued"], status["held"], status["waiting"]) == (1, 1, 0)
    assert delivery["why"] == "held by the operator: all mail to dest.test"
    assert delivery["nextAttemptAt"] is None
    assert "held by the operator: all mail to dest.test" in appliance.done("queue", "list").out
    assert not world.main.for_recipient("far.box@dest.test")
    released = appliance.done("queue", "release", "--destination", "dest.test", "--json").json
    assert released == {"affected": 1, "lifted": 1}
    world.arrived("far.box@dest.test")
    world.queue_is_empty()
    assert appliance.done("queue", "holds", "--json").rows == []


def test_a_hold_by_sender_and_domain_lets_other_mail_through(world: World) -> None:
    appliance = world.appliance
    appliance.done("queue", "hold", "--sender", "Odd@sender.test", "--domain", "forward.test")
    assert world.send("owned@forward.test", "odd@sender.test").code == 250
    assert world.send("sent@forward.test", "even@sender.test").code == 250
    assert world.send("info@other.test", "odd@sender.test").code == 250
    world.arrived("sent.box@dest.test")
    world.arrived("other.box@dest.test")
    delivery = held(world)
    assert delivery["recipient"] == "owned@forward.test"
    assert delivery["why"] == "held by the operator: all mail for forward.test from odd@sender.test"
    assert appliance.done("queue", "release", "--recipient", "owned@forward.test", "--json").json == {
        "affected": 1,
        "lifted": 0,
    }
    world.arrived("owned.box@dest.test")
    assert len(appliance.done("queue", "holds", "--json").rows) == 1
    assert appliance.done("queue", "release", "--all", "--json").json == {"affected": 0, "lifted": 1}


def test_what_is_given_up_bounces_in_words_that_say_who_did_it(world: World) -> None:
    appliance = world.appliance
    world.mailbox_says(always(Stage.RCPT, LATER, recipient="given-up.box@dest.test", times=1))
    assert world.send("given-up@forward.test", "hopeful@sender.test").code == 250
    eventually(lambda: [each for each in appliance.queue() if each["attempts"] == 1])
    assert appliance.cli("queue", "fail").status == 2
    assert appliance.done("queue", "fail", "--recipient", "given-up@forward.test", "--json").json == {"affected": 1}
    report = read_report(world.report_to("hopeful@sender.test").content)
    assert report.of_recipients[0]["Status"] == "5.3.0"
    assert "The operator of this mail server has given the message up." in report.text
    assert "given-up.box" not in report.text
    world.queue_is_empty()
    (event,) = eventually(
        lambda: [
            each
            for each in appliance.log_events("--recipient", "given-up@forward.test")
            if each["type"] == "HARD_BOUNCED"
        ]
    )
    assert (event["reason"], event["code"], event["enhancedCode"]) == ("failed-by-operator", 0, "5.3.0")


def test_holds_and_what_is_held_survive_a_crash(world: World) -> None:
    appliance = world.appliance
    appliance.done("queue", "hold", "--domain", "forward.test")
    assert world.send("lasting@forward.test", "before@sender.test").code == 250
    first = held(world)
    appliance.kill()
    appliance.start()
    assert held(world)["id"] == first["id"]
    assert world.send("lasting@forward.test", "after@sender.test").code == 250
    eventually(lambda: len(appliance.queue("--state", "held")) == 2, what="both are held")
    assert not world.main.for_recipient("lasting.box@dest.test")
    assert appliance.done("queue", "release", "--domain", "forward.test", "--json").json == {
        "affected": 2,
        "lifted": 1,
    }
    world.arrived("lasting.box@dest.test", count=2)
    world.queue_is_empty()


def test_what_waits_can_be_held_by_itself_and_others_go_on(world: World) -> None:
    appliance = world.appliance
    world.mailbox_says(always(Stage.RCPT, LATER, recipient="one.box@dest.test", times=1))
    assert world.send("one@forward.test").code == 250
    (waits,) = eventually(lambda: [each for each in appliance.queue() if each["attempts"] == 1])
    assert "450 4.2.1 Later" in waits["why"]
    answered = appliance.done("queue", "hold", "--id", waits["id"], "--json").json
    assert answered == {"affected": 1, "hold": None}
    assert held(world)["why"] == "held by the operator"
    assert appliance.cli("queue", "retry", "--id", waits["id"]).status == 1
    assert world.send("many@forward.test").code == 250
    world.arrived("many.box@dest.test")
    assert "lifted 0 holds" in appliance.done("queue", "release", "--id", waits["id"]).err
    world.arrived("one.box@dest.test")
    world.queue_is_empty()


def test_holding_and_releasing_in_the_middle_of_traffic_loses_nothing_and_doubles_nothing(world: World) -> None:
    steer = partial(call, world.appliance.data_dir / ENGINE_SOCKET, destination="dest.test")
    count = 200
    with world.appliance.client() as client:
        for number in range(count):
            if number % 20 == 10:
                list(steer("queue.hold"))
            elif number % 20 == 0:
                list(steer("queue.release"))
            reply = client.message(f"{number}@sender.test", ["traffic@forward.test"], letter("traffic@forward.test"))
            assert reply.code == 250
        client.quit()
    list(steer("queue.release"))
    world.arrived("traffic.box@dest.test", count)
    world.queue_is_empty()
    assert len(world.main.for_recipient("traffic.box@dest.test")) == count


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("hold", "--domain", "not a domain"), "is not a domain"),
        (("release", "--id", "nothing"), "No delivery with the id nothing is held"),
        (("hold", "--all", "--domain", "forward.test"), "contradict"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(world: World, arguments: tuple[str, ...], says: str) -> None:
    refused = world.appliance.cli("queue", *arguments)
    assert refused.status != 0
    assert says in refused.err
    assert world.appliance.done("queue", "holds", "--json").rows == []
