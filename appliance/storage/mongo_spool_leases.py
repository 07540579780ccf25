"""What this node has under way in a spool that several share: the tokens of its leases.

A lease stands at the delivery itself, {token, node, until}. The token is another for each claim, so that what was
claimed here, lost, and claimed here again is told apart; the node is by what all of them are renewed; `until` is by the
server's clock.
"""

import threading
from collections.abc import Collection, Iterable

from appliance.storage.mongo_documents import Document


class Leases:
    """The tokens, by delivery. Thread-safe."""

    def __init__(self) -> None:
        self._tokens: dict[str, str] = {}
        self._told: set[str] = set()
        """Deliveries that were said to be lost, and of which nobody here has said yet that he is done with them."""
        self._lock = threading.Lock()

    @staticmethod
    def lease(token: str, node: str) -> Document:
        """A lease as it is written; the server sets until when."""
        return {"token": token, "node": node, "until": 0}

    def token(self, delivery_id: str) -> str | None:
        """The token that a delivery was claimed with; None where this node does not have it under way."""
        return self._tokens.get(delivery_id)

    def held(self) -> dict[str, str]:
        """What this node takes to be its own, but for what it was told to have lost."""
        with self._lock:
            return {id: token for id, token in self._tokens.items() if id not in self._told}

    def take(self, delivery_ids: Collection[str], token: str) -> list[str]:
        """These were claimed. Returns those that somebody here is still at, with a lease that was lost: he has the new
        one now, and nobody is to begin with them a second time."""
        with self._lock:
            again = [each for each in delivery_ids if each in self._tokens]
            self._tokens.update(dict.fromkeys(delivery_ids, token))
            self._told.difference_update(again)
            return again

    def release(self, delivery_ids: Iterable[str]) -> None:
        """Nobody here is at these any more."""
        with self._lock:
            for delivery_id in delivery_ids:
                self._tokens.pop(delivery_id, None)
                self._told.discard(delivery_id)

    def lose(self, before: dict[str, str], found: Collection[str]) -> list[str]:
        """Of what was held at an earlier moment, these were found with our lease since; returns what was lost, once."""
        with self._lock:
            lost = [
                each
                for each, token in before.items()
                if each not in found and self._tokens.get(each) == token and each not in self._told
            ]
            self._told.update(lost)
            return lost
