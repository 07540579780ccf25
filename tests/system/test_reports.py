"""What a sender is told when mail cannot be delivered, and what nobody is told."""

import re
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from appliance_process import eventually
from destination import ReceivedMessage
from destination_scripts import Answer, Moment, Stage, always
from read_report import read_report
from sending_on import SendingOn
from world import HOSTNAME, SRS_DOMAIN, World, letter

from appliance.forwarding.own_lines import MAX_OWN_LINES

NAMES = ["gone", "words", "dot", "null", "auto", "back", "twin", "bounced", "expiring", "quiet", "forged", "folded"]
NAMES += ["asked", "never", "circle", "ping", "pong", "long"]
TOWN = {f"{name}@forward.test": [f"hidden.{name}@dest.test"] for name in NAMES}
TOWN["*@everybody.test"] = ["hidden.everybody@dest.test"]
TOWN["pair@forward.test"] = ["hidden.twin@dest.test", "hidden.pair@dest.test"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings = {"delivery": {"retry": ["500ms"], "give_up_after": "3s", "delay_notice_after": ""}}
    with World(tmp_path_factory.mktemp("reports"), TOWN, settings) as world:
        yield world
        assert world.objections() == []


def parsed(report: ReceivedMessage) -> EmailMessage:
    """The report, by a parser of somebody else's."""
    message = message_from_bytes(report.content, policy=policy.SMTP)
    assert isinstance(message, EmailMessage)
    return message


def assert_is_report_about(report: ReceivedMessage, alias: str, status: str, hidden: str) -> None:
    """RFC 3464 and RFC 3834, and our own promise: the destination stays hidden."""
    assert report.sender == ""
    assert hidden.encode() not in report.content
    assert b"hidden" not in report.content
    assert b"dest.test" not in report.content
    message = parsed(report)
    assert message.get_content_type() == "multipart/report"
    assert message["Content-Type"].params["report-type"] == "delivery-status"
    assert message["Auto-Submitted"].startswith("auto-")
    assert message["Message-ID"]
    assert message["Date"].datetime
    assert message["To"].addresses[0].addr_spec == report.recipients[0]
    assert all(len(line) <= 998 for line in report.content.split(b"\r\n"))
    people, machine = list(message.iter_parts())[:2]
    assert alias in people.get_content()
    assert machine.get_content_type() == "message/delivery-status"
    fields = machine.as_bytes().decode()
    assert re.search(rf"^Reporting-MTA: *dns; *{re.escape(HOSTNAME)}\r?$", fields, re.MULTILINE)
    assert re.search(rf"^Final-Recipient: *rfc822; *{re.escape(alias)}\r?$", fields, re.MULTILINE)
    assert re.search(r"^Action: *failed\r?$", fields, re.MULTILINE)
    assert re.search(rf"^Status: *{re.escape(status)}\r?$", fields, re.MULTILINE)


def wait_for_hard_bounce(world: World, alias: str) -> dict[str, Any]:
    """The event that says it."""

    def look() -> list[dict[str, Any]]:
        return [each for each in world.appliance.log_events("--recipient", alias) if each["type"] == "HARD_BOUNCED"]

    [event] = eventually(look, what=f"a hard bounce of {alias}")
    return event


@pytest.mark.parametrize(
    ("name", "stage", "answer", "status"),
    [
        ("gone", Stage.RCPT, Answer(550, "5.1.1 No such user"), "5.1.1"),
        ("words", Stage.RCPT, Answer(550, "5.2.1 <hidden.words@dest.test>: disabled at mx1.dest.test"), "5.2.1"),
        ("dot", Stage.END_OF_DATA, Answer(554, "5.7.1 Spam for hidden.dot refused"), "5.7.1"),
    ],
)
def test_permanent_failure_is_reported_to_the_sender(
    world: World, name: str, stage: Stage, answer: Answer, status: str
) -> None:
    alias, hidden, sender = f"{name}@forward.test", f"hidden.{name}@dest.test", f"{name}@sender.test"
    world.mailbox_says(always(stage, answer, recipient=hidden))
    assert world.send(alias, sender, letter(alias, subject=f"about {name}")).code == 250
    report = world.report_to(sender)
    assert_is_report_about(report, alias, status, hidden)
    assert f"Subject: about {name}".encode() in report.content
    world.queue_is_empty()
    assert len(world.senders.for_recipient(sender)) == 1
    event = wait_for_hard_bounce(world, alias)
    assert event["code"] == answer.code
    assert hidden not in str(event)


def send_with_wishes(world: World, name: str, of_mail: str, of_rcpt: str) -> None:
    """A message with parameters of DSN (RFC 3461)."""
    with world.appliance.client() as client:
        assert client.command(f"MAIL FROM:<{name}@sender.test> {of_mail}").code == 250
        assert client.command(f"RCPT TO:<{name}@forward.test> {of_rcpt}").code == 250
        assert client.data(letter(f"{name}@forward.test", body="The whole of it.\r\n")).code == 250
        client.quit()


def test_the_report_has_what_the_sender_asked_for_and_the_senders_own_names(world: World) -> None:
    """As the sender's server sees it: ENVID and ORCPT out of their xtext, and the message whole."""
    world.mailbox_says(always(Stage.RCPT, Answer(550, "5.1.1 No"), recipient="hidden.asked@dest.test"))
    send_with_wishes(
        world,
        "asked",
        "RET=FULL ENVID=QQ+2B314",
        "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;first+2Bone@sender.test",
    )
    arrived = world.report_to("asked@sender.test")
    assert_is_report_about(arrived, "asked@forward.test", "5.1.1", "hidden.asked@dest.test")
    report = read_report(arrived.content)
    assert report.of_message["Original-Envelope-Id"] == "QQ+314"
    [group] = report.of_recipients
    assert group["Original-Recipient"] == "rfc822; first+one@sender.test"
    assert group["Final-Recipient"] == "rfc822; asked@forward.test"
    assert report.types == ["text/plain", "message/delivery-status", "message/rfc822"]
    assert b"\r\n\r\nThe whole of it.\r\n" in arrived.content
    world.queue_is_empty()
    assert len(world.senders.for_recipient("asked@sender.test")) == 1


def test_who_never_wants_to_hear_does_not_hear_of_a_failure(world: World) -> None:
    world.mailbox_says(always(Stage.RCPT, Answer(550, "5.1.1 No"), recipient="hidden.never@dest.test"))
    send_with_wishes(world, "never", "RET=HDRS", "NOTIFY=NEVER")
    assert wait_for_hard_bounce(world, "never@forward.test")["code"] == 550
    world.queue_is_empty()
    assert world.senders.for_recipient("never@sender.test") == []


def test_one_destination_of_two_fails(world: World) -> None:
    world.mailbox_says(always(Stage.RCPT, Answer(550, "5.1.1 No"), recipient="hidden.twin@dest.test"))
    assert world.send("pair@forward.test", "pair@sender.test").code == 250
    world.arrived("hidden.pair@dest.test")
    report = world.report_to("pair@sender.test")
    assert_is_report_about(report, "pair@forward.test", "5.1.1", "hidden.twin@dest.test")
    world.queue_is_empty()
    assert len(world.senders.for_recipient("pair@sender.test")) == 1
    assert len(world.main.for_recipient("hidden.pair@dest.test")) == 1


def test_giving_up_is_reported_once_and_not_before_its_time(world: World) -> None:
    world.mailbox_says(always(Stage.RCPT, Answer(452, "4.2.2 Full"), recipient="hidden.expiring@dest.test"))
    assert world.send("expiring@forward.test", "expiring@sender.test").code == 250
    report = world.report_to("expiring@sender.test", within=15)
    assert_is_report_about(report, "expiring@forward.test", "4.2.2", "hidden.expiring@dest.test")
    world.queue_is_empty()
    wait_for_hard_bounce(world, "expiring@forward.test")
    events = world.appliance.log_events("--recipient", "expiring@forward.test")
    assert sum(event["type"] == "SOFT_BOUNCED" for event in events) >= 3


@pytest.mark.parametrize(
    ("name", "sender", "extra"),
    [
        ("null", "", ""),
        ("auto", "auto@sender.test", "Auto-Submitted: auto-replied\r\n"),
    ],
)
def test_nobody_is_told_about_reports_and_automatic_mail(world: World, name: str, sender: str, extra: str) -> None:
    alias, hidden = f"{name}@forward.test", f"hidden.{name}@dest.test"
    world.mailbox_says(always(Stage.RCPT, Answer(550, "5.1.1 No"), recipient=hidden))
    before = len(world.senders.messages)
    assert world.send(alias, sender, extra.encode() + letter(alias)).code == 250
    assert wait_for_hard_bounce(world, alias)
    world.queue_is_empty()
    assert len(world.senders.messages) == before


def test_report_that_cannot_be_delivered_ends_there(world: World) -> None:
    refused = []

    def nobody(moment: Moment) -> Answer | None:
        if moment.stage is not Stage.RCPT or moment.recipient != "bounced@sender.test":
            return None
        refused.append(moment.recipient)
        return Answer(550, "5.1.1 Nobody")

    world.senders.script = nobody
    world.mailbox_says(always(Stage.RCPT, Answer(550, "5.1.1 No"), recipient="hidden.bounced@dest.test"))
    before = len(world.senders.messages)
    assert world.send("bounced@forward.test", "bounced@sender.test").code == 250
    assert wait_for_hard_bounce(world, "bounced@forward.test")
    world.queue_is_empty()
    assert len(world.senders.messages) == before
    assert refused == ["bounced@sender.test"]


# ---------------------------------------------------------------------- the way back


def return_path(world: World, name: str) -> str:
    """The rewritten sender under which a message for this alias has reached its destination."""
    assert world.send(f"{name}@forward.test", f"{name}@sender.test").code == 250
    path = world.arrived(f"hidden.{name}@dest.test")[0].sender
    assert path.endswith(f"@{SRS_DOMAIN}")
    return path


def next_hop_report(to: str, hidden: str) -> bytes:
    """What a destination's own server writes, naming what it should not."""
    return (
        f"From: MAILER-DAEMON@mx1.dest.test\r\nTo: {to}\r\nSubject: Undelivered\r\nAuto-Submitted: auto-replied\r\n"
        "MIME-Version: 1.0\r\n"
        'Content-Type: multipart/report; report-type=delivery-status; boundary="=cut"\r\n\r\n'
        f"--=cut\r\nContent-Type: text/plain\r\n\r\nThe mailbox {hidden} is full.\r\n"
        "--=cut\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx1.dest.test\r\n\r\n"
        f"Final-Recipient: rfc822; {hidden}\r\nAction: failed\r\nStatus: 5.2.2\r\n"
        f"Diagnostic-Code: smtp; 552 5.2.2 <{hidden}> over quota\r\n\r\n"
        f"--=cut\r\nContent-Type: text/rfc822-headers\r\n\r\nTo: {hidden}\r\nSubject: secret\r\n\r\n--=cut--\r\n"
    ).encode()


def test_report_of_the_next_hop_becomes_one_of_our_own(world: World) -> None:
    path = return_path(world, "back")
    hidden = "hidden.back@dest.test"
    assert world.send(path, "", next_hop_report(path, hidden)).code == 250
    report = world.report_to("back@sender.test")
    assert_is_report_about(report, "back@forward.test", "5.2.2", hidden)
    world.queue_is_empty()
    assert len(world.senders.for_recipient("back@sender.test")) == 1


def test_report_finds_a_sender_that_no_address_can_carry(world: World) -> None:
    """It stands in the spool, and in the rewritten sender a token for it."""
    sender = f"{'x' * 60}@sender.test"
    assert world.send("long@forward.test", sender).code == 250
    path = world.arrived("hidden.long@dest.test")[0].sender
    assert "sender.test" not in path
    assert world.send(path, "", next_hop_report(path, "hidden.long@dest.test")).code == 250
    assert_is_report_about(world.report_to(sender), "long@forward.test", "5.2.2", "hidden.long@dest.test")


def test_return_path_with_its_case_folded_still_opens(world: World) -> None:
    path = return_path(world, "folded").upper()
    assert world.send(path, "", next_hop_report(path, "hidden.folded@dest.test")).code == 250
    eventually(lambda: [each for each in world.senders.messages if each.recipients[0].lower() == "folded@sender.test"])


def test_return_path_takes_nothing_but_reports(world: World) -> None:
    path = return_path(world, "quiet")
    assert world.ask(path, "stranger@elsewhere.test").code == 550
    # An absence note with the null sender is no report; nobody could pass it on without naming the mailbox.
    note = letter(path, "I am away until Monday", "Write to hidden.quiet@dest.test\r\n")
    assert world.send(path, "", note).code in (250, 550)
    world.queue_is_empty()
    assert not [each for each in world.senders.messages if b"hidden.quiet" in each.content]


@pytest.mark.parametrize("change", ["tag", "sender", "domain", "nonsense"])
def test_return_path_that_we_did_not_make_is_refused(world: World, change: str) -> None:
    path = world.main.for_recipient("hidden.forged@dest.test")
    made = path[0].sender if path else return_path(world, "forged")
    forged = {
        "tag": made.replace("srs0=", "srs0=a", 1),
        "sender": made.replace("=forged@", "=victim@"),
        "domain": made.replace("=sender.test=", "=elsewhere.test="),
        "nonsense": f"srs0=x@{SRS_DOMAIN}",
    }[change]
    assert forged != made
    reply = world.ask(forged, "")
    assert reply.code == 550
    assert world.ask(made, "").code == 250


# ---------------------------------------------------------------------- circles


def assert_ends_with_one_report(world: World, sender: str, alias: str) -> None:
    """The circle is over, nothing is left of it, and the sender has heard of it once."""
    assert_is_report_about(world.report_to(sender), alias, "5.4.6", "hidden.circle@dest.test")
    world.queue_is_empty()
    assert len(world.senders.for_recipient(sender)) == 1
    assert "sent round in a circle" in read_report(world.report_to(sender).content).text


def test_a_mailbox_that_sends_everything_back_gets_one_copy(world: World) -> None:
    with SendingOn(world, {"hidden.circle@dest.test": "circle@forward.test"}.get) as sent:
        assert world.send("circle@forward.test", "circle@sender.test").code == 250
        assert_ends_with_one_report(world, "circle@sender.test", "circle@forward.test")
    assert [(reply.code, reply.text.split()[0]) for reply in sent.replies] == [(554, "5.4.6")]
    assert len(world.main.for_recipient("hidden.circle@dest.test")) == 1
    events = world.appliance.log_events("--recipient", "circle@forward.test")
    assert [each["reason"] for each in events if each["type"] == "REFUSED"] == ["mail-loop"]


def test_two_aliases_whose_mailboxes_lead_to_each_other_get_one_copy_each(world: World) -> None:
    ways = {"hidden.ping@dest.test": "pong@forward.test", "hidden.pong@dest.test": "ping@forward.test"}
    with SendingOn(world, ways.get) as sent:
        assert world.send("ping@forward.test", "ping@sender.test").code == 250
        assert_ends_with_one_report(world, "ping@sender.test", "ping@forward.test")
    assert [reply.code for reply in sent.replies] == [250, 554]
    assert len(world.main.for_recipient("hidden.ping@dest.test")) == 1
    assert len(world.main.for_recipient("hidden.pong@dest.test")) == 1


def test_a_circle_with_a_new_address_each_time_ends_after_a_few_rounds(world: World) -> None:
    rounds = 0

    def way(mailbox: str) -> str | None:
        nonlocal rounds
        rounds += 1
        return f"round{rounds}@everybody.test" if mailbox == "hidden.everybody@dest.test" else None

    with SendingOn(world, way) as sent:
        assert world.send("round0@everybody.test", "everybody@sender.test").code == 250
        report = world.report_to("everybody@sender.test")
    assert b"dest.test" not in report.content
    assert b"hidden" not in report.content
    assert read_report(report.content).of_recipients[0]["Status"] == "5.4.6"
    world.queue_is_empty()
    assert len(world.senders.for_recipient("everybody@sender.test")) == 1
    assert [reply.code for reply in sent.replies] == [250] * MAX_OWN_LINES + [554]
