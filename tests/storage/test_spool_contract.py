"""What every spool store keeps to, whatever it is made of."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs
from storage_backends import BACKENDS, MONGODS, Backend, MongoBackend
from stored_values import NOON, a_delivery, a_keyring, an_event, an_id

from appliance.model.delivery import OLDEST_EVERY, Delivery, DeliveryState, Recipient
from appliance.model.event import EventType
from appliance.model.hold import Hold
from appliance.model.ids import first_id_at
from appliance.privacy.declarations import EVENTS, RETURN_PATHS, Retention
from appliance.storage.codec import RowRefused
from appliance.storage.event_rows import row_to_event
from appliance.storage.records import Damaged, Duplicate, StoreUnavailable
from appliance.storage.spool import (
    PART_OCTETS,
    Abandon,
    Accept,
    AddHold,
    AddPart,
    ClockMarks,
    Complete,
    CountUse,
    Forget,
    ForgetUses,
    Keep,
    LiftHold,
    MarkClocks,
    Record,
    ReturnPath,
    SpoolStore,
)
from appliance.storage.sqlite_spool import SqliteSpool
from smtp.address import Address


@pytest.fixture(params=[*BACKENDS, *MONGODS])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """A fresh place for stores."""
    place: Backend
    if request.param in BACKENDS:
        place = BACKENDS[request.param](tmp_path)
    else:
        place = MongoBackend(request.getfixturevalue(request.param))
    yield place
    place.close()


def accept(spool: SpoolStore, *numbers: int, content: bytes = b"content") -> None:
    """One message with one delivery for each number."""
    for number in numbers:
        spool.apply([AddPart(an_id(number), 0, content), Accept([a_delivery(number)])])


def outbox_ids(spool: SpoolStore) -> list[object]:
    return [row["id"] for row in spool.outbox(100)]


# ------------------------------------------------------------------ accepting


def test_what_is_accepted_can_be_read(spool: SpoolStore) -> None:
    deliveries = [
        a_delivery(1, message_id=an_id(9)),
        a_delivery(
            2,
            message_id=an_id(9),
            sender="",
            return_path="",
            target=Address('odd "one" @ home', "[IPv6:2001:db8::1]"),
            recipients=(Recipient("a@hosted.example", an_id(1)), Recipient("b@hosted.example", "")),
            eight_bit=True,
            priority=10,
            state=DeliveryState.HELD,
            attempts=3,
            next_attempt_at=NOON + 5,
            last_response="451 4.3.0 später",
        ),
        a_delivery(
            3,
            message_id=an_id(9),
            recipients=(
                Recipient("süd@hosted.example", an_id(1), "NEVER", "utf-8;jörg;x@sender.example"),
                Recipient("b@hosted.example", an_id(1), "SUCCESS,FAILURE"),
            ),
            target=Address("jörg", "mailbox.example"),
            utf8=True,
            require_tls=True,
            ret="HDRS",
            envid="QQ 314",
        ),
    ]
    octets = bytes(range(256)) * 16
    spool.apply([AddPart(an_id(9), 0, octets), AddPart(an_id(9), 1, b""), Accept(deliveries)])
    assert spool.deliveries() == deliveries
    assert [spool.delivery(delivery.id) for delivery in deliveries] == deliveries
    assert [spool.part(an_id(9), part) for part in range(3)] == [octets, b"", None]
    assert spool.part(an_id(8), 0) is None
    assert spool.delivery(an_id(8)) is None


def test_a_target_beyond_ascii_needs_smtputf8_even_where_its_row_does_not_say_so(spool: SpoolStore) -> None:
    """As rows of earlier versions do not; read otherwise, such a delivery could never be sent."""
    silent = [
        a_delivery(1, target=Address("jörg", "mailbox.example"), utf8=False),
        a_delivery(2, target=Address("joerg", "bücher.example"), utf8=False),
    ]
    spool.apply([AddPart(an_id(1), 0, b"one"), AddPart(an_id(2), 0, b"two"), Accept(silent)])
    assert [each.utf8 for each in spool.deliveries()] == [True, False]


def test_what_is_accepted_is_there_when_the_store_is_opened_again(backend: Backend) -> None:
    first = backend.spool()
    accept(first, 1)
    first.close()
    second = backend.spool()
    assert second.deliveries() == [a_delivery(1)]
    assert second.part(an_id(1), 0) == b"content"


def test_a_part_of_the_largest_size(spool: SpoolStore) -> None:
    octets = b"0123456789abcdef" * (PART_OCTETS // 16)
    spool.apply([AddPart(an_id(1), 0, octets)])
    assert spool.part(an_id(1), 0) == octets
    with pytest.raises(RowRefused, match=r"content\.octets"):
        spool.apply([AddPart(an_id(1), 1, octets + b"x")])


def test_a_group_is_all_or_nothing(spool: SpoolStore) -> None:
    accept(spool, 1)
    with pytest.raises(Duplicate):
        spool.apply(
            [
                AddPart(an_id(2), 0, b"two"),
                Accept([a_delivery(2)], [an_event(2)], [ReturnPath("token", "s@sender.example", "abcdef", NOON)]),
                Complete(an_id(1), an_id(1), [an_event(3)]),
                Accept([a_delivery(4), a_delivery(4)]),
            ]
        )
    assert spool.deliveries() == [a_delivery(1)]
    assert (spool.part(an_id(1), 0), spool.part(an_id(2), 0)) == (b"content", None)
    assert spool.outbox(10) == []
    assert spool.return_path("token") is None
    accept(spool, 2)
    assert spool.depth()[0] == 2


def test_a_refused_value_stops_the_whole_group(spool: SpoolStore) -> None:
    with pytest.raises(RowRefused, match=r"deliveries\.sender"):
        spool.apply([AddPart(an_id(1), 0, b"x"), Accept([a_delivery(1, sender=b"octets")])])
    assert spool.part(an_id(1), 0) is None


def test_an_empty_group_is_nothing(spool: SpoolStore) -> None:
    spool.apply([])
    spool.apply([Accept([]), Record([]), Forget()])
    assert spool.depth() == (0, None)


def test_operations_of_a_group_follow_each_other(spool: SpoolStore) -> None:
    """What is accepted, deferred and completed within one group is gone at its end; what comes later stays."""
    spool.apply(
        [
            AddPart(an_id(1), 0, b"one"),
            Accept([a_delivery(1)]),
            Keep(a_delivery(1, attempts=1)),
            Complete(an_id(1), an_id(1)),
            AddPart(an_id(2), 0, b"two"),
            Accept([a_delivery(2)]),
            AddPart(an_id(3), 0, b"broken off"),
            Abandon(an_id(3)),
        ]
    )
    assert spool.deliveries() == [a_delivery(2)]
    assert [spool.part(an_id(number), 0) for number in (1, 2, 3)] == [None, b"two", None]


# ------------------------------------------------------------------ claiming


def test_what_is_due_is_claimed_once_and_the_earliest_first(spool: SpoolStore) -> None:
    for number, due in ((1, NOON + 2), (2, NOON), (3, NOON + 1), (4, NOON + 3)):
        spool.apply([Accept([a_delivery(number, next_attempt_at=due)])])
    assert spool.claim(NOON - 1, 10) == []
    assert [delivery.id for delivery in spool.claim(NOON + 2, 2)] == [an_id(2), an_id(3)]
    (third,) = spool.claim(NOON + 2, 2)
    assert third == a_delivery(1, next_attempt_at=NOON + 2, state=DeliveryState.UNDER_WAY)
    assert spool.claim(NOON + 2, 2) == []
    assert spool.delivery(an_id(1)) == third


def test_a_destination_that_is_left_out_is_passed_over(spool: SpoolStore) -> None:
    def to(number: int, domain: str) -> Delivery:
        return a_delivery(number, target=Address("someone", domain), next_attempt_at=NOON + number)

    spool.apply([Accept([to(1, "Full.example"), to(2, "other.example")])])
    spool.apply([Accept([to(3, "full.example"), to(4, "third.example")])])
    later = NOON + 10
    assert spool.next_due(["full.example"]) == NOON + 2
    assert spool.next_due(["full.example", "other.example", "third.example"]) is None
    assert spool.claim(later, 10, ["full.example", "other.example", "third.example"]) == []
    assert [each.id for each in spool.claim(later, 10, {"full.example", "third.example"})] == [an_id(2)]
    # The limit counts what is claimed, not what is passed over.
    assert [each.id for each in spool.claim(later, 1, ["full.example"])] == [an_id(4)]
    assert [each.id for each in spool.claim(later, 10)] == [an_id(1), an_id(3)]


def test_of_a_claim_most_is_of_high_priority_and_a_share_is_for_the_oldest_of_the_rest(spool: SpoolStore) -> None:
    high = [a_delivery(number, priority=10, next_attempt_at=NOON + number) for number in range(1, 21)]
    low = [a_delivery(number, priority=number % 2 - 7, next_attempt_at=NOON - number) for number in range(21, 41)]
    spool.apply([Accept(high + low)])
    share = 10 // OLDEST_EVERY
    claimed = [delivery.id for delivery in spool.claim(NOON + 100, 10)]
    assert claimed == [an_id(n) for n in (40, 39)[:share]] + [an_id(n) for n in range(1, 11 - share)]
    # What one priority does not use, the others have.
    left = [delivery.priority for delivery in spool.claim(NOON + 100, 30)]
    assert len(left) == 30
    assert left.count(10) == 20 - (10 - share)
    assert spool.next_due() is None


def test_high_priority_that_is_not_due_yet_is_neither_claimed_nor_in_the_way(spool: SpoolStore) -> None:
    spool.apply([Accept([a_delivery(1, priority=10, next_attempt_at=NOON + 5)])])
    spool.apply([Accept([a_delivery(2, priority=-3), a_delivery(3, priority=0, next_attempt_at=NOON + 9)])])
    assert [delivery.id for delivery in spool.claim(NOON, 10)] == [an_id(2)]
    assert spool.next_due() == NOON + 5
    assert spool.next_due(after=NOON + 4) == NOON + 5
    assert spool.next_due(after=NOON + 5) == NOON + 9
    assert [delivery.id for delivery in spool.claim(NOON + 9, 1)] == [an_id(1)]
    assert spool.next_due() == NOON + 9


def test_a_delivery_that_is_kept_with_another_target_is_found_by_the_new_one(spool: SpoolStore) -> None:
    accept(spool, 1)
    spool.apply([Keep(a_delivery(1, target=Address("operator", "new.example")))])
    assert spool.claim(NOON, 10, ["new.example"]) == []
    assert [each.id for each in spool.claim(NOON, 10, ["mailbox.example"])] == [an_id(1)]


def test_what_is_held_or_under_way_is_not_due(spool: SpoolStore) -> None:
    spool.apply(
        [Accept([a_delivery(1, state=DeliveryState.HELD), a_delivery(2), a_delivery(3, next_attempt_at=NOON + 7)])]
    )
    assert spool.next_due() == NOON
    assert [delivery.id for delivery in spool.claim(NOON, 10)] == [an_id(2)]
    assert spool.next_due() == NOON + 7
    spool.apply([Complete(an_id(3), an_id(3))])
    assert spool.next_due() is None


def test_recovery_gives_back_what_was_under_way(backend: Backend) -> None:
    first = backend.spool()
    accept(first, 1)
    first.apply([Accept([a_delivery(2, state=DeliveryState.HELD)])])
    first.claim(NOON, 10)
    first.close()
    second = backend.spool()
    second.recover()
    # Also what was held: it opens.
    assert second.deliveries() == [a_delivery(1), a_delivery(2)]
    assert len(second.claim(NOON, 10)) == 2


def test_recovery_erases_content_that_no_delivery_needs(spool: SpoolStore) -> None:
    accept(spool, 1)
    spool.apply([AddPart(an_id(2), 0, b"never"), AddPart(an_id(2), 1, b"accepted")])
    spool.recover()
    assert [spool.part(an_id(1), 0), spool.part(an_id(2), 0), spool.part(an_id(2), 1)] == [b"content", None, None]


# ------------------------------------------------------------------ keeping and completing


def test_the_content_goes_with_the_last_delivery(spool: SpoolStore) -> None:
    message = an_id(9)
    spool.apply(
        [
            AddPart(message, 0, b"zero"),
            AddPart(message, 1, b"one"),
            Accept([a_delivery(1, message_id=message), a_delivery(2, message_id=message)]),
        ]
    )
    accept(spool, 3)
    spool.apply([Complete(an_id(1), message, [an_event(1, type=EventType.DELIVERED)])])
    assert (spool.part(message, 0), spool.part(message, 1)) == (b"zero", b"one")
    spool.apply([Complete(an_id(2), message, [an_event(2, type=EventType.HARD_BOUNCED)])])
    assert (spool.part(message, 0), spool.part(message, 1)) == (None, None)
    assert spool.deliveries() == [a_delivery(3)]
    assert spool.part(an_id(3), 0) == b"content"
    assert outbox_ids(spool) == [an_id(1), an_id(2)]


def test_the_last_deliveries_of_a_message_in_one_group(spool: SpoolStore) -> None:
    message = an_id(9)
    spool.apply(
        [AddPart(message, 0, b"x"), Accept([a_delivery(1, message_id=message), a_delivery(2, message_id=message)])]
    )
    spool.apply([Complete(an_id(1), message), Complete(an_id(2), message)])
    assert spool.part(message, 0) is None
    assert spool.depth() == (0, None)


def test_a_delivery_that_is_kept_says_what_it_was_given(spool: SpoolStore) -> None:
    accept(spool, 1, 2)
    (claimed, _) = spool.claim(NOON, 10)
    deferred = structs.replace(
        claimed,
        state=DeliveryState.WAITING,
        attempts=1,
        next_attempt_at=NOON + 60_000,
        last_response="451 4.7.1 Greylisted",
    )
    spool.apply([Keep(deferred, [an_event(5, type=EventType.SOFT_BOUNCED)])])
    assert spool.delivery(an_id(1)) == deferred
    assert spool.claim(NOON, 10) == []
    assert spool.next_due() == NOON + 60_000
    assert [delivery.last_response for delivery in spool.claim(NOON + 60_000, 10)] == ["451 4.7.1 Greylisted"]
    assert outbox_ids(spool) == [an_id(5)]


def test_what_was_dropped_does_not_come_back_when_its_courier_returns(spool: SpoolStore) -> None:
    accept(spool, 1)
    (claimed,) = spool.claim(NOON, 1)
    spool.apply([Complete(claimed.id, claimed.message_id)])
    spool.apply([Keep(structs.replace(claimed, state=DeliveryState.WAITING))])
    assert spool.depth() == (0, None)
    spool.apply([Complete(claimed.id, claimed.message_id)])


def test_a_reception_that_is_broken_off_leaves_nothing(spool: SpoolStore) -> None:
    accept(spool, 1)
    spool.apply([AddPart(an_id(2), 0, b"x")])
    spool.apply([Abandon(an_id(2))])
    assert spool.part(an_id(2), 0) is None
    # But what is accepted is never abandoned.
    spool.apply([Abandon(an_id(1))])
    assert spool.part(an_id(1), 0) == b"content"


def test_tidying_a_spool_in_order_leaves_everything_as_it_is(spool: SpoolStore) -> None:
    accept(spool, 1)
    spool.apply([AddPart(an_id(2), 0, b"on its way in")])
    spool.claim(NOON, 1)
    assert spool.tidy()
    assert [spool.part(an_id(number), 0) for number in (1, 2)] == [b"content", b"on its way in"]
    assert spool.deliveries() == [a_delivery(1, state=DeliveryState.UNDER_WAY)]


def test_recovery_sets_back_and_erases_more_than_one_step_takes(spool: SpoolStore) -> None:
    spool.apply([Accept([a_delivery(number) for number in range(1, 1202)])])
    assert len(spool.claim(NOON, 2000)) == 1201
    for part in range(40):
        spool.apply([AddPart(an_id(5000), part, b"x")])
    spool.recover()
    assert len(spool.claim(NOON, 2000)) == 1201
    assert [spool.part(an_id(5000), part) for part in range(40)] == [None] * 40


def test_there_is_room_for_a_message_and_not_for_one_larger_than_any_disk(spool: SpoolStore) -> None:
    assert spool.has_room(0)
    assert spool.has_room(PART_OCTETS)
    assert not spool.has_room(1 << 60)


# ------------------------------------------------------------------ the queue as seen from outside


def test_the_queue_is_listed_page_by_page(spool: SpoolStore) -> None:
    accept(spool, 3, 1, 2)
    assert [delivery.id for delivery in spool.deliveries(limit=2)] == [an_id(1), an_id(2)]
    assert [delivery.id for delivery in spool.deliveries(after=an_id(2), limit=2)] == [an_id(3)]
    assert spool.deliveries(after=an_id(3)) == []


def test_the_deliveries_of_a_message_are_those_that_are_not_done(spool: SpoolStore) -> None:
    of_one = [a_delivery(number, message_id=an_id(9)) for number in (2, 1, 3)]
    spool.apply([Accept([*of_one, a_delivery(4)])])
    assert [delivery.id for delivery in spool.deliveries_of(an_id(9))] == [an_id(1), an_id(2), an_id(3)]
    spool.apply([Complete(an_id(2), an_id(9))])
    assert [delivery.id for delivery in spool.deliveries_of(an_id(9))] == [an_id(1), an_id(3)]
    assert spool.deliveries_of(an_id(8)) == []


def test_the_depth_of_the_queue(spool: SpoolStore) -> None:
    assert spool.depth() == (0, None)
    spool.apply([Accept([a_delivery(2, accepted_at=NOON + 5), a_delivery(1, accepted_at=NOON)])])
    spool.claim(NOON, 1)
    assert spool.depth() == (2, NOON)


def test_how_many_deliveries_are_older(spool: SpoolStore) -> None:
    assert spool.ages([NOON]) == [0]
    made = [a_delivery(number, id=first_id_at(at)) for number, at in ((1, NOON - 2), (2, NOON - 1), (3, NOON))]
    spool.apply([Accept(made)])
    # Those of the instant itself are not older than it.
    assert spool.ages([NOON + 1, NOON, NOON - 1, NOON - 2]) == [3, 2, 1, 0]


def test_how_many_deliveries_are_in_each_state(spool: SpoolStore) -> None:
    assert spool.states() == {}
    held = a_delivery(4, state=DeliveryState.HELD, held_for="held by the operator")
    spool.apply([Accept([a_delivery(1), a_delivery(2), a_delivery(3), held])])
    spool.claim(NOON, 1)
    assert spool.states() == {DeliveryState.WAITING: 2, DeliveryState.UNDER_WAY: 1, DeliveryState.HELD: 1}


def test_what_an_operator_holds_is_still_held_after_a_start(backend: Backend) -> None:
    first = backend.spool()
    held = a_delivery(1, state=DeliveryState.HELD, held_for="held by the operator")
    first.apply([Accept([held])])
    first.close()
    second = backend.spool()
    second.recover()
    assert second.deliveries() == [held]


# ------------------------------------------------------------------ events


def test_events_wait_in_the_outbox_until_they_are_forgotten(spool: SpoolStore) -> None:
    spool.apply([Record([an_event(3), an_event(1)]), Accept([a_delivery(1)], [an_event(2)])])
    assert outbox_ids(spool) == [an_id(1), an_id(2), an_id(3)]
    assert [row["id"] for row in spool.outbox(2)] == [an_id(1), an_id(2)]
    spool.apply([Forget([an_id(1), an_id(3), an_id(77)])])
    assert outbox_ids(spool) == [an_id(2)]


def test_an_event_says_the_same_when_it_has_reached_the_log(backend: Backend) -> None:
    spool, records = backend.spool(), backend.records()
    event = an_event(1, subject=None, enhanced_code=None, response="Füße", type=EventType.SOFT_BOUNCED)
    spool.apply([Record([event])])
    records.import_stored(EVENTS, spool.outbox(1))
    (row,) = records.find(EVENTS, {"recipient": event.recipient})
    assert row_to_event(row) == event


# ------------------------------------------------------------------ return paths


def test_a_return_path_is_found_until_it_is_swept(spool: SpoolStore) -> None:
    old, young = (
        ReturnPath("old", f"{'long' * 20}@sender.example", "abcdef", NOON - 1),
        ReturnPath("young", "s@sender.example", "ghijkl", NOON),
    )
    spool.apply([Accept([a_delivery(1)], return_paths=[old, young])])
    assert [spool.return_path(token) for token in ("old", "young", "other")] == [old, young, None]
    (retention,) = RETURN_PATHS.retention
    assert spool.sweep(retention, NOON) == 1
    assert [spool.return_path(token) for token in ("old", "young")] == [None, young]


def test_a_return_path_that_is_used_again_begins_its_time_anew(spool: SpoolStore) -> None:
    first = ReturnPath("token", "s@sender.example", "abcdef", NOON)
    again = replace(first, created_at=NOON + 9)
    spool.apply([Accept([a_delivery(1)], return_paths=[first])])
    spool.apply([Accept([a_delivery(2)], return_paths=[again])])
    assert spool.return_path("token") == again


def test_only_declared_retentions_are_swept(spool: SpoolStore) -> None:
    with pytest.raises(RowRefused):
        spool.sweep(Retention("1d", since="created_at"), NOON)


# ------------------------------------------------------------------ keys and threads


def test_what_cannot_be_opened_is_held_and_stops_nothing_else(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    first = backend.spool(a_keyring(seed=2))
    accept(first, 1)
    first.apply([Accept([], return_paths=[ReturnPath("token", "s@sender.example", "abcdef", NOON)])])
    first.close()
    spool = backend.spool()
    accept(spool, 2)
    assert [delivery.id for delivery in spool.claim(NOON, 10)] == [an_id(2)]
    assert f"delivery {an_id(1)} can't be opened" in caplog.text
    assert [delivery.id for delivery in spool.deliveries(limit=1)] == [an_id(2)]
    assert spool.delivery(an_id(1)) is None
    with pytest.raises(StoreUnavailable, match="part 0 of message"):
        spool.part(an_id(1), 0)
    with pytest.raises(StoreUnavailable, match="token"):
        spool.return_path("token")
    # It is still in the queue, and goes out once the right key is back.
    assert spool.depth()[0] == 2
    spool.close()
    again = backend.spool(a_keyring(seed=2))
    assert again.delivery(an_id(1)) == a_delivery(1, state=DeliveryState.HELD)
    assert again.part(an_id(1), 0) == b"content"
    again.recover()
    assert [delivery.id for delivery in again.claim(NOON, 10)] == [an_id(1)]


def test_what_cannot_be_opened_stays_held_at_the_next_start(backend: Backend) -> None:
    first = backend.spool(a_keyring(seed=2))
    accept(first, 1)
    first.close()
    second = backend.spool()
    assert second.claim(NOON, 10) == []
    second.recover()
    assert second.next_due() is None


def test_parts_that_cannot_be_opened_are_said_to_be_damaged(backend: Backend) -> None:
    first = backend.spool(a_keyring(seed=2))
    accept(first, 1)
    first.close()
    with pytest.raises(Damaged):
        backend.spool().part(an_id(1), 0)


def test_others_read_while_one_writes(spool: SpoolStore) -> None:
    accept(spool, 1)
    failures: list[BaseException] = []
    stop = threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                assert spool.part(an_id(1), 0) == b"content"
                assert spool.delivery(an_id(1)) == a_delivery(1)
                # A group is seen whole or not at all; by other nodes, delivery by delivery.
                assert (spool.depth()[0] - 1) % 3 == 0 or not isinstance(spool, SqliteSpool)
        except BaseException as error:  # noqa: BLE001 - told to the main thread
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for first in range(10, 190, 3):
        spool.apply([Accept([a_delivery(number)]) for number in range(first, first + 3)])
    stop.set()
    for reader in readers:
        reader.join()
    assert not failures


def test_a_closed_store_says_so(spool: SpoolStore) -> None:
    spool.close()
    spool.close()
    for use in (spool.next_due, spool.recover, lambda: spool.apply([Abandon(an_id(1))]), lambda: spool.claim(0, 1)):
        with pytest.raises(StoreUnavailable, match="closed"):
            use()


# ------------------------------------------------------------------ holds and clocks


def test_holds_stay_until_they_are_lifted(spool: SpoolStore) -> None:
    first = Hold(an_id(1), NOON, domain="hosted.example")
    second = Hold(an_id(2), NOON, destination="home.example", sender="")
    spool.apply([AddHold(second), AddHold(first)])
    assert spool.holds() == [first, second]
    spool.apply([LiftHold(first.id)])
    assert spool.holds() == [second]


def test_what_the_clocks_have_come_to_is_kept(spool: SpoolStore) -> None:
    assert spool.clock_marks() == ClockMarks()
    spool.apply([MarkClocks(ClockMarks(NOON, 5, NOON))])
    spool.apply([MarkClocks(ClockMarks(NOON + 1, 6, NOON + 2))])
    assert spool.clock_marks() == ClockMarks(NOON + 1, 6, NOON + 2)


# ------------------------------------------------------------------ uses of aliases


def test_uses_are_counted_one_by_one_from_what_was_known(backend: Backend) -> None:
    spool = backend.spool()
    assert spool.uses() == {}
    spool.apply([CountUse("a", 0)])
    # Of several messages in one group each counts, whatever was known when they began.
    spool.write([spool.prepare([CountUse("a", 0)]), spool.prepare([CountUse("b", 4), CountUse("a", 1)])])
    assert spool.uses() == {"a": 3, "b": 5}
    spool.close()
    spool = backend.spool()
    spool.recover()
    assert spool.uses() == {"a": 3, "b": 5}
    spool.apply([ForgetUses(["a", "unknown"])])
    assert spool.uses() == {"b": 5}


def test_a_use_is_counted_with_the_acceptance_or_not_at_all(spool: SpoolStore) -> None:
    accepted = a_delivery(1)
    spool.apply([Accept([accepted]), CountUse("a", 0)])
    with pytest.raises(Duplicate):
        spool.apply([Accept([accepted]), CountUse("a", 0)])
    assert spool.uses() == {"a": 1}
