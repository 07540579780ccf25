"""What is asked of a next hop beside the delivery itself, and what its replies come to: for all that speak with one."""

from appliance.delivery.attempt import Attempt, code_of
from appliance.delivery.connecting import ConnectionSettings, Reached
from appliance.model.delivery import Deferred, Delivered, Delivery, Failed, Outcome
from smtp.parameters import Notify, RecipientParameters
from smtp.reply import Reply


def outcome_of(reply: Reply, attempt: Attempt, reached: Reached | None, settings: ConnectionSettings) -> Outcome:
    """What a reply to an envelope or a message comes to. `reached` is who gave it; None for one that is our own."""
    if reply.positive:
        return Delivered(attempt.answered(reply, "delivered", reached))
    if settings.smarthost is not None and reply.code in _LOGIN_WANTED:
        # About us, and not about the mail: it waits until the operator has put that right.
        text = f"the smarthost wants another login: {code_of(reply)}"
        return Deferred(attempt.told(0, "4.7.0", "login-refused", text, reached))
    if reply.transient:
        return Deferred(attempt.answered(reply, _word(reply, "deferred"), reached))
    return Failed(attempt.answered(reply, _word(reply, "refused"), reached))


def wishes(delivery: Delivery) -> RecipientParameters:
    """What the next hop is asked to report (RFC 3461 §4.1): of what the sender wishes, the failures and delays.

    Its reports come back to us, and we write our own (§5.2.7.3). Successes we tell by ourselves; ORCPT stays here.
    """
    if not delivery.return_path:
        # There is nobody to tell: reports about reports, above all.
        return RecipientParameters(_NEVER)
    said = [recipient.notify for recipient in delivery.recipients]
    if not all(said):
        return _NOTHING_SAID
    words = {word for notify in said for word in notify.split(",")} & {"FAILURE", "DELAY"}
    return RecipientParameters(frozenset(Notify(word) for word in words) or _NEVER)


_LOGIN_WANTED = frozenset({530, 534, 535, 538})
"""RFC 4954 §6: authentication required, too weak, not valid, only when encrypted."""

_NEVER = frozenset({Notify.NEVER})
_NOTHING_SAID = RecipientParameters()

_WORDS = {
    "1.1": "mailbox-unknown",
    "1.10": "null-mx",
    "2.1": "mailbox-disabled",
    "2.2": "mailbox-full",
    "2.3": "message-too-large",
    "3.4": "message-too-large",
    "6.3": "conversion-needed",
}
"""Words for the details of RFC 3463 that tell a person something; the class of the code is not part of them."""


def _word(reply: Reply, otherwise: str) -> str:
    _, _, detail = (reply.enhanced or "").partition(".")
    if detail.startswith("7."):
        return f"policy-{otherwise}"
    return _WORDS.get(detail, f"destination-{otherwise}")
