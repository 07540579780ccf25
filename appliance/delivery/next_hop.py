"""Next hops for mail in transit: asked while a sender waits for the reply to RCPT, given the message at its final dot.

Nothing here stores, schedules or tries again: whatever goes wrong is an outcome for the sender, who keeps the message.
One transaction has one connection, made when it is first asked for something, and not kept for another one: it stands
idle for as long as the sender takes, which no two transactions could share.
"""

import logging
from collections import Counter
from collections.abc import Sequence

import trio

from appliance.delivery.attempt import Attempt
from appliance.delivery.connecting import ConnectionSettings, Reached
from appliance.delivery.holds import Holds
from appliance.delivery.reaching import Unreachable, Unsuitable, reach
from appliance.delivery.replies import outcome_of, wishes
from appliance.model.delivery import Deferred, Delivered, Delivery, Failed, Outcome
from appliance.model.time import Clock
from appliance.resolver import Resolver
from smtp.client.envelope import NO_UTF8_ADDRESS, NO_UTF8_HEADER
from smtp.client.trio_client import Lost
from smtp.reply import Reply

_logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 1000
"""At once, to all destinations. Each waits for a sender, and there may be many of them for each."""

GOODBYE_S = 2.0
"""For the reply to RSET, where a transaction comes to nothing. Nothing depends on it."""

MAX_OTHER_OPINIONS = 2
"""Further hosts that are asked where one refuses the transaction as a whole, as couriers do."""


class NextHops:
    """The connections of mail in transit."""

    def __init__(
        self,
        resolver: Resolver,
        settings: ConnectionSettings,
        clock: Clock,
        background: trio.Nursery,
        holds: Holds,
        max_per_destination: int,
    ) -> None:
        """`background` is where connections are ended that nobody waits for any more."""
        self._resolver = resolver
        self._settings = settings
        self._clock = clock
        self._background = background
        self._holds = holds
        self._max_per_destination = max_per_destination
        self._open: Counter[str] = Counter()
        """By way: a destination, or the one way of all with a smarthost."""
        self._open_in_all = 0

    def next_hop(self, destination: str) -> "NextHop":
        """A transaction with a server of this domain (lower case). It begins when something is asked."""
        return NextHop(self, destination)

    def is_held(self, delivery: Delivery) -> bool:
        """Whether an operator keeps such mail back. There is no place for it here: its sender keeps it."""
        return self._holds.rule_for(delivery) is not None

    def take_place(self, destination: str) -> bool:
        """Whether there may be one more connection. Otherwise the sender comes again: nobody waits in a line here, for
        those before would be slow senders, and not slow servers."""
        way = self._way(destination)
        if self._open[way] >= self._max_per_destination or self._open_in_all >= MAX_CONNECTIONS:
            return False
        self._open[way] += 1
        self._open_in_all += 1
        return True

    def give_place_back(self, destination: str) -> None:
        """A connection has ended."""
        way = self._way(destination)
        self._open[way] -= 1
        self._open_in_all -= 1
        if not self._open[way]:
            del self._open[way]

    async def reach(self, destination: str, attempt: Attempt, *, required: bool, without: Sequence[str]) -> Reached:
        """Connect. Raises Unreachable, and Unsuitable where `required`."""
        # By DATA: BDAT has nothing to offer to content that is there as a whole, and may have to be taken back.
        return await reach(
            destination, self._resolver, self._settings, attempt, required=required, chunking=False, without=without
        )

    def attempt(self) -> Attempt:
        """One attempt begins."""
        return Attempt(self._clock)

    def outcome(self, reply: Reply, attempt: Attempt, reached: Reached) -> Outcome:
        """What a reply comes to."""
        return outcome_of(reply, attempt, reached, self._settings)

    def say_goodbye(self, reached: Reached) -> None:
        """End a connection without waiting for it."""
        self._background.start_soon(_say_goodbye, reached)

    def _way(self, destination: str) -> str:
        return "" if self._settings.smarthost is not None else destination


class NextHop:
    """One transaction with one server (`appliance.reception.transit.NextHop`)."""

    def __init__(self, hops: NextHops, destination: str) -> None:
        self._hops = hops
        self._destination = destination
        self._attempt = hops.attempt()
        self._reached: Reached | None = None
        self._has_place = False
        self._utf8 = False
        self._taken: list[str] = []
        """The ids of the deliveries that the server would take."""

    async def ask(self, deliveries: Sequence[Delivery]) -> list[Deferred | Failed | None]:
        """MAIL, and RCPT for each; None for those that the server would take. They share sender and needs."""
        if any(map(self._hops.is_held, deliveries)):
            text = "mail like this is held by the operator"
            return [Deferred(self._attempt.told(0, "4.3.2", "held", text, None))] * len(deliveries)
        if not self._hops.take_place(self._destination):
            text = "there are as many connections to the destination as there may be"
            return [Deferred(self._attempt.told(0, "4.4.5", "too-many-connections", text, None))] * len(deliveries)
        self._has_place = True
        refused = await self._begin(deliveries)
        if refused is not None:
            return [refused] * len(deliveries)
        return await self._ask_for(deliveries)

    async def send(self, deliveries: Sequence[Delivery], content: Sequence[bytes]) -> list[Outcome]:
        """The message, for these of those that were taken. Returns when the server has answered the final dot.

        Cancelled, it closes the connection; what has been sent may be delivered then, or not (P3).
        """
        self._attempt = self._hops.attempt()
        reached = self._reached
        assert reached is not None, "only what was asked for can be sent"
        if any(delivery.utf8 for delivery in deliveries) and not self._utf8:
            return [self._outcome(NO_UTF8_HEADER, reached)] * len(deliveries)
        left: list[Delivery] = list(deliveries)
        outcomes: dict[str, Outcome] = {}
        if {delivery.id for delivery in deliveries} != set(self._taken):
            # Some have it already. RCPT can't be taken back one by one.
            await reached.connection.reset()
            refused = await self._say_mail(reached, deliveries)
            answers = [refused] * len(deliveries) if refused else await self._ask_for(deliveries)
            outcomes = {each.id: answer for each, answer in zip(deliveries, answers, strict=True) if answer is not None}
            left = [delivery for delivery in deliveries if delivery.id not in outcomes]
        if left:
            try:
                outcome = self._outcome(await reached.connection.send_content(content), reached)
            except Lost as lost:
                outcome = self._lost(lost, reached)
            outcomes.update((delivery.id, outcome) for delivery in left)
        return [outcomes[delivery.id] for delivery in deliveries]

    def leave(self) -> None:
        """Nothing more is wanted: without a final dot nothing comes of the message. May be called again."""
        if self._has_place:
            self._has_place = False
            self._hops.give_place_back(self._destination)
        if self._reached is not None:
            reached, self._reached = self._reached, None
            self._hops.say_goodbye(reached)

    # ------------------------------------------------------------------ the envelope

    async def _begin(self, deliveries: Sequence[Delivery]) -> Deferred | Failed | None:
        """Connect and say MAIL. None where the server goes on."""
        asked: list[str] = []
        said: Deferred | Failed | None = None
        while True:
            try:
                reached = await self._hops.reach(
                    self._destination, self._attempt, required=deliveries[0].require_tls, without=asked
                )
            except (Unreachable, Unsuitable) as error:
                return said or error.outcome
            if self._reached is not None:
                self._hops.say_goodbye(self._reached)
            self._reached = reached
            refused = await self._say_mail(reached, deliveries)
            # RFC 5321 §5.1: where one host does not take a message, the next is tried. A 5xx to MAIL is the word of one
            # host about the transaction, and not of the domain about a recipient.
            if not isinstance(refused, Failed) or len(asked) == MAX_OTHER_OPINIONS:
                return refused
            said = said or refused
            asked.append(reached.at.host)

    async def _say_mail(self, reached: Reached, deliveries: Sequence[Delivery]) -> Deferred | Failed | None:
        first = deliveries[0]
        # What a sender says of UTF-8 may turn out not to be so; what an address needs, it needs.
        may_need = any(delivery.utf8 for delivery in deliveries)
        self._utf8 = may_need and "SMTPUTF8" in reached.connection.extensions
        if not self._utf8 and not all(each.target.local_part.isascii() for each in deliveries):
            return _unless_delivered(self._outcome(NO_UTF8_ADDRESS, reached))
        try:
            reply = await reached.connection.begin(
                first.return_path,
                size=first.size or None,
                eight_bit=False,
                utf8=self._utf8,
                require_tls=first.require_tls,
            )
        except Lost as lost:
            return self._lost(lost, reached)
        return _unless_delivered(self._outcome(reply, reached))

    async def _ask_for(self, deliveries: Sequence[Delivery]) -> list[Deferred | Failed | None]:
        reached = self._reached
        assert reached is not None
        self._taken = []
        answers: list[Deferred | Failed | None] = []
        for delivery in deliveries:
            try:
                # (What is asked for here is left out where the server has no DSN.)
                reply = await reached.connection.ask_recipient(str(delivery.target), wishes(delivery))
            except Lost as lost:
                self._taken = []
                return [self._lost(lost, reached)] * len(deliveries)
            answer = _unless_delivered(self._outcome(reply, reached))
            answers.append(answer)
            if answer is None:
                self._taken.append(delivery.id)
        return answers

    def _outcome(self, reply: Reply, reached: Reached) -> Outcome:
        return self._hops.outcome(reply, self._attempt, reached)

    def _lost(self, lost: Lost, reached: Reached) -> Deferred:
        text = f"the connection was lost at {lost.stage.value}: {lost.reason}"
        return Deferred(self._attempt.told(0, "4.4.2", "connection-lost", text, reached))


async def _say_goodbye(reached: Reached) -> None:
    try:
        with trio.move_on_after(GOODBYE_S):
            await reached.connection.reset()
        await reached.connection.quit()
    except Exception as error:  # noqa: BLE001  a defect in what nobody waits for must not end everything
        _logger.error("a connection was not ended in order: %s", type(error).__name__)
        reached.connection.aclose()


def _unless_delivered(outcome: Outcome) -> Deferred | Failed | None:
    return None if isinstance(outcome, Delivered) else outcome
