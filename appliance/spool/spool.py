"""The verbs of the spool.

Begin, append, commit and abort for what arrives; claim, settle and content for what leaves.
"""

from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from appliance.model.delivery import Delivery
from appliance.model.event import DeliveryEvent
from appliance.model.ids import IdSource
from appliance.spool.clocks import boot_clock
from appliance.spool.committer import Committer
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import (
    PART_OCTETS,
    Abandon,
    Accept,
    AddPart,
    CountUse,
    Keep,
    LeaseLost,
    Operation,
    Record,
    ReturnPath,
    SpoolStore,
)

HOT_OCTETS = 64 << 20
"""Content of messages under way that is kept in memory, so that what goes straight on is not read back."""

TIDY_S = 5.0
"""How often the store is asked to go on with what it could not do before."""

LONG_TIDY_S = 1.0
"""From here on it took long, and rests for as long: a store that is slow would be tidied all the time."""

MAX_ABANDONED = 10_000
"""Receptions whose parts could not be erased that are remembered; what is beyond, the next start finds."""

TIDY_ABANDONED = 100
"""Of these, how many are tried again at once."""

STANDS_MS = 20_000
"""After a renewal, leases stand for so long at least: two thirds of what the others wait before they take work over."""

SETTLE_RETRY_S = 1.0
"""How often a record of what has happened is tried again while the disk refuses it."""


@dataclass(slots=True)
class _Hot:
    octets: bytes
    deliveries: int


class Incoming:
    """One message on its way in. Nothing of it counts before `commit` has returned."""

    def __init__(self, spool: "Spool", message_id: str) -> None:
        self._spool = spool
        self._pieces: list[bytes] = []
        self._held = 0
        self._parts = 0
        self.message_id = message_id
        self.size = 0
        """Octets appended so far."""

    async def append(self, octets: bytes) -> None:
        """Take the next octets of the content. Raises StoreUnavailable."""
        self._pieces.append(octets)
        self._held += len(octets)
        self.size += len(octets)
        while self._held >= PART_OCTETS:
            gathered = b"".join(self._pieces)
            await self._spool.tidy_first()
            await self._spool.committer.commit([AddPart(self.message_id, self._parts, gathered[:PART_OCTETS])])
            self._parts += 1
            self._pieces = [gathered[PART_OCTETS:]]
            self._held = len(self._pieces[0])

    async def commit(
        self,
        deliveries: Sequence[Delivery],
        events: Sequence[DeliveryEvent],
        return_paths: Sequence[ReturnPath] = (),
        with_it: Sequence[Operation] = (),
    ) -> None:
        """Take responsibility. Durable when it returns; raises StoreUnavailable where nothing was taken.

        `with_it` becomes durable in the same instant, or not at all.
        """
        last_part = b"".join(self._pieces)
        operations: list[Operation] = [Accept(deliveries, events, return_paths), *with_it]
        if deliveries:
            operations.insert(0, AddPart(self.message_id, self._parts, last_part))
            if self._parts == 0:
                # Before the commit: a courier may ask for it before this task runs again.
                self._spool.keep_hot(self.message_id, last_part, len(deliveries))
        try:
            await self._spool.committer.commit(operations)
        except BaseException:
            self._spool.cool(self.message_id)
            raise
        if not deliveries:
            await self.abort()

    async def abort(self) -> None:
        """Nothing of this message is wanted. Never raises: what can't be erased now is erased later."""
        self._pieces.clear()
        if self._parts:
            self._parts = 0
            await self._spool.abandon(self.message_id)


class Spool:
    """Mail under way, for reception and delivery."""

    def __init__(self, store: SpoolStore, committer: Committer, new_id: IdSource) -> None:
        self.store = store
        self.committer = committer
        self.new_id = new_id
        self._hot: dict[str, _Hot] = {}
        self._hot_octets = 0
        self._abandoned: dict[str, None] = {}
        self._tidy_at = float("-inf")
        self._renewed_at = boot_clock()
        self._renewed = trio.Event()

    # ------------------------------------------------------------------ arriving

    def begin(self) -> Incoming:
        """Begin to take a message."""
        return Incoming(self, self.new_id())

    def has_room(self, octets: int) -> bool:
        """Whether there is room for a message of this size. Where not, RFC 5321 §4.2.2 has 452 for the sender."""
        return self.store.has_room(octets)

    async def record(self, events: Sequence[DeliveryEvent], counts: Sequence[CountUse] = ()) -> None:
        """Write events down that change no delivery, such as a refusal, and what was used up with them. Raises
        StoreUnavailable."""
        if events or counts:
            await self.committer.commit([Record(events), *counts])

    async def return_path(self, token: str) -> ReturnPath | None:
        """See SpoolStore."""
        return await trio.to_thread.run_sync(self.store.return_path, token)

    async def abandon(self, message_id: str) -> None:
        """Erase the parts of a message that was not accepted: now, or else with the next tidying."""
        if len(self._abandoned) < MAX_ABANDONED:
            self._abandoned[message_id] = None
        try:
            await self.committer.commit([Abandon(message_id)])
        except StoreUnavailable:
            return
        self._abandoned.pop(message_id, None)

    async def tidy_first(self) -> None:
        """Tidy before parts are taken or claims made: that may give them room. Where nodes share the store, it is done
        apart from them (`keep_tidy`): there it makes none, and takes many questions to a server."""
        if not self.store.shared:
            await self.tidy()

    async def keep_tidy(self) -> None:
        """Tidy now and then, until cancelled."""
        while True:
            await self.tidy()
            await trio.sleep(min(max(0.0, self._tidy_at - trio.current_time()), TIDY_S))

    async def tidy(self) -> None:
        """Every few seconds, do what could not be done before."""
        began = trio.current_time()
        if began < self._tidy_at:
            return
        self._tidy_at = float("inf")
        try:
            for message_id in list(self._abandoned)[:TIDY_ABANDONED]:
                await self.abandon(message_id)
            await self.tidy_now()
        finally:
            now = trio.current_time()
            took_s = now - began
            self._tidy_at = max(began + TIDY_S, now + (took_s if took_s >= LONG_TIDY_S else 0))

    async def tidy_now(self) -> None:
        """The same for the store alone, whenever it was done before."""
        await self.committer.beside(self.store.tidy)

    # ------------------------------------------------------------------ leaving

    async def claim(self, now: int, limit: int, without: Collection[str] = ()) -> list[Delivery]:
        """Take up to `limit` deliveries that are due; they are ours until settled, or until this process ends.

        Which ones go first is said at `SpoolStore.claim`. Those to a destination in `without` (domains in lower case)
        are left for later.
        """
        await self.tidy_first()
        return await self.committer.beside(partial(self.store.claim, now, limit, without))

    async def next_due(self, without: Collection[str] = (), after: int = 0) -> int | None:
        """When the next waiting delivery is due, later than `after`, leaving out these destinations."""
        return await self.committer.beside(lambda _: self.store.next_due(without, after))

    async def settle(self, operations: Sequence[Operation]) -> None:
        """Write down what has already happened in the world. Does not return before it is durable.

        A delivery that was made can't be unmade, so a disk that refuses is asked again until it takes it; meanwhile
        the delivery stays claimed and no second copy leaves. Raises LeaseLost where another node has taken one of the
        deliveries over; then nothing was written down.
        """
        while True:
            try:
                await self.committer.commit(operations)
            except StoreUnavailable:
                # Here alone a shutdown may end the wait: the delivery will be found claimed, and be tried again.
                await trio.sleep(SETTLE_RETRY_S)
            else:
                return

    async def leave(self, deliveries: Sequence[Delivery]) -> None:
        """Let deliveries stay as these values say; those that another node has taken over are its business now."""
        left = list(deliveries)
        while left:
            try:
                await self.settle([Keep(delivery) for delivery in left])
            except LeaseLost as lost:
                left = [delivery for delivery in left if delivery.id not in lost.delivery_ids]
            else:
                return

    async def renew(self) -> Collection[str]:
        """See SpoolStore."""
        began = boot_clock()
        lost = await trio.to_thread.run_sync(self.store.renew)
        self._renewed_at = began
        self._renewed.set()
        self._renewed = trio.Event()
        return lost

    async def until_leases_stand(self) -> None:
        """Return when what this node has claimed is certainly its own: at once, as a rule."""
        while self.store.shared and boot_clock() - self._renewed_at >= STANDS_MS:
            await self._renewed.wait()

    def content(self, message_id: str) -> AsyncIterable[bytes] | Iterable[bytes]:
        """The content of a message, part by part: from memory, or else from the disk.

        Reading raises StoreUnavailable; KeyError where there is none.
        """
        hot = self._hot.get(message_id)
        return (hot.octets,) if hot is not None else self._stored_content(message_id)

    async def _stored_content(self, message_id: str) -> AsyncIterator[bytes]:
        number = 0
        while (part := await self._read(message_id, number)) is not None:
            yield part
            number += 1
        if number == 0:
            raise KeyError(message_id)

    async def head(self, message_id: str) -> bytes:
        """The first part of a message's content, in which its header section is; empty where it is gone."""
        hot = self._hot.get(message_id)
        if hot is not None:
            return hot.octets[:PART_OCTETS]
        return await self._read(message_id, 0) or b""

    async def _read(self, message_id: str, number: int) -> bytes | None:
        return await trio.to_thread.run_sync(self.store.part, message_id, number)

    # ------------------------------------------------------------------ the part of it that is in memory

    def keep_hot(self, message_id: str, octets: bytes, deliveries: int) -> None:
        """Keep content in memory until that many deliveries are done with it, where there is room."""
        if self._hot_octets + len(octets) <= HOT_OCTETS:
            self._hot[message_id] = _Hot(octets, deliveries)
            self._hot_octets += len(octets)

    def done_with(self, message_id: str) -> None:
        """One delivery of this message needs its content no more, or not soon."""
        hot = self._hot.get(message_id)
        if hot is not None:
            hot.deliveries -= 1
            if hot.deliveries <= 0:
                self.cool(message_id)

    def cool(self, message_id: str) -> None:
        """Let go of a message's content in memory."""
        hot = self._hot.pop(message_id, None)
        if hot is not None:
            self._hot_octets -= len(hot.octets)
