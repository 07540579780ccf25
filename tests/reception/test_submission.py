"""Letters of the appliance's own on their way into the queue: durable or not there at all, and inside where that is."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from email import message_from_bytes
from pathlib import Path

import pytest
from reception_house import parts_on_the_disk
from settlement_desk import Desk, reports
from values import NOW, answer

from appliance.model.account import Account, Role
from appliance.model.delivery import Delivery, DeliveryState, Failed
from appliance.model.domain import Alias, AliasAction, DeliveryMode, Destination, Domain, LogLevel
from appliance.model.ids import id_source
from appliance.model.letter import Letter
from appliance.privacy.sealing import Sealer
from appliance.reception.submission import Submission
from appliance.routing.snapshot import Settings, Snapshot
from appliance.spool.clocks import Clocks
from appliance.spool.committer import GroupCommitter
from appliance.spool.spool import Spool
from appliance.storage.records import StoreFull, StoreUnavailable
from appliance.storage.sqlite_spool import SqliteSpool
from smtp.address import AddressError

KEYRING = {"spool": Sealer(bytes(32)), "log": Sealer(bytes(32))}
POSTMASTER = "postmaster@mx.example.net"
LETTER = Letter("ada@people.test", "Verify your address", "Open this:\n\nhttps://mx.example.net/#/verify?token=x\n")


def _alias(name: str, *targets: str, action: AliasAction = AliasAction.FORWARD) -> Alias:
    return Alias(name, "domain1", name, action, targets, f"ref{name[:3]:a>3}", NOW)


SNAPSHOT = Snapshot(
    Settings("mx.example.net", "srs.mx.example.net"),
    1,
    accounts=[Account("a1", "owner@home.test", True, Role.OPERATOR, "free", NOW)],
    domains=[
        Domain("domain1", "a1", "example.org", True, DeliveryMode.SPOOL, LogLevel.EVENTS, NOW),
        Domain("domain2", "a1", "unproven.test", False, DeliveryMode.SPOOL, LogLevel.EVENTS, NOW),
    ],
    aliases=[
        _alias("team", "alice@home.test", "bob@home.test"),
        _alias("bin", action=AliasAction.DISCARD),
        _alias("later", "alice@home.test", action=AliasAction.DEFER),
    ],
    destinations=[Destination(mailbox, "a1", mailbox, NOW, NOW) for mailbox in ("alice@home.test", "bob@home.test")],
)


@dataclass(frozen=True, slots=True)
class Office:
    """A submission with a real spool behind it."""

    submission: Submission
    store: SqliteSpool
    calls: list[str] = field(default_factory=list)
    """How often the scheduler was woken."""

    def content(self, queued: Delivery) -> bytes:
        """What was written for this delivery."""
        return self.store.part(queued.message_id, 0) or b""


@asynccontextmanager
async def open_office(tmp_path: Path) -> AsyncIterator[Office]:
    """With its spool in this directory."""
    store = SqliteSpool(tmp_path / "spool.sqlite", KEYRING)
    calls: list[str] = []
    async with GroupCommitter(store) as committer:
        spool = Spool(store, committer, id_source())
        clocks = Clocks.all_from(lambda: NOW)
        submission = Submission(
            "mx.example.net", POSTMASTER, spool, lambda: SNAPSHOT, clocks, lambda: calls.append("wake")
        )
        yield Office(submission, store, calls)
    store.close()


async def test_a_letter_is_in_the_spool_when_it_was_taken(tmp_path: Path) -> None:
    async with open_office(tmp_path) as office:
        assert await office.submission.submit(LETTER) == 1
        (queued,) = office.store.deliveries()
        assert (str(queued.target), queued.state) == (LETTER.recipient, DeliveryState.WAITING)
        assert queued.next_attempt_at == NOW
        assert office.calls == ["wake"]
        assert queued.size == len(office.content(queued))
        assert message_from_bytes(office.content(queued))["To"] == "<ada@people.test>"
    # And so it is for who comes after a crash.
    store = SqliteSpool(tmp_path / "spool.sqlite", KEYRING)
    store.recover()
    assert store.deliveries() == [queued]
    store.close()


async def test_a_letter_goes_before_the_mail_of_any_plan(tmp_path: Path) -> None:
    async with open_office(tmp_path) as office:
        await office.submission.submit(LETTER)
        assert office.store.deliveries()[0].priority > 1000


async def test_what_others_say_about_a_letter_goes_to_its_sender_and_ends_there(tmp_path: Path) -> None:
    async with open_office(tmp_path) as office:
        await office.submission.submit(LETTER)
        (queued,) = office.store.deliveries()
        # RFC 5321 §4.5.5: not the null reverse-path, which is for reports.
        assert (queued.sender, queued.return_path) == (POSTMASTER, POSTMASTER)
        # The link in it goes nowhere else.
        assert queued.ret == "HDRS"
        content = office.content(queued)
    store = SqliteSpool(tmp_path / "desk.sqlite", KEYRING)
    settlement = await Desk(store).settle(queued, Failed(answer(550, enhanced_code="5.1.1")), content)
    # We tell nobody, and the log of no domain has it.
    assert reports(settlement) == []
    assert settlement.events == ()
    store.close()


@pytest.mark.parametrize(
    ("recipient", "targets"),
    [
        ("team@example.org", ["alice@home.test", "bob@home.test"]),
        ("ada@unproven.test", ["ada@unproven.test"]),
        # It is followed again at each attempt.
        ("later@example.org", ["later@example.org"]),
        ("postmaster@mx.example.net", ["owner@home.test"]),
        ("postmaster@example.org", ["owner@home.test"]),
        ("bin@example.org", []),
        ("nobody@example.org", []),
        ("nobody@mx.example.net", []),
        ("srs0=tag=aa=people.test=ada@srs.mx.example.net", []),
    ],
)
async def test_an_address_of_ours_is_followed_inside(tmp_path: Path, recipient: str, targets: list[str]) -> None:
    async with open_office(tmp_path) as office:
        assert await office.submission.submit(replace(LETTER, recipient=recipient)) == len(targets)
        queued = office.store.deliveries()
        assert sorted(str(each.target) for each in queued) == targets
        assert len({each.message_id for each in queued}) == min(len(targets), 1)
        assert {each.recipients[0].address for each in queued} <= {recipient}


@pytest.mark.parametrize(
    ("recipient", "target", "utf8"),
    [("ada@bücher.test", "ada@xn--bcher-kva.test", False), ("jörg@bücher.test", "jörg@bücher.test", True)],
)
async def test_an_international_address_needs_smtputf8_only_for_its_local_part(
    tmp_path: Path, recipient: str, target: str, utf8: bool
) -> None:
    async with open_office(tmp_path) as office:
        await office.submission.submit(replace(LETTER, recipient=recipient))
        (queued,) = office.store.deliveries()
        assert (str(queued.target), queued.utf8, queued.eight_bit) == (target, utf8, utf8)
        assert office.content(queued).isascii() is not utf8


@pytest.mark.parametrize("trouble", [StoreUnavailable("the disk reports an error"), StoreFull("the disk is full")])
async def test_of_a_letter_that_could_not_be_stored_nothing_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: StoreUnavailable
) -> None:
    async with open_office(tmp_path) as office:

        def refuse(units: object) -> None:
            raise trouble

        with monkeypatch.context() as patch:
            patch.setattr(office.store, "write", refuse)
            with pytest.raises(type(trouble)):
                await office.submission.submit(LETTER)
        assert office.calls == []
        assert await office.submission.submit(LETTER) == 1
        assert len(office.store.deliveries()) == 1
    assert parts_on_the_disk(tmp_path) == 1


async def test_the_last_room_on_a_disk_is_not_for_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_office(tmp_path) as office:
        monkeypatch.setattr(office.store, "has_room", lambda octets: False)
        with pytest.raises(StoreFull):
            await office.submission.submit(LETTER)
        assert office.store.deliveries() == []


@pytest.mark.parametrize(
    "recipient", ["", "nobody", "ada@people.test, eve@people.test", "<ada@people.test>", "a\r\nb@c.test"]
)
async def test_what_is_not_one_address_is_no_recipient(tmp_path: Path, recipient: str) -> None:
    async with open_office(tmp_path) as office:
        with pytest.raises(AddressError):
            await office.submission.submit(replace(LETTER, recipient=recipient))
        assert office.store.deliveries() == []
