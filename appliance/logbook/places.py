"""Where in the log each event has its place: that of its id, or a later one where it was brought late.

Who follows the log of several nodes is told events in the order of their places, and one who comes again says which
event it had last. Mostly the place is the id. But what a node could not bring while others waited for it (it was dead,
stopped or cut off, `horizon.py`) comes when all who follow are past its id. It gets a place of its own, which is of the
moment when it was brought, and is told there: to those who stay, and to those who come again behind an event that was
told before. So nothing is left out, and nothing told twice.

The place is written down before the event is in the log, and whoever reads looks first for events and then for places:
nobody finds an event at its id that has another place.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from appliance.logbook.reading import read
from appliance.model.event import DeliveryEvent
from appliance.privacy.declarations import EVENTS, LATE_EVENTS
from appliance.storage.event_rows import row_to_event
from appliance.storage.records import AnyOf, Change, Delete, Insert, Page, RecordStore, StoredRow


@dataclass(frozen=True, slots=True)
class Entry:
    """An event at its place in the log."""

    place: str
    """Sorts as ids do; no two have the same."""
    event: DeliveryEvent


def in_time(event: DeliveryEvent) -> Entry:
    """An event that was not late: its id is its place."""
    return Entry(event.id, event)


def place_of(records: RecordStore, event_id: str) -> str:
    """Where an event has its place that may not be in the log any more. Raises StoreUnavailable."""
    return _late_places(records, [event_id]).get(event_id, event_id)


def read_on(
    records: RecordStore, after: str, until: str | None, domain_ids: Sequence[str] | None, limit: int
) -> tuple[list[Entry], str | None]:
    """Entries in the order of their places, behind `after` and before `until` (None: as far as there are any).

    Returns the place to go on from, too; None where that was all. `domain_ids` of None is every domain. Raises
    StoreUnavailable.
    """
    by_id = read(records, domain_ids=domain_ids, after=after, limit=limit)
    late = _late_places(records, [event.id for event in by_id])
    entries = [in_time(event) for event in by_id if event.id not in late]
    where = {} if domain_ids is None else {"domain_id": AnyOf(tuple(domain_ids))}
    brought = records.find(LATE_EVENTS, where, Page(after=after, limit=limit))
    entries += _late_entries(records, {str(row["event_id"]): str(row["id"]) for row in brought})
    # As far as both are known.
    ends = [by_id[-1].id] if len(by_id) == limit else []
    ends += [str(brought[-1]["id"])] if len(brought) == limit else []
    end = min(ends, default=None)
    if until is not None and (end is None or end >= until):
        return sorted((each for each in entries if each.place < until), key=_place), None
    return sorted((each for each in entries if end is None or each.place <= end), key=_place), end


def give_places(
    records: RecordStore,
    rows: Sequence[StoredRow],
    passed: str,
    doubted: Collection[str],
    new_place: Callable[[], str],
) -> None:
    """Give those of these rows of EVENTS new places, before they are brought to the log, whose places are `passed`.

    An event that is in the log already was told at the place that it has, unless it is `doubted` (ids): whoever brought
    it does not know whether it came in time. `new_place` returns another one behind `passed` each time. Raises
    StoreUnavailable, and Duplicate where somebody else is giving them places.
    """
    behind = {str(row["id"]): row for row in rows if str(row["id"]) < passed}
    if not behind:
        return
    places = _late_places(records, list(behind))
    ids = AnyOf(tuple(behind))
    found = {str(row["id"]) for row in records.find(EVENTS, {"id": ids}, Page(limit=len(behind)))}
    to_come = [id for id in sorted(behind) if places.get(id, id) < passed and (id not in found or id in doubted)]
    changes: list[Change] = []
    if again := tuple(id for id in to_come if id in places):
        changes.append(Delete(LATE_EVENTS, {"event_id": AnyOf(again)}))
    changes += [Insert(LATE_EVENTS, _late_row(behind[id], new_place())) for id in to_come]
    if changes:
        records.apply(changes)


def _late_row(row: StoredRow, place: str) -> Mapping[str, object]:
    kept = {name: row[name] for name in ("domain_id", "at", "type")}
    return {"id": place, "event_id": row["id"], **kept}


def _late_places(records: RecordStore, event_ids: Sequence[str]) -> dict[str, str]:
    """By id: the places of those among these events that were late."""
    if not event_ids:
        return {}
    found = records.find(LATE_EVENTS, {"event_id": AnyOf(tuple(event_ids))}, Page(limit=len(event_ids)))
    return {str(row["event_id"]): str(row["id"]) for row in found}


def _late_entries(records: RecordStore, places: Mapping[str, str]) -> list[Entry]:
    """The events that were brought late, as far as they are in the log."""
    if not places:
        return []
    found = records.find(EVENTS, {"id": AnyOf(tuple(places))}, Page(limit=len(places)))
    return [Entry(places[event.id], event) for event in map(row_to_event, found)]


def _place(entry: Entry) -> str:
    return entry.place
