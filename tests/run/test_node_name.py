"""The name of a node: two that are alive do not have the same, and a node that starts again has its own at once."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from appliance_process import Appliance
from mongod import Mongod, running_mongod

from appliance.configuration import Configuration
from appliance.logbook.horizon import GONE_S
from appliance.run.node_name import machine_of, node_name


@pytest.fixture(scope="module")
def server() -> Iterator[Mongod]:
    with running_mongod(replica_set=True) as server:
        yield server


def a_node(directory: Path, server: Mongod, database: str) -> Appliance:
    store = {"store": {"url": server.url_of(database)}}
    return Appliance(directory, nameserver="127.0.0.1:9", delivery_port=9, settings=store)


def copied(node: Appliance, directory: Path, server: Mongod, database: str) -> Appliance:
    """A machine that was set up from a copy of the whole data directory."""
    copy = a_node(directory, server, database)
    shutil.copytree(node.data_dir, copy.data_dir, ignore=lambda _, names: [each for each in names if ".sock" in each])
    return copy


def test_a_name_is_drawn_once_and_a_place_is_told_from_its_copy(tmp_path: Path) -> None:
    config = Configuration(hostname="mx.onward.test", data_dir=tmp_path / "one")
    name = node_name(config)
    assert name.startswith("mx.onward.test ")
    shutil.copytree(config.data_dir, tmp_path / "other")
    copy = replace(config, data_dir=tmp_path / "other")
    assert node_name(copy) == node_name(config) == name
    assert machine_of(config) == machine_of(config)
    assert machine_of(copy) != machine_of(config)


def test_a_second_node_of_the_same_name_is_refused_and_the_first_goes_on(server: Mongod, tmp_path: Path) -> None:
    first = a_node(tmp_path / "first", server, "twice")
    with first:
        copy = copied(first, tmp_path / "copy", server, "twice")
        try:
            with pytest.raises(AssertionError, match="another node is running under the name of this one") as refused:
                copy.start()
            assert f"remove {copy.data_dir / 'node'} here" in str(refused.value)
            assert first.http("/health/ready")[0] == 200
            (copy.data_dir / "node").unlink()
            copy.start()
            assert copy.http("/health/ready")[0] == 200
        finally:
            copy.close()


def seconds_to_start(node: Appliance) -> float:
    began = time.monotonic()
    node.start()
    return time.monotonic() - began


def test_a_node_that_was_killed_starts_again_at_once(server: Mongod, tmp_path: Path) -> None:
    node = a_node(tmp_path / "node", server, "again")
    usual = seconds_to_start(node)
    try:
        node.kill()
        assert seconds_to_start(node) < usual + GONE_S / 2, "it has waited for itself"
    finally:
        node.close()


def test_a_name_is_free_again_when_its_node_has_ended(server: Mongod, tmp_path: Path) -> None:
    node = a_node(tmp_path / "node", server, "moved")
    usual = seconds_to_start(node)
    assert node.stop() == 0
    moved = copied(node, tmp_path / "moved", server, "moved")
    try:
        assert seconds_to_start(moved) < usual + GONE_S / 2
    finally:
        moved.close()
