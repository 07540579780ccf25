"""Mail in transit, with next hops that say what a test tells them to; without sessions, stores and sockets."""

from dataclasses import dataclass, field

from scripted_next_hops import ScriptedHops
from values import NOW

from appliance.forwarding.srs import SenderRewriter
from appliance.model.account import Account, Role
from appliance.model.delivery import Recipient
from appliance.model.domain import Alias, AliasAction, DeliveryMode, Destination, Domain, LogLevel
from appliance.model.ids import id_source
from appliance.privacy.sealing import Sealer
from appliance.reception.day_counts import DayCounts
from appliance.reception.decision import Decision, decide
from appliance.reception.refusals import Refusal
from appliance.reception.transit import MAX_NEXT_HOPS, Conclusion, Transit
from appliance.reception.transit_memory import TransitMemory
from appliance.routing.snapshot import Settings, Snapshot
from appliance.spool.clocks import Clocks
from appliance.storage.ephemeral import EphemeralStore
from appliance.storage.memory_ephemeral import MemoryEphemeral
from smtp.address import Address
from smtp.parameters import NO_MAIL_PARAMETERS, MailParameters
from smtp.reply import Reply

OPERATOR = Account("a1", "owner@home.test", True, Role.OPERATOR, "free", NOW)
SENDER = Address.parse("friend@sender.test")
LONG_SENDER = Address.parse(f"{'x' * 60}@sender.test")
HEAD = b"Subject: Apples\r\nMessage-ID: <1@sender.test>\r\nFrom: friend@sender.test\r\n\r\n"
CONTENT = HEAD + b"Hello\r\n"
TRACE = b"Received: from here\r\n"
CLIENT = "192.0.2.7"

TARGETS = ["alice@home.test", "bob@home.test", "carol@work.test", "dave@far.test", "j\u00f6rg@home.test"]
MANY = [f"box@host{number}.test" for number in range(MAX_NEXT_HOPS + 1)]
ALIASES = {
    "ali": TARGETS[:1],
    "carol": ["carol@work.test"],
    "both": ["alice@home.test", "bob@home.test"],
    "team": ["alice@home.test", "carol@work.test"],
    "trio": ["alice@home.test", "carol@work.test", "dave@far.test"],
    "bin": [],
    "boss": ["postmaster@example.org"],
    "jorg": ["j\u00f6rg@home.test"],
    "crowd": MANY,
    **{f"one{number}": [target] for number, target in enumerate(MANY)},
}


def _snapshot() -> Snapshot:
    def alias(number: int, name: str, targets: list[str]) -> Alias:
        action = AliasAction.FORWARD if targets else AliasAction.DISCARD
        return Alias(name, "domain1", name, action, tuple(targets), f"ref{number:03}".replace("0", "z"), NOW)

    return Snapshot(
        Settings("mx.example.net", "srs.mx.example.net"),
        1,
        accounts=[OPERATOR],
        domains=[Domain("domain1", OPERATOR.id, "example.org", True, DeliveryMode.TRANSIT, LogLevel.EVENTS, NOW)],
        aliases=[alias(number, name, targets) for number, (name, targets) in enumerate(ALIASES.items())],
        destinations=[Destination(target, OPERATOR.id, target, NOW, NOW) for target in (*TARGETS, *MANY)],
    )


@dataclass
class Clock:
    """For what is remembered, in seconds."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class House:
    """Transit with everything round it."""

    hops: ScriptedHops = field(default_factory=ScriptedHops)
    clock: Clock = field(default_factory=Clock)
    snapshot: Snapshot = field(default_factory=_snapshot)

    def __post_init__(self) -> None:
        self.rewriter = SenderRewriter("srs.mx.example.net", [bytes(32)])
        self.remember_in(MemoryEphemeral(self.clock))

    def remember_in(self, store: EphemeralStore) -> None:
        """Begin anew with this store."""
        self.memory = TransitMemory(store, Sealer(bytes(32)))
        clocks = Clocks.all_from(lambda: NOW)
        self.transit = Transit(self.hops, self.memory, self.rewriter, lambda: self.snapshot, id_source(), clocks)

    async def transact(
        self,
        *aliases: str,
        sender: Address | None = SENDER,
        content: bytes = CONTENT,
        parameters: MailParameters = NO_MAIL_PARAMETERS,
    ) -> tuple[list[Refusal | None], Conclusion | None]:
        """One transaction: what each RCPT comes to, and how it ends where one was accepted."""
        transaction = self.transit.begin(sender, parameters, CLIENT)
        refusals = [await transaction.recipient(*self.decided(alias, sender)) for alias in aliases]
        if None not in refusals:
            transaction.leave()
            return refusals, None
        transaction.start(TRACE)
        for start in range(0, len(content), 10):
            transaction.content(content[start : start + 10])
        head = content.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        return refusals, await transaction.finish(head, eight_bit=not content.isascii())

    async def final(
        self,
        *aliases: str,
        sender: Address | None = SENDER,
        content: bytes = CONTENT,
        parameters: MailParameters = NO_MAIL_PARAMETERS,
    ) -> Reply:
        """The reply to the end of data; every recipient has to be accepted."""
        refusals, ended = await self.transact(*aliases, sender=sender, content=content, parameters=parameters)
        assert ended is not None
        assert refusals == [None] * len(aliases)
        return ended.reply

    async def at_rcpt(
        self,
        alias: str,
        sender: Address | None = SENDER,
        parameters: MailParameters = NO_MAIL_PARAMETERS,
        client: str = CLIENT,
    ) -> Reply | None:
        """The reply that RCPT is refused with; None where it is accepted."""
        transaction = self.transit.begin(sender, parameters, client)
        refusal = await transaction.recipient(*self.decided(alias, sender))
        transaction.leave()
        return refusal.reply if refusal else None

    def decided(self, alias: str, sender: Address | None = SENDER) -> tuple[Decision, Recipient]:
        """What routing says about an alias, and whom the sender wrote to."""
        address = Address.parse(f"{alias}@example.org")
        decision = decide(self.snapshot, self.rewriter, sender, address, NOW, lambda token: None, DayCounts().received)
        assert decision.accepted
        assert decision.mode is DeliveryMode.TRANSIT
        return decision, Recipient(str(address), "domain1")
