"""What each log level lets through, and which data points are left of it: every level by every type of event."""

from dataclasses import replace

import pytest
from msgspec import structs
from values import NOW, answer, delivery

from appliance.logbook.events import MAX_RESPONSE, Arrival, Logbook
from appliance.model.delivery import Recipient
from appliance.model.domain import LogLevel
from appliance.model.event import DeliveryEvent, EventType
from appliance.model.ids import id_source

LEVELS = {level.value: level for level in LogLevel}
"""Domains by the name of their level; any other domain is not known."""

ARRIVAL = Arrival("m1", "friend@sender.test", 4096, "192.0.2.17", "mail.sender.test", "Quarterly figures")
OF_THE_CLIENT = {"client_address", "client_name", "subject"}
"""Data points that only the level `events` may have."""

ERRORS = {EventType.SOFT_BOUNCED, EventType.HARD_BOUNCED, EventType.REFUSED}


@pytest.fixture
def logbook() -> Logbook:
    return Logbook(lambda domain_id: LEVELS.get(domain_id, LogLevel.NONE), lambda: NOW, id_source())


def points(event: DeliveryEvent) -> set[str]:
    """The data points that say something."""
    return {name for name, point in structs.asdict(event).items() if point is not None}


@pytest.mark.parametrize("type", EventType)
@pytest.mark.parametrize("level", LogLevel)
def test_what_is_left_of_an_arrival(logbook: Logbook, level: LogLevel, type: EventType) -> None:
    made = logbook.arrival(type, ARRIVAL, "sales@example.org", level.value, answer(550, text="no such user"))
    if level is LogLevel.NONE or (level is LogLevel.ERRORS and type not in ERRORS):
        assert made == []
        return
    [event] = made
    assert (event.type, event.domain_id, event.message_id) == (type, level.value, "m1")
    assert (event.at, event.attempt, event.size) == (NOW, 0, 4096)
    assert (event.sender, event.recipient) == ("friend@sender.test", "sales@example.org")
    assert (event.code, event.enhanced_code, event.response) == (550, "5.0.0", "no such user")
    assert points(event) & OF_THE_CLIENT == (OF_THE_CLIENT if level is LogLevel.EVENTS else set())


@pytest.mark.parametrize("type", EventType)
@pytest.mark.parametrize("level", LogLevel)
def test_what_is_left_of_an_attempt(logbook: Logbook, level: LogLevel, type: EventType) -> None:
    made = logbook.attempt(
        type,
        delivery(recipients=(Recipient("sales@example.org", level.value),)),
        3,
        answer(450, reason="mailbox-full", text="later", duration_ms=12),
    )
    if level is LogLevel.NONE or (level is LogLevel.ERRORS and type not in ERRORS):
        assert made == []
        return
    [event] = made
    assert (event.type, event.attempt, event.duration_ms, event.reason) == (type, 3, 12, "mailbox-full")
    assert (event.server_name, event.server_address) == ("mx.home.test", "192.0.2.1")
    assert points(event) & OF_THE_CLIENT == set()


def test_each_recipient_of_a_delivery_is_logged_as_its_own_domain_allows(logbook: Logbook) -> None:
    both = (*(Recipient(f"sales@{level}.test", level) for level in LEVELS), Recipient("x@gone.test", "unknown"))
    for type, logged in (
        (EventType.DELIVERED, ["sales@events.test"]),
        (EventType.HARD_BOUNCED, ["sales@errors.test", "sales@events.test"]),
    ):
        made = logbook.attempt(type, delivery(recipients=both), 1, answer())
        assert [event.recipient for event in made] == logged
        assert len({event.id for event in made}) == len(made)


def test_neither_an_unknown_domain_nor_mail_of_our_own_is_logged(logbook: Logbook) -> None:
    for domain_id in ("unknown", ""):
        assert logbook.arrival(EventType.REFUSED, ARRIVAL, "x@y.test", domain_id, answer(550)) == []
        own = delivery(recipients=(Recipient("friend@sender.test", domain_id),))
        assert logbook.attempt(EventType.HARD_BOUNCED, own, 1, answer(550)) == []


def test_our_own_mail_is_not_logged_even_where_the_level_of_no_domain_is_asked_for() -> None:
    logbook = Logbook(lambda _: LogLevel.EVENTS, lambda: NOW, id_source())
    own = delivery(recipients=(Recipient("friend@sender.test", ""),))
    assert logbook.attempt(EventType.DELIVERED, own, 1, answer()) == []


def test_no_event_names_the_mailbox_behind_the_alias(logbook: Logbook) -> None:
    [event] = logbook.attempt(
        EventType.DELIVERED, delivery(recipients=(Recipient("sales@example.org", "events"),)), 1, answer()
    )
    assert "alice" not in repr(event)
    assert "srs0" not in repr(event)


def test_a_server_that_talks_too_much_is_cut_short(logbook: Logbook) -> None:
    long = answer(550, text="x" * 5000)
    to = delivery(recipients=(Recipient("sales@example.org", "events"),))
    for [event] in (
        logbook.attempt(EventType.HARD_BOUNCED, to, 1, long),
        logbook.arrival(EventType.REFUSED, ARRIVAL, "sales@example.org", "events", long),
    ):
        assert event.response == "x" * MAX_RESPONSE


def test_an_answer_without_an_enhanced_code_has_none_in_the_log(logbook: Logbook) -> None:
    [event] = logbook.arrival(EventType.REFUSED, ARRIVAL, "sales@example.org", "events", answer(550, enhanced_code=""))
    assert event.enhanced_code is None


def test_what_is_not_known_of_a_client_is_left_out(logbook: Logbook) -> None:
    unknown = replace(ARRIVAL, client_name=None, subject=None, sender="")
    [event] = logbook.arrival(EventType.RECEIVED, unknown, "sales@example.org", "events", answer())
    assert points(event) & OF_THE_CLIENT == {"client_address"}
    assert event.sender == ""
