"""Ids, cursors, pages and instants, as clients see them."""

import base64

import pytest
from control_api.errors import ApiError, Code
from control_api.ids import MAX_ID_LENGTH, base64url, global_id, stored_id, taken_apart
from control_api.paging import MOST, Slice, connection
from control_api.scalars import DATE_TIME
from hypothesis import given
from hypothesis import strategies as st


def code_of(error: pytest.ExceptionInfo[ApiError]) -> Code:
    return error.value.code


# ------------------------------------------------------------------ ids


@given(st.text(st.characters(codec="ascii", exclude_characters=":"), min_size=1, max_size=50))
def test_an_id_leads_back_to_what_it_names(stored: str) -> None:
    assert taken_apart(global_id("Domain", stored)) == ("Domain", stored)
    assert stored_id(global_id("Domain", stored), "Domain") == stored


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda octets: base64.urlsafe_b64encode(octets).decode()))
def test_what_is_no_id_names_nothing(text: str) -> None:
    parts = taken_apart(text)
    assert parts is None or all(isinstance(part, str) for part in parts)


BROKEN = ["", "x", "====", "RG9tYWlu", "RG9tYWluOg", "A" * (MAX_ID_LENGTH + 4), "ü", "RG9t YWlu"]


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_id_is_not_found(text: str) -> None:
    with pytest.raises(ApiError) as error:
        stored_id(text, "Domain")
    assert code_of(error) is Code.NOT_FOUND


def test_the_id_of_another_kind_is_not_found() -> None:
    with pytest.raises(ApiError, match="There is no such help request") as error:
        stored_id(global_id("Domain", "1"), "HelpRequest")
    assert code_of(error) is Code.NOT_FOUND


# ------------------------------------------------------------------ pages


@pytest.mark.parametrize("first", [-1, MOST + 1, 2**31 - 1])
def test_a_page_has_a_size(first: int) -> None:
    with pytest.raises(ApiError) as error:
        Slice.of(first, None)
    assert code_of(error) is Code.BAD_USER_INPUT


@pytest.mark.parametrize("after", ["!", "ü", "A" * 600, "gA"])
def test_what_is_no_cursor_is_refused(after: str) -> None:
    with pytest.raises(ApiError) as error:
        Slice.of(10, after)
    assert code_of(error) is Code.BAD_USER_INPUT


@given(st.sets(st.integers(0, 99), max_size=40), st.integers(1, 7), st.data())
def test_pages_have_each_row_once_whatever_is_added_in_between(
    there: set[int], first: int, data: st.DataObject
) -> None:
    rows = {f"{number:02}" for number in there}
    lasting = set(rows)
    seen: list[str] = []
    after: str | None = None
    while True:
        wanted = Slice.of(first, after)
        found = sorted(row for row in rows if wanted.after is None or row > wanted.after)[: wanted.limit]
        page = connection(found, wanted, key=str, node=str, count=lambda: len(rows))
        seen += [edge.node for edge in page.edges]
        after = page.page_info.end_cursor
        if not page.page_info.has_next_page:
            break
        rows.add(f"{data.draw(st.integers(0, 99)):02}")
    assert len(seen) == len(set(seen))
    assert seen == sorted(seen)
    assert lasting <= set(seen)


def test_an_empty_page_has_no_end_and_still_a_count() -> None:
    page = connection(["a", "b"], Slice.of(0, None), key=str, node=str, count=lambda: 2)
    assert (page.edges, page.page_info.end_cursor, page.page_info.has_next_page) == ([], None, True)
    assert page.counted() == 2
    assert Slice.of(None, base64url("a")) == Slice(50, "a")


# ------------------------------------------------------------------ instants


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-11-20T10:00:00.000Z", 1_795_168_800_000),
        ("2026-11-20T10:00:00Z", 1_795_168_800_000),
        ("2026-11-20t10:00:00z", 1_795_168_800_000),
        ("2026-11-20T11:30:00.5+01:30", 1_795_168_800_500),
        ("2026-11-20T10:00:00.123456789Z", 1_795_168_800_123),
        ("1970-01-01T00:00:00Z", 0),
    ],
)
def test_an_instant_is_read_with_its_offset(text: str, instant: int) -> None:
    assert DATE_TIME.parse_value is not None
    assert DATE_TIME.parse_value(text) == instant


@pytest.mark.parametrize(
    "text",
    ["", "2026-11-20", "2026-11-20T10:00:00", "20261120T100000Z", "2026-13-20T10:00:00Z", "2026-11-20T25:00:00Z",
     "２026-11-20T10:00:00Z", "2026-11-20T10:00:00Z\n", "2026-11-20 10:00:00Z", 7, None, 1.5],
)  # fmt: skip
def test_what_is_no_instant_is_refused(text: object) -> None:
    assert DATE_TIME.parse_value is not None
    with pytest.raises(ValueError, match=r"DateTime|instant"):
        DATE_TIME.parse_value(text)
