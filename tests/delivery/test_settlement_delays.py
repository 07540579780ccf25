"""A notice of delay: once, in time, to who has proved to be the sender and wants to hear of it, and in plain words."""

from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from read_report import assert_well_formed, read_report
from settlement_desk import CONTENT, DELAY_NOTICE_AFTER, GIVE_UP_AFTER, Desk, asked, read, reports, told
from values import NOW, answer

from appliance.delivery.settlement import Settlement
from appliance.model.delivery import Deferred, Delivery, Failed
from appliance.model.time import DAY_MS, HOUR_MS
from appliance.privacy.sealing import Sealer
from appliance.reports import delayed
from appliance.storage.records import Damaged, StoreUnavailable
from appliance.storage.spool import Accept, AddPart, Keep
from appliance.storage.sqlite_spool import SqliteSpool

FULL = Deferred(
    answer(452, enhanced_code="4.2.2", reason="mailbox-full", text="4.2.2 <alice@home.test> is over quota at home.test")
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteSpool]:
    store = SqliteSpool(tmp_path / "spool.sqlite", {"spool": Sealer(bytes(32)), "log": Sealer(bytes(32))})
    yield store
    store.close()


@pytest.fixture
def desk(store: SqliteSpool) -> Desk:
    return Desk(store)


def proved(*notify: str, **changes: Any) -> Delivery:
    """A delivery whose sender has proved to be the sender."""
    return asked(*notify, **{"authentication": "pass"} | changes)


def kept(settlement: Settlement) -> Delivery:
    """What stays in the queue."""
    [keep] = [operation for operation in settlement.operations if isinstance(operation, Keep)]
    return keep.delivery


async def test_a_delay_is_told_once_and_written_down_with_the_attempt(desk: Desk) -> None:
    accepted = proved("")
    desk.passes(DELAY_NOTICE_AFTER - 1)
    first = await desk.settle(accepted, FULL)
    assert told(first) == []
    assert not first.due_now
    desk.passes(1)
    second = await desk.settler.settle(kept(first), FULL)
    assert told(second) == [("rfc822; a0@example.org", "delayed", "4.2.2")]
    assert second.due_now
    assert second.next_attempt_at == kept(second).next_attempt_at
    # One unit: either both are durable or neither.
    assert [type(each).__name__ for each in second.operations] == ["AddPart", "Accept", "Keep"]
    assert kept(second).delay_told
    assert kept(second).attempts == 2
    desk.passes(DAY_MS)
    assert told(await desk.settler.settle(kept(second), FULL)) == []


async def test_that_it_was_told_outlives_a_restart(desk: Desk, store: SqliteSpool) -> None:
    desk.passes(DELAY_NOTICE_AFTER)
    settlement = await desk.settle(proved(""), FULL)
    store.apply(settlement.operations)
    [waiting] = [each for each in store.deliveries() if each.sender]
    assert waiting.delay_told
    assert told(await Desk(store).settler.settle(waiting, FULL)) == []


@pytest.mark.parametrize(
    ("notify", "heard"),
    [
        ("", True),
        ("DELAY", True),
        ("FAILURE,DELAY", True),
        ("SUCCESS,FAILURE,DELAY", True),
        ("FAILURE", False),
        ("SUCCESS", False),
        ("SUCCESS,FAILURE", False),
        ("NEVER", False),
    ],
)
async def test_only_who_wants_to_hear_of_delay_does(desk: Desk, notify: str, heard: bool) -> None:
    """RFC 3461 §4.1: where nothing was said, a delay may be told; where something was, only if it names it."""
    desk.passes(DELAY_NOTICE_AFTER)
    settlement = await desk.settle(proved(notify), FULL)
    assert bool(told(settlement)) is heard
    assert kept(settlement).delay_told is heard


@pytest.mark.parametrize("changes", [{"authentication": ""}, {"authentication": "fail"}, {"sender": ""}])
async def test_nobody_hears_of_delay_who_has_not_proved_to_be_the_sender(desk: Desk, changes: dict[str, Any]) -> None:
    desk.passes(DELAY_NOTICE_AFTER)
    assert told(await desk.settle(proved("DELAY", **changes), FULL)) == []


@pytest.mark.parametrize(
    "field", [b"Auto-Submitted: auto-replied", b"List-Id: <news.sender.test>", b"Precedence: list"]
)
async def test_programs_and_lists_do_not_hear_of_delay(desk: Desk, field: bytes) -> None:
    desk.passes(DELAY_NOTICE_AFTER)
    assert told(await desk.settle(proved("DELAY"), FULL, field + b"\r\n" + CONTENT)) == []


async def test_a_wall_clock_that_jumps_tells_of_no_delay(desk: Desk) -> None:
    desk.now += 30 * DAY_MS
    desk.ran += DELAY_NOTICE_AFTER - 1
    assert told(await desk.settle(proved(""), FULL)) == []


async def test_a_long_stop_of_ours_is_no_delay_of_others(desk: Desk) -> None:
    desk.now += DAY_MS
    assert told(await desk.settle(proved(""), FULL)) == []


async def test_a_wall_clock_that_was_set_back_waits_for_its_time(desk: Desk) -> None:
    desk.now -= DAY_MS
    desk.ran += 2 * DELAY_NOTICE_AFTER
    assert told(await desk.settle(proved(""), FULL)) == []


async def test_without_the_setting_nobody_hears_of_delay(store: SqliteSpool) -> None:
    desk = Desk(store, delay_notice_after=None)
    desk.passes(DAY_MS)
    assert told(await desk.settle(proved("DELAY"), FULL)) == []


async def test_what_has_expired_is_told_as_a_failure_alone(desk: Desk) -> None:
    desk.passes(GIVE_UP_AFTER)
    assert [action for _, action, _ in told(await desk.settle(proved("FAILURE,DELAY"), FULL))] == ["failed"]


async def test_a_notice_says_what_it_means_and_until_when(desk: Desk) -> None:
    desk.passes(5 * HOUR_MS)
    settlement = await desk.settle(proved("", attempts=6, envid="QQ314", ret="FULL"), FULL)
    [(notice, octets)] = reports(settlement)
    assert (notice.sender, notice.return_path, str(notice.target)) == ("", "", "friend@sender.test")
    assert_well_formed(octets)
    assert b"alice" not in octets
    assert b"home.test" not in octets
    assert b"body" not in octets
    report = read_report(octets)
    assert report.message["Subject"] == "Delayed: your message to a0@example.org"
    assert report.message["Auto-Submitted"] == "auto-replied"
    assert report.of_message["Original-Envelope-Id"] == "QQ314"
    [group] = report.of_recipients
    until = parsedate_to_datetime(group["Will-Retry-Until"])
    assert int(until.timestamp() * 1000) == NOW + GIVE_UP_AFTER
    assert list(group.keys()) == [
        "Final-Recipient", "Action", "Status", "Diagnostic-Code", "Last-Attempt-Date", "Will-Retry-Until",
    ]  # fmt: skip
    for words in (
        "has not arrived yet. You do not have to do anything",
        "We have tried 7 times in 5 hours. The mailbox behind this address is full.",
        f"We go on until {until:%a, %d %b %Y, %H:%M} (UTC).",
        "If it can't be delivered by then, you get another report.",
        "Please do not send it again",
    ):
        assert words in report.text


async def test_who_hears_of_delay_only_is_promised_no_other_report(desk: Desk) -> None:
    desk.passes(DELAY_NOTICE_AFTER)
    [report] = read(await desk.settle(proved("DELAY"), FULL))
    assert "another report" not in report.text


async def test_the_time_left_is_counted_by_the_clock_that_has_gone_less_far(desk: Desk) -> None:
    """That is when we give up."""
    desk.passes(DELAY_NOTICE_AFTER)
    desk.now += DAY_MS
    [report] = read(await desk.settle(proved(""), FULL))
    until = parsedate_to_datetime(report.of_recipients[0]["Will-Retry-Until"])
    assert int(until.timestamp() * 1000) == NOW + GIVE_UP_AFTER + DAY_MS


async def test_a_status_of_the_wrong_class_is_not_repeated(desk: Desk) -> None:
    """RFC 3464 §2.3.4: what is delayed has a status of class 4."""
    desk.passes(DELAY_NOTICE_AFTER)
    odd = Deferred(answer(451, enhanced_code="5.7.1", reason="destination-deferred", text="later"))
    assert told(await desk.settle(proved(""), odd)) == [("rfc822; a0@example.org", "delayed", "4.0.0")]


async def test_each_recipient_has_a_notice_of_its_own(desk: Desk) -> None:
    desk.passes(DELAY_NOTICE_AFTER)
    settlement = await desk.settle(proved("", "FAILURE", "DELAY"), FULL)
    assert [address for address, _, _ in told(settlement)] == ["rfc822; a0@example.org", "rfc822; a2@example.org"]


async def test_a_message_that_can_not_be_read_now_is_told_of_later(desk: Desk) -> None:
    """Nobody can see whether a person has written it."""
    desk.passes(DELAY_NOTICE_AFTER)
    accepted = proved("")
    await desk.spool.committer.commit([Accept([accepted])])
    first = await desk.settler.settle(accepted, FULL)
    assert told(first) == []
    assert not kept(first).delay_told
    await desk.spool.committer.commit([AddPart("m1", 0, CONTENT)])
    assert len(told(await desk.settler.settle(kept(first), FULL))) == 1


async def test_a_defect_in_a_notice_does_not_lose_the_attempt(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> bytes:
        raise RuntimeError("a defect")

    monkeypatch.setattr(delayed, "compose_report", fails)
    desk.passes(DELAY_NOTICE_AFTER)
    settlement = await desk.settle(proved(""), FULL)
    assert [type(each).__name__ for each in settlement.operations] == ["Keep"]
    assert not kept(settlement).delay_told


async def test_a_sender_who_can_not_be_looked_up_leaves_the_notice_for_later(desk: Desk) -> None:
    rewritten = desk.rewriter.rewrite("a-sender-with-a-name-that-is-far-too-long@sender.test", "refaaa", NOW)
    desk.passes(DELAY_NOTICE_AFTER)

    def fails(token: str) -> None:
        raise StoreUnavailable("the disk is gone")

    desk.look_up = fails
    with pytest.raises(StoreUnavailable):
        await desk.settle(proved("", sender=rewritten.return_path), FULL)


async def test_a_sender_who_can_never_be_looked_up_again_holds_nothing_up(desk: Desk) -> None:
    """Else the store would be asked for ever, and meanwhile the delivery be neither done nor tried."""
    rewritten = desk.rewriter.rewrite("a-sender-with-a-name-that-is-far-too-long@sender.test", "refaaa", NOW)

    def is_damaged(token: str) -> None:
        raise Damaged("the return path can't be opened")

    desk.look_up = is_damaged
    settlement = await desk.settle(proved("", sender=rewritten.return_path), Failed(answer(550)))
    assert [type(each).__name__ for each in settlement.operations] == ["Complete"]
