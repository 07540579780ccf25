"""Those who follow the log of a running appliance: any number may come and go, even while there is nothing to tell."""

import json
import socket
from pathlib import Path

from appliance_process import Appliance

from appliance.configuration import CONTROL_SOCKET
from appliance.logbook.live import MAX_FOLLOWERS


def asked(appliance: Appliance, verb: str) -> socket.socket:
    """A connection on which the running appliance has been asked this."""
    connection = socket.socket(socket.AF_UNIX)
    # Without a time limit yet: so it waits where many others are waiting to be let in.
    connection.connect(str(appliance.data_dir / CONTROL_SOCKET))
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
