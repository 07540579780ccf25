"""How mail goes onward: which server is chosen, what is tried again, what the message looks like when it is there."""

import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from appliance_process import Settings, eventually
from destination import Destination
from destination_scripts import CLOSE, Answer, Stage, always
from dns_server import Behaviour
from world import (
    HOSTNAME,
    MAIN_ADDRESS,
    SECOND_ADDRESS,
    SRS_DOMAIN,
    World,
    is_one_received_line,
    letter,
    put_in_front,
)

SUITE = Path(os.environ.get("ONWARD_SUITES", Path(__file__).parents[3] / "shared/suites")) / "mail"
MESSAGES = sorted(SUITE.glob("*.eml"))

ODD_ADDRESS = "127.0.0.5"
"""A server without extensions, or one that is told to misbehave as a whole."""
NOBODY_ADDRESS = "127.0.0.6"
"""Nobody listens here."""

PLACES = {
    # One name for each way in which a destination can be found, or not.
    "implicit.test": [f"A {MAIN_ADDRESS}"],
    "null.test": ["MX 0 ."],
    "order.test": ["MX 30 mx1.dest.test.", "MX 5 nobody.test.", "MX 20 mx2.dest.test.", "MX 10 nobody.test."],
    "nobody.test": [f"A {NOBODY_ADDRESS}"],
    "several.test": ["MX 10 several-hosts.test."],
    "several-hosts.test": [f"A {NOBODY_ADDRESS}", f"A {MAIN_ADDRESS}"],
    "cname.test": ["CNAME dest.test."],
    "later.test": ["MX 10 mx1.dest.test."],
    "silent.test": ["MX 10 mx1.dest.test."],
    "lame.test": ["MX 10 lame-mx.test."],
    "lame-mx.test": [f"A {MAIN_ADDRESS}"],
    "down.test": ["MX 10 nobody.test."],
    "odd.test": ["MX 10 odd-mx.test."],
    "odd-mx.test": [f"A {ODD_ADDRESS}"],
    "ourselves.test": [f"MX 10 {HOSTNAME}.", "MX 20 mx1.dest.test."],
}

BOXES = ["octets", "ok", "large", "rcpt", "data", "dot", "drop", "greylist", "closing"]
TOWN = {f"{name}@forward.test": [f"{name}.box@dest.test"] for name in BOXES} | {
    f"at-{name.removesuffix('.test')}@forward.test": [f"box@{name}"] for name in PLACES
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings: Settings = {"delivery": {"retry": ["300ms", "400ms"]}, "dns": {"timeout": "300ms"}}
    with World(tmp_path_factory.mktemp("delivery"), TOWN, settings) as world:
        for name, records in PLACES.items():
            world.dns.set(name, *records)
        yield world
        assert world.objections() == []


@pytest.fixture(scope="module")
def odd(world: World) -> Iterator[Destination]:
    with Destination(ODD_ADDRESS, world.main.port, name="odd-mx.test", extensions=()) as server:
        yield server
        assert server.violations == []


# ---------------------------------------------------------------------- the octets


@pytest.mark.skipif(not MESSAGES, reason=f"there are no messages in {SUITE}; set ONWARD_SUITES")
def test_every_real_message_comes_out_as_it_went_in(world: World) -> None:
    for path in MESSAGES:
        content = re.sub(rb"\r?\n", b"\r\n", path.read_bytes())
        if not content.endswith(b"\r\n"):
            content += b"\r\n"
        before = len(world.main.for_recipient("octets.box@dest.test"))
        reply = world.send("octets@forward.test", content=content)
        if b"\0" in content:
            # RFC 2045 §2.8: no NUL in 8bit data. It must not be mended, so it is refused, and whole.
            assert (reply.code, reply.text.split()[0]) == (550, "5.6.11"), path.name
            continue
        assert reply.code == 250, f"{path.name}: {reply}"
        received = world.arrived("octets.box@dest.test", before + 1)[-1].content
        assert is_one_received_line(put_in_front(received, content)), path.name


def test_envelope_is_rewritten_and_the_trace_is_put_in_front(world: World) -> None:
    content = letter("ok@forward.test")
    reply = world.send("ok@forward.test", content=content)
    message = world.arrived("ok.box@dest.test")[0]
    local_part, _, domain = message.sender.partition("@")
    assert domain == SRS_DOMAIN
    assert len(local_part) <= 64
    assert local_part.lower().startswith("srs0=")
    assert message.helo == HOSTNAME
    trace = put_in_front(message.content, content)
    assert is_one_received_line(trace)
    unfolded = re.sub(rb"\r\n[ \t]+", b" ", trace).decode()
    assert f"by {HOSTNAME} " in unfolded
    assert "from client.example.net " in unfolded
    assert "for <ok@forward.test>" in unfolded
    assert f"id {reply.text.split()[-1]}" in unfolded
    assert "box@dest.test" not in unfolded


@pytest.mark.parametrize(
    "sender",
    [
        "a@b.test",
        "x" * 64 + "@" + ".".join(["long-label" * 6] * 3) + ".test",
        "srs0=abcd=xy=origin.test=ann@other-forwarder.test",
        "ann+tag=x@sender.test",
        '"quoted local"@sender.test',
        "ann@[192.0.2.1]",
    ],
)
def test_every_sender_can_be_rewritten(world: World, sender: str) -> None:
    subject = f"from {len(sender)} {abs(hash(sender))}"
    assert world.send("ok@forward.test", sender, letter("ok@forward.test", subject)).code == 250
    message = eventually(lambda: world.main.containing(subject.encode()))[0]
    local_part, _, domain = message.sender.rpartition("@")
    assert domain == SRS_DOMAIN
    assert len(local_part) <= 64
    assert '"' not in local_part


def test_null_sender_stays_null(world: World) -> None:
    content = letter("ok@forward.test", "from nobody")
    assert world.send("ok@forward.test", "", content).code == 250
    assert eventually(lambda: world.main.containing(b"from nobody"))[0].sender == ""


def test_large_message_with_every_kind_of_line(world: World) -> None:
    lots = random.Random(1)
    lines = [
        bytes(lots.choices([*range(1, 10), 11, 12, *range(14, 256)], k=lots.randrange(0, 500))) for _ in range(12_000)
    ]
    lines[::50] = [b"." * lots.randrange(1, 5) + line[:400] for line in lines[::50]]
    content = letter("large@forward.test", "large") + b"\r\n".join(lines) + b"\r\n"
    assert len(content) > 2 << 20
    assert world.send("large@forward.test", content=content).code == 250
    message = world.arrived("large.box@dest.test")[0]
    assert is_one_received_line(put_in_front(message.content, content))
    assert "BODY=8BITMIME" in message.parameters


# ---------------------------------------------------------------------- whom to connect to


@pytest.mark.parametrize(
    ("alias", "mailbox", "address"),
    [
        ("at-implicit", "box@implicit.test", MAIN_ADDRESS),
        ("at-order", "box@order.test", SECOND_ADDRESS),
        ("at-several", "box@several.test", MAIN_ADDRESS),
        ("at-cname", "box@cname.test", MAIN_ADDRESS),
    ],
)
def test_finds_the_server(world: World, alias: str, mailbox: str, address: str) -> None:
    assert world.send(f"{alias}@forward.test").code == 250
    server = eventually(lambda: [each for each in (world.main, world.second) if each.for_recipient(mailbox)])[0]
    assert server.address == address
    # Whoever is at fault, the first attempt had somebody to go on to.
    events = world.appliance.log_events("--recipient", f"{alias}@forward.test")
    assert [event["type"] for event in events if event["type"] != "RECEIVED"] in ([], ["DELIVERED"])


def test_null_mx_is_final(world: World) -> None:
    reply = world.send("at-null@forward.test", "null@sender.test")
    if reply.code == 250:
        assert b"Status: 5.1.10" in world.report_to("null@sender.test").content
    else:
        assert (reply.code, reply.text.split()[0]) == (556, "5.1.10")
    assert world.dns.queries["null.test", "A"] == 0


def test_mx_that_is_ourselves_ends_the_list(world: World) -> None:
    assert world.send("at-ourselves@forward.test", "ourselves@sender.test").code == 250
    assert b"Status: 5.4.6" in world.report_to("ourselves@sender.test").content
    assert not world.main.for_recipient("box@ourselves.test")


def wait_for_attempts(world: World, alias: str, count: int) -> None:
    def attempts() -> bool:
        waiting = world.appliance.queue("--recipient", alias)
        return bool(waiting) and waiting[0]["attempts"] >= count

    eventually(attempts, what=f"{count} attempts for {alias}")


@pytest.mark.parametrize(
    ("behaviour", "name", "alias", "mailbox"),
    [
        (Behaviour.SERVFAIL, "later.test", "at-later@forward.test", "box@later.test"),
        (Behaviour.TIMEOUT, "silent.test", "at-silent@forward.test", "box@silent.test"),
        (Behaviour.SERVFAIL, "lame-mx.test", "at-lame@forward.test", "box@lame.test"),
    ],
)
def test_dns_that_fails_only_delays(world: World, behaviour: Behaviour, name: str, alias: str, mailbox: str) -> None:
    world.dns.behave(name, behaviour)
    assert world.send(alias, f"{name}@sender.test").code == 250
    wait_for_attempts(world, alias, 2)
    # RFC 5321 §5.1: no falling back to an address record because the MX could not be looked up.
    assert not world.main.for_recipient(mailbox)
    world.dns.behave(name, None)
    world.arrived(mailbox)
    assert not world.senders.for_recipient(f"{name}@sender.test")


def test_unreachable_destination_only_delays(world: World) -> None:
    assert world.send("at-down@forward.test", "down@sender.test").code == 250
    wait_for_attempts(world, "at-down@forward.test", 2)
    with Destination(NOBODY_ADDRESS, world.main.port) as server:
        eventually(lambda: server.for_recipient("box@down.test"))
    assert not world.senders.for_recipient("down@sender.test")


# ---------------------------------------------------------------------- not now


@pytest.mark.parametrize(
    ("box", "stage", "answer"),
    [
        ("rcpt", Stage.RCPT, Answer(450, "4.2.1 Busy")),
        ("greylist", Stage.RCPT, Answer(451, "4.7.1 Greylisted")),
        ("data", Stage.DATA, Answer(451, "4.3.0 Not yet")),
        ("dot", Stage.END_OF_DATA, Answer(452, "4.3.1 Full")),
        ("drop", Stage.END_OF_DATA, CLOSE),
    ],
)
def test_temporary_failure_is_tried_again_on_the_schedule(world: World, box: str, stage: Stage, answer: Answer) -> None:
    mailbox, alias = f"{box}.box@dest.test", f"{box}@forward.test"
    world.mailbox_says(always(stage, answer, recipient=mailbox, times=2))
    assert world.send(alias, f"{box}@sender.test").code == 250
    world.arrived(mailbox)
    world.queue_is_empty()

    def events() -> list[dict[str, object]] | None:
        found = [each for each in world.appliance.log_events("--recipient", alias) if each["type"] != "RECEIVED"]
        return found if len(found) >= 3 else None

    found = eventually(events, what="three outcomes")
    assert [(event["type"], event["attempt"]) for event in found] == [
        ("SOFT_BOUNCED", 1),
        ("SOFT_BOUNCED", 2),
        ("DELIVERED", 3),
    ]
    if answer.code:
        assert [event["code"] for event in found[:2]] == [answer.code] * 2
    assert len(world.main.for_recipient(mailbox)) == 1
    assert not world.senders.for_recipient(f"{box}@sender.test")


def test_server_that_closes_after_each_message_costs_no_attempt(world: World) -> None:
    """A connection that was kept for the next message is found closed: a new one is made, and nothing has failed."""
    mailbox, alias = "closing.box@dest.test", "closing@forward.test"
    world.mailbox_says(always(Stage.END_OF_DATA, Answer(250, "2.0.0 Ok", close=True), recipient=mailbox))
    for number in range(1, 6):
        assert world.send(alias).code == 250
        world.arrived(mailbox, number)
    world.queue_is_empty()
    eventually(lambda: len(world.appliance.log_events("--recipient", alias)) == 10)
    assert {event["type"] for event in world.appliance.log_events("--recipient", alias)} == {"RECEIVED", "DELIVERED"}


def test_destination_that_stalls_holds_nobody_else_up(world: World, odd: Destination) -> None:
    odd.script = always(Stage.GREETING, Answer(stall=60))
    for _ in range(30):
        assert world.send("at-odd@forward.test", "").code == 250
    before = len(world.main.for_recipient("ok.box@dest.test"))
    assert world.send("ok@forward.test").code == 250
    world.arrived("ok.box@dest.test", before + 1, within=5)
    odd.stop()
    odd.script = None
    odd.start()
    world.queue_is_empty(within=20)


def test_server_that_greets_with_421_is_tried_again(world: World, odd: Destination) -> None:
    odd.script = always(Stage.GREETING, Answer(421, "Too busy", close=True), times=2)
    assert world.send("at-odd@forward.test", "odd@sender.test").code == 250
    eventually(lambda: odd.for_recipient("box@odd.test"))
    assert not world.senders.for_recipient("odd@sender.test")


def test_server_that_knows_no_ehlo_gets_helo(world: World, odd: Destination) -> None:
    odd.script = always(Stage.EHLO, Answer(500, "What?"))
    before = len(odd.for_recipient("box@odd.test"))
    assert world.send("at-odd@forward.test").code == 250
    message = eventually(lambda: odd.for_recipient("box@odd.test")[before:])[0]
    assert message.parameters == ()
    assert message.helo == HOSTNAME


def test_eight_bit_message_is_not_forced_on_a_server_that_takes_seven(world: World, odd: Destination) -> None:
    odd.script = None
    content = letter("at-odd@forward.test", "eight bit") + "Zürich\r\n".encode()
    assert world.send("at-odd@forward.test", "eight@sender.test", content).code == 250
    report = world.report_to("eight@sender.test")
    assert re.search(rb"\r\nStatus: 5\.6\.[13]\r\n", report.content)
    assert not odd.containing(b"eight bit")
