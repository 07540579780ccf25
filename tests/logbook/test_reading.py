"""Reading the log back: filters, each alone and together, and pages."""

from collections.abc import Iterator
from itertools import product

import pytest
from storage_backends import BACKENDS, Backend
from stored_values import NOON, a_keyring, an_event, an_id

from appliance.logbook.reading import read
from appliance.model.event import DeliveryEvent, EventType
from appliance.privacy.declarations import EVENTS
from appliance.storage.records import RecordStore
from appliance.storage.spool import Record

DOMAINS = ("d1", "d2", "d3")
RECIPIENTS = ("sales@hosted.example", "info@hosted.example")
TYPES = tuple(EventType)

MADE = [
    an_event(number, domain_id=domain, recipient=recipient, type=type, at=NOON + number * 1000)
    for number, (type, domain, recipient) in enumerate(product(TYPES, DOMAINS, RECIPIENTS), start=1)
]
"""Thirty events, a second apart: every type, domain and recipient with every other."""


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    opened: Backend = BACKENDS[request.param](tmp_path_factory.mktemp("log"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def records(backend: Backend) -> RecordStore:
    """A log with the events in it, which came there as events do."""
    spool = backend.spool()
    # Not in the order of their ids: the log has one of its own.
    spool.apply([Record(MADE[15:]), Record(MADE[:15])])
    filled = backend.records()
    filled.import_stored(EVENTS, spool.outbox(100))
    return filled


def test_without_a_filter_everything_comes_with_all_its_data_points(records: RecordStore) -> None:
    assert read(records) == MADE


@pytest.mark.parametrize("domain_ids", [None, (), ("d1",), ("d3", "d1"), ("d1", "d2", "d3"), ("elsewhere",)])
@pytest.mark.parametrize("recipient", [None, *RECIPIENTS, "nobody@hosted.example", "sales@hosted.exampl"])
@pytest.mark.parametrize("since", [None, NOON, NOON + 15_000, NOON + 15_001, NOON + 30_000, NOON + 30_001])
def test_filters_alone_and_together(
    records: RecordStore, domain_ids: tuple[str, ...] | None, recipient: str | None, since: int | None
) -> None:
    assert read(records, domain_ids=domain_ids, recipient=recipient, since=since) == [
        event
        for event in MADE
        if (domain_ids is None or event.domain_id in domain_ids)
        and (recipient is None or event.recipient == recipient)
        and (since is None or event.at >= since)
    ]


@pytest.mark.parametrize("limit", [1, 7, 10, 29, 30, 31])
@pytest.mark.parametrize("recipient", [None, RECIPIENTS[0]])
def test_pages_put_together_are_the_whole_and_none_is_larger_than_asked(
    records: RecordStore, limit: int, recipient: str | None
) -> None:
    found: list[DeliveryEvent] = []
    while page := read(records, recipient=recipient, after=found[-1].id if found else None, limit=limit):
        assert len(page) <= limit
        found += page
    assert found == [event for event in MADE if recipient in (None, event.recipient)]


def test_behind_the_last_there_is_nothing_and_behind_one_long_erased_all_that_came_later(records: RecordStore) -> None:
    assert read(records, after=MADE[-1].id) == []
    assert read(records, after=an_id(0)) == MADE
    assert read(records, after=MADE[4].id[:-1] + "58") == MADE[5:]


def test_under_another_key_no_recipient_is_found_and_nothing_is_shown(records: RecordStore, backend: Backend) -> None:
    other = backend.records(a_keyring(seed=2))
    assert read(other, recipient=RECIPIENTS[0]) == []
