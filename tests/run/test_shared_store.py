"""The store that nodes share is opened with the password that is among the secrets."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from mongod import Mongod, running_mongod
from stored_values import a_row

from appliance.configuration import Configuration
from appliance.privacy.declarations import ACCOUNTS
from appliance.privacy.secrets import SecretRefused
from appliance.run import CannotStart
from appliance.run.stores import MONGODB_PASSWORD, open_records, shared_url
from appliance.storage.records import Insert, StoreUnavailable

PASSWORD = "p@ss:/wörd"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Mongod]:
    """A server that lets in one user, who may do in one database what the manual asks for."""
    with running_mongod() as server:
        with server.client() as client:
            roles = [{"role": role, "db": "onward"} for role in ("readWrite", "dbAdmin")]
            client.admin.command("createUser", "on@ward", pwd=PASSWORD, roles=roles)
        server.stop()
        server.options = ("--auth",)
        server.start()
        yield server


@pytest.fixture
def config(guarded: Mongod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configuration:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    config = Configuration(hostname="mx.example.net", data_dir=tmp_path / "data")
    url = guarded.url_of("onward").replace("//", "//on%40ward@") + "?authSource=admin"
    return replace(config, store=replace(config.store, url=url))


def write_password(config: Configuration, password: str, mode: int = 0o600) -> Path:
    path = config.data_dir / "secrets" / MONGODB_PASSWORD
    path.parent.mkdir(parents=True, mode=0o700)
    path.write_text(f"{password}\n")
    path.chmod(mode)
    return path


def test_the_password_of_the_secrets_opens_the_store(config: Configuration) -> None:
    write_password(config, PASSWORD)
    records = open_records(config)
    assert records.apply([Insert(ACCOUNTS, a_row(ACCOUNTS, 1))]) == [1]
    records.close()
    records = open_records(config)
    assert records.count(ACCOUNTS, {}) == 1
    records.close()


def test_another_password_does_not(config: Configuration) -> None:
    write_password(config, "hunter2")
    with pytest.raises(StoreUnavailable, match=r"the user in store\.url is not known there") as caught:
        open_records(config)
    assert "hunter2" not in str(caught.value)


def test_a_user_without_a_password_is_told_how_to_give_it(config: Configuration) -> None:
    """On a machine where nothing has run yet, so that there is no directory to write it into either."""
    with pytest.raises(CannotStart, match="there is no password") as caught:
        shared_url(config)
    (command,) = re.findall(r"(\(umask 077; .*?\))", str(caught.value))
    subprocess.run(["sh", "-c", command], input=f"{PASSWORD}\n", text=True, check=True)
    assert f":{quote(PASSWORD, safe='')}@" in shared_url(config)


def test_a_password_that_others_can_read_is_refused(config: Configuration) -> None:
    path = write_password(config, PASSWORD, mode=0o644)
    with pytest.raises(SecretRefused, match=str(path)):
        open_records(config)


def test_where_no_user_is_named_or_a_certificate_says_who_we_are_no_password_is_asked_for(
    config: Configuration,
) -> None:
    for url in ("mongodb://host/onward", "mongodb://u@host/onward?tls=true&tlsCertificateKeyFile=/etc/own.pem"):
        assert shared_url(replace(config, store=replace(config.store, url=url))) == url
