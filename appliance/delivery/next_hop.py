"""Next hops for mail in transit: asked while a sender waits for the reply to RCPT, given the message at its final dot.

Nothing here stores or schedules: whatever goes wrong is an outcome for the sender, who keeps the message. One
transaction has one connection (and more only where the server takes fewer recipients at a time), made when it is first
asked for something, and not kept for another one: it stands idle for as long as the sender takes.

That may be longer than the server waits, or than others can: whoever waits for its sender has its place lent. Where the
connection is gone when the content is there, another one is made, once: up to the final dot nobody can have taken it.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

import trio

from appliance.delivery.attempt import Attempt
from appliance.delivery.connecting import ConnectionSettings, Reached
from appliance.delivery.courier import MAX_OTHER_OPINIONS
from appliance.delivery.holds import Holds
from appliance.delivery.reaching import Unreachable, Unsuitable, reach
from appliance.delivery.replies import outcome_of, wishes
from appliance.model.delivery import Deferred, Delivered, Delivery, Failed, Outcome
from appliance.model.time import Clock
from appliance.resolver import Resolver
from smtp.client.envelope import NO_UTF8_ADDRESS, NO_UTF8_HEADER
from smtp.client.trio_client import Lost, Stage
from smtp.reply import Reply

_logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 1000
"""At once, to all destinations. Each waits for a sender, and there may be many of them for each."""

GOODBYE_S = 2.0
"""For the reply to RSET, where a transaction comes to nothing. Nothing depends on it."""

MAX_GOODBYES = 200
"""Connections that are being ended in order. More than these are closed without a word: a server that answers no QUIT
must not keep any number of sockets open here."""

PLACE_S = 30.0
"""For a place, where all are taken. Most are given back within a second, so that a burst of mail to one destination
goes through; and who waits for the reply to RCPT has still most of its five minutes (RFC 5321 §4.5.3.2.3)."""

LOOK_AGAIN_S = 1.0
"""How often who waits for a place looks whether somebody has had enough time with one."""

SETTLED_S = 2.0
"""For so long a connection may wait for its sender before it has to make room for anybody; for a client with fewer, at
once. A small message has come by then. Whoever has several recipients here holds the places of the first ones while it
waits for the others': were it longer, two such could keep each other waiting."""


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
        self._places: dict[str, dict[NextHop, None]] = {}
        """By way: a destination, or the one way of all with a smarthost."""
        self._taken_in_all = 0
        self._lines: defaultdict[str, trio.lowlevel.ParkingLot] = defaultdict(trio.lowlevel.ParkingLot)
        """By way: who waits for a place."""
        self._goodbyes = 0

    def next_hop(self, destination: str, client: str) -> "NextHop":
        """A transaction with a server of this domain (lower case). It begins when something is asked.

        `client` is whom the sender's connection is counted as.
        """
        return NextHop(self, destination, client)

    def is_held(self, delivery: Delivery) -> bool:
        """Whether an operator keeps such mail back. There is no place for it here: its sender keeps it."""
        return self._holds.rule_for(delivery) is not None

    async def take_place(self, hop: "NextHop") -> bool:
        """Wait until there may be one more connection; False where there is no place in time: the sender comes again.

        Where all places are taken, one that waits for its sender makes room. So nobody closes a destination to all
        others by being slow, and who is slow loses nothing by it but the time for another connection.
        """
        way = self._way(hop.destination)
        with trio.move_on_after(PLACE_S):
            while not self._takes_place(hop, way):
                with trio.move_on_after(LOOK_AGAIN_S):
                    await self._lines[way].park()
            return True
        return False

    def _takes_place(self, hop: "NextHop", way: str) -> bool:
        here = self._places.get(way, {})
        if len(here) >= self._max_per_destination:
            leaving = _who_makes_room(here, hop.client)
        elif self._taken_in_all >= MAX_CONNECTIONS:
            leaving = _who_makes_room([each for places in self._places.values() for each in places], hop.client)
        else:
            leaving = hop
        if leaving is None:
            return False
        if leaving is not hop:
            leaving.make_room()
        self._places.setdefault(way, {})[hop] = None
        self._taken_in_all += 1
        return True

    def give_place_back(self, hop: "NextHop") -> None:
        """A connection has ended."""
        way = self._way(hop.destination)
        del self._places[way][hop]
        self._taken_in_all -= 1
        if not self._places[way]:
            del self._places[way]
        if way in self._lines:
            self._lines[way].unpark()
            if not self._lines[way]:
                del self._lines[way]

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

    @property
    def other_opinions(self) -> int:
        """How many further hosts may be asked. A smarthost is all that there is."""
        return 0 if self._settings.smarthost is not None else MAX_OTHER_OPINIONS

    def say_goodbye(self, reached: Reached) -> None:
        """End a connection without waiting for it."""
        if self._goodbyes >= MAX_GOODBYES:
            reached.connection.aclose()
            return
        self._goodbyes += 1
        self._background.start_soon(self._say_goodbye, reached)

    async def _say_goodbye(self, reached: Reached) -> None:
        try:
            with trio.move_on_after(GOODBYE_S):
                await reached.connection.reset()
            await reached.connection.quit()
        except Exception as error:  # noqa: BLE001  a defect in what nobody waits for must not end everything
            _logger.error("a connection was not ended in order: %s", type(error).__name__)
            reached.connection.aclose()
        finally:
            self._goodbyes -= 1

    def _way(self, destination: str) -> str:
        return "" if self._settings.smarthost is not None else destination


class _Gone(Exception):
    """The connection has ended, and the server can't have taken the message."""

    def __init__(self, outcome: Deferred) -> None:
        super().__init__(outcome.answer.text)
        self.outcome = outcome


class NextHop:
    """One transaction with one server (`appliance.reception.transit.NextHop`)."""

    def __init__(self, hops: NextHops, destination: str, client: str) -> None:
        self.destination = destination
        self.client = client
        self.waiting_since: float | None = None
        """When it began to wait for the sender (Trio's clock); None while it is busy."""
        self._hops = hops
        self._attempt = hops.attempt()
        self._reached: Reached | None = None
        self._has_place = False
        self._utf8 = False
        self._taken: list[str] = []
        """The ids of the deliveries that the server would take."""
        self._rest: NextHop | None = None
        """Another transaction for those that it would not take in this one."""
        self._in_rest: frozenset[str] = frozenset()
        """The ids of those deliveries."""

    async def ask(self, deliveries: Sequence[Delivery]) -> list[Deferred | Failed | None]:
        """MAIL, and RCPT for each; None for those that the server would take. They share sender and needs."""
        if any(map(self._hops.is_held, deliveries)):
            text = "mail like this is held by the operator"
            return [Deferred(self._attempt.told(0, "4.3.2", "held", text, None))] * len(deliveries)
        answers = await self._connect_and_ask(deliveries)
        self.waiting_since = trio.current_time()
        return await self._ask_for_the_rest(deliveries, answers)

    async def send(self, deliveries: Sequence[Delivery], content: Sequence[bytes]) -> list[Outcome]:
        """The message, for these of those that were taken. Returns when the server has answered the final dot.

        Cancelled, it closes the connection; what has been sent may be delivered then, or not (P3).
        """
        self.waiting_since = None
        outcomes: dict[str, Outcome] = {}

        async def send(each: NextHop, share: list[Delivery]) -> None:
            try:
                answers = await (each._send(share, content) if each is self else each.send(share, content))
            finally:
                # At once: others of the same transaction may wait for the place.
                each._end()
            outcomes.update((delivery.id, answer) for delivery, answer in zip(share, answers, strict=True))

        async with trio.open_nursery() as nursery:
            for each, is_rest in ((self, False), (self._rest, True)):
                share = [delivery for delivery in deliveries if (delivery.id in self._in_rest) is is_rest]
                if each is not None and share:
                    nursery.start_soon(send, each, share)
        return [outcomes[delivery.id] for delivery in deliveries]

    def leave(self) -> None:
        """Nothing more is wanted: without a final dot nothing comes of the message. May be called again."""
        if self._rest is not None:
            self._rest.leave()
        self._end()

    def make_room(self) -> None:
        """Others need the place. Only where it waits for its sender."""
        self._give_place_back()
        if self._reached is not None:
            reached, self._reached = self._reached, None
            reached.connection.aclose()

    def _end(self) -> None:
        self._give_place_back()
        if self._reached is not None:
            reached, self._reached = self._reached, None
            self._hops.say_goodbye(reached)

    def _give_place_back(self) -> None:
        if self._has_place:
            self._has_place = False
            self._hops.give_place_back(self)

    # ------------------------------------------------------------------ the envelope

    async def _connect_and_ask(self, deliveries: Sequence[Delivery]) -> list[Deferred | Failed | None]:
        if not self._has_place and not await self._hops.take_place(self):
            text = "there are as many connections to the destination as there may be"
            return [Deferred(self._attempt.told(0, "4.4.5", "too-many-connections", text, None))] * len(deliveries)
        self._has_place = True
        refused = await self._begin(deliveries)
        if refused is not None:
            return [refused] * len(deliveries)
        try:
            return await self._ask_for(deliveries)
        except _Gone as gone:
            return [gone.outcome] * len(deliveries)

    async def _ask_for_the_rest(
        self, deliveries: Sequence[Delivery], answers: list[Deferred | Failed | None]
    ) -> list[Deferred | Failed | None]:
        """RFC 5321 §4.5.3.1.10 and RFC 9422 §4: who takes no more recipients at a time takes them in a transaction of
        their own, at least one less than there were. To the sender they may be one recipient."""
        if not self._taken:
            return answers
        rest = [each for each, answer in zip(deliveries, answers, strict=True) if answer and _is_surplus(answer)]
        if not rest:
            return answers
        self._rest = self._hops.next_hop(self.destination, self.client)
        self._in_rest = frozenset(delivery.id for delivery in rest)
        told = iter(await self._rest.ask(rest))
        return [
            next(told) if each.id in self._in_rest else answer for each, answer in zip(deliveries, answers, strict=True)
        ]

    async def _begin(self, deliveries: Sequence[Delivery]) -> Deferred | Failed | None:
        """Connect and say MAIL. None where the server goes on."""
        asked: list[str] = []
        said: Deferred | Failed | None = None
        while True:
            try:
                reached = await self._hops.reach(
                    self.destination, self._attempt, required=deliveries[0].require_tls, without=asked
                )
            except (Unreachable, Unsuitable) as error:
                return said or error.outcome
            if self._reached is not None:
                self._hops.say_goodbye(self._reached)
            self._reached = reached
            try:
                refused = await self._say_mail(reached, deliveries)
            except _Gone as gone:
                refused = gone.outcome
            if refused is None:
                return None
            # Who may take it later is waited for.
            if said is None or (isinstance(said, Failed) and isinstance(refused, Deferred)):
                said = refused
            # RFC 5321 §5.1: where one host does not take a message, the next is tried. What is said to MAIL is the word
            # of one host about the transaction, and not of the domain about a recipient.
            if len(asked) == self._hops.other_opinions:
                return said
            asked.append(reached.at.host)

    async def _say_mail(self, reached: Reached, deliveries: Sequence[Delivery]) -> Deferred | Failed | None:
        """Raises _Gone."""
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
                # What comes back is read for its codes, and for whom it is about: nobody needs the message.
                ret="HDRS" if first.return_path else None,
            )
        except Lost as lost:
            raise _Gone(self._lost(lost, reached)) from None
        return _unless_delivered(self._outcome(reply, reached))

    async def _ask_for(self, deliveries: Sequence[Delivery]) -> list[Deferred | Failed | None]:
        """Raises _Gone."""
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
                raise _Gone(self._lost(lost, reached)) from None
            answer = _unless_delivered(self._outcome(reply, reached))
            answers.append(answer)
            if answer is None:
                self._taken.append(delivery.id)
        return answers

    # ------------------------------------------------------------------ the content

    async def _send(self, deliveries: Sequence[Delivery], content: Sequence[bytes]) -> list[Outcome]:
        self._attempt = self._hops.attempt()
        try:
            return await self._hand_over(deliveries, content)
        except _Gone as gone:
            first = gone.outcome
        answers = await self._connect_and_ask(deliveries)
        outcomes: dict[str, Outcome] = {
            each.id: answer for each, answer in zip(deliveries, answers, strict=True) if answer is not None
        }
        left = [delivery for delivery in deliveries if delivery.id not in outcomes]
        if left:
            try:
                sent = await self._hand_over(left, content)
            except _Gone:
                sent = [first] * len(left)
            outcomes.update((delivery.id, outcome) for delivery, outcome in zip(left, sent, strict=True))
        return [outcomes[delivery.id] for delivery in deliveries]

    async def _hand_over(self, deliveries: Sequence[Delivery], content: Sequence[bytes]) -> list[Outcome]:
        """Over the connection that there is. Raises _Gone."""
        reached = self._reached
        if reached is None:
            text = "the connection to the destination was given to another"
            raise _Gone(Deferred(self._attempt.told(0, "4.4.5", "too-many-connections", text, None)))
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
                reply = await reached.connection.send_content(content)
            except Lost as lost:
                if lost.stage is not Stage.END_OF_DATA:
                    raise _Gone(self._lost(lost, reached)) from None
                outcome: Outcome = self._lost(lost, reached)
            else:
                outcome = self._outcome(reply, reached)
                if reply.code == 421 and isinstance(outcome, Deferred):
                    # RFC 5321 §3.8: it has had enough of this connection, and that may be for our sender's slowness.
                    raise _Gone(outcome)
            outcomes.update((delivery.id, outcome) for delivery in left)
        return [outcomes[delivery.id] for delivery in deliveries]

    def _outcome(self, reply: Reply, reached: Reached) -> Outcome:
        return self._hops.outcome(reply, self._attempt, reached)

    def _lost(self, lost: Lost, reached: Reached) -> Deferred:
        text = f"the connection was lost at {lost.stage.value}: {lost.reason}"
        return Deferred(self._attempt.told(0, "4.4.2", "connection-lost", text, reached))


def _who_makes_room(taken: Collection[NextHop], client: str) -> NextHop | None:
    """Of those that wait for their sender, one of the client with the most, the one that has waited longest. None where
    nobody has more than this client would have, nor has had its time."""
    now = trio.current_time()
    held = Counter(hop.client for hop in taken)
    longest: dict[NextHop, float] = {
        hop: now - hop.waiting_since
        for hop in taken
        if hop.waiting_since is not None
        and (now - hop.waiting_since >= SETTLED_S or held[hop.client] > held[client] + 1)
    }
    return max(longest, key=lambda hop: (held[hop.client], longest[hop]), default=None)


def _is_surplus(answer: Deferred | Failed) -> bool:
    return (answer.answer.code, answer.answer.enhanced_code) == (452, "4.5.3")


def _unless_delivered(outcome: Outcome) -> Deferred | Failed | None:
    return None if isinstance(outcome, Delivered) else outcome
