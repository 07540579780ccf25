"""What an enhanced status code means, in words that a person understands.

Bounces are read by people who wrote to somebody and want to know three things: what happened, whether it is worth
trying again, and what else they could do. The words are ours, one pair for each code of RFC 3463 and its registry that
says something; a code that says nothing of its own gets the words of its subject.
"""

import re
from dataclasses import dataclass

from appliance.model.time import DAY_MS, HOUR_MS, MINUTE_MS

# RFC 3463 §2: class "." subject "." detail.
_ENHANCED = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})", re.ASCII)

# The highest detail that the registry of RFC 5248 has for each subject. What lies beyond is nobody's code, and passing
# it on would pass on digits of a stranger's choice.
_REGISTERED_DETAILS = {0: 0, 1: 10, 2: 4, 3: 6, 4: 7, 5: 6, 6: 10, 7: 30}


def registered_status(text: str) -> str | None:
    """The enhanced status code itself, its subject or class where it is not a registered one; None for no code."""
    found = _ENHANCED.fullmatch(text)
    if not found:
        return None
    subject, detail = int(found[2]), int(found[3])
    if subject not in _REGISTERED_DETAILS:
        return f"{found[1]}.0.0"
    return f"{found[1]}.{subject}.{detail if detail <= _REGISTERED_DETAILS[subject] else 0}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What happened, and what the sender can do."""

    happened: str
    advice: str


_CHECK_THE_ADDRESS = "Please check the address. If it is right, its owner needs to hear of this in another way."
_ASK_THE_OWNER = "Sending it again will not help. Please reach the person in another way and tell them."
_LATER = "It may work again later: please send it once more in a day or two, or reach the person in another way."
_SMALLER = "Please send something smaller, or share large files in another way."
_WITHOUT_TLS = "Sending it without that demand (REQUIRETLS) will work where the content is not so secret."
_YOUR_POSTMASTER = "The people who run your mail service can find out more; please show them this report."

_BY_SUBJECT = {
    0: Explanation("The mail server behind this address refused the message without saying why.", _ASK_THE_OWNER),
    1: Explanation("The mail server behind this address says that the address is not right.", _CHECK_THE_ADDRESS),
    2: Explanation("The mailbox behind this address can't take the message.", _ASK_THE_OWNER),
    3: Explanation("The mail server behind this address can't take messages at present.", _LATER),
    4: Explanation("The mail server behind this address could not be reached.", _LATER),
    5: Explanation("The mail servers on the way did not understand each other.", _YOUR_POSTMASTER),
    6: Explanation(
        "The mail server behind this address can't handle the form of the message.",
        "Please send it as plain text, without attachments of an unusual kind.",
    ),
    7: Explanation("The mail server behind this address refused the message because of its rules.", _ASK_THE_OWNER),
}

_BY_CODE = {
    (1, 1): Explanation("There is no such mailbox behind this address.", _CHECK_THE_ADDRESS),
    (1, 2): Explanation("The mail server behind this address does not exist any more.", _CHECK_THE_ADDRESS),
    (1, 6): Explanation("The mailbox behind this address has moved and left no new address.", _CHECK_THE_ADDRESS),
    (1, 7): Explanation("Your own address, as your mail service gave it, is not well-formed.", _YOUR_POSTMASTER),
    (1, 8): Explanation("Your own address, as your mail service gave it, does not exist.", _YOUR_POSTMASTER),
    (1, 10): Explanation("The domain behind this address says that it takes no mail at all.", _CHECK_THE_ADDRESS),
    (2, 1): Explanation("The mailbox behind this address is closed.", _ASK_THE_OWNER),
    (2, 2): Explanation("The mailbox behind this address is full.", _LATER),
    (2, 3): Explanation("The message is larger than this mailbox allows.", _SMALLER),
    (3, 1): Explanation("The mail server behind this address has no space left.", _LATER),
    (3, 4): Explanation("The message is too large for the mail server behind this address.", _SMALLER),
    (4, 6): Explanation("The message was sent round in a circle.", _ASK_THE_OWNER),
    (4, 7): Explanation("The mail server behind this address did not take the message in time.", _LATER),
    (5, 3): Explanation("The message had too many recipients at once.", "Please send it to fewer people at a time."),
    (6, 7): Explanation(
        "The message or one of its addresses has characters beyond ASCII that the mail server behind this address can't"
        " handle.",
        "Please use addresses and a subject in plain ASCII, or reach the person in another way.",
    ),
    (7, 10): Explanation(
        "The message was to be sent over encrypted connections only, and the mail server behind this address could not"
        " be reached over one that can be trusted.",
        _WITHOUT_TLS,
    ),
    (7, 30): Explanation(
        "The message was to be sent over encrypted connections only, and the mail server behind this address does not"
        " promise to go on like that.",
        _WITHOUT_TLS,
    ),
    (7, 20): Explanation("The message carries no valid signature (DKIM) of your mail service.", _YOUR_POSTMASTER),
    (7, 23): Explanation("Your mail service does not allow this way of sending for you (SPF).", _YOUR_POSTMASTER),
    (7, 26): Explanation("The message could not be proven to come from you (SPF and DKIM).", _YOUR_POSTMASTER),
    (7, 27): Explanation(
        "Your own address can't receive mail, and mail from such addresses is refused.", _YOUR_POSTMASTER
    ),
}


FAILED_BY_OPERATOR = "failed-by-operator"
"""The reason of an answer that no server gave: an operator of ours has ended the delivery. No code says that."""

OPERATORS_DECISION = Explanation(
    "The operator of this mail server has given the message up.",
    "Please reach the person in another way, or ask the operator, at the address that this report comes from.",
)
"""What to say of that."""


def explain(status: str) -> Explanation:
    """The words for an enhanced status code, whatever its class. `status` comes from `registered_status`."""
    subject, detail = (int(number) for number in status.split(".")[1:])
    return _BY_CODE.get((subject, detail)) or _BY_SUBJECT[subject]


def span_in_words(duration_ms: int) -> str:
    """About how long: `5 days`, `1 hour`, `20 minutes`."""
    for size, unit in ((DAY_MS, "day"), (HOUR_MS, "hour"), (MINUTE_MS, "minute")):
        # The larger unit only from two on, but for the smallest: "30 hours" says more than "1 day".
        if duration_ms >= 2 * size or size == MINUTE_MS:
            count = max(1, duration_ms // size)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    raise AssertionError("minutes end the search")
