"""The receiver behind one SMTP connection: sender, recipients, content, and the promise at the final dot."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import trio

from appliance.forwarding.own_lines import OwnLines
from appliance.forwarding.srs import SenderRewriter
from appliance.forwarding.trace import count_received, decoded_text, header_section, received
from appliance.forwarding.trace import field as header_field
from appliance.logbook.events import Arrival, Logbook
from appliance.logbook.live import LiveStream
from appliance.model.delivery import Answer, Delivery, DeliveryState, Recipient
from appliance.model.domain import DeliveryMode
from appliance.model.event import DeliveryEvent, EventType
from appliance.reception.client_names import ClientNames
from appliance.reception.day_counts import DayCounts
from appliance.reception.decision import Decision, LookUp, decide_alias, decide_return, is_return_path
from appliance.reception.plan_limits import TOO_LARGE_FOR_ONE, TOO_LARGE_REASON
from appliance.reception.transaction import MAX_HEADER_SECTION, Copy, Transaction, copies_of, recipient_of
from appliance.reception.transit import Transit
from appliance.reports.own_mail import OwnMail, reported_to
from appliance.reports.returned import READ_OCTETS
from appliance.routing.snapshot import Freshness, Snapshot
from appliance.spool.clocks import Clocks
from appliance.spool.spool import Incoming, Spool
from appliance.spool.uses import Uses
from appliance.storage.records import StoreFull, StoreUnavailable
from appliance.storage.spool import CountUse, Operation, ReturnPath
from smtp.address import Address
from smtp.reply import Reply
from smtp.server.serving import client_key
from smtp.server.trio_server import MailParameters, Peer, RecipientParameters

MAX_SUBJECT = 200
"""Characters of a subject that the log keeps."""

MAX_RECEIVED = 100
"""Received fields from which a message counts as going round in circles (RFC 5321 §6.3: at least 100)."""

SENDER_OK = Reply(250, "Sender accepted", "2.1.0")
LOOKUP_FAILED = Reply(451, "That can't be looked up at the moment, try again", "4.3.0")
STORE_FAILED = Reply(451, "The message can't be stored at the moment, try again", "4.3.0")
STORE_FULL = Reply(452, "There is no room for the message at the moment, try again", "4.3.1")
# RFC 5321 §4.5.3.1.10: the client sends to the rest in another transaction, and mostly at once.
OTHER_MODE = Reply(452, "That recipient needs a transaction of its own", "4.5.3")
# One of them has taken its last message meanwhile. When it comes again that RCPT is refused, and the others get theirs.
USED_UP = Reply(450, "One of the addresses takes no more mail, try again without it", "4.2.1")
TOO_MANY_HOPS = Reply(554, "This message has been going round in circles", "5.4.6")


class Next(Protocol):
    """Whoever sees to it that accepted mail goes on."""

    def reserve(self, domains: Sequence[str]) -> bool:
        """Ask for room to take deliveries to these domains. Where False, they are left WAITING to be claimed."""

    def release(self, domains: Sequence[str]) -> None:
        """Give reserved room back: the deliveries were not accepted after all."""

    def take(self, deliveries: Sequence[Delivery]) -> None:
        """These deliveries, for which room was reserved, are durable and claimed for you."""

    def wake(self) -> None:
        """Deliveries that nobody has claimed are durable and due."""


class Routing(Protocol):
    """The present snapshot."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Reception:
    """What all sessions share."""

    hostname: str
    routing: Routing
    rewriter: SenderRewriter
    own_lines: OwnLines
    spool: Spool
    logbook: Logbook
    live: LiveStream
    client_names: ClientNames
    own_mail: OwnMail
    next: Next
    transit: Transit
    look_up: LookUp
    """Finds what the tokens in rewritten senders stand for, wherever they are kept."""
    day_counts: DayCounts
    clocks: Clocks
    uses: Uses

    def session(self, peer: Peer) -> "Session":
        """A receiver for one connection."""
        return Session(self, peer)


class Session:
    """One connection's receiver (`smtp.server.trio_server.Receiver`). The server keeps the order of its calls."""

    def __init__(self, reception: Reception, peer: Peer) -> None:
        self._reception = reception
        self._peer = peer
        self._transaction: Transaction | None = None
        self.asked_elsewhere = False
        """See PassesOn."""
        # Begins to look for it: by the time there is something to log, it is mostly known.
        reception.client_names.name(peer.address)

    @property
    def holds_whole(self) -> bool:
        """See PassesOn."""
        transaction = self._transaction
        return transaction is not None and transaction.mode is DeliveryMode.TRANSIT

    # ------------------------------------------------------------------ envelope

    async def mail(self, sender: Address | None, parameters: MailParameters) -> Reply:
        """See Receiver. Whom the operators have blocked hears it here, before anything is asked or stored."""
        snapshot = self._reception.routing.snapshot
        blocks = snapshot.blocks
        name = await self._reception.client_names.settled(self._peer.address) if blocks.has_names else None
        blocked = blocks.refusal(sender, self._peer.address, name, self._reception.clocks.wall())
        if blocked is not None:
            return blocked.reply if snapshot.freshness is Freshness.FRESH else LOOKUP_FAILED
        self._transaction = Transaction(sender, parameters, self._reception.routing.snapshot)
        return SENDER_OK

    async def recipient(self, recipient: Address, parameters: RecipientParameters) -> Reply:
        """See Receiver."""
        transaction = self._current()
        self.asked_elsewhere = False
        # The present one: an alias made a moment ago counts even in a transaction that began before.
        transaction.snapshot = self._reception.routing.snapshot
        freshness = transaction.snapshot.freshness
        if freshness is Freshness.STALE:
            return LOOKUP_FAILED
        try:
            decision = await self._decide(transaction, recipient)
        except StoreUnavailable:
            return LOOKUP_FAILED
        if not decision.accepted:
            if freshness is not Freshness.FRESH and decision.reply.code >= 500:
                # RFC 5321 §4.2.1: a 5yz says "not this way, ever", and the records may say otherwise by now.
                return LOOKUP_FAILED
            if decision.domain is not None:
                await self._record_refusal(transaction, decision, _answer(decision.reply, decision.reason))
            return decision.reply
        recipient_told = recipient_of(decision, parameters)
        refused = await self._refused_by_mode(transaction, decision, recipient_told)
        if refused is None:
            transaction.take(decision, recipient_told)
        return refused or decision.reply

    async def _refused_by_mode(
        self, transaction: Transaction, decision: Decision, recipient: Recipient
    ) -> Reply | None:
        """Why a recipient that routing accepts can't be one of this transaction's; None where it can."""
        mode = decision.mode
        if transaction.mode not in (None, mode):
            return OTHER_MODE
        if mode is DeliveryMode.SPOOL:
            # Not at MAIL: who writes to others than these needs no room (RFC 1870 §6.1 has 452 for both commands).
            return None if self._reception.spool.has_room(transaction.parameters.size or 0) else STORE_FULL
        if transaction.transit is None:
            transaction.transit = self._reception.transit.begin(
                transaction.sender, transaction.parameters, client_key(self._peer.address)
            )
        self.asked_elsewhere = True
        refusal = await transaction.transit.recipient(decision, recipient)
        if refusal is None:
            return None
        await self._record_refusal(transaction, decision, refusal.told)
        return refusal.reply

    async def _decide(self, transaction: Transaction, recipient: Address) -> Decision:
        reception, now = self._reception, self._reception.clocks.wall()
        if not is_return_path(transaction.snapshot, recipient):
            size = transaction.parameters.size or 0
            received, left = reception.day_counts.received, reception.uses.left
            return decide_alias(transaction.snapshot, recipient, now, received, left, size=size)
        # Its token may have to be looked up in the store.
        return await trio.to_thread.run_sync(
            decide_return, reception.rewriter, transaction.sender, recipient, now, reception.look_up
        )

    async def _record_refusal(self, transaction: Transaction, decision: Decision, answer: Answer) -> None:
        assert decision.domain is not None
        arrival = self._arrival(transaction, self._reception.spool.new_id(), transaction.parameters.size or 0)
        events = self._reception.logbook.arrival(
            EventType.REFUSED, arrival, str(decision.recipient), decision.domain.id, answer
        )
        await self._record(events)

    async def _record(self, events: list[DeliveryEvent], counts: Sequence[CountUse] = ()) -> None:
        try:
            await self._reception.spool.record(events, counts)
        except StoreUnavailable:
            return  # what has happened stands; only the log is poorer by a line, and a count by one at the next start
        self._reception.live.publish(events)

    # ------------------------------------------------------------------ content

    async def data(self) -> Reply | None:
        """See Receiver."""
        transaction = self._current()
        reception = self._reception
        transaction.began_at = reception.clocks.wall()
        if transaction.returns:
            transaction.head_limit = READ_OCTETS
        if transaction.mode is DeliveryMode.TRANSIT:
            assert transaction.transit is not None
            transaction.transit.start(self._trace(transaction, transaction.transit.message_id))
        elif transaction.forwards:
            transaction.incoming = reception.spool.begin()
            await transaction.incoming.append(self._trace(transaction, transaction.incoming.message_id))
        return None

    def _trace(self, transaction: Transaction, message_id: str) -> bytes:
        """What is put in front of a message."""
        reception = self._reception
        recipients = [decision.recipient for decision in transaction.decisions]
        return received(
            helo=self._peer.helo,
            client_address=self._peer.address,
            hostname=reception.hostname,
            protocol=self._peer.protocol(transaction.parameters),
            message_id=message_id,
            recipients=tuple(map(str, recipients)),
            at=transaction.began_at,
            cipher=self._peer.tls.cipher if self._peer.tls else "",
            mark=reception.own_lines.mark(message_id, recipients),
        )

    async def content(self, octets: bytes) -> None:
        """See Receiver. A store that fails now is reported at the end of the data, where the protocol has a reply."""
        transaction = self._current()
        transaction.size += len(octets)
        transaction.eight_bit = transaction.eight_bit or not octets.isascii()
        if len(transaction.head) < transaction.head_limit:
            transaction.head += octets[: transaction.head_limit - len(transaction.head)]
        if transaction.too_large:
            return  # What is still to come is only counted: it is refused at its end, and never kept.
        if transaction.mode is DeliveryMode.TRANSIT:
            assert transaction.transit is not None
            transaction.transit.content(octets)
        if transaction.incoming is not None:
            try:
                await transaction.incoming.append(octets)
            except StoreUnavailable as error:
                await transaction.incoming.abort()
                transaction.incoming = None
                transaction.failed = _store_reply(error)

    async def end_of_data(self) -> Reply:
        """See Receiver. The 250 is given after everything is durable, and not before (RFC 5321 §6.1)."""
        transaction = self._current()
        self._transaction = None
        head = header_section(bytes(transaction.head), MAX_HEADER_SECTION)
        if transaction.too_large:
            return await self._refuse(transaction, head, TOO_LARGE_FOR_ONE, TOO_LARGE_REASON)
        if transaction.failed is not None:
            return transaction.failed
        if count_received(head) >= MAX_RECEIVED:
            return await self._refuse(transaction, head, TOO_MANY_HOPS, "too-many-hops")
        # One reply stands for all recipients. Where the way of one is a circle, a 5xx leaves the message with whoever
        # sent it, who knows them all and can tell; a 250 for the others would be a loss of this one without a word.
        if self._reception.own_lines.shows_a_loop(head, (decision.recipient for decision in transaction.forwards)):
            return await self._refuse(transaction, head, TOO_MANY_HOPS, "mail-loop")
        counts = self._reception.uses.take(alias for each in transaction.forwards for alias in each.limited)
        if counts is None:
            return await self._refuse(transaction, head, USED_UP, "alias-used-up")
        reply: Reply | None = None
        try:
            promise = self._pass_on if transaction.mode is DeliveryMode.TRANSIT else self._accept
            reply = await promise(transaction, head, counts)
        finally:
            self._reception.uses.end(counts, accepted=reply is not None and reply.positive)
        return reply

    async def reset(self) -> None:
        """See Receiver."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None and transaction.transit is not None:
            transaction.transit.leave()
        if transaction is not None and transaction.incoming is not None:
            await transaction.incoming.abort()

    # ------------------------------------------------------------------ the promise

    async def _pass_on(self, transaction: Transaction, head: bytes, counts: list[CountUse]) -> Reply:
        """Transit: what the next hops say is what the sender hears."""
        transit, logbook = transaction.transit, self._reception.logbook
        assert transit is not None
        ended = await transit.finish(head, eight_bit=transaction.eight_bit)
        events: list[DeliveryEvent] = []
        if ended.reply.positive:
            events += self._events(transaction, transit.message_id, head, EventType.RECEIVED, ended.reply, "accepted")
            self._reception.day_counts.count(transaction.accounts, self._reception.clocks.wall())
        arrival = self._arrival(transaction, transit.message_id, transaction.size, _subject(head))
        for recipient, answer in ended.refused:
            events += logbook.arrival(EventType.REFUSED, arrival, recipient.address, recipient.domain_id, answer)
        for type, delivery, answer in ended.attempts:
            logbook.counts.attempted_in_transit(type)
            events += logbook.attempt(type, delivery, 1, answer)
        await self._record(events, counts if ended.reply.positive else ())
        return ended.reply

    async def _accept(self, transaction: Transaction, head: bytes, counts: list[CountUse]) -> Reply:
        reception = self._reception
        incoming = transaction.incoming or reception.spool.begin()
        reply = Reply(250, f"Accepted as {incoming.message_id}", "2.0.0")
        copies = copies_of(transaction)
        domains = [copy.target.key[1] for copy in copies]
        reserved = reception.next.reserve(domains)
        try:
            state = DeliveryState.UNDER_WAY if reserved else DeliveryState.WAITING
            deliveries, return_paths = self._deliveries(transaction, incoming, copies, state)
            with_it = await self._reports(transaction) if transaction.returns else []
            events = self._events(transaction, incoming.message_id, head, EventType.RECEIVED, reply, "accepted")
            await incoming.commit(deliveries, events, return_paths, [*with_it, *counts])
        except BaseException as error:
            if reserved:
                reception.next.release(domains)
            await incoming.abort()
            if isinstance(error, StoreUnavailable):
                return _store_reply(error)
            raise
        reception.day_counts.count(transaction.accounts, reception.clocks.wall())
        if reserved:
            reception.next.take(deliveries)
        if with_it or not reserved:
            reception.next.wake()
        reception.live.publish(events)
        return reply

    async def _refuse(self, transaction: Transaction, head: bytes, reply: Reply, reason: str) -> Reply:
        message_id = self._reception.spool.new_id()
        if transaction.transit is not None:
            transaction.transit.leave()
        if transaction.incoming is not None:
            message_id = transaction.incoming.message_id
            await transaction.incoming.abort()
        await self._record(self._events(transaction, message_id, head, EventType.REFUSED, reply, reason))
        return reply

    def _deliveries(
        self, transaction: Transaction, incoming: Incoming, copies: list[Copy], state: DeliveryState
    ) -> tuple[list[Delivery], list[ReturnPath]]:
        reception = self._reception
        now = reception.clocks.wall()
        sender = str(transaction.sender) if transaction.sender else ""
        parameters = transaction.parameters
        # Octets beyond ASCII in a message that was sent with SMTPUTF8 may be in its header, or in that of a part.
        utf8 = parameters.smtputf8 and transaction.eight_bit
        deliveries: list[Delivery] = []
        return_paths: dict[str, ReturnPath] = {}
        priority = transaction.snapshot.priority(each.domain.id for each in transaction.forwards if each.domain)
        for copy in copies:
            rewritten = reception.rewriter.rewrite(sender, copy.reference, now)
            if rewritten.stored is not None:
                # By the clock that retention goes by: one that was set back must not have it swept at once.
                return_paths[rewritten.stored.token] = replace(rewritten.stored, created_at=reception.clocks.latest())
            deliveries.append(
                Delivery(
                    id=reception.spool.new_id(),
                    message_id=incoming.message_id,
                    accepted_at=now,
                    size=incoming.size,
                    priority=priority,
                    sender=sender,
                    return_path=rewritten.return_path,
                    target=copy.target,
                    recipients=tuple(copy.recipients),
                    eight_bit=transaction.eight_bit,
                    utf8=utf8 or not (copy.target.local_part.isascii() and rewritten.return_path.isascii()),
                    require_tls=parameters.require_tls,
                    ret=parameters.ret or "",
                    envid=parameters.envid,
                    state=state,
                    next_attempt_at=reception.clocks.steady(),
                    running_since=reception.clocks.running(),
                )
            )
        return deliveries, list(return_paths.values())

    async def _reports(self, transaction: Transaction) -> list[Operation]:
        """Reports of our own in place of what came back to rewritten senders, one for each."""
        reception = self._reception
        operations: list[Operation] = []
        for opened in {decision.opened for decision in transaction.returns}:
            assert opened is not None
            returned = bytes(transaction.head)
            now = reception.clocks.wall()
            answer = partial(
                reception.own_mail.answer_returned,
                returned,
                opened,
                now,
                require_tls=transaction.parameters.require_tls,
            )
            if reception.own_mail.asks_a_store(reported_to(opened.sender), now):
                operations += await trio.to_thread.run_sync(answer)
            else:
                operations += answer()
        return operations

    def _events(
        self, transaction: Transaction, message_id: str, head: bytes, type: EventType, reply: Reply, reason: str
    ) -> list[DeliveryEvent]:
        now = self._reception.clocks.wall()
        arrival = self._arrival(transaction, message_id, transaction.size, _subject(head))
        answer = _answer(reply, reason, max(0, now - transaction.began_at))
        events: list[DeliveryEvent] = []
        for decision in transaction.forwards:
            if decision.domain is not None:
                events += self._reception.logbook.arrival(
                    type, arrival, str(decision.recipient), decision.domain.id, answer
                )
        return events

    def _arrival(self, transaction: Transaction, message_id: str, size: int, subject: str | None = None) -> Arrival:
        return Arrival(
            message_id=message_id,
            sender=str(transaction.sender) if transaction.sender else "",
            size=size,
            client_address=self._peer.address,
            client_name=self._reception.client_names.name(self._peer.address),
            subject=subject,
        )

    def _current(self) -> Transaction:
        assert self._transaction is not None, "the SMTP session keeps the order: MAIL comes first"
        return self._transaction


def _subject(head: bytes) -> str | None:
    return decoded_text(header_field(head, "Subject") or b"", MAX_SUBJECT) or None


def _store_reply(error: StoreUnavailable) -> Reply:
    return STORE_FULL if isinstance(error, StoreFull) else STORE_FAILED


def _answer(reply: Reply, reason: str, duration_ms: int = 0) -> Answer:
    return Answer(reply.code, reply.enhanced or "", reason, reply.text, duration_ms=duration_ms)
