"""Nodes that share a store show one certificate, which stands in it; one of them makes the next."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import cast

import pytest
import trio
import trio.testing
from certificates import shown
from cryptography import x509
from mongod import Mongod
from storage_backends import MongoBackend

from appliance.configuration import Configuration
from appliance.configuration.settings import Store
from appliance.privacy.declarations import CLUSTER_KEYS
from appliance.privacy.sealing import KEY_OCTETS, Keyring, Sealer
from appliance.privacy.secrets import Secrets
from appliance.run.certificates import CertificateUnfit, server_tls
from appliance.run.chores import turn
from appliance.run.cluster_keys import CLUSTER_KEY, ClusterKeys
from appliance.run.own_certificate import LIVES, OWN_CERTIFICATE, RENEWED_BEFORE, describe, names_of, self_signed
from appliance.run.shared_certificate import CHORE, LOOK_S, MOST_NAMES, at_first, keep_current, look, show
from appliance.storage.records import Delete, Insert, RecordStore, StoreUnavailable
from smtp.tls import server_context

HOSTNAME = "mx1.onward.test"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def clock() -> int:
    return int(NOW.timestamp() * 1000)


@pytest.fixture
def records(opened: Callable[[Keyring], RecordStore]) -> Iterator[RecordStore]:
    """What the nodes share, with the key that they hold."""
    records = opened({CLUSTER_KEY: Sealer(bytes(KEY_OCTETS))})
    yield records
    records.close()


@pytest.fixture
def own(tmp_path: Path) -> Secrets:
    """The files of a node that has none."""
    return Secrets(tmp_path / "var", None)


def begun(records: RecordStore, own: Secrets, hostname: str = HOSTNAME) -> bytes:
    return at_first(ClusterKeys(records, clock), hostname, own, NOW)


def stored(records: RecordStore, pem: bytes) -> bytes:
    """Have this one stand there."""
    records.apply([Delete(CLUSTER_KEYS, {"name": OWN_CERTIFICATE})])
    return ClusterKeys(records, clock).once(OWN_CERTIFICATE, pem).octets


def names(pem: bytes | None) -> tuple[str, ...]:
    assert pem is not None
    return names_of(x509.load_pem_x509_certificate(pem))


# ---------------------------------------------------------------------- which one there is


def test_the_first_node_makes_it_and_the_others_begin_with_it(records: RecordStore, own: Secrets) -> None:
    first = begun(records, own)
    assert names(first) == (HOSTNAME,)
    assert begun(records, own) == begun(records, own, "mx2.onward.test") == first
    assert not own.file_of("any").parent.exists()


def test_a_single_machine_goes_on_with_the_one_that_it_has_shown(records: RecordStore, own: Secrets) -> None:
    former = self_signed(HOSTNAME, NOW)
    own.renewed(OWN_CERTIFICATE, lambda _: former)
    assert begun(records, own).strip() == former.strip()


def test_one_of_another_name_does_not_come_along(records: RecordStore, own: Secrets) -> None:
    own.renewed(OWN_CERTIFICATE, lambda _: self_signed("old.onward.test", NOW))
    assert names(begun(records, own)) == (HOSTNAME,)


def test_each_node_has_its_name_put_there_once(records: RecordStore, own: Secrets) -> None:
    begun(records, own)
    assert names(look(records, "mx2.onward.test", "two", clock)) == ("mx2.onward.test", HOSTNAME)
    third = look(records, "mx3.onward.test", "three", clock)
    assert names(third) == ("mx3.onward.test", "mx2.onward.test", HOSTNAME)
    for hostname in (HOSTNAME, "mx2.onward.test", "mx3.onward.test"):
        assert look(records, hostname, "any", clock) == third


def test_one_that_is_nearly_over_is_made_again_for_all_its_names(records: RecordStore) -> None:
    for left, stays in ((RENEWED_BEFORE + timedelta(days=1), True), (RENEWED_BEFORE - timedelta(days=1), False)):
        old = stored(records, self_signed(HOSTNAME, NOW - LIVES + left, ["mx2.onward.test"]))
        found = look(records, HOSTNAME, "one", clock)
        assert (found == old) is stays
        assert names(found) == (HOSTNAME, "mx2.onward.test")


def test_names_are_not_gathered_without_an_end(records: RecordStore) -> None:
    stored(records, self_signed(HOSTNAME, NOW, [f"old{number}.onward.test" for number in range(MOST_NAMES)]))
    found = names(look(records, "new.onward.test", "one", clock))
    assert len(found) == MOST_NAMES
    assert found[:2] == ("new.onward.test", HOSTNAME)


def test_one_node_at_a_time_makes_the_next(records: RecordStore) -> None:
    old = stored(records, self_signed(HOSTNAME, NOW - LIVES))
    with turn(records, CHORE, "one", clock) as mine:
        assert mine
        assert look(records, HOSTNAME, "two", clock) == old
    assert look(records, HOSTNAME, "two", clock) != old


def test_nodes_that_find_it_due_at_once_make_one(opened: Callable[[Keyring], RecordStore]) -> None:
    nodes = [opened({CLUSTER_KEY: Sealer(bytes(KEY_OCTETS))}) for _ in range(4)]
    for _ in range(5):
        old = stored(nodes[0], self_signed(HOSTNAME, NOW - LIVES))
        together = Barrier(len(nodes))

        def renew(records: RecordStore, together: Barrier = together) -> bytes | None:
            together.wait()
            return look(records, HOSTNAME, f"{id(records)}", clock)

        with ThreadPoolExecutor(len(nodes)) as threads:
            found = set(threads.map(renew, nodes))
        # Whoever had to wait still sees the old one; nobody sees a second new one, now or later.
        found.add(look(nodes[0], HOSTNAME, "any", clock))
        assert len(found - {old}) == 1
    for node in nodes:
        node.close()


def test_a_certificate_that_was_replaced_meanwhile_is_not_replaced_again(records: RecordStore) -> None:
    keys = ClusterKeys(records, clock)
    seen = keys.once(OWN_CERTIFICATE, b"one")
    assert keys.replace(OWN_CERTIFICATE, seen, b"two")
    assert not keys.replace(OWN_CERTIFICATE, seen, b"three")
    kept = keys.get(OWN_CERTIFICATE)
    assert kept is not None
    assert (kept.octets, kept.created_at > seen.created_at) == (b"two", True)


def test_one_that_does_not_open_is_named_with_what_to_do(
    records: RecordStore, own: Secrets, opened: Callable[[Keyring], RecordStore]
) -> None:
    other = opened({CLUSTER_KEY: Sealer(b"?" * KEY_OCTETS)})
    other.apply([Insert(CLUSTER_KEYS, {"name": OWN_CERTIFICATE, "octets": b"", "created_at": 1})])
    other.close()
    with pytest.raises(CertificateUnfit, match=r"under 'tls\.pem' does not open any more: take that row out"):
        begun(records, own)


# ---------------------------------------------------------------------- who sees it


def test_another_one_is_shown_from_the_next_handshake_on(tmp_path: Path) -> None:
    first, second = self_signed("one.onward.test", NOW), self_signed("two.onward.test", NOW)
    file = tmp_path / "tls.pem"
    file.write_bytes(first)
    context = server_context(file, file)
    assert shown(context) == x509.load_pem_x509_certificate(first)
    show(context, second)
    assert shown(context) == x509.load_pem_x509_certificate(second)


class Away:
    """A record store in front of another, which can be away."""

    def __init__(self, records: RecordStore) -> None:
        self.away = False
        self._records = records

    def __getattr__(self, name: str) -> object:
        if self.away:
            raise StoreUnavailable("the server is away")
        return getattr(self._records, name)


async def test_what_one_node_makes_the_others_show_within_a_minute(
    records: RecordStore,
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def inline(function: Callable[..., object], *arguments: object) -> object:
        # The clock would jump while a thread works.
        return function(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", inline)
    former = tmp_path / "tls.pem"
    former.write_bytes(stored(records, self_signed(HOSTNAME, NOW)))
    context = server_context(former, former)
    store = Away(records)
    shared = cast(RecordStore, store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_current, context, shared, HOSTNAME, "one", clock)
        await trio.sleep(LOOK_S / 2)
        assert shown(context) == x509.load_pem_x509_certificate(former.read_bytes())
        store.away = True
        made = look(records, "mx2.onward.test", "two", clock)
        caplog.set_level(logging.INFO, "appliance")
        caplog.clear()
        await trio.sleep(4 * LOOK_S)
        assert shown(context) == x509.load_pem_x509_certificate(former.read_bytes())
        store.away = False
        await trio.sleep(60)
        assert made is not None
        assert shown(context) == x509.load_pem_x509_certificate(made)
        nursery.cancel_scope.cancel()
    assert [record.getMessage() for record in caplog.records] == [
        "our own certificate stays as it is: the server is away",
        "our own certificate can be looked at again",
    ]


# ---------------------------------------------------------------------- on a real server


@pytest.fixture
def cluster(
    mongod: Mongod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Configuration]]:
    """The configuration of a node by its name, with an empty database that all share."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    place = MongoBackend(mongod)
    yield lambda name: Configuration(
        hostname=f"{name}.onward.test", data_dir=tmp_path / name, store=Store(url=place.url)
    )
    place.close()


def test_nodes_offer_the_same_certificate_and_have_it_on_no_disk(cluster: Callable[[str], Configuration]) -> None:
    one, two = cluster("mx1"), cluster("mx2")
    first = shown(server_tls(one))
    secrets = two.data_dir / "secrets"
    secrets.mkdir(mode=0o700, parents=True)
    (secrets / "cluster.key").touch(0o600)
    (secrets / "cluster.key").write_bytes((one.data_dir / "secrets" / "cluster.key").read_bytes())
    assert shown(server_tls(two)) == first
    assert names_of(first) == ("mx1.onward.test",)
    assert [path.name for path in secrets.iterdir()] == ["cluster.key"]
    told = describe(two)
    assert told is not None
    assert (told.own, told.names) == (True, ("mx1.onward.test",))


def test_a_store_without_a_certificate_says_so(cluster: Callable[[str], Configuration]) -> None:
    assert describe(cluster("mx1")) is None
