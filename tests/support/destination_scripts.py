"""What a scripted server says, and when: the words in which a test tells a destination how to behave.

A script is asked at each stage of each conversation. `always`, `sometimes` and `first_of` make the usual ones.
"""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Stage(Enum):
    """Where in the conversation an answer is due."""

    GREETING = "greeting"
    EHLO = "ehlo"
    HELO = "helo"
    STARTTLS = "starttls"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    END_OF_DATA = "end of data"
    OTHER = "other"
    """RSET, NOOP, QUIT and anything else."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What is known when an answer is due."""

    stage: Stage
    address: str
    """The server's own: one script may speak for several servers."""
    sender: str = ""
    recipient: str = ""
    """The one of this RCPT."""
    recipients: tuple[str, ...] = ()
    """Those accepted so far."""
    content: bytes = b""
    """At the end of data: the message."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said in place of the usual answer, and done after."""

    code: int = 0
    """0: nothing is said."""
    text: str = ""
    close: bool = False
    """Close the connection after it."""
    stall: float = 0
    """Wait this many seconds before it, or until the server is stopped. With nothing else: the usual answer follows."""


CLOSE = Answer(close=True)

Script = Callable[[Moment], Answer | None]
"""What to say at a moment; None: the usual."""


def always(stage: Stage, answer: Answer, *, recipient: str | None = None, times: int | None = None) -> Script:
    """Give this answer at a stage: for every recipient or one, every time or so often."""
    lock = threading.Lock()
    given = 0

    def script(moment: Moment) -> Answer | None:
        nonlocal given
        if moment.stage is not stage:
            return None
        if recipient is not None and recipient != moment.recipient and recipient not in moment.recipients:
            return None
        with lock:
            if times is not None and given >= times:
                return None
            given += 1
        return answer

    return script


def sometimes(stage: Stage, answer: Answer, probability: float, seed: int) -> Script:
    """Give this answer at a stage with a probability; the same seed draws the same lots."""
    lots = random.Random(seed)
    lock = threading.Lock()

    def script(moment: Moment) -> Answer | None:
        if moment.stage is not stage:
            return None
        with lock:
            return answer if lots.random() < probability else None

    return script


def first_of(*scripts: Script) -> Script:
    """What the first script says that says anything."""

    def script(moment: Moment) -> Answer | None:
        for each in scripts:
            if (answer := each(moment)) is not None:
                return answer
        return None

    return script
