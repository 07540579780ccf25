"""What strangers are told at the door, and whom a message reaches: the real process, spoken to over a socket."""

from collections.abc import Iterator

import pytest
from appliance_process import eventually
from world import HOSTNAME, SRS_DOMAIN, World, letter, put_in_front

CHAIN = {f"link{number}@forward.test": [f"link{number + 1}@forward.test"] for number in range(1, 10)}
"""Nine aliases, each leading to the next; the tenth leads out."""

TOWN = {
    "info@forward.test": ["info.box@dest.test"],
    "sales@forward.test": ["sales.box@dest.test"],
    "sales*@forward.test": ["prefix.box@dest.test"],
    "sales-eu*@forward.test": ["longer.box@dest.test"],
    "plus@forward.test": ["plus.box@dest.test"],
    "plus+full@forward.test": ["full.box@dest.test"],
    "team@forward.test": ["first.box@dest.test", "second.box@dest.test"],
    "one@forward.test": ["shared.box@dest.test"],
    "two@forward.test": ["shared.box@dest.test"],
    "both@forward.test": ["one@forward.test", "two@forward.test"],
    "inner@inside.test": ["inner.box@dest.test"],
    "outer@forward.test": ["inner@inside.test"],
    "*@everything.test": ["everything.box@dest.test"],
    "known@everything.test": ["known.box@dest.test"],
    "link10@forward.test": ["chain.box@dest.test"],
    **dict(reversed(CHAIN.items())),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(
        tmp_path_factory.mktemp("arrival"),
        TOWN,
        {"smtp": {"max_message_size": "200 KiB"}, "mail": {"postmaster": "operator@dest.test"}},
    ) as world:
        for action in ("reject", "defer", "discard"):
            world.appliance.settle("alias", "add", f"{action}@forward.test", "--action", action)
        world.appliance.settle("domain", "add", "unproven.test", "--account", "owner@people.test")
        eventually(lambda: world.ask("discard@forward.test").code == 250, what="the new aliases")
        yield world
        assert world.objections() == []


# ---------------------------------------------------------------------- whom it reaches


@pytest.mark.parametrize(
    ("recipient", "mailbox"),
    [
        ("info@forward.test", "info.box@dest.test"),
        ("INFO@Forward.TEST", "info.box@dest.test"),
        ("sales@forward.test", "sales.box@dest.test"),
        ("sales-2026@forward.test", "prefix.box@dest.test"),
        ("sales-eu-north@forward.test", "longer.box@dest.test"),
        ("plus+tag@forward.test", "plus.box@dest.test"),
        ("plus+a+b@forward.test", "plus.box@dest.test"),
        ("plus+full@forward.test", "full.box@dest.test"),
        ("inner@inside.test", "inner.box@dest.test"),
        ("anything.at-all@everything.test", "everything.box@dest.test"),
        ("known@everything.test", "known.box@dest.test"),
        ("known+tag@everything.test", "known.box@dest.test"),
        ("outer@forward.test", "inner.box@dest.test"),
        ("link1@forward.test", "chain.box@dest.test"),
        ("postmaster@forward.test", "operator@dest.test"),
        ("PostMaster@forward.test", "operator@dest.test"),
        (f"postmaster@{HOSTNAME}", "operator@dest.test"),
        (f"postmaster@{SRS_DOMAIN}", "operator@dest.test"),
        ("postmaster", "operator@dest.test"),
        ("POSTMASTER", "operator@dest.test"),
    ],
)
def test_reaches(world: World, recipient: str, mailbox: str) -> None:
    before = len(world.main.for_recipient(mailbox))
    content = letter(recipient, subject=f"for {recipient}")
    assert world.send(recipient, content=content).code == 250
    arrived = world.arrived(mailbox, before + 1)
    assert len(arrived) == before + 1
    assert arrived[-1].recipients == (mailbox,)
    put_in_front(arrived[-1].content, content)


def test_two_destinations_get_one_copy_each(world: World) -> None:
    assert world.send("team@forward.test").code == 250
    world.arrived("first.box@dest.test")
    world.arrived("second.box@dest.test")
    world.queue_is_empty()
    copies = world.main.for_recipient("first.box@dest.test") + world.main.for_recipient("second.box@dest.test")
    # One transaction for both, or one for each.
    assert sorted(recipient for copy in set(copies) for recipient in copy.recipients) == [
        "first.box@dest.test",
        "second.box@dest.test",
    ]


@pytest.mark.parametrize(
    "recipients",
    [
        ["both@forward.test"],
        ["one@forward.test", "two@forward.test"],
        ["one@forward.test", "one@forward.test"],
        ["both@forward.test", "one@forward.test", "ONE@forward.test"],
    ],
)
def test_destination_reached_twice_gets_one_copy(world: World, recipients: list[str]) -> None:
    before = len(world.main.for_recipient("shared.box@dest.test"))
    assert world.send(recipients).code == 250
    world.arrived("shared.box@dest.test", before + 1)
    world.queue_is_empty()
    copies = world.main.for_recipient("shared.box@dest.test")[before:]
    assert [copy.recipients for copy in copies] == [("shared.box@dest.test",)]


def test_recipients_in_one_transaction_each_get_theirs(world: World) -> None:
    wanted = ["info@forward.test", "known@everything.test", "sales@forward.test"]
    mailboxes = ["info.box@dest.test", "known.box@dest.test", "sales.box@dest.test"]
    before = {mailbox: len(world.main.for_recipient(mailbox)) for mailbox in mailboxes}
    with world.appliance.client() as client:
        codes = [
            reply.code
            for reply in client.envelope("ann@sender.test", [*wanted[:1], "nobody@forward.test", *wanted[1:]])
        ]
        assert codes == [250, 250, 550, 250, 250]
        assert client.data(letter("several")).code == 250
        client.quit()
    for mailbox in mailboxes:
        copy = world.arrived(mailbox, before[mailbox] + 1)[-1]
        # What one recipient gets does not tell who the others are.
        assert not any(alias.encode() in copy.content for alias in wanted)


# ---------------------------------------------------------------------- who is refused


@pytest.mark.parametrize(
    ("recipient", "code", "enhanced"),
    [
        ("nobody@forward.test", 550, "5.1.1"),
        ("sale@forward.test", 550, "5.1.1"),
        ("reject@forward.test", 550, "5.1.1"),
        ("ann@elsewhere.test", 550, "5.7.1"),
        ("owner@dest.test", 550, "5.7.1"),
        ("info@sub.forward.test", 550, "5.7.1"),
        ("someone@unproven.test", 550, "5.7.1"),
        ("info%elsewhere.test@forward.test", 550, "5.1.1"),
        ("defer@forward.test", 450, "4.2.1"),
        ("info", 501, "5.1.3"),
    ],
)
def test_refused_at_rcpt(world: World, recipient: str, code: int, enhanced: str) -> None:
    reply = world.ask(recipient)
    assert (reply.code, reply.text.split()[0]) == (code, enhanced)


def test_refusal_does_not_tell_the_destination(world: World) -> None:
    for recipient in ("nobody@forward.test", "reject@forward.test", "defer@forward.test"):
        assert "dest.test" not in world.ask(recipient).text


def test_discarded_message_is_accepted_and_goes_nowhere(world: World) -> None:
    assert world.send("discard@forward.test").code == 250
    world.queue_is_empty()
    assert not world.main.containing(b"discard@forward.test")


def test_loop_and_chain_too_long_are_refused_when_they_are_made(world: World) -> None:
    assert world.appliance.cli("alias", "add", "link11@forward.test", "link1@forward.test", "--confirmed").status == 1
    world.appliance.settle("alias", "add", "ring-a@inside.test", "ring-b@inside.test", "--confirmed")
    refused = world.appliance.cli("alias", "add", "ring-b@inside.test", "ring-a@inside.test", "--confirmed")
    assert refused.status == 1
    assert len(refused.err.splitlines()) == 1
    assert world.appliance.cli("alias", "add", "self@inside.test", "self@inside.test", "--confirmed").status == 1
    patterns = {row["pattern"] for row in world.appliance.done("alias", "list", "inside.test", "--json").rows}
    assert patterns == {"inner", "ring-a"}


def test_loop_by_a_catch_all_is_refused(world: World) -> None:
    """An alias that was harmless when it was made leads in a circle once a catch-all stands behind it."""
    world.appliance.settle("domain", "add", "circle.test", "--account", "owner@people.test", "--verified")
    world.appliance.settle("alias", "add", "a@circle.test", "b@circle.test", "--confirmed")
    added = world.appliance.cli("alias", "add", "*@circle.test", "a@circle.test", "--confirmed")
    if added.status == 0:
        reply = eventually(lambda: found if (found := world.ask("a@circle.test")).code != 250 else None)
        assert (reply.code, reply.text.split()[0]) == (550, "5.4.6")
    else:
        assert added.status == 1
        assert len(added.err.splitlines()) == 1


def test_message_that_has_been_through_a_hundred_servers_is_refused(world: World) -> None:
    # RFC 5321 §6.3: at least 100 Received lines make a loop.
    trace = b"Received: from a.test by b.test; Fri, 20 Nov 2026 10:00:00 +0000\r\n"
    assert world.send("info@forward.test", content=trace * 50 + letter("on the way")).code == 250
    reply = world.send("info@forward.test", content=trace * 120 + letter("in circles"))
    assert (reply.code, reply.text.split()[0]) == (554, "5.4.6")


def test_recipients_beyond_the_limit_wait_for_the_next_transaction(world: World) -> None:
    with world.appliance.client() as client:
        replies = client.envelope("ann@sender.test", ["discard@forward.test"] * 101)[1:]
    assert [reply.code for reply in replies] == [250] * 100 + [452]
    assert replies[-1].text.split()[0] == "4.5.3"


# ---------------------------------------------------------------------- size


def test_too_large_by_its_own_word(world: World) -> None:
    with world.appliance.client() as client:
        assert any(extension == f"SIZE {200 * 1024}" for extension in client.extensions)
        reply = client.command(f"MAIL FROM:<ann@sender.test> SIZE={200 * 1024 + 1}")
        assert (reply.code, reply.text.split()[0]) == (552, "5.3.4")
        assert client.message("ann@sender.test", ["info@forward.test"], letter("x"), parameters="SIZE=300").code == 250


def test_too_large_in_fact(world: World) -> None:
    content = letter("large", body="a line of forty characters, so to speak\r\n" * 6000)
    with world.appliance.client() as client:
        reply = client.message("ann@sender.test", ["info@forward.test"], content)
        assert (reply.code, reply.text.split()[0]) == (552, "5.3.4")
        # The connection is kept, and nothing of the large one is left over in it.
        assert client.message("ann@sender.test", ["info@forward.test"], letter("after the large one")).code == 250
        client.quit()
    eventually(lambda: world.main.containing(b"after the large one"))
    world.queue_is_empty()
    assert not world.main.containing(b"so to speak")


def test_largest_that_is_allowed(world: World) -> None:
    start = letter("largest", subject="the largest")
    content = start + b"x" * 70 + b"\r\n"
    content += (b"y" * 78 + b"\r\n") * ((200 * 1024 - len(content)) // 80)
    content += b"z" * (200 * 1024 - len(content) - 2) + b"\r\n"
    assert len(content) == 200 * 1024
    assert world.send("info@forward.test", content=content).code == 250
    put_in_front(eventually(lambda: world.main.containing(b"the largest"))[0].content, content)


# ---------------------------------------------------------------------- the conversation


def test_helo_alone_is_enough(world: World) -> None:
    with world.appliance.client(helo=None) as client:
        assert client.reply().code == 220
        assert client.command("HELO old.example.net").code == 250
        assert client.message("ann@sender.test", ["info@forward.test"], letter("by HELO")).code == 250
        assert client.command("QUIT").code == 221


def test_small_commands(world: World) -> None:
    with world.appliance.client() as client:
        assert {"PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES"} <= set(client.extensions)
        assert client.command("NOOP whatever").code == 250
        assert client.command("VRFY info").code == 252
        assert client.command("HELP").code == 214
        assert client.command("RCPT TO:<info@forward.test>").code == 503
        client.envelope("ann@sender.test", ["info@forward.test"])
        assert client.command("RSET").code == 250
        assert client.command("DATA").code == 503
        assert client.command("WHAT").code == 500
        assert client.command("QUIT").code == 221


def test_group_of_commands_is_answered_in_order(world: World) -> None:
    with world.appliance.client() as client:
        client.send(
            b"MAIL FROM:<ann@sender.test>\r\nRCPT TO:<nobody@forward.test>\r\nRCPT TO:<info@forward.test>\r\nDATA\r\n"
        )
        assert [client.reply().code for _ in range(4)] == [250, 550, 250, 354]
        client.send(letter("in a group") + b".\r\nMAIL FROM:<ann@sender.test>\r\nRCPT TO:<no@forward.test>\r\nDATA\r\n")
        assert [client.reply().code for _ in range(3)] == [250, 250, 550]
        assert client.reply().code in (503, 554)
        client.send(b"QUIT\r\n")
        assert client.reply().code == 221


@pytest.mark.parametrize(
    "stray", [b"bare \n feed", b"bare \r return", b"nul \0 octet", b"\r\n.\nstill data", b"\r\n.\rstill data"]
)
def test_stray_line_ends_and_nul_are_refused_whole(world: World, stray: bytes) -> None:
    with world.appliance.client() as client:
        client.envelope("ann@sender.test", ["info@forward.test"])
        assert client.command("DATA").code == 354
        client.send(letter("smuggled " + stray.hex()) + stray + b"\r\nMAIL FROM:<evil@sender.test>\r\n.\r\n")
        reply = client.reply()
        assert (reply.code, reply.text.split()[0]) == (550, "5.6.11")
        assert client.command("NOOP").code == 250
    world.queue_is_empty()
    assert not world.main.containing(stray.hex().encode())
