"""The verbs that ask a running appliance, through the API on its socket, and the log that is read from the store."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from command_line_desk import Desk
from control_api.ids import global_id, taken_apart
from engine_stand_in import DELIVERY, HELD, HOLD, EngineStandIn, standing_in
from msgspec import structs
from served_api import served_api

from appliance.command_line.api_ids import api_id, own_id
from appliance.configuration import load
from appliance.model.event import DeliveryEvent, EventType
from appliance.model.ids import id_source
from appliance.model.time import HOUR_MS, wall_clock
from appliance.privacy.declarations import EVENTS
from appliance.run.stores import open_records
from appliance.storage.event_rows import event_to_row
from appliance.storage.records import Insert

WAIT_S = 30


@contextmanager
def running(desk: Desk, deliveries: list[dict[str, Any]]) -> Iterator[EngineStandIn]:
    """An appliance on this desk: the real API, and a stand-in for the engine."""
    config = load(desk.config)
    desk.data_dir.mkdir(mode=0o700, exist_ok=True)
    with standing_in(config, deliveries) as engine, served_api(config):
        yield engine


def test_the_queue_as_json(desk: Desk) -> None:
    with running(desk, [DELIVERY, {**DELIVERY, "id": "d2", "state": "UNDER_WAY", "nextAttemptAt": None}]):
        first, second = desk.rows("queue", "list")
    assert (first["state"], second["state"]) == ("WAITING", "UNDER_WAY")
    assert first["acceptedAt"] == "2026-11-20T12:00:00.000Z"
    assert first["nextAttemptAt"] == "2026-11-20T12:00:01.000Z"
    assert first["expiresAt"] == "2026-11-20T13:00:00.000Z"
    assert second["nextAttemptAt"] is None
    assert (first["sender"], first["destinationDomain"], first["attempts"]) == ("", "home.test", 2)


def test_the_queue_for_people_cannot_write_to_their_terminal(desk: Desk) -> None:
    with running(desk, [DELIVERY, HELD]):
        heading, waits, why, held, held_for = desk.done("queue", "list").stdout.splitlines()
    assert heading.startswith("ID ")
    assert waits.split() == ["d1", "waiting", "2", "2026-11-20", "12:00:01Z", "<>", "info@example.org"]
    assert why == r"    to home.test: its mailbox said 450 4.2.1 \x1b[31mlater\r\n"
    assert held.split() == ["d3", "held", "2", "-", "<>", "info@example.org"]
    assert held_for == "    to home.test: held by the operator"


def test_a_line_of_the_queue_fits_into_a_terminal(desk: Desk) -> None:
    usual = {**DELIVERY, "id": "0" * 20, "sender": "somebody.else@sender.test", "recipient": "sales@shop.example.org"}
    with running(desk, [{**usual, "state": "UNDER_WAY"}, usual]):
        lines = desk.done("queue", "list").stdout.splitlines()
    assert max(map(len, lines)) <= 120


def test_the_queue_can_be_narrowed_to_a_state(desk: Desk) -> None:
    with running(desk, [HELD]) as engine:
        assert [row["why"] for row in desk.rows("queue", "list", "--state", "held")] == ["held by the operator"]
        desk.done("queue", "list", "--state", "UNDER_WAY", "--domain", "example.org")
        assert desk.type("queue", "list", "--state", "lost").exit_code == 2
    by_state, by_domain = engine.asked
    assert (by_state["state"], by_domain["state"], by_domain["domain"]) == ("HELD", "UNDER_WAY", "example.org")


def test_holds_are_listed_and_the_queue_reminds_of_them(desk: Desk) -> None:
    with running(desk, []) as engine:
        assert desk.done("queue", "holds").stderr == "No hold is in force.\n"
        engine.holds.append(HOLD)
        (row,) = desk.rows("queue", "holds")
        heading, line = desk.done("queue", "holds").stdout.splitlines()
        assert "1 hold in force" in desk.done("queue", "list").stderr
    assert row == {**HOLD, "createdAt": "2026-11-20T12:00:00.000Z"}
    assert heading.split() == ["ID", "DOMAIN", "DESTINATION", "SENDER", "SINCE"]
    assert line.split() == ["h1", "-", "home.test", "<>", "2026-11-20", "12:00:00Z"]


def test_holding_and_releasing_say_what_becomes_of_later_mail(desk: Desk) -> None:
    with running(desk, [DELIVERY]) as engine:
        once = desk.done("queue", "hold", "--recipient", "info@example.org").stderr
        assert once == "Holding 1 delivery.\n"
        engine.holds.append(HOLD)
        standing = desk.done("queue", "hold", "--destination", "home.test").stderr
        assert "Holding 1 delivery" in standing
        assert "What arrives later is held, too" in standing
        told = json.loads(desk.done("queue", "hold", "--destination", "home.test", "--json").stdout)
        assert told == {"affected": 1, "hold": {**HOLD, "createdAt": "2026-11-20T12:00:00.000Z"}}
        assert "Released 1 delivery and lifted 1 hold." in desk.done("queue", "release", "--all").stderr
        released = json.loads(desk.done("queue", "release", "--all", "--json").stdout)
        assert released == {"affected": 1, "lifted": 1}


def test_an_empty_queue_says_so(desk: Desk) -> None:
    with running(desk, []):
        assert desk.done("queue", "list").stderr == "The queue is empty.\n"
        assert desk.done("queue", "list", "--domain", "x.test").stderr == "Nothing in the queue matches.\n"
        assert desk.done("queue", "list", "--json").output == ""


@pytest.mark.parametrize("verb", ["retry", "hold", "release", "fail", "drop"])
def test_changing_the_queue(desk: Desk, verb: str) -> None:
    with running(desk, [DELIVERY, DELIVERY]) as engine:
        assert "2 deliveries" in desk.done("queue", verb, "--all").stderr
        assert json.loads(desk.done("queue", verb, "--all", "--json").stdout)["affected"] == 2
        desk.done(
            "queue", verb, "--domain", "d", "--destination", "e", "--sender", "<>", "--recipient", "r", "--id", "i"
        )
        desk.done("queue", verb, "--id", api_id("Delivery", "i"))
    everything, _, filtered, by_api_id = engine.asked
    assert everything == {"all": True}
    assert filtered == {"domain": "d", "destination": "e", "sender": "", "recipient": "r", "id": "i"}
    assert by_api_id == {"id": "i"}


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["retry"], 2, "at least one filter"),
        (["drop"], 2, "at least one filter"),
        (["drop", "--all", "--id", "d1"], 2, "contradict"),
        (["drop", "--id", "gone"], 1, "No delivery with the id gone"),
        (["drop", "--sender", "refuse@me.test"], 1, "Try again later"),
        (["drop", "--domain", "no domain"], 1, "'no domain' is not a domain"),
        (["hold", "--destination", "no domain"], 1, "'no domain' is not a domain"),
        (["release", "--id", "d1"], 1, "No delivery with the id d1 is held"),
        (["drop", "--domain", "x.test"], 0, "No waiting or held delivery matches"),
        (["retry", "--domain", "x.test"], 0, "No waiting delivery matches"),
        (["release", "--domain", "x.test"], 0, "No held delivery and no hold matches"),
    ],
)
def test_changes_that_change_nothing(desk: Desk, arguments: list[str], status: int, says: str) -> None:
    with running(desk, []):
        result = desk.type("queue", *arguments)
    assert result.exit_code == status
    assert says in result.stderr


def event(number: int, domain_id: str, recipient: str = "info@example.org", age_ms: int = 0) -> DeliveryEvent:
    """The event of this number."""
    return DeliveryEvent(
        id=f"e{number:04}",
        message_id="m1",
        domain_id=domain_id,
        at=wall_clock() - age_ms,
        type=EventType.SOFT_BOUNCED,
        sender="sender@elsewhere.test",
        recipient=recipient,
        size=99,
        code=450,
        enhanced_code="4.2.1",
        reason="mailbox-busy",
        response="later \x1b]0;owned\x07",
        attempt=1,
        duration_ms=12,
        subject="Grüße",
        server_name="mx.home.test",
    )


def record(desk: Desk, events: list[DeliveryEvent]) -> None:
    """Put events into the log."""
    records = open_records(load(desk.config))
    records.apply([Insert(EVENTS, event_to_row(each)) for each in events])
    records.close()


def domain_id(desk: Desk) -> str:
    """The id of the settled domain."""
    return str(desk.rows("domain", "list")[0]["id"])


def test_the_log_as_json(desk: Desk) -> None:
    desk.settle()
    stored = event(1, domain_id(desk))
    record(desk, [stored])
    (row,) = desk.rows("log")
    assert row["message"] == {
        "id": "m1",
        "clientAddress": None,
        "clientName": None,
        "subject": "Grüße",
        "sender": "sender@elsewhere.test",
        "recipient": "info@example.org",
        "sizeBytes": 99,
    }
    assert (row["id"], row["type"], row["code"], row["enhancedCode"]) == ("e0001", "SOFT_BOUNCED", 450, "4.2.1")
    assert (row["reason"], row["attempt"], row["durationMs"]) == ("mailbox-busy", 1, 12)
    assert (row["serverName"], row["serverAddress"], row["response"]) == ("mx.home.test", None, stored.response)


def test_the_log_for_people_is_a_line_an_event_and_cannot_write_to_their_terminal(desk: Desk) -> None:
    desk.settle()
    record(desk, [event(1, domain_id(desk)), event(2, domain_id(desk))])
    first, _ = desk.done("log").stdout.splitlines()
    assert "SOFT_BOUNCED" in first
    assert "sender@elsewhere.test → info@example.org  [mailbox-busy] 450 4.2.1 later" in first
    assert "\x1b" not in first


def test_the_log_can_be_narrowed(desk: Desk) -> None:
    desk.settle()
    ours = domain_id(desk)
    record(
        desk,
        [
            event(1, ours, age_ms=2 * HOUR_MS),
            event(2, ours, "other@example.org"),
            event(3, "another-domain"),
            event(4, ours),
        ],
    )

    def ids(*filters: str) -> list[str]:
        return [row["id"] for row in desk.rows("log", *filters)]

    assert ids() == ["e0001", "e0002", "e0003", "e0004"]
    assert ids("--domain", "Example.org") == ["e0001", "e0002", "e0004"]
    assert ids("--recipient", "INFO@example.org") == ["e0001", "e0003", "e0004"]
    assert ids("--since", "1h") == ["e0002", "e0003", "e0004"]
    assert ids("--since", "2999-01-01T00:00:00Z") == []
    assert ids("--domain", "example.org", "--recipient", "info@example.org", "--since", "1h") == ["e0004"]


def test_a_long_log_is_read_to_its_end(desk: Desk) -> None:
    desk.settle()
    record(desk, [event(number, "a-domain") for number in range(2100)])
    assert [row["id"] for row in desk.rows("log")] == [f"e{number:04}" for number in range(2100)]


class Follower:
    """`onward log --follow` as a process of its own, as people run it. Use it in a `with`."""

    def __init__(self, desk: Desk, *arguments: str) -> None:
        command = [sys.executable, "-m", "appliance", "log", "--follow", *arguments, "--config", str(desk.config)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> "Follower":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate(timeout=WAIT_S)

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def event(self) -> Any:
        """The next line, of JSON."""
        return json.loads(self.line())

    def note(self) -> str:
        """The next thing that it tells the person."""
        assert self.process.stderr is not None
        return self.process.stderr.readline()


class Log:
    """Makes events of this moment, each with an id behind all others."""

    def __init__(self, desk: Desk) -> None:
        desk.settle()
        self.ours = domain_id(desk)
        self._new_id = id_source()

    def event(self, **changes: Any) -> DeliveryEvent:
        return structs.replace(event(1, self.ours), id=self._new_id(), at=wall_clock(), **changes)


@pytest.mark.parametrize(
    ("filters", "heard"),
    [
        ([], ["ours", "theirs", "another", "end"]),
        (["--domain", "Example.org"], ["ours", "another", "end"]),
        (["--recipient", "Other@example.org"], ["another", "end"]),
    ],
)
def test_following_the_log(desk: Desk, filters: list[str], heard: list[str]) -> None:
    log = Log(desk)
    end = {"recipient": "other@example.org", "reason": "end"}
    # From before it follows, which is told where that is wanted: so this test need not know when it begins.
    with running(desk, []) as engine, Follower(desk, "--json", "--since", "1h", *filters) as follower:
        engine.happens(
            log.event(reason="ours"),
            log.event(reason="theirs", domain_id="elsewhere"),
            log.event(reason="another", recipient="OTHER@example.org"),
            log.event(**end),
        )
        assert [follower.event()["reason"] for _ in heard] == heard


def test_following_begins_with_what_happens_from_then_on(desk: Desk) -> None:
    log = Log(desk)
    record(desk, [log.event(reason="before")])
    with running(desk, []) as engine, Follower(desk) as follower:
        while not engine.is_followed:
            assert follower.process.poll() is None
        engine.happens(log.event(reason="after", response="Grüße \x1b]0;owned\x07"))
        line = follower.line()
    assert "SOFT_BOUNCED" in line
    assert "sender@elsewhere.test → info@example.org  [after] 450 4.2.1 Grüße" in line
    assert "\x1b" not in line


def test_following_from_an_instant_on_loses_nothing_and_tells_nothing_twice(desk: Desk) -> None:
    log = Log(desk)
    long_ago = structs.replace(log.event(reason="long ago"), id="0" * 20, at=wall_clock() - 2 * HOUR_MS)
    record(desk, [long_ago, log.event(reason="in the log")])
    with running(desk, []) as engine:
        # On its way to the log, and to nobody's ears any more.
        engine.happens(log.event(reason="on its way"))
        with Follower(desk, "--since", "1h", "--json") as follower:
            told = [follower.event()["reason"] for _ in range(2)]
            engine.happens(log.event(reason="now"))
            told.append(follower.event()["reason"])
    assert told == ["in the log", "on its way", "now"]


def test_following_goes_on_when_the_appliance_is_back_and_nothing_was_missed(desk: Desk) -> None:
    log = Log(desk)
    config = load(desk.config)
    with standing_in(config, []) as engine, ExitStack() as api:
        api.enter_context(served_api(config))
        with Follower(desk, "--json", "--since", "1h") as follower:
            engine.happens(log.event(reason="1"))
            assert follower.event()["reason"] == "1"
            for number in (2, 4):
                api.close()
                assert "does not answer any more" in follower.note()
                engine.happens(log.event(reason=str(number)))
                api.enter_context(served_api(config))
                assert "is back" in follower.note()
                engine.happens(log.event(reason=str(number + 1)))
                assert [follower.event()["reason"] for _ in range(2)] == [str(number), str(number + 1)]


def test_what_is_shown_of_a_followed_event_is_what_the_log_shows_of_it(desk: Desk) -> None:
    log = Log(desk)
    with running(desk, []) as engine, Follower(desk, "--json", "--since", "1h") as follower:
        engine.happens(log.event(type=EventType.RECEIVED, client_address="192.0.2.7", client_name="mx.elsewhere.test"))
        followed = follower.event()
    assert followed == desk.rows("log")[0]


def test_ctrl_c_ends_following_without_a_word(desk: Desk) -> None:
    log = Log(desk)
    with running(desk, []) as engine, Follower(desk, "--since", "1h") as follower:
        engine.happens(log.event())
        assert "SOFT_BOUNCED" in follower.line()
        follower.process.send_signal(signal.SIGINT)
        out, err = follower.process.communicate(timeout=WAIT_S)
    assert (follower.process.returncode, out, err) == (130, "", "")


@pytest.mark.parametrize("command", [["queue", "list"], ["queue", "drop", "--all"], ["log", "--follow"]])
def test_where_only_the_engine_answers_that_is_said(desk: Desk, command: list[str]) -> None:
    desk.settle()
    with standing_in(load(desk.config), []):
        result = desk.type(*command)
    assert result.exit_code == 1
    assert "mail flows" in result.stderr
    assert "control process" in result.stderr
    assert "onward run" not in result.stderr


def test_ids_are_those_of_the_api() -> None:
    for kind, id in (("Delivery", "0" * 20), ("DeliveryEvent", "1a1ff53a2c014c4994ab"), ("Hold", "h")):
        assert api_id(kind, id) == global_id(kind, id)
        assert taken_apart(api_id(kind, id)) == (kind, id)
        assert own_id(api_id(kind, id)) == id
    assert own_id("not one") == "not one"
