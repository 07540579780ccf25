"""What the sender hears of an outcome: whether at all, about which recipients, and the mail that tells it.

A report goes to whoever stands in the envelope, and that may be somebody who never wrote: so none about a report, about
mail of programs and lists, or about a message that failed authentication (`reports.bounce.may_report`), whatever was
asked for. Beyond that the sender's NOTIFY decides, recipient by recipient (RFC 3461 §4.1).

What NOTIFY says holds for what we find out, and for next hops that know DSN. A report of one that does not know it
comes back to the rewritten sender, which has no room for the wish, and is answered as if nothing had been said.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import trio
from msgspec.structs import replace

from appliance.forwarding.trace import header_section
from appliance.model.delivery import Answer, Delivery, Recipient
from appliance.reports.bounce import HEADER_LIMIT, compose_bounce, may_go_back_whole, may_report
from appliance.reports.delayed import compose_delayed
from appliance.reports.own_mail import OwnMail, reported_to
from appliance.reports.relayed import compose_relayed
from appliance.spool.spool import Spool
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import Operation
from smtp.address import Address, AddressError


@dataclass(frozen=True, slots=True)
class _Told:
    """Who is told about what."""

    sender: Address
    """As reports write to them."""
    delivery: Delivery
    """With the sender in that form."""
    recipients: Sequence[Recipient]
    """Those about whom the sender wants to hear."""
    front: bytes
    """The first part of the message; nothing where it can't be read."""
    head: bytes
    """Its header section."""


class SenderReports:
    """Composes reports to senders. Each returns what has to be committed with the outcome; nothing for no report.

    All of them raise StoreUnavailable where the sender has to be looked up and can't be.
    """

    def __init__(self, spool: Spool, own_mail: OwnMail) -> None:
        self._spool = spool
        self._own_mail = own_mail

    async def of_failure(self, delivery: Delivery, answer: Answer, now: int) -> list[Operation]:
        """`answer` has ended this delivery. Its attempts count the last one."""
        told = await self._told(delivery, "FAILURE")
        if told is None:
            return []
        whole = told.front if told.front and may_go_back_whole(told.delivery, told.front) else None
        return await self._post(told, now, partial(compose_bounce, answer=answer, whole=whole))

    async def of_delay(self, delivery: Delivery, answer: Answer, now: int, until: int) -> list[Operation]:
        """`answer` has put this delivery off once more; it is tried `until` an instant of the wall clock.

        Only who has proved to be the sender hears of it (`Delivery.authentication`): of a failure people have to be
        told, while a notice that nobody asked for must not reach a stranger. What can't be read now may be automatic
        mail, and is left for the next attempt.
        """
        if delivery.authentication != "pass":
            return []
        told = await self._told(delivery, "DELAY")
        if told is None or not told.front:
            return []
        return await self._post(told, now, partial(compose_delayed, answer=answer, until=until))

    async def of_success(self, delivery: Delivery, now: int) -> list[Operation]:
        """The next hop has taken this delivery, and the sender wanted to hear of that, too.

        Somebody who forges an envelope can have such a report sent to whom he likes. It is one message for one, of our
        words and at most ORIGINAL_HEADER_OCTETS of his own: no gain for him, and a failure would get him the same. RFC
        3461 §5.2.2 says that the report must be; so it is withheld where authentication has failed, as all reports
        are, and not where nothing is known.
        """
        told = await self._told(delivery, "SUCCESS")
        return [] if told is None else await self._post(told, now, compose_relayed)

    async def _told(self, delivery: Delivery, word: str) -> _Told | None:
        concerned = [recipient for recipient in delivery.recipients if recipient.wants(word)]
        sender = _sender(delivery)
        if sender is None or not concerned:
            return None
        front = await self._front(delivery)
        head = header_section(front, HEADER_LIMIT)
        if not may_report(delivery, head):
            return None
        return _Told(sender, replace(delivery, sender=str(sender)), concerned, front, head)

    async def _post(self, told: _Told, now: int, compose: Callable[..., bytes]) -> list[Operation]:
        if self._own_mail.asks_a_store(told.sender, now):
            return await trio.to_thread.run_sync(self._posted, told, now, compose)
        return self._posted(told, now, compose)

    def _posted(self, told: _Told, now: int, compose: Callable[..., bytes]) -> list[Operation]:
        operations: list[Operation] = []
        # One for each recipient: a report that names two would tell that one mailbox is behind both.
        for recipient in told.recipients:
            message_id = self._spool.new_id()
            octets = compose(
                message_id=message_id,
                now=now,
                hostname=self._own_mail.hostname,
                postmaster=self._own_mail.reporter,
                delivery=replace(told.delivery, recipients=(recipient,)),
                header_section=told.head,
            )
            # RFC 8689 §5: a report tells as much as the message itself, and goes over the same kind of connection.
            operations += self._own_mail.post(
                message_id, told.sender, octets, now, require_tls=told.delivery.require_tls
            )
        return operations

    async def _front(self, delivery: Delivery) -> bytes:
        try:
            return await self._spool.head(delivery.message_id)
        except StoreUnavailable:
            # Damaged, perhaps for good: better a report without the message's header than none.
            return b""


def _sender(delivery: Delivery) -> Address | None:
    """To whom reports go, as they write it; None for nobody."""
    try:
        return reported_to(Address.parse(delivery.sender)) if delivery.sender else None
    except AddressError:
        return None
