"""An appliance moves from the files of one machine to a MongoDB, and back, with all it knows."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from appliance_process import Appliance, eventually
from control_api.operation_files import operation
from graphql_client import GraphqlClient
from mongod import Mongod, running_mongod
from world import World

PASSWORD = "correct horse battery staple"
ALIAS, MAILBOX = "info@moves.test", "ada.box@dest.test"


@pytest.fixture(scope="module")
def mongod() -> Iterator[Mongod]:
    with running_mongod(replica_set=True) as server:
        yield server


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, {ALIAS: [MAILBOX]}) as world:
        added = world.appliance.cli("account", "add", "ada@people.test", "--password-stdin", stdin=PASSWORD)
        assert added.status == 0
        yield world
        assert world.objections() == []


def token_of(appliance: Appliance) -> str:
    with GraphqlClient(appliance.http_port) as client:
        assert client.data(operation("sign_in"), email="ada@people.test", password=PASSWORD)["signIn"]["errors"] == []
        made = client.data(operation("create_api_token"), name="moving", scopes=["READ"])["createApiToken"]
        token: str = made["secret"]
        return token


def who_is(appliance: Appliance, token: str) -> str:
    with GraphqlClient(appliance.http_port, token=token) as client:
        email: str = client.data("{ viewer { email } }")["viewer"]["email"]
        return email


def test_it_goes_on_where_it_was_on_either_store(world: World, mongod: Mongod, tmp_path: Path) -> None:
    appliance, url = world.appliance, mongod.url_of("moved")
    token = token_of(appliance)
    assert world.send(ALIAS).code == 250
    world.arrived(MAILBOX)
    eventually(lambda: len(appliance.log_events()) == 2, what="the log of it")
    log = appliance.log_events()

    running = appliance.cli("store", "copy", "sqlite:", url)
    assert running.status == 1
    assert "another appliance runs" in running.err
    assert appliance.stop() == 0
    copied = appliance.done("store", "copy", "sqlite:", url, "--json").json
    assert copied["collections"]["aliases"]["rows"] == 1
    assert {"log", "accounts", "srs"} <= set(copied["keys"])
    assert copied["waiting"] == 0

    appliance.configure({"store": {"url": url}})
    appliance.start()
    assert who_is(appliance, token) == "ada@people.test"
    assert appliance.log_events() == log
    assert world.send(ALIAS).code == 250
    world.arrived(MAILBOX, 2)
    eventually(lambda: len(appliance.log_events()) == 4, what="the log of both")
    log = appliance.log_events()
    assert appliance.stop() == 0

    # Back, on a machine that has nothing but the key.
    taken = appliance.cli("store", "copy", url, "sqlite:")
    assert taken.status == 1
    assert "in it already" in taken.err
    key = (appliance.data_dir / "secrets" / "cluster.key").read_bytes()
    shutil.rmtree(appliance.data_dir)
    (appliance.data_dir / "secrets").mkdir(mode=0o700, parents=True)
    appliance.data_dir.chmod(0o700)
    (appliance.data_dir / "secrets" / "cluster.key").write_bytes(key)
    (appliance.data_dir / "secrets" / "cluster.key").chmod(0o600)
    back = appliance.done("store", "copy", url, "sqlite:", "--json").json
    assert back["collections"]["events"]["rows"] == 4
    appliance.configure({"store": {"url": "sqlite:"}})
    appliance.start()
    assert who_is(appliance, token) == "ada@people.test"
    assert appliance.log_events() == log
    assert world.send(ALIAS).code == 250
    world.arrived(MAILBOX, 3)


def test_a_copy_that_was_broken_off_is_not_worked_with(world: World, mongod: Mongod) -> None:
    appliance, url = world.appliance, mongod.url_of("broken-off")
    assert appliance.stop() == 0
    with mongod.failing(["insert"], errorCode=11600, times=200):
        broken = appliance.cli("store", "copy", "sqlite:", url)
    assert broken.status == 1
    appliance.configure({"store": {"url": url}})
    refused = appliance.cli("account", "list")
    if "broken off" not in refused.err:
        # It failed before the first row.
        assert refused.status == 0
    appliance.configure({"store": {"url": "sqlite:"}})
    assert "still at FROM" in appliance.done("store", "copy", "sqlite:", url).err
    appliance.configure({"store": {"url": url}})
    assert len(appliance.done("account", "list", "--json").rows) == 2
