"""A client's commands on their way: which wait to be written, which wait to be sent, and whose replies are due.

Replies come in the order of the commands (RFC 2920 §3.1), so the stages whose replies are due are kept in a row. A
command whose octets are still here cannot have been answered: a server that guesses what it will be asked must not have
its replies taken for answers, least of all to content that it has not seen.
"""

from collections import deque

from smtp.client.sequence import Stage
from smtp.trace import Trace


class Pipeline:
    """The commands of one session. It begins with the greeting, which no command asks for."""

    __slots__ = ("_outgoing", "_trace", "_unsent", "at_once", "due", "waiting")

    def __init__(self, trace: Trace | None) -> None:
        self.at_once = 1
        """How many replies may be due at once."""
        self.due: deque[Stage] = deque((Stage.GREETING,))
        """The stages whose replies have yet to come, in order, whether their commands were sent or not."""
        self.waiting: deque[tuple[Stage, bytes]] = deque()
        """The commands that are to be written, without their CRLFs."""
        self._trace = trace
        self._outgoing = bytearray()
        # So many of the stages that are due, the last ones, have octets in what goes out.
        self._unsent = 0

    @property
    def awaited(self) -> Stage | None:
        """What the next reply belongs to; None where nothing that was asked is unanswered."""
        return self.due[0] if len(self.due) > self._unsent else None

    @property
    def all_sent(self) -> bool:
        """Whether no command that is written waits to be sent."""
        return self._unsent == 0

    @property
    def full(self) -> bool:
        """Whether a reply has to come before more may be written."""
        return len(self.due) >= self.at_once

    @property
    def unsent_octets(self) -> int:
        """How many octets wait to be sent."""
        return len(self._outgoing)

    def write(self) -> None:
        """Write what may be written before the next reply."""
        due, waiting = self.due, self.waiting
        while waiting and len(due) < self.at_once:
            stage, line = waiting.popleft()
            due.append(stage)
            self._unsent += 1
            self._outgoing += line + b"\r\n"
            if self._trace is not None:
                self._trace(">", "(a line of the login)" if stage is Stage.AUTH else line.decode("utf-8"))

    def say(self, stage: Stage, octets: bytes) -> None:
        """Write these, to which a reply is due."""
        self.due.append(stage)
        self._unsent += 1
        self._outgoing += octets

    def append(self, octets: bytes) -> None:
        """Write these, to which nothing will be said."""
        self._outgoing += octets

    def octets_to_send(self) -> bytes:
        """All that was written since the last call."""
        octets = bytes(self._outgoing)
        self._outgoing.clear()
        self._unsent = 0
        return octets

    def forget(self) -> None:
        """Nothing more is asked, and no reply is due."""
        self.waiting.clear()
        self.due.clear()
        self._outgoing.clear()
        self._unsent = 0
