"""The map of which changed copies share what has not changed."""

import random

import pytest

from appliance.routing.shared_map import SharedMap


@pytest.mark.parametrize("seed", range(20))
def test_changed_copies_hold_what_a_dict_would(seed: int) -> None:
    chance = random.Random(seed)
    model: dict[str, int] = {}
    table: SharedMap[int] = SharedMap()
    earlier: list[tuple[SharedMap[int], dict[str, int]]] = []
    for _ in range(60):
        earlier.append((table, dict(model)))
        removed = [str(chance.randrange(3000)) for _ in range(chance.randrange(20))]
        added = {str(chance.randrange(3000)): chance.randrange(9) for _ in range(chance.choice((0, 1, 30, 900)))}
        for key in removed:
            model.pop(key, None)
        model.update(added)
        table = table.changed(removed, added.items(), expected=chance.choice((0, len(added))))
        assert dict(table) == model
        assert len(table) == len(model)
        assert all((str(number) in table) == (str(number) in model) for number in range(0, 3000, 7))
    for copy, then in earlier:
        assert dict(copy) == then, "a copy is never changed by what comes after it"


def test_where_nothing_changes_it_is_the_same_object() -> None:
    table = SharedMap([("a", 1), ("b", 2)])
    assert table.changed(["c"], [("a", 1)]) is table
    assert table.changed(["a"], []) is not table


def test_what_was_removed_and_is_added_at_once_is_there() -> None:
    assert dict(SharedMap([("a", 1)]).changed(["a"], [("a", 2)])) == {"a": 2}


def test_a_change_copies_little_of_a_large_map() -> None:
    """What is shared is not copied: the dicts that hold the rest are the same objects."""
    table = SharedMap(((str(number), number) for number in range(100_000)), expected=100_000)
    changed = table.changed(["7"], [("new", 1)])
    before, after = ({id(part): len(part) for part in each._parts} for each in (table, changed))
    assert sum(count for part, count in after.items() if part not in before) < 500
