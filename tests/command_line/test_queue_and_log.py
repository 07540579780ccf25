"""The verbs that ask a running appliance, over a real control socket, and the log that is read from the store."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from command_line_desk import Desk

from appliance.configuration import CONTROL_SOCKET, load
from appliance.model.event import DeliveryEvent, EventType
from appliance.model.time import HOUR_MS, wall_clock
from appliance.privacy.declarations import EVENTS
from appliance.run.stores import open_records
from appliance.storage.event_rows import event_to_row
from appliance.storage.records import Insert
from appliance.wire import Verb, WireError, serve

NOON = 1_795_176_000_000
DELIVERY = {
    "id": "d1",
    "messageId": "m1",
    "state": "WAITING",
    "sender": "",
    "recipient": "info@example.org",
    "target": "ada@home.test",
    "destinationDomain": "home.test",
    "sizeBytes": 1234,
    "priority": 0,
    "acceptedAt": NOON,
    "attempts": 2,
    "nextAttemptAt": NOON + 1000,
    "expiresAt": NOON + HOUR_MS,
    "lastResponse": "450 4.2.1 \x1b[31mlater\r\n",
    "why": "its mailbox said 450 4.2.1 \x1b[31mlater\r\n",
}
HELD = {**DELIVERY, "id": "d3", "state": "HELD", "nextAttemptAt": None, "why": "held by the operator"}
HOLD = {"id": "h1", "domain": None, "destinationDomain": "home.test", "sender": "", "createdAt": NOON}


class Engine:
    """Answers as the engine does, and remembers what it was asked."""

    def __init__(self, deliveries: list[dict[str, Any]], events: list[dict[str, Any]]) -> None:
        self.asked: list[dict[str, Any]] = []
        """The arguments of what was asked about deliveries."""
        self.holds: list[dict[str, Any]] = []
        self.silent = False
        self.stopping = False
        self.when_followed: Callable[[], None] = lambda: None
        """Happens between the following and the word of it."""
        self._deliveries = deliveries
        self._events = events

    async def list_deliveries(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """Every delivery, whatever the filter."""
        self.asked.append(dict(arguments))
        for delivery in self._deliveries:
            yield delivery

    async def list_holds(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """Every hold."""
        for hold in self.holds:
            yield hold

    async def change(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """As many as there are."""
        self.asked.append(dict(arguments))
        if arguments.get("sender") == "refuse@me.test":
            raise WireError("the store does not answer")
        yield {"affected": len(self._deliveries)}

    async def hold(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """As many as there are, and the last hold."""
        async for answer in self.change(arguments):
            yield {**answer, "hold": self.holds[-1] if self.holds else None}

    async def release(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """As many as there are, and every hold."""
        async for answer in self.change(arguments):
            yield {**answer, "lifted": len(self.holds)}

    async def events(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """What happens, and then the end of the stream, or silence."""
        if arguments.get("caughtUp"):
            self.when_followed()
            yield {"following": True}
        for event in self._events:
            yield event
        if self.silent:
            await trio.sleep_forever()
        if self.stopping:
            return
        raise WireError("you have fallen too far behind: read on from the log")

    @property
    def verbs(self) -> dict[str, Verb]:
        """By name."""
        return {
            "queue.list": self.list_deliveries,
            "queue.holds": self.list_holds,
            "queue.retry": self.change,
            "queue.hold": self.hold,
            "queue.release": self.release,
            "queue.fail": self.change,
            "queue.drop": self.change,
            "events": self.events,
        }


@contextmanager
def running(
    desk: Desk, deliveries: list[dict[str, Any]], events: list[dict[str, Any]] | None = None
) -> Iterator[Engine]:
    """An engine on the control socket of this desk, in a thread of its own."""
    engine = Engine(deliveries, events or [])
    listening, stop = threading.Event(), trio.Event()
    tokens: list[trio.lowlevel.TrioToken] = []

    async def run(path: Path) -> None:
        with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as listener:
            await listener.bind(os.fspath(path))
            listener.listen()
            tokens.append(trio.lowlevel.current_trio_token())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve, trio.SocketListener(listener), engine.verbs, print)
                listening.set()
                await stop.wait()
                nursery.cancel_scope.cancel()

    desk.data_dir.mkdir(mode=0o700, exist_ok=True)
    thread = threading.Thread(target=partial(trio.run, run, desk.data_dir / CONTROL_SOCKET), daemon=True)
    thread.start()
    assert listening.wait(10)
    try:
        yield engine
    finally:
        tokens[0].run_sync_soon(stop.set)
        thread.join(10)


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
    assert why == r"    to ada@home.test: its mailbox said 450 4.2.1 \x1b[31mlater\r\n"
    assert held.split() == ["d3", "held", "2", "-", "<>", "info@example.org"]
    assert held_for == "    to ada@home.test: held by the operator"


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
    assert engine.asked == [{"state": "HELD"}, {"state": "UNDER_WAY", "domain": "example.org"}]


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
    everything, _, filtered = engine.asked
    assert everything == {"all": True}
    assert filtered == {"domain": "d", "destination": "e", "sender": "", "recipient": "r", "id": "i"}


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["retry"], 2, "at least one filter"),
        (["drop"], 2, "at least one filter"),
        (["drop", "--all", "--id", "d1"], 2, "contradict"),
        (["drop", "--id", "gone"], 1, "No delivery with the id gone"),
        (["drop", "--sender", "refuse@me.test"], 1, "the store does not answer"),
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


def test_following_the_log(desk: Desk) -> None:
    desk.settle()
    ours = domain_id(desk)
    told = [event(1, ours), event(2, "another-domain"), event(3, ours, "other@example.org")]
    with running(desk, [], [dict(event_to_row(each)) for each in told]):
        everything = desk.type("log", "--follow", "--json")
        ours_only = desk.type("log", "--follow", "--json", "--domain", "example.org")
        one_recipient = desk.type("log", "--follow", "--json", "--recipient", "Other@example.org")
    assert [json.loads(line)["id"] for line in everything.stdout.splitlines()] == ["e0001", "e0002", "e0003"]
    assert [json.loads(line)["id"] for line in ours_only.stdout.splitlines()] == ["e0001", "e0003"]
    assert [json.loads(line)["id"] for line in one_recipient.stdout.splitlines()] == ["e0003"]
    # The stream has ended in the engine's words, which is a failure for somebody who wanted to go on.
    assert everything.exit_code == 1
    assert "fallen too far behind" in everything.stderr


def test_following_from_an_instant_on_loses_nothing_and_tells_nothing_twice(desk: Desk) -> None:
    desk.settle()
    ours = domain_id(desk)
    early, moved, between, late = (event(number, ours) for number in (1, 2, 3, 4))
    record(desk, [early])
    with running(desk, [], [dict(event_to_row(each)) for each in (between, late)]) as engine:
        # One was durable before the stream began and reaches the log only now; one happens next, and both have it.
        engine.when_followed = lambda: record(desk, [moved, between])
        engine.stopping = True
        followed = desk.type("log", "--follow", "--since", "1h", "--json")
    assert [json.loads(line)["id"] for line in followed.stdout.splitlines()] == ["e0001", "e0002", "e0003", "e0004"]


def test_following_ends_with_the_appliance_and_says_so(desk: Desk) -> None:
    desk.settle()
    with running(desk, []) as engine:
        engine.stopping = True
        ended = desk.type("log", "--follow")
    assert ended.exit_code == 1
    assert "the appliance has stopped" in ended.stderr


def test_ctrl_c_ends_following_without_a_word(desk: Desk) -> None:
    desk.settle()
    with running(desk, [], [dict(event_to_row(event(1, domain_id(desk))))]) as engine:
        engine.silent = True
        with subprocess.Popen(
            [sys.executable, "-m", "appliance", "log", "--follow", "--config", str(desk.config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as following:
            assert following.stdout is not None
            assert b"SOFT_BOUNCED" in following.stdout.readline()
            following.send_signal(signal.SIGINT)
            out, err = following.communicate(timeout=30)
    assert (following.returncode, out, err) == (130, b"", b"")
