"""The contract of the ephemeral store, for every backend: what is remembered, for how long, and how much of it."""

import threading
from collections.abc import Callable, Iterator

import pytest
from redis_server import PrivateRedis, missing

from appliance.model.time import parse_duration
from appliance.privacy.declarations import (
    DELIVERIES,
    Collection,
    Field,
    Kind,
    Protection,
    Retention,
    Store,
    collections_of,
)
from appliance.storage.codec import RowRefused
from appliance.storage.ephemeral import COUNT, EphemeralStore, packed, unpacked
from appliance.storage.memory_ephemeral import MemoryEphemeral
from appliance.storage.redis_ephemeral import RedisEphemeral
from appliance.storage.redis_server import RedisServer


def declared(name: str, lifetime: str, at_most: int, *sealed: str, group: str = "", counts: bool = False) -> Collection:
    """A collection for these tests."""
    fields = [Field(each, Kind.OCTETS, Protection.KEYED) for each in ("key", group) if each]
    fields += [Field(each, protection=Protection.SEALED) for each in sealed]
    fields += [Field(COUNT, Kind.INTEGER)] if counts else []
    retention = (Retention(lifetime, since="remembered_at"),)
    return Collection(
        name, Store.EPHEMERAL, "for a test", tuple(fields), retention=retention, at_most=at_most, group=group
    )


FEW = declared("few", "10s", 3, "word")
MANY = declared("many", "1m", 1000, "word", "other")
BARE = declared("bare", "1m", 1000)
GROUPED = declared("grouped", "10s", 3, "word", group="owner_key")
COUNTED = declared("counted", "10s", 3, counts=True)


DECLARED = (FEW, MANY, BARE, GROUPED, COUNTED)


class Clock:
    """Shows what it is told, in seconds. A server has a clock of its own, and is told how much time has passed."""

    def __init__(self) -> None:
        self._now = 100.0
        self.told: Callable[[float], None] = lambda seconds: None

    def __call__(self) -> float:
        return self._now

    @property
    def now(self) -> float:
        return self._now

    @now.setter
    def now(self, now: float) -> None:
        self.told(now - self._now)
        self._now = now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest, clock: Clock) -> Iterator[EphemeralStore]:
    if request.param == "memory":
        yield MemoryEphemeral(clock, DECLARED)
        return
    if missing():
        pytest.skip(missing())
    server: PrivateRedis = request.getfixturevalue("redis")
    clock.told = server.pass_time
    store = RedisEphemeral(RedisServer(server.address), DECLARED)
    yield store
    store.close()


def test_what_is_remembered_is_recalled_as_often_as_one_likes(store: EphemeralStore) -> None:
    store.remember(MANY, b"key", b"value")
    assert store.recall(MANY, b"key") == b"value"
    assert store.recall(MANY, b"key") == b"value"


def test_a_store_that_can_be_reached_says_so(store: EphemeralStore) -> None:
    store.check()


def test_what_was_never_there_is_none(store: EphemeralStore) -> None:
    assert store.recall(MANY, b"key") is None
    assert store.forget(MANY, b"key") is None


def test_an_empty_value_is_there_nevertheless(store: EphemeralStore) -> None:
    store.remember(BARE, b"key")
    assert store.recall(BARE, b"key") == b""
    assert store.forget(BARE, b"key") == b""


@pytest.mark.parametrize("what", [DELIVERIES, declared("others", "1m", 10, "word"), declared("few", "1h", 3, "word")])
def test_what_is_not_declared_is_refused(store: EphemeralStore, what: Collection) -> None:
    with pytest.raises(RowRefused):
        store.remember(what, b"key", b"value")
    with pytest.raises(RowRefused):
        store.recall(what, b"key")
    with pytest.raises(RowRefused):
        store.forget(what, b"key")


@pytest.mark.parametrize(("what", "value"), [(BARE, b"value"), (FEW, b"")], ids=["one too many", "one too few"])
def test_a_value_is_there_where_a_sealed_field_is_declared(
    store: EphemeralStore, what: Collection, value: bytes
) -> None:
    with pytest.raises(RowRefused):
        store.remember(what, b"key", value)


@pytest.mark.parametrize(
    "row", [{}, {"word": "a"}, {"word": "a", "other": "b", "more": "c"}, {"word": "a", "more": "c"}]
)
def test_a_value_is_made_of_the_declared_fields_and_no_others(row: dict[str, str]) -> None:
    with pytest.raises(RowRefused):
        packed(MANY, row)
    assert unpacked(MANY, packed(MANY, {"other": "\u00e4", "word": "a"})) == {"word": "a", "other": "\u00e4"}
    assert packed(BARE, {}) == b""


@pytest.mark.parametrize("what", collections_of(Store.EPHEMERAL), ids=lambda what: what.name)
def test_all_that_is_declared_is_keyed_and_sealed_has_an_end_and_a_bound(what: Collection) -> None:
    (retention,) = what.retention
    assert parse_duration(retention.setting) > 0
    assert what.at_most > 0
    assert [what.field(name).protection for name in what.key] == [Protection.KEYED]
    assert {field.name for field in what.protected(Protection.CLEAR)} - {COUNT} == {retention.since}
    assert not what.group or what.field(what.group).protection is Protection.KEYED


def test_classes_do_not_see_each_other(store: EphemeralStore) -> None:
    store.remember(MANY, b"key", b"value")
    assert store.recall(FEW, b"key") is None


def test_keys_and_values_are_any_octets(store: EphemeralStore) -> None:
    everything = bytes(range(256))
    store.remember(MANY, everything, everything[::-1])
    assert store.recall(MANY, everything) == everything[::-1]


def test_it_is_gone_at_the_end_of_its_lifetime_and_not_before(store: EphemeralStore, clock: Clock) -> None:
    store.remember(FEW, b"key", b"value")
    clock.now += 9
    assert store.recall(FEW, b"key") == b"value"
    clock.now += 1.001
    assert store.recall(FEW, b"key") is None
    assert store.forget(FEW, b"key") is None


def test_remembering_once_more_begins_anew_with_the_new_value(store: EphemeralStore, clock: Clock) -> None:
    store.remember(FEW, b"key", b"old")
    store.remember(FEW, b"other", b"other")
    clock.now += 9
    store.remember(FEW, b"key", b"new")
    clock.now += 9
    assert store.recall(FEW, b"key") == b"new"
    assert store.recall(FEW, b"other") is None


def test_beyond_the_bound_the_oldest_is_forgotten(store: EphemeralStore) -> None:
    for number in range(10):
        store.remember(FEW, b"%d" % number, b"value")
    assert [store.recall(FEW, b"%d" % number) is not None for number in range(10)] == [False] * 7 + [True] * 3


def test_a_forgotten_one_makes_room_for_another(store: EphemeralStore) -> None:
    for key in (b"a", b"b", b"c"):
        store.remember(FEW, key, b"value")
    store.forget(FEW, b"b")
    store.remember(FEW, b"d", b"value")
    assert store.recall(FEW, b"a") is not None


def test_of_many_who_forget_at_once_one_gets_the_value(store: EphemeralStore) -> None:
    for round in range(50):
        store.remember(MANY, b"%d" % round, b"value")
        got: list[bytes | None] = []
        start = threading.Barrier(4)

        def take(key: bytes, got: list[bytes | None] = got, start: threading.Barrier = start) -> None:
            start.wait()
            got.append(store.forget(MANY, key))

        threads = [threading.Thread(target=take, args=(b"%d" % round,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (got.count(b"value"), got.count(None)) == (1, 3)


def test_what_is_renewed_is_there_longer_and_what_is_gone_stays_so(store: EphemeralStore, clock: Clock) -> None:
    store.remember(FEW, b"key", b"old")
    clock.now += 9
    assert store.renew(FEW, b"key", b"new")
    clock.now += 9
    assert store.recall(FEW, b"key") == b"new"
    clock.now += 2
    assert not store.renew(FEW, b"key", b"newer")
    assert store.recall(FEW, b"key") is None


def test_those_of_a_group_are_found_together_as_long_as_they_are_there(store: EphemeralStore, clock: Clock) -> None:
    store.remember(GROUPED, b"a", b"1", b"ada")
    store.remember(GROUPED, b"b", b"2", b"bob")
    clock.now += 5
    store.remember(GROUPED, b"c", b"3", b"ada")
    assert store.recall_group(GROUPED, b"ada") == {b"a": b"1", b"c": b"3"}
    assert store.renew(GROUPED, b"a", b"4")
    assert list(store.recall_group(GROUPED, b"ada").items()) == [(b"c", b"3"), (b"a", b"4")]
    store.forget(GROUPED, b"c")
    assert store.recall_group(GROUPED, b"ada") == {b"a": b"4"}
    clock.now += 6
    assert store.recall_group(GROUPED, b"bob") == {}
    clock.now += 6
    assert store.recall_group(GROUPED, b"ada") == {}


def test_what_moves_to_another_group_is_in_that_alone(store: EphemeralStore) -> None:
    store.remember(GROUPED, b"a", b"1", b"ada")
    store.remember(GROUPED, b"a", b"1", b"bob")
    assert store.recall_group(GROUPED, b"ada") == {}
    assert store.recall_group(GROUPED, b"bob") == {b"a": b"1"}


def test_who_is_forgotten_for_want_of_room_leaves_its_group(store: EphemeralStore) -> None:
    for number in range(5):
        store.remember(GROUPED, b"%d" % number, b"value", b"ada")
    assert list(store.recall_group(GROUPED, b"ada")) == [b"2", b"3", b"4"]


def test_counting_begins_anew_some_time_after_the_first(store: EphemeralStore, clock: Clock) -> None:
    assert store.counted(COUNTED, b"key") == 0
    assert store.count(COUNTED, b"key") == 1
    clock.now += 9
    assert store.count(COUNTED, b"key") == 2
    assert store.counted(COUNTED, b"key") == 2
    clock.now += 1.001
    assert store.counted(COUNTED, b"key") == 0
    assert store.count(COUNTED, b"key") == 1
    store.forget(COUNTED, b"key")
    assert store.counted(COUNTED, b"key") == 0


def test_of_many_who_count_at_once_each_gets_a_number_of_its_own(store: EphemeralStore) -> None:
    got: list[int] = []
    start = threading.Barrier(4)

    def count() -> None:
        start.wait()
        for _ in range(100):
            got.append(store.count(COUNTED, b"key"))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(1, 401))


def test_what_counts_is_only_counted_and_what_is_grouped_has_a_group(store: EphemeralStore) -> None:
    for attempt in (
        lambda: store.remember(COUNTED, b"key"),
        lambda: store.renew(COUNTED, b"key", b""),
        lambda: store.count(FEW, b"key"),
        lambda: store.counted(FEW, b"key"),
        lambda: store.remember(GROUPED, b"key", b"value"),
        lambda: store.remember(FEW, b"key", b"value", b"group"),
        lambda: store.recall_group(FEW, b"group"),
    ):
        with pytest.raises(RowRefused):
            attempt()
