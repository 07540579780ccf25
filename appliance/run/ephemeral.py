"""The ephemeral store of this process, and the key of what it remembers.

In memory, both are of one process and end with it. In a Redis they are shared: the key is a file of the secrets
(`ephemeral.key`), made at the first use where there is one node; several nodes have to be given the same. It lies apart
from the Redis, so that whoever can look in there learns neither who is signed in nor who wrote to whom.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from appliance.configuration import Configuration
from appliance.privacy.sealing import KEY_OCTETS, Sealer
from appliance.run import CannotStart
from appliance.run.lost_keys import how_to_hand_over
from appliance.run.stores import EPHEMERAL_KEY, keyring, secrets
from appliance.storage.ephemeral import EphemeralStore
from appliance.storage.memory_ephemeral import MemoryEphemeral

if TYPE_CHECKING:
    from appliance.storage.redis_address import RedisAddress
    from appliance.storage.redis_server import RedisServer

PASSWORD = "redis-password"
"""The secret for the Redis: that of the user in the URL, or else of the default user."""

SENTINEL_PASSWORD = "redis-sentinel-password"
"""The secret for the Sentinels, where they want one."""


def open_ephemeral(config: Configuration) -> tuple[EphemeralStore, Sealer]:
    """The store and its key. A Redis need not be there yet. Raises CannotStart, SecretRefused or OSError."""
    address = config.store.ephemeral
    if address is None:
        # What is in memory needs no key that outlives it.
        return MemoryEphemeral(), Sealer(os.urandom(KEY_OCTETS))
    # Nobody loads a library for a Redis that there is not.
    from appliance.storage.redis_ephemeral import RedisEphemeral

    server = redis_server(config, address)
    return RedisEphemeral(server), keyring(config, [EPHEMERAL_KEY])[EPHEMERAL_KEY]


def redis_server(config: Configuration, address: RedisAddress) -> RedisServer:
    """The Redis at this address, with the passwords for it. Raises CannotStart, SecretRefused or OSError."""
    from appliance.storage.redis_server import RedisServer

    own = secrets(config)
    password = own.load(PASSWORD)
    if address.user and not password:
        path = config.data_dir / "secrets" / PASSWORD
        raise CannotStart(f"store.ephemeral names a user, and there is no password: {how_to_hand_over(path)}")
    return RedisServer(address, password, own.load(SENTINEL_PASSWORD))
