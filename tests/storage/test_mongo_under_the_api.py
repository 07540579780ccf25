"""The API over a MongoDB: what is added is there, and a server that is silent makes it UNAVAILABLE, not wrong."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mongod import Mongod, running_mongod
from served_api import ServedApi, served_api
from supervised import until

from appliance.configuration import Configuration

BOUND_S = 10.0
"""An answer within this while the server is silent, and the right one within this once it is back."""


@pytest.fixture
def server() -> Iterator[Mongod]:
    with running_mongod() as server:
        yield server


@pytest.fixture
def api(server: Mongod, tmp_path: Path) -> Iterator[ServedApi]:
    config = Configuration(hostname="mx.onward.test", data_dir=tmp_path / "var")
    with served_api(replace(config, store=replace(config.store, url=server.url_of("onward")))) as served:
        yield served


ASK = "{ accounts { edges { node { email } } } }"


def test_a_server_that_is_silent_makes_the_api_unavailable_for_as_long(server: Mongod, api: ServedApi) -> None:
    with api.operator() as operator:
        api.rooms.accounts.add("ann@example.org")
        wanted = {"accounts": {"edges": [{"node": {"email": "ann@example.org"}}]}}
        assert operator.data(ASK) == wanted
        server.freeze()
        began = time.monotonic()
        assert operator.ask(ASK).codes == ["UNAVAILABLE"]
        assert time.monotonic() - began < BOUND_S
        server.thaw()
        began = time.monotonic()
        until(lambda: operator.ask(ASK).json.get("data") == wanted, "the right answer comes")
        assert time.monotonic() - began < BOUND_S
