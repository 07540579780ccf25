"""Two hashes at a time, those who are known first, and nobody in an endless queue."""

import threading
from contextlib import ExitStack

import pytest

from appliance.access.turns import AT_ONCE, WAITING, Turns
from appliance.model.refused import TooMany

PATIENCE_S = 30


class Watched(Turns):
    """Turns that tell when somebody begins to wait."""

    def __init__(self, at_once: int = AT_ONCE, waiting: int = WAITING) -> None:
        super().__init__(at_once, waiting)
        self.arrivals = threading.Semaphore(0)
        wait_for = self._changed.wait_for

        def told(predicate: object) -> bool:
            self.arrivals.release()
            return wait_for(predicate)  # type: ignore[arg-type]

        self._changed.wait_for = told  # type: ignore[assignment]

    def somebody_waits(self) -> None:
        assert self.arrivals.acquire(timeout=PATIENCE_S)


def test_two_at_a_time_and_no_more() -> None:
    turns = Turns(waiting=20)
    at_once, most, lock = 0, 0, threading.Lock()
    everybody = threading.Barrier(10)

    def work() -> None:
        nonlocal at_once, most
        everybody.wait()
        for _ in range(20):
            with turns.turn():
                with lock:
                    at_once += 1
                    most = max(most, at_once)
                with lock:
                    at_once -= 1

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert 1 <= most <= AT_ONCE


def test_who_is_known_goes_first_and_the_others_in_their_order() -> None:
    turns = Watched(at_once=1)
    order: list[str] = []

    def work(name: str, first: bool) -> None:
        with turns.turn(first=first):
            order.append(name)

    threads = []
    with turns.turn():
        turns.somebody_waits()
        for name, first in (("stranger", False), ("another stranger", False), ("known", True)):
            threads.append(threading.Thread(target=work, args=(name, first)))
            threads[-1].start()
            turns.somebody_waits()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert order == ["known", "stranger", "another stranger"]


def test_where_too_many_strangers_wait_one_more_is_turned_away_and_who_is_known_is_not() -> None:
    turns = Watched()
    done: list[bool] = []

    def work(first: bool) -> None:
        with turns.turn(first=first):
            done.append(first)

    threads = []
    with ExitStack() as under_way:
        for _ in range(AT_ONCE):
            under_way.enter_context(turns.turn())
            turns.somebody_waits()
        for first in (*[False] * WAITING, True):
            threads.append(threading.Thread(target=work, args=(first,)))
            threads[-1].start()
            turns.somebody_waits()
        with pytest.raises(TooMany), turns.turn():
            pass
    for thread in threads:
        thread.join(PATIENCE_S)
    assert done.count(True) == 1
    assert done.count(False) == WAITING
    with turns.turn():
        pass


def test_a_turn_that_ends_in_an_error_is_free_again() -> None:
    turns = Turns(at_once=1)
    with pytest.raises(ValueError, match="wrong"), turns.turn():
        raise ValueError("wrong")
    with turns.turn():
        pass
