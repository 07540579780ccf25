"""In which order deliveries to one destination go, and which of them share a transaction."""

from typing import Any

import pytest
from values import NOW, delivery

from appliance.delivery.waiting import MAX_BATCH, Waiting
from appliance.model.delivery import OLDEST_EVERY, Delivery


def filled(*deliveries: Delivery) -> Waiting:
    waiting = Waiting()
    for each in deliveries:
        waiting.add(each)
    return waiting


def batches(waiting: Waiting) -> list[list[str]]:
    found = []
    while batch := waiting.next_batch():
        found.append([each.id for each in batch])
    assert not waiting
    return found


def test_higher_priority_goes_first_and_of_one_priority_what_came_first() -> None:
    waiting = filled(
        delivery("a", "m1"), delivery("b", "m2", priority=10), delivery("c", "m3"), delivery("d", "m4", priority=10)
    )
    assert batches(waiting) == [["b"], ["d"], ["a"], ["c"]]


def test_under_a_flood_of_high_priority_the_oldest_of_the_rest_has_its_share() -> None:
    waiting = filled(*(delivery(f"low{n}", f"l{n}", next_attempt_at=NOW + n) for n in range(10)))
    order = []
    for number in range(50):
        waiting.add(delivery(f"high{number}", f"h{number}", priority=1, next_attempt_at=NOW + 1000 + number))
        order += [each.id for each in waiting.next_batch()]
    low = [each for each in order if each.startswith("low")]
    assert low == [f"low{n}" for n in range(50 // OLDEST_EVERY)]


def test_recipients_of_one_message_share_a_transaction_up_to_its_limit() -> None:
    waiting = filled(*(delivery(f"{n}", "m1") for n in range(MAX_BATCH + 1)), delivery("other", "m2"))
    assert [len(batch) for batch in batches(waiting)] == [MAX_BATCH, 1, 1]


@pytest.mark.parametrize(
    "changes", [{"return_path": "srs0=y@srs.test"}, {"utf8": True}, {"require_tls": True}, {"priority": 1}]
)
def test_what_needs_something_else_has_a_transaction_of_its_own(changes: dict[str, Any]) -> None:
    waiting = filled(delivery("a", "m1"), delivery("b", "m1", **changes))
    assert sorted(batches(waiting)) == [["a"], ["b"]]


def test_what_is_given_back_stands_where_it_stood() -> None:
    waiting = filled(delivery("a", "m1"), delivery("b", "m1"), delivery("c", "m2"))
    waiting.give_back(waiting.next_batch())
    assert batches(waiting) == [["a", "b"], ["c"]]


def test_what_is_wanted_is_taken_and_the_others_keep_their_order() -> None:
    waiting = filled(*(delivery(str(n), f"m{n}", priority=n % 2) for n in range(6)))
    assert sorted(each.id for each in waiting.take(lambda each: each.id in "145")) == ["1", "4", "5"]
    assert [each.id for each in waiting] == ["0", "2", "3"]
    assert [each.id for each in waiting.take_all()] == ["3", "0", "2"]
    assert not waiting
