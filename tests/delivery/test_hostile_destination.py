"""A destination whose preferred host is hostile: every stage of a conversation, every way in which it can go wrong
there, for one recipient and for fifty. The second host of the destination is a decent one.

What has to come of it stands in one table. The courier, its connections and the DNS are real.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio
from certificates import any_tls
from dns_server import DnsServer
from hostile import Behaviour, HostileServer, Stage, on_one_free_port
from inline_committer import InlineCommitter
from msgspec import structs
from scheduled import CONTENT, REWRITER, SCHEDULE, SNAPSHOT
from town import FIRST, SECOND, connections, mail_hosts, resolver, ticking
from values import NOW, delivery

from appliance.delivery.courier import Courier
from appliance.delivery.settlement import Settler
from appliance.logbook.events import Logbook
from appliance.model.delivery import Deferred, Delivered, Delivery, Failed, Outcome
from appliance.model.ids import id_source
from appliance.reports.own_mail import OwnMail
from appliance.spool.clocks import Clocks
from appliance.spool.spool import Spool
from appliance.storage.spool import Accept, Complete, Keep
from appliance.storage.sqlite_spool import SqliteSpool
from smtp.address import Address
from smtp.client.trio_client import Timeouts

SHORT_S = 1.0
"""How long the client waits where nothing will come."""
BLOCK_S = 4.0
"""The same for a block of content, which the decent server has to read in that time, too."""
LIMIT_S = 60
AT_ONCE = 40
BLOCK = (b"x" * 78 + b"\r\n") * 800
SEND_BUFFER = int(Path("/proc/sys/net/ipv4/tcp_wmem").read_text().split()[2])
"""In octets: what the kernel takes at most from a client whose server does not read."""
SMALL = [b"Subject: x\r\n\r\n", b".body\r\n"]
LARGE = [b"Subject: x\r\n\r\n", *[BLOCK] * ((SEND_BUFFER + (2 << 20)) // len(BLOCK))]
"""More than fits between the two, so that the server speaks in the middle of it."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What comes of a cell."""

    outcome: type[Outcome]
    reason: str
    words: str = ""
    """What the answer's text has in it."""
    at: str = FIRST
    """The host that the answer is from: the second one has been asked where it is its own."""
    others: type[Outcome] | None = None
    """The outcome of those recipients, of many, for whom it does not go wrong; None: the same."""
    dots: int = 0
    """How often the content may have come whole to the first host."""


BY_FIRST = Expected(Delivered, "delivered", "Taken", dots=1)
BY_SECOND = Expected(Delivered, "delivered", "Taken", SECOND)
LATER = Expected(Deferred, "destination-deferred", "Later")
NEVER = Expected(Failed, "destination-refused", "Never")
GOING_DOWN = Expected(Deferred, "destination-deferred", "Going down")
SOME_LATER = Expected(Deferred, "destination-deferred", "Later", others=Delivered, dots=1)
SOME_NEVER = Expected(Failed, "destination-refused", "Never", others=Delivered, dots=1)
LATER_AT_END = Expected(Deferred, "destination-deferred", "Later", dots=1)
NEVER_AT_END = Expected(Failed, "destination-refused", "Never", dots=1)
DOWN_AT_END = Expected(Deferred, "destination-deferred", "Going down", dots=1)
# P3: the message may have been taken. Nobody else is asked, and the schedule decides when it goes out again.
DOUBT = Expected(Deferred, "connection-lost", "lost at end of data", dots=1)

BROKEN = {
    Behaviour.CLOSE,
    Behaviour.RESET,
    Behaviour.HALF_CLOSE,
    Behaviour.STALL,
    Behaviour.DRIP,
    Behaviour.GARBAGE,
    Behaviour.ENDLESS,
    Behaviour.WRONG_CODE,
}
"""Whatever it is, there is no reply to be had."""

# By stage: 4xx, 5xx, 421, what is broken, a NUL in the text, an early reply, and silence behind a good one.
TABLE: dict[Stage, tuple[Expected, ...]] = {
    Stage.GREETING: (BY_SECOND, BY_SECOND, BY_SECOND, BY_SECOND, BY_FIRST, BY_FIRST, BY_SECOND),
    # RFC 5321 §3.2: HELO may still be known. A reply that nobody has asked for is no conversation.
    Stage.EHLO: (BY_SECOND, BY_FIRST, BY_SECOND, BY_SECOND, BY_FIRST, BY_SECOND, BY_SECOND),
    # RFC 7435 §3: what TLS comes to is no reason to keep mail back; it goes in clear.
    Stage.STARTTLS: (BY_FIRST, BY_FIRST, BY_SECOND, BY_FIRST, BY_FIRST, BY_SECOND, BY_FIRST),
    Stage.MAIL: (BY_SECOND, BY_SECOND, BY_SECOND, BY_SECOND, BY_FIRST, BY_SECOND, BY_SECOND),
    # With pipelining an early reply to RCPT or DATA cannot be told from one in time.
    Stage.RCPT: (SOME_LATER, SOME_NEVER, GOING_DOWN, BY_SECOND, BY_FIRST, BY_FIRST, BY_SECOND),
    Stage.DATA: (LATER, NEVER, GOING_DOWN, BY_SECOND, BY_FIRST, BY_FIRST, DOUBT),
    Stage.CONTENT: (LATER, NEVER, GOING_DOWN, BY_SECOND, BY_SECOND, BY_SECOND, DOUBT),
    Stage.END_OF_DATA: (LATER_AT_END, NEVER_AT_END, DOWN_AT_END, DOUBT, BY_FIRST, BY_SECOND, BY_FIRST),
    # The connection was kept from a message before: it says nothing about this one, which gets a fresh connection.
    Stage.RSET: (BY_FIRST,) * 7,
    # What was promised stays promised.
    Stage.QUIT: (BY_FIRST,) * 7,
}
# By chunks: each has its reply, an early one cannot be told from one in time, and the last is sent before all are in.
IN_CHUNKS: dict[Stage, tuple[Expected, ...]] = {
    Stage.CONTENT: (LATER, NEVER, GOING_DOWN, BY_SECOND, BY_FIRST, BY_FIRST, DOUBT),
    Stage.END_OF_DATA: TABLE[Stage.END_OF_DATA],
}
COLUMNS = [
    Behaviour.TRANSIENT,
    Behaviour.PERMANENT,
    Behaviour.GOODBYE,
    None,
    Behaviour.NUL,
    Behaviour.EARLY,
    Behaviour.LAST_WORD,
]


def expected(stage: Stage, behaviour: Behaviour, count: int, *, chunking: bool = False) -> Expected:
    found = (IN_CHUNKS if chunking else TABLE)[stage][COLUMNS.index(None if behaviour in BROKEN else behaviour)]
    if stage is Stage.RCPT and count == 1 and found.others:
        # Nobody is left to send content for.
        return Expected(found.outcome, found.reason, found.words)
    return found


PATIENT = Timeouts(
    connect=20, greeting=20, ehlo=20, tls=20, mail=20, rcpt=20, data=20, block=20, end_of_data=20, quit=SHORT_S
)
# What is waited for in vain, by who keeps silent there; and by who does so behind a good reply.
SILENT = {
    Stage.GREETING: ("greeting", "ehlo"),
    Stage.EHLO: ("ehlo", "mail"),
    Stage.STARTTLS: ("mail", "tls"),
    Stage.MAIL: ("mail", "rcpt"),
    Stage.DATA: ("data", "end_of_data"),
    Stage.CONTENT: ("block", "end_of_data"),
    Stage.END_OF_DATA: ("end_of_data", "quit"),
    Stage.RSET: ("mail", "mail"),
    Stage.QUIT: ("quit", "quit"),
}


def timeouts(stage: Stage, behaviour: Behaviour, count: int) -> Timeouts:
    """Short only where the server is waited for in vain: the decent one may have to share a busy machine."""
    if behaviour in (Behaviour.STALL, Behaviour.DRIP) or (behaviour, stage) == (Behaviour.ENDLESS, Stage.CONTENT):
        name = "rcpt" if stage is Stage.RCPT else SILENT[stage][0]
    elif behaviour is Behaviour.LAST_WORD:
        name = ("data" if count == 1 else "rcpt") if stage is Stage.RCPT else SILENT[stage][1]
    elif stage is Stage.STARTTLS:
        name = "tls"
    else:
        return PATIENT
    return replace(PATIENT, **{name: BLOCK_S if name == "block" else SHORT_S})


def letters(count: int, message_id: str) -> list[Delivery]:
    return [
        delivery(f"{message_id}-{number}", message_id, target=Address(f"r{number}", "home.test"))
        for number in range(count)
    ]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of one cell."""

    batch: Sequence[Delivery]
    outcomes: Sequence[Outcome]
    first: HostileServer
    second: HostileServer
    left: bool
    """Whether the courier has left every connection."""


async def attempt(dns: DnsServer, stage: Stage, behaviour: Behaviour, count: int, *, chunking: bool = False) -> Attempt:
    """One attempt at delivery, from the DNS to the goodbye."""
    first, second = HostileServer(stage, behaviour, count, chunking=chunking), HostileServer()
    batch = letters(count, "m1")
    async with on_one_free_port((FIRST, first), (SECOND, second)) as port:
        settings = connections(
            port,
            timeouts=timeouts(stage, behaviour, count),
            opportunistic=any_tls() if stage is Stage.STARTTLS else None,
        )
        courier = Courier("home.test", resolver(dns, 20.0), settings, ticking())
        with trio.fail_after(LIMIT_S):
            if stage is Stage.RSET:
                # It comes to nothing at RCPT, and leaves its transaction open.
                await courier.carry(letters(count, "m0"), lambda: SMALL)
            outcomes = await courier.carry(batch, lambda: LARGE if stage is Stage.CONTENT else SMALL)
            await courier.close()
        first.released.set()
        with trio.move_on_after(LIMIT_S):
            await first.left()
            await second.left()
        return Attempt(batch, outcomes, first, second, left=not first.open and not second.open)


def objections(wanted: Expected, cell: Attempt) -> Iterator[str]:
    """What is not as it has to be, in words."""
    first, second = cell.first, cell.second
    if len(cell.outcomes) != len(cell.batch):
        yield f"{len(cell.outcomes)} outcomes for {len(cell.batch)}"
        return
    for number, outcome in enumerate(cell.outcomes):
        answer = outcome.answer
        if wanted.others is not None and not first.goes_wrong(Stage.RCPT, number):
            if not isinstance(outcome, wanted.others):
                yield f"{number}: {outcome}"
        elif (
            type(outcome) is not wanted.outcome
            or answer.reason != wanted.reason
            or wanted.words not in answer.text
            or answer.server_address != wanted.at
            or "\0" in answer.text
        ):
            yield f"{number}: {outcome}"
    if first.dots != wanted.dots or first.contents > 1:
        yield f"the content came {first.contents} times to the first host, {first.dots} times whole"
    asked_second = wanted.at == SECOND
    if (second.connections, second.contents, second.dots) != (asked_second,) * 3:
        yield f"the second host: {second.connections} connections, {second.dots} messages"
    # A copy for each that was delivered, and no ghosts: nobody has mail of whom it was said that there was no way.
    outcomes = zip(cell.batch, cell.outcomes, strict=True)
    delivered = Counter(str(each.target) for each, outcome in outcomes if isinstance(outcome, Delivered))
    taken = Counter(first.taken + second.taken)
    if wanted is not DOUBT and taken != delivered:
        yield f"taken: {sorted(taken)}, delivered: {sorted(delivered)}"
    if not cell.left:
        yield "a connection is still open"


Cell = tuple[Stage, Behaviour, int, bool]
CELLS: list[Cell] = [
    *itertools.product(TABLE, Behaviour, (1, 50), (False,)),
    *itertools.product(IN_CHUNKS, Behaviour, (1, 50), (True,)),
]


async def test_every_hostility_at_every_stage_has_the_right_outcome() -> None:
    wrong: list[str] = []
    places = trio.CapacityLimiter(AT_ONCE)

    async def run(dns: DnsServer, cell: Cell) -> None:
        stage, behaviour, count, chunking = cell
        async with places:
            came = await attempt(dns, stage, behaviour, count, chunking=chunking)
        wanted = expected(stage, behaviour, count, chunking=chunking)
        for words in itertools.islice(objections(wanted, came), 2):
            by = "bdat" if chunking else "data"
            wrong.append(f"{stage.value}, {behaviour.value}, {count}, by {by}: {words}")

    with DnsServer(mail_hosts(FIRST, SECOND)) as dns:
        async with trio.open_nursery() as nursery:
            for cell in CELLS:
                nursery.start_soon(run, dns, cell)
    assert not wrong, "\n".join(sorted(wrong))
    assert len(CELLS) == (10 + 2) * 14 * 2


@pytest.mark.parametrize(
    ("stage", "behaviour", "count"),
    [
        (Stage.RCPT, Behaviour.TRANSIENT, 50),
        (Stage.RCPT, Behaviour.PERMANENT, 50),
        (Stage.DATA, Behaviour.PERMANENT, 1),
        (Stage.CONTENT, Behaviour.GOODBYE, 1),
        (Stage.END_OF_DATA, Behaviour.TRANSIENT, 1),
        (Stage.END_OF_DATA, Behaviour.RESET, 1),
        (Stage.QUIT, Behaviour.RESET, 1),
    ],
)
@pytest.mark.parametrize("attempts", [0, 3])
async def test_what_comes_of_it_is_settled_by_the_schedule(
    store: SqliteSpool, stage: Stage, behaviour: Behaviour, count: int, attempts: int
) -> None:
    settler = settler_for(store)
    with DnsServer(mail_hosts(FIRST, SECOND)) as dns:
        cell = await attempt(dns, stage, behaviour, count)
    wanted = {Delivered: 0, Deferred: 0, Failed: 0}
    for each, outcome in zip(cell.batch, cell.outcomes, strict=True):
        wanted[type(outcome)] += 1
        settlement = await settler.settle(structs.replace(each, attempts=attempts), outcome)
        kinds = [type(operation) for operation in settlement.operations]
        if isinstance(outcome, Deferred):
            assert kinds == [Keep]
            assert settlement.next_attempt_at == NOW + SCHEDULE.steps_ms[attempts]
        else:
            # The sender hears of a failure, and of nothing else.
            assert (Accept in kinds) is settlement.due_now is isinstance(outcome, Failed)
            assert kinds[-1] is Complete
            assert settlement.next_attempt_at is None
    found = expected(stage, behaviour, count)
    assert wanted[found.outcome] == (count if found.others is None else count // 2)


def settler_for(store: SqliteSpool) -> Settler:
    clocks = Clocks.all_from(lambda: NOW)
    new_id = id_source(lambda: NOW)
    own_mail = OwnMail(
        hostname="mx.example.net",
        reporter="postmaster@mx.example.net",
        snapshot=lambda: SNAPSHOT,
        rewriter=REWRITER,
        look_up=store.return_path,
        new_id=new_id,
        clocks=clocks,
    )
    spool = Spool(store, InlineCommitter(store), new_id)
    spool.keep_hot("m1", CONTENT, 1000)
    logbook = Logbook(SNAPSHOT.log_level, lambda: NOW, new_id)
    return Settler(spool, logbook, SCHEDULE, own_mail, lambda: SNAPSHOT, clocks)
