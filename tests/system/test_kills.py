"""Killed at random moments under load, the appliance loses nothing, invents nothing, and doubles little.

Clients send messages, each once, and write down what they were told. The destination refuses one in five for now and
writes down what it has taken. Meanwhile the whole appliance or one of its processes is killed, over and over. In the
end the two are compared with the promise: what that means is in `mail_ledger.py`.

`ONWARD_KILLS=10000 make test-long` is for the night.
"""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import process_tree
import pytest
from appliance_process import Settings, eventually
from destination_scripts import Answer, Stage, first_of, sometimes
from mail_ledger import Interruption, Ledger, Sender
from world import World

QUICK_KILLS = 5
LONG_KILLS = int(os.environ.get("ONWARD_KILLS", "50"))
SEED = int(os.environ.get("ONWARD_SEED", "20"))

CLIENTS = 10
MESSAGES_PER_SECOND = 200
"""What the clients try to send together, while there is somebody to take it."""
AT_LEAST_PER_SECOND = 50
"""What must have been accepted on average, the time of being dead included."""
TEMPORARY_FAILURES = 0.2


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    settings: Settings = {"delivery": {"retry": ["300ms", "500ms"]}}
    with World(tmp_path, {"kill@forward.test": ["kill.box@dest.test"]}, settings) as world:
        world.main.script = first_of(
            sometimes(Stage.RCPT, Answer(450, "4.2.1 Later"), TEMPORARY_FAILURES / 2, SEED),
            sometimes(Stage.END_OF_DATA, Answer(451, "4.3.0 Later"), TEMPORARY_FAILURES / 2, SEED + 1),
        )
        yield world


def kill_something(world: World, lots: random.Random) -> Interruption:
    """Kill the whole or a part, and have it running again."""
    appliance = world.appliance
    what = lots.choices(["appliance", "supervisor", "engine or control"], [5, 2, 3])[0]
    began = time.time()
    if what == "appliance":
        appliance.kill()
        ended = time.time()
        appliance.start()
    elif what == "supervisor":
        appliance.kill_supervisor()
        ended = time.time()
        appliance.start()
    else:
        child = lots.choice(eventually(lambda: process_tree.children(appliance.pid)))
        os.kill(child, signal.SIGKILL)
        ended = time.time()
    return Interruption(what, began, ended)


@pytest.mark.parametrize("kills", [QUICK_KILLS, pytest.param(LONG_KILLS, marks=pytest.mark.long)])
def test_kills(world: World, kills: int, capsys: pytest.CaptureFixture[str]) -> None:
    lots = random.Random(SEED)
    ledger, stopped = Ledger(), threading.Event()
    world.main.take = ledger.take
    clients = [
        Sender(
            ledger,
            "kill@forward.test",
            lambda _: world.appliance.client(timeout=60),
            MESSAGES_PER_SECOND / CLIENTS,
            lots.getrandbits(32),
            stopped,
        )
        for _ in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    began = time.monotonic()
    done: list[Interruption] = []
    for _ in range(kills):
        stopped.wait(lots.uniform(0.3, 2.5))
        done.append(kill_something(world, lots))
    stopped.wait(1)
    stopped.set()
    for client in clients:
        client.join(timeout=90)
        assert not client.is_alive()
    seconds = time.monotonic() - began
    eventually(lambda: world.appliance.http("/health/ready")[0] == 200, within=60)
    world.queue_is_empty(within=120)

    verdict = ledger.verdict(done)
    rate = verdict.accepted / seconds
    killed = Counter(kill.what for kill in done)
    with capsys.disabled():
        print(
            f"\n{kills} kills ({', '.join(f'{count} of {what}' for what, count in sorted(killed.items()))}) "
            f"in {seconds:.0f} s, {rate:.0f} accepted each second; {verdict}; seed {SEED}"
        )
    assert not verdict.lost
    assert not verdict.ghosts
    assert not verdict.changed
    assert not verdict.unexplained
    assert rate >= AT_LEAST_PER_SECOND
    assert not world.senders.messages, "a temporary failure has bounced"
    objections = [words for words in world.objections() if "connection ended within" not in words]
    assert not objections
