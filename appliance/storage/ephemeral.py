"""The ephemeral store: what is remembered for a while, and would be no loss of mail if it were forgotten at once.

Losing it may let a sender's retry reach a next hop twice, and a report come back to nobody; it signs people out and
forgets how often somebody has tried; nothing worse. What may be kept, and for how long, is declared with everything
else (`Store.EPHEMERAL`). Keys are MACs and values are sealed by whoever remembers them: nothing here names a person,
whatever a backend does with it.
"""

import json
from collections.abc import Mapping
from typing import Protocol

from appliance.model.time import parse_duration
from appliance.privacy.declarations import Collection, Protection
from appliance.storage.codec import RowRefused

COUNT = "count"
"""The clear field of a collection that counts. Such a one is only counted, any other only remembered."""


class EphemeralStore(Protocol):
    """What is needed of a backend. Every method may block for a moment, may be called by any thread, and may raise
    StoreUnavailable. What is not declared raises RowRefused."""

    def remember(self, what: Collection, key: bytes, value: bytes = b"", group: bytes = b"") -> None:
        """Keep a value under a key for the time that its declaration gives, from now on, in place of what was there.

        `value` has all sealed fields in it (see `packed`), and is empty where there are none. `group` is the keyed
        field by which several are found together, for collections that declare one.
        """

    def renew(self, what: Collection, key: bytes, value: bytes) -> bool:
        """Keep another value, from now on, where one is kept already; where none is, not even this one.

        Whoever renews what somebody else is about to forget does not bring it back. Returns whether one was kept.
        """

    def recall(self, what: Collection, key: bytes) -> bytes | None:
        """What is kept under a key; None where there is nothing, or no more."""

    def recall_group(self, what: Collection, group: bytes) -> dict[bytes, bytes]:
        """What is kept of one group, by key, the one that was remembered or renewed last at the end."""

    def forget(self, what: Collection, key: bytes) -> bytes | None:
        """Keep it no longer, and return what it was: to one caller of several at once. None where there was nothing."""

    def count(self, what: Collection, key: bytes) -> int:
        """Count one more under a key, and return how many there are: each number to one caller of several at once.

        The time that the declaration gives runs from the first one.
        """

    def counted(self, what: Collection, key: bytes) -> int:
        """How many have been counted under a key; 0 where nothing is, or no more."""

    def check(self) -> None:
        """Return where the store can be reached, and takes something."""


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


def counts(what: Collection) -> bool:
    """Whether a collection counts, rather than remembers."""
    return any(field.name == COUNT for field in what.protected(Protection.CLEAR))


def refuse_undeclared(
    what: Collection, declared: Collection | None, value: bytes | None = None, group: bytes | None = None
) -> None:
    """The gate for every backend: `declared` is what it was built with under that name. Raises RowRefused."""
    if declared is not what:
        raise RowRefused(what, "", "is not declared for the ephemeral store")
    if value is not None and counts(what):
        raise RowRefused(what, COUNT, "is counted, and nothing is remembered with it")
    if value is not None and bool(value) is not bool(what.protected(Protection.SEALED)):
        raise RowRefused(what, "", "has a value where no field is sealed, or none where one is")
    if group is not None and bool(group) is not bool(what.group):
        raise RowRefused(what, what.group, "has a group where none is declared, or none where one is")


def refuse_uncounted(what: Collection, declared: Collection | None) -> None:
    """The gate for counting. Raises RowRefused."""
    refuse_undeclared(what, declared)
    if not counts(what):
        raise RowRefused(what, COUNT, "is not declared: this collection does not count")
