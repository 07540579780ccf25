"""How a Redis is reached: in the clear, over TLS, as a user with a password, in a database, through Sentinels."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from certificates import Files, authority_file, certificate_for
from redis_server import HOST, PrivateRedis, Replicated, missing

from appliance.configuration import Configuration
from appliance.privacy.declarations import SESSIONS
from appliance.run import CannotStart
from appliance.run.ephemeral import open_ephemeral
from appliance.storage.records import StoreUnavailable
from appliance.storage.redis_address import RedisAddress
from appliance.storage.redis_ephemeral import PREFIX, RedisEphemeral
from appliance.storage.redis_server import RedisServer


@pytest.fixture(autouse=True)
def _there_is_one() -> None:
    if missing():
        pytest.skip(missing())


@pytest.fixture
def over_tls(tmp_path: Path) -> Iterator[PrivateRedis]:
    """A Redis that speaks TLS alone, and asks nobody who he is."""
    with PrivateRedis(tmp_path / "redis", "tls-auth-clients no", tls=certificate_for(HOST)) as server:
        yield server


def serves(address: RedisAddress, password: str | None = None, sentinel_password: str | None = None) -> bool:
    """Whether what is remembered there can be recalled."""
    store = RedisEphemeral(RedisServer(address, password, sentinel_password))
    try:
        store.remember(SESSIONS, b"cookie", b"sealed", b"account")
        return store.recall(SESSIONS, b"cookie") == b"sealed"
    except StoreUnavailable:
        return False
    finally:
        store.close()


def test_over_tls_a_server_is_believed_that_an_authority_knows(over_tls: PrivateRedis) -> None:
    address = replace(over_tls.address, tls=True, authorities=str(authority_file()))
    assert serves(address)
    assert not serves(replace(address, authorities="")), "this machine does not know that authority"
    assert not serves(replace(address, hosts=(("localhost", over_tls.port),))), "it is for another name"
    assert not serves(over_tls.address), "it does not speak in the clear"


def test_a_server_that_asks_for_a_certificate_gets_ours(tmp_path: Path) -> None:
    own = certificate_for("node.onward.test")
    together = tmp_path / "own.pem"
    together.write_bytes(own.certificate.read_bytes() + own.key.read_bytes())
    with PrivateRedis(tmp_path / "redis", "tls-auth-clients optional", tls=certificate_for(HOST)) as server:
        server.ask("CONFIG", "SET", "tls-auth-clients", "yes")
        address = replace(server.address, tls=True, authorities=str(authority_file()))
        assert serves(replace(address, certificate=str(together)))
        assert not serves(address)


def test_a_file_that_is_not_there_is_no_defect_but_a_store_that_is_away(over_tls: PrivateRedis) -> None:
    assert not serves(replace(over_tls.address, tls=True, authorities="/nowhere/authorities.pem"))


def test_a_user_comes_in_with_the_password_and_needs_to_see_our_keys_only(tmp_path: Path) -> None:
    may = "-@all +@read +@write -@dangerous +eval +evalsha +time +select +ping"
    user = f"user onward on >secret ~{PREFIX.decode()}* {may}"
    with PrivateRedis(tmp_path / "redis", user, "requirepass another") as server:
        address = replace(server.address, user="onward")
        assert serves(address, "secret")
        assert not serves(address, "wrong")
        assert serves(server.address, "another")
        assert not serves(server.address)


def test_databases_do_not_see_each_other(redis: PrivateRedis) -> None:
    assert serves(replace(redis.address, database=3))
    assert redis.ask("DBSIZE") == 0


def test_a_sentinel_may_want_a_password_of_its_own(tmp_path: Path) -> None:
    with Replicated(tmp_path) as servers:
        assert serves(servers.address)
        servers.sentinel.ask("ACL", "SETUSER", "default", "resetpass", ">secret")
        assert serves(servers.address, sentinel_password="secret")
        assert not serves(servers.address)


def test_a_sentinel_that_does_not_answer_is_passed_over(tmp_path: Path) -> None:
    with Replicated(tmp_path) as servers, PrivateRedis(tmp_path / "silent") as silent, silent.held():
        assert serves(replace(servers.address, hosts=((HOST, silent.port), *servers.address.hosts)))


def test_servers_and_sentinels_over_tls(tmp_path: Path) -> None:
    files: Files = certificate_for(HOST)
    secured = ("tls-auth-clients no", "tls-replication yes")
    with (
        PrivateRedis(tmp_path / "server", *secured, tls=files) as server,
        PrivateRedis(
            tmp_path / "sentinel",
            *secured,
            f"sentinel monitor mymaster {HOST} {server.port} 1",
            tls=files,
            sentinel=True,
        ) as sentinel,
    ):
        address = replace(sentinel.address, service="mymaster", tls=True, authorities=str(authority_file()))
        assert serves(address)
        assert not serves(replace(address, service="another"))


@dataclass(frozen=True)
class Place:
    """A data directory, and what its configuration says."""

    config: Configuration

    def secret(self, name: str, text: str) -> None:
        """Put a secret there."""
        directory = self.config.data_dir / "secrets"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory / name).touch(mode=0o600)
        (directory / name).write_text(text)


def configured(tmp_path: Path, ephemeral: RedisAddress | None) -> Place:
    """An appliance with this store."""
    config = Configuration(hostname="mx.onward.test", data_dir=tmp_path / "var")
    return Place(replace(config, store=replace(config.store, ephemeral=ephemeral)))


def test_passwords_come_from_the_secrets(tmp_path: Path) -> None:
    with PrivateRedis(tmp_path / "redis", "user onward on >secret ~* +@all") as server:
        place = configured(tmp_path, replace(server.address, user="onward"))
        with pytest.raises(CannotStart, match="redis-password"):
            open_ephemeral(place.config)
        place.secret("redis-password", "secret\n")
        store, _ = open_ephemeral(place.config)
        store.check()


def test_in_memory_the_key_is_of_one_process_and_in_a_redis_of_all(tmp_path: Path) -> None:
    in_memory = configured(tmp_path / "memory", None)
    macs = [open_ephemeral(in_memory.config)[1].mac("ada", "who") for _ in range(2)]
    assert macs[0] != macs[1]
    assert not (in_memory.config.data_dir / "secrets").exists()
    # Nothing has to answer yet.
    shared = configured(tmp_path / "redis", RedisAddress(hosts=((HOST, 1),)))
    macs = [open_ephemeral(shared.config)[1].mac("ada", "who") for _ in range(2)]
    assert macs[0] == macs[1]
    assert (shared.config.data_dir / "secrets" / "ephemeral.key").stat().st_mode & 0o777 == 0o600


def test_what_is_said_of_sentinels_that_do_not_answer_is_short() -> None:
    address = RedisAddress(hosts=((HOST, 1), (HOST, 2)), service="mymaster")
    with pytest.raises(StoreUnavailable, match=r"no Sentinel answers that knows a server of this name$"):
        RedisEphemeral(RedisServer(address, "secret")).check()
