"""A settler with a real spool round it, and what a test reads out of its settlements."""

from typing import Any

from inline_committer import InlineCommitter
from read_report import ReadReport, read_report
from values import NOW, delivery

from appliance.delivery.schedule import RetrySchedule
from appliance.delivery.settlement import Settlement, Settler
from appliance.forwarding.srs import SenderRewriter
from appliance.logbook.events import Logbook
from appliance.model.account import Account, Role
from appliance.model.delivery import Delivery, Outcome, Recipient
from appliance.model.domain import Alias, AliasAction, DeliveryMode, Destination, Domain, LogLevel
from appliance.model.ids import id_source
from appliance.model.time import DAY_MS, HOUR_MS
from appliance.reports.own_mail import OwnMail
from appliance.routing.snapshot import Settings, Snapshot
from appliance.spool.clocks import Clocks
from appliance.spool.spool import Spool
from appliance.storage.spool import Accept, AddPart, ClockMarks, SpoolStore

CONTENT = b"Subject: x\r\n\r\nbody\r\n"
DELAY_NOTICE_AFTER = 4 * HOUR_MS
GIVE_UP_AFTER = 5 * DAY_MS

_MAILBOXES = ("alice@home.test", "bob@home.test")
_SNAPSHOT = Snapshot(
    Settings("mx.example.net", "srs.mx.example.net"),
    1,
    accounts=[Account("a1", "owner@home.test", True, Role.OPERATOR, "free", NOW)],
    domains=[Domain("domain1", "a1", "example.org", True, DeliveryMode.SPOOL, LogLevel.EVENTS, NOW)],
    aliases=[Alias("team", "domain1", "team", AliasAction.FORWARD, _MAILBOXES, "refaaa", NOW)],
    destinations=[Destination(mailbox, "a1", mailbox, NOW, NOW) for mailbox in _MAILBOXES],
)


class Desk:
    """The alias team@example.org leads to two mailboxes; everything else is outside."""

    def __init__(self, store: SpoolStore, delay_notice_after: int | None = DELAY_NOTICE_AFTER) -> None:
        self.now = NOW
        """The wall clock."""
        self.ran = 0
        """For how long the appliance has run since then."""
        self.look_up = store.return_path
        """Finds the senders that a token stands for; a test may put a failing one in its place."""
        new_id = id_source()
        clocks = Clocks(lambda: self.now, ClockMarks(running=NOW), lambda: self.ran)
        self.spool = Spool(store, InlineCommitter(store), new_id)
        self.rewriter = SenderRewriter("srs.mx.example.net", [bytes(32)])
        self.own_mail = OwnMail(
            hostname="mx.example.net",
            reporter="postmaster@mx.example.net",
            snapshot=lambda: _SNAPSHOT,
            rewriter=self.rewriter,
            look_up=lambda token: self.look_up(token),
            new_id=new_id,
            clocks=clocks,
        )
        self.settler = Settler(
            self.spool,
            Logbook(_SNAPSHOT.log_level, lambda: self.now, new_id),
            RetrySchedule((60_000,), GIVE_UP_AFTER),
            self.own_mail,
            lambda: _SNAPSHOT,
            clocks,
            delay_notice_after,
        )

    def passes(self, span_ms: int) -> None:
        """So much time goes by while the appliance runs."""
        self.now += span_ms
        self.ran += span_ms

    async def settle(self, accepted: Delivery, outcome: Outcome, content: bytes = CONTENT) -> Settlement:
        """What follows for a delivery of a message with this content."""
        await self.spool.committer.commit([AddPart(accepted.message_id, 0, content), Accept([accepted])])
        return await self.settler.settle(accepted, outcome)


def asked(*notify: str, **changes: Any) -> Delivery:
    """A delivery for as many recipients, with what was asked about each."""
    recipients = tuple(Recipient(f"a{number}@example.org", "domain1", words) for number, words in enumerate(notify))
    return delivery(recipients=recipients, size=len(CONTENT), running_since=NOW, **changes)


def reports(settlement: Settlement) -> list[tuple[Delivery, bytes]]:
    """The reports among what has to be committed: the delivery of each, and its content."""
    parts = [operation.octets for operation in settlement.operations if isinstance(operation, AddPart)]
    accepted = [
        each for operation in settlement.operations if isinstance(operation, Accept) for each in operation.deliveries
    ]
    return list(zip(accepted, parts, strict=True))


def read(settlement: Settlement) -> list[ReadReport]:
    """The same as another program reads them."""
    return [read_report(octets) for _, octets in reports(settlement)]


def told(settlement: Settlement) -> list[tuple[str, str, str]]:
    """What they say: for each recipient the address, the action and the status."""
    return [
        (str(each["Final-Recipient"]), str(each["Action"]), str(each["Status"]))
        for report in read(settlement)
        for each in report.of_recipients
    ]
