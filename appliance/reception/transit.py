"""Transit: mail that is never stored. The sender hears what the next hops say, and keeps the message till they have it.

    RCPT        every next hop behind the alias is asked first; its refusal is the sender's refusal, in our words
    content     is held in memory, all of it, and counted against the limit of content in flight
    final dot   goes to all next hops at once; 250 when each of them has said 250, waited for WAIT_S at most

An alias with several mailboxes is one recipient to its sender, and has one fate: put off while any of its mailboxes is,
then delivered where one of them has taken it, and refused only where all refuse. (A mailbox that refuses for good
beside one that takes stands in the log; a report to the sender would be mail of our own, and on the disk. For the same
reason nobody is told of a success who asked for that by NOTIFY, in spite of RFC 3461 §5.2.2: the 250 itself tells.)

One reply stands for all recipients of a transaction. Where their fates differ it is a 4xx, so that the sender tries
again, and `transit_memory` sees to it that this ends: who has the message is left out (and not even asked at RCPT), and
who has refused it for good refuses at RCPT.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import trio
from msgspec.structs import replace

from appliance.forwarding.srs import Rewritten, SenderRewriter
from appliance.model.delivery import Answer, Deferred, Delivered, Delivery, DeliveryState, Failed, Outcome, Recipient
from appliance.model.event import EventType
from appliance.model.ids import IdSource
from appliance.reception.decision import Decision
from appliance.reception.refusals import Refusal, in_our_words, masked, our_own
from appliance.reception.transit_memory import Handover, TransitMemory, identity
from appliance.routing.route import route
from appliance.routing.snapshot import Snapshot
from appliance.spool.clocks import Clocks
from smtp.address import Address
from smtp.parameters import MailParameters
from smtp.reply import Reply

ASK_S = 120.0
"""For the next hops of one RCPT, from the look-up of their names on. A client waits five minutes for its reply
(RFC 5321 §4.5.3.2.3), and may have several RCPTs in one group."""

WAIT_S = 240.0
"""For the 250 of all next hops. A client waits ten minutes for ours (RFC 5321 §4.5.3.2.6), or less than the standard
asks for; a next hop that scans what it takes needs some."""

MAX_NEXT_HOPS = 20
"""Connections that one transaction opens. Where it has as many, further recipients come in another one (RFC 5321
§4.5.3.1.10); a single alias may have more, up to the mailboxes that one may lead to."""

MEMORY_THREADS = 10
"""Looks into what is remembered, at once. Threads of its own: what waits for a disk must not stand in the way."""

TRACE_OCTETS = 500
"""What our own header line adds to a message at most; it is part of the SIZE that next hops are told (RFC 1870
§6.1)."""

TOO_MANY_NEXT_HOPS = Reply(452, "Too many recipients at once, send to the rest separately", "4.5.3")
NOBODY_YET = Reply(451, "That address is not in service yet", "4.3.5")
IN_PARTS = Reply(451, "Not all recipients could be given the message, try again", "4.0.0")


class NextHop(Protocol):
    """A transaction with a server of one destination, under way while the sender's is."""

    async def ask(self, deliveries: Sequence[Delivery]) -> list[Deferred | Failed | None]:
        """MAIL, and RCPT for each; None for those that the server would take. They share sender and needs."""

    async def send(self, deliveries: Sequence[Delivery], content: Sequence[bytes]) -> list[Outcome]:
        """The message, for these of those that were taken. Returns when the server has answered the final dot.

        Cancelled, it closes the connection; what has been sent may be delivered then, or not (P3).
        """

    def leave(self) -> None:
        """Nothing more is wanted: without a final dot nothing comes of the message. May be called again."""


class NextHops(Protocol):
    """Whoever finds and speaks to next hops."""

    def next_hop(self, destination: str, client: str) -> NextHop:
        """A transaction with a server of this domain (lower case). It begins when something is asked.

        `client` is whom the sender's connection is counted as: no client is to have all places of a destination.
        """


class Waits:
    """The waits for next hops: each has its own end, and a shutdown ends them all."""

    def __init__(self) -> None:
        self._open: set[trio.CancelScope] = set()
        self._latest = math.inf

    @contextmanager
    def at_most(self, seconds: float) -> Iterator[None]:
        """What is done in this block is cancelled after so many seconds, and goes on behind it."""
        with trio.CancelScope(deadline=min(trio.current_time() + seconds, self._latest)) as scope:
            self._open.add(scope)
            try:
                yield
            finally:
                self._open.discard(scope)

    def end_within(self, seconds: float) -> None:
        """From now on nobody is waited for any longer than this."""
        self._latest = trio.current_time() + seconds
        for scope in self._open:
            scope.deadline = min(scope.deadline, self._latest)


@dataclass(frozen=True, slots=True)
class Transit:
    """What all transit transactions share."""

    next_hops: NextHops
    memory: TransitMemory
    rewriter: SenderRewriter
    snapshot: Callable[[], Snapshot]
    new_id: IdSource
    clocks: Clocks
    waits: Waits = field(default_factory=Waits)
    threads: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(MEMORY_THREADS))

    def begin(self, sender: Address | None, parameters: MailParameters, client: str) -> "TransitTransaction":
        """A transaction, at its first recipient. `client` is whom the connection is counted as."""
        return TransitTransaction(self, str(sender) if sender else "", parameters, client)


@dataclass(frozen=True, slots=True)
class Conclusion:
    """How a message has ended."""

    reply: Reply
    refused: Sequence[tuple[Recipient, Answer]]
    """Recipients for whom it was put off or refused, and why."""
    attempts: Sequence[tuple[EventType, Delivery, Answer]]
    """What became of single mailboxes, as the log may have it."""


@dataclass(slots=True, eq=False)
class _Copy:
    """One mailbox's copy, however many recipients led to it."""

    delivery: Delivery
    next_hop: NextHop
    rewritten: Rewritten
    to_be_asked: bool
    """Whether its next hop has to be heard before the content comes."""
    outcome: Outcome | None = None
    """None as long as the next hop would take it."""
    was_there: bool = False
    """An attempt before this one has delivered it."""


@dataclass(slots=True)
class _Alias:
    """One recipient that was accepted, and the copies that it leads to; none for one whose mail is thrown away."""

    recipient: Recipient
    copies: list[_Copy]


class TransitTransaction:
    """One transaction of one sender, and those with the next hops behind its recipients."""

    def __init__(self, shared: Transit, sender: str, parameters: MailParameters, client: str) -> None:
        self.message_id = shared.new_id()
        self._shared = shared
        self._sender = sender
        self._parameters = parameters
        self._client = client
        self._aliases: list[_Alias] = []
        self._copies: dict[tuple[str, str], _Copy] = {}
        self._hops: list[NextHop] = []
        self._trace = b""
        self._content: list[bytes] = []

    @property
    def holds(self) -> bool:
        """Whether content is kept: it is not where every recipient throws it away."""
        return bool(self._copies)

    # ------------------------------------------------------------------ recipients

    async def recipient(self, decision: Decision, recipient: Recipient) -> Refusal | None:
        """Ask the next hops behind one more recipient. None where all of it can go on."""
        targets = self._mailboxes(decision)
        if decision.targets and not targets:
            return our_own(NOBODY_YET, "postmaster-unassigned")
        said, have_it = await trio.to_thread.run_sync(
            self._look_back, recipient.address, targets, limiter=self._shared.threads
        )
        if said is not None:
            return our_own(said, "refused-before")
        known = [self._copies[target.key] for target in targets if target.key in self._copies]
        for copy in known:
            if copy.outcome is not None and copy.delivery.target.key in have_it:
                self._put_aside(copy)
        unknown = [target for target in targets if target.key not in self._copies]
        new = self._new_copies(unknown, have_it, decision, recipient)
        if self._hops and len(self._hops) + len(new) > MAX_NEXT_HOPS:
            return our_own(TOO_MANY_NEXT_HOPS, "too-many-recipients")
        accepted = False
        try:
            await self._ask(new)
            copies = known + [copy for group in new for copy in group]
            alias = _Alias(recipient, copies)
            refusing = _fate(alias)
            if refusing is not None:
                return _refusal(refusing, recipient)
            accepted = True
        finally:
            for group in new:
                if not accepted or all(copy.outcome is not None for copy in group):
                    group[0].next_hop.leave()
        self._accept(alias, new)
        return None

    def _look_back(self, recipient: str, targets: list[Address]) -> tuple[Reply | None, set[tuple[str, str]]]:
        """What an attempt before may have left: a refusal of this recipient, and mailboxes that seem to have the
        message. (In a thread.)"""
        memory = self._shared.memory
        said = memory.take_refusal(self._sender, self._parameters, self._client, recipient)
        ways = [Handover(self._sender, recipient, target) for target in targets]
        return said, {way.target.key for way in ways if memory.may_be_there(way, self._parameters)}

    def _mailboxes(self, decision: Decision) -> list[Address]:
        """The targets, with the operator's mailbox in the place of bare `postmaster`. Nothing else of them is inside:
        routing has followed it."""
        found: dict[tuple[str, str], Address] = {}
        for target in decision.targets:
            if target.domain:
                found[target.key] = target
                continue
            behind = route(self._shared.snapshot(), target, self._shared.clocks.wall()).targets
            found.update((each.key, each) for each in behind if each.domain)
        return list(found.values())

    def _new_copies(
        self, targets: list[Address], have_it: set[tuple[str, str]], decision: Decision, recipient: Recipient
    ) -> list[list[_Copy]]:
        """A copy for each, those for one destination together; those that `have_it` apart, for they are not asked."""
        clocks = self._shared.clocks
        now = clocks.wall()
        rewritten = self._shared.rewriter.rewrite(self._sender, decision.reference, now)
        groups: dict[tuple[str, bool], list[_Copy]] = {}
        for target in targets:
            group = groups.setdefault((target.key[1], target.key in have_it), [])
            delivery = Delivery(
                id=self._shared.new_id(),
                message_id=self.message_id,
                accepted_at=now,
                size=0 if self._parameters.size is None else self._parameters.size + TRACE_OCTETS,
                priority=0,
                sender=self._sender,
                return_path=rewritten.return_path,
                target=target,
                recipients=(recipient,),
                eight_bit=self._parameters.body == "8BITMIME",
                utf8=self._parameters.smtputf8 or not target.local_part.isascii(),
                require_tls=self._parameters.require_tls,
                ret=self._parameters.ret or "",
                envid=self._parameters.envid,
                state=DeliveryState.UNDER_WAY,
                next_attempt_at=clocks.steady(),
                running_since=clocks.running(),
            )
            next_hop = group[0].next_hop if group else self._next_hop(target)
            group.append(_Copy(delivery, next_hop, rewritten, to_be_asked=target.key not in have_it))
        return list(groups.values())

    def _put_aside(self, copy: _Copy) -> None:
        """A mailbox has refused, for another recipient, and seems to have the message: the end will show."""
        copy.outcome, copy.to_be_asked = None, False
        copy.next_hop = self._next_hop(copy.delivery.target)
        self._hops.append(copy.next_hop)

    def _next_hop(self, target: Address) -> NextHop:
        return self._shared.next_hops.next_hop(target.key[1], self._client)

    async def _ask(self, groups: list[list[_Copy]]) -> None:
        asking = [group for group in groups if group[0].to_be_asked]
        for group in asking:
            for copy in group:
                copy.outcome = _NOT_IN_TIME
        with self._shared.waits.at_most(ASK_S):
            async with trio.open_nursery() as nursery:
                for group in asking:
                    nursery.start_soon(_ask, group)

    def _accept(self, alias: _Alias, new: list[list[_Copy]]) -> None:
        self._aliases.append(alias)
        self._hops += [group[0].next_hop for group in new if any(copy.outcome is None for copy in group)]
        for copy in alias.copies:
            same = self._copies.setdefault(copy.delivery.target.key, copy)
            told = same.delivery.recipients
            if all(other.address != alias.recipient.address for other in told):
                same.delivery = replace(same.delivery, recipients=(*told, alias.recipient))

    # ------------------------------------------------------------------ content

    def start(self, trace: bytes) -> None:
        """The content begins. `trace` is what stands in front of it for the next hops."""
        self._trace = trace

    def content(self, octets: bytes) -> None:
        """The next octets as they came."""
        if self.holds:
            self._content.append(octets)

    async def finish(self, head: bytes, *, eight_bit: bool) -> Conclusion:
        """Send it on, and wait until everybody has answered. `head` is the header section."""
        shared = self._shared
        size = len(self._trace) + sum(map(len, self._content))
        for copy in self._copies.values():
            plain = copy.delivery.target.local_part.isascii() and copy.delivery.return_path.isascii()
            # Octets beyond ASCII in a message that was sent with SMTPUTF8 may be in its header, or in that of a part.
            utf8 = (self._parameters.smtputf8 and eight_bit) or not plain
            copy.delivery = replace(copy.delivery, size=size, eight_bit=eight_bit, utf8=utf8)
        try:
            handovers = await trio.to_thread.run_sync(self._recall, head, limiter=shared.threads)
            with shared.waits.at_most(WAIT_S):
                await self._send()
        finally:
            self.leave()
        for copy in self._copies.values():
            copy.outcome = copy.outcome or _NOT_IN_TIME
        return await self._conclude(handovers)

    def leave(self) -> None:
        """The transaction is over, and what has no final dot yet gets none."""
        for hop in self._hops:
            hop.leave()
        self._content.clear()

    def _recall(self, head: bytes) -> dict[tuple[str, str], list[Handover]]:
        """By mailbox, the ways to it; and those that have the message already are marked. (In a thread.)"""
        memory = self._shared.memory
        message = identity(self._content, head) if self._copies else ""
        handovers: dict[tuple[str, str], list[Handover]] = {}
        for key, copy in self._copies.items():
            ways = [
                Handover(self._sender, recipient.address, copy.delivery.target, message)
                for recipient in copy.delivery.recipients
            ]
            handovers[key] = ways
            if memory.was_delivered(ways):
                # Whatever its next hop may have said since.
                copy.was_there = True
                copy.outcome = _ALREADY_THERE
            elif copy.outcome is None and copy.rewritten.stored is not None:
                memory.remember_return_path(copy.rewritten.stored)
        return handovers

    async def _send(self) -> None:
        async def send(hop: NextHop, copies: list[_Copy]) -> None:
            if not copies[0].to_be_asked:
                # They seemed to have the message, and have another one.
                await _ask(copies)
                copies = [copy for copy in copies if copy.outcome is None]
            if copies:
                outcomes = await hop.send([copy.delivery for copy in copies], content)
                for copy, outcome in zip(copies, outcomes, strict=True):
                    copy.outcome = outcome

        content = [self._trace, *self._content]
        async with trio.open_nursery() as nursery:
            for hop in self._hops:
                wanted = [copy for copy in self._copies.values() if copy.next_hop is hop and copy.outcome is None]
                if wanted:
                    nursery.start_soon(send, hop, wanted)

    # ------------------------------------------------------------------ what it comes to

    async def _conclude(self, handovers: dict[tuple[str, str], list[Handover]]) -> Conclusion:
        refusals = [
            (alias.recipient, _refusal(copy, alias.recipient))
            for alias in self._aliases
            if (copy := _fate(alias)) is not None
        ]
        permanent = [(recipient, refusal) for recipient, refusal in refusals if refusal.reply.permanent]
        if not refusals:
            reply = Reply(250, f"Passed on as {self.message_id}", "2.0.0")
        elif len(permanent) == len(self._aliases):
            reply = permanent[0][1].reply
        elif permanent:
            reply = IN_PARTS
        else:
            reply = refusals[0][1].reply
        await trio.to_thread.run_sync(self._remember, reply, permanent, handovers, limiter=self._shared.threads)
        refused = [(recipient, refusal.told) for recipient, refusal in refusals]
        return Conclusion(reply, refused, list(self._attempts()))

    def _remember(
        self,
        reply: Reply,
        permanent: list[tuple[Recipient, Refusal]],
        handovers: dict[tuple[str, str], list[Handover]],
    ) -> None:
        """Make ready for the sender's next attempt, if there will be one. (In a thread.)"""
        memory = self._shared.memory
        for key, copy in self._copies.items():
            if reply.transient and isinstance(copy.outcome, Delivered):
                memory.remember_delivered(handovers[key], self._parameters)
            elif copy.was_there:
                memory.forget_delivered(handovers[key], self._parameters)
        if reply.transient:
            for recipient, refusal in permanent:
                memory.remember_refusal(self._sender, self._parameters, self._client, recipient.address, refusal.reply)

    def _attempts(self) -> Iterator[tuple[EventType, Delivery, Answer]]:
        """What was delivered now; and what was refused for good beside it, of which nobody else would hear."""
        for copy in self._copies.values():
            if copy.was_there or copy.outcome is None:
                continue
            if isinstance(copy.outcome, Delivered):
                yield EventType.DELIVERED, copy.delivery, _told(copy, copy.delivery.recipients[0])
            elif isinstance(copy.outcome, Failed):
                among = {
                    alias.recipient.address for alias in self._aliases if copy in alias.copies and not _fate(alias)
                }
                concerned = tuple(each for each in copy.delivery.recipients if each.address in among)
                if concerned:
                    delivery = replace(copy.delivery, recipients=concerned)
                    yield EventType.HARD_BOUNCED, delivery, _told(copy, concerned[0])


_NOT_IN_TIME = Deferred(Answer(0, "4.4.7", "no-answer-in-time", "there was no answer in time"))
_ALREADY_THERE = Delivered(Answer(250, "2.0.0", "delivered", "delivered by an attempt before"))


async def _ask(group: list[_Copy]) -> None:
    """RCPT for copies of one next hop."""
    answers = await group[0].next_hop.ask([copy.delivery for copy in group])
    for copy, answer in zip(group, answers, strict=True):
        copy.outcome = answer


def _fate(alias: _Alias) -> _Copy | None:
    """The copy by which an alias is put off or refused; None where its mail is taken, or would be."""
    for copy in alias.copies:
        if isinstance(copy.outcome, Deferred):
            return copy
    failed = [copy for copy in alias.copies if isinstance(copy.outcome, Failed)]
    return failed[0] if failed and len(failed) == len(alias.copies) else None


def _refusal(copy: _Copy, recipient: Recipient) -> Refusal:
    outcome = copy.outcome
    assert isinstance(outcome, Deferred | Failed)
    return in_our_words(outcome, copy.delivery.target, recipient.address)


def _told(copy: _Copy, recipient: Recipient) -> Answer:
    assert copy.outcome is not None
    return masked(copy.outcome.answer, copy.delivery.target, recipient.address)
