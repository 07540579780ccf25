"""Instants and durations: what is written is read back, and what is no time is said to be none."""

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.time import (
    DAY_MS,
    format_duration,
    format_instant,
    parse_duration,
    parse_instant,
    wall_clock,
)

INSTANTS = st.integers(min_value=-30_610_224_000_000, max_value=253_402_300_799_999)
"""The years 1000 to 9999."""
DURATIONS = st.integers(min_value=0, max_value=999_999_999 * DAY_MS)


@given(INSTANTS)
def test_an_instant_is_read_back_as_it_was_written(instant: int) -> None:
    assert parse_instant(format_instant(instant)) == instant


@given(INSTANTS, INSTANTS)
def test_instants_sort_as_their_texts(one: int, other: int) -> None:
    assert (one < other) == (format_instant(one) < format_instant(other))


@given(
    st.integers(min_value=0, max_value=4_000_000_000_000),
    st.integers(min_value=-23 * 60 - 59, max_value=23 * 60 + 59),
)
def test_an_offset_is_taken_into_account(instant: int, offset_minutes: int) -> None:
    there = timezone(timedelta(minutes=offset_minutes))
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=instant)
    assert parse_instant(moment.astimezone(there).isoformat()) == instant


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59.999Z", -1),
        ("2026-11-20T10:00:00.000Z", 1_795_168_800_000),
        ("2026-11-20T12:00:00+02:00", 1_795_168_800_000),
        ("2026-11-20T10:00:00", 1_795_168_800_000),
        ("2026-11-20 10:00:00", 1_795_168_800_000),
        ("2026-11-20", 1_795_132_800_000),
        ("2026-11-20T10:00:00.999999Z", 1_795_168_800_999),
    ],
)
def test_instants_as_people_write_them(text: str, instant: int) -> None:
    assert parse_instant(text) == instant


@pytest.mark.parametrize(
    "text",
    ["", "now", "yesterday", "1795168800", "2026-13-01", "2026-02-30", "2026-11-20T25:00:00Z", "20.11.2026", "7d"],
)
def test_what_is_no_instant(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time like"):
        parse_instant(text)


@pytest.mark.parametrize(("instant", "text"), [(0, "1970-01-01T00:00:00.000Z"), (-1, "1969-12-31T23:59:59.999Z")])
def test_instants_are_written_in_utc_with_milliseconds(instant: int, text: str) -> None:
    assert format_instant(instant) == text


@given(DURATIONS)
def test_a_duration_is_read_back_as_it_was_written(duration_ms: int) -> None:
    assert parse_duration(format_duration(duration_ms)) == duration_ms


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [
        ("0s", 0),
        ("1ms", 1),
        ("90s", 90_000),
        ("1h30m", 5_400_000),
        ("30m1h", 5_400_000),
        ("7d", 604_800_000),
        ("2w", 1_209_600_000),
        ("1d1d", 172_800_000),
        ("1m500ms", 60_500),
        ("007s", 7000),
    ],
)
def test_durations_as_people_write_them(text: str, duration_ms: int) -> None:
    assert parse_duration(text) == duration_ms


@pytest.mark.parametrize(
    ("duration_ms", "text"), [(0, "0s"), (5_400_000, "1h30m"), (604_800_000, "7d"), (1001, "1s1ms")]
)
def test_durations_are_written_short(duration_ms: int, text: str) -> None:
    assert format_duration(duration_ms) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "d",
        "7 d",
        " 7d",
        "7d\n",
        "-7d",
        "+7d",
        "1.5h",
        "1_0s",
        "٧d",
        "7D",
        "7y",
        "1h30",
        "1000000000s",
        "forever",
    ],
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time span like"):
        parse_duration(text)


def test_the_wall_clock_counts_milliseconds_since_the_epoch() -> None:
    before = time.time()
    assert before - 0.001 <= wall_clock() / 1000 <= time.time() + 0.001
