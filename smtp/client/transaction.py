"""What is known of each recipient of one message while the replies come in.

One that is taken step by step has a single result, for all who were accepted; what is said to each recipient its caller
hears at once.
"""

from collections import deque
from collections.abc import Sequence

from smtp.client.envelope import NO_UTF8_ADDRESS, TOO_MANY_RECIPIENTS, choose_recipients
from smtp.client.events import Done, Result
from smtp.client.extensions import NO_LIMITS, Limits
from smtp.client.sequence import Stage
from smtp.reply import Reply


class Transaction:
    """The recipients of one message, by index, from MAIL up to the reply to the end of data."""

    __slots__ = ("_accepted", "_asked", "_recipients", "_results", "by_steps", "utf8")

    def __init__(self, number: int, asked: Sequence[int]) -> None:
        """So many recipients, of whom the server is asked for those with these indices."""
        self._results: list[Result | None] = [None] * number
        if len(asked) < number:
            self._results = [Result(TOO_MANY_RECIPIENTS, Stage.LOCAL)] * number
            for index in asked:
                self._results[index] = None
        self._asked = deque(asked)
        self._accepted: list[int] = []
        self.by_steps = False
        """Whether the caller waits for each reply."""
        self.utf8 = False
        """Step by step: whether an address may have more than ASCII in it."""
        # Step by step, where the server has limits: whom it has been asked for.
        self._recipients: list[str] = []

    @classmethod
    def step_by_step(cls, *, utf8: bool) -> "Transaction":
        """One whose recipients come one by one. `utf8` is whether MAIL says SMTPUTF8."""
        transaction = cls(1, (0,))
        transaction.by_steps = True
        transaction.utf8 = utf8
        return transaction

    @property
    def accepted(self) -> bool:
        """Whether any recipient is."""
        return bool(self._accepted)

    @property
    def undecided(self) -> bool:
        """Whether anybody has no result yet."""
        return None in self._results

    def ask(self, recipient: str, limits: Limits) -> Reply | None:
        """One more recipient, step by step. Returns what is said to it where the server is not to be asked."""
        if not self.utf8 and not recipient.rpartition("@")[0].isascii():
            return NO_UTF8_ADDRESS
        if limits is not NO_LIMITS:
            asked = [*self._recipients, recipient]
            if len(choose_recipients(asked, limits)) < len(asked):
                return TOO_MANY_RECIPIENTS
            self._recipients = asked
        return None

    def take_recipient(self, reply: Reply) -> None:
        """The reply to the RCPT that is first in line."""
        if self.by_steps:
            if reply.positive:
                self._accepted = [0]
            return
        index = self._asked.popleft()
        # Where there is a result already, MAIL was refused, and that is the reason.
        if self._results[index] is None:
            if reply.positive:
                self._accepted.append(index)
            else:
                self._results[index] = Result(reply, Stage.RCPT)

    def decide(self, reply: Reply, stage: Stage) -> None:
        """This becomes of those who were accepted."""
        for index in self._accepted:
            self._results[index] = Result(reply, stage)

    def end(self, reply: Reply, stage: Stage) -> None:
        """This becomes of all who have no result."""
        self._results = [result or Result(reply, stage) for result in self._results]

    def done(self) -> Done:
        """What became of all of them."""
        return Done(tuple(filter(None, self._results)))
