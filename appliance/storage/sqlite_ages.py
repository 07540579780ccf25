"""How old what is queued is, counted in the index of ids alone: they sort by the time they were made at."""

from collections.abc import Callable, Sequence

from appliance.model.ids import first_id_at
from appliance.privacy.declarations import DELIVERIES
from appliance.storage import sqlite_statements as sql
from appliance.storage.sqlite_conditions import Bindings

_COUNT_BETWEEN = sql.count(DELIVERIES, "id >= ? AND id < ?")


def ages(read: Callable[[str, Bindings], Sequence[Sequence[object]]], instants: Sequence[int]) -> list[int]:
    """How many deliveries were made before each of these instants. No part of the index is gone through twice."""
    older: dict[int, int] = {}
    since, count = "", 0
    for instant in sorted(instants):
        until = first_id_at(instant)
        ((more,),) = read(_COUNT_BETWEEN, (since, until))
        count += int(str(more))
        older[instant], since = count, until
    return [older[instant] for instant in instants]
