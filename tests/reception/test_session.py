"""One connection's receiver, with a real spool: what is answered, what is stored, and what is said in the log."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from reception_house import CONTENT, SENDER, open_reception, parsed, parts_on_the_disk
from values import NOW

from appliance.model.delivery import DeliveryState
from appliance.model.time import DAY_MS
from appliance.privacy.declarations import RETURN_PATHS
from appliance.reception.session import MAX_RECEIVED
from appliance.spool.clocks import Clocks
from appliance.storage.records import StoreFull, StoreUnavailable
from appliance.storage.spool import ClockMarks, ReturnPath
from smtp.address import Address
from smtp.parameters import NO_RECIPIENT_PARAMETERS, Notify, OriginalRecipient
from smtp.server.trio_server import MailParameters, RecipientParameters
from smtp.tls import TlsFacts


async def test_a_message_is_durable_and_handed_on_when_the_250_is_given(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        replies, final = await world.transact("sales@example.org")
        assert [reply.code for reply in replies] == [250]
        assert final is not None
        assert (final.code, final.enhanced) == (250, "2.0.0")
        queued = world.store.deliveries()
        assert sorted(str(each.target) for each in queued) == ["alice@home.test", "bob@home.test"]
        assert {each.id for each in queued} == {each.id for each in world.onward.taken}
        assert {each.state for each in queued} == {DeliveryState.UNDER_WAY}
        assert queued[0].message_id in final.text
        assert queued[0].return_path.endswith("@srs.mx.example.net")
        stored = world.content(queued[0].message_id)
        assert stored.endswith(CONTENT)
        assert len(stored) == queued[0].size
        front = stored.removesuffix(CONTENT)
        assert front.startswith(b"Received: from laptop.sender.test ([192.0.2.1])")
        assert b"for <sales@example.org>" in front
        assert b"home.test" not in front


async def test_several_recipients_do_not_learn_of_each_other_and_a_mailbox_gets_one_copy(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        await world.transact("ali@example.org", "sales@example.org", "quiet@quiet.test")
        queued = {str(each.target): each for each in world.store.deliveries()}
        assert len(queued) == 2
        assert [each.address for each in queued["alice@home.test"].recipients] == [
            "ali@example.org",
            "sales@example.org",
            "quiet@quiet.test",
        ]
        front = world.content(queued["bob@home.test"].message_id).removesuffix(CONTENT)
        assert b" for " not in front


@pytest.mark.parametrize(
    ("recipients", "priority"),
    [
        (["sales@example.org"], -5),
        (["paid@paid.test"], 10),
        (["sales@example.org", "paid@paid.test"], 10),
        (["postmaster"], 0),
    ],
)
async def test_a_message_is_as_urgent_as_the_highest_plan_among_its_domains(
    tmp_path: Path, recipients: list[str], priority: int
) -> None:
    async with open_reception(tmp_path) as world:
        await world.transact(*recipients)
        assert {each.priority for each in world.store.deliveries()} == {priority}


async def test_the_log_level_decides_what_is_remembered(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        session = world.session()
        await trio.testing.wait_all_tasks_blocked()  # the client's name is looked for from the greeting on
        await world.transact("sales@example.org", "quiet@quiet.test", "err@errors.test", session=session)
        await world.transact("nobody@quiet.test", "nobody@errors.test", "a@elsewhere.test")
        events = world.events()
        assert [(each["type"], each["recipient"]) for each in events] == [
            ("RECEIVED", "sales@example.org"),
            ("REFUSED", "nobody@errors.test"),
        ]
        full, poor = events
        assert full["subject"] == "Apples"
        assert (full["client_address"], full["client_name"]) == ("192.0.2.1", "good.sender.test")
        assert (poor["code"], poor["reason"]) == (550, "alias-unknown")
        assert (poor.get("client_address"), poor.get("client_name"), poor.get("subject")) == (None, None, None)


@pytest.mark.parametrize("address", ["192.0.2.2", "192.0.2.3", "2001:db8::1"])
async def test_a_client_name_counts_only_where_it_leads_back(tmp_path: Path, address: str) -> None:
    async with open_reception(tmp_path) as world:
        session = world.session(address)
        for _ in range(2):
            await world.transact("sales@example.org", session=session)
            await trio.testing.wait_all_tasks_blocked()
        assert [each["client_name"] for each in world.events()] == [None, None]


async def test_what_is_discarded_is_accepted_and_not_stored(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        _, final = await world.transact("bin@example.org")
        assert final is not None
        assert final.code == 250
        assert world.store.deliveries() == []
        assert [each["type"] for each in world.events()] == ["RECEIVED"]


async def test_without_room_in_memory_a_message_is_left_waiting_in_the_spool(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        world.onward.room = 1
        await world.transact("sales@example.org")
        assert {each.state for each in world.store.deliveries()} == {DeliveryState.WAITING}
        assert world.onward.taken == []
        assert world.onward.woken == 1


async def test_a_message_that_goes_round_in_circles_is_refused_and_not_stored(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        content = b"Received: from a by b; Fri, 20 Nov 2026 10:00:00 +0000\r\n" * MAX_RECEIVED + CONTENT
        _, final = await world.transact("sales@example.org", content=content)
        assert final is not None
        assert (final.code, final.enhanced) == (554, "5.4.6")
        assert world.store.deliveries() == []
        assert [(each["type"], each["reason"]) for each in world.events()] == [("REFUSED", "too-many-hops")]
        _, final = await world.transact("sales@example.org", content=content[len(content) // MAX_RECEIVED :])
        assert final is not None


async def test_what_comes_back_for_the_same_alias_is_refused_at_once(tmp_path: Path) -> None:
    """For all recipients of the transaction: the sender has the message and knows them."""
    async with open_reception(tmp_path) as world:
        await world.transact("ali@example.org")
        [queued] = world.store.deliveries()
        back = b"Received: from mx.example.net by home.test\r\n" + world.content(queued.message_id)
        for recipients in (["ali@example.org"], ["quiet@quiet.test", "ALI@Example.org"]):
            _, final = await world.transact(*recipients, content=back)
            assert final is not None
            assert (final.code, final.enhanced) == (554, "5.4.6")
        assert world.store.deliveries() == [queued]
        refused = [(each["recipient"], each["reason"]) for each in world.events() if each["type"] == "REFUSED"]
        assert refused == [("ali@example.org", "mail-loop"), ("ALI@Example.org", "mail-loop")]
        _, final = await world.transact("sales@example.org", content=back)
        assert final is not None
        assert final.code == 250


async def test_a_reset_leaves_nothing_behind(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        session = world.session()
        await session.mail(SENDER, MailParameters())
        await session.recipient(Address.parse("sales@example.org"), RecipientParameters())
        await session.data()
        await session.content(b"x" * 1_000_000)
        assert parts_on_the_disk(tmp_path) == 3
        await session.reset()
        await session.reset()
        assert world.store.deliveries() == []
        assert parts_on_the_disk(tmp_path) == 0
        assert world.events() == []
        _, final = await world.transact("sales@example.org", session=session)
        assert final is not None
        assert final.code == 250


async def test_a_store_that_refuses_is_a_451_and_gives_the_room_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_reception(tmp_path) as world:

        def refuse(operations: object) -> None:
            raise StoreUnavailable("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(world.store, "write", refuse)
            _, final = await world.transact("sales@example.org")
            assert final is not None
            assert (final.code, final.enhanced) == (451, "4.3.0")
            _, final = await world.transact("sales@example.org", content=CONTENT + b"x" * 1_000_000 + b"\r\n")
            assert final is not None
            assert final.code == 451
        assert world.onward.room == 100
        assert world.onward.taken == []
        _, final = await world.transact("sales@example.org")
        assert final is not None
        assert final.code == 250


@pytest.mark.parametrize(
    ("trouble", "code", "enhanced"),
    [(StoreUnavailable("the disk reports an error"), 451, "4.3.0"), (StoreFull("the disk is full"), 452, "4.3.1")],
)
async def test_content_that_could_not_be_stored_is_not_accepted_when_the_disk_is_well_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: StoreUnavailable, code: int, enhanced: str
) -> None:
    async with open_reception(tmp_path) as world:
        session = world.session()
        await session.mail(SENDER, MailParameters())
        await session.recipient(Address.parse("sales@example.org"), RecipientParameters())
        await session.data()

        def refuse(operations: object) -> None:
            raise trouble

        with monkeypatch.context() as patch:
            patch.setattr(world.store, "write", refuse)
            await session.content(b"x" * 1_000_000)
        await session.content(b"the rest\r\n")
        final = await session.end_of_data()
        assert (final.code, final.enhanced) == (code, enhanced)
        assert world.store.deliveries() == []
        assert world.onward.taken == []


REPORT = (
    b"From: MAILER-DAEMON@home.test\r\nTo: x\r\nSubject: failed\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/plain\r\n\r\nalice@home.test is over quota\r\n"
    b"--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.home.test\r\n\r\n"
    b"Final-Recipient: rfc822; alice@home.test\r\nAction: failed\r\nStatus: 5.2.2\r\n"
    b"Diagnostic-Code: smtp; 552 5.2.2 alice is over quota\r\n\r\n--b--\r\n"
)


async def test_what_comes_back_becomes_a_report_of_our_own_that_names_the_alias(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        await world.transact("ali@example.org")
        (forwarded,) = world.store.deliveries()
        replies, final = await world.transact(forwarded.return_path, sender=None, content=REPORT)
        assert replies[0].code == 250
        assert final is not None
        assert final.code == 250
        report = next(each for each in world.store.deliveries() if each.id != forwarded.id)
        assert (str(report.target), report.sender, report.return_path) == ("friend@sender.test", "", "")
        assert report.state is DeliveryState.WAITING
        assert world.onward.woken == 1
        content = world.content(report.message_id)
        assert b"ali@example.org" in content
        assert b"5.2.2" in content
        assert b"home.test" not in content
        assert b"alice" not in content.replace(b"ali@example.org", b"")


async def test_a_rewritten_sender_takes_reports_only_and_only_its_own(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        await world.transact("ali@example.org")
        return_path = world.store.deliveries()[0].return_path
        (with_sender,), _ = await world.transact(return_path)
        assert (with_sender.code, with_sender.enhanced) == (550, "5.7.1")
        tag = return_path.split("=")[1]
        forged = return_path.replace(tag, ("a" if tag[0] != "a" else "b") + tag[1:])
        (reply,), _ = await world.transact(forged, sender=None)
        assert reply.code == 550
        (reply,), _ = await world.transact("someone@srs.mx.example.net", sender=None)
        assert (reply.code, reply.enhanced) == (550, "5.1.1")


async def test_a_report_about_a_report_is_looked_up_where_no_other_session_waits_for_the_store(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        asked_in = set[threading.Thread]()

        def look_up(token: str) -> ReturnPath | None:
            asked_in.add(threading.current_thread())
            return world.store.return_path(token)

        own_mail = replace(world.reception.own_mail, look_up=look_up)
        world.reception = replace(world.reception, own_mail=own_mail)
        sender = Address.parse(f"{'x' * 60}@sender.test")
        await world.transact("ali@example.org", sender=sender)
        token = world.store.deliveries()[-1].return_path
        # Somebody has had mail from us, and uses the address that it came from.
        await world.transact("ali@example.org", sender=Address.parse(token))
        return_path = world.store.deliveries()[-1].return_path
        _, final = await world.transact(return_path, sender=None, content=REPORT)
        assert final is not None
        assert final.code == 250
        assert len(asked_in) == 1
        assert threading.current_thread() not in asked_in
        assert str(sender) in {str(each.target) for each in world.store.deliveries()}


async def test_a_sender_too_long_to_be_carried_is_found_again_by_its_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_reception(tmp_path) as world:
        sender = Address.parse("bounces+" + "x" * 50 + "@news.a-rather-long-name-for-a-domain.sender.test")
        await world.transact("ali@example.org", sender=sender)
        return_path = world.store.deliveries()[0].return_path
        assert len(return_path.rpartition("@")[0]) <= 64
        _, final = await world.transact(return_path, sender=None, content=REPORT)
        assert final is not None
        assert final.code == 250
        assert str(sender) in {str(each.target) for each in world.store.deliveries()}

        def away(token: str) -> None:
            raise StoreUnavailable("locked")

        monkeypatch.setattr(world.store, "return_path", away)
        (reply,), _ = await world.transact(return_path, sender=None)
        assert reply.code == 451, "what can't be looked up is never refused for good"


async def test_a_token_of_a_sender_is_not_swept_at_once_where_the_clock_was_set_back(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        latest = NOW + 60 * DAY_MS
        world.reception = replace(world.reception, clocks=Clocks(lambda: NOW, ClockMarks(latest=latest)))
        sender = Address.parse("bounces+" + "x" * 50 + "@news.a-rather-long-name-for-a-domain.sender.test")
        await world.transact("ali@example.org", sender=sender)
        (retention,) = RETURN_PATHS.retention
        assert world.store.sweep(retention, latest - 21 * DAY_MS) == 0


# ---------------------------------------------------------------------- what the extensions carry


async def test_what_mail_and_rcpt_have_asked_for_goes_with_the_delivery(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        await world.transact(
            "ali@example.org",
            parameters=MailParameters(require_tls=True, ret="FULL", envid="QQ 314"),
            wishes={
                "ali@example.org": RecipientParameters(
                    frozenset({Notify.DELAY, Notify.FAILURE}), OriginalRecipient("rfc822", "first@sender.test")
                )
            },
        )
        [queued] = world.store.deliveries()
        assert (queued.require_tls, queued.ret, queued.envid, queued.utf8) == (True, "FULL", "QQ 314", False)
        [recipient] = queued.recipients
        assert recipient.notify == "FAILURE,DELAY"
        assert recipient.orcpt == "rfc822;first@sender.test"


async def test_of_the_success_of_an_alias_one_of_its_copies_tells(tmp_path: Path) -> None:
    """More would tell how many mailboxes are behind it."""
    wishes = {"sales@example.org": RecipientParameters(frozenset({Notify.SUCCESS}))}
    async with open_reception(tmp_path) as world:
        await world.transact("sales@example.org", wishes=wishes)
        assert sorted(each.recipients[0].notify for each in world.store.deliveries()) == ["NEVER", "SUCCESS"]


async def test_a_recipient_that_is_named_twice_is_told_of_once(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        session = world.session()
        await session.mail(SENDER, MailParameters())
        for wish in (NO_RECIPIENT_PARAMETERS, RecipientParameters(frozenset({Notify.NEVER}))):
            await session.recipient(parsed("ali@example.org"), wish)
        await session.data()
        await session.content(CONTENT)
        assert (await session.end_of_data()).code == 250
        [queued] = world.store.deliveries()
        assert [each.address for each in queued.recipients] == ["ali@example.org"]


@pytest.mark.parametrize(
    ("said", "content", "needed"),
    [
        (True, CONTENT.replace(b"Apples", "Äpfel".encode()), True),
        (True, CONTENT, False),
        (False, CONTENT.replace(b"Hello", "Grüße".encode()), False),
    ],
)
async def test_smtputf8_is_needed_where_it_was_said_and_there_is_something_to_it(
    tmp_path: Path, said: bool, content: bytes, needed: bool
) -> None:
    async with open_reception(tmp_path) as world:
        await world.transact("ali@example.org", content=content, parameters=MailParameters(smtputf8=said))
        [queued] = world.store.deliveries()
        assert queued.utf8 is needed
        assert queued.eight_bit is not content.isascii()


@pytest.mark.parametrize(
    ("tls", "utf8", "expected"),
    [
        (None, False, b" with ESMTP id "),
        (None, True, b" with UTF8SMTP id "),
        (TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384"), False, b" with ESMTPS id "),
        (TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384"), True, b" with UTF8SMTPS id "),
    ],
)
async def test_the_received_line_says_how_the_message_came(
    tmp_path: Path, tls: TlsFacts | None, utf8: bool, expected: bytes
) -> None:
    async with open_reception(tmp_path) as world:
        session = world.session(tls=tls)
        await world.transact("ali@example.org", session=session, parameters=MailParameters(smtputf8=utf8))
        [queued] = world.store.deliveries()
        front = world.content(queued.message_id).removesuffix(CONTENT)
        assert expected in front
        assert (b"\r\n\tfor <ali@example.org>\r\n\ttls TLS_AES_256_GCM_SHA384;\r\n" in front) is (tls is not None)
        assert (b" tls " in front.replace(b"\t", b" ")) is (tls is not None)


async def test_a_report_in_place_of_what_came_back_over_tls_only_goes_over_tls_only(tmp_path: Path) -> None:
    """RFC 8689 §5."""
    async with open_reception(tmp_path) as world:
        await world.transact("ali@example.org")
        [queued] = world.store.deliveries()
        await world.transact(
            queued.return_path,
            sender=None,
            content=b"From: MAILER-DAEMON@home.test\r\nX-Failed-Recipients: alice@home.test\r\n\r\nNo.\r\n",
            parameters=MailParameters(require_tls=True),
        )
        [report] = [each for each in world.store.deliveries() if each.sender == ""]
        assert str(report.target) == str(SENDER)
        assert report.require_tls
