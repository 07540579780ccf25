"""`onward log --follow` at one appliance, read line by line while a test goes on."""

import json
import subprocess
import threading
from typing import Any, Self

from appliance_process import Appliance


class FollowedLog:
    """Runs inside a `with`."""

    def __init__(self, appliance: Appliance) -> None:
        self.events: list[dict[str, Any]] = []
        """What it has told up to now."""
        self._process = appliance.spawn("log", "--follow", "--since", "1h", "--json", stdout=subprocess.PIPE)
        self._reading = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._reading.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reading.join()

    @property
    def ids(self) -> list[str]:
        """Of these events."""
        return [event["id"] for event in self.events]

    @property
    def senders(self) -> list[str]:
        """Of these events' messages."""
        return [event["message"]["sender"] for event in self.events]

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            # One at a time: they are looked at meanwhile.
            for line in lines:
                self.events.append(json.loads(line))
