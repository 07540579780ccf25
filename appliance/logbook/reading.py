"""Reading the log back."""

from collections.abc import Sequence

from appliance.model.event import DeliveryEvent
from appliance.privacy.declarations import EVENTS
from appliance.storage.event_rows import row_to_event
from appliance.storage.records import AnyOf, Page, Range, RecordStore


def read(
    records: RecordStore,
    *,
    domain_ids: Sequence[str] | None = None,
    recipient: str | None = None,
    since: int | None = None,
    after: str | None = None,
    limit: int = 1000,
) -> list[DeliveryEvent]:
    """Events in the order of their ids, which is that of their making, behind the id `after`.

    `domain_ids` of None is every domain. Raises StoreUnavailable.
    """
    where: dict[str, object] = {}
    if domain_ids is not None:
        where["domain_id"] = AnyOf(tuple(domain_ids))
    if recipient is not None:
        where["recipient"] = recipient
    if since is not None:
        where["at"] = Range(since=since)
    return [row_to_event(row) for row in records.find(EVENTS, where, Page(after=after, limit=limit))]
