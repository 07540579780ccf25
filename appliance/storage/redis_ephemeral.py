"""The ephemeral store in a Redis: shared by all processes and nodes that reach it, and there when they start anew.

The server counts the time, and forgets by itself. What lies there, and how, is told in `redis_scripts.py`; each verb is
one script, so that callers on several nodes are as far apart as threads are in `memory_ephemeral.py`. Names of
collections stand in the clear there, keys and groups are MACs, values are sealed or numbers.

For a server that has no memory left, what can be done without is done: who is remembered is recalled and forgotten.
"""

from collections.abc import Iterable
from typing import Any

from appliance.privacy.declarations import Collection, Store, collections_of
from appliance.storage.ephemeral import lifetime_ms, refuse_uncounted, refuse_undeclared
from appliance.storage.redis_scripts import CHECK, COUNT, FORGET, RECALL, RECALL_GROUP, REMEMBER, RENEW, Script
from appliance.storage.redis_server import RedisServer

PREFIX = b"onward:"
"""In front of every key, for whoever lets a user of the Redis (ACL) come to these keys only. Two appliances that are
not nodes of one have a database each: their keys would not meet, but the bounds of their collections would."""

LONGEST_GROUP = 255
"""Octets: what one octet says the length of. A MAC has sixteen."""


class RedisEphemeral:
    """See `EphemeralStore`. Thread-safe."""

    def __init__(self, server: RedisServer, declared: Iterable[Collection] = collections_of(Store.EPHEMERAL)) -> None:
        self._server = server
        self._declared = {what.name: what for what in declared}
        self._lifetimes_ms = {what.name: lifetime_ms(what) for what in self._declared.values()}

    def remember(self, what: Collection, key: bytes, value: bytes = b"", group: bytes = b"") -> None:
        """See EphemeralStore."""
        refuse_undeclared(what, self._declared.get(what.name), value, group)
        if len(group) > LONGEST_GROUP:
            raise ValueError(f"a group has at most {LONGEST_GROUP} octets, not {len(group)}")
        self._run(REMEMBER, what, key, value, group, self._lifetimes_ms[what.name], what.at_most)

    def renew(self, what: Collection, key: bytes, value: bytes) -> bool:
        """See EphemeralStore."""
        refuse_undeclared(what, self._declared.get(what.name), value)
        return bool(self._run(RENEW, what, key, value, self._lifetimes_ms[what.name], what.at_most))

    def recall(self, what: Collection, key: bytes) -> bytes | None:
        """See EphemeralStore."""
        refuse_undeclared(what, self._declared.get(what.name))
        return self._octets(RECALL, what, key)

    def recall_group(self, what: Collection, group: bytes) -> dict[bytes, bytes]:
        """See EphemeralStore."""
        refuse_undeclared(what, self._declared.get(what.name), group=group)
        found = self._run(RECALL_GROUP, what, group)
        return dict(zip(found[::2], found[1::2], strict=True))

    def forget(self, what: Collection, key: bytes) -> bytes | None:
        """See EphemeralStore."""
        refuse_undeclared(what, self._declared.get(what.name))
        return self._octets(FORGET, what, key)

    def count(self, what: Collection, key: bytes) -> int:
        """See EphemeralStore."""
        refuse_uncounted(what, self._declared.get(what.name))
        return int(self._run(COUNT, what, key, self._lifetimes_ms[what.name], what.at_most))

    def counted(self, what: Collection, key: bytes) -> int:
        """See EphemeralStore."""
        refuse_uncounted(what, self._declared.get(what.name))
        return int(self._octets(RECALL, what, key) or 0)

    def check(self) -> None:
        """See EphemeralStore."""
        self._server.run(CHECK, PREFIX + b"check")

    def close(self) -> None:
        """Close all connections."""
        self._server.close()

    def _octets(self, script: Script, what: Collection, key: bytes) -> bytes | None:
        found: bytes | None = self._run(script, what, key)
        return found

    def _run(self, script: Script, what: Collection, *arguments: bytes | int) -> Any:
        own = PREFIX + what.name.encode() + b":"
        return self._server.run(script, own + b"order", own + b"is:", own + b"of:" if what.group else b"", *arguments)
