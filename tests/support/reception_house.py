"""One connection's receiver with everything round it: a real spool, a real log, and next hops that follow a script."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import apsw
import trio
from scripted_next_hops import ScriptedHops
from values import NOW

from appliance.forwarding.own_lines import OwnLines
from appliance.forwarding.srs import SenderRewriter
from appliance.logbook.events import Logbook
from appliance.logbook.live import LiveStream
from appliance.model.account import Account, Plan, Role
from appliance.model.delivery import Delivery
from appliance.model.domain import Alias, AliasAction, DeliveryMode, Destination, Domain, LogLevel
from appliance.model.ids import id_source
from appliance.privacy.declarations import EVENTS
from appliance.privacy.sealing import Sealer
from appliance.reception.client_names import ClientNames
from appliance.reception.day_counts import DayCounts
from appliance.reception.session import Reception, Session
from appliance.reception.transit import Transit
from appliance.reception.transit_memory import TransitMemory
from appliance.reports.own_mail import OwnMail
from appliance.resolver import LookupFailed, MailHosts, NoSuchName
from appliance.routing.snapshot import Settings, Snapshot
from appliance.spool.clocks import Clocks
from appliance.spool.committer import GroupCommitter
from appliance.spool.spool import Spool
from appliance.spool.uses import Uses
from appliance.storage.memory_ephemeral import MemoryEphemeral
from appliance.storage.sqlite_records import SqliteRecords
from appliance.storage.sqlite_spool import SqliteSpool
from smtp.address import Address
from smtp.parameters import NO_MAIL_PARAMETERS, NO_RECIPIENT_PARAMETERS
from smtp.reply import Reply
from smtp.server.trio_server import MailParameters, Peer, RecipientParameters
from smtp.tls import TlsFacts

KEYRING = {"spool": Sealer(bytes(32)), "log": Sealer(bytes(32))}
OWNER = Account("a1", "owner@home.test", True, Role.MEMBER, "free", NOW)
OPERATOR = Account("a9", "owner@home.test", True, Role.OPERATOR, "free", NOW)
PLANS = {
    "free": Plan("free", 2_000_000, max_domains=9, max_aliases_per_domain=9, max_messages_per_day=9, priority=-5),
    "paid": Plan("paid", 3_000_000, max_domains=9, max_aliases_per_domain=9, max_messages_per_day=99, priority=10),
}
PAYING = Account("a4", "paying@home.test", True, Role.MEMBER, "paid", NOW)
SENDER = Address.parse("friend@sender.test")
CONTENT = b"Subject: Apples\r\nFrom: friend@sender.test\r\n\r\nHello\r\n"


def _alias(name: str, *targets: str, domain: str = "domain1", action: AliasAction = AliasAction.FORWARD) -> Alias:
    return Alias(name + domain, domain, name, action, targets, f"ref{name[:3]:a>3}", NOW)


def snapshot(plans: Mapping[str, Plan] = PLANS, *, role: Role = Role.MEMBER) -> Snapshot:
    """What is hosted in these tests; `role` is that of the owner."""
    levels = {"domain1": ("example.org", LogLevel.EVENTS), "domain2": ("quiet.test", LogLevel.NONE)}
    levels["domain3"] = ("errors.test", LogLevel.ERRORS)
    targets = ("alice@home.test", "bob@home.test")
    return Snapshot(
        Settings("mx.example.net", "srs.mx.example.net", plans=plans),
        1,
        accounts=[replace(OWNER, role=role), PAYING, OPERATOR],
        domains=[
            *(Domain(id, OWNER.id, name, True, DeliveryMode.SPOOL, level, NOW) for id, (name, level) in levels.items()),
            Domain("paid1", PAYING.id, "paid.test", True, DeliveryMode.SPOOL, LogLevel.EVENTS, NOW),
            Domain("transit1", OWNER.id, "transit.test", True, DeliveryMode.TRANSIT, LogLevel.NONE, NOW),
            Domain("transit2", OWNER.id, "loud.test", True, DeliveryMode.TRANSIT, LogLevel.EVENTS, NOW),
        ],
        aliases=[
            _alias("sales", *targets),
            _alias("ali", targets[0]),
            _alias("bin", action=AliasAction.DISCARD),
            _alias("quiet", targets[0], domain="domain2"),
            _alias("err", targets[0], domain="domain3"),
            _alias("paid", targets[0], domain="paid1"),
            _alias("through", targets[0], domain="transit1"),
            _alias("loud", *targets, domain="transit2"),
        ],
        destinations=[
            Destination(target, owner.id, target, NOW, NOW) for owner in (OWNER, PAYING) for target in targets
        ],
    )


@dataclass
class Table:
    """Holds the present snapshot, as the engine does."""

    snapshot: Snapshot


@dataclass
class Onward:
    """Remembers what it was given, where the scheduler would be."""

    room: int = 100
    taken: list[Delivery] = field(default_factory=list)
    woken: int = 0

    def reserve(self, domains: Sequence[str]) -> bool:
        if len(domains) > self.room:
            return False
        self.room -= len(domains)
        return True

    def release(self, domains: Sequence[str]) -> None:
        self.room += len(domains)

    def take(self, deliveries: Sequence[Delivery]) -> None:
        self.taken += deliveries

    def wake(self) -> None:
        self.woken += 1


class Names:
    """A reverse zone: one client has a name that leads back, one has a name that does not, one a failing server."""

    async def mx(self, domain: str) -> MailHosts:
        raise NoSuchName(domain)

    async def addresses(self, host: str, *, ipv6: bool) -> list[str]:
        return ["192.0.2.1"] if host == "good.sender.test" else []

    async def name_of(self, address: str) -> str | None:
        if address == "192.0.2.3":
            raise LookupFailed(address)
        return {"192.0.2.1": "good.sender.test", "192.0.2.2": "forged.sender.test"}.get(address)


@dataclass
class World:
    """A reception with everything round it."""

    reception: Reception
    store: SqliteSpool
    records: SqliteRecords
    onward: Onward
    hops: ScriptedHops
    """The next hops of mail in transit."""
    routing: Table

    def session(self, address: str = "192.0.2.1", tls: TlsFacts | None = None) -> Session:
        return self.reception.session(Peer(address, 25, helo="laptop.sender.test", extended=True, tls=tls))

    async def transact(
        self,
        *recipients: str,
        sender: Address | None = SENDER,
        content: bytes = CONTENT,
        session: Session | None = None,
        parameters: MailParameters = NO_MAIL_PARAMETERS,
        wishes: Mapping[str, RecipientParameters] = {},
    ) -> tuple[list[Reply], Reply | None]:
        """One transaction as the server would conduct it: the replies to RCPT, and the last one."""
        session = session or self.session()
        assert (await session.mail(sender, parameters)).code == 250
        replies = [
            await session.recipient(parsed(each), wishes.get(each, NO_RECIPIENT_PARAMETERS)) for each in recipients
        ]
        if not any(reply.code == 250 for reply in replies):
            return replies, None
        assert await session.data() is None
        for start in range(0, len(content), 50_000):
            await session.content(content[start : start + 50_000])
        return replies, await session.end_of_data()

    def events(self) -> list[dict[str, object]]:
        """The events in the outbox, opened by way of the log."""
        self.records.import_stored(EVENTS, self.store.outbox(1000))
        return self.records.find(EVENTS, {})

    def content(self, message_id: str) -> bytes:
        parts: list[bytes] = []
        while (part := self.store.part(message_id, len(parts))) is not None:
            parts.append(part)
        return b"".join(parts)


def parts_on_the_disk(tmp_path: Path) -> int:
    """How many parts of content the file of the spool has, of accepted messages and of others."""
    reader = apsw.Connection(str(tmp_path / "spool.sqlite"), flags=apsw.SQLITE_OPEN_READONLY)
    ((count,),) = reader.execute("SELECT count(*) FROM content").fetchall()
    reader.close()
    assert isinstance(count, int)
    return count


def parsed(text: str) -> Address:
    """An address; bare `postmaster` is one, too."""
    return Address.parse(text) if "@" in text else Address(text, "")


@asynccontextmanager
async def open_reception(tmp_path: Path) -> AsyncIterator[World]:
    """Everything, with its stores in this directory."""
    store = SqliteSpool(tmp_path / "spool.sqlite", KEYRING)
    records = SqliteRecords(tmp_path / "records.sqlite", KEYRING)
    table, onward, hops, new_id = Table(snapshot()), Onward(), ScriptedHops(), id_source()
    rewriter = SenderRewriter("srs.mx.example.net", [bytes(32)])
    async with GroupCommitter(store) as committer, trio.open_nursery() as nursery:
        reception = Reception(
            hostname="mx.example.net",
            routing=table,
            rewriter=rewriter,
            own_lines=OwnLines("mx.example.net", bytes(32)),
            transit=Transit(
                hops,
                TransitMemory(MemoryEphemeral(), Sealer(bytes(32))),
                rewriter,
                lambda: table.snapshot,
                new_id,
                Clocks.all_from(lambda: NOW),
            ),
            look_up=lambda token: store.return_path(token),
            day_counts=DayCounts(),
            spool=Spool(store, committer, new_id),
            logbook=Logbook(lambda id: table.snapshot.log_level(id), lambda: NOW, new_id),
            live=LiveStream(),
            client_names=ClientNames(Names(), nursery),
            own_mail=OwnMail(
                hostname="mx.example.net",
                reporter="postmaster@mx.example.net",
                snapshot=lambda: table.snapshot,
                rewriter=rewriter,
                look_up=store.return_path,
                new_id=new_id,
                clocks=Clocks.all_from(lambda: NOW),
            ),
            next=onward,
            uses=Uses(store.uses()),
            clocks=Clocks.all_from(lambda: NOW),
        )
        yield World(reception, store, records, onward, hops, table)
    store.close()
    records.close()
