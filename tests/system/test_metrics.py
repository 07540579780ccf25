"""`/metrics` of a real appliance: the numbers move with its mail, and the dashboard and the page know each of them.

And the log of its HTTP, which one process writes and another sweeps.
"""

import json
import os
import re
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from appliance_process import eventually
from destination_scripts import Answer, Stage, always
from graphql_client import GraphqlClient
from prometheus_client.parser import text_string_to_metric_families
from world import World

from appliance.model.time import SECOND_MS, wall_clock
from appliance.run.stores import RECORDS_FILE

DOCS = Path(__file__).resolve().parents[2] / "docs"
NAMES = ("fine", "later", "never", "kept")
TOWN = {f"{name}@forward.test": [f"{name}.box@dest.test"] for name in NAMES}

Numbers = dict[str, float]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("metrics"), TOWN, {"log": {"http_retention": "4s"}}) as world:
        yield world
        assert world.objections() == []


def text(world: World) -> str:
    """What `/metrics` answers to a program of this machine."""
    with GraphqlClient(world.appliance.http_port) as client:
        reply = client.send("GET", "/metrics")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return reply.body.decode()


def numbers(world: World) -> Numbers:
    """Each number, as `name` or `name:label,label`; the labels in the order of their names."""
    return {
        ":".join(
            [sample.name, *([",".join(sample.labels[name] for name in sorted(sample.labels))] * bool(sample.labels))]
        ): (sample.value)
        for family in text_string_to_metric_families(text(world))
        for sample in family.samples
    }


def risen(world: World, before: Numbers, expected: Numbers) -> None:
    """Wait until each of these has risen by so much; no less, and no more."""

    def look() -> Numbers | None:
        now = numbers(world)
        found = {name: now.get(name, 0) - before.get(name, 0) for name in expected}
        return found if all(found[name] >= count for name, count in expected.items()) else None

    assert eventually(look, what=f"{expected}") == expected


def test_the_numbers_move_with_the_mail(world: World) -> None:
    world.mailbox_says(always(Stage.RCPT, Answer(450, "4.2.1 Later"), recipient="later.box@dest.test", times=1))
    world.mailbox_says(always(Stage.RCPT, Answer(550, "5.1.1 Unknown"), recipient="never.box@dest.test"))
    before = numbers(world)
    for name in ("fine", "later", "never"):
        assert world.send(f"{name}@forward.test").code == 250
    assert world.ask("nobody@forward.test").code == 550
    world.arrived("fine.box@dest.test")
    world.arrived("later.box@dest.test")
    world.queue_is_empty()
    risen(
        world,
        before,
        {
            "onward_smtp_sessions_accepted_total": 4,
            "onward_smtp_replies_total:2xx,220": 4,
            "onward_smtp_replies_total:3xx,354": 3,
            "onward_smtp_replies_total:5xx,550": 1,
            "onward_messages_accepted_total": 3,
            "onward_message_acceptance_seconds_count": 3,
            "onward_recipients_refused_total": 1,
            # The report to the sender is a delivery as well.
            "onward_delivery_attempts_total:delivered": 3,
            "onward_delivery_attempts_total:deferred": 1,
            "onward_delivery_attempts_total:failed": 1,
            "onward_deliveries_delivered_total": 3,
            "onward_deliveries_deferred_total": 1,
            "onward_deliveries_bounced_total": 1,
            "onward_delivery_delay_seconds_count": 3,
        },
    )
    now = numbers(world)
    assert now["onward_smtp_sessions_open"] == 0
    assert now["onward_spool_group_units_sum"] > before["onward_spool_group_units_sum"]
    assert now["onward_spool_group_units_count"] > before["onward_spool_group_units_count"]
    # The one that was deferred has waited for a second.
    waited_s = now["onward_delivery_delay_seconds_sum"] - before["onward_delivery_delay_seconds_sum"]
    assert 1 <= waited_s < 60


def test_what_is_given_up_by_the_operator_has_bounced(world: World) -> None:
    world.appliance.done("queue", "hold", "--destination", "dest.test")
    before = numbers(world)
    assert world.send("kept@forward.test").code == 250
    eventually(lambda: numbers(world)["onward_queue_deliveries:held"] == 1)
    assert numbers(world)["onward_queue_oldest_seconds"] > 0
    assert numbers(world)["onward_queue_older_deliveries:60"] == 0
    world.appliance.done("queue", "fail", "--recipient", "kept@forward.test")
    risen(world, before, {"onward_deliveries_bounced_total": 1, "onward_delivery_attempts_total:failed": 0})
    world.appliance.done("queue", "release", "--destination", "dest.test")
    world.queue_is_empty()
    assert numbers(world)["onward_queue_oldest_seconds"] == 0


def test_an_engine_that_stands_still_is_told_and_what_it_would_know_is_left_out(world: World) -> None:
    engine, _ = world.appliance.children()
    os.kill(engine, signal.SIGSTOP)
    try:
        now = numbers(world)
        assert now["onward_engine_up"] == 0
        assert now["onward_disk_free_bytes"] > 0
        assert "onward_messages_accepted_total" not in now
        assert "onward_queue_deliveries:waiting" not in now
    finally:
        os.kill(engine, signal.SIGCONT)
    eventually(lambda: numbers(world)["onward_engine_up"] == 1)


def test_numbers_are_about_nobody(world: World) -> None:
    assert world.send("fine@forward.test").code == 250
    shown = text(world)
    for word in ("@", ".test", "127.0.0", "box"):
        assert word not in shown


def test_standard_error_has_no_clients_address(world: World) -> None:
    with GraphqlClient(world.appliance.http_port) as client:
        client.send("GET", "/nothing", headers={"x-forwarded-for": "192.0.2.77"})
        client.send("POST", body=b"nonsense", headers={"x-forwarded-for": "192.0.2.77"})
    said = [line for line in world.appliance.said().splitlines() if "listens on" not in line]
    assert not [line for line in said if "127.0.0.1" in line or "192.0.2.77" in line]


# ------------------------------------------------------------------ the log of HTTP


def logged(world: World) -> set[int]:
    """When the requests were made that the log has, in milliseconds since the epoch."""
    with sqlite3.connect(world.appliance.data_dir / RECORDS_FILE) as connection:
        found = connection.execute("SELECT at FROM http_requests WHERE status = 404").fetchall()
    connection.close()
    return {at for (at,) in found}


def ask_for_nothing(world: World) -> None:
    """A request that gets 404."""
    with GraphqlClient(world.appliance.http_port) as client:
        assert client.send("GET", "/nothing").status == 404


def test_what_was_asked_last_is_in_the_log_when_the_process_has_ended(world: World) -> None:
    before = wall_clock()
    ask_for_nothing(world)
    assert world.appliance.stop() == 0
    assert len([at for at in logged(world) if at >= before]) == 1
    world.appliance.start()


def test_the_log_forgets_what_has_had_its_time(world: World) -> None:
    before = wall_clock()
    ask_for_nothing(world)
    (made,) = eventually(lambda: [at for at in logged(world) if at >= before], what="a line")
    eventually(lambda: made not in logged(world), within=20, what="the broom")
    assert wall_clock() - made >= 4 * SECOND_MS


# ------------------------------------------------------------------ the documents


def names(world: World) -> set[str]:
    """Every family that is shown, by the name that stands in a line of the answer but for the parts of a histogram."""
    shown = re.findall(r"^# TYPE (\S+) ", text(world), re.MULTILINE)
    assert len(shown) == len(set(shown))
    return set(shown)


def expressions(dashboard: Any) -> list[str]:
    """Every query of the dashboard."""
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def test_every_number_of_the_dashboard_is_shown(world: World) -> None:
    # What is told apart by labels is there once it has happened.
    world.appliance.queue()
    world.ask("fine@forward.test")
    shown = names(world)
    samples = {name.partition(":")[0] for name in numbers(world)}
    asked = expressions(json.loads((DOCS / "grafana.json").read_text(encoding="utf-8")))
    assert len(asked) >= 20
    found = {name for expression in asked for name in re.findall(r"\bonward_\w+", expression)}
    assert found <= samples, found - samples
    # Nothing that is measured is left out of it, but for which version this is.
    unseen = {name for name in shown if not any(each.startswith(name) for each in found)}
    assert unseen == {"onward_build_info"}


def test_the_page_explains_every_number_and_no_other(world: World) -> None:
    page = (DOCS / "METRICS.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(onward_\w+)", page, re.MULTILINE)) == names(world)
