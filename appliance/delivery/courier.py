"""One connection's worth of work.

Messages of one destination, one after the other, and an outcome for each delivery.
"""

from collections.abc import AsyncIterable, Callable, Iterable, Sequence

from appliance.delivery.attempt import Attempt
from appliance.delivery.connecting import ConnectionSettings, Reached, keeps_the_promise
from appliance.delivery.reaching import Unreachable, Unsuitable, reach
from appliance.delivery.relay_connections import Kept, RelayConnections
from appliance.delivery.replies import outcome_of, wishes
from appliance.model.delivery import Deferred, Delivery, Failed, Outcome
from appliance.model.time import Clock
from appliance.resolver import Resolver
from appliance.storage.records import StoreUnavailable
from smtp.client.trio_client import ChunkingRefused, Lost, Result, Stage

__all__ = ["MAX_MESSAGES_PER_CONNECTION", "MAX_OTHER_OPINIONS", "Content", "Courier", "Unreachable"]

MAX_MESSAGES_PER_CONNECTION = 1000
"""After as many messages a fresh connection is made: servers that count have had enough by then."""

MAX_OTHER_OPINIONS = 2
"""Further hosts that are asked where one refuses a transaction as a whole. Two are enough to find one that has another
mind; more would let a domain with many hosts take much of our time for each message that it refuses."""

Content = Callable[[], AsyncIterable[bytes] | Iterable[bytes]]
"""Begins to read a message's content, anew at each call."""


class Courier:
    """Carries mail to one destination over one connection, made when it is first needed and kept until `close`.

    With a smarthost the connection is lent to it (`shared`) for each batch, and kept for whoever comes next.
    """

    def __init__(
        self,
        domain: str,
        resolver: Resolver,
        settings: ConnectionSettings,
        clock: Clock,
        shared: RelayConnections | None = None,
    ) -> None:
        self._domain = domain
        self._resolver = resolver
        self._settings = settings
        self._clock = clock
        self._shared = shared
        self._kept: Kept | None = None
        # Whether content may go by BDAT. One host that offers it and does not know it is enough: DATA goes everywhere.
        self._chunking = True
        self._now = Attempt(clock)
        if shared is not None:
            shared.join()

    async def carry(self, batch: Sequence[Delivery], content: Content) -> list[Outcome]:
        """Deliver one message to recipients at this destination, in one transaction, or in more where the server takes
        fewer at a time (RFC 9422).

        The deliveries share message and return path, and what they need. Raises Unreachable where no host could be
        spoken to.
        """
        if self._shared is None:
            return await self._carry(batch, content)
        while True:
            self._kept = await self._shared.borrow()
            try:
                return await self._carry(batch, content)
            except Unreachable as unreachable:
                # Nothing of the batch has been sent.
                if not self._shared.failed(unreachable.outcome):
                    raise
            finally:
                kept, self._kept = self._kept, None
                self._shared.give_back(kept)

    async def close(self) -> None:
        """Say goodbye. Never raises, and never waits for long: what was sent is safe already."""
        await self._quit()
        if self._shared is not None:
            await self._shared.leave()

    async def _quit(self) -> None:
        if self._kept is not None:
            kept, self._kept = self._kept, None
            await kept.reached.connection.quit()

    async def _carry(self, batch: Sequence[Delivery], content: Content) -> list[Outcome]:
        self._now = Attempt(self._clock)
        outcomes = await self._attempt(batch, content)
        while left := [place for place, outcome in enumerate(outcomes) if outcome is None]:
            try:
                more = await self._attempt([batch[place] for place in left], content)
            except Unreachable as unreachable:
                more = [unreachable.outcome] * len(left)
            for place, outcome in zip(left, more, strict=True):
                outcomes[place] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    async def _attempt(self, batch: Sequence[Delivery], content: Content) -> list[Outcome | None]:
        """An outcome for each; None for those that the server takes in a transaction of their own, at least one less
        than there were."""
        try:
            outcomes, refused_by = await self._transact(batch, content)
        except Unsuitable as unsuitable:
            return [unsuitable.outcome] * len(batch)
        asked: list[str] = []
        # RFC 5321 §5.1: where one host does not take a message, the next is tried. What is said to MAIL is the word of
        # one host about the transaction: its list of unwanted clients may be its own, and one that breaks off says
        # nothing at all. To RCPT, it speaks for the domain.
        # A smarthost is all that there is.
        most = MAX_OTHER_OPINIONS if self._settings.smarthost is None else 0
        while refused_by is not None and len(asked) < most:
            asked.append(refused_by)
            try:
                other, refused_by = await self._transact(batch, content, asked)
            except (Unreachable, Unsuitable):
                # Nobody else is there to ask: what was said stands.
                break
            if refused_by is None:
                return other
            if any(isinstance(outcome, Failed) for outcome in outcomes) and not any(
                isinstance(outcome, Failed) for outcome in other
            ):
                # Who may take it later is waited for.
                outcomes = other
        return outcomes

    async def _transact(
        self, batch: Sequence[Delivery], content: Content, without: Sequence[str] = ()
    ) -> tuple[list[Outcome | None], str | None]:
        """The outcomes, and the host that has refused all of it before it heard of any recipient, or has broken off
        before the message was whole, if it has.

        `without`: the hosts that are not to be asked. Raises Unreachable and Unsuitable.
        """
        first = batch[0]
        # False once it is a new connection that is spoken over: then what happens is no matter of its age.
        reused = True
        while True:
            before = self._kept
            kept = await self._connected(first.require_tls, without)
            reached, connection = kept.reached, kept.reached.connection
            reused = reused and kept is before
            asks = "DSN" in connection.extensions
            try:
                results = await connection.send(
                    first.return_path,
                    [str(delivery.target) for delivery in batch],
                    content(),
                    size=first.size,
                    eight_bit=first.eight_bit,
                    utf8=first.utf8,
                    require_tls=first.require_tls,
                    # What comes back is read for its codes, and for whom it is about: nobody needs the message.
                    ret="HDRS" if asks and first.return_path else None,
                    for_recipients=[wishes(delivery) for delivery in batch] if asks else (),
                )
            except ChunkingRefused:
                # A word about BDAT, and not about the message, of which nothing was accepted. There is no second time.
                self._drop()
                self._chunking = False
                continue
            except Lost as lost:
                self._drop()
                # A kept connection may have been closed by the server while it was idle: that says nothing about the
                # message. Behind the final dot it may have been taken, so the schedule decides (P3).
                if reused and lost.stage is not Stage.END_OF_DATA:
                    reused = False
                    continue
                text = f"the connection was lost at {lost.stage.value}: {lost.reason}"
                outcome = Deferred(self._now.told(0, "4.4.2", "connection-lost", text, reached))
                # Up to the final dot nobody can have taken it, and another host may be of better health.
                host = None if lost.stage is Stage.END_OF_DATA else reached.at.host
                return [outcome] * len(batch), host
            except (StoreUnavailable, KeyError) as error:
                # In the middle of the content there is no way back but to hang up (RFC 5321 §4.1.1.10).
                self._drop()
                text = f"our own spool failed: {error}"
                return [Deferred(self._now.told(0, "4.3.0", "spool-failed", text, None))] * len(batch), None
            refused = all(map(_is_of_the_host, results))
            if reused and refused and all(map(_is_goodbye, results)):
                # The same, said politely: it has had enough of this connection, not of this message.
                self._drop()
                reused = False
                continue
            kept.carried += 1
            some_asked = not refused or any(result.stage is not Stage.LOCAL for result in results)
            outcomes = [self._outcome(result, reached, some_asked) for result in results]
            return outcomes, reached.at.host if refused else None

    def _outcome(self, result: Result, reached: Reached, some_asked: bool) -> Outcome | None:
        if result.stage is not Stage.LOCAL:
            return outcome_of(result.reply, self._now, reached, self._settings)
        # What we knew beforehand, the server has not said. Where others were asked, and it is transient, the server
        # takes no more recipients in one transaction (RFC 9422 §4).
        surplus = some_asked and result.reply.transient
        return None if surplus else outcome_of(result.reply, self._now, None, self._settings)

    async def _connected(self, required: bool, without: Sequence[str]) -> Kept:
        """A connection, such as REQUIRETLS wants it where that is `required`. Raises Unreachable and Unsuitable."""
        kept = self._kept
        if (
            kept is not None
            and kept.reached.connection.usable
            and kept.carried < MAX_MESSAGES_PER_CONNECTION
            and kept.reached.at.host not in without
            # One that was made for what requires TLS will do for all other mail, too.
            and (not required or keeps_the_promise(kept.reached.connection))
        ):
            return kept
        if not without:
            await self._quit()
        reached = await reach(
            self._domain,
            self._resolver,
            self._settings,
            self._now,
            required=required,
            chunking=self._chunking,
            without=without,
        )
        # Where another host was looked for, and found, the first one has been kept up to now.
        await self._quit()
        self._kept = Kept(reached)
        return self._kept

    def _drop(self) -> None:
        if self._kept is not None:
            self._kept.reached.connection.aclose()
            self._kept = None


def _is_of_the_host(result: Result) -> bool:
    """Whether this host won't have the message, or can't, now or ever, and has said nothing about the recipient."""
    return result.stage in (Stage.MAIL, Stage.LOCAL) and not result.reply.positive


def _is_goodbye(result: Result) -> bool:
    """Whether the host wants to end the session (RFC 5321 §3.8), and has not read the message."""
    return result.reply.code == 421 and result.stage is Stage.MAIL
