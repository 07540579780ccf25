"""Which outcomes the sender hears of: those that NOTIFY asks for, and in whose name (RFC 3461, RFC 8689)."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace
from read_report import read_report
from settlement_desk import CONTENT, GIVE_UP_AFTER, Desk, asked, reports, told
from values import NOW, answer

from appliance.forwarding.srs import Opened
from appliance.model.delivery import Answer, Deferred, Delivered, Failed, Outcome
from appliance.model.time import DAY_MS
from appliance.privacy.sealing import Sealer
from appliance.reports import relayed
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import Accept, AddPart, Complete, ReturnPath
from appliance.storage.sqlite_spool import SqliteSpool
from smtp.address import Address

GONE = Failed(answer(550, enhanced_code="5.1.1", reason="mailbox-unknown", text="no such user"))
BUSY = Deferred(answer(450, reason="destination-deferred", text="busy"))
OK = Delivered(answer())


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    store = SqliteSpool(tmp_path / "spool.sqlite", {"spool": Sealer(bytes(32)), "log": Sealer(bytes(32))})
    yield Desk(store)
    store.close()


@pytest.mark.parametrize(
    ("notify", "outcome", "heard"),
    [
        ("", OK, []),
        ("", GONE, ["failed"]),
        ("NEVER", OK, []),
        ("NEVER", GONE, []),
        ("SUCCESS", OK, ["relayed"]),
        ("SUCCESS", GONE, []),
        ("FAILURE", OK, []),
        ("FAILURE", GONE, ["failed"]),
        ("DELAY", OK, []),
        ("DELAY", GONE, []),
        ("SUCCESS,FAILURE,DELAY", OK, ["relayed"]),
        ("SUCCESS,FAILURE,DELAY", GONE, ["failed"]),
        ("SUCCESS,FAILURE,DELAY", BUSY, []),
    ],
)
async def test_the_sender_hears_what_was_asked_for(
    desk: Desk, notify: str, outcome: Outcome, heard: Sequence[str]
) -> None:
    settlement = await desk.settle(asked(notify), outcome)
    assert [action for _, action, _ in told(settlement)] == heard
    assert settlement.due_now is bool(heard)


async def test_giving_up_is_a_failure(desk: Desk) -> None:
    desk.passes(GIVE_UP_AFTER + DAY_MS)
    assert told(await desk.settle(asked("NEVER"), BUSY)) == []
    assert [action for _, action, _ in told(await desk.settle(asked("FAILURE", id="d2", message_id="m2"), BUSY))] == [
        "failed"
    ]


async def test_each_recipient_is_asked_for_itself(desk: Desk) -> None:
    """Two aliases with one mailbox: two senders' wishes, and no report that names both."""
    settlement = await desk.settle(asked("SUCCESS", "", "SUCCESS,FAILURE"), OK)
    assert told(settlement) == [
        ("rfc822; a0@example.org", "relayed", "2.0.0"),
        ("rfc822; a2@example.org", "relayed", "2.0.0"),
    ]
    settlement = await desk.settle(asked("SUCCESS", "", "SUCCESS,FAILURE", id="d2", message_id="m2"), GONE)
    assert [recipient for recipient, _, _ in told(settlement)] == ["rfc822; a1@example.org", "rfc822; a2@example.org"]


async def test_a_report_comes_from_nobody_and_asks_for_nothing(desk: Desk) -> None:
    [(report, octets)] = reports(await desk.settle(asked("SUCCESS", envid="QQ 314"), OK))
    assert (report.sender, report.return_path, str(report.target)) == ("", "", "friend@sender.test")
    assert all(not recipient.wants("SUCCESS") for recipient in report.recipients)
    assert b"alice" not in octets
    assert b"home.test" not in octets
    assert read_report(octets).of_message["Original-Envelope-Id"] == "QQ 314"


@pytest.mark.parametrize("outcome", [OK, GONE])
async def test_nobody_hears_where_there_is_nobody(desk: Desk, outcome: Outcome) -> None:
    assert told(await desk.settle(asked("SUCCESS,FAILURE", sender="", return_path=""), outcome)) == []


@pytest.mark.parametrize("outcome", [OK, GONE])
@pytest.mark.parametrize(
    "field", [b"Auto-Submitted: auto-generated", b"List-Id: <news.sender.test>", b"Precedence: bulk"]
)
async def test_programs_and_lists_hear_nothing_whatever_they_ask(desk: Desk, outcome: Outcome, field: bytes) -> None:
    """RFC 3834 §2."""
    settlement = await desk.settle(asked("SUCCESS,FAILURE"), outcome, field + b"\r\n" + CONTENT)
    assert told(settlement) == []
    assert not settlement.due_now


@pytest.mark.parametrize(
    ("authentication", "outcome", "heard"),
    [
        ("fail", OK, []),
        ("fail", GONE, []),
        ("", OK, ["relayed"]),
        ("", GONE, ["failed"]),
        ("pass", OK, ["relayed"]),
        ("pass", GONE, ["failed"]),
    ],
)
async def test_who_has_most_likely_not_written_hears_nothing(
    desk: Desk, authentication: str, outcome: Outcome, heard: Sequence[str]
) -> None:
    settlement = await desk.settle(asked("SUCCESS,FAILURE", authentication=authentication), outcome)
    assert [action for _, action, _ in told(settlement)] == heard


async def test_of_two_copies_one_tells_of_success_and_each_of_its_failure(desk: Desk) -> None:
    """A failure that nobody hears of would be a loss; that a success came before it happens with one mailbox, too."""
    first = asked("SUCCESS,FAILURE", target=Address("alice", "home.test"))
    second = replace(
        first,
        id="d2",
        target=Address("bob", "home.test"),
        recipients=tuple(recipient.without_success() for recipient in first.recipients),
    )
    await desk.spool.committer.commit([AddPart("m1", 0, CONTENT), Accept([first, second])])
    assert told(await desk.settler.settle(first, OK)) == [("rfc822; a0@example.org", "relayed", "2.0.0")]
    assert told(await desk.settler.settle(second, OK)) == []
    failed = await desk.settler.settle(second, GONE)
    assert told(failed) == [("rfc822; a0@example.org", "failed", "5.1.1")]
    for _, octets in reports(failed):
        assert b"bob" not in octets
        assert b"home.test" not in octets


async def test_giving_up_says_how_often_and_how_long(desk: Desk) -> None:
    """The status of the last attempt says more than that the time is over; where there is none, that is said."""
    desk.passes(GIVE_UP_AFTER)
    settlement = await desk.settle(asked("", attempts=11), BUSY)
    [(_, octets)] = reports(settlement)
    assert "we have tried 12 times in 5 days. We have now given up." in read_report(octets).text
    assert told(settlement) == [("rfc822; a0@example.org", "failed", "4.0.0")]
    [complete] = [each for each in settlement.operations if isinstance(each, Complete)]
    assert [event.reason for event in complete.events] == ["expired"]
    wordless = Deferred(Answer(0, "", "connection-failed", "no connection"))
    settlement = await desk.settle(asked("", id="d2", message_id="m2"), wordless)
    [(_, octets)] = reports(settlement)
    assert told(settlement) == [("rfc822; a0@example.org", "failed", "4.4.7")]
    assert "did not take the message in time" in read_report(octets).text
    assert "We have now given up." in read_report(octets).text


@pytest.mark.parametrize("outcome", [OK, GONE])
async def test_a_sender_who_can_not_be_looked_up_is_told_later(desk: Desk, outcome: Outcome) -> None:
    """A report to another rewritten sender of ours needs the store; without it nothing is settled yet."""
    rewritten = desk.rewriter.rewrite("a-sender-with-a-name-that-is-far-too-long@sender.test", "refaaa", NOW)
    assert rewritten.stored is not None
    accepted = asked("SUCCESS,FAILURE", sender=rewritten.return_path)
    await desk.spool.committer.commit([Accept([], [], [rewritten.stored])])
    working = desk.look_up

    def fails(token: str) -> ReturnPath | None:
        raise StoreUnavailable("the disk is gone")

    desk.look_up = fails
    with pytest.raises(StoreUnavailable):
        await desk.settle(accepted, outcome)
    desk.look_up = working
    settlement = await desk.settler.settle(accepted, outcome)
    heard = [str(report.target) for report, _ in reports(settlement)]
    # What tells of success is nothing that the first sender asked for.
    assert heard == ([] if outcome is OK else ["a-sender-with-a-name-that-is-far-too-long@sender.test"])


async def test_a_sender_is_looked_up_where_no_other_delivery_waits_for_the_store(desk: Desk) -> None:
    rewritten = desk.rewriter.rewrite("a-sender-with-a-name-that-is-far-too-long@sender.test", "refaaa", NOW)
    working, asked_in = desk.look_up, set[threading.Thread]()

    def look_up(token: str) -> ReturnPath | None:
        asked_in.add(threading.current_thread())
        return working(token)

    desk.look_up = look_up
    await desk.settle(asked("FAILURE", sender=rewritten.return_path), GONE)
    assert len(asked_in) == 1
    assert threading.current_thread() not in asked_in


@pytest.mark.parametrize("outcome", [OK, GONE])
async def test_a_report_about_what_required_tls_requires_it_too(desk: Desk, outcome: Outcome) -> None:
    """RFC 8689 §5; and it shows the header only, whatever was asked."""
    accepted = asked("SUCCESS,FAILURE", require_tls=True, ret="FULL")
    [(report, octets)] = reports(await desk.settle(accepted, outcome))
    assert report.require_tls
    assert b"body" not in octets


@pytest.mark.parametrize("sender", ["friend@sender.test", "jörg@sender.test"])
async def test_a_report_to_a_sender_beyond_ascii_needs_smtputf8(desk: Desk, sender: str) -> None:
    [(report, octets)] = reports(await desk.settle(asked("FAILURE", sender=sender), GONE))
    assert (report.utf8, report.eight_bit) == ((False, False) if sender.isascii() else (True, True))
    assert (b"message/global-delivery-status" in octets) is not sender.isascii()


@pytest.mark.parametrize("outcome", [OK, GONE])
async def test_a_sender_beyond_ascii_in_the_domain_only_gets_a_report_that_every_server_takes(
    desk: Desk, outcome: Outcome
) -> None:
    """A next hop without SMTPUTF8 or 8BITMIME would fail any other, and the sender would hear nothing."""
    accepted = asked("SUCCESS,FAILURE", sender="friend@bücher.test", ret="FULL", eight_bit=True)
    [(report, octets)] = reports(await desk.settle(accepted, outcome, CONTENT + "Grüße\r\n".encode()))
    assert str(report.target) == "friend@xn--bcher-kva.test"
    assert [each.address for each in report.recipients] == ["friend@xn--bcher-kva.test"]
    assert (report.utf8, report.eight_bit) == (False, False)
    assert octets.isascii()
    assert read_report(octets).message["To"] == "friend@xn--bcher-kva.test"


@pytest.mark.parametrize(
    ("sender", "target", "utf8"),
    [
        ('"a friend"@bücher.test', '"a friend"@xn--bcher-kva.test', False),
        ("jörg@bücher.test", "jörg@bücher.test", True),
    ],
)
def test_what_came_back_is_told_without_smtputf8_where_that_can_be(
    desk: Desk, sender: str, target: str, utf8: bool
) -> None:
    came_back = b"From: MAILER-DAEMON@home.test\r\nSubject: Undelivered\r\n\r\n"
    opened = Opened(Address.parse(sender), "refaaa", NOW)
    added, accepted = desk.own_mail.answer_returned(came_back, opened, NOW)
    assert isinstance(added, AddPart)
    assert isinstance(accepted, Accept)
    [report] = accepted.deliveries
    assert (str(report.target), report.utf8, report.eight_bit) == (target, utf8, utf8)
    assert f"To: <{target}>\r\n".encode() in added.octets
    assert added.octets.isascii() is not utf8


async def test_a_message_goes_back_whole_where_that_was_asked(desk: Desk) -> None:
    for number, (ret, is_whole) in enumerate([("", False), ("HDRS", False), ("FULL", True)]):
        accepted = asked("", ret=ret, id=f"d{number}", message_id=f"m{number}")
        [(report, octets)] = reports(await desk.settle(accepted, GONE))
        assert (CONTENT in octets) is is_whole
        assert not report.eight_bit


@pytest.mark.parametrize("sender", ["friend@sender.test", "jörg@sender.test"])
async def test_a_message_of_eight_bits_goes_back_whole_only_where_the_report_has_them_anyway(
    desk: Desk, sender: str
) -> None:
    content = CONTENT + "Grüße\r\n".encode()
    accepted = asked("", sender=sender, ret="FULL", eight_bit=True)
    [(report, octets)] = reports(await desk.settle(accepted, GONE, content))
    assert (content in octets) is not sender.isascii()
    assert report.eight_bit is not sender.isascii()
    assert b"Subject: x\r\n" in octets


async def test_a_defect_in_a_report_of_success_does_not_deliver_twice(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> bytes:
        raise RuntimeError("a defect")

    monkeypatch.setattr(relayed, "compose_report", fails)
    settlement = await desk.settle(asked("SUCCESS"), OK)
    assert settlement.next_attempt_at is None
    assert [type(operation).__name__ for operation in settlement.operations] == ["Complete"]


async def test_of_what_leads_to_several_mailboxes_inside_one_tells_of_success(desk: Desk) -> None:
    accepted = asked("SUCCESS,FAILURE", target=Address("team", "example.org"))
    await desk.spool.committer.commit([AddPart("m1", 0, CONTENT), Accept([accepted])])
    settlement = await desk.settler.redirect(accepted)
    [followed] = [operation for operation in settlement.operations if isinstance(operation, Accept)]
    assert [each.recipients[0].notify for each in followed.deliveries] == ["SUCCESS,FAILURE", "FAILURE"]
