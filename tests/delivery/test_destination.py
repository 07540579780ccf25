"""What is remembered of one destination: the number of its couriers, its pauses, and what an outcome says of it."""

import pytest
from values import NOW, answer

from appliance.delivery.destination import (
    FIRST_PAUSE_MS,
    INITIAL_COURIERS,
    LONGEST_PAUSE_MS,
    WIDER_AFTER_MS,
    Destination,
    Window,
    has_answered,
    trouble,
)
from appliance.delivery.schedule import RetrySchedule
from appliance.model.delivery import Deferred, Delivered, Failed, Outcome

SCHEDULE = RetrySchedule((60_000, 300_000, 900_000, 1_800_000), 5 * 86_400_000)
REFUSED = answer(0, reason="connection-failed", text="refused")


def test_a_healthy_destination_has_all_its_couriers_within_a_few_dozen_messages() -> None:
    window = Window(20)
    assert window.limit == INITIAL_COURIERS == 5
    messages = 0
    while window.limit < 20:
        window.widen(NOW)
        messages += 1
    assert messages <= 36
    for _ in range(100):
        window.widen(NOW)
    assert window.limit == 20


def test_a_small_maximum_is_never_passed_not_even_at_first() -> None:
    window = Window(3)
    assert window.limit == 3
    window.widen(NOW)
    assert window.limit == 3


def test_what_a_destination_has_shown_to_bear_is_kept_for_a_while_and_then_one_more_is_tried() -> None:
    window = Window(20)
    window.narrow(3, NOW)
    for _ in range(1000):
        window.widen(NOW + WIDER_AFTER_MS - 1)
    assert window.limit == 3
    window.widen(NOW + WIDER_AFTER_MS)
    assert window.limit == 4
    for _ in range(3):
        window.widen(NOW + WIDER_AFTER_MS)
    assert window.limit == 4, "then one more for each round of its couriers"
    window.widen(NOW + WIDER_AFTER_MS)
    assert window.limit == 5


def test_nothing_narrows_below_one_courier() -> None:
    window = Window(5)
    for _ in range(10):
        window.narrow(0, NOW)
    assert window.limit == 1


def test_pauses_double_until_they_are_long_and_begin_anew_with_an_answer() -> None:
    destination = Destination("home.test", 20)
    lengths = []
    for _ in range(40):
        destination.leave_alone(NOW, REFUSED, Deferred(REFUSED), SCHEDULE)
        assert destination.pause is not None
        lengths.append(destination.pause.until - NOW)
        destination.end_pause()
        assert destination.in_trouble
    assert lengths[:5] == [FIRST_PAUSE_MS, 120_000, 240_000, 480_000, LONGEST_PAUSE_MS]
    assert set(lengths[4:]) == {LONGEST_PAUSE_MS}
    destination.has_answered(NOW)
    assert not destination.in_trouble
    destination.leave_alone(NOW, REFUSED, None, SCHEDULE)
    assert destination.pause is not None
    assert destination.pause.until == NOW + FIRST_PAUSE_MS


def test_no_pause_is_longer_than_the_configured_wait_between_attempts() -> None:
    destination = Destination("home.test", 20)
    for expected in (1000, 90_000, 240_000, 300_000, 300_000):
        destination.leave_alone(NOW, REFUSED, None, RetrySchedule((1000, 90_000, 300_000), 86_400_000))
        assert destination.pause is not None
        assert destination.pause.until - NOW == expected


def test_after_a_pause_one_courier_tries_and_the_rest_follow_quickly() -> None:
    destination = Destination("home.test", 20)
    destination.leave_alone(NOW, REFUSED, None, SCHEDULE)
    destination.end_pause()
    assert destination.window.limit == 1
    for _ in range(19):
        destination.has_answered(NOW)
    assert destination.window.limit == 20


@pytest.mark.parametrize(
    ("outcome", "blamed", "blamed_where_tls_was_required"),
    [
        (Delivered(answer()), False, False),
        (Failed(answer(550, reason="mailbox-unknown")), False, False),
        (Deferred(answer(450, reason="destination-deferred")), False, False),
        (Deferred(answer(421, reason="destination-deferred")), True, True),
        (Deferred(answer(0, reason="connection-lost")), True, True),
        (Deferred(answer(0, reason="connection-failed")), True, False),
        (Deferred(answer(554, reason="host-refused")), True, False),
        (Deferred(answer(0, reason="dns-failed")), True, False),
        (Deferred(answer(0, reason="spool-failed")), False, False),
        (Failed(answer(0, reason="tls-required")), False, False),
    ],
)
def test_some_answers_are_about_the_destination_and_not_about_the_message(
    outcome: Outcome, blamed: bool, blamed_where_tls_was_required: bool
) -> None:
    outcomes = [Delivered(answer()), outcome]
    assert (trouble(outcomes, tls_was_required=False) is outcome.answer) is blamed
    assert (trouble(outcomes, tls_was_required=True) is outcome.answer) is blamed_where_tls_was_required


@pytest.mark.parametrize(
    ("outcome", "answered"),
    [
        (Delivered(answer()), True),
        (Failed(answer(550, reason="mailbox-unknown")), True),
        (Deferred(answer(450, reason="destination-deferred")), True),
        (Deferred(answer(0, reason="spool-failed")), False),
        (Deferred(answer(0, reason="internal-error")), False),
        # One that could not be given what requires TLS has not been tried with other mail.
        (Failed(answer(0, reason="tls-required")), False),
        (Deferred(answer(554, reason="host-refused")), False),
    ],
)
def test_a_destination_has_answered_when_it_has_dealt_with_a_message(outcome: Outcome, answered: bool) -> None:
    assert has_answered([outcome]) is answered
