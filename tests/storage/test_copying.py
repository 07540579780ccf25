"""Copying a record store into another, broken off anywhere, and told truly."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_backends import BACKENDS, Backend
from stored_values import an_event

from appliance.privacy.declarations import ACCOUNTS, DOMAINS, EVENTS, Collection, Store, collections_of
from appliance.storage import copying
from appliance.storage.copying import NotAlike, TargetInUse, contents, copy, is_unfinished
from appliance.storage.event_rows import event_to_row
from appliance.storage.records import Delete, Insert, Page, Raise, RecordStore, StoredRow, StoreUnavailable, Update

ROWS = 25


@pytest.fixture
def backends(tmp_path: Path) -> Iterator[tuple[Backend, Backend]]:
    made = tuple(BACKENDS["sqlite"](tmp_path / side) for side in ("source", "target"))
    yield made[0], made[1]
    for each in made:
        each.close()


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "PAGE_ROWS", 4)


def account(number: int, **changes: object) -> dict[str, object]:
    row: dict[str, object] = {
        "id": f"{number:020x}",
        "email": f"{number}@people.test",
        "email_verified": True,
        "role": "MEMBER",
        "plan": "free",
        "created_at": number,
    }
    return row | changes


def filled(records: RecordStore) -> RecordStore:
    records.apply([Insert(ACCOUNTS, account(number)) for number in range(ROWS)])
    records.apply([Insert(EVENTS, event_to_row(an_event(number))) for number in range(1, ROWS)])
    records.apply([Raise("routing"), Raise("routing")])
    return records


def quietly(collection: Collection, seen: int, brought: int) -> None:
    """Nobody listens."""


def test_both_have_the_same_afterwards_and_it_opens_as_before(backends: tuple[Backend, Backend]) -> None:
    source, target = filled(backends[0].records()), backends[1].records()
    told: list[tuple[str, int, int]] = []
    found = copy(source, target, lambda collection, seen, brought: told.append((collection.name, seen, brought)))
    assert (found["accounts"].rows, found["events"].rows, found["generations"].rows) == (ROWS, ROWS - 1, 1)
    assert found.keys() == {each.name for each in collections_of(Store.RECORDS)}
    for collection in collections_of(Store.RECORDS):
        assert target.find(collection, {}) == source.find(collection, {})
    assert target.generation("routing") == 2
    assert not is_unfinished(target)
    assert ("accounts", ROWS, ROWS) in told


def test_no_key_is_needed(backends: tuple[Backend, Backend]) -> None:
    filled(backends[0].records())
    copy(backends[0].records({}), backends[1].records({}), quietly)
    assert len(backends[1].records().find(EVENTS, {})) == ROWS - 1


def test_a_target_with_rows_of_its_own_is_left_alone(backends: tuple[Backend, Backend]) -> None:
    source, target = filled(backends[0].records()), backends[1].records()
    target.apply([Insert(ACCOUNTS, account(99))])
    with pytest.raises(TargetInUse, match="accounts"):
        copy(source, target, quietly)
    assert target.find(ACCOUNTS, {}) == [account(99, password_hash=None, password_changed_at=None)]


@pytest.mark.parametrize("writes", range(14))
def test_what_was_broken_off_is_finished_by_beginning_again(
    backends: tuple[Backend, Backend], monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    source, target = filled(backends[0].records()), backends[1].records()
    left = writes

    def breaking(collection: Collection, rows: list[StoredRow]) -> None:
        nonlocal left
        if left == 0:
            raise StoreUnavailable("the target has gone away")
        left -= 1
        type(target).import_stored(target, collection, rows)

    with monkeypatch.context() as patch:
        patch.setattr(target, "import_stored", breaking)
        with pytest.raises(StoreUnavailable):
            copy(source, target, quietly)
    assert is_unfinished(target)
    # The source goes on meanwhile: what is there already may be old.
    source.apply(
        [
            Update(ACCOUNTS, {"id": f"{1:020x}"}, {"plan": "premium"}),
            Delete(ACCOUNTS, {"id": f"{0:020x}"}),
            Insert(ACCOUNTS, account(77)),
        ]
    )
    brought: dict[str, int] = {}
    copy(source, target, lambda collection, seen, count: brought.update({collection.name: count}))
    assert not is_unfinished(target)
    assert target.find(ACCOUNTS, {}) == source.find(ACCOUNTS, {})
    assert brought["accounts"] <= max(2, ROWS - 4 * writes + 4), "what was there and right is not written again"


def test_what_changes_on_one_side_meanwhile_is_told(
    backends: tuple[Backend, Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = filled(backends[0].records()), backends[1].records()

    def meddle(collection: Collection, seen: int, brought: int) -> None:
        if collection is ACCOUNTS and seen == ROWS:
            source.apply([Insert(ACCOUNTS, account(500))])

    with pytest.raises(NotAlike, match="accounts is not the same"):
        copy(source, target, meddle)
    assert is_unfinished(target)
    copy(source, target, quietly)
    assert contents(target, ACCOUNTS) == contents(source, ACCOUNTS)


def test_contents_differ_where_anything_does(backends: tuple[Backend, Backend]) -> None:
    one, other = (backend.records() for backend in backends)
    for records in (one, other):
        records.apply([Insert(ACCOUNTS, account(1))])
    assert contents(one, ACCOUNTS) == contents(other, ACCOUNTS)
    assert contents(one, DOMAINS) == contents(other, DOMAINS)
    other.apply([Update(ACCOUNTS, {"id": f"{1:020x}"}, {"email_verified": False})])
    assert contents(one, ACCOUNTS) != contents(other, ACCOUNTS)


def test_rows_as_they_stand_come_page_by_page(backends: tuple[Backend, Backend]) -> None:
    records = filled(backends[0].records())
    ids: list[str] = []
    while rows := records.stored(ACCOUNTS, Page(after=ids[-1] if ids else None, limit=7)):
        ids += [str(row["id"]) for row in rows]
    assert ids == [f"{number:020x}" for number in range(ROWS)]
    (last,) = records.stored(ACCOUNTS, Page(limit=1, newest_first=True))
    assert last["id"] == ids[-1]
