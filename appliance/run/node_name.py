"""The name of this node among those that share a store: the same at each start, and no other's.

It is the hostname, for people, and something drawn once and kept in the data directory: a second machine that was set
up from the configuration of the first is still another one.
"""

import secrets

from appliance.configuration import Configuration
from appliance.run import CannotStart
from appliance.storage.directory import PRIVATE_FILE_MODE, make_private_directory

_FILE = "node"
_OCTETS = 4


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
