"""Workers in processes of their own, each a node that claims from one queue until nothing is due."""

import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.queues import Queue

from stored_values import a_keyring

from appliance.storage.mongo_spool import MongoSpool

LIMIT_S = 300.0
"""For all of them together, on a machine that is busy."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one worker has claimed."""

    ids: tuple[str, ...]
    began: float
    """By the clock that all processes of a machine share, in seconds."""
    ended: float


def claim_all(url: str, workers: int, now: int, limit: int) -> list[Share]:
    """Let so many workers claim what is due at `now`, `limit` at a time. They begin together."""
    # Not a fork: pymongo is not fork-safe, and whoever asks has a client open.
    context = multiprocessing.get_context("spawn")
    start, shares = context.Barrier(workers, timeout=LIMIT_S), context.Queue()
    processes = [
        context.Process(target=_claim, args=(url, f"claimer-{number}", now, limit, start, shares), daemon=True)
        for number in range(workers)
    ]
    for process in processes:
        process.start()
    try:
        return list(_shares(shares, workers))
    finally:
        for process in processes:
            process.join(10)
            process.kill()


def _shares(shares: "Queue[Share]", workers: int) -> Iterator[Share]:
    for _ in range(workers):
        yield shares.get(timeout=LIMIT_S)


def _claim(url: str, name: str, now: int, limit: int, start: object, shares: "Queue[Share]") -> None:
    spool = MongoSpool(url, a_keyring(), name)
    start.wait()  # type: ignore[attr-defined]
    began = time.monotonic()
    ids: list[str] = []
    while found := spool.claim(now, limit):
        ids += [delivery.id for delivery in found]
    shares.put(Share(tuple(ids), began, time.monotonic()))
