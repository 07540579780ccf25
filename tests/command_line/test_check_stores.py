"""What `onward check` says of the servers that nodes share: real ones, as they are and as they should not be."""

import importlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line_desk import Desk
from mongod import Mongod, running_mongod
from redis_server import PrivateRedis

check_stores = importlib.import_module("appliance.command_line.check_stores")


@pytest.fixture(scope="module")
def mongod() -> Iterator[Mongod]:
    with running_mongod() as server:
        yield server


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRedis]:
    with PrivateRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


def found(desk: Desk, name: str) -> dict[str, object]:
    """What it says under this name."""
    lines = [json.loads(line) for line in desk.type("check", "--json").stdout.splitlines()]
    (finding,) = [each for each in lines if each["check"] == name]
    return dict(finding)


def shares(desk: Desk, mongod: Mongod, more: str = "") -> None:
    desk.configure(f'[store]\nurl = "{mongod.url_of("checked")}"\n{more}')


def test_a_machine_by_itself_shares_nothing(desk: Desk) -> None:
    assert [found(desk, name)["grade"] for name in ("MongoDB", "Redis", "nodes")] == ["ok", "ok", "ok"]


def test_a_mongodb_that_stands_alone_is_a_risk(desk: Desk, mongod: Mongod) -> None:
    shares(desk, mongod)
    finding = found(desk, "MongoDB")
    assert finding["grade"] == "warning"
    assert "6.0" in str(finding["detail"])
    assert "stands alone" in str(finding["detail"])
    assert found(desk, "Redis")["grade"] == "warning", "each node has sessions of its own"
    assert found(desk, "nodes")["grade"] == "warning", "each has rewritten senders of its own"
    assert found(desk, "record store")["grade"] == "ok"


def test_a_replica_set_of_one_is_told_from_one_of_three(desk: Desk) -> None:
    with running_mongod(replica_set=True) as server:
        shares(desk, server)
        assert "a replica set of 1" in str(found(desk, "MongoDB")["detail"])


def test_a_user_of_the_mongodb_needs_no_right_to_look_at_the_server(desk: Desk, mongod: Mongod) -> None:
    shares(desk, mongod)
    with mongod.failing(["serverStatus"], errorCode=13, appName="onward"):
        finding = found(desk, "MongoDB")
    assert finding["grade"] == "warning"
    assert re.fullmatch(r"6\.0\.\d+: it stands alone", str(finding["detail"])), finding


def test_a_mongodb_that_is_away_lets_no_mail_in(desk: Desk) -> None:
    desk.configure('[store]\nurl = "mongodb://127.0.0.1:1/onward"')
    checked = desk.type("check", "--json")
    assert checked.exit_code == 1
    grades = {each["check"]: each["grade"] for each in map(json.loads, checked.stdout.splitlines())}
    assert grades["MongoDB"] == "fault"
    assert "record store" not in grades, "it would wait once more, to say the same"


def test_one_srs_domain_for_all_is_right(desk: Desk, mongod: Mongod) -> None:
    shares(desk, mongod, '[forwarding]\nsrs_domain = "srs.example.org"')
    assert found(desk, "nodes")["grade"] == "ok"


@pytest.mark.parametrize(("ahead_s", "words"), [(60, "60.0 s ahead of"), (-60, "60.0 s behind")])
def test_a_clock_that_is_wrong_is_told(
    desk: Desk, mongod: Mongod, monkeypatch: pytest.MonkeyPatch, ahead_s: int, words: str
) -> None:
    shares(desk, mongod)
    assert found(desk, "clock")["grade"] == "ok"
    right = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: right() + ahead_s * 1_000_000_000)
    finding = found(desk, "clock")
    assert finding["grade"] == "warning"
    assert words in str(finding["detail"])
    assert "synchronised" in str(finding["advice"])


def test_a_redis_in_memory_alone_is_right(desk: Desk, redis: PrivateRedis) -> None:
    desk.configure(f'[store]\nephemeral = "{redis.url}"')
    finding = found(desk, "Redis")
    assert (finding["grade"], finding["detail"]) == ("ok", f"{check_version(redis)}, in memory alone")


@pytest.mark.parametrize(
    ("setting", "value", "before", "words"),
    [
        ("save", "3600 1", "", "writes what it has to a file"),
        ("appendonly", "yes", "no", "writes what it has to a file"),
        ("maxmemory-policy", "allkeys-lru", "noeviction", "forgets what it should keep"),
    ],
)
def test_a_redis_that_keeps_or_forgets_is_told(
    desk: Desk, redis: PrivateRedis, setting: str, value: str, before: str, words: str
) -> None:
    desk.configure(f'[store]\nephemeral = "{redis.url}"')
    redis.ask("CONFIG", "SET", setting, value)
    try:
        finding = found(desk, "Redis")
    finally:
        redis.ask("CONFIG", "SET", setting, before)
    assert finding["grade"] == "warning"
    assert words in str(finding["detail"])


def test_a_redis_that_is_too_old_is_told(desk: Desk, redis: PrivateRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_stores, "OLDEST_REDIS", (99, 0))
    desk.configure(f'[store]\nephemeral = "{redis.url}"')
    assert "use 99.0 or later" in str(found(desk, "Redis")["advice"])


def test_a_redis_that_tells_nothing_of_itself_will_do(desk: Desk, redis: PrivateRedis) -> None:
    redis.ask("ACL", "SETUSER", "default", "-info", "-config")
    try:
        desk.configure(f'[store]\nephemeral = "{redis.url}"')
        assert found(desk, "Redis")["grade"] == "ok"
    finally:
        redis.ask("ACL", "SETUSER", "default", "+@all")


def test_a_redis_that_is_away_stops_no_mail(desk: Desk, tmp_path: Path) -> None:
    desk.configure('[store]\nephemeral = "redis://127.0.0.1:1/0"')
    finding = found(desk, "Redis")
    assert finding["grade"] == "warning"
    assert "nobody can sign in" in str(finding["advice"])


def check_version(redis: PrivateRedis) -> str:
    """As the server itself says it."""
    return str(redis.ask("INFO", "server")["redis_version"])
