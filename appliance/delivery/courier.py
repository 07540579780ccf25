"""One connection's worth of work.

Messages of one destination, one after the other, and an outcome for each delivery.
"""

from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from appliance.delivery.hosts import HostAddress, HostSettings, NoHosts, find_addresses
from appliance.model.delivery import Answer, Deferred, Delivered, Delivery, Failed, Outcome
from appliance.model.time import Clock
from appliance.resolver import Resolver
from appliance.storage.records import StoreUnavailable
from smtp.reply import Reply
from smtp.trio_client import ConnectError, Connection, Lost, Refused, Result, Stage, Timeouts

MAX_MESSAGES_PER_CONNECTION = 1000
"""After as many messages a fresh connection is made: servers that count have had enough by then."""

Content = Callable[[], AsyncIterable[bytes] | Iterable[bytes]]
"""Begins to read a message's content, anew at each call."""


@dataclass(frozen=True, slots=True)
class CourierSettings:
    """What the configuration has to say about connections."""

    port: int
    hosts: HostSettings
    timeouts: Timeouts = field(default_factory=Timeouts)


class Unreachable(Exception):
    """No host of the destination could be spoken to: what is meant for it shares this outcome."""

    def __init__(self, outcome: Deferred | Failed) -> None:
        super().__init__(outcome.answer.text)
        self.outcome = outcome


class Courier:
    """Carries mail to one destination over one connection, made when it is first needed and kept until `close`."""

    def __init__(self, domain: str, resolver: Resolver, settings: CourierSettings, clock: Clock) -> None:
        self._domain = domain
        self._resolver = resolver
        self._settings = settings
        self._clock = clock
        self._connection: Connection | None = None
        self._at: HostAddress | None = None
        self._carried = 0
        self._began = 0

    async def carry(self, batch: Sequence[Delivery], content: Content) -> list[Outcome]:
        """Deliver one message to recipients at this destination, in one transaction.

        The deliveries share message and return path. Raises Unreachable where no host could be spoken to.
        """
        self._began = self._clock()
        return await self._attempt(batch, content)

    async def close(self) -> None:
        """Say goodbye. Never raises, and never waits for long: what was sent is safe already."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.quit()

    async def _attempt(self, batch: Sequence[Delivery], content: Content) -> list[Outcome]:
        reused = self._connection is not None and self._connection.usable
        while True:
            connection = await self._connected()
            try:
                results = await connection.send(
                    batch[0].return_path,
                    [str(delivery.target) for delivery in batch],
                    content(),
                    size=batch[0].size,
                    eight_bit=batch[0].eight_bit,
                )
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
            return [self._outcome(result) for result in results]

    async def _connected(self) -> Connection:
        if self._connection is not None and self._connection.usable and self._carried < MAX_MESSAGES_PER_CONNECTION:
            return self._connection
        await self.close()
        try:
            candidates = await find_addresses(self._resolver, self._domain, self._settings.hosts)
        except NoHosts as none:
            raise Unreachable(none.outcome) from none
        last: Answer | None = None
        for candidate in candidates:
            try:
                self._connection = await Connection.open(
                    candidate.address,
                    self._settings.port,
                    helo=self._settings.hosts.hostname,
                    timeouts=self._settings.timeouts,
                    expected_name=candidate.host,
                )
            except ConnectError as error:
                text = f"no connection to {candidate.host} [{candidate.address}]: {error}"
                last = self._told(0, "4.4.1", "connection-failed", text, candidate)
            except Refused as refused:
                # Whatever the code: another host may take it, and a greeting is no word about the recipient.
                last = self._answer(refused.reply, "host-refused", candidate)
            else:
                self._at = candidate
                self._carried = 0
                return self._connection
        assert last is not None  # find_addresses never returns an empty list
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
