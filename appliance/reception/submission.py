"""Letters of the appliance's own, taken into the queue as mail that arrives is: durable, or not taken at all.

A letter comes over the engine's socket and not from a client, so nobody is asked who is there and no policy applies.
What applies is the promise: a letter that was taken survives, and one that was not is never sent. And routing: an
address of ours is followed through its aliases here, inside, as with all mail. No event tells of a letter, for it
belongs to no hosted domain.
"""

from collections.abc import Callable
from dataclasses import dataclass

from appliance.letters.composing import compose_letter
from appliance.model.delivery import Delivery, DeliveryState, Recipient
from appliance.model.letter import Letter
from appliance.routing.route import RELAY_DENIED, route
from appliance.routing.snapshot import Snapshot
from appliance.spool.clocks import Clocks
from appliance.spool.spool import Spool
from appliance.storage.records import StoreFull
from smtp.address import Address

LETTER_PRIORITY = 1001
"""Above that of any plan, which is 1000 at most: somebody looks into an empty mailbox and waits. There are few letters
(`appliance.access.letters`, `appliance.accounts.consent`), and one in five deliveries goes by age alone."""


@dataclass(frozen=True, slots=True)
class Submission:
    """Takes letters."""

    hostname: str
    sender: str
    """Who letters are from, in the header and in the envelope.

    RFC 5321 §4.5.5 keeps the null reverse-path for reports and what else a standard names, so a letter has a sender,
    and what other servers have to say about it goes there. It can't go round: that report is from the null reverse-path
    itself, and we make none about a letter, which says that a program has written it.
    """
    spool: Spool
    snapshot: Callable[[], Snapshot]
    clocks: Clocks
    wake: Callable[[], None]
    """Called when there is something to deliver."""

    async def submit(self, letter: Letter) -> int:
        """Take a letter, and return to how many mailboxes it goes: durable then. 0 for an address of ours that leads
        nowhere; nothing is stored for it.

        Raises AddressError, and StoreUnavailable where nothing was taken.
        """
        written = Address.parse(letter.recipient)
        # Without need for SMTPUTF8 wherever that can be: not every next hop knows it.
        recipient = written.in_ascii or written
        now = self.clocks.wall()
        targets = _targets(self.snapshot(), recipient, now)
        if not targets:
            return 0
        incoming = self.spool.begin()
        octets = compose_letter(
            letter,
            to=recipient,
            message_id=incoming.message_id,
            now=now,
            hostname=self.hostname,
            sender=self.sender,
        )
        # As at MAIL: what is left of the disk is for mail that was accepted before.
        if not self.spool.has_room(len(octets)):
            raise StoreFull("there is no room for a letter")
        deliveries = [self._delivery(incoming.message_id, recipient, target, octets, now) for target in targets]
        try:
            await incoming.append(octets)
            await incoming.commit(deliveries, ())
        except BaseException:
            await incoming.abort()
            raise
        self.wake()
        return len(deliveries)

    def _delivery(self, message_id: str, recipient: Address, target: Address, octets: bytes, now: int) -> Delivery:
        return Delivery(
            id=self.spool.new_id(),
            message_id=message_id,
            accepted_at=now,
            size=len(octets),
            priority=LETTER_PRIORITY,
            sender=self.sender,
            return_path=self.sender,
            target=target,
            recipients=(Recipient(str(recipient), ""),),
            eight_bit=not octets.isascii(),
            utf8=not (recipient.is_ascii and target.local_part.isascii()),
            # RFC 3461 §4.3: a report has no need to carry the link of a letter that has not arrived.
            ret="HDRS",
            state=DeliveryState.WAITING,
            next_attempt_at=self.clocks.steady(),
            running_since=self.clocks.running(),
        )


def _targets(snapshot: Snapshot, recipient: Address, now: int) -> tuple[Address, ...]:
    found = route(snapshot, recipient, now)
    # What is not ours goes where it says, and what is refused for now stays in the queue under its own name, to be
    # followed again at each attempt.
    return (recipient,) if found.reply is RELAY_DENIED or found.reply.transient else found.targets
