"""One connection's worth of work.

Messages of one destination, one after the other, and an outcome for each delivery.
"""

from collections.abc import AsyncIterable, Callable, Iterable, Sequence

from appliance.delivery.connecting import (
    ConnectionSettings,
    Unfit,
    connect,
    connect_as_required,
    keeps_the_promise,
)
from appliance.delivery.hosts import HostAddress, NoHosts, find_hosts
from appliance.model.delivery import Answer, Deferred, Delivered, Delivery, Failed, Outcome
from appliance.model.time import Clock
from appliance.resolver import Resolver
from appliance.storage.records import StoreUnavailable
from smtp.client.trio_client import ChunkingRefused, ConnectError, Connection, Lost, Refused, Result, Stage, TlsFailed
from smtp.parameters import Notify, RecipientParameters
from smtp.reply import Reply

MAX_MESSAGES_PER_CONNECTION = 1000
"""After as many messages a fresh connection is made: servers that count have had enough by then."""

Content = Callable[[], AsyncIterable[bytes] | Iterable[bytes]]
"""Begins to read a message's content, anew at each call."""


class Unreachable(Exception):
    """No host of the destination could be spoken to: what is meant for it shares this outcome."""

    def __init__(self, outcome: Deferred | Failed) -> None:
        super().__init__(outcome.answer.text)
        self.outcome = outcome


class _Unfit(Exception):
    """No host could be given what requires TLS. That says nothing about other mail."""

    def __init__(self, outcome: Deferred | Failed) -> None:
        super().__init__(outcome.answer.text)
        self.outcome = outcome


class Courier:
    """Carries mail to one destination over one connection, made when it is first needed and kept until `close`."""

    def __init__(self, domain: str, resolver: Resolver, settings: ConnectionSettings, clock: Clock) -> None:
        self._domain = domain
        self._resolver = resolver
        self._settings = settings
        self._clock = clock
        self._connection: Connection | None = None
        self._at: HostAddress | None = None
        # Whether content may go by BDAT. One host that offers it and does not know it is enough: DATA goes everywhere.
        self._chunking = True
        self._carried = 0
        self._began = 0

    async def carry(self, batch: Sequence[Delivery], content: Content) -> list[Outcome]:
        """Deliver one message to recipients at this destination, in one transaction, or in more where the server takes
        fewer at a time (RFC 9422).

        The deliveries share message and return path, and what they need. Raises Unreachable where no host could be
        spoken to.
        """
        self._began = self._clock()
        outcomes = await self._attempt(batch, content)
        left = _left(outcomes)
        while left:
            try:
                more = await self._attempt([batch[place] for place in left], content)
            except Unreachable as unreachable:
                more = [unreachable.outcome] * len(left)
            for place, outcome in zip(left, more, strict=True):
                outcomes[place] = outcome
            left = _left(outcomes)
        return [outcome for outcome in outcomes if outcome is not None]

    async def close(self) -> None:
        """Say goodbye. Never raises, and never waits for long: what was sent is safe already."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.quit()

    async def _attempt(self, batch: Sequence[Delivery], content: Content) -> list[Outcome | None]:
        """An outcome for each; None for those that the server takes in a transaction of their own, at least one less
        than there were."""
        first = batch[0]
        reused = self._connection is not None and self._connection.usable
        while True:
            before = self._connection
            try:
                connection = await self._connected(first.require_tls)
            except _Unfit as unfit:
                return [unfit.outcome] * len(batch)
            reused = reused and connection is before
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
                    for_recipients=[_wishes(delivery) for delivery in batch] if asks else (),
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
                return [Deferred(self._told(0, "4.4.2", "connection-lost", text, self._at))] * len(batch)
            except (StoreUnavailable, KeyError) as error:
                # In the middle of the content there is no way back but to hang up (RFC 5321 §4.1.1.10).
                self._drop()
                text = f"our own spool failed: {error}"
                return [Deferred(self._told(0, "4.3.0", "spool-failed", text, None))] * len(batch)
            if reused and all(result.reply.code == 421 and result.stage is Stage.MAIL for result in results):
                # The same, said politely: it has had enough of this connection, not of this message.
                self._drop()
                reused = False
                continue
            self._carried += 1
            some_asked = any(result.stage is not Stage.LOCAL for result in results)
            return [None if some_asked and _is_surplus(result) else self._outcome(result) for result in results]

    async def _connected(self, required: bool) -> Connection:
        """A connection, such as REQUIRETLS wants it where that is `required`. Raises Unreachable and _Unfit."""
        kept = self._connection
        if (
            kept is not None
            and kept.usable
            and self._carried < MAX_MESSAGES_PER_CONNECTION
            # One that was made for what requires TLS will do for all other mail, too.
            and (not required or keeps_the_promise(kept))
        ):
            return kept
        await self.close()
        try:
            found = await find_hosts(self._resolver, self._domain, self._settings.hosts)
        except NoHosts as none:
            raise Unreachable(none.outcome) from none
        last: Answer | None = None
        unfit: Answer | None = None
        reached = False
        for candidate in found.addresses:
            try:
                how = connect_as_required if required else connect
                self._connection = await how(self._settings, candidate, chunking=self._chunking)
            except Unfit as error:
                unfit = self._told(0, error.enhanced_code, "tls-required", str(error), candidate)
            except ConnectError as error:
                reached = reached or isinstance(error, TlsFailed)
                text = f"no connection to {candidate.host} [{candidate.address}]: {error}"
                last = self._told(0, "4.4.1", "connection-failed", text, candidate)
            except Refused as refused:
                reached = True
                # Whatever the code: another host may take it, and a greeting is no word about the recipient.
                last = self._answer(refused.reply, "host-refused", candidate)
            else:
                self._at = candidate
                self._carried = 0
                return self._connection
        if unfit is not None:
            # RFC 8689 §4.2.1: where no host is left, the message is not sent, and its sender hears of that. One that
            # could not be asked may be fit.
            if last is None and found.passed_over:
                last = self._told(0, "4.4.3", "dns-failed", f"DNS: {found.passed_over}", None)
            raise _Unfit(Failed(unfit) if last is None else Deferred(last))
        assert last is not None  # there is always an address
        if required and reached:
            # They may well take other mail.
            raise _Unfit(Deferred(last))
        raise Unreachable(Deferred(last))

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.aclose()
            self._connection = None

    def _outcome(self, result: Result) -> Outcome:
        reply = result.reply
        if reply.transient:
            return Deferred(self._answer(reply, _word(reply, "deferred"), self._at))
        if reply.permanent:
            return Failed(self._answer(reply, _word(reply, "refused"), self._at))
        return Delivered(self._answer(reply, "delivered", self._at))

    def _answer(self, reply: Reply, reason: str, at: HostAddress | None) -> Answer:
        # RFC 3463 §2: where the server gives no enhanced code, the class is all that is known.
        enhanced_code = reply.enhanced or f"{reply.code // 100}.0.0"
        return self._told(reply.code, enhanced_code, reason, reply.text.replace("\n", " "), at)

    def _told(self, code: int, enhanced_code: str, reason: str, text: str, at: HostAddress | None) -> Answer:
        return Answer(
            code=code,
            enhanced_code=enhanced_code,
            reason=reason,
            text=text,
            server_name=at.host if at else None,
            server_address=at.address if at else None,
            duration_ms=max(0, self._clock() - self._began),
        )


def _left(outcomes: Sequence[Outcome | None]) -> list[int]:
    return [place for place, outcome in enumerate(outcomes) if outcome is None]


def _is_surplus(result: Result) -> bool:
    """Whether the server was not asked, because it takes no more recipients in one transaction (RFC 9422 §4)."""
    return result.stage is Stage.LOCAL and result.reply.transient


def _wishes(delivery: Delivery) -> RecipientParameters:
    """What the next hop is asked to report (RFC 3461 §4.1): of what the sender wishes, the failures and delays.

    Its reports come back to us, and we write our own (§5.2.7.3). Successes we tell by ourselves; ORCPT stays here.
    """
    if not delivery.return_path:
        # There is nobody to tell: reports about reports, above all.
        return RecipientParameters(_NEVER)
    said = [recipient.notify for recipient in delivery.recipients]
    if not all(said):
        return RecipientParameters()
    words = {word for notify in said for word in notify.split(",")} & {"FAILURE", "DELAY"}
    return RecipientParameters(frozenset(Notify(word) for word in words) or _NEVER)


_NEVER = frozenset({Notify.NEVER})

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
