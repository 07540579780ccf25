"""Those who follow the log of a running appliance: any number may come and go, and whatever dies, they miss nothing."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import process_tree
from appliance_process import Appliance, Settings, eventually

from appliance.configuration import ENGINE_SOCKET
from appliance.logbook.live import MAX_FOLLOWERS


def asked(appliance: Appliance, verb: str) -> socket.socket:
    """A connection on which the running appliance has been asked this."""
    connection = socket.socket(socket.AF_UNIX)
    # Without a time limit yet: so it waits where many others are waiting to be let in.
    connection.connect(str(appliance.data_dir / ENGINE_SOCKET))
    connection.settimeout(10)
    connection.sendall(json.dumps({"verb": verb}).encode() + b"\n")
    return connection


def test_followers_who_hang_up_leave_room_for_others(tmp_path: Path) -> None:
    appliance = Appliance(tmp_path, nameserver="127.0.0.1:9", delivery_port=9)
    appliance.settle("account", "add", "owner@people.test")
    appliance.settle("domain", "add", "forward.test", "--account", "owner@people.test", "--verified")
    with appliance:
        for _ in range(MAX_FOLLOWERS + 20):
            asked(appliance, "events").close()
        with asked(appliance, "events") as follower, follower.makefile("rb") as lines:
            # Connections are served in the order in which they came: this one's verb has run when the status is told.
            with asked(appliance, "status") as status, status.makefile("rb") as answer:
                assert json.loads(answer.readline())["result"]["healthy"]
            with appliance.client() as client:
                assert client.envelope("ann@sender.test", ["nobody@forward.test"])[-1].code == 550
            told = json.loads(lines.readline())
    assert told["result"]["type"] == "REFUSED"


def test_one_who_follows_has_every_event_once_whichever_process_is_killed(tmp_path: Path) -> None:
    # What strangers guess at is slowed down; here it is what happens.
    settings: Settings = {"smtp": {"max_unknown_recipients": 100_000}}
    appliance = Appliance(tmp_path, nameserver="127.0.0.1:9", delivery_port=9, settings=settings)
    appliance.settle("account", "add", "owner@people.test")
    appliance.settle("domain", "add", "forward.test", "--account", "owner@people.test", "--verified")

    def refuse(number: int) -> None:
        with appliance.client() as client:
            assert client.envelope(f"{number}@sender.test", ["nobody@forward.test"])[-1].code == 550

    def killed(name: str, pid: int, other: int) -> int:
        """Kill one of the processes, and return its successor's pid once that is at work."""
        before = appliance.said().count(f"the {name} process is ready again")
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: appliance.said().count(f"the {name} process is ready again") > before)
        (successor,) = set(process_tree.children(appliance.pid)) - {other}
        return successor

    with appliance:
        engine, control = appliance.children()
        following = appliance.spawn("log", "--follow", "--since", "1h", "--json", stdout=subprocess.PIPE)
        assert following.stdout is not None
        try:
            refuse(0)
            heard = [json.loads(following.stdout.readline())]
            for number in range(1, 60):
                refuse(number)
                if number in (15, 45):
                    control = killed("control", control, engine)
                if number == 30:
                    engine = killed("engine", engine, control)
            while len(heard) < 60:
                heard.append(json.loads(following.stdout.readline()))
            logged = eventually(lambda: found if len(found := appliance.log_events()) == 60 else None)
            assert [each["id"] for each in heard] == [each["id"] for each in logged]
            assert [each["message"]["sender"] for each in heard] == [f"{number}@sender.test" for number in range(60)]
        finally:
            following.kill()
            following.wait()
            following.stdout.close()
