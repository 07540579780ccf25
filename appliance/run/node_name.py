"""The name of this node among those that share a store: the same at each start, and no other's.

It is the hostname, for people, and something drawn once and kept in the data directory: a second machine that was set
up from the configuration of the first is still another one.

A copy of the whole data directory is not, and two that go by one name would take each other's mail and marks for their
own. So a node says where it runs: on which boot of which machine, in which directory. Nobody else runs there, as the
lock on that directory says (`lock.py`); who comes from elsewhere has to see first that the name is free
(`logbook.horizon`).
"""

import hashlib
import os
import secrets
from pathlib import Path

from appliance.configuration import Configuration
from appliance.logbook.horizon import NameTaken, OwnHorizon
from appliance.logbook.mover import SharedLogWriter
from appliance.model.time import Clock
from appliance.run import CannotStart
from appliance.storage.directory import PRIVATE_FILE_MODE, make_private_directory
from appliance.storage.records import RecordStore

_FILE = "node"
_OCTETS = 4

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Another one at each boot, and the same for all containers of a machine (random(4))."""

_DIGITS = 32
"""Of the digest that says where a node runs: by chance no two have the same."""


def node_name(config: Configuration) -> str:
    """The name, like `mx1.example.org 3fa9c1d2`. Raises CannotStart or OSError."""
    make_private_directory(config.data_dir)
    path = config.data_dir / _FILE
    try:
        with path.open("x", encoding="ascii") as file:
            path.chmod(PRIVATE_FILE_MODE)
            file.write(secrets.token_hex(_OCTETS) + "\n")
    except FileExistsError:
        pass
    drawn = path.read_text("ascii", "replace").strip()
    if len(drawn) != 2 * _OCTETS or not drawn.isalnum():
        raise CannotStart(f"{path} does not hold the name of a node: remove it, and another is drawn")
    return f"{config.hostname} {drawn}"


def machine_of(config: Configuration) -> str:
    """Where this node runs, as a digest: the same for every run on this data directory until the next boot.

    Raises OSError.
    """
    found = os.stat(config.data_dir)
    place = f"{_BOOT_ID.read_text('ascii').strip()} {found.st_dev} {found.st_ino}"
    return hashlib.sha256(place.encode("ascii")).hexdigest()[:_DIGITS]


def named(config: Configuration, records: RecordStore, clock: Clock) -> tuple[str, SharedLogWriter]:
    """Take the name of this node, before anything is done under it; and the log that it writes with the others.

    `clock` is that of the store's server. Raises CannotStart where another node of this name is alive,
    StoreUnavailable or OSError.
    """
    node = node_name(config)
    horizon = OwnHorizon(records, node, clock, machine_of(config))
    try:
        horizon.take()
    except NameTaken:
        raise refusal(config, node) from None
    return node, SharedLogWriter(records, horizon)


def refusal(config: Configuration, node: str) -> CannotStart:
    """What to say where another node of this name is alive."""
    return CannotStart(
        f"another node is running under the name of this one, {node}: its data directory is a copy of "
        f"{config.data_dir}, or the other way round. Stop it, or remove {config.data_dir / _FILE} here: then another "
        "name is drawn"
    )
