"""Nodes that share a store share its keys, which stand in it under one key that each node holds as a file."""

import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier

import pytest
from mongod import Mongod
from storage_backends import MongoBackend
from stored_values import an_event

from appliance.command_line.check import check_secrets
from appliance.command_line.findings import Grade
from appliance.configuration import Configuration
from appliance.configuration.settings import Store
from appliance.privacy.declarations import CLUSTER_KEYS, EVENTS, collections_of
from appliance.privacy.sealing import KEY_OCTETS, Keyring, Sealer
from appliance.run.cluster_keys import CLUSTER_KEY, ClusterKeyUnfit, ClusterSecrets, KeysDiffer
from appliance.run.lost_keys import KeyLost
from appliance.run.stores import ALL_KEYS, keyring, open_records, secrets
from appliance.storage.event_rows import event_to_row
from appliance.storage.records import Delete, Insert, RecordStore
from appliance.storage.sqlite_records import SqliteRecords

Opened = Callable[[Keyring], RecordStore]
MakeNode = Callable[[str], ClusterSecrets]


@pytest.fixture
def make_node(opened: Opened, tmp_path: Path) -> MakeNode:
    """A node by its name: with a data directory of its own, and the store that all share."""
    return lambda name: ClusterSecrets(tmp_path / name, None, opened)


def put(node: ClusterSecrets, name: str, octets: bytes) -> Path:
    """Give a node a key as a file, as somebody does who brings it from another."""
    path = node.file_of(name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(0o600)
    path.write_bytes(octets)
    return path


def bring(name: str, giver: ClusterSecrets, taker: ClusterSecrets) -> None:
    put(taker, name, giver.file_of(name).read_bytes())


def rows(opened: Opened) -> list[object]:
    """The names that are in the store."""
    records = opened({})
    try:
        return records.distinct(CLUSTER_KEYS, "name", {})
    finally:
        records.close()


def take_out(opened: Opened, name: str) -> None:
    records = opened({})
    records.apply([Delete(CLUSTER_KEYS, {"name": name})])
    records.close()


def spoil(opened: Opened, name: str) -> None:
    """Have a row there that the key of the store does not open."""
    take_out(opened, name)
    records = opened({CLUSTER_KEY: Sealer(b"?" * KEY_OCTETS)})
    records.apply([Insert(CLUSTER_KEYS, {"name": name, "octets": bytes(KEY_OCTETS), "created_at": 1})])
    records.close()


# ---------------------------------------------------------------------- one store, one set of keys


def test_all_nodes_use_the_same_keys_and_hold_one_file(make_node: MakeNode, tmp_path: Path) -> None:
    one, two = make_node("one"), make_node("two")
    made = one.keys(["srs", "log"])
    bring(CLUSTER_KEY, one, two)
    assert two.keys(["log", "srs"]) == made
    assert two.key("spool") == one.key("spool")
    assert len({*made.values(), one.key("spool"), one.key(CLUSTER_KEY)}) == 4
    assert one.key(CLUSTER_KEY) == two.key(CLUSTER_KEY)
    for node in ("one", "two"):
        assert [path.name for path in (tmp_path / node / "secrets").iterdir()] == ["cluster.key"]
    assert stat.S_IMODE(one.file_of(CLUSTER_KEY).stat().st_mode) == 0o600


def test_no_key_stands_in_the_store_in_the_clear(make_node: MakeNode, opened: Opened, tmp_path: Path) -> None:
    key = make_node("one").key("srs")
    for path in tmp_path.iterdir():
        if path.is_file():
            assert key not in path.read_bytes()
    records = opened({CLUSTER_KEY: Sealer(bytes(KEY_OCTETS))})
    try:
        with pytest.raises(Exception, match="can't be opened"):
            records.get(CLUSTER_KEYS, {"name": "srs"})
    finally:
        records.close()


def test_whether_a_key_exists_is_asked_without_making_any(make_node: MakeNode, tmp_path: Path) -> None:
    one = make_node("one")
    assert not one.exists("srs")
    assert not (tmp_path / "one").exists()
    one.key("srs")
    # Whoever has no key of the store sees what it has all the same.
    assert make_node("two").exists("srs")
    assert not make_node("two").exists("log")


def test_the_key_may_come_from_systemd(make_node: MakeNode, opened: Opened, tmp_path: Path) -> None:
    one = make_node("one")
    made = one.key("srs")
    handed_over = tmp_path / "credentials"
    handed_over.mkdir()
    file = handed_over / "cluster.key"
    file.write_bytes(one.file_of(CLUSTER_KEY).read_bytes())
    file.chmod(0o440)
    two = ClusterSecrets(tmp_path / "two", handed_over, opened)
    assert two.key("srs") == made
    assert not (tmp_path / "two").exists()


def test_nodes_that_want_the_same_key_at_once_make_one(make_node: MakeNode) -> None:
    nodes = [make_node(str(number)) for number in range(4)]
    for node in nodes:
        put(node, CLUSTER_KEY, b"c" * KEY_OCTETS)
    for name in ("srs", "log", "receipts"):
        together = Barrier(len(nodes))

        def ask(node: ClusterSecrets, name: str = name, together: Barrier = together) -> bytes:
            together.wait()
            return node.key(name)

        with ThreadPoolExecutor(len(nodes)) as threads:
            assert len(set(threads.map(ask, nodes))) == 1


# ---------------------------------------------------------------------- the wrong key, and none


def test_a_node_without_the_key_of_the_store_makes_none_and_says_what_to_bring(
    make_node: MakeNode, tmp_path: Path
) -> None:
    one, two = make_node("one"), make_node("two")
    made = one.key("srs")
    file = tmp_path / "two" / "secrets" / "cluster.key"
    with pytest.raises(ClusterKeyUnfit, match=rf"^{file} is not there, .*ssh other-node cat {file} > {file}"):
        two.key("srs")
    assert not file.exists()
    bring(CLUSTER_KEY, one, two)
    assert two.key("srs") == made


def test_a_node_with_another_key_is_refused_before_it_changes_anything(make_node: MakeNode, opened: Opened) -> None:
    one, two = make_node("one"), make_node("two")
    one.key("srs")
    before = rows(opened)
    file = put(two, CLUSTER_KEY, b"x" * KEY_OCTETS)
    for name in ("srs", "log"):
        with pytest.raises(ClusterKeyUnfit, match=rf"^{file} is not the key of this store, .*ssh other-node cat"):
            two.key(name)
    assert rows(opened) == before == [CLUSTER_KEY, "srs"]


def test_a_store_whose_mark_was_taken_out_still_knows_its_key(make_node: MakeNode, opened: Opened) -> None:
    one, two = make_node("one"), make_node("two")
    made = one.key("srs")
    take_out(opened, CLUSTER_KEY)
    put(two, CLUSTER_KEY, b"x" * KEY_OCTETS)
    with pytest.raises(ClusterKeyUnfit):
        two.key("log")
    assert one.key("srs") == made
    assert rows(opened) == [CLUSTER_KEY, "srs"]


def test_of_two_that_begin_at_once_with_a_key_each_one_is_refused(make_node: MakeNode) -> None:
    nodes = [make_node("one"), make_node("two")]
    for node, octet in zip(nodes, (b"1", b"2"), strict=True):
        put(node, CLUSTER_KEY, octet * KEY_OCTETS)
    together = Barrier(2)

    def begin(node: ClusterSecrets) -> dict[str, bytes] | None:
        together.wait()
        try:
            return node.keys(ALL_KEYS)
        except ClusterKeyUnfit:
            return None

    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(begin, nodes))
    assert sum(result is None for result in results) == 1
    winner = nodes[0 if results[1] is None else 1]
    assert winner.keys(ALL_KEYS) in results


# ---------------------------------------------------------------------- keys that are lost


def test_a_key_that_does_not_open_is_lost_and_another_is_not_made(make_node: MakeNode, opened: Opened) -> None:
    one = make_node("one")
    made = one.key("log")
    spoil(opened, "log")
    for ask in (lambda: one.key("log"), lambda: one.keys_of_store(["log"], lambda: ["log"])):
        with pytest.raises(KeyLost, match=rf"'log' does not open.*Take that row out.*Put {one.file_of('log')} back"):
            ask()
    # As it says there.
    take_out(opened, "log")
    put(one, "log", made)
    assert one.key("log") == made
    one.file_of("log").unlink()
    assert one.key("log") == made


def test_rows_under_a_key_that_the_store_has_no_more_stop_the_start(make_node: MakeNode, opened: Opened) -> None:
    one = make_node("one")
    made = one.keys_of_store(["log", "accounts"], list)
    take_out(opened, "log")
    with pytest.raises(KeyLost, match=r"under the key 'log', .* has it no more\. Put .*/secrets/log\.key back"):
        one.keys_of_store(["log", "accounts"], lambda: ["log", "accounts"])
    assert one.keys_of_store(["log"], lambda: ["accounts"])["log"] != made["log"]


def test_a_spool_whose_key_is_lost_says_which_collections_to_empty(make_node: MakeNode) -> None:
    one = make_node("one")
    with pytest.raises(KeyLost, match=r"without the mail that is in it, empty the collections deliveries, content, "):
        one.keys_of_store(["spool"], lambda: ["spool"])


def test_a_key_that_another_node_makes_and_uses_meanwhile_is_not_lost(make_node: MakeNode) -> None:
    one, two = make_node("one"), make_node("two")
    one.key("srs")
    bring(CLUSTER_KEY, one, two)

    def in_use() -> list[str]:
        two.key("log")
        return ["log"]

    assert one.keys_of_store(["log"], in_use) == {"log": two.key("log")}


# ---------------------------------------------------------------------- from a single machine, and back


def test_the_keys_of_a_single_machine_come_along(make_node: MakeNode) -> None:
    one, two = make_node("one"), make_node("two")
    put(one, "log", b"l" * KEY_OCTETS)
    put(one, "srs", b"s" * KEY_OCTETS)
    assert one.carry_in([*ALL_KEYS]) == ["log", "srs"]
    assert one.carry_in([*ALL_KEYS]) == ["log", "srs"]
    bring(CLUSTER_KEY, one, two)
    # What another machine had for itself counts for nothing here.
    put(two, "log", b"x" * KEY_OCTETS)
    assert two.keys(["log", "srs"]) == {"log": b"l" * KEY_OCTETS, "srs": b"s" * KEY_OCTETS}


def test_a_file_is_taken_for_a_key_that_the_store_lacks(make_node: MakeNode) -> None:
    one = make_node("one")
    put(one, "log", b"l" * KEY_OCTETS)
    assert one.keys_of_store(["log"], lambda: ["log"]) == {"log": b"l" * KEY_OCTETS}


def test_keys_do_not_come_along_into_a_store_with_others(make_node: MakeNode, opened: Opened) -> None:
    one = make_node("one")
    there = one.key("log")
    put(one, "log", b"l" * KEY_OCTETS)
    put(one, "accounts", b"a" * KEY_OCTETS)
    with pytest.raises(KeysDiffer, match=rf"^{one.file_of('log')} and the key 'log' of the store .* are two different"):
        one.carry_in(ALL_KEYS)
    assert rows(opened) == [CLUSTER_KEY, "log"]
    assert one.key("log") == there


def test_the_keys_of_the_store_go_back_to_a_single_machine(make_node: MakeNode) -> None:
    one = make_node("one")
    made = one.keys(["log", "spool"])
    put(one, "log", made["log"])
    assert one.carry_out(ALL_KEYS) == ["log", "spool"]
    assert {name: one.file_of(name).read_bytes() for name in made} == made
    assert stat.S_IMODE(one.file_of("spool").stat().st_mode) == 0o600


def test_the_keys_of_one_shared_store_go_to_another(
    make_node: MakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.storage.sqlite_records.collections_of", partial(collections_of, shared=True))
    one = make_node("one")
    there = ClusterSecrets(tmp_path / "one", None, partial(SqliteRecords, tmp_path / "elsewhere.sqlite"))
    made = one.keys(["log", "spool"])
    assert one.stored(ALL_KEYS) == made
    there.take(one.stored(ALL_KEYS))
    assert there.keys(["log", "spool"]) == made
    assert there.key("srs") != one.key("srs")
    with pytest.raises(KeysDiffer):
        there.take(one.stored(["srs"]))


def test_the_keys_of_the_store_overwrite_no_others(make_node: MakeNode) -> None:
    one = make_node("one")
    one.keys(["accounts", "log"])
    put(one, "log", b"l" * KEY_OCTETS)
    with pytest.raises(KeysDiffer):
        one.carry_out(ALL_KEYS)
    assert not one.file_of("accounts").exists()


# ---------------------------------------------------------------------- nodes on a real server


@pytest.fixture
def cluster(
    mongod: Mongod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Configuration]]:
    """The configuration of a node by its name, with an empty database that all share."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    place = MongoBackend(mongod)
    yield lambda name: Configuration(hostname="mx.example.net", data_dir=tmp_path / name, store=Store(url=place.url))
    place.close()


_PROCESS = """
import sys
from pathlib import Path
from appliance.configuration import Configuration
from appliance.configuration.settings import Store
from appliance.run.stores import ALL_KEYS, open_records, secrets
config = Configuration(hostname="mx.example.net", data_dir=Path(sys.argv[1]), store=Store(url=sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
open_records(config).close()
print(b"".join(secrets(config).keys(ALL_KEYS).values()).hex())
"""


def started_at_once(*configs: Configuration) -> list[str]:
    """What processes say of their keys that open the store at the same moment."""
    command = [sys.executable, "-c", _PROCESS]
    processes = [
        subprocess.Popen(
            [*command, str(config.data_dir), config.store.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for config in configs
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        said = []
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in processes:
            out, err = process.communicate(timeout=60)
            said.append(out.strip() or err.strip().splitlines()[-1])
        return said
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_two_processes_of_the_first_node_begin_with_the_same_keys(cluster: Callable[[str], Configuration]) -> None:
    one = cluster("one")
    first, second = started_at_once(one, one)
    assert first == second
    assert len(first) == 2 * KEY_OCTETS * len(ALL_KEYS)
    assert [path.name for path in (one.data_dir / "secrets").iterdir()] == ["cluster.key"]


def test_two_first_nodes_that_start_at_once_do_not_mix_their_keys(cluster: Callable[[str], Configuration]) -> None:
    configs = [cluster("one"), cluster("two")]
    said = started_at_once(*configs)
    refused = [number for number, each in enumerate(said) if "ClusterKeyUnfit" in each]
    assert len(refused) == 1, said
    winner = configs[1 - refused[0]]
    assert b"".join(secrets(winner).keys(ALL_KEYS).values()).hex() == said[1 - refused[0]]


def test_what_one_node_seals_another_opens(cluster: Callable[[str], Configuration]) -> None:
    one, two = cluster("one"), cluster("two")
    event = event_to_row(an_event())
    records = open_records(one)
    records.apply([Insert(EVENTS, event)])
    with pytest.raises(ClusterKeyUnfit, match=f"{two.data_dir}/secrets/cluster.key is not there"):
        open_records(two)
    (two.data_dir / "secrets").mkdir(mode=0o700)
    file = two.data_dir / "secrets" / "cluster.key"
    file.touch(0o600)
    file.write_bytes(bytes(KEY_OCTETS))
    with pytest.raises(ClusterKeyUnfit, match="is not the key of this store"):
        open_records(two)
    file.write_bytes((one.data_dir / "secrets" / "cluster.key").read_bytes())
    others = open_records(two)
    assert others.get(EVENTS, {"id": event["id"]}) == records.get(EVENTS, {"id": event["id"]})
    assert keyring(two, ["srs"])["srs"].mac("a", "b") == keyring(one, ["srs"])["srs"].mac("a", "b")
    records.close()
    others.close()


def test_a_log_whose_key_is_gone_from_the_store_is_not_opened_with_a_new_one(
    cluster: Callable[[str], Configuration],
) -> None:
    one = cluster("one")
    key = secrets(one).key("log")
    records = open_records(one)
    records.apply([Insert(EVENTS, event_to_row(an_event())), Delete(CLUSTER_KEYS, {"name": "log"})])
    records.close()
    with pytest.raises(KeyLost, match=r"Put .*/secrets/log\.key back"):
        open_records(one)
    secrets(one).keep("log", key)
    records = open_records(one)
    assert records.find(EVENTS, {}) == [dict(event_to_row(an_event()))]
    records.close()


def test_a_check_says_how_it_is_with_the_keys_and_makes_none(cluster: Callable[[str], Configuration]) -> None:
    one, two = cluster("one"), cluster("two")
    found = check_secrets(one)
    assert (found.grade, found.detail[:29]) == (Grade.OK, "to be made at their first use")
    assert not one.data_dir.exists()
    secrets(one).keys(ALL_KEYS)
    found = check_secrets(one)
    assert (found.grade, found.detail.split()[0]) == (Grade.OK, f"{one.data_dir}/secrets/cluster.key")
    found = check_secrets(two)
    assert (found.grade, found.detail.split(",")[0]) == (
        Grade.FAULT,
        f"{two.data_dir}/secrets/cluster.key is not there",
    )
    assert not two.data_dir.exists()
