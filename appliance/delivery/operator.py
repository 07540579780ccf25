"""The queue as an operator sees and steers it.

Changes run in the spool's writing thread, where nobody else can claim or settle in between: what they find WAITING is
still waiting when they change it. They go page by page, so that mail flows on in between, whatever the length of the
queue. What the scheduler has in memory is called back; a delivery that a courier has begun with can't be.

A change that the store interrupts leaves done what was done by then; the same change again goes on from there.
"""

import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import trio
from msgspec import structs

from appliance.delivery.holds import HELD_BY_ACCOUNT, HELD_BY_OPERATOR, RELEASED, Holds, held_for, normalised
from appliance.delivery.relay_connections import RelayConnections
from appliance.delivery.schedule import RetrySchedule
from appliance.delivery.scheduler import Scheduler
from appliance.delivery.settlement import Settler
from appliance.logbook.live import LiveStream
from appliance.model.delivery import Answer, Delivery, DeliveryState, Failed, Recipient
from appliance.model.hold import Hold, folded
from appliance.reports.explanations import FAILED_BY_OPERATOR
from appliance.spool.clocks import Clocks
from appliance.spool.spool import Spool
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import AddHold, Complete, Keep, LeaseLost, LiftHold, Operation, SpoolStore
from smtp.address import ascii_domain

PAGE = 250
"""Deliveries that are looked at in one go: some tens of milliseconds in the writing thread, for which mail waits."""

REPORTED_AT_ONCE = 25
"""Deliveries whose end is written down in one go: each report may have a whole message of 64 KiB in it."""

LOOKING_AT_ONCE = 2
"""Who may look through the queue at the same time. It may be long, and mail goes on meanwhile."""

FINISH_RETRY_S = 1.0
"""How long to wait where the store is away while what was interrupted is finished."""

GIVING_UP = "the operator has given it up, and the report is not written yet; to say so again writes it"
"""`Delivery.held_for` between the two steps of `QueueOperator.fail`."""

# RFC 3463 §3.4, X.3.0: "something about the system has caused the generation of this DSN", which to the sender is the
# system that has taken the mail, and its administrator's affair. Not X.7.1: nobody lacks a permission. Not X.0.0: that
# is for who does not know what happened.
_GIVEN_UP = Failed(Answer(0, "5.3.0", FAILED_BY_OPERATOR, "the operator has given it up"))

_Change = Callable[[Delivery], Operation | None]
"""What becomes of a delivery; None where it stays as it is."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class QueueFilter:
    """Which deliveries are meant: those for which everything that is set is true. Case does not matter."""

    domain: str | None = None
    """The domain that was written to."""
    destination: str | None = None
    """The domain of the mailbox."""
    sender: str | None = None
    """Empty for the null reverse-path."""
    recipient: str | None = None
    id: str | None = None
    """Of the delivery, or of the message."""
    state: DeliveryState | None = None
    within: Mapping[str, str] | None = None
    """The domains of one account, ids by name, who asks for nobody else's mail. None: an operator asks."""

    def matches(self, delivery: Delivery) -> bool:
        """Whether this delivery is meant; of one account's, one that is for this account among others."""
        recipients = [folded(recipient.address) for recipient in delivery.recipients]
        return (
            (self.id is None or self.id in (delivery.id, delivery.message_id))
            and (self.state is None or self.state is delivery.state)
            and (self.sender is None or folded(self.sender) == folded(delivery.sender))
            and (self.destination is None or ascii_domain(self.destination) == delivery.target.key[1])
            and (self.recipient is None or folded(self.recipient) in recipients)
            and (
                self.domain is None
                or any(address.rpartition("@")[2] == ascii_domain(self.domain) for address in recipients)
            )
            and (self.within is None or any(self._is_own(recipient) for recipient in delivery.recipients))
        )

    def reaches(self, delivery: Delivery) -> bool:
        """Whether this delivery is meant and may be changed: an account must not change what is for others, too."""
        return self.matches(delivery) and all(self._is_own(recipient) for recipient in delivery.recipients)

    def shown(self, delivery: Delivery) -> list[str]:
        """To whom it is addressed, as far as whoever asks may know."""
        return [recipient.address for recipient in delivery.recipients if self._is_own(recipient)]

    def sees(self, rule: Hold) -> bool:
        """Whether whoever asks may know of this rule."""
        return self.within is None or rule.domain in self.within

    def may_lift(self, rule: Hold) -> bool:
        """Whether whoever asks may lift this rule: an account only what an account has set."""
        return self.sees(rule) and (self.within is None or rule.by_account)

    def may_release(self, delivery: Delivery) -> bool:
        """Whether whoever asks may let this go: an account not what an operator has held."""
        return self.within is None or not delivery.held_for.startswith(HELD_BY_OPERATOR)

    def _is_own(self, recipient: Recipient) -> bool:
        # By the id: the name of a domain that was given up may be somebody else's by now, and its mail is not.
        return self.within is None or recipient.domain_id in self.within.values()

    def as_rule(self, id: str, created_at: int) -> Hold | None:
        """The hold that says the same of mail to come; None where a hold can't say it, or nothing is set."""
        if not (self.domain or self.destination or self.sender is not None) or self._is_narrower_than_rules:
            return None
        by_account = self.within is not None
        return normalised(Hold(id, created_at, self.domain or "", self.destination or "", self.sender, by_account))

    def covers(self, rule: Hold) -> bool:
        """Whether all that the rule holds is meant."""
        return (
            not self._is_narrower_than_rules
            and self.may_lift(rule)
            and (self.domain is None or ascii_domain(self.domain) == rule.domain)
            and (self.destination is None or ascii_domain(self.destination) == rule.destination)
            and (self.sender is None or folded(self.sender) == rule.sender)
        )

    @property
    def _is_narrower_than_rules(self) -> bool:
        return not (self.recipient is None and self.id is None and self.state is None)


EVERYTHING = QueueFilter()


class QueueOperator:
    """Lists, retries, holds, releases, fails and drops deliveries. Changes go one after the other."""

    def __init__(
        self,
        spool: Spool,
        scheduler: Scheduler,
        settler: Settler,
        holds: Holds,
        live: LiveStream,
        schedule: RetrySchedule,
        clocks: Clocks,
        relay: RelayConnections | None = None,
    ) -> None:
        """`relay`: the connections to the smarthost, where there is one."""
        self._spool = spool
        self._scheduler = scheduler
        self._settler = settler
        self._holds = holds
        self._live = live
        self._schedule = schedule
        self._clocks = clocks
        self._relay = relay
        self._changing = trio.Lock()
        self._looking = trio.Semaphore(LOOKING_AT_ONCE)

    # ------------------------------------------------------------------ looking

    async def page(self, wanted: QueueFilter, after: str | None, limit: int) -> list[Mapping[str, Any]]:
        """The deliveries that are meant behind a delivery's id, at most so many, in the words of the API.

        It may have to look through the whole queue, and those who do so take turns. Raises StoreUnavailable.
        """
        shown: list[Mapping[str, Any]] = []
        async with self._looking, aclosing(self._matching(wanted, after)) as matching:
            async for delivery in matching:
                shown.append(self._shown(delivery, wanted))
                if len(shown) >= limit:
                    break
        return shown

    async def count(self, wanted: QueueFilter) -> int:
        """How many deliveries are meant. Raises StoreUnavailable."""
        if wanted == EVERYTHING:
            return (await trio.to_thread.run_sync(self._spool.store.depth))[0]
        counted = 0
        async with self._looking, aclosing(self._matching(wanted, None)) as matching:
            async for _ in matching:
                counted += 1
        return counted

    async def _matching(self, wanted: QueueFilter, after: str | None) -> AsyncGenerator[Delivery]:
        while True:
            found, after = await trio.to_thread.run_sync(_page, self._spool.store, wanted, after)
            for delivery in found:
                if wanted.matches(delivery):
                    yield delivery
            if after is None:
                return

    def holds(self, wanted: QueueFilter = EVERYTHING) -> Sequence[Hold]:
        """The rules in force that whoever asks may know of, the oldest first."""
        return [rule for rule in self._holds.rules if wanted.sees(rule)]

    # ------------------------------------------------------------------ changing

    async def retry(self, wanted: QueueFilter) -> int:
        """Make what waits due at once, and end the pauses of its destinations; returns how many deliveries that were.

        Raises StoreUnavailable.
        """
        now = self._clocks.steady()
        destinations: set[str] = set()

        def due_now(delivery: Delivery) -> Operation:
            destinations.add(delivery.target.key[1])
            return Keep(structs.replace(delivery, next_attempt_at=now))

        async with self._changing:
            affected = await self._change(wanted, {DeliveryState.WAITING}, due_now)
        if self._relay is not None:
            self._relay.try_again()
        self._scheduler.resume(destinations)
        return affected

    async def hold(self, wanted: QueueFilter) -> int:
        """Keep back what waits now; returns how many deliveries that were. Raises StoreUnavailable."""
        words = HELD_BY_OPERATOR if wanted.within is None else HELD_BY_ACCOUNT
        async with self._changing:
            return await self._change_all(wanted, {DeliveryState.WAITING}, _held(words))

    async def add_hold(self, wanted: QueueFilter) -> tuple[int, Hold] | None:
        """Keep back what waits and what will arrive; returns how many deliveries wait, and the rule.

        None where a rule can't say this filter, which is by domain, destination and sender alone; and where it would be
        about mail that is not of whoever asks. Raises StoreUnavailable.
        """
        async with self._changing:
            rule = await self._standing(wanted)
            if rule is None:
                return None
            return await self._change_all(wanted, {DeliveryState.WAITING}, _held(held_for(rule))), rule

    async def lift_hold(self, hold_id: str, wanted: QueueFilter) -> tuple[int, Hold] | None:
        """Lift one rule and let go what it has held; returns how many deliveries that were, and the rule.

        What another rule is about is held by that then. None where there is no such rule, or none that whoever asks
        may lift. Raises StoreUnavailable.
        """
        now = self._clocks.steady()
        async with self._changing:
            rule = next((rule for rule in self._holds.rules if rule.id == hold_id and wanted.may_lift(rule)), None)
            if rule is None:
                return None
            await self._lift([rule])
            words = held_for(rule)

            def released(delivery: Delivery) -> Operation | None:
                if delivery.held_for != words:
                    return None
                return Keep(structs.replace(delivery, state=DeliveryState.WAITING, next_attempt_at=now, held_for=""))

            affected = await self._change(EVERYTHING, {DeliveryState.HELD}, released)
        self._scheduler.wake()
        return affected, rule

    async def release(self, wanted: QueueFilter) -> tuple[int, int]:
        """Let go what is held, and lift the rules that are about nothing else.

        Returns how many deliveries and how many rules that were. What another rule is about goes too, but what arrives
        after it does not; what an operator holds, no account lets go. Raises StoreUnavailable.
        """
        now = self._clocks.steady()

        def released(delivery: Delivery) -> Operation | None:
            if not wanted.may_release(delivery):
                return None
            operators = None if wanted.within is None else self._holds.operators_rule_for(delivery)
            if operators is not None:
                return Keep(structs.replace(delivery, held_for=held_for(operators)))
            words = RELEASED if self._holds.rule_for(delivery) else ""
            return Keep(structs.replace(delivery, state=DeliveryState.WAITING, next_attempt_at=now, held_for=words))

        async with self._changing:
            # The rules first: the scheduler would hold again what was let go before.
            lifted = [rule for rule in self._holds.rules if wanted.covers(rule)]
            await self._lift(lifted)
            affected = await self._change(wanted, {DeliveryState.HELD}, released)
        self._scheduler.wake()
        return affected, len(lifted)

    async def fail(self, wanted: QueueFilter) -> int:
        """Give up what waits or is held, and tell the senders; returns how many deliveries. Raises StoreUnavailable.

        In two steps, because a report takes reading: what is held can't be claimed while its report is written. Where
        this is interrupted, it stays held until the same is said again, or until the next start (`finish`).
        """
        async with self._changing:
            await self._change_all(wanted, {DeliveryState.WAITING, DeliveryState.HELD}, _held(GIVING_UP))
            # Whatever they were, they are held now.
            return await self._fail_what_is_given_up(replace(wanted, state=None))

    async def finish(self) -> None:
        """Go on with what the run before was about to give up: nobody else would, and no sender would be told."""
        while True:
            try:
                async with self._changing:
                    states = await self._spool.committer.call(self._spool.store.states)
                    if states.get(DeliveryState.HELD):
                        await self._fail_what_is_given_up(QueueFilter(state=DeliveryState.HELD))
            except StoreUnavailable:
                await trio.sleep(FINISH_RETRY_S)
            except Exception:
                # A defect of ours, which the next start would meet again. It must not keep other mail from going.
                _logger.exception("what was given up could not be finished")
                return
            else:
                return

    async def drop(self, wanted: QueueFilter) -> int:
        """Erase what waits or is held, without a bounce; returns how many deliveries. Raises StoreUnavailable."""
        async with self._changing:
            return await self._change_all(
                wanted,
                {DeliveryState.WAITING, DeliveryState.HELD},
                lambda delivery: Complete(delivery.id, delivery.message_id),
            )

    async def _lift(self, rules: Sequence[Hold]) -> None:
        if rules:
            await self._spool.committer.commit([LiftHold(rule.id) for rule in rules])
        for rule in rules:
            self._holds.remove(rule.id)

    async def _standing(self, wanted: QueueFilter) -> Hold | None:
        """The rule in force that says this filter, new or not; None where none can, or may."""
        rule = wanted.as_rule(self._spool.new_id(), self._clocks.wall())
        if rule is None or not wanted.sees(rule):
            return None
        if (known := self._holds.same_as(rule)) is not None:
            return known
        await self._spool.committer.commit([AddHold(rule)])
        self._holds.add(rule)
        return rule

    async def _fail_what_is_given_up(self, wanted: QueueFilter) -> int:
        affected = 0
        after: str | None = None
        while True:
            found, after = await self._spool.committer.call(partial(_page, self._spool.store, wanted, after))
            given_up = [each for each in found if each.held_for == GIVING_UP and wanted.reaches(each)]
            for start in range(0, len(given_up), REPORTED_AT_ONCE):
                await self._fail(given_up[start : start + REPORTED_AT_ONCE])
            affected += len(given_up)
            if after is None:
                return affected

    async def _fail(self, deliveries: Sequence[Delivery]) -> None:
        settlements = [await self._settler.settle(delivery, _GIVEN_UP) for delivery in deliveries]
        try:
            await self._spool.committer.commit([each for settlement in settlements for each in settlement.operations])
        except LeaseLost as lost:
            # Another node was quicker with these.
            await self._fail([delivery for delivery in deliveries if delivery.id not in lost.delivery_ids])
            return
        self._settler.count(deliveries, settlements)
        self._live.publish([event for settlement in settlements for event in settlement.events])
        self._scheduler.wake()

    async def _change_all(self, wanted: QueueFilter, states: set[DeliveryState], change: _Change) -> int:
        """Change what is on the disk and what the scheduler has in memory."""
        # First, because couriers go on while we look through the disk; and again for what was claimed meanwhile.
        affected = await self._call_back(wanted, change)
        affected += await self._change(wanted, states, change)
        # The scheduler's task may have been woken together with us, with what it has claimed not yet in its hands.
        await trio.lowlevel.checkpoint()
        return affected + await self._call_back(wanted, change)

    async def _call_back(self, wanted: QueueFilter, change: _Change) -> int:
        withdrawn = self._scheduler.withdraw(wanted.reaches)
        for start in range(0, len(withdrawn), PAGE):
            changes = [change(delivery) for delivery in withdrawn[start : start + PAGE]]
            operations = [each for each in changes if each is not None]
            try:
                await self._commit_what_is_ours(operations)
            except StoreUnavailable:
                self._scheduler.give_back(withdrawn[start:])
                raise
        return len(withdrawn)

    async def _commit_what_is_ours(self, operations: Sequence[Operation]) -> None:
        while operations:
            try:
                await self._spool.committer.commit(operations)
            except LeaseLost as lost:
                operations = _without(operations, lost)
            else:
                return

    async def _change(self, wanted: QueueFilter, states: set[DeliveryState], change: _Change) -> int:
        """Change what is on the disk in one of these states."""
        store, call = self._spool.store, self._spool.committer.call
        after: str | None = None

        def change_those_meant(found: Iterable[Delivery]) -> int:
            changes = [change(delivery) for delivery in found if delivery.state in states and wanted.reaches(delivery)]
            operations = [each for each in changes if each is not None]
            while operations:
                try:
                    store.apply(operations)
                except LeaseLost as lost:
                    # Another node has claimed these since they were found.
                    operations = _without(operations, lost)
                else:
                    break
            return len(operations)

        def change_page() -> tuple[int, str | None]:
            found, following = _page(store, wanted, after)
            return change_those_meant(found), following

        def change_some(ids: Sequence[str]) -> int:
            return change_those_meant(each for each in map(store.delivery, ids) if each is not None)

        affected = 0
        if wanted.within is not None:
            # An account's few are found beforehand: mail need not wait while somebody looks through everybody's.
            async with self._looking, aclosing(self._matching(wanted, None)) as matching:
                ids = [delivery.id async for delivery in matching if delivery.state in states]
            for start in range(0, len(ids), PAGE):
                affected += await call(partial(change_some, ids[start : start + PAGE]))
            return affected
        while True:
            changed, after = await call(change_page)
            affected += changed
            if after is None:
                return affected

    # ------------------------------------------------------------------ showing

    def _shown(self, delivery: Delivery, wanted: QueueFilter) -> Mapping[str, Any]:
        waits = delivery.state is DeliveryState.WAITING
        return {
            "id": delivery.id,
            "messageId": delivery.message_id,
            "state": delivery.state.name,
            "sender": delivery.sender,
            "recipient": ", ".join(wanted.shown(delivery)),
            "destinationDomain": delivery.target.domain,
            "sizeBytes": delivery.size,
            "priority": delivery.priority,
            "acceptedAt": delivery.accepted_at,
            "attempts": delivery.attempts,
            "nextAttemptAt": self._clocks.on_the_wall(delivery.next_attempt_at) if waits else None,
            "expiresAt": delivery.accepted_at + self._schedule.give_up_after_ms,
            "lastResponse": delivery.last_response,
            "why": self._why(delivery),
        }

    def _why(self, delivery: Delivery) -> str:
        return delivery.held_for if delivery.state is DeliveryState.HELD else self._scheduler.why(delivery)


def _page(store: SpoolStore, wanted: QueueFilter, after: str | None) -> tuple[list[Delivery], str | None]:
    """Deliveries behind an id among which are those that are meant, and behind which to go on (None: no more)."""
    if wanted.within == {}:
        # An account without a verified domain has no mail: nobody looks through everybody's for that.
        return [], None
    if wanted.id is not None:
        # A delivery's, or a message's: both are known to an index, whether or not there is anything.
        delivery = store.delivery(wanted.id)
        named = store.deliveries_of(wanted.id) if delivery is None else [delivery]
        return [each for each in named if each.id > (after or "")], None
    found = store.deliveries(after, PAGE)
    return found, found[-1].id if len(found) == PAGE else None


def _without(operations: Iterable[Operation], lost: LeaseLost) -> list[Operation]:
    """What of these changes is about deliveries that no other node has taken over."""
    return [
        each
        for each in operations
        if not (
            (isinstance(each, Keep) and each.delivery.id in lost.delivery_ids)
            or (isinstance(each, Complete) and each.delivery_id in lost.delivery_ids)
        )
    ]


def _held(words: str) -> _Change:
    return lambda delivery: Keep(structs.replace(delivery, state=DeliveryState.HELD, held_for=words))
