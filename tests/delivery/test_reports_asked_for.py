"""Which outcomes the sender hears of: those that NOTIFY asks for, and in whose name (RFC 3461, RFC 8689)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from inline_committer import InlineCommitter
from read_report import ReadReport, read_report
from values import NOW, answer, delivery

from appliance.delivery.schedule import RetrySchedule
from appliance.delivery.settlement import Settlement, Settler
from appliance.forwarding.srs import Opened, SenderRewriter
from appliance.logbook.events import Logbook
from appliance.model.account import Account, Role
from appliance.model.delivery import Deferred, Delivered, Delivery, Failed, Outcome, Recipient
from appliance.model.domain import Alias, AliasAction, DeliveryMode, Destination, Domain, LogLevel
from appliance.model.ids import id_source
from appliance.privacy.sealing import Sealer
from appliance.reports import relayed
from appliance.reports.own_mail import OwnMail
from appliance.routing.snapshot import Settings, Snapshot
from appliance.spool.clocks import Clocks
from appliance.spool.spool import Spool
from appliance.storage.spool import Accept, AddPart
from appliance.storage.sqlite_spool import SqliteSpool
from smtp.address import Address

CONTENT = b"Subject: x\r\n\r\nbody\r\n"
LATE = NOW + 6 * 24 * 3_600_000
GONE = Failed(answer(550, enhanced_code="5.1.1", reason="mailbox-unknown", text="no such user"))
BUSY = Deferred(answer(450, reason="destination-deferred", text="busy"))
OK = Delivered(answer())
MAILBOXES = ("alice@home.test", "bob@home.test")
SNAPSHOT = Snapshot(
    Settings("mx.example.net", "srs.mx.example.net"),
    1,
    accounts=[Account("a1", "owner@home.test", True, Role.OPERATOR, "free", NOW)],
    domains=[Domain("domain1", "a1", "example.org", True, DeliveryMode.SPOOL, LogLevel.EVENTS, NOW)],
    aliases=[Alias("team", "domain1", "team", AliasAction.FORWARD, MAILBOXES, "refaaa", NOW)],
    destinations=[Destination(mailbox, "a1", mailbox, NOW, NOW) for mailbox in MAILBOXES],
)


class Desk:
    """A settler with a real spool round it."""

    def __init__(self, store: SqliteSpool) -> None:
        self.now = NOW
        new_id = id_source()
        self.spool = Spool(store, InlineCommitter(store), new_id)
        rewriter = SenderRewriter("srs.mx.example.net", [bytes(32)])
        self.own_mail = OwnMail(
            hostname="mx.example.net",
            reporter="postmaster@mx.example.net",
            snapshot=lambda: SNAPSHOT,
            rewriter=rewriter,
            look_up=store.return_path,
            new_id=new_id,
            clocks=Clocks.all_from(lambda: self.now),
        )
        self.settler = Settler(
            self.spool,
            Logbook(SNAPSHOT.log_level, lambda: self.now, new_id),
            RetrySchedule((60_000,), 5 * 24 * 3_600_000),
            self.own_mail,
            lambda: SNAPSHOT,
            Clocks.all_from(lambda: self.now),
        )

    async def settle(self, accepted: Delivery, outcome: Outcome, content: bytes = CONTENT) -> Settlement:
        """What follows for a delivery of a message with this content."""
        await self.spool.committer.commit([AddPart(accepted.message_id, 0, content), Accept([accepted])])
        return await self.settler.settle(accepted, outcome)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    store = SqliteSpool(tmp_path / "spool.sqlite", {"spool": Sealer(bytes(32)), "log": Sealer(bytes(32))})
    yield Desk(store)
    store.close()


def asked(*notify: str, **changes: Any) -> Delivery:
    """A delivery for as many recipients, with what was asked about each."""
    recipients = tuple(Recipient(f"a{number}@example.org", "domain1", words) for number, words in enumerate(notify))
    return delivery(recipients=recipients, size=len(CONTENT), **changes)


def reports(settlement: Settlement) -> list[tuple[Delivery, bytes]]:
    parts = [operation.octets for operation in settlement.operations if isinstance(operation, AddPart)]
    accepted = [
        each for operation in settlement.operations if isinstance(operation, Accept) for each in operation.deliveries
    ]
    return list(zip(accepted, parts, strict=True))


def read(settlement: Settlement) -> list[ReadReport]:
    return [read_report(octets) for _, octets in reports(settlement)]


def told(settlement: Settlement) -> list[tuple[str, str, str]]:
    return [
        (str(each["Final-Recipient"]), str(each["Action"]), str(each["Status"]))
        for report in read(settlement)
        for each in report.of_recipients
    ]


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
    desk.now = LATE
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


async def test_nobody_hears_where_there_is_nobody(desk: Desk) -> None:
    assert told(await desk.settle(asked("SUCCESS,FAILURE", sender="", return_path=""), OK)) == []


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
