"""The ephemeral store: what is remembered for a while, and would be no loss of mail if it were forgotten at once.

Losing it may let a sender's retry reach a next hop twice, and a report come back to nobody; nothing worse. What may be
kept, and for how long, is declared with everything else (`Store.EPHEMERAL`). Keys are MACs and values are sealed by
whoever remembers them: nothing here names a person, whatever a backend does with it.
"""

import json
from collections.abc import Mapping
from typing import Protocol

from appliance.model.time import parse_duration
from appliance.privacy.declarations import Collection, Protection
from appliance.storage.codec import RowRefused


class EphemeralStore(Protocol):
    """What is needed of a backend. Every method may block for a moment, may be called by any thread, and may raise
    StoreUnavailable. What is not declared raises RowRefused."""

    def remember(self, what: Collection, key: bytes, value: bytes = b"") -> None:
        """Keep a value under a key for the time that its declaration gives, from now on, in place of what was there.

        `value` has all sealed fields in it (see `packed`), and is empty where there are none.
        """

    def recall(self, what: Collection, key: bytes) -> bytes | None:
        """What is kept under a key; None where there is nothing, or no more."""

    def forget(self, what: Collection, key: bytes) -> bytes | None:
        """Keep it no longer, and return what it was: to one caller of several at once. None where there was nothing."""


def lifetime_ms(what: Collection) -> int:
    """How long what is remembered stays."""
    (retention,) = what.retention
    return parse_duration(retention.setting)


def packed(what: Collection, row: Mapping[str, str]) -> bytes:
    """The sealed fields of a row as octets, to be sealed; b"" where none are declared. Raises RowRefused."""
    declared = [field.name for field in what.protected(Protection.SEALED)]
    for name in {*row, *declared}:
        if name not in declared:
            raise RowRefused(what, name, "is not declared")
        if name not in row:
            raise RowRefused(what, name, "is missing")
    return json.dumps([row[name] for name in declared]).encode() if declared else b""


def unpacked(what: Collection, octets: bytes) -> dict[str, str]:
    """What `packed` has made octets of."""
    names = [field.name for field in what.protected(Protection.SEALED)]
    return dict(zip(names, json.loads(octets), strict=True))


def refuse_undeclared(what: Collection, declared: Collection | None, value: bytes | None = None) -> None:
    """The gate for every backend: `declared` is what it was built with under that name. Raises RowRefused."""
    if declared is not what:
        raise RowRefused(what, "", "is not declared for the ephemeral store")
    if value is not None and bool(value) is not bool(what.protected(Protection.SEALED)):
        raise RowRefused(what, "", "has a value where no field is sealed, or none where one is")
