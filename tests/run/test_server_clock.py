"""The clock of the server that nodes share: it goes on by itself, and each answer puts it right."""

import time

import pytest
from mongod import Mongod
from storage_backends import MongoBackend

from appliance.model.time import HOUR_MS, MINUTE_MS, wall_clock
from appliance.run.server_clock import ServerClock, clock_ahead_ms
from appliance.storage.mongo_database import MongoDatabase
from appliance.storage.records import StoreUnavailable

NOON = 1_800_000_000_000


class Server:
    """Its time goes by as ours does; an answer takes so many milliseconds, half of them on the way there."""

    def __init__(self) -> None:
        self.elapsed = 5000
        self.ahead = NOON
        self.takes = 0
        self.is_away = False

    def ask(self) -> int:
        """What the server answers."""
        if self.is_away:
            raise StoreUnavailable("away")
        self.elapsed += self.takes // 2
        answer = self.elapsed + self.ahead
        self.elapsed += self.takes - self.takes // 2
        return answer

    def clock(self) -> ServerClock:
        """One that goes by it."""
        return ServerClock(self.ask, lambda: self.elapsed)


def test_it_goes_on_between_two_answers_and_without_any() -> None:
    server = Server()
    clock = server.clock()
    server.elapsed += HOUR_MS
    assert clock() == server.ask()
    server.is_away = True
    with pytest.raises(StoreUnavailable):
        clock.look()
    server.elapsed += HOUR_MS
    server.is_away = False
    assert clock() == server.ask()


def test_a_slow_answer_that_says_nothing_new_changes_nothing() -> None:
    server = Server()
    clock = server.clock()
    server.takes = 400
    server.ahead += 150
    clock.look()
    server.takes = 0
    assert clock() == server.ask() - 150, "it may have been said at any moment in these"
    clock.look()
    assert clock() == server.ask()


def test_another_server_behind_a_failover_is_followed() -> None:
    server = Server()
    clock = server.clock()
    for step in (MINUTE_MS, -HOUR_MS):
        server.ahead += step
        clock.look()
        assert clock() == server.ask()


def test_a_real_server_agrees_with_the_machine_that_it_is_on(mongod: Mongod) -> None:
    place = MongoBackend(mongod)
    database = MongoDatabase(place.url, ())
    try:
        assert abs(ServerClock(database.now)() - wall_clock()) < 1000
        assert abs(clock_ahead_ms(database.now)) < 1000
        assert abs(clock_ahead_ms(database.now, lambda: wall_clock() - MINUTE_MS) + MINUTE_MS) < 1000
    finally:
        database.close()
        place.close()


def test_each_node_says_by_how_much_its_clock_is_wrong(mongod: Mongod, monkeypatch: pytest.MonkeyPatch) -> None:
    place = MongoBackend(mongod)
    try:
        right = place.spool(node="right")
        with monkeypatch.context() as changed:
            true = time.time_ns
            changed.setattr(time, "time_ns", lambda: true() + MINUTE_MS * 1_000_000)
            wrong = place.spool(node="wrong")
        found = {each.name: each.clock_ahead_ms for each in right.nodes()}
        assert abs(found["right"]) < 1000
        assert abs(found["wrong"] - MINUTE_MS) < 1000
        wrong.renew()
        found = {each.name: each.clock_ahead_ms for each in right.nodes()}
        assert abs(found["wrong"]) < 1000, "it has been put right, and the next sign of life says so"
    finally:
        place.close()
