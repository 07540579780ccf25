"""Who tells conversations that they have waited long enough."""

import trio
import trio.testing

from smtp.client.deadlines import INSISTS_S, Deadlines, deadlines_of_this_run


class Waiter:
    """Notes when it is told to give up, and goes on waiting until it has been told as often as it wants."""

    def __init__(self, deadlines: Deadlines, times: int = 1) -> None:
        self._deadlines = deadlines
        self._times = times
        self.told_at: list[float] = []

    def give_up(self) -> None:
        self.told_at.append(trio.current_time())
        if len(self.told_at) == self._times:
            self._deadlines.forget(self)


async def test_each_is_told_at_its_own_time(autojump_clock: trio.testing.MockClock) -> None:
    deadlines = deadlines_of_this_run()
    began = trio.current_time()
    waiters = [Waiter(deadlines) for _ in range(3)]
    # The first makes the task sleep for longer than the others have time.
    for waiter, seconds in zip(waiters, (300, 7, 20), strict=True):
        deadlines.wait_until(waiter, began + seconds)
        await trio.testing.wait_all_tasks_blocked()
    await trio.sleep(1000)
    assert [waiter.told_at for waiter in waiters] == [[began + 300], [began + 7], [began + 20]]


async def test_who_has_got_more_time_is_told_at_the_end_of_it_alone(autojump_clock: trio.testing.MockClock) -> None:
    deadlines = deadlines_of_this_run()
    began = trio.current_time()
    waiter = Waiter(deadlines)
    deadlines.wait_until(waiter, began + 5)
    await trio.sleep(4)
    deadlines.wait_until(waiter, began + 50)
    await trio.sleep(1000)
    assert waiter.told_at == [began + 50]


async def test_who_waits_no_more_is_told_nothing(autojump_clock: trio.testing.MockClock) -> None:
    deadlines = deadlines_of_this_run()
    waiter = Waiter(deadlines)
    deadlines.wait_until(waiter, trio.current_time() + 5)
    await trio.sleep(4)
    deadlines.forget(waiter)
    deadlines.forget(waiter)
    await trio.sleep(1000)
    assert waiter.told_at == []


async def test_who_has_not_heard_is_told_again(autojump_clock: trio.testing.MockClock) -> None:
    deadlines = deadlines_of_this_run()
    began = trio.current_time()
    waiter = Waiter(deadlines, times=3)
    deadlines.wait_until(waiter, began + 5)
    await trio.sleep(1000)
    assert waiter.told_at == [began + 5, began + 5 + INSISTS_S, began + 5 + 2 * INSISTS_S]


async def test_a_time_that_is_over_already_is_up_at_once(autojump_clock: trio.testing.MockClock) -> None:
    deadlines = deadlines_of_this_run()
    now = trio.current_time()
    waiter = Waiter(deadlines)
    deadlines.wait_until(waiter, now - 1)
    await trio.testing.wait_all_tasks_blocked()
    assert waiter.told_at == [now]


async def test_there_is_one_task_for_all_of_a_run() -> None:
    assert deadlines_of_this_run() is deadlines_of_this_run()


def test_each_run_has_its_own() -> None:
    async def run() -> Deadlines:
        return deadlines_of_this_run()

    assert trio.run(run) is not trio.run(run)
