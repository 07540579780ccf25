"""The log as messages: what belongs together, pages of it, filters, and counts of days."""

from collections.abc import Iterator
from typing import Any

import pytest
from storage_backends import BACKENDS, Backend
from stored_values import an_event

from appliance.logbook.messages import (
    AT_ONCE,
    LoggedMessage,
    MessageFilter,
    event,
    message,
    message_key,
    messages,
    statistics,
)
from appliance.model.event import DeliveryEvent, EventType
from appliance.model.ids import first_id_at
from appliance.model.time import DAY_MS, HOUR_MS
from appliance.privacy.declarations import EVENTS
from appliance.storage.event_rows import event_to_row
from appliance.storage.records import Delete, Insert, RecordStore

NOON = 20_000 * DAY_MS + 12 * HOUR_MS
"""Of some day."""

RECEIVED, DELIVERED, SOFT, HARD, REFUSED = EventType


@pytest.fixture(params=BACKENDS)
def records(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecordStore]:
    backend: Backend = BACKENDS[request.param](tmp_path_factory.mktemp("messages"))
    yield backend.records()
    backend.close()


class Writer:
    """Puts events into a log, each with an id of its instant."""

    def __init__(self, records: RecordStore) -> None:
        self._records = records
        self._made = 0

    def write(
        self,
        number: int,
        type: EventType = RECEIVED,
        recipient: str = "a@one.test",
        late_ms: int = 0,
        **changes: Any,
    ) -> DeliveryEvent:
        """An event of the message of this number, which arrived so many minutes after noon; `late_ms` after that."""
        self._made += 1
        at = NOON + number * 60_000 + late_ms
        made = an_event(
            id=f"{int(first_id_at(at), 16) + self._made:020x}",
            message_id=first_id_at(NOON + number * 60_000),
            at=at,
            type=type,
            recipient=recipient,
            domain_id=str(changes.pop("domain_id", "one")),
            **changes,
        )
        self._records.apply([Insert(EVENTS, event_to_row(made))])
        return made


@pytest.fixture
def writer(records: RecordStore) -> Writer:
    return Writer(records)


def types(found: LoggedMessage) -> list[EventType]:
    return [each.type for each in found.events]


def test_a_message_is_its_events_for_one_recipient(records: RecordStore, writer: Writer) -> None:
    received = writer.write(1, subject="Figures", client_address="192.0.2.7")
    for_another = writer.write(1, recipient="b@one.test")
    writer.write(1, recipient="c@two.test", domain_id="two")
    soft = writer.write(1, SOFT, late_ms=500, subject=None, client_address=None, size=9999)
    delivered = writer.write(1, DELIVERED, late_ms=900, subject=None, client_address=None, size=9999)
    found = {each.events[0].recipient: each for each in messages(records, "one")}
    assert list(found["a@one.test"].events) == [received, soft, delivered]
    assert list(found["b@one.test"].events) == [for_another]
    assert set(found) == {"a@one.test", "b@one.test"}
    arrival = found["a@one.test"].arrival
    assert (arrival.subject, arrival.client_address, arrival.size) == ("Figures", "192.0.2.7", received.size)


def test_a_message_whose_arrival_is_not_kept_begins_with_what_is(records: RecordStore, writer: Writer) -> None:
    soft = writer.write(1, SOFT, late_ms=500)
    hard = writer.write(1, HARD, late_ms=900)
    (found,) = messages(records, "one")
    assert (found.arrival, list(found.events)) == (soft, [soft, hard])


def test_its_name_is_the_same_from_every_event_and_tells_no_address(records: RecordStore, writer: Writer) -> None:
    first, last = writer.write(1), writer.write(1, DELIVERED, "A@One.test", late_ms=50)
    assert message_key(first) == message_key(last)
    assert "one" not in message_key(first)
    found = message(records, message_key(first))
    assert found is not None
    assert types(found) == [RECEIVED, DELIVERED]
    assert found.key == message_key(first)
    for unknown in ("", "nonsense", f"{first.message_id}.000000000000", first.message_id):
        assert message(records, unknown) is None
    assert event(records, last.id) == last
    assert event(records, first_id_at(0)) is None


def test_pages_begin_with_the_newest_and_put_together_they_are_the_whole(records: RecordStore, writer: Writer) -> None:
    for number in range(2 * AT_ONCE + 3):
        for recipient in ("a@one.test", "b@one.test", "c@one.test"):
            writer.write(number, recipient=recipient)
    pages = [messages(records, "one", limit=7)]
    while page := messages(records, "one", after=pages[-1][-1].key, limit=7):
        pages.append(page)
    found = [each for page in pages for each in page]
    assert all(len(page) == 7 for page in pages[:-1])
    assert len(found) == len({each.key for each in found}) == 3 * (2 * AT_ONCE + 3)
    assert [each.arrival.at for each in found] == sorted((each.arrival.at for each in found), reverse=True)


def test_what_happens_meanwhile_moves_nothing_from_page_to_page(records: RecordStore, writer: Writer) -> None:
    for number in range(10):
        writer.write(number)
    before = [each.key for each in messages(records, "one", limit=10)]
    first = messages(records, "one", limit=4)
    # New mail, and news of old mail: none of it shifts what the next page begins with.
    writer.write(11)
    writer.write(2, DELIVERED, late_ms=HOUR_MS)
    writer.write(8, DELIVERED, late_ms=HOUR_MS)
    rest = messages(records, "one", after=first[-1].key, limit=10)
    assert [each.key for each in (*first, *rest)] == before


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (MessageFilter(), [5, 4, 3, 2, 1]),
        (MessageFilter(recipient="B@one.test"), [4]),
        (MessageFilter(sender=""), [3]),
        (MessageFilter(sender="STRANGER@sender.example", type=REFUSED), [5]),
        (MessageFilter(type=DELIVERED), [2, 1]),
        (MessageFilter(since=NOON + 2 * 60_000), [5, 4, 3, 2]),
        (MessageFilter(until=NOON + 2 * 60_000), [1]),
        (MessageFilter(since=NOON + 2 * 60_000, until=NOON + 4 * 60_000, type=DELIVERED), [2]),
        (MessageFilter(recipient="nobody@one.test"), []),
        (MessageFilter(since=NOON + DAY_MS), []),
    ],
)
def test_filters(records: RecordStore, writer: Writer, wanted: MessageFilter, numbers: list[int]) -> None:
    writer.write(1)
    # It arrived before, and was delivered after: what counts is when it came.
    writer.write(1, DELIVERED, late_ms=3 * 60_000)
    writer.write(2)
    writer.write(2, DELIVERED, late_ms=1000)
    writer.write(3, sender="")
    writer.write(4, recipient="b@one.test")
    writer.write(5, REFUSED)
    found = messages(records, "one", wanted)
    assert [(each.arrival.at - NOON) // 60_000 for each in found] == numbers


def test_what_is_meant_is_shown_whole(records: RecordStore, writer: Writer) -> None:
    writer.write(1)
    writer.write(1, DELIVERED, late_ms=100)
    (found,) = messages(records, "one", MessageFilter(type=DELIVERED))
    assert types(found) == [RECEIVED, DELIVERED]


def test_a_domain_without_a_log_has_no_messages(records: RecordStore, writer: Writer) -> None:
    made = writer.write(1)
    records.apply([Delete(EVENTS, {"domain_id": "one"})])
    assert messages(records, "one") == []
    assert messages(records, "one", after=message_key(made)) == []
    assert message(records, message_key(made)) is None


def test_days_are_counted_from_midnight_to_midnight_in_utc(records: RecordStore, writer: Writer) -> None:
    midnight = 12 * 60
    for number in (-midnight - 1, -midnight, midnight - 1):
        writer.write(number)
    writer.write(0, REFUSED)
    writer.write(0, REFUSED, domain_id="two")
    writer.write(midnight, DELIVERED)
    yesterday, today, tomorrow = statistics(records, "one", 3, NOON + DAY_MS)
    assert [each.day for each in (yesterday, today, tomorrow)] == ["2024-10-03", "2024-10-04", "2024-10-05"]
    assert yesterday.counts == {RECEIVED: 1, DELIVERED: 0, SOFT: 0, HARD: 0, REFUSED: 0}
    assert today.counts == {RECEIVED: 2, DELIVERED: 0, SOFT: 0, HARD: 0, REFUSED: 1}
    assert tomorrow.counts == {RECEIVED: 0, DELIVERED: 1, SOFT: 0, HARD: 0, REFUSED: 0}
