"""Identifiers: their form, and that they sort in the order of their making whatever the clock does."""

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from appliance.model.ids import first_id_at, id_before, id_source

NOW = 1_800_000_000_000
FORM = re.compile(r"[0-9a-f]{20}")
INSTANTS = st.integers(min_value=0, max_value=(1 << 44) - 2)
"""As many as forty-four bits hold: until the year 2527."""


def made_at(instants: list[int]) -> list[str]:
    """One identifier at each of these instants, from one source."""
    clock = iter(instants)
    source = id_source(lambda: next(clock))
    return [source() for _ in instants]


@given(st.lists(INSTANTS, min_size=1))
def test_each_is_greater_than_the_one_before_even_where_the_clock_goes_back(instants: list[int]) -> None:
    made = made_at(instants)
    assert all(FORM.fullmatch(each) for each in made)
    assert all(one < following for one, following in pairwise(made))


@given(INSTANTS, INSTANTS)
def test_those_of_two_sources_sort_by_the_instant(one: int, other: int) -> None:
    [first], [second] = made_at([one]), made_at([other])
    if one != other:
        assert (first < second) == (one < other)


def test_the_instant_can_be_read_from_it() -> None:
    assert int(made_at([NOW])[0], 16) >> 36 == NOW


@given(INSTANTS)
def test_what_was_made_from_an_instant_on_is_behind_its_first(instant: int) -> None:
    assert FORM.fullmatch(first_id_at(instant))
    assert first_id_at(instant) <= made_at([instant])[0] < first_id_at(instant + 1)
    assert first_id_at(-instant) == first_id_at(0)


def test_an_id_of_some_time_before() -> None:
    [earlier], [later] = made_at([NOW - 5000]), made_at([NOW])
    assert id_before(first_id_at(NOW), 5000) == first_id_at(NOW - 5000) <= earlier
    assert id_before(later, 4999) > earlier
    assert id_before(first_id_at(1), 5000) == first_id_at(0)


def test_very_many_within_one_millisecond_are_all_different() -> None:
    made = made_at([NOW] * 20_000)
    assert made == sorted(set(made))
    assert int(made[-1], 16) >> 36 == NOW, "there is room for them in their millisecond"


def test_two_processes_at_the_same_instant_do_not_meet() -> None:
    assert len({made_at([NOW])[0] for _ in range(1000)}) == 1000


def test_chance_can_be_given_and_then_they_are_the_same_each_time() -> None:
    first, again = (id_source(lambda: NOW, lambda bits: 7) for _ in range(2))
    assert [first() for _ in range(3)] == [again() for _ in range(3)]


def test_the_clock_is_the_walls_where_none_is_given() -> None:
    assert FORM.fullmatch(id_source()())
