"""Help requests, and what they let operators read."""

import pytest
from accounts_office import NOON, Office
from stored_values import an_id

from appliance.accounts.help import (
    MAX_BODY_CHARACTERS,
    MAX_LOG_ACCESS_MS,
    MAX_OPEN_REQUESTS,
    MAX_QUERY_CHARACTERS,
    MAX_REPLIES,
    MAX_SUBJECT_CHARACTERS,
    Help,
)
from appliance.model.help import HelpRequest
from appliance.model.ids import id_source
from appliance.model.refused import Refused
from appliance.model.time import DAY_MS, HOUR_MS
from appliance.privacy.declarations import HELP_REPLIES, HELP_REQUESTS, LOG_ACCESSES
from appliance.storage.records import Page


class Desk:
    """A help desk whose clock a test moves."""

    def __init__(self, office: Office) -> None:
        self.now = NOON
        self.office = office
        self.help = Help(office.records, self.clock, id_source(self.clock))
        self.ada = office.account()

    def clock(self) -> int:
        return self.now

    def ask(self, subject: str = "My mail is late", until: int | None = None) -> HelpRequest:
        return self.help.ask(self.ada, subject, "It came after an hour.", until)


@pytest.fixture
def desk(office: Office) -> Desk:
    """With an account, and nothing asked."""
    return Desk(office)


# ------------------------------------------------------------------ asking and answering


def test_what_was_asked_and_answered_comes_back_in_order(desk: Desk) -> None:
    request = desk.help.ask(desk.ada, "  My mail is late ", "One line.\r\n\tAnother.\n")
    assert (request.subject, request.body) == ("My mail is late", "One line.\n\tAnother.")
    assert (request.created_at, request.open, request.log_access_until) == (NOON, True, None)
    desk.now += 1
    desk.help.reply(request.id, "Which alias?", from_operator=True)
    answered = desk.help.reply(request.id, "sales@", from_operator=False)
    assert answered == request == desk.help.request(request.id)
    replies = [(each.from_operator, each.body, each.created_at) for each in desk.help.replies(request.id)]
    assert replies == [(True, "Which alias?", NOON + 1), (False, "sales@", NOON + 1)]


def test_a_closed_request_takes_no_more_replies_and_no_grant(desk: Desk) -> None:
    request = desk.ask(until=NOON + HOUR_MS)
    closed = desk.help.reply(request.id, "It was greylisting.", from_operator=True, close=True)
    assert (closed.open, closed.closed_at, closed.log_access_until) == (False, NOON, None)
    with pytest.raises(Refused, match="closed"):
        desk.help.reply(request.id, "Thank you.", from_operator=False)
    with pytest.raises(Refused, match="closed"):
        desk.help.set_log_access(request.id, NOON + HOUR_MS)
    assert len(desk.help.replies(request.id)) == 1


@pytest.mark.parametrize(
    ("subject", "body", "until", "field"),
    [
        (" ", "body", None, "subject"),
        ("two\nlines", "body", None, "subject"),
        ("x" * (MAX_SUBJECT_CHARACTERS + 1), "body", None, "subject"),
        ("subject", "", None, "body"),
        ("subject", "a bell: \a", None, "body"),
        ("subject", "half of a pair: \ud83d", None, "body"),
        ("subject", "x" * (MAX_BODY_CHARACTERS + 1), None, "body"),
        ("subject", "body", NOON, "logAccessUntil"),
        ("subject", "body", NOON + MAX_LOG_ACCESS_MS + 1, "logAccessUntil"),
    ],
)
def test_what_is_empty_too_long_unprintable_or_at_an_odd_time_is_refused(
    desk: Desk, subject: str, body: str, until: int | None, field: str
) -> None:
    with pytest.raises(Refused) as refused:
        desk.help.ask(desk.ada, subject, body, until)
    assert refused.value.field == field
    assert desk.help.count() == 0


def test_nobody_fills_the_store_with_questions_or_replies(desk: Desk) -> None:
    requests = [desk.ask() for _ in range(MAX_OPEN_REQUESTS)]
    with pytest.raises(Refused, match="open help requests"):
        desk.ask()
    desk.help.reply(requests[0].id, "Never mind.", from_operator=False, close=True)
    desk.ask()
    for number in range(MAX_REPLIES):
        desk.help.reply(requests[1].id, f"Reply {number}", from_operator=False)
    with pytest.raises(Refused, match="replies"):
        desk.help.reply(requests[1].id, "One more", from_operator=False)
    assert len(desk.help.replies(requests[1].id)) == MAX_REPLIES


def test_a_request_that_there_is_not_is_refused(desk: Desk) -> None:
    assert desk.help.request(an_id(1)) is None
    with pytest.raises(Refused, match="no such"):
        desk.help.reply(an_id(1), "Hello?", from_operator=True)


def test_operators_page_through_all_of_them_or_only_the_open_ones(desk: Desk) -> None:
    first, second, third = desk.ask("first"), desk.ask("second"), desk.ask("third")
    desk.help.reply(second.id, "Done.", from_operator=True, close=True)
    page = desk.help.page(Page(limit=2, newest_first=True))
    assert [each.id for each in page] == [third.id, second.id]
    assert [each.id for each in desk.help.page(Page(after=second.id, limit=2, newest_first=True))] == [first.id]
    assert [each.id for each in desk.help.page(Page(), open_ones=True)] == [first.id, third.id]
    assert [each.id for each in desk.help.page(Page(), open_ones=False)] == [second.id]
    counts = [desk.help.count(open_ones=which) for which in (None, True, False)]
    assert counts == [3, 2, 1]
    assert [each.id for each in desk.help.of_account(desk.ada.id)] == [third.id, second.id, first.id]


# ------------------------------------------------------------------ reading logs


def test_a_log_may_be_read_until_the_grant_ends_and_not_a_moment_longer(desk: Desk) -> None:
    assert desk.help.may_read_log(desk.ada.id) is None
    request = desk.ask(until=NOON + HOUR_MS)
    assert desk.help.may_read_log(desk.ada.id) == request
    desk.now = NOON + HOUR_MS - 1
    assert desk.help.may_read_log(desk.ada.id) == request
    desk.now = NOON + HOUR_MS
    assert desk.help.may_read_log(desk.ada.id) is None


def test_a_grant_opens_no_log_of_another_account(desk: Desk) -> None:
    bob = desk.office.account("bob@people.test")
    desk.ask(until=NOON + HOUR_MS)
    assert desk.help.may_read_log(bob.id) is None


def test_a_grant_can_be_given_later_and_ended_at_once(desk: Desk) -> None:
    request = desk.ask()
    granting = desk.help.set_log_access(request.id, NOON + DAY_MS)
    assert desk.help.may_read_log(desk.ada.id) == granting
    assert desk.help.set_log_access(request.id, None) == request
    assert desk.help.may_read_log(desk.ada.id) is None
    with pytest.raises(Refused) as refused:
        desk.help.set_log_access(request.id, NOON - 1)
    assert refused.value.field == "until"


def test_closing_a_request_ends_its_grant(desk: Desk) -> None:
    request = desk.ask(until=NOON + DAY_MS)
    desk.help.reply(request.id, "Thank you.", from_operator=False, close=True)
    assert desk.help.may_read_log(desk.ada.id) is None


def test_of_two_grants_the_later_request_is_named_and_the_other_still_counts(desk: Desk) -> None:
    first, second = desk.ask("first", NOON + DAY_MS), desk.ask("second", NOON + HOUR_MS)
    assert desk.help.may_read_log(desk.ada.id) == second
    desk.now += 2 * HOUR_MS
    assert desk.help.may_read_log(desk.ada.id) == first


def test_an_account_sees_every_reading_of_its_log(desk: Desk) -> None:
    request = desk.ask(until=NOON + DAY_MS)
    desk.help.record_access(request, "op@onward.test", "messages of example.org")
    desk.now += HOUR_MS
    desk.help.record_access(request, "op@onward.test", "x" * 2 * MAX_QUERY_CHARACTERS)
    (latest, under), (earliest, _) = desk.help.accesses(desk.ada.id)
    assert under.id == request.id
    assert (earliest.operator, earliest.query, earliest.created_at) == (
        "op@onward.test",
        "messages of example.org",
        NOON,
    )
    assert (latest.created_at, latest.query) == (NOON + HOUR_MS, "x" * MAX_QUERY_CHARACTERS)
    bob = desk.office.account("bob@people.test")
    assert desk.help.accesses(bob.id) == []


def test_what_was_said_and_read_is_erased_before_the_request_that_it_was_under(desk: Desk) -> None:
    request = desk.ask(until=NOON + DAY_MS)
    desk.help.record_access(request, "op@onward.test", "messages")
    desk.help.reply(request.id, "Done.", from_operator=True, close=True)
    left = []
    for collection in (LOG_ACCESSES, HELP_REPLIES, HELP_REQUESTS):
        (retention,) = collection.retention
        assert retention.setting == "365d"
        assert desk.office.records.sweep(collection, retention, NOON) == 0
        left.append(desk.office.records.sweep(collection, retention, NOON + 1))
    assert left == [1, 1, 1]


def test_an_open_request_is_not_swept(desk: Desk) -> None:
    desk.ask()
    (retention,) = HELP_REQUESTS.retention
    assert desk.office.records.sweep(HELP_REQUESTS, retention, NOON + 10_000 * DAY_MS) == 0
