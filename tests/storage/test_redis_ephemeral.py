"""What the ephemeral store leaves on a Redis: for how long, under which names, how much; and that nodes share it."""

import threading
from collections.abc import Iterator

import pytest
from appliance_process import eventually
from redis_server import PrivateRedis

from appliance.privacy.declarations import SESSIONS, Collection, Field, Kind, Protection, Retention, Store
from appliance.storage.ephemeral import COUNT
from appliance.storage.redis_ephemeral import LONGEST_GROUP, RedisEphemeral
from appliance.storage.redis_server import RedisServer


def declared(name: str, lifetime: str, at_most: int, *fields: Field, group: str = "") -> Collection:
    """A collection for these tests."""
    retention = (Retention(lifetime, since="remembered_at"),)
    key = Field("key", Kind.OCTETS, Protection.KEYED)
    return Collection(
        name, Store.EPHEMERAL, "for a test", (key, *fields), retention=retention, at_most=at_most, group=group
    )


WORD = Field("word", protection=Protection.SEALED)
BRIEF = declared("brief", "300ms", 5, WORD)
GROUPED = declared("grouped", "1m", 5, WORD, Field("owner", Kind.OCTETS, Protection.KEYED), group="owner")
COUNTED = declared("counted", "1m", 5, Field(COUNT, Kind.INTEGER))
MANY = declared("many", "1m", 1000, WORD)
DECLARED = (BRIEF, GROUPED, COUNTED, MANY)


@pytest.fixture
def stores(redis: PrivateRedis) -> Iterator[list[RedisEphemeral]]:
    """Two nodes with one Redis."""
    both = [RedisEphemeral(RedisServer(redis.address), DECLARED) for _ in range(2)]
    yield both
    for store in both:
        store.close()


@pytest.fixture
def store(stores: list[RedisEphemeral]) -> RedisEphemeral:
    """One of them."""
    return stores[0]


def names(redis: PrivateRedis) -> set[bytes]:
    """Of all that lies there."""
    return set(redis.ask("KEYS", "*"))


def test_the_server_itself_forgets_with_nobody_asking(redis: PrivateRedis, store: RedisEphemeral) -> None:
    store.remember(BRIEF, b"key", b"value")
    assert names(redis) == {b"onward:brief:is:key", b"onward:brief:order"}
    eventually(lambda: not names(redis))
    assert store.recall(BRIEF, b"key") is None


def test_names_have_the_collection_and_the_key_and_everything_has_an_end(
    redis: PrivateRedis, store: RedisEphemeral
) -> None:
    store.remember(GROUPED, b"\x00\xff", b"value", b"\x01\xfe")
    store.count(COUNTED, b"\x02\xfd")
    store.count(COUNTED, b"\x02\xfd")
    assert names(redis) == {
        b"onward:grouped:is:\x00\xff",
        b"onward:grouped:of:\x01\xfe",
        b"onward:grouped:order",
        b"onward:counted:is:\x02\xfd",
        b"onward:counted:order",
    }
    for name in names(redis):
        assert 0 < redis.ask("PTTL", name) <= 60_000


def test_what_is_forgotten_leaves_nothing_behind(redis: PrivateRedis, store: RedisEphemeral) -> None:
    store.remember(GROUPED, b"key", b"value", b"ada")
    store.count(COUNTED, b"key")
    store.forget(GROUPED, b"key")
    store.forget(COUNTED, b"key")
    assert names(redis) == set()


def test_counting_without_end_leaves_no_more_than_the_bound(redis: PrivateRedis, store: RedisEphemeral) -> None:
    for number in range(100):
        store.count(COUNTED, b"%d" % number)
        store.remember(GROUPED, b"%d" % number, b"value", b"owner %d" % number)
    assert redis.ask("ZCARD", "onward:counted:order") == 5
    assert len(names(redis)) == 5 + 1 + (5 + 5 + 1)


def test_what_has_ended_makes_room_before_what_has_not(redis: PrivateRedis, store: RedisEphemeral) -> None:
    for key in (b"a", b"b"):
        store.remember(GROUPED, key, b"value", b"ada")
    redis.pass_time(59)
    for key in (b"c", b"d", b"e"):
        store.remember(GROUPED, key, b"value", b"ada")
    redis.pass_time(2)
    store.remember(GROUPED, b"f", b"value", b"ada")
    assert list(store.recall_group(GROUPED, b"ada")) == [b"c", b"d", b"e", b"f"]
    assert redis.ask("ZCARD", "onward:grouped:order") == 4
    assert redis.ask("ZCARD", "onward:grouped:of:ada") == 4


def test_where_the_server_has_lost_its_lists_all_goes_on(redis: PrivateRedis, store: RedisEphemeral) -> None:
    """As it may where the operator lets it evict what it likes."""
    store.remember(GROUPED, b"a", b"1", b"ada")
    redis.ask("DEL", "onward:grouped:order", "onward:grouped:of:ada")
    assert store.recall(GROUPED, b"a") == b"1"
    assert store.renew(GROUPED, b"a", b"2")
    assert store.recall_group(GROUPED, b"ada") == {b"a": b"2"}
    assert store.forget(GROUPED, b"a") == b"2"
    assert names(redis) == set()


def test_what_is_later_stays_later_when_the_clock_of_the_server_is_set_back(
    redis: PrivateRedis, store: RedisEphemeral
) -> None:
    store.remember(GROUPED, b"a", b"1", b"ada")
    for name in ("onward:grouped:order", "onward:grouped:of:ada"):
        # As one would find it who comes a day too early.
        redis.ask("ZINCRBY", name, 86_400_000_000, "a")
    for key in (b"b", b"c", b"d", b"e", b"f"):
        store.remember(GROUPED, key, b"1", b"ada")
    assert list(store.recall_group(GROUPED, b"ada")) == [b"b", b"c", b"d", b"e", b"f"]


def test_the_declared_collections_are_those_of_the_appliance(redis: PrivateRedis) -> None:
    store = RedisEphemeral(RedisServer(redis.address))
    store.remember(SESSIONS, b"cookie", b"sealed", b"account")
    assert store.recall_group(SESSIONS, b"account") == {b"cookie": b"sealed"}
    store.close()


def test_a_group_too_long_to_be_written_down_is_a_defect(store: RedisEphemeral) -> None:
    store.remember(GROUPED, b"a", b"1", bytes(LONGEST_GROUP))
    assert store.recall_group(GROUPED, bytes(LONGEST_GROUP)) == {b"a": b"1"}
    with pytest.raises(ValueError, match="256"):
        store.remember(GROUPED, b"a", b"1", bytes(LONGEST_GROUP + 1))


def test_what_one_node_remembers_another_knows_and_renews_and_forgets(stores: list[RedisEphemeral]) -> None:
    here, there = stores
    here.remember(MANY, b"key", b"old")
    assert there.renew(MANY, b"key", b"new")
    assert here.recall(MANY, b"key") == b"new"
    assert there.forget(MANY, b"key") == b"new"
    assert here.recall(MANY, b"key") is None


def test_of_two_nodes_that_count_and_forget_at_once_each_gets_its_own(stores: list[RedisEphemeral]) -> None:
    for number in range(100):
        stores[0].remember(MANY, b"%d" % number, b"value")
    counted: list[int] = []
    taken: list[bytes] = []
    start = threading.Barrier(4)

    def work(store: RedisEphemeral) -> None:
        start.wait()
        for number in range(100):
            counted.append(store.count(COUNTED, b"key"))
            taken.extend(b"%d" % number for value in [store.forget(MANY, b"%d" % number)] if value)

    threads = [threading.Thread(target=work, args=(store,)) for store in stores * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counted) == list(range(1, 401))
    assert sorted(taken) == sorted(b"%d" % number for number in range(100))
