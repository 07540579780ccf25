"""No open relay: every client, greeting, TLS, sender and recipient against the real process, and where the mail went.

Each cell of the matrix is one answer to RCPT. The rule by which they are judged stands in `relay_matrix`.
"""

import re
import socket
import ssl
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
import relay_matrix
from appliance_process import Appliance, Settings, eventually
from relay_matrix import (
    CLIENTS,
    EVERYTHING,
    FOREIGN,
    GREETINGS,
    HOSTED,
    IN_A_LABELS,
    INTERNATIONAL,
    PROXIES,
    UNPROVEN,
    Client,
    Conversation,
    Heard,
    Recipient,
    ReturnPaths,
    Sender,
    Why,
    answer_to_rcpt,
    expected_letters,
    is_taken,
    letter,
    mark_of,
)
from returned_reports import CANARY
from world import MAIN_ADDRESS, SRS_DOMAIN, World

from appliance.configuration import load
from appliance.forwarding.srs import SenderRewriter
from appliance.model.time import wall_clock
from appliance.privacy.declarations import ALIASES, DESTINATIONS
from appliance.routing.changes import GENERATION
from appliance.run.stores import SRS_KEY, open_records, secrets
from appliance.storage.records import Raise, Update

AT_ONCE = 4
"""Conversations: as many unknown recipients may be outstanding for one client, and ten are borne."""

RECIPIENTS, SENDERS, CONVERSATIONS_PER_CLIENT = 85, 11, 154
"""How large the matrix is, so that an axis that gets lost is noticed."""

TOWN = {
    f"info@{HOSTED}": ["info.box@dest.test"],
    f"team@{HOSTED}": ["first.box@dest.test", "second.box@dest.test"],
    f"sales*@{HOSTED}": ["sales.box@dest.test"],
    f"disabled@{HOSTED}": ["closed.box@dest.test"],
    f"expired@{HOSTED}": ["closed.box@dest.test"],
    f"unconfirmed@{HOSTED}": ["unasked.box@dest.test"],
    f"*@{EVERYTHING}": ["everything.box@dest.test"],
    f"info@{INTERNATIONAL}": ["books.box@dest.test"],
}


@dataclass(frozen=True, slots=True)
class Matrix:
    """What was asked, and what came of it."""

    world: World
    senders: Sequence[Sender]
    recipients: Sequence[Recipient]
    held: Sequence[Conversation]
    heard: Sequence[Heard]


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    addresses = ["[::1]:0", "127.0.0.1:0"] if has_ipv6() else ["127.0.0.1:0"]
    settings: Settings = {
        # The last is the one that the world uses.
        "smtp": {"listen": addresses, "trusted_proxies": [PROXIES]},
        "mail": {"postmaster": "operator@dest.test"},
    }
    with World(tmp_path_factory.mktemp("relay"), TOWN, settings) as world:
        # Whatever is relayed to where it should not go arrives, and is seen.
        for name in (FOREIGN, UNPROVEN, HOSTED, EVERYTHING, IN_A_LABELS, f"srs.{FOREIGN}", "localhost", SRS_DOMAIN):
            world.dns.set(name, "MX 10 mx.foreign.test.")
        world.dns.set("mx.foreign.test", f"A {MAIN_ADDRESS}")
        furnish(world)
        ways = return_paths(world)
        senders, recipients = relay_matrix.senders(ways), relay_matrix.recipients(ways)
        held = list(relay_matrix.conversations(clients(), senders, recipients))
        hold = partial(relay_matrix.hold, ports=ports(world.appliance), context=any_certificate())
        with ThreadPoolExecutor(AT_ONCE) as rooms:
            heard = list(rooms.map(hold, held))
        world.queue_is_empty(60)
        yield Matrix(world, senders, recipients, held, heard)
        assert world.objections() == []


def furnish(world: World) -> None:
    """The aliases that take nothing, each for its own reason."""
    settle = world.appliance.settle
    for action in ("reject", "defer", "discard"):
        settle("alias", "add", f"{action}@{HOSTED}", "--action", action)
    settle("domain", "add", UNPROVEN, "--account", "owner@people.test")
    settle("alias", "add", f"info@{UNPROVEN}", "unproven.box@dest.test", "--confirmed")
    records = open_records(load(world.appliance.config))
    try:
        records.apply(
            [
                Update(ALIASES, {"pattern": "disabled"}, {"enabled": False}),
                Update(ALIASES, {"pattern": "expired"}, {"expires_at": wall_clock() - 1}),
                Update(DESTINATIONS, {"target": "unasked.box@dest.test"}, {"confirmed_at": None}),
                Raise(GENERATION),
            ]
        )
    finally:
        records.close()
    eventually(lambda: world.ask(f"expired@{HOSTED}").code == 550, what="the aliases as they are now")


def return_paths(world: World) -> ReturnPaths:
    """Two that a destination has seen, and two that we would have made at other times."""
    carried = seen_at_the_destination(world, "carried", "ann@sender.test")
    stored = seen_at_the_destination(world, "stored", '"ann at home"@sender.test')
    reference = carried.split("=")[3]
    rewriter = SenderRewriter(SRS_DOMAIN, [secrets(load(world.appliance.config)).key(SRS_KEY)])

    def made(sender: str, age: timedelta) -> str:
        at = datetime.now(UTC) - age
        return rewriter.rewrite(sender, reference, int(at.timestamp() * 1000)).return_path

    return ReturnPaths(
        carried, stored, made("aged@sender.test", timedelta(days=20)), made("late@sender.test", timedelta(days=30))
    )


def seen_at_the_destination(world: World, mark: str, sender: str) -> str:
    """How this sender is rewritten."""
    assert world.send(f"info@{HOSTED}", sender, letter(mark)).code == 250
    return eventually(lambda: world.main.containing(letter(mark)), what=mark)[0].sender


def has_ipv6() -> bool:
    """Whether ::1 is an address of this machine."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def clients() -> Sequence[Client]:
    """All that this machine can be."""
    return [client for client in CLIENTS if client.address != "::1" or has_ipv6()]


def ports(appliance: Appliance) -> dict[str, int]:
    """Where it listens, by address."""
    found = re.findall(r"smtp listens on \[?([0-9.:]+?)\]?:([0-9]+)$", appliance.said(), re.MULTILINE)
    return {address: int(port) for address, port in found}


def any_certificate() -> ssl.SSLContext:
    """The appliance has made its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# ---------------------------------------------------------------------- what RCPT is answered


def test_every_cell_is_answered_by_the_rule(matrix: Matrix) -> None:
    objections = [words for heard in matrix.heard for words in heard.objections]
    assert not objections, f"{len(objections)} objections, the first of them:\n" + "\n".join(objections[:20])


def test_no_cell_is_left_out(matrix: Matrix) -> None:
    assert (len(CLIENTS), len(GREETINGS), len(matrix.senders), len(matrix.recipients)) == (7, 7, SENDERS, RECIPIENTS)
    cells = sum(heard.cells for heard in matrix.heard)
    assert cells == len(clients()) * CONVERSATIONS_PER_CLIENT * RECIPIENTS, f"the matrix has {cells} cells"
    if has_ipv6():
        assert cells == 91_630


def test_every_reason_and_every_answer_has_cells(matrix: Matrix) -> None:
    asked = {
        answer_to_rcpt(greeting, sender, to)
        for greeting in GREETINGS
        for sender in matrix.senders
        for to in matrix.recipients
    }
    assert asked == {
        *("250 2.1.5", "450 4.2.1", "451 4.3.5", "501 5.1.3", "503 5.5.1"),
        *("550 5.1.1", "550 5.2.1", "550 5.7.1", "553 5.6.7"),
    }
    assert {to.why for to in matrix.recipients} == set(Why)


# ---------------------------------------------------------------------- where it went


def test_each_sender_has_written_to_every_recipient_that_takes_its_mail(matrix: Matrix) -> None:
    acceptable = {
        (sender.name, to.path) for sender in matrix.senders for to in matrix.recipients if is_taken("EHLO", sender, to)
    }
    alone = {(each.sender.name, *(to.path for to in each.letter_to)) for each in matrix.held}
    assert acceptable - alone == set()
    ways_in = {(each.client.name, each.tls, each.greeting) for each in matrix.held if each.letter_to}
    assert len(ways_in) == len(clients()) * 2 * (len(GREETINGS) - 1)


def test_mail_went_where_its_alias_leads_and_nowhere_else(matrix: Matrix) -> None:
    expected, _ = expected_letters(matrix.held)
    expected |= {mark: Counter(["info.box@dest.test"]) for mark in ("carried", "stored")}
    seen: dict[str, Counter[str]] = {}
    for server in (matrix.world.main, matrix.world.second):
        for message in server.messages:
            seen.setdefault(mark_of(message.content), Counter()).update(message.recipients)
    assert seen == expected


def test_reports_went_to_original_senders_and_to_nobody_else(matrix: Matrix) -> None:
    _, expected = expected_letters(matrix.held)
    seen = Counter(to for message in matrix.world.senders.messages for to in message.recipients)
    assert seen == expected
    assert {message.sender for message in matrix.world.senders.messages} == {""}
    # Nothing that came back was passed on.
    assert not matrix.world.senders.containing(CANARY.encode())
    assert not matrix.world.senders.containing(b"X-Cell")


def test_nothing_is_left_in_the_queue(matrix: Matrix) -> None:
    assert matrix.world.appliance.queue() == []
