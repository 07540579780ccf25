"""The appliance in the hands of its operator: changes while it runs, the queue, stopping, dying, coming back."""

import os
import signal
import subprocess
from collections.abc import Iterator

import process_tree
import pytest
from appliance_process import Settings, eventually
from destination_scripts import Answer, Stage, always
from smtp_client import Closed
from world import World, letter

NAMES = ["ok", "kept", "crash", "stall", "slow", "secret", "retry", "drop-a", "drop-b", "child", "second"]
TOWN = {f"{name}@forward.test": [f"{name}.box@dest.test"] for name in NAMES}
LATER = Answer(450, "4.2.1 Later")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings: Settings = {"delivery": {"retry": ["1h"]}}
    with World(tmp_path_factory.mktemp("operation"), TOWN, settings) as world:
        yield world
        assert world.objections() == []


def keep_waiting(world: World, name: str) -> str:
    """A message that has failed once and now waits for an hour. The id of its delivery."""
    world.mailbox_says(always(Stage.RCPT, LATER, recipient=f"{name}.box@dest.test", times=1))
    assert world.send(f"{name}@forward.test", f"{name}@sender.test").code == 250

    def waits() -> str | None:
        found = world.appliance.queue("--recipient", f"{name}@forward.test")
        return str(found[0]["id"]) if found and found[0]["attempts"] == 1 and found[0]["state"] == "WAITING" else None

    return eventually(waits, what=f"{name} waits")


# ---------------------------------------------------------------------- changes while it runs

SELDOM = 0.1
"""Seconds between two questions for an address that is unknown as yet: who asks for many soon waits for each answer."""


def test_change_acts_within_a_second(world: World) -> None:
    appliance = world.appliance
    assert world.ask("new@forward.test").code == 550
    appliance.done("alias", "add", "new@forward.test", "new.box@dest.test", "--confirmed")
    eventually(lambda: world.ask("new@forward.test").code == 250, within=1, every=SELDOM)
    appliance.done("alias", "remove", "new@forward.test")
    eventually(lambda: world.ask("new@forward.test").code == 550, within=1, every=SELDOM)
    appliance.done("domain", "add", "late.test", "--account", "owner@people.test", "--verified")
    eventually(lambda: world.ask("postmaster@late.test").code == 250, within=1, every=SELDOM)
    appliance.done("domain", "remove", "late.test")
    eventually(lambda: world.ask("postmaster@late.test").code == 550, within=1, every=SELDOM)


def test_records_can_be_changed_while_it_is_stopped(world: World) -> None:
    assert world.appliance.stop() == 0
    world.appliance.done("alias", "add", "offline@forward.test", "offline.box@dest.test", "--confirmed")
    listed = world.appliance.done("alias", "list", "forward.test", "--json").rows
    assert "offline" in {alias["pattern"] for alias in listed}
    refused = world.appliance.cli("queue", "list")
    assert refused.status == 1
    assert len(refused.err.splitlines()) == 1
    world.appliance.start()
    assert world.ask("offline@forward.test").code == 250


# ---------------------------------------------------------------------- the queue


def test_queue_list_and_retry(world: World) -> None:
    delivery = keep_waiting(world, "retry")
    [listed] = world.appliance.queue("--id", delivery)
    assert listed["sender"] == "retry@sender.test"
    assert listed["recipient"] == "retry@forward.test"
    assert listed["destinationDomain"] == "dest.test"
    assert listed["lastResponse"]
    for filters in (("--domain", "forward.test"), ("--destination", "dest.test"), ("--sender", "retry@sender.test")):
        assert delivery in {each["id"] for each in world.appliance.queue(*filters)}
    assert world.appliance.queue("--destination", "elsewhere.test") == []
    world.appliance.done("queue", "retry", "--id", delivery)
    world.arrived("retry.box@dest.test")
    eventually(lambda: not world.appliance.queue("--id", delivery))


def test_queue_drop(world: World) -> None:
    first, second = keep_waiting(world, "drop-a"), keep_waiting(world, "drop-b")
    assert world.appliance.cli("queue", "drop").status == 2
    assert world.appliance.cli("queue", "drop", "--all", "--id", first).status == 2
    dropped = world.appliance.done("queue", "drop", "--recipient", "drop-a@forward.test", "--json").json
    assert dropped["affected"] == 1
    left = {each["id"] for each in world.appliance.queue()}
    assert first not in left
    assert second in left
    world.appliance.done("queue", "retry", "--id", second)
    world.arrived("drop-b.box@dest.test")
    assert not world.main.for_recipient("drop-a.box@dest.test")
    assert not world.senders.for_recipient("drop-a@sender.test")
    assert world.appliance.cli("queue", "drop", "--id", first).status == 1


# ---------------------------------------------------------------------- the disk


def test_queued_mail_stands_on_the_disk_sealed(world: World) -> None:
    world.mailbox_says(always(Stage.RCPT, LATER, recipient="secret.box@dest.test", times=1))
    content = letter("secret@forward.test", "A confidential subject", "The treasure is under the oak.\r\n")
    assert world.send("secret@forward.test", "confidant@sender.test", content).code == 250
    eventually(lambda: world.appliance.queue("--recipient", "secret@forward.test"))
    files = [path for path in world.appliance.data_dir.rglob("*") if path.is_file()]
    assert files
    for path in files:
        octets = path.read_bytes()
        for secret in (b"confidant@sender", b"confidential subject", b"under the oak"):
            assert secret not in octets, path
        assert path.stat().st_mode & 0o077 == 0, f"{path} can be read by others"
    world.appliance.done("queue", "drop", "--recipient", "secret@forward.test")


# ---------------------------------------------------------------------- stopping and dying


def test_queue_survives_a_restart(world: World) -> None:
    delivery = keep_waiting(world, "kept")
    world.appliance.restart()
    assert [each["id"] for each in world.appliance.queue("--recipient", "kept@forward.test")] == [delivery]
    world.appliance.done("queue", "retry", "--all")
    assert len(world.arrived("kept.box@dest.test")) == 1


def test_accepted_message_survives_a_crash(world: World) -> None:
    delivery = keep_waiting(world, "crash")
    world.appliance.kill()
    world.appliance.start()
    assert [each["id"] for each in world.appliance.queue("--recipient", "crash@forward.test")] == [delivery]
    world.appliance.done("queue", "retry", "--all")
    world.arrived("crash.box@dest.test")


def test_crash_during_an_attempt_costs_at_most_a_second_copy(world: World) -> None:
    stalled = always(Stage.END_OF_DATA, Answer(stall=30), recipient="stall.box@dest.test", times=1)
    world.mailbox_says(stalled)
    assert world.send("stall@forward.test", "stall@sender.test").code == 250
    eventually(
        lambda: [e["state"] for e in world.appliance.queue("--recipient", "stall@forward.test")] == ["UNDER_WAY"]
    )
    world.appliance.kill()
    world.appliance.start()
    world.arrived("stall.box@dest.test")
    world.queue_is_empty()
    assert len(world.main.for_recipient("stall.box@dest.test")) <= 2


def test_stopping_finishes_what_is_under_way(world: World) -> None:
    appliance = world.appliance
    world.mailbox_says(always(Stage.END_OF_DATA, Answer(stall=1.5), recipient="slow.box@dest.test", times=1))
    assert world.send("slow@forward.test").code == 250
    eventually(lambda: [e["state"] for e in appliance.queue("--recipient", "slow@forward.test")] == ["UNDER_WAY"])
    with appliance.client() as idle, appliance.client() as busy:
        busy.envelope("ann@sender.test", ["ok@forward.test"])
        assert busy.command("DATA").code == 354
        os.kill(appliance.pid, signal.SIGTERM)
        assert idle.reply().code == 421
        busy.send(letter("ok@forward.test", "finished while stopping") + b".\r\n")
        reply = busy.reply()
        assert reply.code in (250, 421)
    with pytest.raises((Closed, OSError)):
        appliance.client()
    assert appliance.stop() == 0
    # The attempt that was under way was seen through and recorded: there is nothing to do twice.
    assert len(world.main.for_recipient("slow.box@dest.test")) == 1
    appliance.start()
    world.queue_is_empty()
    assert len(world.main.for_recipient("slow.box@dest.test")) == 1
    assert bool(world.main.containing(b"finished while stopping")) == (reply.code == 250)


@pytest.mark.parametrize("which", [0, 1])
def test_child_that_dies_is_replaced(world: World, which: int) -> None:
    appliance = world.appliance
    appliance.restart()
    killed = appliance.children()[which]
    other = appliance.children()[1 - which]
    os.kill(killed, signal.SIGKILL)

    def replaced() -> bool:
        now = process_tree.children(appliance.pid)
        return len(now) == 2 and killed not in now and other in now

    eventually(replaced)
    # What listens stays open meanwhile: whoever connects waits for a moment and is served.
    assert world.send("child@forward.test").code == 250
    world.arrived("child.box@dest.test", which + 1)
    eventually(lambda: appliance.http("/health/ready")[0] == 200)


def test_children_do_not_outlive_their_supervisor(world: World) -> None:
    world.appliance.kill_supervisor()
    world.appliance.start()
    assert world.send("ok@forward.test").code == 250


def test_health(world: World) -> None:
    appliance = world.appliance
    assert appliance.http("/health/live")[0] == 200
    status, ready = appliance.http("/health/ready")
    assert status == 200
    assert isinstance(ready, dict)
    engine, _ = appliance.children()
    os.kill(engine, signal.SIGSTOP)
    try:
        # An engine that hangs is not ready, and the control process still says so.
        status, ready = appliance.http("/health/ready")
        assert (status, type(ready)) == (503, dict)
        assert appliance.http("/health/live")[0] == 200
    finally:
        os.kill(engine, signal.SIGCONT)
    eventually(lambda: appliance.http("/health/ready")[0] == 200)


# ---------------------------------------------------------------------- what commands print


def test_commands_that_print(world: World) -> None:
    appliance = world.appliance
    assert {"version", "commit"} <= set(appliance.done("version", "--json").json)
    assert "owner@people.test" in {row["email"] for row in appliance.done("account", "list", "--json").rows}
    [domain] = [row for row in appliance.done("domain", "list", "--json").rows if row["name"] == "forward.test"]
    assert (domain["verified"], domain["deliveryMode"], domain["logLevel"]) == (True, "SPOOL", "EVENTS")
    [alias] = [row for row in appliance.done("alias", "list", "--json").rows if row["pattern"] == "ok"]
    assert alias["destinations"] == [{"target": "ok.box@dest.test", "confirmed": True}]
    explained = appliance.done("explain", "ok+tag@forward.test", "--json").json
    assert "ok.box@dest.test" in str(explained)
    assert "550" in str(appliance.cli("explain", "nobody@forward.test", "--json").out)
    assert appliance.cli("check").status == 0
    assert appliance.cli("nonsense").status == 2
    assert appliance.cli("alias", "add").status == 2


def test_log_follows(world: World) -> None:
    following = world.appliance.spawn("log", "--follow", "--json", stdout=subprocess.PIPE)
    assert following.stdout is not None
    try:
        os.set_blocking(following.stdout.fileno(), False)
        heard = b""

        def told() -> bool:
            nonlocal heard
            assert following.stdout is not None
            # Which of the messages is the first that it hears of depends on when it has begun to listen.
            assert world.send("ok@forward.test", "follow@sender.test").code == 250
            heard += following.stdout.read() or b""
            return b"DELIVERED" in heard and b"follow@sender.test" in heard

        eventually(told, within=15)
    finally:
        following.kill()
        following.wait()
        following.stdout.close()
