"""The stream of events as they happen, for those who follow."""

from collections.abc import Callable

import trio

from appliance.model.event import DeliveryEvent

MAX_FOLLOWERS = 100
"""Of the engine's socket at once; one more is turned away. The control process is one, for all who follow there."""

MAX_BEHIND = 10_000
"""Events that a slow follower may lag behind before it is cut off: nobody's memory grows because somebody is slow."""


class TooManyFollowers(Exception):
    """The limit of followers is reached."""


class Follower:
    """One who follows: an asynchronous iterator that ends when the follower has fallen too far behind.

    Whoever stops reading closes it; until then it has a place among the followers, and events gather for it.
    """

    def __init__(self, receive: trio.MemoryReceiveChannel[DeliveryEvent], leave: Callable[[], None]) -> None:
        self._receive = receive
        self._leave = leave

    def close(self) -> None:
        """Follow no longer. May be called again."""
        self._leave()
        self._receive.close()

    def __aiter__(self) -> "Follower":
        return self

    async def __anext__(self) -> DeliveryEvent:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None


class LiveStream:
    """Hands each event to every follower; `publish` never waits."""

    def __init__(self) -> None:
        self._followers: set[trio.MemorySendChannel[DeliveryEvent]] = set()

    def publish(self, events: list[DeliveryEvent]) -> None:
        """Tell of events that are durable."""
        if not self._followers:
            return
        for follower in list(self._followers):
            try:
                for event in events:
                    follower.send_nowait(event)
            except (trio.WouldBlock, trio.BrokenResourceError):
                self._let_go(follower)

    def follow(self) -> Follower:
        """Begin to follow. Raises TooManyFollowers."""
        if len(self._followers) >= MAX_FOLLOWERS:
            raise TooManyFollowers(f"{MAX_FOLLOWERS} follow the log already")
        send, receive = trio.open_memory_channel[DeliveryEvent](MAX_BEHIND)
        self._followers.add(send)
        return Follower(receive, lambda: self._let_go(send))

    def _let_go(self, follower: trio.MemorySendChannel[DeliveryEvent]) -> None:
        self._followers.discard(follower)
        follower.close()
