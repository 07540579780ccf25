"""What an account's plan allows where mail comes in: how large a message may be, and how many may come in a day.

Both are told at RCPT, by the plan of the account whose domain was written to, whatever accounts an alias leads through.
Mail for postmaster is outside of every plan (RFC 5321 §4.5.1), and so is what comes back to rewritten senders.

Where a message turns out larger than its sender said, or nothing was said, the end of the data is the first place to
refuse it, and has one reply for all recipients. Then the smallest plan among them decides for all: a 250 would be a
loss for one of them without a word, or a bounce to whoever stands in the envelope; a 4xx would have the whole message
come again, to the same end. With 552 nobody has got it, and its sender has, who knows all recipients and can write to
each. Whoever gives a true SIZE never meets this: each recipient is answered for itself (RFC 1870 §6.3 and §6.4).
"""

from collections.abc import Callable
from dataclasses import dataclass

from appliance.model.account import Plan
from smtp.reply import Reply

# 552 at RCPT is final: RFC 1870 §6.4. (RFC 5321 §4.5.3.1.10 knows another, of old servers with too many recipients,
# which clients take for 452; the enhanced code tells the two apart.)
TOO_LARGE = Reply(552, "The message is larger than that address takes", "5.3.4")
TOO_LARGE_FOR_ONE = Reply(552, "The message is larger than one of its recipients takes", "5.3.4")
# RFC 3463 §3.3: X.2.2 is a mailbox that has had as much as its operators allow.
EXHAUSTED = Reply(452, "That address has had all the mail it takes in a day, try again tomorrow", "4.2.2")

TOO_LARGE_REASON = "message-too-large"
EXHAUSTED_REASON = "plan-exhausted"

ReceivedToday = Callable[[str, int], int]
"""How many messages the account of an id has received on the day of an instant. May raise StoreUnavailable."""


@dataclass(frozen=True, slots=True)
class BeyondPlan:
    """Why a plan does not allow a message."""

    reply: Reply
    reason: str
    """A stable word: `message-too-large` or `plan-exhausted`."""
    detail: str
    """For `explain`."""


def beyond_plan(plan: Plan, size: int, received: int) -> BeyondPlan | None:
    """Why an account with this plan can't have one message more of this size; None where it can.

    `size` is what MAIL has said, in octets, 0 where it has said nothing; `received` is how many came today.
    """
    if size > plan.max_message_octets:
        # First, for it is final: who is told "tomorrow" comes back in vain.
        return BeyondPlan(TOO_LARGE, TOO_LARGE_REASON, f"{size} octets are too many: {allowance(plan, received)}")
    if received >= plan.max_messages_per_day:
        return BeyondPlan(EXHAUSTED, EXHAUSTED_REASON, f"no more today (UTC): {allowance(plan, received)}")
    return None


def allowance(plan: Plan, received: int) -> str:
    """What a plan allows and how much of it is used, in words for `explain`."""
    return (
        f"the plan {plan.name!r} takes messages of up to {plan.max_message_octets} octets, "
        f"and {plan.max_messages_per_day} a day, of which {received} have come"
    )
