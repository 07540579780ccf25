"""One recipient, one decision: routing for aliases, and the way back for rewritten senders."""

from collections.abc import Callable

from msgspec import Struct

from appliance.forwarding.srs import Expired, Forged, NotOurs, Opened, SenderRewriter
from appliance.model.account import Plan
from appliance.model.domain import Alias, DeliveryMode, Domain
from appliance.reception.plan_limits import ReceivedToday, allowance, beyond_plan
from appliance.routing.route import ACCEPTED, NO_SUCH_USER, Left, Route, Step, as_stored, route
from appliance.routing.snapshot import Snapshot
from appliance.storage.spool import ReturnPath
from smtp.address import Address
from smtp.reply import Reply

ONLY_REPORTS = Reply(550, "That address takes delivery reports only", "5.7.1")
RETURN_PATH_FORGED = Reply(550, "That address is not one of ours", "5.7.1")
RETURN_PATH_EXPIRED = Reply(550, "That address has expired", "5.7.1")

LookUp = Callable[[str], ReturnPath | None]
"""Finds what the token in a rewritten sender stands for. May raise StoreUnavailable, which is no reason to refuse."""


class Decision(Struct, frozen=True):
    """What one RCPT TO is answered, and what it stands for where it is accepted."""

    reply: Reply
    reason: str
    recipient: Address
    domain: Domain | None = None
    reference: str = ""
    targets: tuple[Address, ...] = ()
    limited: tuple[Alias, ...] = ()
    """The aliases on the way that take only so many messages."""
    opened: Opened | None = None
    """For a rewritten sender: to whom the report goes. Such mail is never relayed as it came."""
    plan: Plan | None = None
    """What the account may use for which the message counts; None for mail that is outside of every plan."""
    steps: tuple[Step, ...] = ()
    shown: tuple[Address, ...] = ()
    """Where steps are told: what their reader may see of each target."""

    @property
    def accepted(self) -> bool:
        """Whether mail for the recipient is taken."""
        return self.reply.code == 250

    @property
    def mode(self) -> DeliveryMode:
        """How mail for the recipient goes on."""
        # What no alias took is the appliance's own, such as mail for its postmaster: that waits for an operator.
        return self.domain.delivery_mode if self.domain and self.reference else DeliveryMode.SPOOL


def is_return_path(snapshot: Snapshot, recipient: Address) -> bool:
    """Whether the address is at the domain of our rewritten senders."""
    local_part, domain = recipient.key
    return domain == snapshot.settings.srs_domain and local_part != "postmaster"


def decide(
    snapshot: Snapshot,
    rewriter: SenderRewriter,
    sender: Address | None,
    recipient: Address,
    now: int,
    look_up: LookUp,
    received: ReceivedToday,
    left: Left = as_stored,
    *,
    size: int = 0,
    explained: bool = False,
    reader: str | None = None,
) -> Decision:
    """Decide about one recipient of a message, of which MAIL has said this size in octets; 0 where it has said none.

    With `explained` the steps are told in words, to the account `reader` or, with None, to who may know all; it is the
    same decision. Raises StoreUnavailable where a token can't be looked up, or `received` raises it, and nothing else.
    """
    if is_return_path(snapshot, recipient):
        return decide_return(rewriter, sender, recipient, now, look_up)
    return decide_alias(snapshot, recipient, now, received, left, size=size, explained=explained, reader=reader)


def decide_alias(
    snapshot: Snapshot,
    recipient: Address,
    now: int,
    received: ReceivedToday,
    left: Left = as_stored,
    *,
    size: int = 0,
    explained: bool = False,
    reader: str | None = None,
) -> Decision:
    """The same for what is no rewritten sender. Raises what `received` raises; all else that it takes is in memory."""
    found = route(snapshot, recipient, now, left, explained=explained, reader=reader)
    plan, steps = _plan(snapshot, recipient, found), found.steps
    if plan is not None and found.domain is not None:
        so_far = received(found.domain.account_id, now)
        beyond = beyond_plan(plan, size, so_far)
        if beyond is not None:
            steps = (*steps, Step("plan", "refused", beyond.detail))
            return Decision(beyond.reply, beyond.reason, recipient, domain=found.domain, steps=steps)
        if explained:
            steps = (*steps, Step("plan", "ok", allowance(plan, so_far)))
    return Decision(
        found.reply,
        found.reason,
        recipient,
        domain=found.domain,
        reference=found.reference,
        targets=found.targets,
        limited=found.limited,
        plan=plan,
        steps=steps,
        shown=found.shown,
    )


def _plan(snapshot: Snapshot, recipient: Address, found: Route) -> Plan | None:
    """The plan that a message for this recipient counts against; None where there is none.

    A plan that the configuration has lost limits nothing: a slip in a file is no reason to turn mail away. RFC 5321
    §4.5.1: postmaster can be written to, whatever has come before.
    """
    if not found.accepted or found.domain is None or recipient.key[0] == "postmaster":
        return None
    return snapshot.plan(found.domain.id)


def decide_return(
    rewriter: SenderRewriter, sender: Address | None, recipient: Address, now: int, look_up: LookUp
) -> Decision:
    """The same for a rewritten sender, whose token may have to be looked up. Raises StoreUnavailable."""

    def refused(reply: Reply, reason: str, detail: str) -> Decision:
        return Decision(reply, reason, recipient, steps=(Step("return path", "refused", detail),))

    if sender is not None:
        # Only reports come here, and reports have the null reverse-path (RFC 5321 §4.5.5).
        return refused(ONLY_REPORTS, "return-path-not-a-report", "the sender is not <>")
    try:
        opened = rewriter.open(recipient, now, look_up)
    except NotOurs:
        return refused(NO_SUCH_USER, "return-path-unknown", "that is not a rewritten sender")
    except Forged:
        return refused(RETURN_PATH_FORGED, "return-path-forged", "the tag is not ours")
    except Expired:
        return refused(RETURN_PATH_EXPIRED, "return-path-expired", "it is too old")
    step = Step("return path", "ok", "a report of our own goes to the original sender")
    return Decision(ACCEPTED, "accepted", recipient, opened=opened, reference=opened.reference, steps=(step,))
