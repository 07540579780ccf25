"""The clocks by which mail waits: what a wall clock that jumps can do to them, and what it cannot."""

from appliance.spool.clocks import Clocks
from appliance.storage.spool import ClockMarks

DAY = 86_400_000
NOW = 1_800_000_000_000


class Machine:
    """A machine whose wall clock can be set."""

    def __init__(self) -> None:
        self.wall = NOW
        self.boot = 5_000

    def passes(self, milliseconds: int) -> None:
        """Time goes by."""
        self.wall += milliseconds
        self.boot += milliseconds

    def start(self, marks: ClockMarks) -> Clocks:
        """Begin a run."""
        return Clocks(lambda: self.wall, marks, lambda: self.boot)


def test_steady_time_follows_no_jump_of_the_wall_clock() -> None:
    machine = Machine()
    clocks = machine.start(ClockMarks())
    for jump in (30 * DAY, -60 * DAY):
        machine.wall += jump
        machine.passes(1000)
    assert clocks.steady() == NOW + 2000
    assert clocks.running() == 2000


def test_a_new_run_goes_on_where_the_last_one_was_and_counts_the_time_between_as_waiting_only() -> None:
    machine = Machine()
    clocks = machine.start(ClockMarks())
    machine.passes(DAY)
    marks = clocks.marks()
    machine.passes(2 * DAY)
    again = machine.start(marks)
    assert again.steady() == NOW + 3 * DAY
    assert again.running() == DAY


def test_steady_time_never_goes_back_between_runs() -> None:
    machine = Machine()
    marks = machine.start(ClockMarks()).marks()
    machine.wall -= 30 * DAY
    clocks = machine.start(marks)
    assert clocks.steady() == NOW
    machine.passes(1000)
    assert clocks.steady() == NOW + 1000


def test_people_are_told_when_something_will_be_by_their_own_clock() -> None:
    machine = Machine()
    clocks = machine.start(ClockMarks())
    due = clocks.steady() + 60_000
    machine.wall -= 30 * DAY
    assert clocks.on_the_wall(due) == NOW - 30 * DAY + 60_000


def test_what_is_to_be_forgotten_goes_by_the_latest_time_seen_over_all_runs() -> None:
    machine = Machine()
    clocks = machine.start(ClockMarks())
    machine.wall += 30 * DAY
    assert clocks.latest() == NOW + 30 * DAY
    machine.wall -= 60 * DAY
    assert clocks.latest() == NOW + 30 * DAY
    assert machine.start(clocks.marks()).latest() == NOW + 30 * DAY


def test_the_clocks_of_another_node_that_are_further_are_followed_and_those_behind_are_not() -> None:
    machine = Machine()
    clocks = machine.start(ClockMarks(NOW, 5_000, NOW))
    clocks.adopt(ClockMarks(NOW + DAY, 9_000, NOW + DAY))
    assert clocks.marks() == ClockMarks(NOW + DAY, 9_000, NOW + DAY)
    clocks.adopt(ClockMarks(NOW, 0, NOW))
    machine.passes(1000)
    assert clocks.marks() == ClockMarks(NOW + DAY + 1000, 10_000, NOW + DAY)
