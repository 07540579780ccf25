"""Transit mode with the real appliance: the sender hears what the next hops say, and nothing is kept."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from appliance_process import Settings
from destination_scripts import CLOSE, Answer, Moment, Stage, always
from dns_server import Behaviour
from smtp_client import Closed, Reply, SmtpClient, stuffed
from world import SRS_DOMAIN, World, is_one_received_line, letter, put_in_front

BOXES = ["ok", "unknown", "busy", "later", "stalls", "dies", "broken", "large", "second"]
TOWN = {
    **{f"{name}@transit.test": [f"{name}.box@dest.test"] for name in BOXES},
    **{f"{name}@loud.test": [f"{name}.loud@dest.test"] for name in ("ok", "unknown", "dot")},
    **{f"{name}@errors.test": [f"{name}.errors@dest.test"] for name in ("ok", "unknown")},
    **{f"held{number}@transit.test": [f"held{number}.box@dest.test"] for number in range(10)},
    "two@transit.test": ["two.box@dest.test", "two.box@other.test"],
    "third@transit.test": ["third.box@other.test"],
    "pair@transit.test": ["one.box@dest.test", "other.box@dest.test"],
    "single@transit.test": ["one.box@dest.test"],
    "gone@transit.test": ["gone.box@other.test"],
    "down@transit.test": ["box@down.test"],
    "null@transit.test": ["box@null.test"],
    "lost@transit.test": ["box@lost.test"],
    "lame@transit.test": ["box@lame.test"],
    "spooled@forward.test": ["spooled.box@dest.test"],
}
DOMAINS = {
    "transit.test": ("--mode", "transit", "--log", "none"),
    "loud.test": ("--mode", "transit", "--log", "events"),
    "errors.test": ("--mode", "transit", "--log", "errors"),
}
REPORT = (
    b"From: MAILER-DAEMON@dest.test\r\nSubject: failed\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx1.dest.test\r\n\r\n"
    b"Final-Recipient: rfc822; second.box@dest.test\r\nAction: failed\r\nStatus: 5.2.2\r\n\r\n--b--\r\n"
)
SHORT_S = 0.3
"""A time that a test waits for to the end."""
IN_FLIGHT = 1 << 20
SETTINGS: Settings = {"smtp": {"max_in_flight": "1 MiB"}, "dns": {"timeout": "300ms"}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("transit"), TOWN, SETTINGS, DOMAINS) as world:
        world.dns.set("other.test", "MX 10 mx2.dest.test.")
        world.dns.set("down.test", "MX 10 nobody.test.")
        world.dns.set("nobody.test", "A 127.0.0.6")
        world.dns.set("null.test", "MX 0 .")
        yield world
        assert world.objections() == []
        assert world.appliance.queue() == []


@dataclass
class Gate:
    """A script that holds the reply to a final dot back until it is let go."""

    recipient: str
    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def __call__(self, moment: Moment) -> Answer | None:
        if moment.stage is Stage.END_OF_DATA and self.recipient in moment.recipients:
            self.reached.set()
            self.opened.wait(20)
        return None


def begin(client: SmtpClient, recipient: str) -> None:
    """Everything up to the 354."""
    assert [reply.code for reply in client.envelope("ann@sender.test", [recipient])] == [250, 250]
    assert client.command("DATA").code == 354


def test_a_message_goes_on_before_its_sender_has_the_250(world: World) -> None:
    content = letter("ok@transit.test")
    reply = world.send("ok@transit.test", content=content)
    assert (reply.code, reply.text.partition(" ")[0]) == (250, "2.0.0")
    # Not waited for: it is there.
    (message,) = world.main.for_recipient("ok.box@dest.test")
    assert is_one_received_line(put_in_front(message.content, content))
    assert message.sender.endswith(f"@{SRS_DOMAIN}")


@pytest.mark.parametrize(
    ("name", "said", "heard"),
    [
        (
            "unknown",
            Answer(550, "5.1.1 unknown.box@dest.test is unknown at mx1.dest.test"),
            "550 5.1.1 There is no such",
        ),
        ("busy", Answer(451, "4.7.1 Try later, unknown.box@dest.test"), "451 4.7.1 The mail server behind"),
        ("later", Answer(421, "4.3.2 mx1.dest.test is going down", close=True), "451 4.3.2 The mail server behind"),
    ],
)
def test_what_a_next_hop_says_to_rcpt_is_heard_at_rcpt_in_other_words(
    world: World, name: str, said: Answer, heard: str
) -> None:
    world.mailbox_says(always(Stage.RCPT, said, recipient=f"{name}.box@dest.test"))
    reply = str(world.ask(f"{name}@transit.test"))
    assert reply.startswith(heard)
    assert "box" not in reply.replace("mailbox", "")
    assert "dest.test" not in reply


@pytest.mark.parametrize(("alias", "begins"), [("down", "451 4.4.1"), ("null", "556 5.1.10"), ("lost", "550 5.1.2")])
def test_a_destination_without_a_server_is_told_at_rcpt(world: World, alias: str, begins: str) -> None:
    assert str(world.ask(f"{alias}@transit.test")).startswith(begins)


def test_a_dns_that_fails_is_no_refusal(world: World) -> None:
    world.dns.behave("lame.test", Behaviour.SERVFAIL)
    assert str(world.ask("lame@transit.test")).startswith("451 4.4.3")


def test_the_250_waits_for_that_of_the_next_hop(world: World) -> None:
    gate = Gate("stalls.box@dest.test")
    world.mailbox_says(gate)
    with world.appliance.client() as client:
        begin(client, "stalls@transit.test")
        client.send(stuffed(letter("stalls@transit.test")))
        replies: list[Reply] = []
        reading = threading.Thread(target=lambda: replies.append(client.reply()))
        reading.start()
        assert gate.reached.wait(10)
        reading.join(SHORT_S)
        assert replies == []
        gate.opened.set()
        reading.join()
        assert [reply.code for reply in replies] == [250]
        client.quit()


def test_a_next_hop_that_dies_after_the_final_dot_is_a_451(world: World) -> None:
    world.mailbox_says(always(Stage.END_OF_DATA, CLOSE, recipient="dies.box@dest.test", times=1))
    assert str(world.send("dies@transit.test")).startswith("451 4.4.2")
    assert world.send("dies@transit.test").code == 250


def test_a_next_hop_that_is_gone_by_then_is_a_451_and_nothing_else(world: World) -> None:
    with world.appliance.client() as client:
        assert [reply.code for reply in client.envelope("ann@sender.test", ["third@transit.test"])] == [250, 250]
        world.second.stop()
        try:
            assert str(client.data(letter("third@transit.test"))).startswith("451 4.4.1")
        finally:
            world.second.start()
        assert client.message("ann@sender.test", ["third@transit.test"], letter("third@transit.test")).code == 250
        client.quit()
    assert len(world.second.for_recipient("third.box@other.test")) == 1


def test_a_next_hop_that_hangs_up_on_a_slow_sender_is_called_once_more(world: World) -> None:
    content = letter("third@transit.test", "Slow")
    with world.appliance.client() as client:
        begin(client, "third@transit.test")
        world.second.stop()
        world.second.start()
        client.send(stuffed(content))
        assert client.reply().code == 250
        client.quit()
    assert len(world.second.containing(b"Subject: Slow")) == 1


def test_who_waits_with_many_connections_keeps_nobody_else_out(world: World) -> None:
    with world.appliance.client() as one, world.appliance.client() as two:
        for client in (one, two):
            replies = client.envelope("slow@sender.test", [f"held{number}@transit.test" for number in range(10)])
            assert [reply.code for reply in replies] == [250] * 11
        with world.appliance.client(source="127.0.0.9") as other:
            content = letter("pair@transit.test", "Quick")
            assert other.message("ann@sender.test", ["pair@transit.test"], content).code == 250
            other.quit()
        assert len(world.main.containing(b"Subject: Quick")) == 1
        for client in (one, two):
            assert client.data(letter("held0@transit.test", "All of them")).code == 250
            client.quit()
    assert len(world.main.containing(b"Subject: All of them")) == 20


def test_the_retry_reaches_only_the_next_hop_that_has_it_not(world: World) -> None:
    content = letter("two@transit.test", "Twice")

    def busy(moment: Moment) -> Answer | None:
        at_the_end = moment.stage is Stage.END_OF_DATA and "two.box@other.test" in moment.recipients
        return Answer(451, "4.3.1 Full") if at_the_end else None

    world.second.script = busy
    assert str(world.send("two@transit.test", content=content)).startswith("451 4.3.1")
    assert str(world.send("two@transit.test", content=content)).startswith("451 4.3.1")
    world.second.script = None
    assert world.send("two@transit.test", content=content).code == 250
    assert len(world.main.for_recipient("two.box@dest.test")) == 1
    assert len(world.second.for_recipient("two.box@other.test")) == 1


def test_a_server_that_has_it_for_one_mailbox_gets_it_for_the_other_alone(world: World) -> None:
    content = letter("pair@transit.test", "Pair")
    world.mailbox_says(always(Stage.END_OF_DATA, Answer(451, "4.3.1 Full"), recipient="other.box@dest.test", times=1))
    assert world.send(["single@transit.test", "pair@transit.test"], content=content).code == 451
    assert world.send("pair@transit.test", content=content).code == 250
    taken = [message.recipients for message in world.main.containing(b"Subject: Pair")]
    assert sorted(taken) == [("one.box@dest.test",), ("other.box@dest.test",)]


def test_an_alias_that_failed_for_good_is_refused_at_the_rcpt_of_the_retry(world: World) -> None:
    world.mailbox_says(always(Stage.END_OF_DATA, Answer(554, "5.7.1 Spam"), recipient="broken.box@dest.test"))
    content = letter("second@transit.test")
    both = ["second@transit.test", "broken@transit.test"]
    assert str(world.send(both, "pat@sender.test", content)).startswith("451 4.0.0")
    with world.appliance.client() as client:
        replies = client.envelope("pat@sender.test", both)
        assert [reply.code for reply in replies] == [250, 250, 554]
        assert client.data(content).code == 250
        client.quit()
    assert len(world.main.for_recipient("second.box@dest.test")) == 1


@pytest.mark.parametrize("turned_round", [False, True])
def test_the_first_recipient_decides_how_a_transaction_goes_on(world: World, turned_round: bool) -> None:
    recipients = ["ok@transit.test", "spooled@forward.test", "postmaster@transit.test"]
    if turned_round:
        recipients.reverse()
    with world.appliance.client() as client:
        replies = client.envelope("ann@sender.test", recipients)
        # Mail for a postmaster waits for an operator, so it is never in transit.
        expected = [250, 250, 250, 452] if turned_round else [250, 250, 452, 452]
        assert [reply.code for reply in replies] == expected
        assert all(reply.text.startswith("4.5.3 ") for reply in replies if reply.code == 452)
        client.command("RSET")
        client.quit()


def test_whoever_leaves_in_the_middle_has_sent_nothing(world: World) -> None:
    asked, farewell = threading.Event(), threading.Event()

    def listen(moment: Moment) -> Answer | None:
        if moment.recipient == "gone.box@other.test":
            asked.set()
        elif moment.stage is Stage.OTHER and asked.is_set():
            farewell.set()
        return None

    world.second.script = listen
    with world.appliance.client() as client:
        begin(client, "gone@transit.test")
        client.send(letter("gone@transit.test"))
    assert farewell.wait(10)
    world.second.script = None
    assert world.second.for_recipient("gone.box@other.test") == []


def test_content_is_held_whole_within_what_all_sessions_may_hold(world: World) -> None:
    body = "x" * 70 + "\r\n"
    content = letter("large@transit.test", body=body * (IN_FLIGHT * 5 // 8 // len(body)))
    with world.appliance.client() as one, world.appliance.client() as two:
        begin(one, "large@transit.test")
        one.send(stuffed(content)[: -len(".\r\n")])
        assert world.send("spooled@forward.test", content=content).code == 250, "most of it goes to the disk"
        begin(two, "large@transit.test")
        two.send(stuffed(content))
        assert str(two.reply()).startswith("452 4.3.1")
        one.send(b".\r\n")
        assert one.reply().code == 250
    assert len(world.arrived("large.box@dest.test")) == 1
    assert world.arrived("large.box@dest.test")[0].content.endswith(content)


def test_a_report_finds_a_sender_that_no_address_can_carry(world: World) -> None:
    sender = f"{'very.long.' * 5}name@sender.test"
    content = letter("second@transit.test", "Token")
    assert world.send("second@transit.test", sender, content).code == 250
    (message,) = world.main.containing(b"Subject: Token")
    assert world.send(message.sender, "", REPORT).code == 250
    # The report of our own goes by the spool, as all of them do.
    told = world.report_to(sender).content
    assert b"second@transit.test" in told
    assert b"dest.test" not in told


@pytest.mark.parametrize(
    ("domain", "kinds"),
    [
        ("loud.test", ["RECEIVED", "DELIVERED", "REFUSED"]),
        ("errors.test", ["REFUSED"]),
        ("transit.test", []),
    ],
)
def test_the_log_has_what_the_domains_level_declares(world: World, domain: str, kinds: list[str]) -> None:
    for kind in ("loud", "errors", "box"):
        refused = Answer(550, f"5.1.1 unknown.{kind}@dest.test is unknown")
        world.mailbox_says(always(Stage.RCPT, refused, recipient=f"unknown.{kind}@dest.test"))
    assert world.send(f"ok@{domain}").code == 250
    assert world.ask(f"unknown@{domain}").code == 550
    events = world.appliance.log_events("--domain", domain)
    assert sorted(event["type"] for event in events) == sorted(kinds)
    assert "dest.test is unknown" not in str(events)


def test_what_an_operator_holds_is_put_off_until_it_is_released(world: World) -> None:
    """There is no place for it here: its sender keeps it."""
    world.appliance.done("queue", "hold", "--domain", "transit.test")
    refused = world.send("ok@transit.test")
    assert str(refused).startswith("451 4.3.2")
    assert world.send("ok@loud.test").code == 250
    world.appliance.done("queue", "release", "--domain", "transit.test")
    assert world.send("ok@transit.test").code == 250


def test_explain_tells_the_mode(world: World) -> None:
    told = world.appliance.done("explain", "ok@transit.test", "--json").json
    assert [delivery["mode"] for delivery in told["deliveries"]] == ["TRANSIT"]


def test_new_domains_take_the_mode_of_the_configuration(tmp_path: Path) -> None:
    with World(tmp_path, {"ok@transit.test": ["ok.box@dest.test"]}, {"delivery": {"mode": "transit"}}) as world:
        assert world.send("ok@transit.test").code == 250
        assert len(world.main.for_recipient("ok.box@dest.test")) == 1


def test_a_shutdown_puts_off_what_is_under_way_and_loses_nothing(tmp_path: Path) -> None:
    with World(
        tmp_path, {"ok@transit.test": ["ok.box@dest.test"]}, domains={"transit.test": ("--mode", "transit")}
    ) as world:
        gate = Gate("ok.box@dest.test")
        world.mailbox_says(gate)
        with world.appliance.client(timeout=40) as waiting, world.appliance.client() as idle:
            begin(waiting, "ok@transit.test")
            waiting.send(stuffed(letter("ok@transit.test")))
            assert gate.reached.wait(10)
            began = time.monotonic()
            stopping = threading.Thread(target=world.appliance.stop)
            stopping.start()
            assert idle.reply().code == 421
            assert str(waiting.reply()).startswith("451 4.4.7")
            assert waiting.reply().code == 421
            with pytest.raises(Closed):
                waiting.reply()
            stopping.join()
        assert time.monotonic() - began < 20
        gate.opened.set()
        assert "killed" not in world.appliance.said()
        world.appliance.start()
        assert world.appliance.queue() == []
