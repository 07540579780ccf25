"""One transaction as reception knows it: its envelope, what was decided about each recipient, and the front of its
content. What it comes to is decided in `session.py`."""

from dataclasses import dataclass, field

from appliance.model.delivery import Recipient
from appliance.model.domain import DeliveryMode
from appliance.reception.decision import Decision
from appliance.reception.transit import TransitTransaction
from appliance.routing.snapshot import Snapshot
from appliance.spool.spool import Incoming
from smtp.address import Address
from smtp.parameters import Notify
from smtp.reply import Reply
from smtp.server.trio_server import MailParameters, RecipientParameters

MAX_HEADER_SECTION = 64 << 10
"""Octets at the front of a message in which its header section is looked for. Every session may hold as many."""


@dataclass(slots=True)
class Transaction:
    """What is known from MAIL on, and grows until the end of the data."""

    sender: Address | None
    parameters: MailParameters
    snapshot: Snapshot
    mode: DeliveryMode | None = None
    """That of the first recipient, which all others must have too; None before it."""
    decisions: list[Decision] = field(default_factory=list)
    recipients: list[Recipient] = field(default_factory=list)
    """The same, one for each decision, with what the sender wants to hear about it."""
    forwards: list[Decision] = field(default_factory=list)
    """Those of the decisions that lead on."""
    returns: list[Decision] = field(default_factory=list)
    """The others: to rewritten senders, which get a report of ours."""
    accounts: set[str] = field(default_factory=set)
    """Under whose plans the message comes: it counts once for each."""
    max_octets: int | None = None
    """The smallest size that one of these plans allows; None where there is no plan."""
    incoming: Incoming | None = None
    transit: TransitTransaction | None = None
    """From the first recipient on that was asked for in transit mode, whatever came of it."""
    head_limit: int = MAX_HEADER_SECTION
    head: bytearray = field(default_factory=bytearray)
    """The front of the content as received, for its header section, or for what a returned report says."""
    size: int = 0
    eight_bit: bool = False
    began_at: int = 0
    failed: Reply | None = None
    """What the end of the data will be answered: the content could not be stored."""

    def take(self, decision: Decision, recipient: Recipient) -> None:
        """One recipient more, which is accepted."""
        self.mode = self.mode or decision.mode
        self.decisions.append(decision)
        self.recipients.append(recipient)
        (self.forwards if decision.opened is None else self.returns).append(decision)
        if decision.plan is not None and decision.domain is not None:
            self.accounts.add(decision.domain.account_id)
            allowed = decision.plan.max_message_octets
            self.max_octets = allowed if self.max_octets is None else min(allowed, self.max_octets)

    @property
    def too_large(self) -> bool:
        """Whether there is more content than a plan allows."""
        return self.max_octets is not None and self.size > self.max_octets


@dataclass(slots=True)
class Copy:
    """One mailbox that a message goes to, and the recipients that led there."""

    target: Address
    reference: str
    recipients: list[Recipient]


def copies_of(transaction: Transaction) -> list[Copy]:
    """One for each mailbox, however many recipients led to it: it gets one copy."""
    copies: dict[tuple[str, str], Copy] = {}
    for decision, recipient in zip(transaction.decisions, transaction.recipients, strict=True):
        if decision.opened is not None:
            continue
        told = recipient
        for target in decision.targets:
            same = copies.get(target.key)
            if same is None:
                copies[target.key] = Copy(target, decision.reference, [told])
            elif all(other.address != told.address for other in same.recipients):
                same.recipients.append(told)
            # Of one address's success one copy tells: a report for each would tell how many mailboxes are behind it.
            told = told.without_success()
    return list(copies.values())


def recipient_of(decision: Decision, parameters: RecipientParameters) -> Recipient:
    """Whom a recipient's events and reports will name, and what its sender wants to hear."""
    address, domain_id = str(decision.recipient), decision.domain.id if decision.domain else ""
    if parameters.notify is None and parameters.orcpt is None:
        return Recipient(address, domain_id)
    notify = ",".join(word.value for word in Notify if word in (parameters.notify or ()))
    orcpt = f"{parameters.orcpt.address_type};{parameters.orcpt.address}" if parameters.orcpt else ""
    return Recipient(address, domain_id, notify, orcpt)
