"""Export of an account: everything that is stored about it as one JSON document (GDPR, Articles 15 and 20).

It is made from the same declarations as deletion. What proves who somebody is, the hash of a password say, stays where
it is. A document has a limit, because it is put together in memory and sent in one piece; of what does not fit into it
the latest is there, and how much there is beside it is said. The log has its own way to be read page by page.
"""

import base64
import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from appliance.accounts.belongings import belongings, rows_of
from appliance.model.account import Account
from appliance.model.time import Clock, format_instant, wall_clock
from appliance.privacy.declarations import Collection
from appliance.storage.records import RecordStore

MAX_EXPORT_CHARACTERS = 16 << 20
"""Of one document: some ten thousand events, beside everything else of the largest account."""

MAX_EXPORT_ROWS = 20_000
"""Of one class of data."""

ShowElsewhere = Callable[[Account], Iterable[Mapping[str, object]]]
"""What another store has of an account, as rows, the latest first."""


class Export:
    """Exports accounts."""

    def __init__(
        self,
        records: RecordStore,
        elsewhere: Mapping[Collection, ShowElsewhere],
        clock: Clock = wall_clock,
        max_characters: int = MAX_EXPORT_CHARACTERS,
    ) -> None:
        """`elsewhere` has, by its collection, what shows the data of an account in another store than the records."""
        self._records = records
        self._elsewhere = elsewhere
        self._clock = clock
        self._max_characters = max_characters

    def document(self, account: Account) -> str:
        """Everything about this account as JSON. Raises StoreUnavailable."""
        room = self._max_characters
        shown: dict[str, Any] = {}
        found = belongings(self._records, account.id)
        counted = [(self._records.count(each.collection, each.where), each) for each in found]
        # The small ones first: a long log must not take their place.
        for stored, belonging in sorted(counted, key=lambda each: each[0]):
            rows = rows_of(self._records, belonging, newest_first=True)
            shown[belonging.collection.name], room = _part(belonging.collection, stored, rows, room)
        for collection, show in self._elsewhere.items():
            there = list(show(account))
            shown[collection.name], room = _part(collection, len(there), there, room)
        return json.dumps(
            {
                "account": account.email,
                "exportedAt": format_instant(self._clock()),
                "note": "Numbers whose name ends in at, until or since are milliseconds since 1970-01-01T00:00:00Z.",
                "collections": shown,
            },
            ensure_ascii=False,
        )


def _part(
    collection: Collection, stored: int, rows: Iterable[Mapping[str, object]], room: int
) -> tuple[dict[str, Any], int]:
    """One class of data, as far as there is room for it, and the room that is left. The rows come the latest first."""
    public = [field.name for field in collection.fields if not field.secret]
    shown: list[dict[str, Any]] = []
    for row in itertools.islice(rows, MAX_EXPORT_ROWS):
        plain = {name: _plain(row[name]) for name in public if row.get(name) is not None}
        room -= len(json.dumps(plain, ensure_ascii=False))
        if room < 0:
            break
        shown.append(plain)
    # In the order in which they were made.
    shown.reverse()
    return {"purpose": collection.purpose, "stored": stored, "exported": len(shown), "rows": shown}, max(0, room)


def _plain(value: object) -> object:
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value
