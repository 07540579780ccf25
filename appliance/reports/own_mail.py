"""Mail that the appliance itself sends: always from the null reverse-path, so that nothing ever bounces back and forth.

Two recipients are special. One at a hosted domain is followed through its aliases here, inside: the MX would only lead
back to us. One that is a rewritten sender of ours is opened, and gets the report that it would have got had this one
gone out into the world and come back: the original sender, in the name of the alias that was written to.
"""

from collections.abc import Callable
from dataclasses import dataclass

from appliance.forwarding.srs import NotOpened, Opened, SenderRewriter
from appliance.model.delivery import Delivery, DeliveryState, Recipient
from appliance.model.ids import IdSource
from appliance.reports.returned import compose_returned
from appliance.routing.route import route
from appliance.routing.snapshot import Snapshot
from appliance.spool.clocks import Clocks
from appliance.storage.records import Damaged, StoreUnavailable
from appliance.storage.spool import Accept, AddPart, Operation, ReturnPath
from smtp.address import Address


@dataclass(frozen=True, slots=True)
class OwnMail:
    """Composes and addresses mail of our own; whoever commits the operations wakes the scheduler."""

    hostname: str
    reporter: str
    """Who our reports are from."""
    snapshot: Callable[[], Snapshot]
    rewriter: SenderRewriter
    look_up: Callable[[str], ReturnPath | None]
    new_id: IdSource
    clocks: Clocks

    def asks_a_store(self, recipient: Address, now: int) -> bool:
        """Whether `post` to this recipient has to ask a store, which may be slow: then it is for a worker thread."""
        srs_domain = self.snapshot().settings.srs_domain
        try:
            while recipient.key[1] == srs_domain:
                recipient = reported_to(self.rewriter.open(recipient, now, _not_asked).sender)
        except StoreUnavailable:
            return True
        except NotOpened:
            return False
        return False

    def post(
        self, message_id: str, recipient: Address, octets: bytes, now: int, *, require_tls: bool = False
    ) -> list[Operation]:
        """What has to be committed to send one message; nothing where it has nowhere to go.

        `require_tls` for a report about a message that was to go over TLS only (RFC 8689 §5). Raises StoreUnavailable
        where the recipient has to be looked up and can't be.
        """
        snapshot = self.snapshot()
        if recipient.key[1] == snapshot.settings.srs_domain:
            try:
                opened = self.rewriter.open(recipient, now, self.look_up)
                return self.answer_returned(octets, opened, now, require_tls=require_tls)
            except (NotOpened, Damaged):
                # Whom it was for is not known, and will not be: to ask again and again would help nobody.
                return []
        deliveries = [
            Delivery(
                id=self.new_id(),
                message_id=message_id,
                accepted_at=now,
                size=len(octets),
                priority=0,
                sender="",
                return_path="",
                target=target,
                recipients=(Recipient(str(recipient), ""),),
                eight_bit=not octets.isascii(),
                # A report to an address that is not ASCII has it in its header, wherever it is followed to.
                utf8=not (str(recipient).isascii() and target.local_part.isascii()),
                require_tls=require_tls,
                state=DeliveryState.WAITING,
                next_attempt_at=self.clocks.steady(),
                running_since=self.clocks.running(),
            )
            for target in _targets(snapshot, recipient, now)
        ]
        return [AddPart(message_id, 0, octets), Accept(deliveries)] if deliveries else []

    def answer_returned(
        self, content: bytes, opened: Opened, now: int, *, require_tls: bool = False
    ) -> list[Operation]:
        """The report for the original sender in place of what came back to a rewritten one.

        Nothing where what came back reports nothing. Raises StoreUnavailable, as `post` does.
        """
        message_id = self.new_id()
        sender = reported_to(opened.sender)
        octets = compose_returned(
            content,
            message_id=message_id,
            now=now,
            hostname=self.hostname,
            postmaster=self.reporter,
            sender=str(sender),
            alias=self.snapshot().alias_address(opened.reference),
            sent_at=opened.rewritten_at,
        )
        return [] if octets is None else self.post(message_id, sender, octets, now, require_tls=require_tls)


def _not_asked(token: str) -> ReturnPath | None:
    raise StoreUnavailable("it would have to be asked")


def reported_to(sender: Address) -> Address:
    """The sender as a report has to write to them: without need for SMTPUTF8 wherever that can be.

    A next hop that does not know the extension fails a report that needs it, and nobody hears of that.
    """
    return sender.in_ascii or sender


def _targets(snapshot: Snapshot, recipient: Address, now: int) -> tuple[Address, ...]:
    inside = snapshot.hosted(recipient.key[1])
    if inside is None or not inside.domain.verified:
        return (recipient,)
    found = route(snapshot, recipient, now)
    # What is refused for now stays in the queue under its own name, and is followed again at each attempt.
    return (recipient,) if found.reply.transient else found.targets
