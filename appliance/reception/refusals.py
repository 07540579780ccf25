"""A next hop's answer in words for two readers: the sender, who never learns of the mailbox, and the alias's log."""

from dataclasses import dataclass

from msgspec.structs import replace

from appliance.forwarding.masking import mask
from appliance.model.delivery import Answer, Deferred, Failed
from appliance.reports.explanations import explain, registered_status
from smtp.address import Address
from smtp.reply import Reply

# Next hops have codes of many kinds. What goes on is what RFC 5321 §4.2.3 has for a recipient or a message.
_TRANSIENT = frozenset({450, 451, 452})
_PERMANENT = frozenset({550, 552, 553, 554, 556})


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a recipient or a message is answered where it is not taken, and what the log may hear of the reason."""

    reply: Reply
    told: Answer


def our_own(reply: Reply, reason: str) -> Refusal:
    """A refusal that nobody else has a part in."""
    return Refusal(reply, Answer(reply.code, reply.enhanced or "", reason, reply.text))


def in_our_words(outcome: Deferred | Failed, target: Address, recipient: str) -> Refusal:
    """A next hop's refusal: its class and codes, and nothing that could name the mailbox."""
    transient = isinstance(outcome, Deferred)
    status = registered_status(outcome.answer.enhanced_code) or ""
    if not status.startswith("4" if transient else "5"):
        status = "4.0.0" if transient else "5.0.0"
    # 421 is about a connection (RFC 5321 §3.8): ours with the sender goes on.
    known = outcome.answer.code in (_TRANSIENT if transient else _PERMANENT)
    code = outcome.answer.code if known else 451 if transient else 550
    reply = Reply(code, explain(status).happened, status)
    return Refusal(reply, replace(masked(outcome.answer, target, recipient), code=code, enhanced_code=status))


def masked(answer: Answer, target: Address, recipient: str) -> Answer:
    """The answer as the log may have it: with the alias where it names the mailbox."""
    return replace(answer, text=mask(answer.text, target, recipient, answer.server_name))
